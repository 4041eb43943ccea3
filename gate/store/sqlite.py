"""`sqlite:FILE`: memory in front of one file that one thread writes.

What it promises: the event loop never waits for a disk. Records are written behind, in groups, at
most `STORE_FLUSH` after they were put. A claim is on disk before it returns. When the file cannot
be used, everything goes on in memory, `healthy` is False, and the file is tried again every
`STORE_RETRY` until it can be; what is unwritten by then is written.

How: what is put waits in `_unwritten`; one task hands it to one thread, which commits it while the
next group gathers. Reads go to the connection directly when that thread is not in it (a few
microseconds), else they queue behind it.

Bugs: while a disk is down, at most `UNWRITTEN` records and claims wait for it; more are kept in
memory only. The file grows with what is put and shrinks never; expired rows make room for new ones.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, cast

from gate.budget import (
    STORE_CLAIM,
    STORE_FLUSH,
    STORE_RETRY,
    STORE_SWEEP,
    STORE_WAIT,
    Clock,
)
from gate.reason import GateError
from gate.store import Job, Lease, Letter, Settled
from gate.store import Kept as Row
from gate.store.file import ClaimRow, Damaged, StoreFile, Unusable, Work, check_library
from gate.store.memory import ClaimBook, Recent
from gate.store.queue import QueueTable

UNWRITTEN: Final = 50_000
"""What waits for a broken disk, at most: some ten megabytes."""

log = logging.getLogger("gate.store")
T = TypeVar("T")
Decision = asyncio.Future[bytes | None]


@dataclass(slots=True, eq=False)
class Waiting:
    """Work on the jobs, to be in the next commit. `lasting`: or in one after the file healed.

    `done` becomes its result, or None if it could not be done at once.
    """

    work: Work
    done: asyncio.Future[object]
    lasting: bool


class SqliteStore:
    """The store in a file. Made by `open`; `close` it."""

    def __init__(
        self, file: StoreFile, secrets: dict[str, bytes], wall: Clock, capacity: int
    ) -> None:
        self._file = file
        self._secrets = secrets
        self._wall = wall
        self._recent = Recent(capacity, wall)
        self._claims = ClaimBook(capacity, wall)
        self._trouble: str | None = None
        self.failures = 0
        self._damaged = False
        self._unwritten: dict[bytes, Row | None] = {}
        self._being_written: dict[bytes, Row | None] = {}
        self._undecided: dict[bytes, tuple[ClaimRow, Decision]] = {}
        self._works: list[Waiting] = []
        self._in_file = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gate-store")
        self._work = asyncio.Event()
        self._closing = asyncio.Event()
        self._flush_due: asyncio.TimerHandle | None = None
        self._swept_at = wall()
        self._writer = asyncio.create_task(self._write_behind(), name="gate-store")

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

    @property
    def healthy(self) -> bool:
        """False while the file cannot be used."""
        return self._trouble is None

    @property
    def trouble(self) -> str | None:
        """What is wrong with the file, and what to do."""
        return self._trouble

    def peek(self, key: bytes) -> bytes | None:
        """What is held in memory."""
        return self._recent.get(key)

    async def get(self, key: bytes) -> bytes | None:
        """From memory, or else from the file; None if the file is too slow (`STORE_WAIT`)."""
        held = self._recent.get(key)
        if held is not None:
            return held
        row = await self._row(key)
        if row is None or row.expires <= self._wall():
            return None
        self._recent.put(key, row.value, row.expires)
        return row.value

    async def put(self, key: bytes, value: bytes, *, expires: float) -> None:
        """Keep a value: in memory at once, in the file within `STORE_FLUSH`."""
        self._recent.put(key, value, expires)
        if len(self._unwritten) + len(self._being_written) < UNWRITTEN or key in self._unwritten:
            self._write_soon(key, Row(value, expires))

    async def delete(self, key: bytes) -> None:
        """Forget a record: in memory at once, in the file within `STORE_FLUSH`."""
        self._recent.discard(key)
        self._write_soon(key, None)

    async def claim(self, key: bytes, *, expires: float, value: bytes = b"") -> bytes | None:
        """None: the key is ours, and that is on disk. Else the winner's value.

        While the file cannot be used, or is slower than `STORE_CLAIM`, memory decides.
        """
        undecided = self._undecided.get(key)
        if undecided is not None and self.healthy:
            await asyncio.wait({undecided[1]}, timeout=STORE_CLAIM)
        held = self._claims.holder(key)
        if held is not None:
            return held
        self._claims.enter(key, value, expires)
        if len(self._undecided) >= UNWRITTEN:
            return None
        decision: Decision = asyncio.get_running_loop().create_future()
        self._undecided[key] = ClaimRow(key, value, expires), decision
        if not self.healthy:
            return None
        self._work.set()
        done, _ = await asyncio.wait({decision}, timeout=STORE_CLAIM)
        return decision.result() if done else None

    # -- jobs --------------------------------------------------------------------------------------

    async def begin(self, now: float) -> None:
        """Void the leases of the process that had the file before."""
        await self._queued(lambda jobs: jobs.begin(now), lasting=True)

    async def add(
        self, jobs: Sequence[Job], records: Mapping[bytes, Row] | None = None, *, within: float
    ) -> bool:
        """Take jobs and records; True if that is on disk within so many seconds."""
        records = records or {}
        for key, row in records.items():
            self._recent.put(key, *row)
        taken = await self._queued(
            lambda table: table.add(jobs), records, within=within, lasting=True
        )
        return taken == len(jobs)

    async def lease(
        self, kind: str, room: Mapping[str, int], *, now: float, until: float
    ) -> list[Lease]:
        """What is due, at most so many subjects of each lane."""
        found = await self._queued(lambda jobs: jobs.lease(kind, room, now, until))
        return found or []

    async def lease_subject(
        self, kind: str, subject: bytes, *, now: float, until: float
    ) -> list[Lease]:
        """What waits for one subject."""
        found = await self._queued(lambda jobs: jobs.lease_subject(kind, subject, now, until))
        return found or []

    async def settle(
        self,
        settled: Sequence[Settled],
        jobs: Sequence[Job] = (),
        records: Mapping[bytes, Row] | None = None,
    ) -> bool:
        """End leases, with what follows from it, in one commit; False: nothing happened."""
        records = records or {}
        if not await self._queued(lambda table: table.settle(settled, jobs), records):
            return False
        for key, row in records.items():
            self._recent.put(key, *row)
        return True

    async def dues(self, kind: str, lanes: Collection[str]) -> Mapping[str, float]:
        """When the first job of each of these lanes is due."""
        return await self._queued(lambda jobs: jobs.dues(kind, lanes)) or {}

    async def tidy(self, kind: str, lanes: Collection[str], *, now: float) -> int:
        """Bury and forget what is too old, or of no lane that there is."""
        return await self._queued(lambda jobs: jobs.tidy(kind, lanes, now)) or 0

    async def subjects(self, kind: str) -> set[bytes]:
        """What jobs are about."""
        return await self._queued(lambda jobs: jobs.subjects(kind)) or set()

    async def depth(self) -> Mapping[tuple[str, bool], int]:
        """How many jobs there are, by kind, alive and dead."""
        return await self._queued(lambda jobs: jobs.depth()) or {}

    async def letters(self, kind: str, most: int) -> list[Letter]:
        """Dead letters, the newest first."""
        return await self._queued(lambda jobs: jobs.letters(kind, most)) or []

    async def replay(self, kind: str, ids: Collection[bytes], again: Job) -> list[str]:
        """Make dead letters jobs again."""
        return await self._queued(lambda jobs: jobs.replay(kind, ids, again)) or []

    async def erase(
        self,
        keys: Collection[bytes],
        *,
        subjects: Collection[bytes] = (),
        ids: Collection[tuple[str, bytes]] = (),
    ) -> list[bytes] | None:
        """Delete records and jobs in one commit, and fold the log, which holds what they were."""
        for key in keys:
            await self.delete(key)
        gone = await self._queued(lambda jobs: jobs.forget(subjects, ids))
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

    async def _queued(
        self,
        act: Callable[[QueueTable], T],
        records: Mapping[bytes, Row] | None = None,
        *,
        within: float | None = None,
        lasting: bool = False,
    ) -> T | None:
        """Do it in the next commit; its result, or None if that is not to be had (in time)."""
        if self._closing.is_set() or not (self.healthy or lasting):
            return None
        if len(self._works) >= UNWRITTEN:
            return None
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._works.append(Waiting(Work(act, records or {}), done, lasting))
        if not self.healthy:
            return None
        self._work.set()
        await asyncio.wait({done}, timeout=within)
        return cast(T | None, done.result()) if done.done() else None

    async def keyring(self) -> dict[str, bytes]:
        """The secrets that the file was made with."""
        return dict(self._secrets)

    async def close(self) -> None:
        """Write what is unwritten, fold the log into the file, and let go of it."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._work.set()
        await self._writer
        if self._flush_due is not None:
            self._flush_due.cancel()
        await self._in_thread(self._file.close)
        self._thread.shutdown()

    async def _row(self, key: bytes) -> Row | None:
        for waiting in (self._unwritten, self._being_written):
            if key in waiting:
                return waiting[key]
        if not self.healthy or self._closing.is_set():
            return None
        try:
            if self._in_file.acquire(blocking=False):
                try:
                    return self._file.read(key)
                finally:
                    self._in_file.release()
            async with asyncio.timeout(STORE_WAIT):
                return await self._in_thread(partial(self._read, key))
        except TimeoutError:
            return None
        except Unusable as error:
            self._fail(error)
            return None

    def _write_soon(self, key: bytes, row: Row | None) -> None:
        self._unwritten[key] = row
        if self._flush_due is None and not self._closing.is_set():
            loop = asyncio.get_running_loop()
            self._flush_due = loop.call_later(STORE_FLUSH, self._work.set)

    async def _write_behind(self) -> None:
        """The one task that writes: waits for work, hands it over, and does so until closed."""
        while not self._closing.is_set():
            if self.healthy:
                await _happens(self._work, within=STORE_SWEEP)
            else:
                await _happens(self._closing, within=STORE_RETRY)
            self._work.clear()
            await self._write_once()
        if self._unwritten or self._undecided or self._works:
            await self._write_once()

    async def _write_once(self) -> None:
        """Write all that waits, in one commit. Heals or declares trouble, and never raises."""
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        self._being_written, self._unwritten = self._unwritten, {}
        undecided = list(self._undecided.values())
        works, self._works = self._works, []
        write = partial(
            self._write, self._being_written, [row for row, _ in undecided], [w.work for w in works]
        )
        decided: list[Row | None]
        results: list[object]
        try:
            decided, results = await self._in_thread(write)
        except Exception as error:
            # Even a fault of our own must not end this task: nothing would be written any more.
            self._unwritten = {**self._being_written, **self._unwritten}
            self._works = [waiting for waiting in works if waiting.lasting] + self._works
            self._fail(error)
            decided, results = [None] * len(undecided), [None] * len(works)
        else:
            self._heal()
            for entry in undecided:
                if self._undecided.get(entry[0].key) is entry:
                    del self._undecided[entry[0].key]
        self._being_written = {}
        for (row, decision), winner in zip(undecided, decided, strict=True):
            if winner is not None:
                self._claims.enter(row.key, *winner)
            if not decision.done():
                decision.set_result(None if winner is None else winner.value)
        for waiting, result in zip(works, results, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(result)

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

    def _fail(self, error: Exception) -> None:
        if self._trouble is None:
            log.error("%s; checks are answered but not remembered", error)
        self._trouble = str(error)
        self.failures += 1
        self._damaged = self._damaged or isinstance(error, Damaged)
        self._work.set()

    def _heal(self) -> None:
        if self._trouble is not None:
            log.warning("%s: can be written again", self._file.path)
        self._trouble = None
        self._damaged = False


async def _happens(event: asyncio.Event, *, within: float) -> None:
    """Wait for an event, but no longer than `within` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
