"""What a check has found: `Finding`, and `Report`, which holds all of them. Pure.

What it promises: a finding never holds the local part of an address, a key or a secret, so that it
may be logged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it stands. `skipped`: not looked at, or nobody could tell; the finding says why."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `about`: which address, list or site it is about, if any.
    `mend`: behind its first line stand lines to be copied as they are: records, settings, commands.
    """

    check: str
    state: State
    about: str
    found: str
    why: str
    mend: str


@dataclass(frozen=True, slots=True)
class Topic:
    """What a check looks at and why that matters; makes findings of it."""

    check: str
    why: str
    about: str = ""

    def ok(self, found: str) -> Finding:
        """It is as it should be."""
        return Finding(self.check, State.OK, self.about, found, self.why, "")

    def warning(self, found: str, mend: str) -> Finding:
        """It works, and could do better."""
        return Finding(self.check, State.WARNING, self.about, found, self.why, mend)

    def problem(self, found: str, mend: str) -> Finding:
        """Checks suffer from it."""
        return Finding(self.check, State.PROBLEM, self.about, found, self.why, mend)

    def skipped(self, found: str, mend: str = "") -> Finding:
        """Nobody can tell."""
        return Finding(self.check, State.SKIPPED, self.about, found, self.why, mend)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found, in the order of the checks."""

    findings: tuple[Finding, ...]

    def count(self, state: State) -> int:
        """How many findings are in this state."""
        return sum(finding.state is state for finding in self.findings)

    def names(self, state: State) -> list[str]:
        """The checks with a finding in this state, each once."""
        return list(dict.fromkeys(f.check for f in self.findings if f.state is state))

    @property
    def state(self) -> State:
        """The worst there is; what was skipped is not bad by itself."""
        there = {finding.state for finding in self.findings}
        worst_first = (State.PROBLEM, State.WARNING)
        return next((state for state in worst_first if state in there), State.OK)


def listed(words: Iterable[object], most: int = 4) -> str:
    """Words as a list for people, cut short: "a, b, c and 5 more"."""
    texts = [str(word) for word in words]
    if len(texts) <= most:
        return ", ".join(texts)
    return f"{', '.join(texts[: most - 1])} and {len(texts) - most + 1} more"
