"""`DnsListener`: one loopback port for DNS over UDP and TCP, and what is done with each message.

It knows sockets and the two-octet length of messages over TCP (RFC 1035 section 4.2.2), and nothing
of what is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from gate.reason import GateError

PORTS_TRIED: Final = 20


@dataclass(frozen=True, slots=True)
class Stream:
    """TCP only: these bytes as they are, length and all; then the end of the connection, or not."""

    data: bytes
    close: bool = True


Send = Callable[[bytes | Stream], None]
"""Sends one message back the way the question came."""
Respond = Callable[[bytes, bool, Send], None]
"""Told each message, whether it came over TCP, and how to answer it, now or later."""


class DnsListener:
    """Listens from `open` to `close`."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._datagrams: asyncio.DatagramTransport | None = None
        self._listener: asyncio.Server | None = None
        self._streams: set[asyncio.Transport] = set()

    async def open(self, host: str, *, tcp: bool) -> tuple[str, int]:
        """Take a port that is free for both; says where it listens."""
        loop = asyncio.get_running_loop()
        for _ in range(PORTS_TRIED):
            datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._respond), local_addr=(host, 0)
            )
            port = datagrams.get_extra_info("sockname")[1]
            try:
                if tcp:
                    self._listener = await loop.create_server(
                        lambda: _Connection(self._respond, self._streams), host, port
                    )
            except OSError:  # another program has this port for TCP
                datagrams.close()
                continue
            self._datagrams = datagrams
            return host, port
        raise GateError(f"no port of {host} is free for both UDP and TCP")

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._datagrams is not None:
            self._datagrams.close()
        for stream in tuple(self._streams):
            stream.abort()
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()


@dataclass(slots=True, eq=False)
class _Datagrams(asyncio.DatagramProtocol):
    _respond: Respond
    _transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        def send(message: bytes | Stream) -> None:
            transport = self._transport
            if transport and not transport.is_closing() and isinstance(message, bytes):
                transport.sendto(message, addr)

        self._respond(data, False, send)


@dataclass(slots=True, eq=False)
class _Connection(asyncio.Protocol):
    _respond: Respond
    _open: set[asyncio.Transport]
    _buffer: bytearray = field(default_factory=bytearray)
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[2:end])
            del self._buffer[:end]
            self._respond(message, True, self._send)

    def _send(self, message: bytes | Stream) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if isinstance(message, bytes):
            message = Stream(len(message).to_bytes(2, "big") + message, close=False)
        self._transport.write(message.data)
        if message.close:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._open.discard(self._transport)
