"""A gate and the mail world before it, each a process of its own: what is measured from outside.

The world's process serves DNS and SMTP on loopback and shares the second core with whoever asks;
the gate has the first one to itself. Domains:

    known.test            one host; every local part that begins with "person" is a mailbox
    d0.test, d1.test, …   each with a host of its own, the same mailboxes
    t0.test, t1.test, …   each with a host of its own that greets and never says another word
"""

from __future__ import annotations

import asyncio
import functools
import json
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

import uvloop

from gate.egress import IPAddress
from gate.engine import Engine, open_engine
from gate.server import Bound, run
from gate.settings.read import parse
from gate.testing import HostRules, MailHost, ScriptedMta, Seam, transcript
from gate.testing.zones import FakeZones

KNOWN: Final = "203.0.113.1"
FIRST_HOST, FIRST_PIT = ip_address("10.0.0.1"), ip_address("10.128.0.1")
"""Private space, which the guard denies but for the seam."""
NETWORK: Final = 256
"""Every host has a /24 of its own, for neighbours share their limits."""
NEVER: Final = 1_000_000
UNLIMITED: Final[Mapping[str, int]] = {
    "dialogues": 3000,
    "site_dialogues": 3000,
    "destination_dialogues": 64,
    "network_dialogues": 3000,
    "network_recipients_per_minute": NEVER,
    "domain_dialogues": 64,
    "domain_recipients_per_minute": NEVER,
    "destination_recipients_per_minute": NEVER,
    "secret_per_minute": 1000 * NEVER,
}
"""What is measured is the machinery, not the manners."""
SECTIONS: Final[Mapping[str, Any]] = {
    "server": {"secret": "s" * 40, "port": 0, "admin_port": 0},
    "probe": {"helo": "gate.test", "mail_from": "probe@gate.test"},
    "limits": UNLIMITED,
    "store": {"url": "memory:"},
}
"""The settings of the gate, section by section."""


class People(Collection[str]):
    """Everybody whose local part begins with "person"."""

    def __contains__(self, local: object) -> bool:
        return isinstance(local, str) and local.startswith("person")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How many domains of each kind there are, and the seconds of a round trip to their hosts."""

    cold: int = 0
    tarpits: int = 0
    round_trip: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """A running gate: its port, a secret key, its process."""

    port: int
    secret: str
    pid: int


# -- the world -------------------------------------------------------------------------------------


async def _world(plan: Plan, pipe: Pipe) -> None:
    rules = HostRules(users=People(), round_trip=plan.round_trip)
    pit = ScriptedMta(transcript("silent"), strict=False, history=1)
    zones: dict[str, str] = {"known.test": "MX 1 mx.known.test", "mx.known.test": f"A {KNOWN}"}
    for letter, count, first in (("d", plan.cold, FIRST_HOST), ("t", plan.tarpits, FIRST_PIT)):
        for number in range(count):
            zones[f"{letter}{number}.test"] = f"MX 1 mx-{letter}{number}.test"
            zones[f"mx-{letter}{number}.test"] = f"A {first + number * NETWORK}"
    async with MailHost(rules, strict=False, history=1) as host, pit, FakeZones(zones) as dns:
        pipe.send((dns.server, host.address, pit.address))
        await asyncio.to_thread(pipe.recv)


def _serve_world(plan: Plan, pipe: Pipe) -> None:
    _pin(-1)
    uvloop.run(_world(plan, pipe))


# -- the gate --------------------------------------------------------------------------------------


class Way:
    """How the gate's process finds the world's."""

    def __init__(self, plan: Plan, dns: Any, host: Any, pit: Any) -> None:
        self.stubs: Mapping[str, Sequence[tuple[str, int]]] = {"test": [dns]}
        self.seam = Seam()
        self.seam.add(KNOWN, host)
        for number in range(plan.cold):
            self.seam.add(str(FIRST_HOST + number * NETWORK), host)
        for number in range(plan.tarpits):
            self.seam.add(str(FIRST_PIT + number * NETWORK), pit)

    @property
    def seam_addresses(self) -> frozenset[IPAddress]:
        return self.seam.addresses


async def _gate(way: Way, sections: Mapping[str, Any], pipe: Pipe) -> None:
    settings = parse({**SECTIONS, **sections})
    stopping: list[asyncio.Task[None]] = []
    secrets: list[str] = []

    @asynccontextmanager
    async def opener(chosen: Any) -> AsyncIterator[Engine]:
        async with open_engine(chosen, world=way) as engine:
            secrets.append(str(engine.development_secret))
            yield engine

    async def stop(bound: Bound) -> None:
        await asyncio.to_thread(pipe.recv)
        bound.stop()

    def started(bound: Bound) -> None:
        pipe.send((bound.port, secrets[0]))
        stopping.append(asyncio.create_task(stop(bound)))

    nowhere = os.open(os.devnull, os.O_WRONLY)
    await run(settings, started=started, opener=opener, write=functools.partial(os.write, nowhere))


def _serve_gate(way: tuple[Any, ...], sections: Mapping[str, Any], pipe: Pipe) -> None:
    _pin(0)
    uvloop.run(_gate(Way(*way), sections, pipe))


def _pin(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core]})


@contextmanager
def gate_before(plan: Plan, **sections: Any) -> Iterator[Place]:
    """A running gate with the planned world before it; `sections` stand for those of SECTIONS."""
    context = multiprocessing.get_context("spawn")
    with _child(context, _serve_world, plan) as (_, (dns, host, pit)):
        way = (plan, dns, host, pit)
        with _child(context, _serve_gate, way, sections) as (pid, (port, secret)):
            yield Place(port, secret, pid)


@contextmanager
def _child(context: Any, serve: Any, *arguments: Any) -> Iterator[tuple[int, Any]]:
    """A process that tells what it has to tell, and runs until the block ends."""
    ours, theirs = context.Pipe()
    child = context.Process(target=serve, args=(*arguments, theirs))
    child.start()
    theirs.close()
    try:
        yield child.pid, ours.recv()
    finally:
        ours.send("stop")
        child.join(20)
        if child.exitcode is None:
            child.kill()
            child.join()
        ours.close()


# -- those who ask ---------------------------------------------------------------------------------


class Caller:
    """One keep-alive connection. Bare on purpose: a client library would be what is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, secret: str, email: str, budget_ms: int) -> tuple[float, str]:
        """Milliseconds from request to answer, and the reason given."""
        body = json.dumps({"email": email, "timeout_ms": budget_ms}).encode()
        started = time.perf_counter()
        answer = json.loads(await self.post("/v1/check", secret, body))
        return (time.perf_counter() - started) * 1000, answer["reason"]

    async def post(self, path: str, secret: str, body: bytes) -> bytes:
        """The body of the answer, which has to be of the 200s."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        said = await self._reader.readuntil(b"\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 2"), said
        length = said.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await self._reader.readexactly(int(length or 0))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def callers(port: int, count: int) -> list[Caller]:
    """Connections that stand before anything is timed."""
    return [Caller(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(count)]


def percentiles(times: Sequence[float]) -> tuple[float, float, float, float]:
    """The median, the 95th and the 99th percentile, and the worst."""
    ordered = sorted(times)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return at(0.50), at(0.95), at(0.99), ordered[-1]
