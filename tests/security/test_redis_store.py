"""The threats to a store that several gates share: G2, k-7, L1, L5, J2, and redis-py's lesson."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from gate.budget import STORE_OPEN, STORE_RETRY
from gate.cli import main as cli
from gate.settings import Settings
from gate.store import Store
from gate.testing.proxy import Faults, FaultyProxy
from tests.redisworld import RedisServer, opened, redis_server
from tests.resources.crowd import Caller, Refused
from tests.resources.process import SECRET, Running, gate, good, settings, world
from tests.security.test_m_lessons import crossed

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
RACE = 100
BUDGET, GRACE = 0.8, 0.1
ROUNDS = {0.0: 200, 0.02: 40, 0.1: 12}
"""Rounds of 32 callers, by the seconds that the network takes each way."""
RECOVERY_MOST = 5.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server(*DURABLE) as running:
        yield running


def config(server: RedisServer) -> Settings:
    return settings(store={"url": server.url})


# -- G2, R8: two processes, one token --------------------------------------------------------------


async def spend(port: int, token: str) -> str:
    """What siteverify of one of the gates says of a token."""
    caller = Caller(port, SECRET)
    try:
        said = await caller.post("/v1/siteverify", {"secret": SECRET, "response": token})
        return "success" if said["success"] else str(said["error-codes"][0])
    finally:
        caller.close()


async def _raced(server: RedisServer, times: int) -> tuple[list[Counter[str]], float]:
    """What a hundred callers of two gates hear of each token, and the seconds that took."""
    heard, started = [], 0.0
    async with world(times + 2) as outside:
        with (
            gate(outside.outside, config(server)) as one,
            gate(outside.outside, config(server)) as other,
        ):
            caller = Caller(one.port, SECRET)
            tokens = [(await caller.ask(good(number)))["token"] for number in range(times)]
            caller.close()
            started = time.monotonic()
            for token in tokens:
                ports = [(one.port, other.port)[number % 2] for number in range(RACE)]
                heard.append(Counter(await asyncio.gather(*(spend(p, token) for p in ports))))
    return heard, time.monotonic() - started


def test_G2__a_token_is_spent_once_at_two_gates_with_one_redis(server: RedisServer) -> None:
    """R8: a hundred at once, half of them at each."""
    heard, _ = uvloop.run(_raced(server, 5))
    assert heard == [Counter({"timeout-or-duplicate": RACE - 1, "success": 1})] * 5


# -- k-7, and the lesson of redis-py ---------------------------------------------------------------


@pytest.mark.parametrize("latency", ROUNDS, ids=["at once", "20 ms", "100 ms each way"])
def test_k7__a_cancelled_call_to_redis_leaves_its_answer_to_nobody(
    server: RedisServer, latency: float
) -> None:
    assert uvloop.run(_left(server, ROUNDS[latency], latency)) == 0


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_k7__ten_thousand_calls_to_redis_are_cancelled(server: RedisServer) -> None:
    assert uvloop.run(_left(server, 10_000 // 32, 0.02)) == 0
    assert uvloop.run(_left(server, 10_000 // 32, 0.1)) == 0


def test_M_redis__a_caller_who_leaves_redis_leaves_nothing(server: RedisServer) -> None:
    assert asyncio.run(crossed(server.url, 300)) == 0


async def _left(server: RedisServer, rounds: int, latency: float) -> int:
    """How many of 32 callers at a time, half of whom leave at any moment, heard another's value.

    The store's memory holds two records: nearly every answer has to come over the wire.
    """
    dice, foreign, heard = random.Random(7), 0, 0
    keys = {number: number.to_bytes(16, "big") for number in range(400)}
    async with opened(server.url) as writer:
        for number, key in keys.items():
            await writer.put(key, b"canary-%d" % number, expires=time.time() + 900)
    async with (
        FaultyProxy(("127.0.0.1", server.port)) as proxy,
        opened(server.url_of(0, port=proxy.address[1]), capacity=2) as store,
    ):
        proxy.faults = Faults(latency=latency)
        for turn in range(rounds):
            numbers = dice.sample(sorted(keys), 32)
            tasks = [asyncio.create_task(_call(store, keys[n], n, turn)) for n in numbers]
            leaving = dice.sample(tasks, 16)
            for task in leaving:
                await asyncio.sleep(dice.random() * 2.5 * latency / 16)
                task.cancel()
            told = await asyncio.gather(*tasks, return_exceptions=True)
            for number, answer in zip(numbers, told, strict=True):
                if isinstance(answer, bytes):
                    heard += 1
                    foreign += answer not in (b"canary-%d" % number, b"claim-%d" % number)
    assert heard > rounds, "nobody was told anything: it shows nothing"
    return foreign


async def _call(store: Store, key: bytes, number: int, turn: int) -> bytes | None:
    """Read, or claim what everybody claims with the same value; two of three read."""
    if (number + turn) % 3:
        return await store.get(key)
    return await store.claim(key, expires=time.time() + 900, value=b"claim-%d" % number)


# -- L1: what was promised -------------------------------------------------------------------------


def test_L1__what_redis_was_promised_outlives_its_kill(server: RedisServer) -> None:
    """Five kills in the middle of the claims: whoever was told that it is his, has it."""

    async def life(number: int) -> list[bytes]:
        won = []
        async with opened(server.url) as store:
            for claim in range(400):
                key = b"%d/%d" % (number, claim)
                assert await store.claim(key, expires=time.time() + 900, value=b"me") is None
                if not store.healthy:
                    break
                won.append(key)
                if claim == 100 + 40 * number:
                    server.stop(signal.SIGKILL)
        return won

    async def kept(keys: list[bytes]) -> int:
        async with opened(server.url) as store:
            ask = (store.claim(key, expires=time.time() + 900, value=b"late") for key in keys)
            return (await asyncio.gather(*ask)).count(b"me")

    for number in range(5):
        won = asyncio.run(life(number))
        server.start()
        # The last one was decided in memory when the server fell silent, perhaps.
        assert asyncio.run(kept(won[:-1])) == len(won) - 1 >= 100


# -- L5 --------------------------------------------------------------------------------------------


def test_L5__a_redis_that_evicts_is_refused_at_the_start(
    server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    file = tmp_path / "gate.toml"
    file.write_text(f'[store]\nurl = "{server.url}"\n[dns]\nservers = ["127.0.0.1:9"]\n')
    assert cli(["serve", "--config", str(file)]) == 2
    assert "maxmemory-policy noeviction" in capsys.readouterr().err


class Crowd:
    """Callers of a gate, some of new addresses and one of a remembered one."""

    def __init__(self, running: Running, known: str) -> None:
        self._running = running
        self._known = known
        self._number = 10
        self.answers: Counter[str] = Counter()
        self.errors: list[str] = []
        self.over = -BUDGET

    async def for_seconds(self, seconds: float) -> None:
        """Ask all the time; statuses that are not 200 are errors."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._ask(until, number) for number in range(4)))

    async def _ask(self, until: float, number: int) -> None:
        caller = Caller(self._running.port, SECRET)
        while time.monotonic() < until:
            self._number += 1
            email = self._known if number == 0 else good(self._number % 400)
            started = time.monotonic()
            try:
                answer = await caller.ask(email, int(BUDGET * 1000))
                self.over = max(self.over, time.monotonic() - started - BUDGET)
                self.answers[answer["reason"]] += 1
                said = await caller.post(
                    "/v1/siteverify", {"secret": SECRET, "response": answer["token"]}
                )
                assert said["success"], said
            except (OSError, Refused) as error:
                self.errors.append(repr(error))
            await asyncio.sleep(0.02)
        caller.close()

    async def healthy(self) -> float:
        """Seconds until the gate says that its store is well."""
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._running.port)
        async with asyncio.timeout(30):
            while True:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                if b'"store":"ok"' in (await reader.readexactly(length)).replace(b" ", b""):
                    break
                await asyncio.sleep(0.05)
        writer.transport.abort()
        return time.monotonic() - started


async def _outage(
    server: RedisServer, seconds: float, begun: asyncio.Barrier, *, silent: bool
) -> None:
    """Silent or killed for so long; traffic all the time, from when all gates are up (R6)."""
    async with world(500) as outside:
        with gate(outside.outside, config(server)) as running:
            await begun.wait()
            first = Caller(running.port, SECRET)
            assert (await first.ask(good(0)))["reason"] == "accepted_email"
            first.close()
            crowd = Crowd(running, good(0))
            if silent:
                server.send(signal.SIGSTOP)
            else:
                server.stop()
            await crowd.for_seconds(seconds)
            if silent:
                server.send(signal.SIGCONT)
            else:
                server.start()
            back = await crowd.healthy()
            print(f"no Redis for {seconds:.0f} s: {crowd.answers.total()} checks, ", end="")
            print(f"{len(crowd.errors)} errors, back after {back:.1f} s")
            assert back <= RECOVERY_MOST
            assert crowd.errors == []
            assert crowd.over <= GRACE
            assert set(crowd.answers) == {"accepted_email"}


async def _outages(one: RedisServer, other: RedisServer, seconds: float) -> None:
    """Both at once, each at a gate and a server of its own."""
    begun = asyncio.Barrier(2)
    await asyncio.gather(
        _outage(one, seconds, begun, silent=True), _outage(other, seconds, begun, silent=False)
    )


def test_L5__redis_down_or_silent_is_noticed_by_no_caller(server: RedisServer) -> None:
    with redis_server(*DURABLE) as other:
        uvloop.run(_outages(server, other, STORE_RETRY + STORE_OPEN))


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_L5__redis_down_for_half_a_minute(server: RedisServer) -> None:
    """R6."""
    with redis_server(*DURABLE) as other:
        uvloop.run(_outages(server, other, 30.0))


# -- J2: what is in it -----------------------------------------------------------------------------


def test_J2__no_address_is_in_redis(server: RedisServer) -> None:
    """A file of everything that was ever written there, and the log."""

    async def main() -> None:
        async with world(2, greylist=60.0) as outside:
            with gate(outside.outside, config(server)) as running:
                caller = Caller(running.port, SECRET)
                answer = await caller.ask(good(0, "u-canary-7f3a"))
                assert answer["reason"] == "greylisted", "and so it waits to be asked about again"
                caller.close()

    uvloop.run(main())
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    assert sum(b"gate:job:" in path.read_bytes() for path in files) == 1
    assert not any(b"canary" in path.read_bytes() for path in files)
