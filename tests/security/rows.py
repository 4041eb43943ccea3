"""The rows of the threat list, and which of them a test proves: its name begins with the id."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

_NAME = re.compile(r"test_([A-Z]\d+|k\d+|M_[a-z_]+?)__\w+")


@cache
def rows() -> dict[str, str]:
    """What each row is about, by its id."""
    tables = tomllib.loads(Path(__file__).with_name("rows.toml").read_text(encoding="utf-8"))
    return {row: text for table in tables.values() for row, text in table.items()}


def row_of(test: str) -> str | None:
    """The id in a test's name: `test_A4__…`, `test_k1__…` (k-1), `test_M_idna__…` (M-idna)."""
    match = _NAME.match(test)
    if match is None:
        return None
    name = match[1]
    return name.replace("k", "k-") if name.startswith("k") else name.replace("_", "-")
