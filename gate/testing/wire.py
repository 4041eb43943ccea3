"""The wire under the kit's mail servers: a loopback listener that remembers every byte.

What it knows: accepting, framing lines, half-closing, resetting, TLS. What it promises: every byte
a client sent is kept with its time; each command line is held against the eight verbs a prober may
send, so that a test in which a client says DATA fails at the end of the `async with` block.
Bugs: Linux only (loopback addresses beyond 127.0.0.1, resets); 1 MiB a connection is remembered.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self, cast

from gate.reason import GateError

PROBER_VERBS: Final = frozenset(
    ("EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "RSET", "NOOP", "QUIT")
)
"""What a prober may say (security.md's B3: no message is ever sent)."""
LONGEST_COMMAND: Final = 510
"""Octets of a command line without CRLF (RFC 5321 4.5.3.1.4)."""
REMEMBERED: Final = 1024 * 1024
"""Octets received of one connection; more than that no prober has to say."""
PIECE_SHOWN: Final = 512
"""Octets kept of each piece that was *sent*: a flood must not be remembered in full."""
TLS_RECORD: Final = b"\x16\x03"
"""How a ClientHello begins; such bytes are not held against the verbs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that crossed the wire together. `at`: seconds on the monotonic clock."""

    at: float
    sent: bool
    data: bytes


class Connection(asyncio.Protocol):
    """One accepted connection: a line reader for the server's script and a byte log for the test.

    `bursts` are the client's commands, grouped: a new group begins whenever the server had nothing
    left to read and had to wait. Pipelined commands stand in one group.
    """

    def __init__(self, number: int, serve: Callable[[Connection], Awaitable[None]]) -> None:
        self.number = number
        self.log: list[Piece] = []
        self.received = bytearray()
        self.bytes_sent = 0
        self.bursts: list[list[str]] = []
        self.complaints: list[str] = []
        self.tls = False
        self.deaf = False
        """It does not read at present, and would not notice that the client has left."""
        self.peer = ("", 0)
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()
        self.task: asyncio.Future[None] | None = None
        self._serve = serve
        self._lines: deque[str] = deque()
        self._partial = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        state = "closed" if self.lost.is_set() else "open"
        return f"<Connection {self.number} {state}, {sum(map(len, self.bursts))} commands>"

    @property
    def lines(self) -> list[str]:
        """Every command line read so far, without CRLF."""
        return [line for burst in self.bursts for line in burst]

    @property
    def round_trips(self) -> int:
        """Round trips up to the answer: TCP connect, greeting, and each burst but a lone QUIT."""
        return 2 + sum(1 for burst in self.bursts if burst != ["QUIT"])

    # -- what asyncio calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: the transports of uvloop have no such base class.
        self._transport = cast(asyncio.Transport, transport)
        self.peer = transport.get_extra_info("peername")[:2]
        self.task = asyncio.ensure_future(self._serve(self))

    def data_received(self, data: bytes) -> None:
        self.log.append(Piece(time.monotonic(), False, data))
        self.received += data
        if len(self.received) > REMEMBERED:
            self.complain(f"the client sent more than {REMEMBERED} octets")
            self.reset()
            return
        self._partial += data
        if self._partial.startswith(TLS_RECORD):
            return
        *whole, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        for line in whole:
            self._take(line)
        self._arrived.set()

    def eof_received(self) -> bool:
        self._end()
        return not self.tls

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._writable.set()
        self.lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what a server's script uses ---------------------------------------------------------------

    async def line(self) -> str | None:
        """The client's next line without CRLF; None once it has left."""
        if waiting := not self._lines:
            while not self._lines:
                if self.ended.is_set():
                    return None
                self._arrived.clear()
                await self._arrived.wait()
        if waiting or not self.bursts:
            self.bursts.append([])
        line = self._lines.popleft()
        self.bursts[-1].append(line)
        return line

    @property
    def more(self) -> bool:
        """True while a line is at hand that needs no waiting."""
        return bool(self._lines)

    async def send(self, data: bytes) -> None:
        """Write, waiting while the client does not read. ConnectionResetError once it has gone."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self.bytes_sent += len(data)
        self.log.append(Piece(time.monotonic(), True, data[:PIECE_SHOWN]))
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def hold_reading(self) -> None:
        """Leave what the client sends in the kernel: before TLS starts, or to play deaf."""
        if self._transport is not None:
            self._transport.pause_reading()
            self.deaf = True

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Serve TLS from here on. Raises OSError (ssl.SSLError) if the handshake fails."""
        assert self._transport is not None
        if self._lines or self._partial:
            self.complain("the client sent plaintext behind STARTTLS")
        raw = self._transport
        try:
            upgraded = await asyncio.get_running_loop().start_tls(
                raw, self, context, server_side=True
            )
        except BaseException:
            # A handshake that fails is not told to the protocol by asyncio.
            raw.abort()
            self.deaf = False
            self.connection_lost(None)
            raise
        assert upgraded is not None
        self._transport = upgraded
        self.tls, self.deaf = True, False

    def half_close(self) -> None:
        """Send FIN and go on reading (plain connections only)."""
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        """Send FIN once everything written has left."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Drop the connection with RST."""
        if self._transport is None:
            return
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and not self.lost.is_set():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def complain(self, what: str) -> None:
        """Note a breach by the client; the server's `check` raises it."""
        self.complaints.append(f"connection {self.number}: {what}")

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\r"):
            self.complain(f"a line ends in a bare LF: {line[:80]!r}")
        line = line.removesuffix(b"\r")
        if len(line) > LONGEST_COMMAND:
            self.complain(f"a line of {len(line)} octets: {line[:80]!r}")
        text = line.decode("utf-8", "surrogateescape")
        verb = text.partition(" ")[0].upper()
        if verb not in PROBER_VERBS:
            self.complain(f"a prober must never say {text[:80]!r}")
        self._lines.append(text)

    def _end(self) -> None:
        self.ended.set()
        self._arrived.set()


class SmtpListener:
    """A mail server on loopback: `async with` opens and closes it. Subclasses say how it talks.

    `connections` holds the newest `history` of them. `check` raises AssertionError for every
    breach by a client; leaving the block calls it, unless `strict` is false.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        history: int = 10_000,
        strict: bool = True,
        refuse: bool = False,
    ) -> None:
        if not ip_address(host).is_loopback:
            raise GateError(f"{host} is not a loopback address; test servers bind nowhere else")
        self.connections: deque[Connection] = deque(maxlen=history)
        self.complaints: list[str] = []
        self.accepted = 0
        self._where = (host, port)
        self._strict = strict
        self._refuse = refuse
        self._open: set[Connection] = set()
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def talk(self, connection: Connection) -> None:
        """Serve one connection; it is closed afterwards."""
        raise NotImplementedError

    @property
    def address(self) -> tuple[str, int]:
        """(IP, port) it is bound to, while open."""
        if self._socket is None:
            raise GateError("the server is not open; use it in an `async with` block")
        host, port = self._socket.getsockname()[:2]
        return host, port

    @property
    def lines(self) -> list[str]:
        """Every command line of all connections, in order of connection."""
        return [line for connection in self.connections for line in connection.lines]

    @property
    def received(self) -> bytes:
        """Every byte of all connections, in order of connection."""
        return b"".join(bytes(connection.received) for connection in self.connections)

    def check(self) -> None:
        """Raise AssertionError with every breach by a client: out of script, DATA, bare LF …"""
        every = self.complaints + [c for one in self.connections for c in one.complaints]
        if every:
            raise AssertionError(f"{self!r}: " + "; ".join(every))

    async def __aenter__(self) -> Self:
        host, port = self._where
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named TCP, because asyncio leaves Nagle's algorithm on for a socket that is not, and each
        # reply of several lines then takes 40 ms.
        self._socket = sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        # A socket that is bound and does not listen refuses connections and keeps its port.
        if not self._refuse:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._accept, sock=sock, backlog=512)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        await _end(tuple(self._open))
        if self._server is not None:
            await self._server.wait_closed()
        self._server = self._socket = None
        if error is None and self._strict:
            self.check()

    def _accept(self) -> Connection:
        self.accepted += 1
        connection = Connection(self.accepted, self._serve)
        self.connections.append(connection)
        self._open.add(connection)
        return connection

    async def _serve(self, connection: Connection) -> None:
        try:
            await self.talk(connection)
        except OSError:
            pass  # the client went away, or TLS failed: both are its right
        except Exception as error:
            self.complaints.append(f"connection {connection.number}: {error!r}")
        finally:
            connection.close()
            self._open.discard(connection)


async def _end(connections: Iterable[Connection]) -> None:
    """Cancel the scripts and drop the sockets, and wait until both are really gone."""
    tasks = []
    for connection in connections:
        connection.reset()
        if connection.task is not None:
            connection.task.cancel()
            tasks.append(connection.task)
    await asyncio.gather(*tasks, return_exceptions=True)
    for connection in connections:
        await connection.lost.wait()
