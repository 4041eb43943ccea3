"""The list is whole: every row has a test, every test a row, and none is put off."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.security.rows import row_of, rows

HERE = Path(__file__).parent
PUT_OFF = {"xfail", "skip", "skipif"}


def proofs() -> Iterator[tuple[str, Any]]:
    """Every test function of this folder but those of this file."""
    for path in sorted(HERE.glob("test_*.py")):
        if path != Path(__file__):
            module = import_module(f"tests.security.{path.stem}")
            for name, found in inspect.getmembers(module, inspect.isfunction):
                if name.startswith("test_"):
                    yield name, found


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    proved = {name: row_of(name) for name, _ in proofs()}
    assert {name for name, row in proved.items() if row not in rows()} == set()
    assert set(rows()) - set(proved.values()) == set()


def test_no_row_is_put_off() -> None:
    marks = {mark.name for _, test in proofs() for mark in getattr(test, "pytestmark", [])}
    assert not marks & PUT_OFF
    for path in HERE.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if path != Path(__file__):
            assert not [f"pytest.{word}" for word in PUT_OFF if f"pytest.{word}(" in text]
