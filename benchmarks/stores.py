"""What each kind of store costs: a look-up, a claim, a job; and a remembered check in front of it.

One process does each thing to a file (SQLite) and to a Redis server of its own on loopback, which
writes its append-only file each second, in rounds that alternate; the median counts. Look-ups are
of records that memory does not hold. *alone*: one after the other, what a caller waits; *64 at
once*: what each costs where many are asked for. Then a whole gate answers remembered checks over
HTTP with each store behind it, as in benchmarks/cached.py; every answer is in memory, and the store
is asked nothing.

    python -m benchmarks.stores [rounds]
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import uvloop
from msgspec import structs

from benchmarks import cached
from benchmarks.record import record
from gate import server
from gate.settings import StoreSettings
from gate.store import Done, Job, Settled, Store, open_store
from tests.ports import free_port
from tests.redisworld import redis_server

ROUNDS: Final = 5
RECORDS: Final = 2_000
ALONE: Final = 300
AT_ONCE: Final = 64
SECONDS: Final = 3
COMMAND: Final = (sys.executable, "-m", "benchmarks.stores")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = await open_store(url, wall=time.time, capacity=2)
    try:
        yield store
    finally:
        await store.close()


def keys(count: int, mark: int) -> list[bytes]:
    return [mark.to_bytes(8, "big") + number.to_bytes(8, "big") for number in range(count)]


def job(key: bytes) -> Job:
    now = time.time()
    return Job("bench", key, "lane", key, bytes(300), now, now, now + 900, now + 1800)


async def each(calls: list[Callable[[], Awaitable[object]]], at_once: int) -> float:
    """Microseconds for each of these."""
    started = time.perf_counter()
    for at in range(0, len(calls), at_once):
        if at_once == 1:
            await calls[at]()
        else:
            await asyncio.gather(*(call() for call in calls[at : at + at_once]))
    return (time.perf_counter() - started) / len(calls) * 1e6


async def one_round(url: str) -> dict[str, float]:
    """Every figure once."""
    later, mark = time.time() + 900, time.time_ns()
    names, found = keys(RECORDS, mark), {}
    async with opened(url) as store:
        await store.begin(time.time())
        for name in names:
            await store.put(name, bytes(60), expires=later)
    async with opened(url) as store:
        gets = [partial(store.get, name) for name in names]
        found["look-up, alone"] = await each([*gets[:ALONE]], 1)
        found["look-up, 64 at once"] = await each([*gets[ALONE:]], AT_ONCE)
        claims = [partial(store.claim, name, expires=later) for name in names]
        found["claim, alone"] = await each([*claims[:ALONE]], 1)
        found["claim, 64 at once"] = await each([*claims[ALONE:]], AT_ONCE)
        adds = [partial(store.add, [job(name)], within=5.0) for name in names]
        found["job added, alone"] = await each([*adds[:ALONE]], 1)
        found["job added, 64 at once"] = await each([*adds[ALONE:]], AT_ONCE)
        started = time.perf_counter()
        while leases := await store.lease(
            "bench", {"lane": AT_ONCE}, now=time.time(), until=time.time() + 60
        ):
            settles = (store.settle([Settled(lease, Done())]) for lease in leases)
            assert all(await asyncio.gather(*settles))
        found["job leased by 64 and settled"] = (time.perf_counter() - started) / RECORDS * 1e6
    return found


def serve(port: int, url: str) -> None:
    """A gate as in benchmarks/cached.py, with this store."""
    chosen = structs.replace(cached.settings(port), store=StoreSettings(url))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.run(chosen, opener=cached.remembering))


@contextmanager
def serving(url: str, folder: Path) -> Iterator[cached.Running]:
    port, log = free_port(), folder / "log"
    with log.open("ab") as lines:
        process = subprocess.Popen(
            [*COMMAND, "serve", str(port), url],
            stderr=lines,
            preexec_fn=lambda: os.sched_setaffinity(0, cached.cores()[:1]),
        )
    try:
        cached._wait_for_answer(process, port)
        yield cached.Running(process, port, log)
    finally:
        process.terminate()
        process.wait(15)


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), sys.argv[3])
        return 0
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    costs: dict[str, dict[str, list[float]]] = {}
    checks: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        redis_server("--appendonly", "yes", "--appendfsync", "everysec") as redis,
    ):
        folder = Path(name)
        for turn in range(rounds):
            places = {
                "memory": "memory:",
                "sqlite": f"sqlite:{folder / f'{turn}.db'}",
                "redis": redis.url,
            }
            for kind, url in places.items():
                if kind != "memory":
                    for what, micros in uvloop.run(one_round(url)).items():
                        costs.setdefault(what, {}).setdefault(kind, []).append(micros)
                with serving(url, folder) as running:
                    lua = cached.script(folder, many=True)
                    cached.measure(running, lua, 1)
                    speed = cached.measure(running, lua, SECONDS).per_second
                checks.setdefault(kind, []).append(speed)
    print(f"{'µs each':32} {'sqlite':>9} {'redis':>9}")
    for what, of in costs.items():
        print(f"{what:32} {median(of['sqlite']):9,.0f} {median(of['redis']):9,.0f}")
    print(f"\n{'remembered checks a second':32} {'req/s':>9} {'× memory':>9}")
    base = median(checks["memory"])
    for kind, speeds in checks.items():
        print(f"{kind:32} {median(speeds):9,.0f} {median(speeds) / base:9.2f}")
    record("stores", promises={}, figures={"µs": costs, "checks a second": checks})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
