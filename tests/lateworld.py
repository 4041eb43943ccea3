"""A world for late verdicts: mail hosts, webhook receivers, and a whole engine between them.

Everything is real and on loopback: DNS, SMTP, TLS with a certificate that only the test trusts, the
store. Only the time of what is due later is the test's own: `clock.advance` and then `round`.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import trustme

from gate.answer import Answer
from gate.budget import WEBHOOK_SPACING, Clock, Deadline
from gate.egress import IPAddress
from gate.engine import Engine, open_engine
from gate.settings import Settings, Site
from gate.settings.read import parse
from gate.testing import FakeClock, HostRules, MailHost, ScriptedMta, Seam
from gate.testing.zones import FakeZones, Value

NOW = 1_800_000_000.0
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()
URL = "https://hook.test/late?site=1"
MASTER = "m" * 40


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The test's own authority is what web servers are proved by."""
    path = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@dataclass(slots=True)
class Received:
    """One request."""

    target: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = msgspec.json.decode(self.body)["data"]
        return data


Answering = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


async def until(
    true: Callable[[], object], meanwhile: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Wait for something that is about to happen, no longer than a few seconds."""
    async with asyncio.timeout(10):
        while not true():
            if meanwhile is not None:
                await meanwhile()
            await asyncio.sleep(0.005)


def status(code: int, headers: str = "", body: str = "") -> Answering:
    """Answer with a status, and some lines of headers."""

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {code} X\r\n{headers}content-length: {len(body)}\r\n\r\n{body}"
        writer.write(head.encode())

    return answer


OK = status(200)


class Receiver:
    """A real HTTPS server for `name`. `answers` are given in turn, the last one for ever."""

    def __init__(
        self,
        *answers: Answering,
        name: str = "hook.test",
        tls: bool = True,
        ca: trustme.CA | None = None,
    ) -> None:
        self._answers = list(answers) or [OK]
        self._name = name
        self._tls = tls
        self._ca = ca or authority()
        self.received: list[Received] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.address = ("127.0.0.1", 0)

    def answer(self, *answers: Answering) -> None:
        """From now on answer so."""
        self._answers = list(answers)

    async def __aenter__(self) -> Self:
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ca.issue_cert(self._name).configure_cert(context)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Handshakes that failed are a moment longer in a task of the loop's own.
        left = {task for task in asyncio.all_tasks() if "_accept_connection2" in repr(task)}
        if left:
            await asyncio.wait(left, timeout=1.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
            request = Received(head[0].split(" ")[1], headers, body, time.monotonic())
            self.received.append(request)
            answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
            await answer(request, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self.at_once -= 1
            writer.transport.abort()
            self._tasks.discard(task)


def settings(
    store: str = "memory:", *, webhooks: list[dict[str, Any]] | None = None, **tables: Any
) -> Settings:
    """One site, `shop`, and its endpoints."""
    site: dict[str, Any] = {
        "name": "shop",
        "site_key": "pk_shop",
        "secret_hash": "0" * 64,
        "webhook": [{"url": URL, "secrets": [SECRET]}] if webhooks is None else webhooks,
    }
    tree: dict[str, Any] = {
        "store": {"url": store},
        "server": {"secret": MASTER},
        "probe": {"helo": "gate.test", "mail_from": "probe@gate.test"},
        "dns": {"servers": ["127.0.0.1:9"]},
        "site": [site],
    }
    return parse({**tree, **tables})


@dataclass(slots=True)
class Late:
    """The running world."""

    engine: Engine
    zones: FakeZones
    seam: Seam
    clock: FakeClock
    wall: Clock
    hosts: dict[str, MailHost | ScriptedMta]
    hook: Receiver

    @property
    def site(self) -> Site:
        return self.engine.sites[0]

    async def check(self, email: str, seconds: float = 5.0) -> Answer:
        deadline = Deadline.after(seconds, time.monotonic)
        return await self.engine.checker.check(email, site=self.site, deadline=deadline)

    async def reason(self, email: str, seconds: float = 5.0) -> str:
        return (await self.check(email, seconds)).verdict.reason.value

    async def latest(self, check: str, *, wait: float = 0.0) -> str:
        """What GET /v1/checks/{id} says: reason, and ! behind it if it is final."""
        answer = await self.engine.checker.latest(check, self.site, wait=wait)
        if answer is None:
            return "unknown check"
        return answer.verdict.reason.value + ("!" if answer.verdict.final else "")

    async def later(self, seconds: float) -> tuple[int, int]:
        """Let time go by; how many addresses were asked about again, how many messages sent."""
        self.clock.advance(seconds)
        rechecked = await self.engine.rechecks.round()
        return rechecked, await self.deliver()

    async def deliver(self) -> int:
        """Send what is due, at the pace that an endpoint is sent things; how many messages."""
        sent = 0
        while number := await self.engine.outbox.round():
            sent += number
            self.clock.advance(3 * WEBHOOK_SPACING)
        return sent

    def dialogues(self, domain: str) -> int:
        """Questions that were asked there: a connection may serve several, each in one write."""
        return sum(
            burst[0].startswith("MAIL")
            for connection in self.hosts[domain].connections
            for burst in connection.bursts
        )


@dataclass(slots=True)
class Place:
    """What outlives the engines of a test: mail hosts, receivers, name servers, time."""

    zones: FakeZones
    seam: Seam
    clock: FakeClock
    hosts: dict[str, MailHost | ScriptedMta]
    hook: Receiver
    stubs: Mapping[str, list[tuple[str, int]]] = field(default_factory=dict)

    @property
    def seam_addresses(self) -> frozenset[IPAddress]:
        return frozenset()

    @asynccontextmanager
    async def engine(
        self, config: Settings, *, queue_clock: Clock | None = None, wall: Clock | None = None
    ) -> AsyncIterator[Late]:
        """One life of the gate."""
        wall = wall or self.clock
        opened = open_engine(config, world=self, wall=wall, queue_clock=queue_clock or self.clock)
        async with opened as engine:
            yield Late(engine, self.zones, self.seam, self.clock, wall, self.hosts, self.hook)


@asynccontextmanager
async def place(
    servers: Mapping[str, HostRules | ScriptedMta],
    hook: Receiver | None = None,
    zones: Mapping[str, Value] | None = None,
    *,
    port: int = 443,
) -> AsyncIterator[Place]:
    """`servers` by the domain they serve, under .test; the receiver is hook.test."""
    clock, seam = FakeClock(NOW), Seam()
    plan: dict[str, Value] = {"hook.test": "A 8.8.8.8", **(zones or {})}
    async with AsyncExitStack() as stack:
        hosts: dict[str, MailHost | ScriptedMta] = {}
        for number, (domain, server) in enumerate(servers.items(), 1):
            host = MailHost(server, clock=clock) if isinstance(server, HostRules) else server
            hosts[domain] = await stack.enter_async_context(host)
            seam.add(f"8.8.4.{number}", host.address)
            plan |= {domain: f"MX 10 mx.{domain}", f"mx.{domain}": f"A 8.8.4.{number}"}
        receiver = await stack.enter_async_context(hook or Receiver())
        seam.add("8.8.8.8", receiver.address, port)
        fake = await stack.enter_async_context(FakeZones(plan))
        yield Place(fake, seam, clock, hosts, receiver, {"test": [fake.server]})


def in_world(
    test: Callable[[Late], Awaitable[None]],
    servers: Mapping[str, HostRules | ScriptedMta],
    hook: Receiver | None = None,
    *,
    config: Settings | None = None,
    zones: Mapping[str, Value] | None = None,
    port: int = 443,
) -> None:
    """Run a test in one life of the gate."""

    async def main() -> None:
        async with place(servers, hook, zones, port=port) as here:
            async with here.engine(config or settings()) as late:
                await test(late)

    asyncio.run(main())
