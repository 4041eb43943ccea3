"""`sqlite:FILE`: memory in front of one file that one thread writes.

What it promises: the event loop never waits for a disk. A claim is on disk before it returns. The
rest is `Behind`'s.

How: one thread commits what waits while the next group gathers. Reads go to the connection directly
when that thread is not in it (a few microseconds), else they queue behind it.

Bugs: the file grows with what is put and shrinks never; expired rows make room for new ones.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from gate.budget import STORE_SWEEP, STORE_WAIT, Clock
from gate.reason import GateError
from gate.store import Kept as Row
from gate.store.behind import UNWRITTEN as UNWRITTEN
from gate.store.behind import Behind, ClaimRow, Unusable, Work
from gate.store.file import Damaged, StoreFile, check_library

T = TypeVar("T")


class SqliteStore(Behind):
    """The store in a file. Made by `open`; `close` it."""

    _idle = STORE_SWEEP

    def __init__(
        self, file: StoreFile, secrets: dict[str, bytes], wall: Clock, capacity: int
    ) -> None:
        super().__init__(secrets, wall, capacity)
        self._file = file
        self._name = str(file.path)
        self._damaged = False
        self._in_file = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gate-store")
        self._swept_at = wall()

    @classmethod
    async def open(cls, path: Path, *, wall: Clock, capacity: int) -> SqliteStore:
        """Open the file, making it if it is missing. Raises `GateError` with what to do."""
        check_library()
        file = StoreFile(path)

        def prepare() -> dict[str, bytes]:
            file.open(check=True)
            return file.secrets()

        try:
            secrets = await asyncio.to_thread(prepare)
        except Unusable as error:
            raise GateError(f"store.url: {error}") from None
        return cls(file, secrets, wall, capacity)

    async def erase(
        self,
        keys: Collection[bytes],
        *,
        subjects: Collection[bytes] = (),
        ids: Collection[tuple[str, bytes]] = (),
    ) -> list[bytes] | None:
        """Delete records and jobs in one commit, and fold the log, which holds what they were."""
        gone = await self._erased(keys, subjects, ids)
        if gone is None or not await self._in_thread(self._fold):
            return None
        return gone

    def _fold(self) -> bool:
        """In the thread: nothing is left in the log."""
        with self._in_file:
            try:
                self._file.fold()
            except Unusable:
                return False
        return True

    async def _find(self, key: bytes) -> Row | None:
        if self._in_file.acquire(blocking=False):
            try:
                return self._file.read(key)
            finally:
                self._in_file.release()
        async with asyncio.timeout(STORE_WAIT):
            return await self._in_thread(partial(self._read, key))

    async def _commit(
        self, records: dict[bytes, Row | None], claims: list[ClaimRow], works: list[Work]
    ) -> tuple[list[Row | None], list[object]]:
        return await self._in_thread(partial(self._write, records, claims, works))

    def _write(
        self, records: dict[bytes, Row | None], claims: list[ClaimRow], works: list[Work]
    ) -> tuple[list[Row | None], list[object]]:
        """In the thread: open again if there was trouble, write, and sweep now and then."""
        with self._in_file:
            now = self._wall()
            if self._trouble is not None:
                # A damaged file may well take a write; it is looked through before it is trusted.
                self._file.open(check=self._damaged)
            outcome: tuple[list[Row | None], list[object]] = [], []
            if records or claims or works:
                outcome = self._file.write(records, claims, now, works)
            if not 0 <= now - self._swept_at < STORE_SWEEP and not self._file.sweep(now):
                self._swept_at = now
            return outcome

    def _read(self, key: bytes) -> Row | None:
        """In the thread: what the file holds."""
        with self._in_file:
            return self._file.read(key)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _let_go(self) -> None:
        await self._in_thread(self._file.close)
        self._thread.shutdown()

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        self._damaged = self._damaged or isinstance(error, Damaged)

    def _heal(self) -> None:
        super()._heal()
        self._damaged = False
