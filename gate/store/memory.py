"""The store in this process's memory: all of `memory:`, and what stands in front of a file.

What it promises: bounded, whatever comes; a look-up costs well under a microsecond; nothing in it
is an object that the garbage collector walks through one by one.

Bugs: which record goes first when memory is full is decided by halves, not one by one: a record
that nobody asked for while half the capacity was asked for or written may go.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from struct import Struct as Packing
from typing import Final

from cachetools import TLRUCache
from msgspec import Struct

from gate.budget import CLAIM_GRACE, Clock
from gate.store import Job, Kept, Lease, Letter, Settled
from gate.store.queue import SCHEMA, QueueTable

SECRET_OCTETS: Final = 32
CLAIMS_LEAST: Final = 100_000
"""Room for so many claims at least: dropping one early would let it be made again."""
_SWEPT_AT_ONCE: Final = 2
"""Dropped records are freed in such steps, two for each new one, rather than all at once."""

_expiry = Packing("<d")
_pack_expiry, _expiry_of = _expiry.pack, _expiry.unpack_from
_VALUE: Final = slice(_expiry.size, None)


class Recent:
    """A bounded map from keys to octets with an expiry; the least recently used half goes first.

    An entry is one `bytes`: its expiry, then its value. Two plain dictionaries take turns: what is
    used moves into the young one, and when that holds half the capacity, the old one is dropped.
    Against an ordered LRU of small objects this saves a third of the memory, and dictionaries of
    `bytes` are nothing to the garbage collector.
    """

    def __init__(self, capacity: int, wall: Clock) -> None:
        self._half = max(1, capacity // 2)
        self._wall = wall
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._dropped: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> bytes | None:
        """The value, unless it expired or went."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.pop(key, None)
            if entry is None:
                return None
            self._keep(key, entry)
        if _expiry_of(entry)[0] <= self._wall():
            self.discard(key)
            return None
        return entry[_VALUE]

    def put(self, key: bytes, value: bytes, expires: float) -> None:
        """Keep a value until `expires`."""
        self._old.pop(key, None)
        self._keep(key, _pack_expiry(expires) + value)

    def discard(self, key: bytes) -> None:
        """Forget a key."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def _keep(self, key: bytes, entry: bytes) -> None:
        self._young[key] = entry
        for _ in range(min(_SWEPT_AT_ONCE, len(self._dropped))):
            self._dropped.popitem()
        if len(self._young) >= self._half:
            self._dropped, self._old, self._young = self._old, self._young, {}


class Claim(Struct, frozen=True, gc=False):
    """Who was first."""

    value: bytes
    expires: float


class ClaimBook:
    """Claims in memory, each until its expiry and a grace for clocks that step back."""

    def __init__(self, capacity: int, wall: Clock) -> None:
        self._wall = wall
        self._claims: TLRUCache[bytes, Claim] = TLRUCache(
            max(capacity, CLAIMS_LEAST), ttu=_kept_until, timer=wall
        )

    def holder(self, key: bytes) -> bytes | None:
        """The value that the winner left, while its claim holds."""
        claim = self._claims.get(key)
        return claim.value if claim is not None and claim.expires > self._wall() else None

    def enter(self, key: bytes, value: bytes, expires: float) -> None:
        """Note a winner."""
        self._claims[key] = Claim(value, expires)


def _kept_until(key: bytes, claim: Claim, now: float) -> float:
    return claim.expires + CLAIM_GRACE


class MemoryStore:
    """`memory:`: forgets everything with the process, its master key included."""

    def __init__(self, *, wall: Clock, capacity: int) -> None:
        self._recent = Recent(capacity, wall)
        self._claims = ClaimBook(capacity, wall)
        self._secrets = {"master": secrets.token_bytes(SECRET_OCTETS)}
        # isolation_level None: every statement stands by itself; there is nobody to see half.
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._database.executescript(SCHEMA)
        self._jobs = QueueTable(self._database, {})
        self._closed = False

    @property
    def healthy(self) -> bool:
        """Always: it promises nothing beyond this process."""
        return True

    @property
    def trouble(self) -> str | None:
        """Never any."""
        return None

    @property
    def failures(self) -> int:
        """None."""
        return 0

    def peek(self, key: bytes) -> bytes | None:
        """What is held."""
        return self._recent.get(key)

    async def get(self, key: bytes) -> bytes | None:
        """What is held."""
        return self._recent.get(key)

    async def put(self, key: bytes, value: bytes, *, expires: float) -> None:
        """Keep a value until `expires` (Unix seconds) or until memory is needed for newer ones."""
        self._recent.put(key, value, expires)

    async def delete(self, key: bytes) -> None:
        """Forget a record."""
        self._recent.discard(key)

    async def claim(self, key: bytes, *, expires: float, value: bytes = b"") -> bytes | None:
        """None: the key is ours until `expires`. Else the winner's value."""
        held = self._claims.holder(key)
        if held is None:
            self._claims.enter(key, value, expires)
        return held

    async def begin(self, now: float) -> None:
        """Nobody had it before."""

    async def add(
        self, jobs: Sequence[Job], records: Mapping[bytes, Kept] | None = None, *, within: float
    ) -> bool:
        """Take jobs and keep records."""
        if self._closed:
            return False
        self._keep(records)
        return self._jobs.add(jobs) == len(jobs)

    async def lease(
        self, kind: str, room: Mapping[str, int], *, now: float, until: float
    ) -> list[Lease]:
        """What is due, at most so many subjects of each lane."""
        return [] if self._closed else self._jobs.lease(kind, room, now, until)

    async def lease_subject(
        self, kind: str, subject: bytes, *, now: float, until: float
    ) -> list[Lease]:
        """What waits for one subject."""
        return [] if self._closed else self._jobs.lease_subject(kind, subject, now, until)

    async def settle(
        self,
        settled: Sequence[Settled],
        jobs: Sequence[Job] = (),
        records: Mapping[bytes, Kept] | None = None,
    ) -> bool:
        """End leases, with what follows from it; False: nothing happened."""
        if self._closed or not self._jobs.settle(settled, jobs):
            return False
        self._keep(records)
        return True

    async def dues(self, kind: str, lanes: Collection[str]) -> Mapping[str, float]:
        """When the first job of each of these lanes is due."""
        return {} if self._closed else self._jobs.dues(kind, lanes)

    async def tidy(self, kind: str, lanes: Collection[str], *, now: float) -> int:
        """Bury and forget what is too old, or of no lane that there is."""
        return 0 if self._closed else self._jobs.tidy(kind, lanes, now)

    async def subjects(self, kind: str) -> set[bytes]:
        """What jobs are about."""
        return set() if self._closed else self._jobs.subjects(kind)

    async def depth(self) -> Mapping[tuple[str, bool], int]:
        """How many jobs there are, by kind, alive and dead."""
        return {} if self._closed else self._jobs.depth()

    async def letters(self, kind: str, most: int) -> list[Letter]:
        """Dead letters, the newest first."""
        return [] if self._closed else self._jobs.letters(kind, most)

    async def replay(self, kind: str, ids: Collection[bytes], again: Job) -> list[str]:
        """Make dead letters jobs again."""
        return [] if self._closed else self._jobs.replay(kind, ids, again)

    async def erase(
        self,
        keys: Collection[bytes],
        *,
        subjects: Collection[bytes] = (),
        ids: Collection[tuple[str, bytes]] = (),
    ) -> list[bytes] | None:
        """Delete records and jobs."""
        for key in keys:
            self._recent.discard(key)
        return None if self._closed else self._jobs.forget(subjects, ids)

    def _keep(self, records: Mapping[bytes, Kept] | None) -> None:
        for key, kept in (records or {}).items():
            self._recent.put(key, *kept)

    async def keyring(self) -> dict[str, bytes]:
        """A master key made for this process."""
        return dict(self._secrets)

    async def close(self) -> None:
        """Forget the jobs too."""
        self._closed = True
        self._database.close()
