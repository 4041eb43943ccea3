"""The benchmarks run, and their ratios hold, in short forms on a machine that is busy with others.

What the figures are on a quiet machine is kept in benchmarks/results; here it counts that each
measures what it says and that nothing has become many times slower.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from benchmarks import latency, plots, probe, throughput, warm
from benchmarks.ground import Place, Plan, gate_before, percentiles
from benchmarks.growth import apart

pytestmark = pytest.mark.timeout(60)  # what several share is made ready in the first one's time


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """One gate for those that ask it over HTTP."""
    with gate_before(Plan(cold=200, round_trip=latency.ROUND_TRIP)) as running:
        yield running


@dataclass(slots=True)
class Waited:
    """What came of measurements that wait most of the time, and so are made at the same time."""

    remembered: dict[str, Any]
    cold: dict[str, Any]
    trips: int
    ways: dict[str, warm.Way]


@pytest.fixture(scope="module")
def waited(place: Place) -> Waited:
    async def at_once() -> Waited:
        cold = throughput.arrive(
            place, lambda n: f"person@d{100 + n}.test", rate=30, seconds=2, budget_ms=2500
        )
        # The first five seconds of `remembered` are for remembering.
        return Waited(
            *await asyncio.gather(
                throughput.remembered(place, 1), cold, probe.round_trips(), warm.distant()
            )
        )

    return uvloop.run(at_once())


def test_a_remembered_answer_comes_at_once_and_a_warm_one_before_a_cold_one(place: Place) -> None:
    found = uvloop.run(latency.measure(place, 10))
    middle = {name: statistics.median(row["ms"]) for name, row in found.items()}
    assert all(row["settled"] == 1.0 for row in found.values()), found
    assert middle["remembered"] < middle["warm"] / 4
    assert middle["warm"] < 0.8 * middle["cold, 800"]
    assert middle["prefetched"] < 0.8 * middle["cold, 800"]


def test_arrivals_at_a_constant_rate_are_all_answered(waited: Waited) -> None:
    assert waited.remembered["said"] == {"accepted_email": throughput.REMEMBERED_RATE}
    assert waited.cold["said"] == {"accepted_email": 60}


def test_what_is_due_late_is_timed_from_when_it_was_due() -> None:
    assert percentiles([1.0, 2.0, 3.0, 100.0])[3] == 100.0


def test_more_to_remember_costs_little_time_and_memory_and_no_pause() -> None:
    few, many = apart("verdicts", 1_000), apart("verdicts", 100_000)
    assert many.per_second > 0.5 * few.per_second
    assert many.bytes_each < 320
    assert many.pause_ms < 10


def test_a_dialogue_takes_four_round_trips_and_a_warm_one_takes_one(waited: Waited) -> None:
    assert waited.trips == probe.S3_ROUND_TRIPS
    ways = waited.ways
    assert ways["gate, cold"].trips == warm.S3_COLD
    assert ways["gate, warm"].trips == warm.S3_WARM
    assert ways["gate, after a prefetch"].trips == warm.S3_WARM
    assert ways["gate, warm"].ms < ways["gate, cold"].ms / 2


def test_a_dialogue_costs_less_than_with_the_reference_client() -> None:
    costs = probe.compare(200, 2)
    assert costs["uvloop", "gate, the dialogue"].cpu_ms < costs["uvloop", "aiosmtplib"].cpu_ms


def test_pictures_are_drawn_from_what_was_kept(tmp_path: Path) -> None:
    times = {"ms": [1.0, 2.0, 3.0], "settled": 1.0}
    kept = {
        "figures": dict.fromkeys(("remembered", "warm", "prefetched", "cold, 800"), times),
        "round_trip_ms": 20,
    }
    (tmp_path / "latency.json").write_text(json.dumps(kept), "utf-8")
    assert plots.results("latency", tmp_path) == kept
