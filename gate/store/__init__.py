"""What outlives a flight: records that expire, claims that are made once, and the gate's secrets.

A store maps octets to octets and knows nothing of addresses or verdicts. Two kinds: `memory:`, gone
with the process, and `sqlite:FILE`, one file for one process. tests/contract holds for both.

What every store promises:

1. A broken store never fails a check. It says so (`healthy`, `trouble`), goes on from memory, and
   tries again by itself.
2. A record past its expiry is not found; one before it may be gone, for memory is bounded.
3. Of any number of claims of one key, exactly one wins, and it is durable before `claim` returns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gate.budget import Clock
from gate.reason import GateError


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


class Store(Records, Claims, Protocol):
    """Records, claims and secrets in one place."""

    @property
    def healthy(self) -> bool:
        """False while what is put or claimed would not outlive this process although it should."""

    @property
    def trouble(self) -> str | None:
        """What is wrong and what to do, for the operator; None while healthy. Holds no key."""

    async def keyring(self) -> dict[str, bytes]:
        """Secrets that the store made when it was new, by name: `master`, 32 octets."""

    async def close(self) -> None:
        """Write what is unwritten and let go of the file."""


async def open_store(url: str, *, wall: Clock, capacity: int) -> Store:
    """The store at `memory:` or `sqlite:FILE`, holding up to `capacity` records in memory.

    Raises `GateError`, saying what to do, for a file that cannot be used: its directory is missing,
    it cannot be written, is damaged, belongs to another program, to another process now, or to a
    newer gate.
    """
    if url == "memory:":
        from gate.store.memory import MemoryStore

        return MemoryStore(wall=wall, capacity=capacity)
    kind, _, name = url.partition(":")
    if kind == "sqlite" and name:
        from gate.store.sqlite import SqliteStore

        return await SqliteStore.open(Path(name), wall=wall, capacity=capacity)
    raise GateError(f'store.url: {url!r} is not known; write "sqlite:gate.db" or "memory:"')
