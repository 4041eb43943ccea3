"""Any question, asked afresh: what a name has of one type, for those who look at names themselves.

What it promises: `look_up` never raises for what resolvers and zones do, remembers nothing, follows
as few aliases as any look-up of a host, and tells absence that is proven (`nxdomain`, `nodata`)
from a question that nobody answered (`failed`).
"""

from __future__ import annotations

from random import Random
from typing import Final

from msgspec import Struct

from gate.budget import Clock
from gate.dns.answers import HOST_ALIASES_MOST, Answers
from gate.dns.ask import Allowance, Failure, Lookup
from gate.dns.wire import IPAddress, Kind, Told, encode, tell, text

_REVERSE: Final = (".in-addr.arpa", ".ip6.arpa")
"""The one public use of .arpa: who an address is. No mail goes there, so others need not ask."""


class Records(Struct, frozen=True):
    """What a name has of one type. `names`: of PTR and MX, the most preferred MX first."""

    kind: Kind
    addresses: tuple[IPAddress, ...] = ()
    names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    detail: str = ""
    """Why nobody answered: `timeout`, `servfail`, `not_public` …"""

    @property
    def absent(self) -> bool:
        """It is proven that there is no such record."""
        return self.kind in (Kind.NXDOMAIN, Kind.NODATA)


async def look_up(
    name: str, rdtype: int, answers: Answers, *, clock: Clock, random: Random
) -> Records:
    """The records of `name` (lower-case A-labels), asked for now.

    Raises `GateError` for a name that is not in canonical form.
    """
    trail = [encode(name)]
    allowance = Allowance()
    target: str | None = name
    while target is not None and (answers.may_ask(target) or target.endswith(_REVERSE)):
        upstream = answers.upstream_of(target)
        outcome = await Lookup(target, rdtype, upstream, allowance, clock, random).run()
        if isinstance(outcome, Failure):
            return Records(Kind.FAILED, detail=outcome.detail)
        told = tell(outcome, rdtype, trail, hops=HOST_ALIASES_MOST)
        if told.kind is not Kind.ALIAS:
            return _read(told)
        target = text(trail[-1])
    return Records(Kind.FAILED, detail="not_public" if target == name else "cname_target")


def _read(told: Told) -> Records:
    records = sorted(told.records, key=lambda record: record.preference)
    return Records(
        told.kind,
        addresses=tuple(record.address for record in records if record.address is not None),
        names=tuple(name for record in records if (name := text(record.name or b"\0"))),
        texts=tuple(record.text.decode("latin-1") for record in records if record.text),
        detail=told.detail,
    )
