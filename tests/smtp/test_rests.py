"""Rests, the harvest breaker and the others: tables of what happens when."""

from __future__ import annotations

import pytest

from gate.budget import COOL_DOWN, DOWN_TRY, HARVEST_REST, HARVEST_REST_MOST, PORT_REST
from gate.smtp import rests as module
from gate.smtp.breaker import ALL, Blocked, Downs, Shut
from gate.smtp.harvest import Harvest
from gate.smtp.rests import Rests
from gate.testing.clock import FakeClock


def rests_of() -> tuple[Rests, FakeClock]:
    clock = FakeClock()
    return Rests(clock, first=10.0, most=60.0, forgotten=100.0), clock


def test_a_rest_doubles_up_to_the_longest() -> None:
    rests, clock = rests_of()
    lengths = []
    for _ in range(5):
        rests.rest("x")
        lengths.append(rests.left("x"))
        clock.advance(lengths[-1])
        assert not rests.refuses("x")
    assert lengths == [10, 20, 40, 60, 60]


def test_when_it_is_over_one_tries_and_the_others_wait_for_what_comes_of_it() -> None:
    rests, clock = rests_of()
    assert not rests.attempt("x"), "who never rested is not tried"
    rests.rest("x")
    assert rests.refuses("x") and not rests.refuses("y")
    clock.advance(10.0)
    assert not rests.refuses("x") and rests.attempt("x")
    assert rests.refuses("x") and rests.left("x") == 0.0
    rests.release("x")
    assert not rests.refuses("x"), "the try told nothing"
    rests.attempt("x")
    assert rests.end("x") and not rests.refuses("x") and "x" not in rests


def test_what_was_under_way_does_not_lengthen_a_rest() -> None:
    rests, clock = rests_of()
    assert rests.rest("x")
    clock.advance(1.0)
    assert not rests.rest("x")
    assert rests.left("x") == 9.0


def test_a_rest_long_ago_counts_no_more() -> None:
    rests, clock = rests_of()
    rests.rest("x")
    clock.advance(110.0)
    assert "x" not in rests
    rests.rest("x")
    assert rests.left("x") == 10.0


def test_names_are_apart_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTING_MOST", 3)
    rests, _ = rests_of()
    for name in "abcd":
        rests.rest(name)
    assert len(rests) == 3 and "a" not in rests and "b" in rests


@pytest.mark.parametrize(
    ("refusals", "every", "searched"),
    [(4, 10.0, False), (5, 10.0, True), (5, 149.0, True), (5, 150.0, False), (40, 150.0, False)],
)
def test_five_refusals_in_ten_minutes_are_a_search(
    refusals: int, every: float, searched: bool
) -> None:
    clock = FakeClock()
    harvest = Harvest(clock)
    for number in range(refusals):
        clock.advance(every if number else 0.0)
        harvest.told("a.test", refused=True, named=False)
        harvest.told("a.test", refused=False, named=False)
    assert harvest.rests.refuses("a.test") is searched
    assert not harvest.rests.refuses("b.test")


@pytest.mark.parametrize(
    ("name", "answers", "searched"),
    [
        ("ten of twenty", "ra" * 10, False),
        ("ten at first, and nobody else", "r" * 10, False),
        ("eleven", "r" * 11, True),
        ("eleven of twenty", "a" * 9 + "r" * 11, True),
        ("the usual slips of thousands", "aaaaaaaar" * 100, False),
    ],
)
def test_at_a_named_provider_the_share_counts(name: str, answers: str, searched: bool) -> None:
    harvest = Harvest(FakeClock())
    for answer in answers:
        harvest.told("free.test", refused=answer == "r", named=True)
    assert harvest.rests.refuses("free.test") is searched, name


def test_after_a_rest_one_refusal_doubles_it_and_one_mailbox_ends_it() -> None:
    clock = FakeClock()
    harvest = Harvest(clock)
    lengths = []
    for _ in range(5):
        harvest.told("a.test", refused=True, named=False)
    for _ in range(7):
        lengths.append(harvest.rests.left("a.test"))
        harvest.told("a.test", refused=False, named=False)
        assert harvest.rests.left("a.test"), "an answer that was under way ends nothing"
        clock.advance(lengths[-1])
        harvest.told("a.test", refused=True, named=False)
    assert lengths == [HARVEST_REST * n for n in (1, 2, 4, 8, 16, 24, 24)]
    clock.advance(HARVEST_REST_MOST)
    harvest.told("a.test", refused=False, named=False)
    harvest.told("a.test", refused=True, named=False)
    assert not harvest.rests.refuses("a.test")


def test_hosts_that_failed_twice_are_down_until_one_try_succeeds() -> None:
    clock = FakeClock()
    downs = Downs(clock)
    downs.failed("mx")
    assert not downs.rests.refuses("mx"), "one failure is none (S12)"
    downs.reached("mx")
    downs.failed("mx")
    assert not downs.rests.refuses("mx"), "it was reached between"
    downs.failed("mx")
    tries = 0
    for _ in range(600):
        clock.advance(1.0)
        if not downs.rests.refuses("mx"):
            tries += 1
            assert downs.rests.attempt("mx")
            downs.failed("mx")
    assert tries == 600 / DOWN_TRY
    clock.advance(DOWN_TRY)
    downs.rests.attempt("mx")
    downs.reached("mx")
    assert not downs.rests.refuses("mx") and "mx" not in downs.rests


def test_failures_eleven_minutes_apart_are_no_outage() -> None:
    clock = FakeClock()
    downs = Downs(clock)
    for _ in range(5):
        downs.failed("mx")
        clock.advance(660.0)
        assert not downs.rests.refuses("mx")


@pytest.mark.parametrize(
    ("name", "failures", "shut"),
    [
        ("five destinations in five networks", [(f"{n}", f"{n}") for n in range(5)], True),
        ("four of them", [(f"{n}", f"{n}") for n in range(4)], False),
        ("one destination in many networks", [("x", f"{n}") for n in range(50)], False),
        ("many destinations in one network", [(f"{n}", "x") for n in range(50)], False),
    ],
)
def test_our_own_port_is_shut_when_nobody_anywhere_can_be_reached(
    name: str, failures: list[tuple[str, str]], shut: bool
) -> None:
    breaker = Shut(FakeClock())
    said = [breaker.failed(destination, network) for destination, network in failures]
    assert any(said) is breaker.rests.refuses(ALL) is shut, name


def test_somebody_who_was_reached_shows_that_the_port_is_open() -> None:
    clock = FakeClock()
    breaker = Shut(clock)
    for number in range(100):
        assert not breaker.failed(f"{number}", f"{number}")
        if number % 4 == 3:
            assert not breaker.reached()
    clock.advance(3600.0)
    for number in range(4):
        assert not breaker.failed(f"{number}", f"{number}"), "an hour ago is long ago"


def test_a_shut_port_is_tried_once_a_minute_until_it_is_open() -> None:
    clock = FakeClock()
    breaker = Shut(clock)
    assert [breaker.failed(f"{n}", f"{n}") for n in range(5)] == [False] * 4 + [True]
    for _ in range(3):
        assert breaker.rests.left(ALL) == PORT_REST
        clock.advance(PORT_REST)
        assert breaker.rests.attempt(ALL) and not breaker.failed("x", "x")
    clock.advance(PORT_REST)
    assert breaker.reached() and not breaker.rests.refuses(ALL)


@pytest.mark.parametrize(
    ("name", "dialogues", "stops"),
    [
        ("ten of two hundred", "b" * 10 + "." * 190, False),
        ("eleven of two hundred", "b" * 10 + "." * 189 + "b", True),
        ("eleven of two hundred and one", "b" + "." * 190 + "b" * 10, False),
        ("eleven at the start", "b" * 11, True),
        ("one of twenty for ever", ("b" + "." * 19) * 100, False),
    ],
)
def test_more_than_five_in_a_hundred_who_refuse_us_stop_all(
    name: str, dialogues: str, stops: bool
) -> None:
    breaker = Blocked(FakeClock())
    said = [breaker.told(dialogue == "b") for dialogue in dialogues]
    assert said == [None] * (len(dialogues) - 1) + [True if stops else None], name


def test_after_the_cool_down_one_dialogue_decides_whether_it_goes_on() -> None:
    clock = FakeClock()
    breaker = Blocked(clock)
    for _ in range(11):
        breaker.told(True)
    assert breaker.told(False) is None and breaker.rests.left(ALL) == COOL_DOWN
    clock.advance(COOL_DOWN)
    assert breaker.rests.attempt(ALL) and breaker.told(True) is None
    assert breaker.rests.left(ALL) == 2 * COOL_DOWN
    clock.advance(2 * COOL_DOWN)
    assert breaker.told(False) is False and not breaker.rests.refuses(ALL)
    assert [breaker.told(True) for _ in range(11)] == [None] * 10 + [True]
