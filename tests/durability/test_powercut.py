"""The power fails at any moment: what was promised arrives, what was spent stays so (R2, R8)."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from tests.durability.disk import Mark, recorded
from tests.durability.powercut import suffer

CUTS, CHECKS = 30, 200
"""Three hundred: scripts/prove R2."""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_thirty_cuts_lose_nothing_that_was_promised() -> None:
    toll = asyncio.run(suffer(CUTS, CHECKS, drains=2))
    assert toll.cuts == CUTS and toll.promised > CUTS * CHECKS / 4, "there was no load"
    assert toll.lost == [] and toll.revived == [] and toll.unusable == []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_without_syncs_the_same_cuts_lose_something(synchronous: str) -> None:
    """The negative control: the layer does drop what is not synced, and the count does see it."""
    toll = asyncio.run(suffer(CUTS, CHECKS // 2, synchronous=synchronous))
    assert toll.lost and toll.revived


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_cut_behind_a_commit_keeps_it_and_one_before_it_need_not(
    tmp_path: Path, mode: str
) -> None:
    """The layer by itself, under SQLite's two journals."""
    home, ruin = tmp_path / "home", tmp_path / "ruin"
    home.mkdir()
    ruin.mkdir()
    with recorded(home) as disk, closing(sqlite3.connect(home / "x", isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("CREATE TABLE number (value)")
        for number in range(100):
            db.execute("INSERT INTO number VALUES (?)", (number,))
            disk.mark(number)
    moments = {e.what: n for n, e in enumerate(disk.events, 1) if isinstance(e, Mark)}
    chance = Random(1)
    for number in range(0, 100, 7):
        for file in ruin.iterdir():
            file.unlink()
        disk.cut(moments[number], chance, ruin)
        with closing(sqlite3.connect(ruin / "x")) as db:
            assert db.execute("SELECT count(*) FROM number").fetchone() == (number + 1,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
