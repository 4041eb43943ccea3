"""The watch over an event loop: what holds it up is seen, what others do is not."""

from __future__ import annotations

import asyncio
import time

from gate.testing import LoopLag


def test_a_callback_that_takes_its_time_is_seen() -> None:
    async def scene() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        async with LoopLag() as lag:
            await asyncio.sleep(0.05)
            quiet, before = lag.worst(), loop.time()
            time.sleep(0.12)  # noqa: ASYNC251 - what is to be seen
            await asyncio.sleep(0.02)
        return quiet, lag.worst(since=before), lag.worst(until=before)

    quiet, worst, earlier = asyncio.run(scene())
    assert quiet < 0.05
    assert worst > 0.1
    assert earlier == quiet


def test_a_thread_that_waits_for_its_turn_is_no_lag_of_the_loop() -> None:
    """A loop with much to do in small pieces is busy, and not held up."""

    async def scene() -> float:
        async with LoopLag() as lag:
            for _ in range(20_000):
                await asyncio.sleep(0)
        return lag.worst()

    assert asyncio.run(scene()) < 0.05
