"""The SQLite store against what disks, files and processes do to it."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from gate.budget import STORE_CLAIM, STORE_RETRY, STORE_SWEEP, STORE_WAIT
from gate.reason import GateError
from gate.store import Kept as Row
from gate.store import Store, open_store
from gate.store.file import ClaimRow, StoreFile, Work
from gate.store.sqlite import UNWRITTEN, SqliteStore
from gate.testing import LoopLag

KEY, OTHER = b"k" * 16, b"o" * 16
NOW = 1_800_000_000.0


class Wall:
    """Unix time, as the test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gate.db"


@asynccontextmanager
async def opened(path: Path, wall: Wall | None = None, capacity: int = 100) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:{path}", wall=wall or Wall(), capacity=capacity)
    try:
        yield store
    finally:
        await store.close()


async def until(store: Store, *, healthy: bool) -> None:
    async with asyncio.timeout(10 * STORE_RETRY):
        while store.healthy is not healthy:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.01)


def rows(path: Path, table: str) -> int:
    """How many rows a closed store's file holds, seen with other eyes."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def refusal(path: Path) -> str:
    """What opening says, in full."""

    async def main() -> str:
        with pytest.raises(GateError) as caught:
            async with opened(path):
                pass
        return str(caught.value)

    return asyncio.run(main())


# -- what is kept


def test_everything_is_there_after_a_restart(path: Path) -> None:
    async def main() -> None:
        wall = Wall()
        async with opened(path, wall) as store:
            await store.put(KEY, b"kept", expires=NOW + 60)
            await store.put(OTHER, b"short", expires=NOW + 1)
            await store.put(b"gone", b"v", expires=NOW + 60)
            await store.delete(b"gone")
            assert await store.claim(KEY, expires=NOW + 300, value=b"first") is None
            master = await store.keyring()
        wall.now += 2
        async with opened(path, wall) as store:
            assert store.peek(KEY) is None, "loaded when asked for"
            assert await store.get(KEY) == b"kept"
            assert store.peek(KEY) == b"kept"
            assert await store.get(OTHER) is None
            assert await store.get(b"gone") is None
            assert await store.claim(KEY, expires=NOW + 300, value=b"second") == b"first"
            assert await store.claim(KEY, expires=NOW + 300, value=b"third") == b"first"
            assert await store.keyring() == master

    asyncio.run(main())


def test_what_memory_dropped_is_found_in_the_file(path: Path) -> None:
    async def main() -> None:
        async with opened(path, capacity=10) as store:
            keys = [number.to_bytes(16, "big") for number in range(500)]
            for key in keys:
                await store.put(key, key, expires=NOW + 60)
            assert [await store.get(key) for key in keys] == keys, (
                "unwritten, being written, or written"
            )
            await store.delete(keys[0])
            assert await store.get(keys[0]) is None

    asyncio.run(main())


def test_a_hundred_claims_of_what_was_spent_before_the_restart(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.claim(KEY, expires=NOW + 300, value=b"first")
        async with opened(path) as store:
            found = await asyncio.gather(
                *(store.claim(KEY, expires=NOW + 300, value=b"late") for _ in range(100))
            )
            assert set(found) == {b"first"}

    asyncio.run(main())


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    path.touch(0o644)
    path.chmod(0o644)

    async def main() -> None:
        async with opened(path) as store:
            await store.claim(KEY, expires=NOW + 300)
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
            assert modes == {"gate.db": 0o600, "gate.db-wal": 0o600}

    asyncio.run(main())


def test_a_file_named_memory_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with opened(Path(":memory:")):
            pass

    asyncio.run(main())
    assert [file.name for file in tmp_path.iterdir()] == [":memory:"]


def test_expired_rows_are_swept_and_spent_claims_outlast_a_wrong_clock(path: Path) -> None:
    async def main(later: float) -> None:
        wall = Wall()
        async with opened(path, wall) as store:
            for number in range(5000):
                await store.put(number.to_bytes(16, "big"), b"v", expires=NOW + 60)
            await store.claim(KEY, expires=NOW + 300)
            wall.now += later
            for number in range(4):  # a sweep deletes a bounded number of rows
                await store.claim(b"%d" % number, expires=wall.now + 300)

    asyncio.run(main(later=STORE_SWEEP + 3600))
    assert rows(path, "record") == 0
    assert rows(path, "claim") == 5
    asyncio.run(main(later=86_400))
    assert rows(path, "claim") == 4, "those of the last day"


# -- processes

CHILD = """
import asyncio, sys, time
from gate.store import open_store

async def main(path):
    store = await open_store(f"sqlite:{path}", wall=time.time, capacity=100)
    print("open", flush=True)
    number = 0
    while True:
        await store.put(b"record %d" % number, b"v", expires=time.time() + 600)
        won = await store.claim(b"claim %d" % number, expires=time.time() + 600, value=b"w")
        assert won is None
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1

asyncio.run(main(sys.argv[1]))
"""


@contextmanager
def child(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that has the file open and claims as fast as it can."""
    command = [sys.executable, "-c", CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(path: Path) -> None:
    choose = random.Random(1)

    async def held(acknowledged: int) -> None:
        store = await open_store(f"sqlite:{path}", wall=time.time, capacity=100)
        for number in range(acknowledged):
            claimed = await store.claim(b"claim %d" % number, expires=time.time() + 600)
            assert claimed == b"w", f"claim {number} of {acknowledged}"
            assert await store.get(b"record %d" % number) == b"v", "put before it, written with it"
        await store.close()

    for _ in range(4):
        with child(path) as process:
            assert process.stdout is not None
            for _ in range(choose.randrange(5, 60)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            acknowledged = 0
            for line in process.stdout:
                acknowledged = int(line) + 1 if line.endswith("\n") else acknowledged
        asyncio.run(held(acknowledged))
        path.unlink()


def test_a_second_process_is_refused(path: Path) -> None:
    with child(path):
        text = refusal(path)
    assert "another process has it" in text
    assert "file of its own" in text
    assert asyncio.run(_usable(path)), "as soon as the other is gone"


def test_a_second_store_in_the_same_process_is_refused(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            with pytest.raises(GateError, match="another process has it"):
                await open_store(f"sqlite:{path}", wall=Wall(), capacity=10)
            assert await store.claim(KEY, expires=NOW + 60) is None

    asyncio.run(main())


async def _usable(path: Path) -> bool:
    async with opened(path) as store:
        return store.healthy and await store.claim(OTHER, expires=NOW + 60) is None


# -- files that cannot be used, at start


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    text = refusal(tmp_path / "nowhere" / "gate.db")
    assert f"create {tmp_path / 'nowhere'}" in text


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"these are my holiday plans" * 1000)
    text = refusal(path)
    assert "mv " in text and "is forgotten" in text
    assert path.read_bytes().startswith(b"these are my"), "it is left as it was"


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE record (mine TEXT)")
    assert "belongs to another program" in refusal(path)
    assert rows(path, "record") == 0


def test_a_newer_schema_is_refused(path: Path) -> None:
    """L8: an old gate does not guess at a newer one's file."""
    assert asyncio.run(_usable(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    text = refusal(path)
    assert "newer gate" in text and "schema 99" in text
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_flipped_octets_are_seen_at_start(path: Path) -> None:
    """O06."""
    asyncio.run(_fill(path))
    _scribble(path)
    text = refusal(path)
    assert "damaged" in text and "mv " in text


async def _fill(path: Path, count: int = 3000) -> None:
    async with opened(path) as store:
        for number in range(count):
            await store.put(number.to_bytes(16, "big"), bytes(100), expires=NOW + 60)


def _scribble(path: Path) -> None:
    """Overwrite the whole middle of the file."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (size - 16_384))


READ_ONLY = """
import asyncio, os, sys, time
import gate.store.sqlite  # while it may still be read
from gate.reason import GateError
from gate.store import open_store
os.setgid(65534), os.setuid(65534)

async def main(path):
    try:
        await open_store(f"sqlite:{path}", wall=time.time, capacity=10)
    except GateError as error:
        print(error)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("owner_writes", [True, False], ids=["another's file", "read-only file"])
def test_a_file_that_may_not_be_written(path: Path, owner_writes: bool) -> None:
    assert asyncio.run(_usable(path))
    for directory in path.parents[:3]:
        directory.chmod(0o755)
    path.chmod(0o644 if owner_writes else 0o444)
    command = [sys.executable, "-c", READ_ONLY, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert "permission to write" in said.stdout


# -- files that cannot be used, at run time


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file of this process grows beyond what the store's log has now."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_answered_from_memory_and_mends_itself(path: Path) -> None:
    """L4, O04."""

    async def main() -> None:
        async with opened(path) as store:
            await store.claim(b"before", expires=NOW + 300)
            with full_disk(path):
                await store.put(KEY, b"unremembered", expires=NOW + 60)
                assert await store.claim(KEY, expires=NOW + 300, value=b"first") is None
                await until(store, healthy=False)
                assert str(path) in (store.trouble or "") and "disk" in (store.trouble or "")
                assert await store.get(KEY) == b"unremembered"
                assert await store.claim(KEY, expires=NOW + 300) == b"first", "memory decides"
                assert await store.claim(b"before", expires=NOW + 300) == b""
                start = time.monotonic()
                assert await store.claim(OTHER, expires=NOW + 300, value=b"quick") is None
                assert await store.get(b"missing") is None
                assert time.monotonic() - start < STORE_WAIT, "nobody waits for a broken disk"
            await until(store, healthy=True)
            assert store.trouble is None
        async with opened(path) as store:
            assert await store.get(KEY) == b"unremembered", "written when there was room"
            assert await store.claim(KEY, expires=NOW + 300) == b"first"
            assert await store.claim(OTHER, expires=NOW + 300) == b"quick"

    asyncio.run(main())


def test_closing_on_a_full_disk_keeps_what_was_acknowledged(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.claim(KEY, expires=NOW + 300, value=b"first")
            with full_disk(path):
                for number in range(2000):
                    await store.put(number.to_bytes(16, "big"), bytes(200), expires=NOW + 60)
                await store.close()
        async with opened(path) as store:
            assert await store.claim(KEY, expires=NOW + 300) == b"first"
            assert await store.get(bytes(16)) is None, "there was no room for it"

    asyncio.run(main())


def test_what_waits_for_a_broken_disk_is_bounded(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.claim(KEY, expires=NOW + 300)
            with full_disk(path):
                for number in range(UNWRITTEN + 10_000):
                    await store.put(number.to_bytes(16, "big"), b"v", expires=NOW + 600)
                    if number % 10_000 == 0:
                        await asyncio.sleep(0.06)
                await until(store, healthy=False)
            await until(store, healthy=True)

    asyncio.run(main())
    assert 0 < rows(path, "record") <= UNWRITTEN


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few hundred records."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount file systems here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_small_disk_fills_up_and_is_emptied(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    path = small_disk / "gate.db"

    async def main() -> None:
        async with opened(path) as store:
            await store.claim(KEY, expires=NOW + 300, value=b"first")
            free = os.statvfs(small_disk)
            ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 8192))
            for number in range(300):
                await store.put(number.to_bytes(16, "big"), bytes(200), expires=NOW + 60)
            await until(store, healthy=False)
            assert "full" in (store.trouble or "")
            assert store.peek((299).to_bytes(16, "big")) == bytes(200)
            ballast.unlink()
            await until(store, healthy=True)
        async with opened(path) as store:
            assert await store.get((0).to_bytes(16, "big")) == bytes(200)

    asyncio.run(main())


def test_a_disk_that_turns_read_only(small_disk: Path) -> None:
    path = small_disk / "gate.db"

    def remount(mode: str) -> None:
        command = ["mount", "-o", f"remount,{mode}", str(small_disk)]
        subprocess.run(command, check=True, capture_output=True)

    async def main() -> None:
        async with opened(path) as store:
            await store.claim(KEY, expires=NOW + 300, value=b"first")
            with pytest.raises(subprocess.CalledProcessError):
                remount("ro")  # refused while a file is open for writing, as for real disks
            await store.close()
        remount("ro")
        with pytest.raises(GateError, match="permission to write"):
            await open_store(f"sqlite:{path}", wall=Wall(), capacity=10)
        remount("rw")
        assert await _usable(path)

    asyncio.run(main())


def test_damage_while_running_never_reaches_a_caller(path: Path) -> None:
    many = 40_000  # more than SQLite holds in memory

    async def main() -> None:
        await _fill(path, many)
        async with opened(path, capacity=10) as store:
            _scribble(path)
            for number in range(0, many, 97):
                assert await store.get(number.to_bytes(16, "big")) in (None, bytes(100))
            await until(store, healthy=False)
            assert "mv " in (store.trouble or "")
            assert await store.claim(KEY, expires=NOW + 300, value=b"first") is None
            await store.put(OTHER, b"v", expires=NOW + 60)
            await asyncio.sleep(STORE_RETRY + 0.2)
            assert not store.healthy, "a damaged file is not trusted again"
            assert await store.get(OTHER) == b"v"
            assert await store.claim(KEY, expires=NOW + 300) == b"first"
            os.rename(path, path.with_name("gate.db.damaged"))
            await until(store, healthy=True)
        async with opened(path) as store:
            assert await store.get(OTHER) == b"v"
            assert await store.claim(KEY, expires=NOW + 300) == b"first"

    asyncio.run(main())


def test_a_removed_file_is_made_again_with_the_same_keys(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            master = await store.keyring()
            for file in (path, path.with_name("gate.db-wal")):
                os.unlink(file)
            await store.put(KEY, b"v", expires=NOW + 60)
            await until(store, healthy=False)
            assert "removed" in (store.trouble or "")
            await until(store, healthy=True)
        async with opened(path) as store:
            assert await store.keyring() == master
            assert await store.get(KEY) == b"v"

    asyncio.run(main())


# -- the event loop


class SlowFile(StoreFile):
    """A file on a disk that takes its time."""

    seconds = 0.0

    def write(
        self,
        records: Mapping[bytes, Row | None],
        claims: Sequence[ClaimRow],
        now: float,
        works: Sequence[Work] = (),
    ) -> tuple[list[Row | None], list[object]]:
        time.sleep(self.seconds)
        return super().write(records, claims, now, works)


def test_a_slow_disk_holds_up_nobody(path: Path) -> None:
    """O05: two seconds a commit; the loop turns, a look-up waits 100 ms at most, a claim 1 s."""

    async def main() -> None:
        file = SlowFile(path)
        file.open(check=True)
        store = SqliteStore(file, file.secrets(), Wall(), 10)
        lags: list[float] = []

        async def tick() -> None:
            while True:
                start = time.monotonic()
                await asyncio.sleep(0.005)
                lags.append(time.monotonic() - start - 0.005)

        ticker = asyncio.create_task(tick())
        await store.claim(b"before", expires=NOW + 300)
        file.seconds = 2.0
        start = time.monotonic()
        claim = asyncio.create_task(store.claim(KEY, expires=NOW + 300, value=b"first"))
        await asyncio.sleep(0.05)
        await store.put(OTHER, b"v", expires=NOW + 60)
        assert await store.get(OTHER) == b"v"
        before_get = time.monotonic()
        assert await store.get(b"missing") is None
        assert time.monotonic() - before_get < STORE_WAIT + 0.1
        assert await claim is None
        assert STORE_CLAIM <= time.monotonic() - start < STORE_CLAIM + 0.5
        assert await store.claim(KEY, expires=NOW + 300) == b"first"
        assert store.healthy, "slow is not broken"
        file.seconds = 0.0
        ticker.cancel()
        await asyncio.wait({ticker})
        await store.close()
        assert max(lags) < 0.25
        async with opened(path) as again:
            assert await again.claim(KEY, expires=NOW + 300) == b"first"
            assert await again.get(OTHER) == b"v"

    asyncio.run(main())


def test_a_flood_of_writes_does_not_stall_the_loop(path: Path) -> None:
    async def main() -> None:
        async with opened(path, capacity=1000) as store:
            async with LoopLag() as lag:
                for number in range(20_000):
                    await store.put(number.to_bytes(16, "big"), bytes(60), expires=NOW + 60)
                    if number % 100 == 0:
                        await asyncio.sleep(0)
            assert lag.worst() < 0.25

    asyncio.run(main())
    assert rows(path, "record") == 20_000
