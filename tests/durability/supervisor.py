"""Kill a gate again and again, and hold what it promised against what arrived (promise R2).

    python -m tests.durability.supervisor 1000

The mail hosts, the name servers and the receiver live here and outlast every kill. The receiver
refuses one message in ten, answers some only after the gate may be dead, and counts every message.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from gate.store import open_store
from gate.testing import FakeZones, HostRules, MailHost
from tests.durability.domains import Everybody, plan
from tests.durability.life import HOOK_IP, Plan, live
from tests.lateworld import OK, Answering, Received, Receiver, status

DOMAINS = 2000
GREYLIST = 0.3
SHORTEST, LONGEST = 0.05, 0.7
"""Seconds that a life lasts, counted from when its process is started."""
DRAIN = 20.0
"""The last life ends by itself, or when nothing has arrived for so many seconds."""


@dataclass(slots=True)
class Tally:
    """What came of it."""

    kills: int
    promised: int
    lost: list[str]
    messages: int
    duplicates: int
    with_two_ids: int
    seconds: float
    left: Mapping[tuple[str, bool], int]
    """What the store still holds: by kind, waiting and (True) given up."""

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.promised} acknowledged re-checks, {len(self.lost)} lost; "
            f"{self.messages} messages arrived, {self.duplicates} of them again, "
            f"{self.with_two_ids} checks under two ids; left in the store: {dict(self.left)}; "
            f"{self.seconds:.0f} s"
        )


async def survive(kills: int, directory: Path, seed: int = 1) -> Tally:
    """So many lives, then one that ends by itself when nothing waits any more."""
    chance, started = random.Random(seed), time.monotonic()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.durability.life", "tests.lateworld"])
    hook = Receiver(_moody(chance), name="hook.test", tls=False)
    async with AsyncExitStack() as stack:
        rules = HostRules(users=Everybody(), greylist=GREYLIST)
        host = await stack.enter_async_context(MailHost(rules, history=10))
        zones = FakeZones({"hook.test": f"A {HOOK_IP}", **plan(DOMAINS)})
        await stack.enter_async_context(zones)
        await stack.enter_async_context(hook)
        life = Plan(
            store=str(directory / "gate.db"),
            acks=str(directory / "acks"),
            base=time.time(),
            dns=zones.server,
            hook=hook.address,
            mail=host.address,
            domains=DOMAINS,
        )
        for _ in range(kills):
            process = context.Process(target=live, args=(life,))
            process.start()
            await asyncio.sleep(chance.uniform(SHORTEST, LONGEST))
            assert process.pid is not None and process.exitcode is None, "it ended by itself"
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.join)
            process.close()
        life.drain = True
        process = context.Process(target=live, args=(life,))
        process.start()
        before = -1
        while process.exitcode is None and len(hook.received) > before:
            before = len(hook.received)
            await asyncio.to_thread(process.join, DRAIN)
        if process.exitcode is None:
            process.kill()
            await asyncio.to_thread(process.join)
        tally = _tally(kills, directory / "acks", hook, time.monotonic() - started)
        store = await open_store(f"sqlite:{life.store}", wall=time.time, capacity=1)
        tally.left = await store.depth()
        await store.close()
        return tally


def _moody(chance: random.Random) -> Answering:
    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        mood = chance.random()
        if mood < 0.1:
            await status(503)(request, writer)
            return
        if mood < 0.2:
            await asyncio.sleep(0.05)  # long enough to be killed in
        await OK(request, writer)

    return answer


def _tally(kills: int, acks: Path, hook: Receiver, seconds: float) -> Tally:
    # What was cut off in the middle of a line was not said.
    promised = acks.read_text().rpartition("\n")[0].split() if acks.exists() else []
    told: dict[str, list[str]] = defaultdict(list)
    for request in hook.received:
        told[request.data["check"]].append(request.id)
    return Tally(
        kills=kills,
        promised=len(promised),
        lost=[check for check in promised if check not in told],
        messages=len(hook.received),
        duplicates=sum(len(ids) - 1 for ids in told.values()),
        with_two_ids=sum(len(set(ids)) > 1 for ids in told.values()),
        seconds=seconds,
        left={},
    )


def main() -> int:
    """As many kills as the first argument says; exit 1 when something was lost."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as directory:
        tally = asyncio.run(survive(kills, Path(directory), seed=int(time.time())))
    print(tally)
    return 1 if tally.lost or tally.with_two_ids else 0


if __name__ == "__main__":
    sys.exit(main())
