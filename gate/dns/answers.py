"""Answers to DNS questions: aliases followed, remembered by TTL, asked for once however many wait.

What it promises: a question that is remembered or under way is not asked again; a look-up lives as
long as somebody waits for it, and no single one of those who wait can end it for the others; the
memory is bounded, and no domain owner can take more than a small part of it.

Bugs: the registrable part of a name is guessed from its shape (`_estate`), not read from the public
suffix list. A wrong guess costs room in the memory, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Final, Generic, TypeVar

from cachetools import LRUCache
from msgspec import Struct

from gate.address import special_use
from gate.budget import (
    DNS_FAILURE,
    DNS_NEGATIVE_DEFAULT,
    DNS_NEGATIVE_MOST,
    DNS_TTL_LEAST,
    DNS_TTL_MOST,
    Clock,
)
from gate.dns.ask import Allowance, Failure, Lookup, ServerAddress, Upstream
from gate.dns.wire import MX, TXT, IPAddress, Kind, Record, Told, encode, host_name, tell, text

ESTATE_MOST: Final = 64
"""Names remembered below one registrable domain (security.md E1): wildcard zones are endless."""
EXCHANGES_MOST: Final = 16
"""MX records of one domain that are kept, the most preferred first."""
ADDRESSES_MOST: Final = 4
"""Addresses kept of one host and family; hosts with thousands exist to exhaust those who care."""
ALIASES_MOST: Final = {MX: 8}
"""Aliases followed: from a domain (RFC 5321 section 5.1 allows them) …"""
HOST_ALIASES_MOST: Final = 4
"""… and from a mail host, where RFC 2181 section 10.3 forbids them and hosters use them."""

K = TypeVar("K")
V = TypeVar("V")


class Answer(Struct, frozen=True, gc=False):
    """What is known of one name and type, on the resolver's clock until `expires`."""

    kind: Kind
    expires: float
    addresses: tuple[IPAddress, ...] = ()
    exchanges: tuple[tuple[int, str], ...] = ()
    """(preference, host name) of the MX records that can be used, each name once, in order."""
    null: int | None = None
    """The preference of a null MX (RFC 7505), if there is one."""
    unusable: bool = False
    """There are MX records whose target is no host name."""
    detail: str = ""
    texts: tuple[bytes, ...] = ()
    """TXT records, the strings of each joined."""


class Shared(Generic[K, V]):
    """Running work by key. Whoever joins waits as long as they can; the last to leave ends it."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}
        self._waiting: dict[asyncio.Task[V], int] = {}

    def join(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        """The work under `key`, begun if need be. Each call calls for a `leave`."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(start())
            self._waiting[task] = 0
            task.add_done_callback(lambda done: self._forget(key, done))
        self._waiting[task] += 1
        return task

    def leave(self, key: K, task: asyncio.Task[V]) -> None:
        """Wait no longer, whether the work is done or not."""
        if task in self._waiting:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                task.cancel()
                if self._running.get(key) is task:
                    del self._running[key]  # nobody is to join work that is being ended

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        del self._waiting[task]
        if self._running.get(key) is task:
            del self._running[key]

    async def close(self) -> None:
        """End all work; its tasks are cancelled."""
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)


class Memory(LRUCache[str, V]):
    """A bounded memory by domain name, with at most ESTATE_MOST names of one owner in it."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._estates: dict[str, dict[str, None]] = {}

    def __setitem__(self, name: str, value: V) -> None:
        estate = _estate(name)
        if estate != name:
            names = self._estates.setdefault(estate, {})
            names.pop(name, None)
            if len(names) >= ESTATE_MOST:
                del self[next(iter(names))]
            self._estates.setdefault(estate, names)[name] = None
        super().__setitem__(name, value)

    def estate(self, name: str) -> list[V]:
        """What is remembered of the names below the registrable domain that `name` belongs to."""
        return [self[other] for other in tuple(self._estates.get(_estate(name), ()))]

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        estate = _estate(name)
        names = self._estates.get(estate, {})
        names.pop(name, None)
        if not names:
            self._estates.pop(estate, None)


def _estate(name: str) -> str:
    """The registrable domain `name` belongs to, by its shape: example.com, example.co.uk."""
    labels = name.split(".")
    country = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if country else -2 :])


class Answers:
    """Asks resolvers and remembers what they said."""

    def __init__(
        self,
        servers: Sequence[ServerAddress],
        *,
        stubs: Mapping[str, Sequence[ServerAddress]],
        private_names: bool,
        clock: Clock,
        random: Random,
        size: int,
    ) -> None:
        self._upstream = Upstream(servers)
        self._stubs = {zone: Upstream(own) for zone, own in stubs.items()}
        self._private_names = private_names
        self._clock = clock
        self._random = random
        self._domains: Memory[Answer] = Memory(size)
        self._hosts: LRUCache[tuple[str, int], Answer] = LRUCache(size)
        self._running: Shared[tuple[str, int], Answer] = Shared()

    def may_ask(self, name: str) -> bool:
        """False for names that no public resolver is to be bothered with (RFC 6761)."""
        return self._private_names or self._stub(name) is not None or not special_use(name)

    def is_public(self, name: str) -> bool:
        """Whether the name is looked up in the public tree: no lab, no zone with own servers."""
        return not self._private_names and self._stub(name) is None

    @property
    def healthy(self) -> bool:
        """False while nobody listens at any of the resolvers."""
        return self._upstream.healthy

    def upstream_of(self, name: str) -> Upstream:
        """The servers that are asked about `name`."""
        return self._stub(name) or self._upstream

    def remembered(self, name: str, rdtype: int) -> Answer | None:
        """A fresh answer, without asking."""
        answer = self._domains.get(name) if rdtype == MX else self._hosts.get((name, rdtype))
        return answer if answer is not None and self._clock() < answer.expires else None

    def begin(self, name: str, rdtype: int, allowance: Allowance) -> asyncio.Task[Answer]:
        """The look-up of what is not remembered, shared with all who want it; then `end` it."""
        return self._running.join((name, rdtype), lambda: self._find(name, rdtype, allowance))

    def end(self, name: str, rdtype: int, task: asyncio.Task[Answer]) -> None:
        """Wait no longer for what `begin` gave."""
        self._running.leave((name, rdtype), task)

    async def ask(self, name: str, rdtype: int, allowance: Allowance) -> Answer:
        """The answer, remembered or asked for. `allowance` pays for the questions."""
        known = self.remembered(name, rdtype)
        if known is not None:
            return known
        if rdtype == MX:  # asked for by the one look-up of its domain's route: nobody to share with
            return await self._find(name, rdtype, allowance)
        task = self.begin(name, rdtype, allowance)
        try:
            await asyncio.wait({task})
            return self.outcome(task)
        finally:
            self.end(name, rdtype, task)

    async def texts(self, name: str, allowance: Allowance) -> Answer:
        """The TXT records of a name, asked for now and not remembered here."""
        return await self._follow(name, TXT, allowance)

    def outcome(self, task: asyncio.Task[Answer]) -> Answer:
        """The answer of a look-up that is done; one that was ended by `close` failed."""
        if task.cancelled():
            return self._failed(Failure("closed", lasting=False))
        return task.result()

    async def close(self) -> None:
        """End the look-ups that are under way."""
        await self._running.close()

    def _stub(self, name: str) -> Upstream | None:
        """The servers of the innermost stub zone that holds `name`."""
        while name and self._stubs:
            if name in self._stubs:
                return self._stubs[name]
            name = name.partition(".")[2]
        return None

    async def _find(self, name: str, rdtype: int, allowance: Allowance) -> Answer:
        answer = await self._follow(name, rdtype, allowance)
        if answer.expires > self._clock():
            if rdtype == MX:
                self._domains[name] = answer
            else:
                self._hosts[name, rdtype] = answer
        return answer

    async def _follow(self, name: str, rdtype: int, allowance: Allowance) -> Answer:
        """Ask for `name`, and for what it is an alias of if the resolver does not say."""
        trail = [encode(name)]
        most = ALIASES_MOST.get(rdtype, HOST_ALIASES_MOST)
        target: str | None = name
        ttls: list[int] = []
        while target is not None and self.may_ask(target):
            upstream = self._stub(target) or self._upstream
            lookup = Lookup(target, rdtype, upstream, allowance, self._clock, self._random)
            outcome = await lookup.run()
            if isinstance(outcome, Failure):
                return self._failed(outcome)
            told = tell(outcome, rdtype, trail, hops=most)
            if told.kind is not Kind.ALIAS:
                return self._answer(told, rdtype, ttls)
            ttls.append(told.ttl or 0)
            target = text(trail[-1])
        return self._failed(Failure("cname_target"))

    def _answer(self, told: Told, rdtype: int, ttls: Sequence[int]) -> Answer:
        now = self._clock()
        if told.kind is Kind.FAILED:
            return self._failed(Failure(told.detail))
        if told.kind is not Kind.FOUND:
            ttl = DNS_NEGATIVE_DEFAULT if told.ttl is None else told.ttl
            return Answer(told.kind, now + min(ttl, DNS_NEGATIVE_MOST))
        least = min([told.ttl or 0, *ttls])
        expires = now + min(max(least, DNS_TTL_LEAST), DNS_TTL_MOST) if least else now
        if rdtype == MX:
            return _mail_exchanges(told.records, expires)
        if rdtype == TXT:
            texts = tuple(record.text for record in told.records)
            return Answer(Kind.FOUND, expires, texts=texts)
        addresses = [r.address for r in told.records[:ADDRESSES_MOST] if r.address is not None]
        return Answer(Kind.FOUND, expires, tuple(addresses))

    def _failed(self, failure: Failure) -> Answer:
        now = self._clock()
        expires = now + DNS_FAILURE if failure.lasting else now
        return Answer(Kind.FAILED, expires, detail=failure.detail)


def _mail_exchanges(records: Sequence[Record], expires: float) -> Answer:
    """MX records as an answer: hosts by preference, null MX and unusable targets set apart."""
    best: dict[str, int] = {}
    nulls: list[int] = []
    unusable = False
    for record in records:
        name = host_name(record.name)
        if record.name == b"\0":
            nulls.append(record.preference)
        elif name is None:
            unusable = True
        else:
            best[name] = min(record.preference, best.get(name, record.preference))
    exchanges = sorted((preference, name) for name, preference in best.items())
    return Answer(
        Kind.FOUND,
        expires,
        exchanges=tuple(exchanges[:EXCHANGES_MOST]),
        null=min(nulls, default=None),
        unusable=unusable,
    )
