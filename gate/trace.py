"""What happened in one check: timed steps and the SMTP exchange, redacted.

The same steps feed `"explain": true`, `gate check --explain` and the log line. A trace is made for
every check that may be explained; it costs a tuple a step. Addresses are taken out when a step is
written, not when it is shown, so nothing kept here can leak one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gate.budget import Clock

SHOWN: Final = 200
"""Longest text of a stranger that is kept, in characters."""
_ADDRESS = re.compile(r"[^\s<>@]{1,64}@(?=[^\s<>@])")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done: when it ended (milliseconds from the start), what, and how."""

    at_ms: float
    name: str
    detail: str


class Trace:
    """The steps of one check, in order. `on=False` makes every call a no-op."""

    __slots__ = ("_clock", "_on", "_start", "steps", "transcript")

    def __init__(self, clock: Clock, *, on: bool = True) -> None:
        self._clock = clock
        self._start = clock()
        self._on = on
        self.steps: list[Step] = []
        self.transcript: list[str] = []

    def step(self, name: str, detail: str = "") -> None:
        """Note that `name` was done."""
        if self._on:
            self.steps.append(Step(self._elapsed(), name, redact(detail)))

    def exchange(self, stage: str, command: str, reply: str) -> None:
        """Note one command and its reply, as `C:` and `S:` lines."""
        if not self._on:
            return
        if command:
            self.transcript.append(f"C: {redact(command)}")
        self.transcript.append(f"S: {redact(reply)}")
        self.step(f"smtp.{stage}", reply[:3])

    def _elapsed(self) -> float:
        return round((self._clock() - self._start) * 1000, 1)


NO_TRACE: Final = Trace(lambda: 0.0, on=False)
"""For whatever nobody will ask to have explained."""


def redact(text: str) -> str:
    """`text` safe to log or show: no local part of any address, printable ASCII, bounded."""
    cut = text[: 2 * SHOWN]
    return _UNPRINTABLE.sub("?", _ADDRESS.sub("***@", cut))[:SHOWN]
