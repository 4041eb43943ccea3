"""A simulated day before strict postmasters (benchmarks/day.py): nothing may be held against us."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from benchmarks.day import Day
from benchmarks.manners import day_of, rates, share
from benchmarks.postmaster import Host
from gate.budget import RECHECK_SPACING, Clock
from gate.smtp.caps import PLACES_ONLY
from gate.smtp.throttle import Pass, Throttle

SIGNUPS = 100_000


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_day_of_a_hundred_thousand_signups_gives_no_postmaster_cause_to_complain() -> None:
    day, score, seconds = day_of(SIGNUPS)
    assert not score.violations
    assert len(day.told) == SIGNUPS, "everybody was told something"
    assert score.dialogues > SIGNUPS * 0.9 and day.settled_later > 1000
    full = {"a minute, destination": 30, "a minute, network": 30, "at once, destination": 2}
    assert full.items() <= score.most.items(), "limits were met, not only kept"
    assert seconds < 20


class Unlearning(Throttle):
    """One that takes nothing to heart, and asks everybody's random recipient."""

    def learn(self, held: Pass, **told: object) -> None:
        """Forget it."""


@pytest.mark.parametrize(
    ("name", "throttle", "caught"),
    [
        (
            "a gate without limits",
            lambda clock: Throttle(clock=clock, caps=PLACES_ONLY),
            {
                "too many recipients a minute: destination",
                "too many recipients a minute: network",
                "too many recipients a minute: domain",
                "too many at once: domain",
                "searched a domain for users",
            },
        ),
        (
            "a gate without breakers",
            lambda clock: Unlearning(clock=clock),
            {
                "came back while it was to rest after 421",
                "came back while it was blocked",
                "searched a domain for users",
                "dialled a dead host again and again",
            },
        ),
    ],
)
def test_the_score_card_finds_what_is_done_wrong(
    name: str, throttle: Callable[[Clock], Throttle], caught: set[str]
) -> None:
    assert caught <= Day(20_000, throttle=throttle).run().violations.keys(), name


def test_d5_a_thousand_who_were_greylisted_come_back_one_by_one() -> None:
    """At one MX, of two hundred domains: nobody early, no two within two seconds."""
    day = Day(0)
    host = Host("mx.grey.example", (IPv4Address("50.0.0.1"),), "greylist", 0.05, 0.01)
    for number in range(1000):
        day.signup(6.0 * number, host, f"d{number % 200}.example", f"u{number}")
    score = day.run()
    assert not score.violations
    assert score.most["a minute, destination"] == 30
    again = sorted(last for first, last, _ in host.seen.values() if last > first)
    assert len(again) > 900
    # A host further away hears of one a little later than it was sent; no two here are.
    assert min(after - before for before, after in pairwise(again)) > RECHECK_SPACING - 0.01
    assert day.settled_later > 900


def test_most_people_are_answered_at_once_in_spite_of_all_manners() -> None:
    day = Day(10_000)
    day.run()
    parts = share(day)
    assert parts["settled in time"] > 0.8
    assert parts["throttled in time"] < 0.02


def test_a_destination_serves_what_its_limits_allow_and_no_more() -> None:
    served = rates()
    assert served["one domain"] == pytest.approx(10, abs=0.5)
    assert served["one destination, many domains"] == pytest.approx(30, abs=1)
    assert served["Google, many tenants"] == pytest.approx(60, abs=2)
