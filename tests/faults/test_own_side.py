"""O01 to O14: what befalls the gate itself."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pytest
import uvloop

from gate.budget import HTTP_STOP
from gate.reason import GateError
from gate.store import Done, Settled, Store, open_store
from gate.store.recover import recover
from gate.testing import Faults, FaultyProxy, HostRules, LoopLag
from gate.token import Claims, TokenFault, mint, open_token
from tests.durability.domains import name_of
from tests.faults.cases import row
from tests.faults.ground import BUDGETS, GRACE, STALL, Case, Ground, Played, Row, ground
from tests.faults.lives import FIRST, SECOND, job, opened
from tests.lateworld import NOW, settings
from tests.ports import free_port
from tests.redisworld import RedisServer, redis_server
from tests.resources.crowd import Caller, Refused
from tests.resources.process import SECRET, Running, gate, good, world
from tests.resources.process import settings as served

pytestmark = pytest.mark.timeout(180)

GREY = HostRules(mailboxes={"grey": "451 4.7.1 Greylisted, try again in 60 s"}, users=["jane"])
STOP_MOST = 10.0
KILLS = 5
RECOVERY = 5.0


# -- one gate that goes on -------------------------------------------------------------------------


async def clock_is_set(budget: float) -> Ground:
    """O09: an hour ahead, then two back: nothing is due early, nothing is believed again."""
    async with ground(GREY, own_queue_clock=True) as here:
        first = await here.check(budget)
        assert first.verdict.reason == "accepted_email"
        assert await here.reason(budget, "grey@good.test") == "greylisted"
        store, spent = here.engine.store, b"k" * 16
        token = mint(here.engine.keys, claims(here, first.id))
        assert await store.claim(spent, expires=NOW + 300) is None
        for step, word in ((3600, TokenFault.EXPIRED), (-7200, TokenFault.INVALID)):
            here.clock.advance(step)
            assert open_token(here.engine.keys, token, here.clock()) is word
            assert await here.engine.rechecks.round() == 0
            assert await here.reason(budget) == "accepted_email"
        here.clock.advance(3600)
        assert isinstance(open_token(here.engine.keys, token, here.clock()), Claims)
        assert await store.claim(spent, expires=NOW + 300) is not None, "spent twice"
        assert await here.engine.rechecks.round() == 0
        assert here.hosts[0].accepted <= 2
    return here


async def keys_rotate(budget: float) -> Ground:
    """O13: what the key before sealed is believed while both are named, and not after."""
    old, new = "o" * 40, "n" * 40

    def config(store: str, secret: str, previous: str = "") -> Any:
        server = {"secret": secret, "secret_previous": previous}
        return settings(f"sqlite:{store}", webhooks=[], server=server)

    clears = HostRules(users=["jane"], greylist=60.0)
    with TemporaryDirectory() as folder:
        path = f"{folder}/gate.db"
        async with ground(clears, config=config(path, old)) as here:
            first = await here.check(budget)
            assert first.verdict.reason == "greylisted"
            token = mint(here.engine.keys, claims(here, first.id))
        async with ground(clears, config=config(path, new, old)) as here:
            opened = open_token(here.engine.keys, token, here.clock())
            assert isinstance(opened, Claims)
            assert here.engine.keys.stands_for(opened.address, "shop", "jane@good.test")
            assert not here.engine.keys.stands_for(opened.address, "shop", "joe@good.test")
            assert (await here.latest(first.id)).reason == "greylisted"
            assert await here.later(80) == 1
            again = mint(here.engine.keys, claims(here, first.id))
        async with ground(clears, config=config(path, new)) as here:
            assert open_token(here.engine.keys, token, here.clock()) is TokenFault.INVALID
            assert isinstance(open_token(here.engine.keys, again, here.clock()), Claims)
    return here


def claims(here: Ground, check: str) -> Claims:
    """What a token says of jane."""
    mark = here.engine.keys.address_hash("shop", "jane@good.test")
    said = ("unknown", "greylisted", "allow", "live")
    return Claims("shop", check, mark, "", "", "", NOW, NOW + 300, *said)


ROWS = [
    row("O09", "the wall clock is set", Case("an hour ahead, two back", clock_is_set)),
    row("O13", "the master key is changed", Case("with an overlap", keys_rotate)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_own_side(row: Row, played: Played) -> None:
    played.passed(row)


# -- processes that end --------------------------------------------------------------------------


@contextmanager
def life(name: str, path: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """One of `lives`, and what it says."""
    command = [sys.executable, "-m", "tests.faults.lives", name, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child, child.stdout
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def told(name: str, path: Path) -> dict[str, Any]:
    """What a life has to say in the end."""
    with life(name, path) as (child, says):
        lines = says.read().splitlines()
        assert child.wait() == 0
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def test_O01_killed_between_a_verdict_and_its_webhook(tmp_path: Path) -> None:
    """Each job has ended and been followed by the next one, or neither."""
    path, chance = tmp_path / "gate.db", random.Random(1)
    kept: set[str] = set()
    for _ in range(KILLS):
        with life("settle", path) as (child, says):
            kept.add(json.loads(says.readline())["kept"])
            time.sleep(chance.uniform(0.05, 0.3))
            child.send_signal(signal.SIGKILL)
            whole = says.read().rpartition("\n")[0].splitlines()
            kept |= {json.loads(line)["kept"] for line in whole}

    async def left() -> dict[str, set[str]]:
        store, found = await opened(str(path)), {}
        for kind in (FIRST, SECOND):
            leases = await store.lease(kind, {"shop": 100_000}, now=NOW, until=NOW + 60)
            found[kind] = {lease.job.id.decode() for lease in leases}
        await store.close()
        return found

    found = asyncio.run(left())
    assert len(kept) > KILLS
    assert not found[FIRST] & found[SECOND], "both"
    assert kept <= found[FIRST] | found[SECOND], "neither"


def test_O02_killed_with_a_lease_in_hand(tmp_path: Path) -> None:
    """The job is taken up by the next process, and has one effect."""
    path = tmp_path / "gate.db"
    with life("hold", path) as (child, says):
        assert json.loads(says.readline()) == {"leased": ["one"]}
        child.send_signal(signal.SIGKILL)

    async def after() -> list[int]:
        store, effects = await opened(str(path)), []
        for _ in range(2):
            leases = await store.lease(FIRST, {"shop": 1}, now=NOW, until=NOW + 60)
            await store.settle([Settled(lease, Done()) for lease in leases])
            effects.append(len(leases))
        await store.close()
        return effects

    assert asyncio.run(after()) == [1, 0]


def test_O03_stopped_with_256_dialogues(tmp_path: Path) -> None:
    """Nobody new is taken, who waits is answered, and what has no verdict is asked again."""
    store = tmp_path / "gate.db"
    # A quarter of the places is kept for hosts that answer.
    limits = {"dialogues": 342, "site_dialogues": 342}
    config = served(store={"url": f"sqlite:{store}"}, limits=limits)
    reasons: list[str] = []

    async def ask(port: int, number: int) -> None:
        caller = Caller(port, SECRET)
        try:
            reasons.append((await caller.ask(f"u@{name_of(number)}", 2500))["reason"])
        finally:
            caller.close()

    async def main() -> float:
        async with world(1) as outside:
            with gate(outside.outside, config) as running:
                tasks = [asyncio.create_task(ask(running.port, number)) for number in range(256)]
                async with asyncio.timeout(20):
                    while outside.pits.accepted < 256:  # noqa: ASYNC110 - they tell nobody
                        await asyncio.sleep(0.01)
                seconds = await running.stop()
                await asyncio.gather(*tasks)
                with pytest.raises(OSError):
                    await asyncio.open_connection("127.0.0.1", running.port)
                return seconds

    assert uvloop.run(main()) <= STOP_MOST
    assert reasons == ["timeout"] * 256
    assert asyncio.run(waiting(f"sqlite:{store}")) == 256


async def waiting(url: str) -> int:
    """How many re-checks a store holds."""
    store = await open_store(url, wall=time.time, capacity=1)
    depth = await store.depth()
    await store.close()
    return depth.get((FIRST, False), 0)


def test_O04_the_disk_is_full(tmp_path: Path) -> None:
    """Verdicts are given and kept in memory; what must be on disk is said not to be."""
    found = told("full", tmp_path / "gate.db")
    assert set(found["said"]) == {"accepted_email"}
    assert found["dialogues"] <= 4
    assert found["forgotten"] is None, "DELETE /v1/subject is answered 503"
    assert found["over"] <= GRACE


def test_O05_the_disk_is_slow(tmp_path: Path) -> None:
    """Nobody waits for it: what is found is said, and what is promised only if it is kept."""
    found = told("slow", tmp_path / "gate.db")
    assert found["said"] == ["accepted_email"] * 3 + ["timeout"]
    assert found["over"] <= GRACE


def test_O06_the_file_is_damaged(tmp_path: Path) -> None:
    """It is refused with the way out, and the way leads out."""
    path = tmp_path / "gate.db"

    async def fill() -> None:
        store = await open_store(f"sqlite:{path}", wall=lambda: NOW, capacity=10)
        await store.claim(b"spent" * 4, expires=NOW + 300, value=b"x")
        for number in range(3000):
            await store.put(number.to_bytes(16, "big"), bytes(100), expires=NOW + 60)
        await store.close()

    asyncio.run(fill())
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * (size // 4))
    with pytest.raises(GateError, match="gate store recover"):
        asyncio.run(open_store(f"sqlite:{path}", wall=lambda: NOW, capacity=10))
    assert recover(path).damage

    async def works() -> bytes | None:
        store = await open_store(f"sqlite:{path}", wall=lambda: NOW, capacity=10)
        spent = await store.claim(b"spent" * 4, expires=NOW + 300)
        await store.close()
        return spent

    assert asyncio.run(works()) == b"x", "what was spent stays spent"


def test_O10_no_descriptor_is_left() -> None:
    """Nobody is let in and nobody can be dialled; it says so, does not spin, and recovers."""

    async def main() -> None:
        async with world(3) as outside:
            with gate(outside.outside, served()) as running:
                caller = Caller(running.port, SECRET)
                assert (await caller.ask(good(0)))["reason"] == "accepted_email"
                assert (await caller.ask(good(1)))["reason"] == "accepted_email"
                await caller.ask(f"u@{name_of(0)}", 300)  # its route is known by now
                with starved(running):
                    crowd = [
                        await asyncio.open_connection("127.0.0.1", running.port) for _ in range(20)
                    ]
                    before, started = running.processor(), time.monotonic()
                    for budget in (300, 1000, 5000):
                        began = time.monotonic()
                        reason = (await caller.ask(f"u2@{name_of(0)}", budget))["reason"]
                        assert reason in ("throttled", "dns_error", "timeout"), reason
                        assert time.monotonic() - began < budget / 1000 + GRACE + 0.5
                    await asyncio.sleep(max(0.0, started + 1 - time.monotonic()))
                    spent = running.processor() - before
                    assert spent < 0.6 * (time.monotonic() - started), "it spins"
                    for _, writer in crowd:
                        writer.transport.abort()
                other = Caller(running.port, SECRET)
                assert (await other.ask(good(2)))["reason"] == "accepted_email"
                other.close()
                caller.close()
                await running.stop()

    uvloop.run(main())


@contextmanager
def starved(running: Running) -> Iterator[None]:
    """It may have no descriptor more than it has."""
    before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (running.descriptors(), before[1]))
    try:
        yield
    finally:
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, before)


def test_O11_more_than_it_can_take() -> None:
    """The next one is turned away at once, and those inside are answered."""
    config = served(limits={"connections": 64})

    async def ask(port: int, number: int) -> str:
        caller = Caller(port, SECRET)
        try:
            return str((await caller.ask(f"u@{name_of(number)}", 2000))["reason"])
        finally:
            caller.close()

    async def main() -> None:
        async with world(1) as outside:
            with gate(outside.outside, config) as running:
                inside = [asyncio.create_task(ask(running.port, number)) for number in range(64)]
                async with asyncio.timeout(20):
                    while outside.pits.accepted < 64:  # noqa: ASYNC110 - they tell nobody
                        await asyncio.sleep(0.01)
                started = time.monotonic()
                with pytest.raises((Refused, OSError)):
                    await ask(running.port, 100)
                assert time.monotonic() - started < 1.0
                assert await asyncio.gather(*inside) == ["timeout"] * 64
                await running.stop()

    uvloop.run(main())


CONFIG = """
[server]
port = {port}
admin_port = 0
[store]
url = "memory:"
[dns]
servers = ["127.0.0.1:9"]
"""


def test_O12_changed_settings(tmp_path: Path) -> None:
    """SIGHUP ends nothing: it says whether a restart would do. What is in use stays."""
    file, port = tmp_path / "gate.toml", free_port()
    file.write_text(CONFIG.format(port=port))
    start = "import sys; from gate.cli import main; sys.exit(main(sys.argv[1:]))"
    gate = [sys.executable, "-c", start]
    child = subprocess.Popen(
        [*gate, "serve", "--config", str(file)], stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    try:
        said(child.stderr, "listening on")
        child.send_signal(signal.SIGHUP)
        said(child.stderr, "the settings are good")
        assert checked(gate, file) == (0, "the settings are good")
        file.write_text(CONFIG.format(port=port) + "[probe]\nbudget_ms = 'soon'\n")
        child.send_signal(signal.SIGHUP)
        assert "probe.budget_ms" in said(child.stderr, "the settings are not good")
        code, why = checked(gate, file)
        assert code == 2 and "probe.budget_ms" in why
        assert child.poll() is None
        assert subprocess.run(
            [sys.executable, "-c", ASK, str(port)], capture_output=True, check=True
        ).stdout.startswith(b"200")
        child.send_signal(signal.SIGTERM)
        assert child.wait(HTTP_STOP + 2) == 0
    finally:
        child.kill()
        child.wait()
        child.stderr.close()


ASK = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/healthz").status)
"""


def said(log: IO[str], words: str) -> str:
    """The next line of a log that holds these words."""
    for line in log:
        if words in line:
            return line
    raise AssertionError(f"never said: {words}")


def checked(gate: list[str], file: Path) -> tuple[int, str]:
    """What `gate settings --check` ends with and says."""
    done = subprocess.run(
        [*gate, "settings", "--check", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"GATE_CONFIG": ""},
    )
    return done.returncode, (done.stdout + done.stderr).strip()


# -- the shared store ------------------------------------------------------------------------------

MANY = {f"{who}_recipients_per_minute": 10_000 for who in ("domain", "destination", "network")}
SAID = {
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "out of memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "moved": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "another password": b"-NOAUTH Authentication required.\r\n",
    "a replica now": b"-READONLY You can't write against a read only replica.\r\n",
}


@pytest.mark.slow
def test_O07_redis_fails_in_every_way() -> None:
    """Checks are answered in time, claims are decided here, and soon all is well again."""
    users = [f"u{number}" for number in range(100)]
    names = iter(users)

    async def endure(here: Ground, what: str) -> None:
        for budget in BUDGETS:
            for _ in range(2):
                reason = await here.reason(budget, f"{next(names)}@good.test")
                assert reason == "accepted_email", f"{what}: {reason}"
        store, key = here.engine.store, what.encode().ljust(16)[:16]
        assert await store.claim(key, expires=here.clock() + 300) is None
        assert await store.claim(key, expires=here.clock() + 300) is not None, what

    async def well(here: Ground) -> None:
        async with asyncio.timeout(RECOVERY):
            while not here.engine.store.healthy:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)

    async def main(server: RedisServer) -> float:
        async with FaultyProxy(("127.0.0.1", server.port)) as proxy, LoopLag() as lag:
            config = settings(server.url_of(0, port=proxy.address[1]), webhooks=[], limits=MANY)
            async with ground(HostRules(users=users), config=config) as here:
                opened = asyncio.get_running_loop().time()
                await endure(here, "nothing")
                for what, answer in SAID.items():
                    proxy.faults = Faults(answer=answer)
                    await endure(here, what)
                    proxy.faults = Faults()
                    await well(here)
                server.send(signal.SIGSTOP)
                await endure(here, "stopped")
                server.send(signal.SIGCONT)
                await well(here)
                proxy.reset()
                await endure(here, "reset")
                await well(here)
                await proxy.down()
                await endure(here, "down")
                await proxy.up()
                await well(here)
                await endure(here, "in the end")
            return lag.worst(since=opened)

    with redis_server() as server:
        gc.freeze()  # as the server does, behind all that the tests have loaded
        lag = asyncio.run(main(server))
        gc.unfreeze()
    assert lag < STALL


def test_O08_a_late_answer_reaches_nobody() -> None:
    """Whoever asked is gone by then; the connection that it is on is not used again."""
    keys = [bytes([number]) * 16 for number in range(3)]

    async def main(server: RedisServer) -> None:
        async with FaultyProxy(("127.0.0.1", server.port)) as proxy:
            async with opened_store(server.url) as other:
                for key in keys:
                    await other.put(key, b"value of " + key, expires=NOW + 60)
            async with opened_store(server.url_of(0, port=proxy.address[1])) as store:
                assert await store.get(keys[0]) == b"value of " + keys[0]
                before = proxy.accepted
                proxy.faults = Faults(latency=1.0)
                asked = asyncio.create_task(store.get(keys[1]))
                await asyncio.sleep(0.03)
                asked.cancel()
                started = time.monotonic()
                assert await store.get(keys[2]) is None, "nobody waits for it"
                assert time.monotonic() - started < 0.5
                await store.put(b"x" * 16, b"x", expires=NOW + 60)
                await asyncio.sleep(1.2)  # the late answer comes
                proxy.faults = Faults()
                async with asyncio.timeout(RECOVERY):
                    while await store.get(keys[2]) is None:  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.05)
                for key in keys:
                    assert await store.get(key) == b"value of " + key
                assert proxy.accepted > before

    with redis_server() as server:
        asyncio.run(main(server))


@asynccontextmanager
async def opened_store(url: str) -> AsyncIterator[Store]:
    store = await open_store(url, wall=lambda: NOW, capacity=100)
    try:
        yield store
    finally:
        await store.close()


def test_O14_one_of_two_dies() -> None:
    """The other one goes on in time, and takes up what was promised and what was begun."""

    async def main(server: RedisServer) -> None:
        config = served(store={"url": server.url})
        async with world(8, greylist=60.0) as outside, AsyncExitStack() as stack:
            one, two = (stack.enter_context(gate(outside.outside, config)) for _ in range(2))
            first, second = Caller(one.port, SECRET), Caller(two.port, SECRET)
            assert (await first.ask(good(0)))["reason"] == "greylisted"
            os.kill(one.pid, signal.SIGKILL)
            with pytest.raises((OSError, Refused)):
                await first.ask(good(1))
            for number, budget in enumerate((300, 1000, 5000), 2):
                started = time.monotonic()
                assert (await second.ask(good(number), budget))["reason"] == "greylisted"
                assert time.monotonic() - started < budget / 1000 + GRACE
            second.close()
            await two.stop()

    async def lease(url: str) -> list[int]:
        """One takes a job and is never heard of again."""
        found = []
        async with opened_store(url) as gone, opened_store(url) as store:
            await gone.add([job(FIRST, "one")], within=5.0)
            for asker, now in ((gone, NOW), (store, NOW + 59), (store, NOW + 61), (gone, NOW + 61)):
                leases = await asker.lease(FIRST, {"shop": 9}, now=now, until=now + 60)
                found.append(len(leases))
        return found

    with redis_server() as server:
        uvloop.run(main(server))
        assert asyncio.run(waiting(server.url)) == 4
        assert asyncio.run(lease(server.url_of(1))) == [1, 0, 1, 0]
