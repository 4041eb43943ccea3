"""Thousands of slow clients, mute mail servers and bombs: memory, descriptors, the loop (R5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvloop

from tests.durability.domains import name_of
from tests.resources.crowd import BOMBS, Caller, Refused, Times, bomb, slow_clients, steadily
from tests.resources.process import SECRET, Running, gate, good, settings, world

MEMORY_MOST = 256
"""MiB (R5)."""
SHARE_MOST = 0.8
LAG_MOST = 0.05
REMEMBERED = [good(number) for number in range(20)]


@dataclass(slots=True)
class Peak:
    """The most that was seen of a gate."""

    memory: float = 0.0
    descriptors: int = 0

    async def watch(self, running: Running, every: float) -> None:
        """Look, until cancelled."""
        while True:
            self.memory = max(self.memory, running.memory())
            self.descriptors = max(self.descriptors, running.descriptors())
            await asyncio.sleep(every)


@asynccontextmanager
async def watched(running: Running, every: float) -> AsyncIterator[Peak]:
    peak = Peak()
    task = asyncio.create_task(peak.watch(running, every))
    try:
        yield peak
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def tarpits(
    port: int, number: int, seconds: float, *, first: int = 0
) -> AsyncIterator[list[str]]:
    """While held, so many checks hang at mail servers that never greet; the reasons they got."""
    reasons: list[str] = []

    async def hang(number: int) -> None:
        caller = Caller(port, SECRET)
        try:
            answer = await caller.ask(f"u@{name_of(number)}", int(seconds * 1000))
            reasons.append(answer["reason"])
        except (OSError, Refused) as error:
            reasons.append(repr(error))
        finally:
            caller.close()

    tasks = []
    try:
        for one in range(first, first + number):
            tasks.append(asyncio.create_task(hang(one)))
            await asyncio.sleep(0.002)
        yield reasons
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def remember(port: int) -> None:
    caller = Caller(port, SECRET)
    for email in REMEMBERED:
        assert (await caller.ask(email))["reason"] == "accepted_email"
    caller.close()


@dataclass(slots=True)
class Siege:
    """What a siege came to. Memory in MiB, times in seconds."""

    memory_before: float
    files_before: int
    peak: Peak
    limit: int
    cut: int
    bombed: int
    times: Times
    lag: float
    memory_after: float = 0.0
    files_after: int = 0
    calm: float = 0.0
    """Seconds until it was back."""

    def __str__(self) -> str:
        return (
            f"RSS {self.memory_before:.0f}, peak {self.peak.memory:.0f}, after "
            f"{self.memory_after:.0f} MiB; descriptors {self.files_before}, peak "
            f"{self.peak.descriptors} of {self.limit}, after {self.files_after}, "
            f"{self.calm:.0f} s later; {self.cut} slow clients cut; loop lag at worst "
            f"{self.lag * 1000:.0f} ms; {len(self.times.taken)} cached answers meanwhile, p99 "
            f"{self.times.quantile(0.99) * 1000:.1f} ms, {len(self.times.errors)} errors"
        )


async def besiege(
    *, clients: int, pits: int, seconds: float, calm: float, dialogues: int = 256
) -> Siege:
    """Everything at once for so many seconds, and so many at most to be back to what it was."""
    limits, rate = {"dialogues": dialogues, "site_dialogues": dialogues}, 20.0
    async with world(50) as outside:
        with gate(outside.outside, settings(limits=limits)) as running:
            await remember(running.port)
            await steadily(running.port, SECRET, REMEMBERED, rate, 0.5)
            memory, files = running.memory(), running.descriptors()
            bombed = 0
            async with watched(running, 0.1) as peak:
                async with (
                    slow_clients(running.port, clients) as crowd,
                    tarpits(running.port, pits, min(seconds, 9.0)),
                ):
                    asking = steadily(running.port, SECRET, REMEMBERED, rate, seconds)
                    steady = asyncio.create_task(asking)
                    while not steady.done():
                        some = [bomb(running.port, *kind, 4_000_000) for kind in BOMBS * 2]
                        bombed += sum(await asyncio.gather(*some))
                        await asyncio.sleep(0.2)
                    times = await steady
            siege = Siege(
                memory, files, peak, running.limit, crowd.cut, bombed, times, await running.lag()
            )
            over = time.monotonic()
            while time.monotonic() - over < calm and not _calm(siege, running):  # noqa: ASYNC110
                await asyncio.sleep(0.25)
            siege.calm = time.monotonic() - over
            assert _calm(siege, running), str(siege)
            await running.stop()
    return siege


def _calm(siege: Siege, running: Running) -> bool:
    """Whether it is back, but for what the heaps of Python and libc keep for the next time."""
    siege.memory_after, siege.files_after = running.memory(), running.descriptors()
    fewer = siege.files_after <= siege.files_before + 8
    return fewer and siege.memory_after <= 1.25 * siege.memory_before + 32


def hold(siege: Siege) -> None:
    """What is promised of it."""
    assert siege.peak.memory <= MEMORY_MOST, str(siege)
    assert siege.peak.descriptors <= SHARE_MOST * siege.limit, str(siege)
    assert siege.times.errors == [], str(siege)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_five_hundred_slow_clients_two_hundred_tarpits_and_bombs() -> None:
    siege = uvloop.run(besiege(clients=500, pits=200, seconds=4, calm=20))
    print(siege)
    hold(siege)
    assert siege.lag <= LAG_MOST, str(siege)


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_five_thousand_slow_clients_two_thousand_tarpits_and_bombs() -> None:
    """With the limits that are shipped: 256 of the checks are at their mail servers at a time."""
    lags = []
    for _ in range(2):  # once more where the machine was busy with something else
        siege = uvloop.run(besiege(clients=5000, pits=2000, seconds=60, calm=60))
        print(siege)
        hold(siege)
        lags.append(siege.lag)
        if siege.lag <= LAG_MOST:
            break
    assert min(lags) <= LAG_MOST, lags


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_with_two_thousand_dialogues_at_once_memory_and_descriptors_are_bounded_too() -> None:
    """Not what is shipped: a full collection of garbage has 230,000 objects to look at then."""
    siege = uvloop.run(besiege(clients=5000, pits=2000, seconds=30, calm=60, dialogues=2000))
    print(siege)
    hold(siege)
