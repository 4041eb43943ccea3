"""Sliding windows: how many pass, how long the rest waits, and how much is remembered."""

from __future__ import annotations

import pytest

from gate.api.quota import Quota
from gate.testing.clock import FakeClock


def passed(quota: Quota, asked: int, limit: int, who: str = "jane") -> int:
    return sum(quota.take("client", who, limit) == 0.0 for _ in range(asked))


def test_as_many_pass_at_once_as_the_limit_says() -> None:
    assert passed(Quota(FakeClock()), asked=200, limit=10) == 10


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param(0.0, 0, id="nothing has slid out"),
        pytest.param(45.0, 5, id="half of the earlier window counts"),
        pytest.param(60.0, 7, id="three quarters of it are gone"),
        pytest.param(120.0, 10, id="all of it is gone"),
    ],
)
def test_room_comes_back_as_the_window_slides(after: float, expected: int) -> None:
    clock = FakeClock(start=60.0 * 1000 + 45.0)
    quota = Quota(clock)
    assert passed(quota, asked=50, limit=10) == 10
    clock.advance(after)
    assert passed(quota, asked=50, limit=10) == expected


def test_a_burst_around_the_turn_of_the_minute_is_no_double_allowance() -> None:
    clock = FakeClock(start=60.0 * 1000 + 59.0)
    quota = Quota(clock)
    assert passed(quota, asked=50, limit=10) == 10
    clock.advance(2.0)
    assert passed(quota, asked=50, limit=10) == 0


@pytest.mark.parametrize("limit", [1, 2, 10, 60, 6000])
@pytest.mark.parametrize("second", [0.0, 1.0, 30.0, 59.5])
def test_waiting_as_long_as_told_is_enough(limit: int, second: float) -> None:
    clock = FakeClock(start=60.0 * 1000 + second)
    quota = Quota(clock)
    for _ in range(limit):
        assert quota.take("client", "jane", limit) == 0.0
    for _ in range(3):
        wait = quota.take("client", "jane", limit)
        assert 0.0 < wait < 120.1
        clock.advance(wait)
        assert quota.take("client", "jane", limit) == 0.0
        while quota.take("client", "jane", limit) == 0.0:
            pass


def test_counters_of_others_and_of_other_kinds_are_apart() -> None:
    quota = Quota(FakeClock())
    assert passed(quota, asked=5, limit=3) == 3
    assert passed(quota, asked=5, limit=3, who="john") == 3
    assert quota.take("site", "jane", 3) == 0.0


def test_a_flood_of_names_forgets_the_ones_used_longest_ago() -> None:
    quota = Quota(FakeClock(), most=100)
    assert quota.take("client", "regular", 2) == 0.0
    for number in range(1000):
        quota.take("client", f"stranger {number}", 1)
        if number == 0:
            assert quota.take("client", "regular", 2) == 0.0
        if number % 50 == 1:
            assert quota.take("client", "regular", 2) > 0.0
    assert len(quota) == 100
