"""`LoopLag`: for how long callbacks held up an event loop, however busy the machine is.

    async with LoopLag() as lag:
        ...
    assert lag.worst() < 0.05

A timer that should go off every LAG_TICK notes how late it is. Time in which the thread was ready
to run and another process had the processor is taken off again, so that a busy machine raises no
false alarm; time in which a callback slept or waited for a disk is not.

Bugs: what other processes took away is known on Linux only (/proc); elsewhere a lag is all of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gate.budget import LAG_TICK

SCHEDULER: Final = Path("/proc/thread-self/schedstat")
"""Of the calling thread: nanoseconds on a processor, nanoseconds ready and waiting for one."""
REMEMBERED: Final = 10_000
"""Ticks that were late; older ones are forgotten."""


class LoopLag:
    """Watches the loop it is opened in, as an async context manager."""

    def __init__(self) -> None:
        self._held: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._waited = 0.0

    def __repr__(self) -> str:
        return f"<LoopLag worst {1000 * self.worst():.1f} ms>"

    def worst(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest hold-up in seconds, of those between two moments of the loop's clock."""
        return max((held for at, held in self._held if since <= at <= until), default=0.0)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._again()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.sleep(LAG_TICK)  # what held the loop up until now is noted as well
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        assert self._loop is not None
        self._due = self._loop.time() + LAG_TICK
        self._waited = _waited()
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        held = now - self._due - (_waited() - self._waited)
        if held > LAG_TICK:
            self._held.append((now, held))
        self._again()


def _waited() -> float:
    """Seconds for which this thread had to wait for a processor, so far."""
    try:
        return int(SCHEDULER.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
