"""`gate store recover`: a good file out of a damaged one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gate.reason import GateError
from gate.settings.read import load
from gate.store.file import Unusable, check_library
from gate.store.recover import Recovered, recover

_NAMES = {"claim": "tokens spent", "job": "jobs that wait", "record": "records"}


def run(options: argparse.Namespace) -> int:
    """Mend the file of the settings, and say what became of it."""
    kind, _, name = load(options.config, os.environ).store.url.partition(":")
    if kind != "sqlite":
        raise GateError("store.url: there is no file; only a sqlite: store can be damaged")
    check_library()
    try:
        found = recover(Path(name))
    except Unusable as error:
        raise GateError(f"store.url: {error}") from None
    sys.stdout.write(describe(name, found))
    return 0


def describe(name: str, found: Recovered) -> str:
    """What was done, in a few lines."""
    if not found.damage:
        return f"{name}: is not damaged; nothing was done\n"
    kept = ", ".join(f"{count} {_NAMES[table]}" for table, count in found.kept.items())
    lines = [f"{name}: was damaged ({found.damage})", f"kept: {kept}"]
    if not found.master:
        lines.append(
            "the master key could not be read: a new one was made; older tokens, and jobs that "
            "wait, cannot be opened unless server.secret was set"
        )
    lines.append(f"the damaged file is {found.aside}; remove it when you no longer need it")
    return "\n".join(lines) + "\n"
