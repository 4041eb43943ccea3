"""Rests: whom to leave alone, for how long, and who tries first when that is over. Pure.

What it promises: a name that rests is refused to everybody; when its time is over, one tries, and
all others are refused until it is known what came of it; a second failure doubles the rest, up to
the longest; a success ends it. Names are bounded: strangers choose them, the oldest makes room.

The clock is passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gate.budget import Clock

RESTING_MOST: Final = 10_000


@dataclass(slots=True)
class _Rest:
    """Until when, how long it was, and whether somebody is trying just now."""

    until: float
    seconds: float
    tried: bool = False


class Rests:
    """Rests of one kind, by name."""

    def __init__(self, clock: Clock, *, first: float, most: float, forgotten: float) -> None:
        """Seconds: the first rest, the longest, and after which time since the end of a rest it
        counts no more.
        """
        self._clock = clock
        self._first, self._most, self._forgotten = first, most, forgotten
        self._rests: OrderedDict[str, _Rest] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Rests {len(self)} of {self._first:g} to {self._most:g} s>"

    def __len__(self) -> int:
        return len(self._rests)

    def __contains__(self, name: str) -> bool:
        """Whether it rests, or is still to be tried."""
        return self._of(name) is not None

    def left(self, name: str) -> float:
        """Seconds for which it is still to be left alone."""
        rest = self._of(name)
        return max(0.0, rest.until - self._clock()) if rest else 0.0

    def refuses(self, name: str) -> bool:
        """Whether it rests, or somebody is just trying how it feels."""
        rest = self._of(name)
        return rest is not None and (rest.tried or rest.until > self._clock())

    def attempt(self, name: str) -> bool:
        """Begin a dialogue. True: it is the try after a rest, and ends with rest, end, release."""
        rest = self._of(name)
        if rest is None:
            return False
        rest.tried = True
        return True

    def release(self, name: str) -> None:
        """The try told nothing: the next one tries."""
        if rest := self._rests.get(name):
            rest.tried = False

    def rest(self, name: str, seconds: float | None = None) -> bool:
        """Begin a rest, the first or a longer one, or of so many `seconds`; False if it has begun.

        Dialogues that were under way when it began do not lengthen it.
        """
        now = self._clock()
        rest = self._of(name)
        if rest is not None and now < rest.until:
            return False
        doubled = self._first if rest is None else min(2 * rest.seconds, self._most)
        length = doubled if seconds is None else seconds
        self._rests.pop(name, None)
        self._rests[name] = _Rest(now + length, length)
        if len(self._rests) > RESTING_MOST:
            self._rests.popitem(last=False)
        return True

    def end(self, name: str) -> bool:
        """It feels well; False if nothing else was known."""
        return self._rests.pop(name, None) is not None

    def _of(self, name: str) -> _Rest | None:
        rest = self._rests.get(name)
        if rest is not None and self._clock() - rest.until >= self._forgotten:
            del self._rests[name]
            return None
        return rest
