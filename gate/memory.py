"""What is remembered between checks, and for how long (architecture.md 6).

Three facts outlive a flight: the verdict on a mailbox (kept per site, under a keyed hash of the
address), whether a domain is accept-all, and that a destination accepted somebody lately. Routes
live in the resolver, refusals of us in the throttle. Nothing uncertain is stored: a 4xx, a timeout
or a limit of our own is never a remembered verdict.

Every record carries when it was found. Between *fresh* and *expired* it is served at once and a
new flight starts behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import Struct

from gate.address import Address
from gate.budget import (
    ACCEPT_ALL_EXPIRES,
    ACCEPT_ALL_FRESH,
    ACCEPTED_LATELY,
    CONTROL_EVERY,
    DELIVERABLE_EXPIRES,
    DELIVERABLE_FRESH,
    UNDELIVERABLE_EXPIRES,
    UNDELIVERABLE_FRESH,
    Clock,
)
from gate.reason import Reason
from gate.store import Records
from gate.token import Keys

_AGES = {
    Reason.ACCEPTED_EMAIL: (DELIVERABLE_FRESH, DELIVERABLE_EXPIRES),
    Reason.REJECTED_EMAIL: (UNDELIVERABLE_FRESH, UNDELIVERABLE_EXPIRES),
    Reason.MAILBOX_DISABLED: (UNDELIVERABLE_FRESH, UNDELIVERABLE_EXPIRES),
}
"""The only reasons that are kept about a mailbox, with (fresh, expires) in seconds."""


class Remembered(Struct, frozen=True, array_like=True, gc=False):
    """The verdict on one mailbox as it was found, without the address."""

    reason: Reason
    found_at: float
    mx_record: str | None
    code: int | None
    enhanced: str | None

    def age(self, now: float) -> float:
        """Seconds since it was found; never negative, whatever the clock did."""
        return max(0.0, now - self.found_at)

    def fresh(self, now: float) -> bool:
        """False when a new flight should start behind it."""
        return now - self.found_at < _AGES[self.reason][0]


class _DomainFact(Struct, frozen=True, array_like=True, gc=False):
    accept_all: bool | None
    asked_at: float


@dataclass(frozen=True, slots=True)
class AcceptAll:
    """Whether a domain accepts every recipient. `known` None: asked, but not determined."""

    known: bool | None
    age: float

    @property
    def fresh(self) -> bool:
        """False when the next flight should ask again."""
        return self.known is not None and self.age < ACCEPT_ALL_FRESH

    @property
    def may_ask(self) -> bool:
        """Whether the random recipient may be tried: once a day, and not while remembered."""
        return not self.fresh and self.age >= CONTROL_EVERY


T = TypeVar("T")

_verdict_decoder = msgspec.msgpack.Decoder(Remembered)
_domain_decoder = msgspec.msgpack.Decoder(_DomainFact)
_encode = msgspec.msgpack.encode


class Memory:
    """The remembered facts, in the store's keys and bytes. `wall` is Unix time in seconds."""

    def __init__(self, store: Records, keys: Keys, wall: Clock) -> None:
        self._store = store
        self._keys = keys
        self._wall = wall

    def held(self, mark: bytes, now: float) -> Remembered | None:
        """The same as `verdict`, as far as this process holds it in memory; never waits.

        `mark` is `Keys.address_hash` of the address at the site.
        """
        return _unexpired(self._store.peek(mark), now)

    def mark(self, site: str, exact: str) -> bytes:
        """What a mailbox is remembered under; `exact` is `Address.exact`."""
        return self._keys.address_hash(site, exact)

    def marks(self, site: str, exact: str) -> list[bytes]:
        """The same under every master key that is believed: all there may be of a mailbox."""
        return self._keys.hashes(site, exact)

    async def verdict(self, site: str, address: Address) -> Remembered | None:
        """The remembered verdict on a mailbox, unexpired; None when there is none."""
        key = self._mailbox(site, address)
        raw = self._store.peek(key) or await self._store.get(key)
        return _unexpired(raw, self._wall())

    async def keep_verdict(self, site: str, address: Address, found: Remembered) -> None:
        """Remember a verdict, if its reason is one that is kept."""
        if found.reason in _AGES:
            expires = found.found_at + _AGES[found.reason][1]
            key = self._mailbox(site, address)
            await self._store.put(key, _encode(found), expires=expires)

    async def forget_verdict(self, site: str, address: Address) -> None:
        """Drop what is remembered of a mailbox: two proofs contradicted each other."""
        await self._store.delete(self._mailbox(site, address))

    async def accept_all(self, domain: str) -> AcceptAll | None:
        """What is remembered of a domain's accept-all state; None when it was never asked."""
        key = self._keys.address_hash("", f"accept-all:{domain}")
        fact = _decoded(_domain_decoder, self._store.peek(key) or await self._store.get(key))
        if fact is None:
            return None
        return AcceptAll(fact.accept_all, max(0.0, self._wall() - fact.asked_at))

    async def keep_accept_all(self, domain: str, known: bool | None) -> None:
        """Remember that the random recipient was tried just now, and what came of it."""
        now = self._wall()
        key = self._keys.address_hash("", f"accept-all:{domain}")
        lasts = CONTROL_EVERY if known is None else ACCEPT_ALL_EXPIRES
        await self._store.put(key, _encode(_DomainFact(known, now)), expires=now + lasts)

    async def tells_apart(self, destination: str) -> bool:
        """Whether the destination accepted some recipient lately, from us."""
        key = self._keys.address_hash("", f"accepts:{destination}")
        return bool(self._store.peek(key) or await self._store.get(key))

    async def keep_accepted(self, destination: str) -> None:
        """Remember that the destination accepted a recipient just now."""
        key = self._keys.address_hash("", f"accepts:{destination}")
        await self._store.put(key, b"1", expires=self._wall() + ACCEPTED_LATELY)

    def _mailbox(self, site: str, address: Address) -> bytes:
        return self._keys.address_hash(site, address.exact)


def _unexpired(raw: bytes | None, now: float) -> Remembered | None:
    found = _decoded(_verdict_decoder, raw)
    if found is None or now - found.found_at >= _AGES[found.reason][1]:
        return None
    return found


def _decoded(decoder: msgspec.msgpack.Decoder[T], raw: bytes | None) -> T | None:
    """A record, or None for one that is missing or written by another version."""
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError:
        return None
