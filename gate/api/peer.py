"""Who is asking, by address: behind trusted proxies, and as one key for counting.

X-Forwarded-For is read from the right, because only the right end was written by somebody we
trust: each trusted hop is stepped over, and the first address that is not a trusted proxy is the
client. What a client wrote itself stands further left and is never reached. RFC 7239's `Forwarded`
is not read. Anything that is no address ends the walk at the last hop that was understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

HOPS: Final = 8
"""Proxies in a row that are believed; a longer chain is not a real one."""
FORWARDED_MOST: Final = 1024
"""Characters of X-Forwarded-For that are looked at, from the right."""

IPAddress = IPv4Address | IPv6Address


class Peers:
    """Knows the trusted proxies; tells the client's address from a connection and its header."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = [ip_network(text) for text in trusted]
        self.is_trusted = lru_cache(maxsize=4096)(self._is_trusted)

    def client(self, peer: str, forwarded: str | None) -> str:
        """The address that counts as the client's; `peer` is the other end of the socket."""
        if forwarded is None or not self._trusted or not self.is_trusted(peer):
            return peer
        found = peer
        for part in reversed(forwarded[-FORWARDED_MOST:].split(",")[-HOPS:]):
            address = _address(part)
            if address is None:
                return found
            found = str(address)
            if not self.is_trusted(found):
                return found
        return found

    def _is_trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._trusted)


@lru_cache(maxsize=16_384)
def counted_as(client: str) -> str:
    """The key a client's requests are counted under: an IPv6 client owns its whole /64."""
    address = _address(client)
    if address is None:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(ip_network((address.packed, 64), strict=False))
    return str(address)


@lru_cache(maxsize=16_384)
def network_of(counted: str) -> str | None:
    """The /48 that a client's /64 (as `counted_as` has it) is in; None for IPv4.

    Whoever rents a server gets one, and with it 65,536 clients.
    """
    if not counted.endswith("/64"):
        return None
    return str(ip_network((ip_network(counted).network_address.packed, 48), strict=False))


def _address(text: str) -> IPAddress | None:
    """An address as proxies write it: bare, with a port, bracketed; IPv4-mapped is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
