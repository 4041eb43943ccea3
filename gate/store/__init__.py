"""What outlives a flight: records, claims that are made once, jobs to be done, the gate's secrets.

A store maps octets to octets and knows nothing of addresses or verdicts. Three kinds: `memory:`,
gone with the process; `sqlite:FILE`, one file for one process; `redis://HOST`, one server for any
number of processes. tests/contract holds for all.

What every store promises:

1. A broken store never fails a check. It says so (`healthy`, `trouble`), goes on from memory, and
   tries again by itself.
2. A record past its expiry is not found; one before it may be gone, for memory is bounded.
3. Of any number of claims of one key, exactly one wins, and it is durable before `claim` returns.
4. A job that was taken is there until it is settled, whatever crashes; what follows from it is
   written in the very transaction that settles it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

from gate.budget import Clock
from gate.reason import GateError
from gate.redis_url import SCHEMES, WRITE_URL


class Kept(NamedTuple):
    """A value and when it expires (Unix seconds)."""

    value: bytes
    expires: float


class Job(Struct, frozen=True, gc=False):
    """Something to be done later. Times are seconds on the clock of whoever adds and leases jobs.

    `id` is unique in its `kind`. `lane`: jobs of one lane take turns among themselves only.
    `subject`: what it is about; jobs about one thing are leased together. Undone at `expires` it
    becomes a dead letter, and at `forgotten` it is deleted.
    """

    kind: str
    id: bytes
    lane: str
    subject: bytes
    payload: bytes
    due: float
    made: float
    expires: float
    forgotten: float


class Lease(Struct, frozen=True, gc=False):
    """A job that is ours until the lease ends. `attempts`: settlements that counted, so far."""

    job: Job
    attempts: int
    fence: int


class Done(Struct, frozen=True, gc=False):
    """The job is over and may be forgotten."""


class Again(Struct, frozen=True, gc=False):
    """The job is due again. `counts`: as an attempt. `told`: a short note for the operator."""

    due: float
    counts: bool = True
    told: str = ""


class Buried(Struct, frozen=True, gc=False):
    """The job is given up and kept as a dead letter; `why` is one of few short texts. `counts`: as
    an attempt.
    """

    why: str
    told: str = ""
    counts: bool = True


class Settled(NamedTuple):
    """A lease, and what became of its job."""

    lease: Lease
    outcome: Done | Again | Buried


class Letter(NamedTuple):
    """A dead letter, without what it says. `made` is on the queue's clock."""

    id: bytes
    lane: str
    made: float
    attempts: int
    why: str
    told: str


class Records(Protocol):
    """What was found out, kept until it expires. Losing one costs a look-up."""

    def peek(self, key: bytes) -> bytes | None:
        """What this process holds in memory; never waits."""

    async def get(self, key: bytes) -> bytes | None:
        """From memory, or else from the store behind it."""

    async def put(self, key: bytes, value: bytes, *, expires: float) -> None:
        """Keep a value until `expires` (Unix seconds). At once in memory, behind it a little later.

        Never fails the caller.
        """

    async def delete(self, key: bytes) -> None:
        """Forget a record, if there is one. Never fails the caller."""


class Claims(Protocol):
    """What may happen once only."""

    async def claim(self, key: bytes, *, expires: float, value: bytes = b"") -> bytes | None:
        """None: the key is ours now, until `expires` (Unix seconds). Else: the winner's `value`.

        A store that cannot write grants the claim in memory, so that nobody is turned away.
        """


class Queue(Protocol):
    """Jobs. None of these fails the caller: a broken store takes and gives nothing."""

    async def begin(self, now: float) -> None:
        """Take up what an earlier process left: its leases are void. Once, before the others."""

    async def add(
        self, jobs: Sequence[Job], records: Mapping[bytes, Kept] | None = None, *, within: float
    ) -> bool:
        """Take jobs, and keep records, in one transaction; a job whose id is known is no second.

        True: it is on disk. False: not within so many seconds; it is written as soon as can be.
        """

    async def lease(
        self, kind: str, room: Mapping[str, int], *, now: float, until: float
    ) -> list[Lease]:
        """What is due by `now`, at most so many subjects of each lane; ours until `until`."""

    async def lease_subject(
        self, kind: str, subject: bytes, *, now: float, until: float
    ) -> list[Lease]:
        """What waits for one subject and is held by nobody, whether or not it is due."""

    async def settle(
        self,
        settled: Sequence[Settled],
        jobs: Sequence[Job] = (),
        records: Mapping[bytes, Kept] | None = None,
    ) -> bool:
        """End leases, take the jobs that follow and keep records, in one transaction.

        False: nothing of it happened, for a lease was lost to somebody else or the store is broken.
        """

    async def dues(self, kind: str, lanes: Collection[str]) -> Mapping[str, float]:
        """When the first job of each of these lanes is due; lanes without any are left out."""

    async def tidy(self, kind: str, lanes: Collection[str], *, now: float) -> int:
        """Bury what expired, or whose lane is none of `lanes`; how many. Forget old letters."""

    async def subjects(self, kind: str) -> set[bytes]:
        """What jobs of a kind are about."""

    async def depth(self) -> Mapping[tuple[str, bool], int]:
        """How many jobs there are of each kind, alive and (True) dead."""

    async def letters(self, kind: str, most: int) -> list[Letter]:
        """Dead letters, the newest first."""

    async def replay(self, kind: str, ids: Collection[bytes], again: Job) -> list[str]:
        """Make dead letters (no `ids`: all) jobs again with the times of `again`; their lanes."""


class Store(Records, Claims, Queue, Protocol):
    """Records, claims, jobs and secrets in one place."""

    async def erase(
        self,
        keys: Collection[bytes],
        *,
        subjects: Collection[bytes] = (),
        ids: Collection[tuple[str, bytes]] = (),
    ) -> list[bytes] | None:
        """Delete records, jobs about these subjects, and jobs of these (kind, id), so that nothing
        of them is left on the disk. The ids of the jobs about the subjects.

        None: the store cannot be written, and some of it may be there still.
        """

    @property
    def healthy(self) -> bool:
        """False while what is put or claimed would not outlive this process although it should."""

    @property
    def trouble(self) -> str | None:
        """What is wrong and what to do, for the operator; None while healthy. Holds no key."""

    @property
    def failures(self) -> int:
        """How often it was found out of order, by reading, writing or trying again."""

    async def keyring(self) -> dict[str, bytes]:
        """Secrets that the store made when it was new, by name: `master`, 32 octets."""

    async def close(self) -> None:
        """Write what is unwritten and let go of the file."""


async def open_store(url: str, *, wall: Clock, capacity: int) -> Store:
    """The store of a URL, holding up to `capacity` records in memory.

    Raises `GateError`, saying what to do, for a file that cannot be used: its directory is missing,
    it cannot be written, is damaged, belongs to another program, to another process now, or to a
    newer gate; and for a server that cannot be reached or must not hold it (link.py).
    """
    if url == "memory:":
        from gate.store.memory import MemoryStore

        return MemoryStore(wall=wall, capacity=capacity)
    kind, _, name = url.partition(":")
    if kind == "sqlite" and name:
        from gate.store.sqlite import SqliteStore

        return await SqliteStore.open(Path(name), wall=wall, capacity=capacity)
    if url.startswith(SCHEMES):
        from gate.store.redis import RedisStore

        return await RedisStore.open(url, wall=wall, capacity=capacity)
    raise GateError(f"store.url: {kind + ':'!r} is not known; {WRITE_URL}")
