"""`FakeClock`: time that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A `gate.budget.Clock`: call it for the time in seconds.

    It serves as a monotonic clock and as a wall clock; `start` is what it shows first.
    """

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def __repr__(self) -> str:
        return f"<FakeClock {self._now}>"

    def advance(self, seconds: float) -> None:
        """Let `seconds` go by; a negative number is a clock that was set back."""
        self._now += seconds
