"""Programs that are killed, starved or slowed down: each is a process of its own.

    python -m tests.faults.lives NAME FILE

They say what they do in lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gate.address import parse
from gate.budget import STORE_RETRY
from gate.store import Done, Job, Settled, Store, open_store
from gate.store.file import StoreFile
from gate.testing import HostRules
from tests.faults.ground import BUDGETS, ground
from tests.lateworld import NOW, settings

SLOW = 2.0
"""Seconds that a slow disk takes for each write."""
FIRST, SECOND = "recheck", "webhook"
"""A job, and the one that follows from it."""


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def job(kind: str, name: str) -> Job:
    """One that is due."""
    return Job(
        kind=kind,
        id=name.encode(),
        lane="shop",
        subject=name.encode(),
        payload=b"",
        due=NOW,
        made=NOW,
        expires=NOW + 3600,
        forgotten=NOW + 7200,
    )


async def opened(path: str) -> Store:
    store = await open_store(f"sqlite:{path}", wall=lambda: NOW, capacity=100)
    await store.begin(NOW)
    return store


async def settle(path: str) -> None:
    """Take jobs and end each with the one that follows, until killed."""
    store, number = await opened(path), 0
    while True:
        name = f"{os.getpid()}-{number}"
        await store.add([job(FIRST, name)], within=5.0)
        say(kept=name)
        for lease in await store.lease(FIRST, {"shop": 1}, now=NOW, until=NOW + 60):
            await store.settle([Settled(lease, Done())], [job(SECOND, lease.job.id.decode())])
        number += 1


async def hold(path: str) -> None:
    """Lease a job and never end it."""
    store = await opened(path)
    await store.add([job(FIRST, "one")], within=5.0)
    leases = await store.lease(FIRST, {"shop": 1}, now=NOW, until=NOW + 60)
    say(leased=[lease.job.id.decode() for lease in leases])
    await asyncio.sleep(60)


async def full(path: str) -> None:
    """Ask while no file of this process can grow any more, and when that is over."""
    users = [f"u{number}" for number in range(8)]
    config = settings(f"sqlite:{path}", webhooks=[])
    async with ground(HostRules(users=users), config=config) as here:
        said = [await here.reason(5.0, "u0@good.test")]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = max(file.stat().st_size for file in Path(path).parent.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        for number, budget in enumerate(BUDGETS, 1):
            said += [await here.reason(budget, f"u{number}@good.test") for _ in range(2)]
        store = here.engine.store
        await _until(lambda: not store.healthy)
        address = parse("u1@good.test")
        forgotten = await here.engine.rechecks.forget(address, here.engine.sites[0])  # type: ignore[arg-type]
        dialogues = here.hosts[0].accepted
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await _until(lambda: store.healthy)
    say(said=said, forgotten=forgotten, dialogues=dialogues, over=here.worst)


async def slow(path: str) -> None:
    """Ask while every write takes two seconds."""
    write = StoreFile.write

    def slowly(self: StoreFile, *args: object) -> object:
        time.sleep(SLOW)
        return write(self, *args)  # type: ignore[arg-type]

    users = [f"u{number}" for number in range(8)]
    config = settings(f"sqlite:{path}", webhooks=[])
    rules = HostRules(users=users, mailboxes={"grey": "451 4.7.1 Greylisted"})
    async with ground(rules, config=config) as here:
        StoreFile.write = slowly  # type: ignore[assignment]
        said = []
        for number, budget in enumerate(BUDGETS):
            said.append(await here.reason(budget, f"u{number}@good.test"))
        said.append(await here.reason(BUDGETS[0], "grey@good.test"))
        StoreFile.write = write  # type: ignore[method-assign]
    say(said=said, over=here.worst)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10 * STORE_RETRY):
        while not true():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)


LIVES: dict[str, Callable[[str], Awaitable[None]]] = {
    "settle": settle,
    "hold": hold,
    "full": full,
    "slow": slow,
}

if __name__ == "__main__":
    asyncio.run(LIVES[sys.argv[1]](sys.argv[2]))  # type: ignore[arg-type]
