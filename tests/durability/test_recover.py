"""A store's file is damaged: `gate store recover` keeps what can be read (O06, L4)."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gate.cli import main
from gate.reason import GateError
from gate.store import Job, Store, open_store
from gate.store.file import Unusable, check_library
from gate.store.recover import recover

NOW = 1_800_000_000.0
CLAIMS, JOBS, RECORDS = 3000, 1500, 3000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gate.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:{path}", wall=lambda: NOW, capacity=10)
    try:
        yield store
    finally:
        await store.close()


def job(number: int) -> Job:
    id = f"chk_{os.urandom(16).hex()}".encode()
    times = (NOW + number, NOW, NOW + 86_400, NOW + 86_400)
    return Job("recheck", id, "shop", os.urandom(16), bytes(120), *times)


async def _fill(path: Path) -> bytes:
    """A file with something of everything in it; its master key."""
    async with opened(path) as store:
        await store.add([job(number) for number in range(JOBS)], within=5)
        await asyncio.gather(
            *(store.claim(os.urandom(16), expires=NOW + 300, value=b"spent") for _ in range(CLAIMS))
        )
        for _ in range(RECORDS):
            await store.put(os.urandom(16), bytes(100), expires=NOW + 60)
        return (await store.keyring())["master"]


@pytest.fixture
def master(path: Path) -> bytes:
    return asyncio.run(_fill(path))


def overwrite(path: Path, at: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(octets)


def a_page(path: Path, table: str) -> int:
    """Where some leaf page of a table is."""
    octets, mark = path.read_bytes(), {"job": b"chk_", "claim": b"spent"}[table]
    starts = range(0, len(octets), 4096)
    pages = [start for start in starts if octets[start : start + 4096].count(mark) > 9]
    return pages[len(pages) // 2]


def every_page_of(number: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for at in range(40 * 4096, path.stat().st_size, number * 4096):
            overwrite(path, at, b"\xa5" * 4096)

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], None], float]] = {
    "one page of jobs": (lambda path: overwrite(path, a_page(path, "job"), b"\xa5" * 4096), 0.95),
    "one page of claims": (lambda p: overwrite(p, a_page(p, "claim"), b"\xa5" * 4096), 0.95),
    "every tenth page": (every_page_of(10), 0.6),
    "the end is missing": (lambda path: os.truncate(path, path.stat().st_size - 40_960), 0.8),
    "the first octets": (lambda path: overwrite(path, 0, b"\0" * 16), 0.0),
}
"""What was done to the file, and how much of what it held must be kept."""


@pytest.mark.parametrize("name", DAMAGE)
def test_what_can_be_read_is_kept(path: Path, master: bytes, name: str) -> None:
    damage, least = DAMAGE[name]
    damage(path)
    octets = path.read_bytes()
    with pytest.raises(GateError, match="gate store recover"):
        asyncio.run(_usable(path))
    found = recover(path)
    assert found.damage and found.aside is not None
    assert found.aside.read_bytes() == octets, "not a bit of it was changed"
    assert found.kept["job"] >= least * JOBS and found.kept["claim"] >= least * CLAIMS
    assert found.master is (least > 0)
    assert asyncio.run(_usable(path)) is found.master
    assert {file.name for file in path.parent.iterdir()} == {"gate.db", "gate.db.damaged-1"}


async def _usable(path: Path) -> bool:
    """Start on the file; whether its key is still the one it was made with."""
    aside = path.with_name("gate.db.damaged-1")
    async with opened(path) as store:
        assert await store.claim(os.urandom(16), expires=NOW + 300) is None
        await store.begin(NOW)
        leases = await store.lease("recheck", {"shop": 2000}, now=NOW + 2000, until=NOW + 9000)
        assert all(lease.job.payload == bytes(120) for lease in leases)
        return aside.exists() and (await store.keyring())["master"] in aside.read_bytes()


def test_what_is_in_the_log_is_kept_too(path: Path, master: bytes) -> None:
    """The gate was killed: its last commits are in the log only."""
    script = "import asyncio, sys; from pathlib import Path; from tests.durability import "
    script += "test_recover as t; asyncio.run(t._add_and_die(Path(sys.argv[1])))"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.with_name("gate.db-wal").stat().st_size > 100_000
    overwrite(path, a_page(path, "claim"), b"\xa5" * 4096)
    found = recover(path)
    assert found.kept["job"] == 2 * JOBS and found.master
    assert 0.95 * CLAIMS <= found.kept["claim"] < CLAIMS
    assert asyncio.run(_usable(path))


async def _add_and_die(path: Path) -> None:
    async with opened(path) as store:
        await store.add([job(number) for number in range(JOBS)], within=5)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_good_file_is_left_alone(path: Path, master: bytes) -> None:
    octets = path.read_bytes()
    assert recover(path).damage == ""
    assert path.read_bytes() == octets
    assert [file.name for file in path.parent.iterdir()] == ["gate.db"]


def test_a_file_that_a_gate_has_is_left_alone(path: Path, master: bytes) -> None:
    program = "import sys; from pathlib import Path; from gate.store.recover import recover; "
    program += "recover(Path(sys.argv[1]))"

    async def test() -> str:
        async with opened(path):
            command = [sys.executable, "-c", program, str(path)]
            done = await asyncio.to_thread(
                lambda: subprocess.run(command, capture_output=True, text=True, check=False)
            )
            return done.stderr

    assert "another process has it" in asyncio.run(test())


def test_a_missing_file_is_none(path: Path) -> None:
    with pytest.raises(Unusable, match="no such file"):
        recover(path)


def test_the_command_says_what_it_did(
    path: Path,
    master: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GATE_STORE__URL", f"sqlite:{path}")
    assert main(["store", "recover"]) == 0
    assert "is not damaged; nothing was done" in capsys.readouterr().out
    overwrite(path, a_page(path, "job"), b"\xa5" * 4096)
    assert main(["store", "recover"]) == 0
    said = capsys.readouterr().out
    assert "was damaged (" in said and f"kept: {CLAIMS} tokens spent, " in said
    assert "gate.db.damaged-1" in said
    monkeypatch.setenv("GATE_STORE__URL", "memory:")
    assert main(["store", "recover"]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_an_old_library_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check_library()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(GateError, match="too old for a store"):
        asyncio.run(open_store("sqlite:unused", wall=lambda: NOW, capacity=1))
