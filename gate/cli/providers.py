"""`gate providers`: the table of providers in force, and what of it the operator has changed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Final

from gate.cli.printing import printable
from gate.engine import providers_of
from gate.settings.read import load
from gate.smtp.provider import Provider

NAME_WIDTH: Final = 16
ACCEPTS_WIDTH: Final = 19


def run(options: argparse.Namespace) -> int:
    """Print the table, a row a line, in the order of names."""
    table = providers_of(load(options.config, os.environ))
    for row in _rows(table):
        sys.stdout.write(_json(row) if options.json else _line(row))
    return 0


def _rows(table: Mapping[str, Provider]) -> list[Provider]:
    return sorted({row.name: row for row in table.values()}.values(), key=lambda row: row.name)


def _json(row: Provider) -> str:
    keys = (*Provider.__dataclass_fields__,)
    return json.dumps({key: getattr(row, key) for key in keys}, ensure_ascii=False) + "\n"


def _line(row: Provider) -> str:
    changed = f"  (yours: {', '.join(row.overlaid)})" if row.overlaid else ""
    name = printable(row.name)
    return f"{name:<{NAME_WIDTH}} {row.accepts:<{ACCEPTS_WIDTH}} {_limits(row)}{changed}\n"


def _limits(row: Provider) -> str:
    if row.probe == "never" or row.accepts == "opaque":
        return "never asked"
    at_once, a_minute = row.dialogues, row.recipients_per_minute
    said = [
        f"{at_once} at once" if at_once else "the ordinary number at once",
        f"{a_minute} a minute" if a_minute else "the ordinary number a minute",
    ]
    if row.spacing:
        said.append(f"{row.spacing:g} s apart")
    if row.control == "never":
        said.append("no random recipient")
    return ", ".join(said)
