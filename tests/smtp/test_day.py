"""A simulated day before strict postmasters (benchmarks/day.py): nothing may be held against us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import pytest

from benchmarks.day import Day
from benchmarks.manners import day_of, rates, share
from benchmarks.postmaster import Host, Score
from gate.budget import RECHECK_SPACING
from gate.smtp.caps import PLACES_ONLY
from gate.smtp.throttle import Pass, Throttle

SIGNUPS = 100_000


class Unlearning(Throttle):
    """One that takes nothing to heart, and asks everybody's random recipient."""

    def learn(self, held: Pass, **told: object) -> None:
        """Forget it."""


# -- simulations, two at a time: each has a processor to itself ------------------------------------


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a day came to."""

    score: Score
    told: int
    settled_later: int
    seconds: float


def whole_day() -> Simulated:
    day, score, seconds = day_of(SIGNUPS)
    return Simulated(score, len(day.told), day.settled_later, seconds)


def without_limits() -> set[str]:
    unlimited = Day(20_000, throttle=lambda clock: Throttle(clock=clock, caps=PLACES_ONLY))
    return set(unlimited.run().violations)


def without_breakers() -> set[str]:
    return set(Day(20_000, throttle=lambda clock: Unlearning(clock=clock)).run().violations)


def shares() -> dict[str, float]:
    day = Day(10_000)
    day.run()
    return share(day)


Played = Mapping[Callable[[], Any], "Future[Any]"]
SIMULATIONS: tuple[Callable[[], Any], ...] = (
    whole_day,
    rates,
    without_limits,
    without_breakers,
    shares,
)


@pytest.fixture(scope="module")
def simulated() -> Played:
    """What came of each; they are over when this returns."""
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        return {simulation: processes.submit(simulation) for simulation in SIMULATIONS}


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_day_of_a_hundred_thousand_signups_gives_no_postmaster_cause_to_complain(
    simulated: Played,
) -> None:
    day: Simulated = simulated[whole_day].result()
    assert not day.score.violations
    assert day.told == SIGNUPS, "everybody was told something"
    assert day.score.dialogues > SIGNUPS * 0.9 and day.settled_later > 1000
    full = {"a minute, destination": 30, "a minute, network": 30, "at once, destination": 2}
    assert full.items() <= day.score.most.items(), "limits were met, not only kept"
    assert day.seconds < 20


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("wrong", "caught"),
    [
        (
            without_limits,
            {
                "too many recipients a minute: destination",
                "too many recipients a minute: network",
                "too many recipients a minute: domain",
                "too many at once: domain",
                "searched a domain for users",
            },
        ),
        (
            without_breakers,
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
    wrong: Callable[[], set[str]], caught: set[str], simulated: Played
) -> None:
    assert caught <= simulated[wrong].result()


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


@pytest.mark.timeout(90)
def test_most_people_are_answered_at_once_in_spite_of_all_manners(simulated: Played) -> None:
    parts = simulated[shares].result()
    assert parts["settled in time"] > 0.8
    assert parts["throttled in time"] < 0.02


@pytest.mark.timeout(90)
def test_a_destination_serves_what_its_limits_allow_and_no_more(simulated: Played) -> None:
    served = simulated[rates].result()
    assert served["one domain"] == pytest.approx(10, abs=0.5)
    assert served["one destination, many domains"] == pytest.approx(30, abs=1)
    assert served["Google, many tenants"] == pytest.approx(60, abs=2)
