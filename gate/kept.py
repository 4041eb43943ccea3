"""The answers that were given lately, for whoever asks again by the id of a check.

What it promises: bounded in number and in time; one site never finds another's; the oldest go
first, one by one, so that no call pays for many. The records are nothing to the garbage collector:
20,000 tracked ones cost each remembered check 3 µs and made pauses.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from gate.answer import Answer
from gate.budget import CHECK_MEMORY, Clock

KEPT_CHECKS: Final = 20_000
"""Answers that `GET /v1/checks/{id}` can still find."""


_FORGOTTEN_AT_ONCE: Final = 2
"""Each new answer makes so many that are too old be forgotten: an address stays no longer here."""


class _Kept(Struct, frozen=True, gc=False):
    site: str
    answer: Answer
    until: float


class KeptAnswers:
    """Answers by the id of their check, for `CHECK_MEMORY` seconds on `clock`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._in_order: deque[_Kept] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, site: str, answer: Answer) -> None:
        """Keep an answer; a later one with its id takes its place."""
        now = self._clock()
        kept = self._kept[answer.id] = _Kept(site, answer, now + CHECK_MEMORY)
        in_order = self._in_order
        in_order.append(kept)
        for _ in range(_FORGOTTEN_AT_ONCE):
            oldest = in_order[0]
            if len(in_order) <= KEPT_CHECKS and oldest.until > now:
                break
            in_order.popleft()
            if self._kept.get(oldest.answer.id) is oldest:
                del self._kept[oldest.answer.id]

    def forget(self, site: str, exact: str) -> None:
        """Drop every answer about one address of one site. Looks at all of them: 2 ms."""
        remaining: deque[_Kept] = deque()
        for kept in self._in_order:
            address = kept.answer.address
            if kept.site == site and address is not None and address.exact == exact:
                self._kept.pop(kept.answer.id, None)
            else:
                remaining.append(kept)
        self._in_order = remaining

    def find(self, check_id: str, site: str) -> Answer | None:
        """The answer under this id, if it is this site's and was not forgotten."""
        kept = self._kept.get(check_id)
        if kept is None or kept.site != site or kept.until <= self._clock():
            return None
        return kept.answer
