"""The tally of the source addresses: what they have used up outlives the process.

What it promises: a restart gives no address its day anew, nor ends its rest. What changed is
written a second later and at the end; a process that is killed forgets a second's dialogues.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

import msgspec

from gate.budget import SOURCE_KEEP, SOURCE_KEPT, Clock
from gate.smtp.sources import Snapshot, Sources
from gate.store import Records

log = logging.getLogger("gate.tally")

KEY: Final = b"egress sources"


class Tally:
    """Keeps the snapshot of some `Sources` in a store. `wall`: Unix time."""

    def __init__(self, store: Records, sources: Sources, wall: Clock) -> None:
        self._store = store
        self._sources = sources
        self._wall = wall
        self._written = sources.changes
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Go on from what an earlier process has kept, and keep what changes from now on."""
        kept = await self._store.get(KEY)
        if kept is not None:
            try:
                self._sources.restore(msgspec.msgpack.decode(kept, type=Snapshot))
            except msgspec.DecodeError:
                log.warning("what the source addresses had used up cannot be read; begun anew")
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Write what is unwritten."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._write()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SOURCE_KEEP)
            await self._write()

    async def _write(self) -> None:
        if self._sources.changes == self._written:
            return
        self._written = self._sources.changes
        kept = msgspec.msgpack.encode(self._sources.snapshot())
        await self._store.put(KEY, kept, expires=self._wall() + SOURCE_KEPT)
