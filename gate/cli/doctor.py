"""`gate doctor`: runs the checks and prints what they found, for people or as JSON.

The exit status is 1 if there is a problem, else 0; misuse and settings that cannot be read are 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from gate import __version__
from gate.budget import DOCTOR, DOCTOR_LEAST, DOCTOR_MOST, Deadline
from gate.cli.printing import printable
from gate.doctor.examine import CHECKS, Patient, examine, why_offline
from gate.doctor.finding import Finding, Report, State
from gate.doctor.letter import send_test
from gate.doctor.port25 import TARGETS
from gate.engine import open_engine
from gate.reason import GateError
from gate.settings import Settings
from gate.settings.read import load

PROBLEM: Final = 1
STATE_WIDTH: Final = 9
NAME_WIDTH: Final = max(len(check.name) for check in CHECKS) + 2
WIDTH_MOST: Final = 110
WIDTH_LEAST: Final = 60
COLOURS: Final = {State.OK: "32", State.WARNING: "33", State.PROBLEM: "31", State.SKIPPED: "2"}
"""The colour of a state on a terminal (SGR parameter)."""
_NAMES: Final = tuple(check.name for check in CHECKS)
_GROUPS: Final = {check.name: check.group for check in CHECKS}


def run(options: argparse.Namespace) -> int:
    """Look the gate of the settings over, or send the test message, and print what came of it."""
    unknown = [name for name in options.only if name not in _NAMES]
    if unknown:
        names = ", ".join(_NAMES)
        raise GateError(f"--only: {printable(unknown[0])} is no check; there is {names}")
    seconds = DOCTOR if options.timeout is None else options.timeout
    if not DOCTOR_LEAST <= seconds <= DOCTOR_MOST:
        raise GateError(
            f"--timeout: {seconds:g} is out of range; write {DOCTOR_LEAST:g} to {DOCTOR_MOST:g}"
        )
    if options.all and not options.send_test:
        raise GateError("--all: belongs to --send-test")
    settings = load(options.config, os.environ)
    # What the engine warns of at start is among the findings.
    logging.basicConfig(format="gate: %(message)s", level=logging.ERROR)
    report = asyncio.run(_look(options, settings, seconds))
    sys.stdout.write(as_json(report) if options.json else as_text(report, _width(), _colour()))
    return PROBLEM if report.state is State.PROBLEM else 0


async def _look(options: argparse.Namespace, settings: Settings, seconds: float) -> Report:
    async with open_engine(settings, store_url="memory:") as engine:
        if options.send_test:
            return await send_test(engine, options.send_test, every_address=options.all)
        patient = Patient(
            engine,
            apart=True,
            targets=tuple(options.target) or TARGETS,
            offline=why_offline(engine),
        )
        return await examine(patient, Deadline.after(seconds, engine.clock), options.only)


def as_json(report: Report) -> str:
    """The report as one object; its keys are documented in README."""
    document: dict[str, Any] = {
        "version": __version__,
        "state": report.state,
        "counts": {state: report.count(state) for state in State},
        "findings": [
            {
                "check": finding.check,
                "state": finding.state,
                "about": finding.about,
                "found": finding.found,
                "why": finding.why,
                "mend": finding.mend,
            }
            for finding in report.findings
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def as_text(report: Report, width: int, colour: bool) -> str:
    """The report for people: what is well in a line each, what is not with why and how to mend."""
    lines: list[str] = []
    group = ""
    for finding in report.findings:
        heading = _GROUPS.get(finding.check, "")
        if heading != group:
            lines += ["", heading] if lines else [heading]
            group = heading
        lines += _lines(finding, width, colour)
    counts = [(report.count(state), state) for state in State]
    plural = {State.WARNING: "warnings", State.PROBLEM: "problems"}
    words = [
        f"{count} {plural.get(state, state) if count != 1 else state}"
        for count, state in counts
        if count
    ]
    return "\n".join([*lines, "", ", ".join(words)]) + "\n"


def _lines(finding: Finding, width: int, colour: bool) -> Iterator[str]:
    state = f"{finding.state:<{STATE_WIDTH}}"
    if colour:
        state = f"\x1b[{COLOURS[finding.state]}m{state}\x1b[0m"
    indent = " " * (2 + STATE_WIDTH + NAME_WIDTH)
    found = _wrapped(finding.found, width - len(indent))
    yield f"  {state}{finding.check:<{NAME_WIDTH}}{found[0]}"
    yield from (indent + line for line in found[1:])
    told = [("why", finding.why), ("mend", finding.mend)]
    if finding.state is State.OK:
        return
    if finding.state is State.SKIPPED:
        told = told[1:]
    for word, text in told:
        if text:
            sentence, *as_is = text.split("\n")
            first, *more = _wrapped(sentence, width - len(indent) - 6)
            yield f"{indent}{word:<6}{first}"
            yield from (f"{indent}      {line}" for line in more)
            # A record, a setting or a command is copied: it stays in one piece, however long.
            yield from (f"{indent}        {printable(line)}" for line in as_is)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of printable text; a name is never cut."""
    return textwrap.wrap(
        printable(text), max(width, 30), break_long_words=False, break_on_hyphens=False
    ) or [""]


def _width() -> int:
    columns = shutil.get_terminal_size((WIDTH_MOST, 0)).columns
    return min(max(columns, WIDTH_LEAST), WIDTH_MOST)


def _colour() -> bool:
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
