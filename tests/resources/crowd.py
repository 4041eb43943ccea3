"""Callers of every kind: those who ask and want an answer, and those who only hold on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
AGAIN = 0.5
"""Seconds after which a slow client that was cut off comes back."""
HALF_BODY = (
    b"POST /v1/check HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: 900\r\n\r\n{"
)
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = (b"", b"GET /healthz HTTP/1.1\r\nX-Slow: ", HALF_BODY, WHOLE)
"""What slow clients say before they fall silent: nothing, half a head, half a body, all of it."""
TOGETHER = 25
"""So many come in the same moment."""
TRIES = 20
BOMBS = (
    (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: " + b"y" * 4000 + b"\r\n"),
    (b"POST /v1/check HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n", b"x" * 65536),
    (
        b"POST /v1/check HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n" * 999,
    ),
)
"""A head, and what is sent behind it without end."""


class Slow(asyncio.Protocol):
    """Connects, says its piece, holds on; comes back when it is cut off, until told to go."""

    def __init__(self, crowd: SlowCrowd, sent: bytes) -> None:
        self.crowd = crowd
        self.sent = sent
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.crowd.open.add(self)
        self.transport.write(self.sent)

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.open.discard(self)
        self.crowd.cut += 1
        self.crowd.gone.append(self)


@dataclass(slots=True)
class SlowCrowd:
    """So many slow clients at one port. `cut`: how often one of them was cut off."""

    port: int
    number: int
    says: tuple[bytes, ...] = SLOW
    open: set[Slow] = field(default_factory=set)
    gone: list[Slow] = field(default_factory=list)
    cut: int = 0

    async def hold(self) -> None:
        """Keep them all connected, until cancelled."""
        self.gone = [Slow(self, self.says[n % len(self.says)]) for n in range(self.number)]
        try:
            while True:
                coming, self.gone = self.gone, []
                for start in range(0, len(coming), TOGETHER):
                    some = coming[start : start + TOGETHER]
                    await asyncio.gather(*(self._connect(one) for one in some))
                    await asyncio.sleep(0.01)
                await asyncio.sleep(AGAIN)
        finally:
            for one in tuple(self.open):
                one.transport.abort()

    async def _connect(self, one: Slow) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: one, HOST, self.port)
        except OSError:
            self.gone.append(one)


@asynccontextmanager
async def slow_clients(
    port: int, number: int, says: tuple[bytes, ...] = SLOW
) -> AsyncIterator[SlowCrowd]:
    """While held, they hold on."""
    crowd = SlowCrowd(port, number, says)
    holding = asyncio.create_task(crowd.hold())
    try:
        yield crowd
    finally:
        holding.cancel()
        await asyncio.wait({holding})
        while crowd.open:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)


async def bomb(port: int, head: bytes, part: bytes, octets: int) -> int:
    """Send `part` behind `head` until it is refused or so many octets were; how many were taken."""
    sent = 0
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return sent
    try:
        writer.write(head)
        while sent < octets and not writer.is_closing():
            writer.write(part)
            async with asyncio.timeout(5.0):
                await writer.drain()
            sent += len(part)
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return sent


class Refused(Exception):
    """An answer that was none: its status."""


class Caller:
    """One keep-alive connection of a site's server. Bare: a library would be what is measured."""

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        self._secret = secret
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, email: str, budget_ms: int = 2500) -> dict[str, Any]:
        """The whole answer. Raises `Refused` for a status that is not 200, OSError."""
        return await self.post("/v1/check", {"email": email, "timeout_ms": budget_ms})

    async def post(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The JSON that a path answers with."""
        body = json.dumps(fields).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        try:
            writer.write(head.encode() + body)
            said = await reader.readuntil(b"\r\n\r\n")
            length = int(said.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            octets = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise ConnectionResetError from None
        if not said.startswith(b"HTTP/1.1 200"):
            raise Refused(said[9:12].decode() + " " + octets.decode("utf-8", "replace"))
        answer: dict[str, Any] = json.loads(octets)
        return answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


@dataclass(slots=True)
class Times:
    """How long answers took, in seconds, from when each was due to be asked."""

    taken: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        ordered = sorted(self.taken)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _come_in(caller: Caller, email: str) -> None:
    """The first answer on a connection. In a crowd a new one may have to make room before it was
    heard, and comes back.
    """
    for _ in range(TRIES):
        with suppress(ConnectionResetError):
            await caller.ask(email)
            return
    raise AssertionError(f"{TRIES} connections were cut off before they were heard")


async def steadily(
    port: int, secret: str, emails: Sequence[str], rate: float, seconds: float
) -> Times:
    """Ask in turn at a constant rate, whether or not the one before was answered in time, on
    connections that are kept.
    """
    times, callers = Times(), [Caller(port, secret) for _ in range(8)]
    free: asyncio.Queue[Caller] = asyncio.Queue()
    for caller in callers:
        await _come_in(caller, emails[0])
        free.put_nowait(caller)
    started = time.perf_counter()

    async def one(number: int) -> None:
        due = started + number / rate
        caller = await free.get()
        email = emails[number % len(emails)]
        try:
            answer = await caller.ask(email)
            times.taken.append(time.perf_counter() - due)
            if answer["email"] != email:
                times.errors.append(f"asked about {email}, was told of {answer['email']}")
        except (OSError, Refused) as error:
            times.errors.append(repr(error))
        finally:
            free.put_nowait(caller)

    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    for caller in callers:
        caller.close()
    return times
