"""Whatever octets a stranger sends: the declared exceptions and nothing else, at a bounded cost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, target

from tests.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
SUITE, LONG = 80, 5000
FOUND = sorted(
    path.relative_to(CORPUS) for path in CORPUS.glob("*/*") if path.parent.name in TARGETS
)


def cost(aim: Target, octets: bytes) -> float:
    """Seconds of CPU that an input takes; more than it may, only if three times in a row."""
    least = float("inf")
    for _ in range(3):
        started = time.thread_time()
        try:
            aim.run(octets)
        except aim.allowed:
            pass
        least = min(least, time.thread_time() - started)
        if least <= aim.most:
            break
    return least


def over(name: str, examples: int) -> tuple[float, bytes]:
    """Try so many inputs, looking for slow ones; the slowest, and what it cost."""
    aim, slowest = TARGETS[name], (0.0, b"")

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(aim.octets)
    def attempt(octets: bytes) -> None:
        nonlocal slowest
        seconds = cost(aim, octets)
        slowest = max(slowest, (seconds, octets))
        target(seconds)
        assert seconds <= aim.most, f"{len(octets)} octets cost {seconds * 1000:.1f} ms of CPU"

    attempt()
    return slowest


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_else_comes_out(name: str) -> None:
    assert over(name, SUITE)[0] <= TARGETS[name].most


@pytest.mark.parametrize("path", FOUND, ids=str)
def test_what_was_found_once(path: Path) -> None:
    aim = TARGETS[path.parent.name]
    assert cost(aim, (CORPUS / path).read_bytes()) <= aim.most


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_else_comes_out_of_five_thousand(name: str) -> None:
    seconds, octets = over(name, LONG)
    print(f"slowest {name}: {seconds * 1000:.2f} ms of CPU, {len(octets)} octets, {octets[:60]!r}")
