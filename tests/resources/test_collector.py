"""Full collections of garbage stay short while ever more is alive (k-6, S7, R1)."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping

from gate.collector import Collector

OBJECTS = 300_000


class Watch:
    """How long collections take, as it is told of them."""

    def __init__(self) -> None:
        self.longest = self.started = 0.0
        self.full = 0

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self.started = time.perf_counter()
        else:
            self.longest = max(self.longest, time.perf_counter() - self.started)
            self.full += info["generation"] == 2


def test_what_survived_one_collection_is_not_looked_at_again() -> None:
    thresholds, watch, collector = gc.get_threshold(), Watch(), Collector()
    collector.start()
    gc.callbacks.append(watch)
    try:
        alive = [[number] for number in range(OBJECTS)]
        longest, full = watch.longest, watch.full
        collector.thaw()
        whole = watch.longest
    finally:
        gc.callbacks.remove(watch)
        collector.stop()
    assert full >= 10, "they come early"
    assert longest < whole / 2, f"{longest * 1000:.0f} ms, and {whole * 1000:.0f} ms for all"
    assert gc.get_threshold() == thresholds and gc.get_freeze_count() == 0
    assert len(alive) == OBJECTS


def test_a_cycle_that_was_set_aside_goes_when_all_is_looked_at() -> None:
    class Node:
        def __init__(self) -> None:
            self.other = self

        def __del__(self) -> None:
            gone.append(1)

    gone: list[int] = []
    collector = Collector()
    collector.start()
    try:
        node = Node()
        gc.collect()
        del node
        gc.collect()
        assert not gone
        collector.thaw()
        assert gone
    finally:
        collector.stop()
