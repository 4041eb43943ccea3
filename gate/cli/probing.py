"""`gate probing off|on|status`: the operator's switch, in a running gate or in its file."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from datetime import UTC, datetime

import msgspec

from gate.cli.running import Ask, NoGate, asking, with_file
from gate.probing import ON, SETTINGS, STATES, SWITCH
from gate.settings import Settings
from gate.settings.read import load
from gate.store import Store
from gate.switch import Position, keep, place_of, position, turned


class Report(msgspec.Struct):
    """What a running gate says (gate/api/switch.py); or, of one that does not run, its file."""

    state: str
    switch: Position
    store: str = ""
    kept: bool | None = None


def run(options: argparse.Namespace) -> int:
    """Turn the switch, or tell how things stand; `status` exits 1 while nobody is asked."""
    settings = load(options.config, os.environ)
    report = asyncio.run(_report(settings, options.action, getattr(options, "why", "")))
    sys.stdout.write(describe(report))
    if options.action == "status":
        return 0 if report.state == ON else 1
    return 0


def describe(report: Report) -> str:
    """A report as lines of text."""
    lines = [f"probing is {'on' if report.state == ON else 'off'}: {STATES[report.state]}"]
    switch = report.switch
    if switch.since is not None:
        when = datetime.fromtimestamp(switch.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        words = f": {switch.why}" if switch.why else ""
        lines.append(f"switched {'on' if switch.on else 'off'} {when}{words}")
    if report.kept is False:
        lines.append("this could not be written to the store: a restart forgets it")
    return "\n".join(lines) + "\n"


async def _report(settings: Settings, action: str, why: str) -> Report:
    async def with_store(store: Store) -> Report:
        if action == "status":
            at, kept = await position(store), None
        else:
            at = turned(action == "on", why, time.time)
            kept = await keep(store, at, time.time)
        state = ON if at.on else SWITCH
        return Report(state if settings.probe.enabled else SETTINGS, at, kept=kept)

    async def with_gate(ask: Ask) -> Report:
        report = msgspec.json.decode(await ask("GET", "/probing"), type=Report)
        if report.store != place_of(settings.store.url):
            raise NoGate("the gate on server.admin_port has another store")
        if action != "status":
            answer = await ask("POST", "/probing", {"on": action == "on", "why": why})
            report = msgspec.json.decode(answer, type=Report)
        return report

    # The gate first: the file of one that runs is waited for.
    try:
        return await with_gate(asking(settings))
    except NoGate:
        return await with_file(settings, with_store)
