"""The list files of this folder, and how they are read: once, at import, by the module in need.

`#` begins a comment. `words`: names separated by white space. `pairs`: lines of `meant: typed …`.
TOML files are tables whose rows name their source.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any


def words(name: str) -> frozenset[str]:
    """All words of a list file."""
    return frozenset(word for line in _lines(name) for word in line.split())


def pairs(name: str) -> dict[str, str]:
    """What is typed → what is meant, of a file of `meant: typed …` lines."""
    found = {}
    for line in _lines(name):
        meant, _, typed = line.partition(":")
        for word in typed.split():
            found[word] = meant
    return found


def table(name: str) -> dict[str, list[dict[str, Any]]]:
    """A TOML file: lists of rows by the name of their table."""
    return tomllib.loads(_text(name))


def _lines(name: str) -> list[str]:
    return [line for line in _text(name).splitlines() if line and not line.startswith("#")]


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
