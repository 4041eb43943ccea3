"""The operator's switch: all probing off, or on again, in a running gate and after a restart.

What it promises: when `turn` returns, no dialogue begins any more; those under way may end, and
connections kept warm are let go. The position is on disk by then, or the caller hears that it is
not: then a restart forgets it.

Bugs: `gate check` on the command line opens a gate of its own and does not look at the switch of
another one; whoever types it means it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gate.budget import PROBING_SWITCH, STORE_CLAIM, Clock
from gate.probing import Probing
from gate.redis_url import SCHEMES, without_password
from gate.store import Kept, Store
from gate.trace import redact

log = logging.getLogger("gate.probing")

KEY: Final = b"probing switch"


def place_of(url: str) -> str:
    """The URL of a store, the same wherever it is read. Holds no password."""
    if url.startswith(SCHEMES):
        return without_password(url)
    kind, _, name = url.partition(":")
    return f"{kind}:{Path(name).absolute() if name else ''}"


class Position(Struct, frozen=True):
    """Where the switch stands, the operator's own words for it, and since when (Unix seconds).

    It has not been touched if `since` is None.
    """

    on: bool = True
    why: str = ""
    since: float | None = None


async def position(store: Store) -> Position:
    """Where the switch stood when it was last turned."""
    raw = await store.get(KEY)
    if raw is None:
        return Position()
    try:
        return msgspec.msgpack.decode(raw, type=Position)
    except msgspec.DecodeError:
        # Written by another version: whatever it says, to probe against its will is the worse.
        return Position(on=False, why="its record cannot be read; turn it anew")


async def keep(store: Store, turned: Position, wall: Clock) -> bool:
    """Write it down; False if it is not on disk by now."""
    kept = Kept(msgspec.msgpack.encode(turned), wall() + PROBING_SWITCH)
    return await store.add([], {KEY: kept}, within=STORE_CLAIM)


def turned(on: bool, why: str, wall: Clock) -> Position:
    """A new position. No address and nothing unprintable stays in the operator's words."""
    return Position(on, redact(why), wall())


class Switch:
    """The switch of a running gate."""

    def __init__(
        self, *, probing: Probing, store: Store, wall: Clock, rest: Callable[[], object]
    ) -> None:
        """`rest` lets go of what is kept open for the next dialogue."""
        self._probing = probing
        self._store = store
        self._wall = wall
        self._rest = rest
        self.position = Position()

    async def open(self) -> None:
        """Stand where an earlier process was left. Before the first check."""
        self._stand(await position(self._store))
        if not self.position.on:
            log.warning("probing is switched off: %s", self.position.why or "no reason was given")

    async def turn(self, on: bool, why: str = "") -> bool:
        """Turn it, at once; True if that outlives a restart."""
        self._stand(turned(on, why, self._wall))
        log.warning("probing was switched %s: %s", "on" if on else "off", self.position.why or "-")
        return await keep(self._store, self.position, self._wall)

    def _stand(self, at: Position) -> None:
        self.position = at
        self._probing.switched_on = at.on
        if not at.on:
            self._rest()
