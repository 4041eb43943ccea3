"""How well two ways of the gate can be told apart by the clock.

Samples are interleaved in a random order: what happens every so many calls (a connection that is
made anew, a collection) falls on both alike.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

ATTEMPTS: Final = 2
"""A machine that was busy once is asked again once."""


def auc(one: Sequence[float], other: Sequence[float]) -> float:
    """How often a sample of `other` is longer than one of `one`: 0.5 is no difference, 1.0 always.

    The area under the ROC curve, as the Mann-Whitney statistic; equal samples count half.
    """
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    wins, below, at = 0.0, 0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        same = [which for _, which in ranked[at:end]]
        wins += sum(same) * (below + 0.5 * (len(same) - sum(same)))
        below += len(same) - sum(same)
        at = end
    return wins / (len(one) * len(other))


def cannot_be_told_apart(
    one: Callable[[], object], other: Callable[[], object], *, times: int = 5000, by: float = 0.05
) -> None:
    """Assert that the time of neither call says which it was; samples are interleaved."""
    found, dice = 0.0, random.Random(1)
    for _ in range(ATTEMPTS):
        samples: tuple[list[float], list[float]] = ([], [])
        for call in (one, other) * 50:
            call()
        gc.disable()
        try:
            for _ in range(times):
                for which in dice.sample((0, 1), 2):
                    begun = time.perf_counter_ns()
                    (one, other)[which]()
                    samples[which].append(time.perf_counter_ns() - begun)
        finally:
            gc.enable()
        found = auc(*samples)
        if abs(found - 0.5) <= by:
            return
    raise AssertionError(f"the two can be told apart by their time: AUC {found:.3f}")


async def answers_cannot_be_told_apart(
    one: Callable[[int], Awaitable[object]],
    other: Callable[[int], Awaitable[object]],
    *,
    times: int,
    by: float = 0.05,
) -> None:
    """The same for what has to be awaited; each call gets its number, which never comes again."""
    found, dice = 0.0, random.Random(1)
    for attempt in range(ATTEMPTS):
        samples: tuple[list[float], list[float]] = ([], [])
        for turn in range(times):
            for which in dice.sample((0, 1), 2):
                begun = time.perf_counter_ns()
                await (one, other)[which](attempt * times + turn)
                samples[which].append(time.perf_counter_ns() - begun)
        found = auc(*samples)
        if abs(found - 0.5) <= by:
            return
    raise AssertionError(f"the two can be told apart by their time: AUC {found:.3f}")
