"""No row of the catalogue is forgotten, and none is let off."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.faults import (
    test_connect,
    test_dns,
    test_ehlo,
    test_mail,
    test_own_side,
    test_rcpt,
    test_session,
)
from tests.faults.ground import BUDGETS

CATALOGUE = {"N": 46, "C": 17, "E": 20, "M": 10, "R": 40, "S": 13, "O": 14}
"""How many rows each part has: name servers, connecting, EHLO and TLS, MAIL, RCPT, session, us."""
MODULES = (
    test_dns,
    test_connect,
    test_ehlo,
    test_mail,
    test_rcpt,
    test_session,
    test_own_side,
)


def rows_of(module: ModuleType) -> list[str]:
    """The rows of its table, and those that have a test of their own."""
    own = (re.match(r"test_([A-Z]\d\d)_", name) for name in vars(module))
    return [row.id for row in module.ROWS] + [match[1] for match in own if match]


def test_every_row_has_one_test() -> None:
    rows = sorted(row for module in MODULES for row in rows_of(module))
    parts = (f"{part}{n:02}" for part, most in CATALOGUE.items() for n in range(1, most + 1))
    assert rows == sorted(parts)
    assert len(rows) == 160


def test_every_row_is_played_at_three_budgets() -> None:
    assert BUDGETS == (0.3, 1.0, 5.0)
    assert all(row.cases for module in MODULES for row in module.ROWS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_row_is_let_off(module: ModuleType) -> None:
    text = Path(module.__file__ or "").read_text("utf-8")
    assert not re.search(r"(mark|pytest)\.(skip|xfail)|importorskip", text)
