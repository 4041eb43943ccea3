"""A gate in a process of its own, as heavy as it really is, and the world around it in this one.

What is measured of it is read from /proc: memory, descriptors, processor time. How long its event
loop was held up it says itself (gate.testing.lag), without what other programs took of the machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from typing import Any

import uvloop

from gate.egress import IPAddress
from gate.engine import Engine, open_engine
from gate.server import Bound, run
from gate.settings import Settings
from gate.settings.read import parse
from gate.testing import FakeZones, HostRules, MailHost, ScriptedMta, Seam, transcript
from gate.testing.lag import LoopLag
from tests.durability.domains import Everybody, lead, name_of, plan

SECRET, OTHER_SECRET = "sk_" + "s" * 40, "sk_" + "o" * 40
SITE_KEY, OTHER_SITE_KEY = "pk_shop", "pk_other"
MEGABYTE = 1024 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")
Address = tuple[str, int]


def site(name: str, secret: str) -> dict[str, Any]:
    """A [[site]] table."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return {"name": name, "site_key": f"pk_{name}", "secret_hash": digest}


def settings(**tables: Any) -> Settings:
    """Two sites, and no limit but those that a test names."""
    many = {"dialogues": 256, "site_dialogues": 256}
    tree: dict[str, Any] = {
        "store": {"url": "memory:"},
        "probe": {"helo": "gate.test", "mail_from": "probe@gate.test"},
        "dns": {"servers": ["127.0.0.1:9"]},
        "site": [site("shop", SECRET), site("other", OTHER_SECRET)],
        **tables,
        "server": {"port": 0, "admin_port": 0, "secret": "m" * 40} | tables.get("server", {}),
        "limits": many | tables.get("limits", {}),
    }
    return parse(tree)


@dataclass(slots=True)
class Outside:
    """Name servers and mail hosts, as a process needs to know them: the resolver, and which
    domains' hosts are at which listener.
    """

    dns: Address
    hosts: Sequence[tuple[range, Address]]
    seam_addresses: frozenset[IPAddress] = field(default_factory=frozenset)

    @property
    def stubs(self) -> Mapping[str, list[Address]]:
        return {"test": [self.dns]}

    @property
    def seam(self) -> Seam:
        seam = Seam()
        for numbers, listener in self.hosts:
            lead(seam, numbers, listener)
        return seam


def good(number: int, name: str = "u1") -> str:
    """An address at a host that answers: the first of the world's good hosts has number 0."""
    return f"{name}@{name_of(PITS + number)}"


PITS = 4000
"""Domains before the good ones: their mail hosts take a connection and never say a word."""


@dataclass(slots=True)
class World:
    """The running hosts."""

    outside: Outside
    zones: FakeZones
    pits: ScriptedMta
    host: MailHost


@asynccontextmanager
async def world(hosts: int = 500, *, greylist: float = 0.0) -> AsyncIterator[World]:
    """Tarpits, and so many good domains, whose users are everybody that begins with u."""
    async with AsyncExitStack() as stack:
        pits = ScriptedMta(transcript("silent"), strict=False, history=1)
        rules = HostRules(users=Everybody(), greylist=greylist)
        host = MailHost(rules, strict=False, history=1)
        zones = FakeZones(plan(PITS + hosts))
        for listener in (pits, host, zones):
            await stack.enter_async_context(listener)
        ways = [(range(PITS), pits.address), (range(PITS, PITS + hosts), host.address)]
        yield World(Outside(zones.server, ways), zones, pits, host)


@dataclass(slots=True)
class Running:
    """A gate's process."""

    process: BaseProcess
    pipe: Pipe
    port: int
    limit: int
    """Descriptors it may have."""

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def memory(self) -> float:
        """Resident, in MiB."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE / MEGABYTE

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def processor(self) -> float:
        """Seconds of CPU so far."""
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def lag(self) -> float:
        """The longest that its loop was held up, in seconds."""
        self.pipe.send("lag")
        worst: float = await asyncio.to_thread(self.pipe.recv)
        return worst

    async def stop(self) -> float:
        """SIGTERM, and the seconds until it is gone."""
        started = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        await asyncio.to_thread(self.process.join, 30)
        assert self.process.exitcode == 0, self.process.exitcode
        return time.monotonic() - started


@contextmanager
def gate(
    outside: Outside, config: Settings, *, files: int | None = None, ahead: float = 0.0
) -> Iterator[Running]:
    """Start one. `files`: descriptors it may have; `ahead`: how much its wall clock is off."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(outside, config, files, ahead, theirs))
    process.start()
    theirs.close()
    try:
        port, limit = ours.recv()
        yield Running(process, ours, port, limit)
    finally:
        if process.exitcode is None:
            process.kill()
        process.join()
        process.close()
        ours.close()


def _child(outside: Outside, config: Settings, files: int | None, ahead: float, pipe: Pipe) -> None:
    logging.disable(logging.WARNING)  # what it thinks of its callers
    if files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    uvloop.run(_serve(outside, config, ahead, pipe))


async def _serve(outside: Outside, config: Settings, ahead: float, pipe: Pipe) -> None:
    lag = LoopLag()

    @asynccontextmanager
    async def opener(settings: Settings) -> AsyncIterator[Engine]:
        opened = open_engine(settings, world=outside, wall=lambda: time.time() + ahead)
        async with opened as engine:
            yield engine

    def asked() -> None:
        try:
            pipe.recv()
        except EOFError:
            os._exit(1)  # whoever started us is gone
        pipe.send(lag.worst())

    async def begin() -> None:
        await lag.__aenter__()

    def started(bound: Bound) -> None:
        beginning.append(asyncio.ensure_future(begin()))
        asyncio.get_running_loop().add_reader(pipe.fileno(), asked)
        pipe.send((bound.port, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))

    beginning: list[asyncio.Future[None]] = []
    nowhere = os.open(os.devnull, os.O_WRONLY)
    await run(config, started=started, opener=opener, write=lambda text: os.write(nowhere, text))
