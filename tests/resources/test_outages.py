"""DNS, the disk, the way out: down for a while, one after the other (R6, L4, O04, O05, O07).

Whatever is down, the routes that check answer 200 within the caller's budget, and say `unknown`
where they do not know; what is remembered stays remembered. Five seconds after it is back, so is
the gate.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import uvloop

from gate.testing import FakeZones, HostRules, MailHost
from gate.testing.dns_listener import Send
from gate.testing.proxy import Faults, FaultyProxy
from tests.durability.domains import Everybody, name_of, plan
from tests.resources.crowd import Caller, Refused
from tests.resources.process import SECRET, Outside, Running, gate, settings

RECOVERY_MOST = 5.0
BUDGET, GRACE = 0.8, 0.1
DOMAINS = 3000
PAUSE = 0.05
KNOWN = "u1@d0.test"


class MutableZones(FakeZones):
    """A name server that can fall silent."""

    mute = False

    def _respond(self, wire: bytes, tcp: bool, send: Send) -> None:
        if not self.mute:
            super()._respond(wire, tcp, send)


@dataclass(slots=True)
class Ground:
    """A gate and what it needs of the world, each behind something that can break."""

    running: Running
    zones: MutableZones
    mail: FaultyProxy
    numbers: count[int] = field(default_factory=lambda: count(1))
    said: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    over: list[float] = field(default_factory=list)

    async def fresh(self, caller: Caller) -> str:
        """What is said of somebody nobody has asked about, at a domain of his own."""
        answer = await self._ask(caller, f"u1@{name_of(next(self.numbers) % DOMAINS)}")
        return str(answer.get("reason", "error"))

    async def _ask(self, caller: Caller, email: str) -> dict[str, object]:
        started = time.monotonic()
        try:
            answer = await caller.ask(email, int(BUDGET * 1000))
            self.said[answer["reason"]] += 1
        except (OSError, Refused) as error:
            self.errors.append(repr(error))
            answer = {}
        self.over.append(time.monotonic() - started - BUDGET)
        return answer

    async def traffic(self, seconds: float) -> None:
        """Checks of all sorts, for so long: new ones, a remembered one, tokens, prefetches."""
        until = time.monotonic() + seconds

        async def news(caller: Caller) -> None:
            while time.monotonic() < until:
                await self.fresh(caller)
                await asyncio.sleep(PAUSE)

        async def remembered(caller: Caller) -> None:
            while time.monotonic() < until:
                answer = await self._ask(caller, KNOWN)
                if answer.get("reason") != "accepted_email":
                    self.errors.append(f"forgotten: {answer}")
                token = {"secret": SECRET, "response": answer.get("token", "")}
                spent = await self._post(caller, token)
                if not spent.get("success"):
                    self.errors.append(f"siteverify: {spent}")
                await asyncio.sleep(PAUSE)

        callers = [Caller(self.running.port, SECRET) for _ in range(4)]
        await asyncio.gather(*(news(caller) for caller in callers[1:]), remembered(callers[0]))
        for caller in callers:
            caller.close()

    async def _post(self, caller: Caller, fields: dict[str, object]) -> dict[str, object]:
        try:
            return await caller.post("/v1/siteverify", fields)
        except (OSError, Refused) as error:
            return {"error": repr(error)}

    async def recovered(self, good: Callable[[], Awaitable[bool]]) -> float:
        """Seconds until it is as it was."""
        started = time.monotonic()
        async with asyncio.timeout(120):
            while not await good():  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.1)
        return time.monotonic() - started

    async def asks_again(self) -> bool:
        """Whether a new address is asked about, and the answer is the true one."""
        caller = Caller(self.running.port, SECRET)
        try:
            return await self.fresh(caller) == "accepted_email"
        finally:
            caller.close()

    async def writes_again(self) -> bool:
        """Whether the store is written."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        said = await reader.read()
        writer.transport.abort()
        return b'"store":"ok"' in said


@asynccontextmanager
async def ground(directory: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        rules = HostRules(users=Everybody())
        host = await stack.enter_async_context(MailHost(rules, strict=False, history=1))
        mail = await stack.enter_async_context(FaultyProxy(host.address))
        zones = await stack.enter_async_context(MutableZones(plan(DOMAINS)))
        outside = Outside(zones.server, [(range(DOMAINS), mail.address)])
        config = settings(store={"url": f"sqlite:{directory / 'gate.db'}"})
        with gate(outside, config) as running:
            caller = Caller(running.port, SECRET)
            assert (await caller.ask(KNOWN))["reason"] == "accepted_email"
            caller.close()
            yield Ground(running, zones, mail)
            await running.stop()


@asynccontextmanager
async def no_names(world: Ground) -> AsyncIterator[None]:
    world.zones.mute = True
    yield
    world.zones.mute = False


@asynccontextmanager
async def no_disk(world: Ground) -> AsyncIterator[None]:
    """No file of the gate's grows: what it writes fails as on a full disk."""
    before = resource.prlimit(world.running.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(world.running.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.prlimit(world.running.pid, resource.RLIMIT_FSIZE, before)


@asynccontextmanager
async def refused(world: Ground) -> AsyncIterator[None]:
    """Every connection to a mail host is refused."""
    await world.mail.down()
    yield
    await world.mail.up()


@asynccontextmanager
async def black_hole(world: Ground) -> AsyncIterator[None]:
    """Mail hosts can be connected to, and nothing gets through."""
    world.mail.faults = Faults(silent=True)
    yield
    world.mail.faults = Faults()
    world.mail.reset()


OUTAGES = {"names": no_names, "disk": no_disk, "refused": refused, "black hole": black_hole}
UNKNOWN = {"timeout", "dns_error", "no_connect", "throttled", "probe_off", "deferred"}


@dataclass(frozen=True, slots=True)
class Outage:
    """What was said in one, and how soon it was over behind its end."""

    name: str
    seconds: float
    world: Ground
    during: Counter[str]
    taken: float

    def hold(self) -> None:
        """What is promised of it."""
        said, errors, latest = self.during.total(), self.world.errors, max(self.world.over)
        print(
            f"no {self.name} for {self.seconds:.0f} s: {said} answers, {dict(self.during)}; "
            f"{len(errors)} errors, the latest {latest * 1000:+.0f} ms over its budget; "
            f"back after {self.taken:.1f} s"
        )
        assert errors == []
        assert set(self.during) <= UNKNOWN | {"accepted_email"}
        assert self.taken <= RECOVERY_MOST
        assert latest <= GRACE


async def outage(
    name: str, directory: Path, seconds: float, begun: asyncio.Barrier | None = None
) -> Outage:
    """So long an outage. `begun`: where several gates wait until all of them have started."""
    async with ground(directory) as world:
        if begun is not None:
            await begun.wait()
        await world.traffic(0.5)
        assert set(world.said) == {"accepted_email"}, world.said
        world.said.clear()
        async with OUTAGES[name](world):
            await world.traffic(seconds)
            during = world.said.copy()
        good = world.writes_again if name == "disk" else world.asks_again
        return Outage(name, seconds, world, during, await world.recovered(good))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outage | BaseException]:
    """Three seconds of each outage, each at a gate of its own; all at the same time."""

    async def all_at_once() -> list[Outage | BaseException]:
        begun = asyncio.Barrier(len(OUTAGES))
        folders = [tmp_path_factory.mktemp("outage") for _ in OUTAGES]
        played = map(partial(outage, seconds=3.0, begun=begun), OUTAGES, folders)
        return await asyncio.gather(*played, return_exceptions=True)

    return dict(zip(OUTAGES, uvloop.run(all_at_once()), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", OUTAGES)
def test_three_seconds_without(name: str, short: dict[str, Outage | BaseException]) -> None:
    found = short[name]
    if isinstance(found, BaseException):
        raise found
    found.hold()


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", OUTAGES)
def test_thirty_seconds_without(name: str, tmp_path: Path) -> None:
    uvloop.run(outage(name, tmp_path, 30.0)).hold()
