"""Our own face: which addresses mail hosts see us come from, and how we know.

Behind NAT, or behind a proxy, a machine cannot see its own public address, and nobody is asked for
it. The address of the HELO name is taken instead: that is the one it claims.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gate.address import special_use
from gate.budget import Deadline
from gate.dns import Resolver
from gate.dns.records import Records
from gate.dns.wire import AAAA, A
from gate.egress import IPAddress, Source, classify

How = Literal["set", "local", "claimed", "unknown"]
"""By a setting; an address of this machine; what the HELO name says; not at all."""


@dataclass(frozen=True, slots=True)
class Face:
    """One egress address as mail hosts see it. `seen` is empty if nobody can know."""

    source: Source
    helo: str
    """Empty if there is no name to greet with."""
    seen: tuple[IPAddress, ...]
    how: How
    forward: tuple[Records, ...] = ()
    """The A and AAAA records of the HELO name."""

    @property
    def label(self) -> str:
        """For people: the address if it is known, else the name."""
        return str(self.source.ip or self.helo or "this machine")

    @property
    def forward_addresses(self) -> tuple[IPAddress, ...]:
        """The addresses of the HELO name."""
        return tuple(ip for records in self.forward for ip in records.addresses)

    @property
    def origin(self) -> str:
        """How the addresses are known, for people."""
        return {
            "set": "egress.address.ip",
            "local": "an address of this machine",
            "claimed": "the address of the HELO name",
            "unknown": "not to be seen from inside",
        }[self.how]


def seen_from(
    source: Source, outgoing: Sequence[IPAddress], forward: Sequence[IPAddress]
) -> tuple[tuple[IPAddress, ...], How]:
    """The addresses that mail hosts see, and how that is known. Pure.

    `outgoing`: what a packet of this machine carries; `forward`: the addresses of the HELO name.
    """
    if source.ip is not None and classify(source.ip).allowed:
        return (source.ip,), "set"
    public = tuple(ip for ip in outgoing if classify(ip).allowed)
    if source.ip is None and source.proxy is None and public:
        return public, "local"
    claimed = tuple(ip for ip in forward if classify(ip).allowed)
    return (claimed, "claimed") if claimed else ((), "unknown")


async def face_of(
    source: Source,
    helo: str,
    *,
    resolver: Resolver,
    outgoing: Sequence[IPAddress],
    deadline: Deadline,
) -> Face:
    """Look our own name up and see what we look like."""
    forward: tuple[Records, ...] = ()
    if is_name(helo):
        name = helo.lower()
        looks = (resolver.records(name, rdtype, deadline) for rdtype in (A, AAAA))
        forward = tuple(await asyncio.gather(*looks))
    addresses = [ip for records in forward for ip in records.addresses]
    seen, how = seen_from(source, outgoing, addresses)
    return Face(source, helo, seen, how, forward)


def is_name(helo: str) -> bool:
    """Whether it is a name that the public tree can hold."""
    try:
        ipaddress.ip_address(helo.strip("[]"))
    except ValueError:
        return bool(helo) and not special_use(helo.lower())
    return False
