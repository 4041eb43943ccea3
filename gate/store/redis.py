"""`redis://…`: memory in front of a Redis server that any number of gates share.

What it promises: the rest is `Behind`'s. A check asks Redis only for what this process does not
hold, together with whatever else is asked for at the moment. A dead server costs a check nothing
after the first half second: from then on memory answers, until it can be reached again.

How: two connections, used by the store's own tasks alone. One writes: records, claims and the
queue's scripts in one pipeline, while the next one gathers. One reads: whatever was asked for while
the last answer was on its way is one MGET. Once a second the stream of what other processes deleted
is read, so that no memory holds what was erased elsewhere.

Bugs: what another process found out newly is seen here when this process's own copy ends. While
Redis is out of reach, each process decides claims by itself. A settlement whose answer was lost
counts as lost although it may have happened; nothing happens twice of it. A record that another
process wrote in the same moment as it was erased may be written again. Clocks that differ are not
made up for: between two gates a lease ends that much early or late.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple, cast

from gate.budget import (
    STORE_ANSWER,
    STORE_ANSWER_MORE,
    STORE_NEWS,
    STORE_NEWS_KEPT,
    STORE_OPEN,
    STORE_WAIT,
    Clock,
)
from gate.reason import GateError
from gate.redis_url import WRITE_URL, parse
from gate.store import Kept as Row
from gate.store.behind import Behind, ClaimRow, Unusable, Work
from gate.store.calls import (
    GONE,
    RECORD,
    SECRET,
    Call,
    Command,
    QueueCalls,
    claim,
    drop,
    put,
    scripts,
    unpacked,
)
from gate.store.link import Link, Server, doubts
from gate.store.memory import SECRET_OCTETS, Recent

PIPELINE: Final = 500
"""Records in one pipeline: a few milliseconds of the event loop, and of Redis."""
NEWS: Final = 1_000
"""Deleted records that are read about at once."""

log = logging.getLogger("gate.store")


class Agreed(NamedTuple):
    """What a server and this process have agreed on."""

    server: Server
    master: bytes


class RedisStore(Behind):
    """The store in a Redis server. Made by `open`; `close` it."""

    _idle = STORE_NEWS

    def __init__(
        self, writing: Link, reading: Link, agreed: Agreed, wall: Clock, capacity: int
    ) -> None:
        """Both links are open."""
        super().__init__({"master": agreed.master}, wall, capacity)
        self._writing, self._reading = writing, reading
        self._name = str(writing.where)
        self._wanted: dict[bytes, asyncio.Future[Row | None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._read_up_to = b"%d-0" % (agreed.server.now * 1000)
        self._news_at = time.monotonic()
        self._has_file = agreed.server.aof
        self._rewrite_due = False

    @classmethod
    async def open(cls, url: str, *, wall: Clock, capacity: int) -> RedisStore:
        """Connect, and look at the server. Raises `GateError` with what to do."""
        try:
            where = parse(url)
        except ValueError as error:
            raise GateError(f"store.url: {error}; {WRITE_URL}") from None
        try:
            writing, reading = Link(where), Link(where)
            agreed = await _connect(writing, reading, wall)
        except Unusable as error:
            raise GateError(f"store.url: {error}") from None
        for doubt in doubts(agreed.server):
            log.warning("%s: %s", where, doubt)
        return cls(writing, reading, agreed, wall, capacity)

    async def erase(
        self,
        keys: Collection[bytes],
        *,
        subjects: Collection[bytes] = (),
        ids: Collection[tuple[str, bytes]] = (),
    ) -> list[bytes] | None:
        """Delete records and jobs, tell the other processes, and have Redis write its append-only
        file anew, behind our back: what they were is in it until that is done.
        """
        gone = await self._erased(keys, subjects, ids)
        self._rewrite_due = self._rewrite_due or (gone is not None and self._has_file)
        return gone

    # -- reading -----------------------------------------------------------------------------------

    async def _find(self, key: bytes) -> Row | None:
        found = self._wanted.get(key)
        if found is None:
            found = self._wanted[key] = asyncio.get_running_loop().create_future()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read(), name="gate-store-reader")
        done, _ = await asyncio.wait({found}, timeout=STORE_WAIT)
        if not done:
            raise TimeoutError
        return found.result()

    async def _read(self) -> None:
        """Answer all that is wanted, and what is wanted meanwhile, a group at a time."""
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                rows: list[Row | None] = [None] * len(wanted)
                try:
                    rows = await self._rows(list(wanted))
                except Unusable as error:
                    self._fail(error)
                for found, row in zip(wanted.values(), rows, strict=True):
                    found.set_result(row)
        finally:
            self._reader = None

    async def _rows(self, keys: Sequence[bytes]) -> list[Row | None]:
        if not self.healthy:
            return [None] * len(keys)
        command: Command = ("MGET", *(RECORD + key for key in keys))
        (found,) = await self._reading.ask([command], within=STORE_ANSWER)
        return [unpacked(raw) for raw in found]

    # -- writing -----------------------------------------------------------------------------------

    async def _commit(
        self, records: dict[bytes, Row | None], claims: list[ClaimRow], works: list[Work]
    ) -> tuple[list[Row | None], list[object]]:
        if not (self._writing.is_open and self._reading.is_open):
            await _connect(self._writing, self._reading, self._wall, self._secrets["master"])
        steps = _steps(records, claims, works, self._wall())
        results = []
        try:
            await self._look_round()  # first: what is decided after it is told
            while group := list(islice(steps, PIPELINE)):
                answers = await self._ask(*(call.command for call in group))
                pairs = zip(group, answers, strict=True)
                results += [call.read(answer) for call, answer in pairs if call.read]
        except Unusable:
            self._writing.close()  # whatever it is, it is looked at anew, and scripts are loaded
            raise
        return cast("list[Row | None]", results[: len(claims)]), results[len(claims) :]

    async def _look_round(self) -> None:
        """Once in a while: what did others delete; and what is to be written anew."""
        away = time.monotonic() - self._news_at
        if away < STORE_NEWS:
            return
        if away > STORE_NEWS_KEPT:
            self._recent = Recent(self._capacity, self._wall)
        after = b"(" + self._read_up_to
        (news,) = await self._ask(("XRANGE", GONE, after, "+", "COUNT", NEWS))
        for place, fields in news:
            self._recent.discard(fields[1])
            self._read_up_to = place
        if len(news) < NEWS:
            self._news_at = time.monotonic()
        if self._rewrite_due:
            with suppress(Unusable):  # one is under way: a second later the next one will do
                await self._ask(("BGREWRITEAOF",))
                self._rewrite_due = False

    async def _ask(self, *commands: Command) -> list[Any]:
        words = sum(map(len, commands))
        within = STORE_ANSWER + STORE_ANSWER_MORE * words / 1000
        return await self._writing.ask(commands, within=within)

    async def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
        for link in (self._writing, self._reading):
            link.close()
        await asyncio.sleep(0)  # the sockets close a turn later


def _steps(
    records: Mapping[bytes, Row | None], claims: list[ClaimRow], works: list[Work], now: float
) -> Iterator[Call]:
    """All of it in order, made as it is needed: it may be a lot after an outage."""
    gone = [key for key, row in records.items() if row is None]
    for at in range(0, len(gone), PIPELINE):
        yield drop(gone[at : at + PIPELINE])
    for key, row in records.items():
        if row is not None:
            yield put(key, row, now)
    for claimed in claims:
        yield claim(claimed, now)
    for work in works:
        yield cast(Call, work.act(QueueCalls(work.records, now)))


async def _connect(writing: Link, reading: Link, wall: Clock, known: bytes | None = None) -> Agreed:
    """Open both, load the scripts, and agree on the master key. Raises `Unusable`; then both are
    closed. `known`: the key that we have: a server that lost it gets it back.
    """
    try:
        await reading.open(wall)
        server = await writing.open(wall)
        load: list[Command] = [("SCRIPT", "LOAD", text) for text, _ in scripts().values()]
        key, ours = SECRET + b"master", known or secrets.token_bytes(SECRET_OCTETS)
        agree: list[Command] = [("SET", key, ours, "NX"), ("GET", key)]
        *_, master = await writing.ask([*load, *agree], within=STORE_OPEN)
        if known and master != known:
            raise Unusable(
                f"{writing.where}: lost its data, and another gate has made a new master key; "
                "restart this one"
            )
    except BaseException:
        writing.close()
        reading.close()
        raise
    return Agreed(server, master)
