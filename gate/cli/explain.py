"""`gate explain-reply`: what replies of mail servers mean, and which row of the rules says so."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from gate.cli.lines import text
from gate.cli.printing import printable
from gate.reason import VERDICT_OF, GateError
from gate.smtp.classify import Outcome, classify
from gate.smtp.dialog import Stage
from gate.smtp.explain import Reading, read, three_way
from gate.smtp.provider import PROVIDERS

UNREADABLE: Final = 2
REASON_WIDTH: Final = 17
SCOPE_WIDTH: Final = 10
THREE_WAY_WIDTH: Final = 13
RULE_WIDTH: Final = 24


class _Lines:
    """Lines on their way to be read; `json` once one of them was JSON."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.json = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.json = self.json or line.lstrip().startswith("{")
            yield line


def run(options: argparse.Namespace) -> int:
    """Read replies and print a line for each, as it comes. 2 if one could not be read."""
    stage = _stage(options.stage)
    provider = _provider(options.provider)
    lines = _Lines(_given(options.reply))
    unreadable = 0
    for reading in read(lines, stage):
        unreadable += reading.reply is None
        as_json = options.json or lines.json
        if reading.reply is None and not as_json:
            sys.stderr.write(f"gate: {reading.error}; write a reply, as in 550 5.1.1 unknown\n")
            continue
        sys.stdout.write(_json(reading, provider) if as_json else _line(reading, provider))
        sys.stdout.flush()
    return UNREADABLE if unreadable else 0


def _given(replies: list[str]) -> Iterator[str]:
    """The lines of the arguments, each of which may hold several, or those of standard input."""
    if replies:
        for reply in replies:
            yield from reply.splitlines()
        return
    if sys.stdin is None:
        raise GateError("standard input is closed; give the reply as an argument")
    for octets in sys.stdin.buffer:
        yield text(octets)


def _stage(name: str) -> Stage:
    try:
        return Stage(name.lower())
    except ValueError:
        known = ", ".join(Stage)
        raise GateError(f"--stage: {printable(name)} is none; write one of {known}") from None


def _provider(name: str | None) -> str | None:
    known = sorted({provider.name for provider in PROVIDERS.values()})
    found = next((one for one in known if name and one.lower() == name.lower()), None)
    if name and found is None:
        raise GateError(f"--provider: {printable(name)} is none; write one of {', '.join(known)}")
    return found


def _outcome(reading: Reading, provider: str | None) -> Outcome:
    assert reading.reply is not None
    return classify(reading.stage, reading.reply, provider=reading.provider or provider)


def _json(reading: Reading, provider: str | None) -> str:
    if reading.reply is None:
        return json.dumps({"stage": reading.stage, "error": reading.error}) + "\n"
    outcome = _outcome(reading, provider)
    return (
        json.dumps(
            {
                "stage": reading.stage,
                "code": reading.reply.code,
                "enhanced": reading.reply.enhanced,
                "three_way": three_way(outcome),
                "result": VERDICT_OF[outcome.reason],
                "reason": outcome.reason,
                "scope": outcome.scope,
                "rule": outcome.rule,
                "retry_after": outcome.retry_after,
                "contrast": outcome.contrast,
            }
        )
        + "\n"
    )


def _line(reading: Reading, provider: str | None) -> str:
    outcome = _outcome(reading, provider)
    assert reading.reply is not None
    said = printable(f"{reading.reply.code} {reading.reply.text}".rstrip())
    note = ""
    if outcome.contrast is not None:
        note = f"  ({outcome.contrast}, if a random recipient is answered otherwise)"
    return (
        f"{outcome.reason:<{REASON_WIDTH}} {outcome.scope:<{SCOPE_WIDTH}} "
        f"{three_way(outcome):<{THREE_WAY_WIDTH}} {outcome.rule:<{RULE_WIDTH}} {said}{note}\n"
    )
