"""What an IP address is, and with that whether it may be dialled. Pure, but for reading its table.

Rules
  1. An address with a zone id is denied, always.
  2. The operator's list wins over every other denial; it is a list of CIDRs, never "all".
  3. Addresses of this machine are denied, public ones too (a mail loop, security.md A7).
  4. The table in `special_addresses.toml` decides the rest; IPv6 outside 2000::/3 is denied whole.

Bugs: a NAT64 with a prefix of its operator's own choice looks like ordinary global unicast. Name
such a prefix in the firewall.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


class Egress(Enum):
    """What an address is, and with that whether it may be dialled."""

    PUBLIC = "allow: public"
    OPERATOR = "allow: operator's list"
    SANDBOX = "allow: sandbox seam"
    UNSPECIFIED = "deny: unspecified"
    LOOPBACK = "deny: loopback"
    PRIVATE = "deny: private use"
    SHARED = "deny: carrier-grade NAT"
    LINK_LOCAL = "deny: link local"
    ZONED = "deny: zone id"
    METADATA = "deny: cloud metadata"
    OWN = "deny: address of this machine"
    EMBEDDED = "deny: IPv4 inside IPv6"
    DOCUMENTATION = "deny: documentation"
    BENCHMARKING = "deny: benchmarking"
    PROTOCOL = "deny: protocol assignment"
    ANYCAST = "deny: infrastructure anycast"
    MULTICAST = "deny: multicast"
    BROADCAST = "deny: broadcast"
    RESERVED = "deny: reserved"
    UNASSIGNED = "deny: not given out"

    @property
    def allowed(self) -> bool:
        """True if an address of this class may be dialled."""
        return self in (Egress.PUBLIC, Egress.OPERATOR, Egress.SANDBOX)

    @property
    def label(self) -> str:
        """The class as a metric label: one of a closed set of short words."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class SpecialNetwork:
    """One row of special_addresses.toml."""

    network: IPNetwork
    egress: Egress
    name: str
    source: str


@lru_cache(maxsize=1)
def special_networks() -> tuple[SpecialNetwork, ...]:
    """The table, longest prefix first: the first row that holds an address gives its class."""
    path = Path(__file__).with_name("special_addresses.toml")
    with path.open("rb") as file:
        rows = tomllib.load(file)["row"]
    table = (
        SpecialNetwork(
            ip_network(row["network"]), Egress[row["class"].upper()], row["name"], row["source"]
        )
        for row in rows
    )
    return tuple(sorted(table, key=lambda row: row.network.prefixlen, reverse=True))


@lru_cache(maxsize=1)
def _prefixes() -> dict[int, tuple[tuple[int, int, Egress], ...]]:
    """The table as integers, by IP version: (bits to shift out, the prefix that is left, class)."""

    def shifted(network: IPNetwork) -> tuple[int, int]:
        shift = network.max_prefixlen - network.prefixlen
        return shift, int(network.network_address) >> shift

    return {
        version: tuple(
            (*shifted(row.network), row.egress)
            for row in special_networks()
            if row.network.version == version
        )
        for version in (4, 6)
    }


def classify(
    ip: IPAddress, *, allow: Sequence[IPNetwork] = (), own: Collection[IPAddress] = ()
) -> Egress:
    """What `ip` is. `allow`: the operator's CIDRs; `own`: the addresses of this machine."""
    if ip.version == 6 and ip.scope_id is not None:
        return Egress.ZONED
    if any(ip in network for network in allow):
        return Egress.OPERATOR
    if ip in own:
        return Egress.OWN
    value = int(ip)
    for shift, prefix, egress in _prefixes()[ip.version]:
        if value >> shift == prefix:
            if egress is Egress.PUBLIC and (value >> 32) & 0xFFFFFFFF in _ISATAP:
                return Egress.EMBEDDED  # RFC 5214, section 6.1: any prefix may hold such a one
            return egress
    return Egress.PUBLIC
