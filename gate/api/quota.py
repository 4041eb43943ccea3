"""How often somebody may ask: sliding-window counters, bounded in number. Pure; clock passed in.

A window of a minute is counted in two halves of memory: this minute's count, and the last one's,
weighted by how much of it still overlaps. That is off by a little when the last minute was uneven,
and needs three numbers a key whatever the rate.

Taking is checked and counted in one step with nothing awaited in between, so of 200 callers at
once exactly as many pass as the limit says.

Bugs: the counters are this process's own, and when there are more than `most` keys the ones used
longest ago are forgotten, which forgives them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gate.budget import QUOTA_WINDOW, Clock

_ROUNDING: Final = 0.001
"""A wait that came out a hair short would be refused again."""


class Quota:
    """Counters by key; `take` is the whole of it."""

    __slots__ = ("_clock", "_most", "_windows")

    def __init__(self, clock: Clock, *, most: int = 100_000) -> None:
        self._clock = clock
        self._most = most
        self._windows: OrderedDict[tuple[str, str], list[int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def take(self, kind: str, who: str, limit: int) -> float:
        """Count one request of `who`. 0.0: it is within `limit`; else seconds until one will be.

        A request that is refused is not counted, so waiting as told is enough.
        """
        at = self._clock() / QUOTA_WINDOW
        number = int(at)
        key = (kind, who)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = [number, 0, 0]
            if len(self._windows) > self._most:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        if window[0] != number:
            window[2] = window[1] if window[0] == number - 1 else 0
            window[0], window[1] = number, 0
        overlap = 1.0 - (at - number)
        if window[1] + window[2] * overlap + 1.0 > limit:
            return self._wait(window, overlap, limit)
        window[1] += 1
        return 0.0

    @staticmethod
    def _wait(window: list[int], overlap: float, limit: int) -> float:
        """Seconds until one more fits: when enough of the earlier window has slid out."""
        _, current, previous = window
        room = limit - 1 - current
        if previous and room >= 0:
            return (overlap - room / previous) * QUOTA_WINDOW + _ROUNDING
        shrink = 1.0 - (limit - 1) / current if current else 0.0
        return (overlap + shrink) * QUOTA_WINDOW + _ROUNDING
