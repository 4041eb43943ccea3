from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from gate.budget import CONNECT, CONNECT_SHARE
from gate.reason import SCOPE_OF, Reason
from gate.smtp.classify import Outcome
from gate.smtp.dialog import Stage
from gate.smtp.reply import Reply
from gate.smtp.walk import Walk, asks_another, connect_seconds


@dataclass(frozen=True)
class Mx:
    name: str
    preference: int


def walk_of(*preferences: int, seed: int = 1) -> Walk[Mx]:
    hosts = [Mx(f"mx{number}", preference) for number, preference in enumerate(preferences)]
    return Walk(hosts, shuffle=random.Random(seed).shuffle)


def says(reason: Reason, *, reply: bool = True) -> Outcome:
    return Outcome(reason, SCOPE_OF[reason], Reply(550, ("text",)) if reply else None)


def visit_all(walk: Walk[Mx], outcome: Outcome, stage: Stage) -> list[str]:
    visited = []
    while host := walk.next():
        visited.append(host.name)
        walk.told(host, outcome, stage)
    return visited


UNREACHED = says(Reason.NO_CONNECT, reply=False)


def test_hosts_come_by_preference_and_only_two_are_dialled() -> None:
    assert visit_all(walk_of(30, 10, 20, 5), UNREACHED, Stage.CONNECT) == ["mx3", "mx1"]


def test_equal_preferences_come_in_random_order_behind_lower_ones() -> None:
    orders = {
        tuple(visit_all(walk_of(10, 10, 10, 0, seed=seed), UNREACHED, Stage.CONNECT))
        for seed in range(50)
    }
    assert {first for first, _ in orders} == {"mx3"}
    assert {second for _, second in orders} == {"mx0", "mx1", "mx2"}


def test_a_domain_without_hosts_has_no_result() -> None:
    walk = walk_of()
    assert walk.next() is None
    assert walk.result is None


# (name, reason, stage, is the next host asked)
ROWS = [
    ("C01 refused", Reason.NO_CONNECT, Stage.CONNECT, True),
    ("C07 silence", Reason.TIMEOUT, Stage.GREETING, False),
    ("C08 closed at once", Reason.NO_CONNECT, Stage.GREETING, True),
    ("C12 554 banner", Reason.PROBE_BLOCKED, Stage.GREETING, True),
    ("C13 421 banner", Reason.DEFERRED, Stage.GREETING, True),
    ("C13 450 banner", Reason.GREYLISTED, Stage.GREETING, True),
    ("C16 not SMTP", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C17 ourselves", Reason.MX_UNROUTABLE, Stage.GREETING, False),
    ("E02 HELO refused", Reason.PROBE_BLOCKED, Stage.HELO, False),
    ("E03 EHLO refused", Reason.PROBE_BLOCKED, Stage.EHLO, False),
    ("E04 421 to EHLO", Reason.DEFERRED, Stage.EHLO, True),
    ("E08 closed after EHLO", Reason.NO_CONNECT, Stage.MAIL, True),
    ("E15 TLS fails", Reason.TLS_FAILED, Stage.TLS, False),
    ("M02 greylisted at MAIL", Reason.GREYLISTED, Stage.MAIL, False),
    ("M03 rate at MAIL", Reason.DEFERRED, Stage.MAIL, False),
    ("M04 blocked at MAIL", Reason.PROBE_BLOCKED, Stage.MAIL, False),
    ("M10 closed at MAIL", Reason.NO_CONNECT, Stage.MAIL, True),
    ("R01 accepted", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("R07 refused", Reason.REJECTED_EMAIL, Stage.RCPT, False),
    ("R10 blocked at RCPT", Reason.PROBE_BLOCKED, Stage.RCPT, False),
    ("R11 relay denied", Reason.RELAY_DENIED, Stage.RCPT, True),
    ("R18 greylisted", Reason.GREYLISTED, Stage.RCPT, False),
    ("R24 421 at RCPT", Reason.DEFERRED, Stage.RCPT, False),
    ("R36 closed at RCPT", Reason.NO_CONNECT, Stage.RCPT, True),
    ("R37 silence at RCPT", Reason.TIMEOUT, Stage.RCPT, False),
]


@pytest.mark.parametrize(("name", "reason", "stage", "more"), ROWS, ids=lambda row: str(row))
def test_what_sends_us_to_the_next_host(
    name: str, reason: Reason, stage: Stage, more: bool
) -> None:
    assert asks_another(says(reason), stage) is more, name
    assert len(visit_all(walk_of(10, 20), says(reason), stage)) == (2 if more else 1)


def test_an_answer_to_the_envelope_is_never_taken_to_another_host_for_a_second_opinion() -> None:
    for reason in set(Reason) - {Reason.NO_CONNECT, Reason.RELAY_DENIED}:
        for stage in (Stage.MAIL, Stage.RCPT):
            assert not asks_another(says(reason), stage)


# (what the first host says, what the second says, whose word counts)
PAIRS = [
    (says(Reason.PROBE_BLOCKED), UNREACHED, "mx0"),
    (UNREACHED, says(Reason.PROBE_BLOCKED), "mx1"),
    (says(Reason.DEFERRED), says(Reason.PROBE_BLOCKED), "mx1"),
    (UNREACHED, UNREACHED, "mx1"),
    (UNREACHED, says(Reason.REJECTED_EMAIL), "mx1"),
]


@pytest.mark.parametrize(("first", "second", "whose"), PAIRS)
def test_the_last_host_that_spoke_counts(first: Outcome, second: Outcome, whose: str) -> None:
    walk = walk_of(10, 20)
    for outcome in (first, second):
        host = walk.next()
        assert host is not None
        walk.told(host, outcome, Stage.GREETING)
    assert walk.next() is None
    assert walk.result is not None
    assert walk.result[0].name == whose


def test_the_state_can_be_read() -> None:
    walk = walk_of(10, 20)
    assert repr(walk) == "<Walk 2 to go, nothing so far>"
    host = walk.next()
    assert host is not None
    walk.told(host, says(Reason.REJECTED_EMAIL), Stage.RCPT)
    assert repr(walk) == "<Walk over, rejected_email so far>"


def test_a_dead_host_leaves_time_for_the_next() -> None:
    assert connect_seconds(1.0) == CONNECT_SHARE
    assert connect_seconds(100.0) == CONNECT
    assert connect_seconds(0.0) == 0.0
