"""All rows that were chosen are played at once, when the first of them is looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.ground import Played, Row, play

_played: list[Played] = []


@pytest.fixture(scope="session")
def played(request: pytest.FixtureRequest) -> Played:
    """What came of the rows of this session."""
    rows = dict(_rows(request.session.items))
    _played.append(play(list(rows.values())))
    return _played[-1]


def _rows(items: list[pytest.Item]) -> Iterator[tuple[str, Row]]:
    for item in items:
        row = getattr(item, "callspec", None) and item.callspec.params.get("row")  # type: ignore[attr-defined]
        if isinstance(row, Row):
            yield row.id, row


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures, in one line."""
    for one in _played:
        terminalreporter.write_line(str(one))
