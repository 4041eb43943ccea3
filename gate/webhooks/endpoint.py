"""When an endpoint may be tried: at most two at once, not too fast, and not while it is down. Pure.

Rules:

1. TRIES failures in a row, and the endpoint rests: ten seconds, doubling up to ten minutes. After
   each rest one message tries it; a success ends the rests.
2. One that asks for patience gets a message a second, then one in two, up to one a minute; each
   success halves that.
3. One that said 410 is told nothing more; what waits for it is given up.

A message that is not tried for these reasons loses no attempt.
"""

from __future__ import annotations

from typing import Final

from gate.budget import (
    WEBHOOK_REST,
    WEBHOOK_REST_MOST,
    WEBHOOK_SLOW,
    WEBHOOK_SLOW_MOST,
    WEBHOOK_SPACING,
)
from gate.webhooks.message import Outcome

CONCURRENCY: Final = 2
TRIES: Final = 5
GIVEN_UP_AT_ONCE: Final = 50
"""Messages to an endpoint that is gone are given up in such portions."""


class Endpoint:
    """The condition of one endpoint. `now` is on any clock that does not step back."""

    def __init__(self) -> None:
        self.gone = False
        self._failures = 0
        self._rest = 0.0
        self._spacing = WEBHOOK_SPACING
        self._next_at = float("-inf")
        self._rests_until = float("-inf")

    def __repr__(self) -> str:
        state = "gone" if self.gone else f"{self._failures} failures, every {self._spacing:g} s"
        return f"<Endpoint {state}>"

    def room(self, now: float) -> int:
        """How many messages may be under way to it now."""
        if self.gone:
            return GIVEN_UP_AT_ONCE
        if now < self._next_at:
            return 0
        careful = self._rest > 0 or self._spacing > WEBHOOK_SPACING
        return 1 if careful else CONCURRENCY

    def reopens(self, now: float) -> float | None:
        """When there will be room although nothing happens until then; None: not by itself."""
        return self._next_at if now < self._next_at and not self.gone else None

    def begun(self, now: float) -> None:
        """A message is being sent."""
        self._next_at = max(self._next_at, now) + self._spacing

    def ended(self, now: float, outcome: Outcome) -> None:
        """And this came of it."""
        if outcome is Outcome.DELIVERED:
            self._failures, self._rest = 0, 0.0
            self._spacing = max(WEBHOOK_SPACING, self._spacing / 2)
            if self._spacing < WEBHOOK_SLOW:
                self._spacing = WEBHOOK_SPACING
        elif outcome is Outcome.SLOW:
            slower = min(max(WEBHOOK_SLOW, 2 * self._spacing), WEBHOOK_SLOW_MOST)
            self._spacing = slower
            self._next_at = max(self._next_at, now + slower)
        elif outcome is Outcome.GONE:
            self.gone = True
        else:
            self._failures += 1
            # Of two that fail together, one is enough to begin a rest.
            if self._failures >= TRIES and now >= self._rests_until:
                self._rest = min(max(WEBHOOK_REST, 2 * self._rest), WEBHOOK_REST_MOST)
                self._rests_until = now + self._rest
                self._next_at = max(self._next_at, self._rests_until)
