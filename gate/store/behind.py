"""Memory in front of something that keeps: what `sqlite:` and `redis:` do alike.

What it promises: the event loop never waits for what lies behind. Records are written behind, in
groups, at most `STORE_FLUSH` after they were put. A claim is kept before it returns. When what lies
behind cannot be used, everything goes on in memory, `healthy` is False, and it is tried again every
`STORE_RETRY` until it can be; what is unwritten by then is written.

How: what is put, claimed and asked of the queue waits here; one task hands it over (`_commit`)
while the next group gathers. Who waits for an answer may leave at any time: nobody's leaving
reaches a file or a connection.

Bugs: while what lies behind is down, at most `UNWRITTEN` records and claims wait for it; more are
kept in memory only.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, cast

from gate.budget import STORE_CLAIM, STORE_FLUSH, STORE_RETRY, Clock
from gate.store import Job, Lease, Letter, Settled
from gate.store import Kept as Row
from gate.store.memory import ClaimBook, Recent

UNWRITTEN: Final = 50_000
"""What waits for a broken disk or network, at most: some ten megabytes."""

log = logging.getLogger("gate.store")
Decision = asyncio.Future[bytes | None]


class Unusable(Exception):
    """What lies behind cannot be used now. The message says why, and what to do."""


class ClaimRow(NamedTuple):
    """A claim to be decided."""

    key: bytes
    value: bytes
    expires: float


class Verbs(Protocol):
    """What can be done with jobs: the `Queue` protocol (gate/store), without waiting.

    `QueueTable` does it at once, `QueueCalls` says what Redis has to do.
    """

    def begin(self, now: float) -> object: ...
    def add(self, jobs: Sequence[Job]) -> object: ...
    def lease(self, kind: str, room: Mapping[str, int], now: float, until: float) -> object: ...
    def lease_subject(self, kind: str, subject: bytes, now: float, until: float) -> object: ...
    def settle(self, settled: Sequence[Settled], jobs: Sequence[Job]) -> object: ...
    def forget(self, subjects: Collection[bytes], ids: Collection[tuple[str, bytes]]) -> object: ...
    def dues(self, kind: str, lanes: Collection[str]) -> object: ...
    def tidy(self, kind: str, lanes: Collection[str], now: float) -> object: ...
    def subjects(self, kind: str) -> object: ...
    def depth(self) -> object: ...
    def letters(self, kind: str, most: int) -> object: ...
    def replay(self, kind: str, ids: Collection[bytes], again: Job) -> object: ...


class Work(NamedTuple):
    """Something to be done with the jobs, and records to keep with it unless it comes to False."""

    act: Callable[[Verbs], object]
    records: Mapping[bytes, Row] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class Waiting:
    """Work on the jobs, to be in the next commit. `lasting`: or in one after the store healed.

    `done` becomes its result, or None if it could not be done at once.
    """

    work: Work
    done: asyncio.Future[object]
    lasting: bool


class Behind(ABC):
    """Memory, and the one task that writes. Made inside a running loop; `close` it."""

    _name: str
    """What lies behind, for the operator. Holds no password."""
    _idle: float
    """Seconds after which `_commit` is called although nothing waits."""

    def __init__(self, secrets: Mapping[str, bytes], wall: Clock, capacity: int) -> None:
        self._secrets = dict(secrets)
        self._wall = wall
        self._capacity = capacity
        self._recent = Recent(capacity, wall)
        self._claims = ClaimBook(capacity, wall)
        self._trouble: str | None = None
        self.failures = 0
        self._unwritten: dict[bytes, Row | None] = {}
        self._being_written: dict[bytes, Row | None] = {}
        self._undecided: dict[bytes, tuple[ClaimRow, Decision]] = {}
        self._works: list[Waiting] = []
        self._work = asyncio.Event()
        self._closing = asyncio.Event()
        self._flush_due: asyncio.TimerHandle | None = None
        self._writer = asyncio.create_task(self._write_behind(), name="gate-store")

    # -- what a store of a kind does by itself -----------------------------------------------------

    @abstractmethod
    async def _find(self, key: bytes) -> Row | None:
        """One record, expired or not. Raises `Unusable`, and `TimeoutError` after STORE_WAIT."""

    @abstractmethod
    async def _commit(
        self, records: dict[bytes, Row | None], claims: list[ClaimRow], works: list[Work]
    ) -> tuple[list[Row | None], list[object]]:
        """Open again if there was trouble, and keep all of it (record None: delete) before it
        returns. For each claim None if it won, else who holds it; for each work its result.
        """

    @abstractmethod
    async def _let_go(self) -> None:
        """Close what lies behind. Never raises."""

    # -- what it says of itself --------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """False while what lies behind cannot be used."""
        return self._trouble is None

    @property
    def trouble(self) -> str | None:
        """What is wrong with it, and what to do."""
        return self._trouble

    async def keyring(self) -> dict[str, bytes]:
        """The secrets that the store was made with."""
        return dict(self._secrets)

    # -- records and claims ------------------------------------------------------------------------

    def peek(self, key: bytes) -> bytes | None:
        """What is held in memory."""
        return self._recent.get(key)

    async def get(self, key: bytes) -> bytes | None:
        """From memory, or else from behind it; None if that is too slow (`STORE_WAIT`)."""
        held = self._recent.get(key)
        if held is not None:
            return held
        row = await self._row(key)
        if row is None or row.expires <= self._wall():
            return None
        self._recent.put(key, row.value, row.expires)
        return row.value

    async def put(self, key: bytes, value: bytes, *, expires: float) -> None:
        """Keep a value: in memory at once, behind it within `STORE_FLUSH`."""
        self._recent.put(key, value, expires)
        if len(self._unwritten) + len(self._being_written) < UNWRITTEN or key in self._unwritten:
            self._write_soon(key, Row(value, expires))

    async def delete(self, key: bytes) -> None:
        """Forget a record: in memory at once, behind it within `STORE_FLUSH`."""
        self._recent.discard(key)
        self._write_soon(key, None)

    async def claim(self, key: bytes, *, expires: float, value: bytes = b"") -> bytes | None:
        """None: the key is ours, and that is kept. Else the winner's value.

        While the store cannot be used, or is slower than `STORE_CLAIM`, memory decides.
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
        """Take up what an earlier process left."""
        await self._queued(lambda jobs: jobs.begin(now), lasting=True)

    async def add(
        self, jobs: Sequence[Job], records: Mapping[bytes, Row] | None = None, *, within: float
    ) -> bool:
        """Take jobs and records; True if they are kept within so many seconds."""
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
        return cast("list[Lease]", found or [])

    async def lease_subject(
        self, kind: str, subject: bytes, *, now: float, until: float
    ) -> list[Lease]:
        """What waits for one subject."""
        found = await self._queued(lambda jobs: jobs.lease_subject(kind, subject, now, until))
        return cast("list[Lease]", found or [])

    async def settle(
        self,
        settled: Sequence[Settled],
        jobs: Sequence[Job] = (),
        records: Mapping[bytes, Row] | None = None,
    ) -> bool:
        """End leases, with what follows from it, in one step; False: nothing happened."""
        records = records or {}
        if not await self._queued(lambda table: table.settle(settled, jobs), records):
            return False
        for key, row in records.items():
            self._recent.put(key, *row)
        return True

    async def dues(self, kind: str, lanes: Collection[str]) -> Mapping[str, float]:
        """When the first job of each of these lanes is due."""
        found = await self._queued(lambda jobs: jobs.dues(kind, lanes))
        return cast("dict[str, float]", found or {})

    async def tidy(self, kind: str, lanes: Collection[str], *, now: float) -> int:
        """Bury and forget what is too old, or of no lane that there is."""
        return cast(int, await self._queued(lambda jobs: jobs.tidy(kind, lanes, now)) or 0)

    async def subjects(self, kind: str) -> set[bytes]:
        """What jobs are about."""
        return cast("set[bytes]", await self._queued(lambda jobs: jobs.subjects(kind)) or set())

    async def depth(self) -> Mapping[tuple[str, bool], int]:
        """How many jobs there are, by kind, alive and dead."""
        found = await self._queued(lambda jobs: jobs.depth())
        return cast("dict[tuple[str, bool], int]", found or {})

    async def letters(self, kind: str, most: int) -> list[Letter]:
        """Dead letters, the newest first."""
        found = await self._queued(lambda jobs: jobs.letters(kind, most))
        return cast("list[Letter]", found or [])

    async def replay(self, kind: str, ids: Collection[bytes], again: Job) -> list[str]:
        """Make dead letters jobs again."""
        found = await self._queued(lambda jobs: jobs.replay(kind, ids, again))
        return cast("list[str]", found or [])

    async def _erased(
        self,
        keys: Collection[bytes],
        subjects: Collection[bytes],
        ids: Collection[tuple[str, bytes]],
    ) -> list[bytes] | None:
        """Delete records and jobs in one commit; the ids of the jobs, or None."""
        for key in keys:
            await self.delete(key)
        gone = await self._queued(lambda jobs: jobs.forget(subjects, ids))
        return cast("list[bytes] | None", gone)

    async def close(self) -> None:
        """Write what is unwritten, and let go of what lies behind."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._work.set()
        await self._writer
        if self._flush_due is not None:
            self._flush_due.cancel()
        await self._let_go()

    # -- how ---------------------------------------------------------------------------------------

    async def _queued(
        self,
        act: Callable[[Verbs], object],
        records: Mapping[bytes, Row] | None = None,
        *,
        within: float | None = None,
        lasting: bool = False,
    ) -> object:
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
        return done.result() if done.done() else None

    async def _row(self, key: bytes) -> Row | None:
        for waiting in (self._unwritten, self._being_written):
            if key in waiting:
                return waiting[key]
        if not self.healthy or self._closing.is_set():
            return None
        try:
            return await self._find(key)
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
                await _happens(self._work, within=self._idle)
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
        decided: list[Row | None]
        results: list[object]
        try:
            decided, results = await self._commit(
                self._being_written, [row for row, _ in undecided], [w.work for w in works]
            )
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

    def _fail(self, error: Exception) -> None:
        if self._trouble is None:
            log.error("%s; checks are answered but not remembered", error)
        self._trouble = str(error)
        self.failures += 1
        self._work.set()

    def _heal(self) -> None:
        if self._trouble is not None:
            log.warning("%s: can be written again", self._name)
        self._trouble = None


async def _happens(event: asyncio.Event, *, within: float) -> None:
    """Wait for an event, but no longer than `within` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
