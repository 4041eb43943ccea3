"""`Seam`: leads vetted public addresses to listeners on loopback, for tests and the sandbox.

A test keeps the address guard switched on and still meets a peer of its own: the guard judges the
public address (203.0.113.7), the seam says where that address really leads (127.0.0.1:40125). An
address it does not know is a LookupError, so that nothing ever leaves the machine, unless it was
made to let the rest of the world pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from gate.reason import GateError

IPAddress = IPv4Address | IPv6Address
SMTP_PORT: Final = 25
REMEMBERED: Final = 10_000
"""How many dialled addresses are remembered: a sandbox may run for days."""


class Seam:
    """Callable as `seam(ip, port)`. `dialled` holds the newest addresses asked for, known or not.

    `open_world`: an address it does not know leads to itself; for a gate that serves a sandbox
    beside real domains.
    """

    def __init__(
        self, ways: Mapping[str, tuple[str, int]] | None = None, *, open_world: bool = False
    ) -> None:
        self._open_world = open_world
        self._ways: dict[tuple[IPAddress, int], tuple[str, int]] = {}
        self.dialled: deque[IPAddress] = deque(maxlen=REMEMBERED)
        for ip, listener in (ways or {}).items():
            self.add(ip, listener)

    def add(self, ip: str, listener: tuple[str, int], port: int = SMTP_PORT) -> None:
        """From now on `ip` and `port` lead to `listener`, which must be on loopback."""
        if not ip_address(listener[0]).is_loopback:
            raise GateError(f"{listener[0]} is not a loopback address; a seam leads nowhere else")
        self._ways[ip_address(ip), port] = listener

    @property
    def addresses(self) -> frozenset[IPAddress]:
        """The addresses it knows."""
        return frozenset(ip for ip, _ in self._ways)

    def __call__(self, ip: IPAddress, port: int) -> tuple[str, int]:
        self.dialled.append(ip)
        way = self._ways.get((ip, port))
        if way is None and self._open_world:
            return str(ip), port
        if way is None:
            raise LookupError(f"{ip} port {port} leads nowhere in this test")
        return way
