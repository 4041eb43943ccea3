"""The queue in SQL and the queue in Lua are one queue: whatever is done, both say the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from gate.store import Again, Buried, Done, Job, Lease, Settled, Store, open_store
from gate.testing import FakeClock
from tests.contract.conftest import Place

NOW: Final = 1_800_000_000.0
STEPS: Final = 400
KINDS: Final = ("recheck", "webhook")
LANES: Final = ("shop", "blog", "sold")
OPEN: Final = ("shop", "blog")
EVERY: Final = 10**6


@dataclass
class Life:
    """What is done to the stores, at random; `held`: leases that may have been lost since."""

    chance: random.Random
    now: float = NOW
    held: list[Lease] = field(default_factory=list)
    number: int = 0

    def job(self) -> Job:
        pick = self.chance
        # A part of the ids comes again, and a part of the due times is the same.
        self.number += pick.random() < 0.8
        due = self.now + pick.choice([0.0, 0.25, 7.125, 90.0, pick.random() * 300])
        return Job(
            kind=pick.choice(KINDS),
            id=b"\x00:%d" % self.number,
            lane=pick.choice(LANES),
            subject=b"\xff:%d" % pick.randrange(40),
            payload=pick.randbytes(pick.randrange(300)),
            due=due,
            made=self.now - pick.random(),
            expires=self.now + pick.uniform(50, 2000),
            forgotten=self.now + pick.uniform(50, 3000),
        )

    def jobs(self, most: int) -> list[Job]:
        return [self.job() for _ in range(self.chance.randrange(most + 1))]

    def settled(self) -> list[Settled]:
        leases = self.chance.sample(self.held, min(len(self.held), self.chance.randrange(1, 4)))
        return [Settled(lease, self.outcome()) for lease in leases]

    def outcome(self) -> Done | Again | Buried:
        pick = self.chance
        again = Again(self.now + pick.random() * 60, pick.random() < 0.5, pick.choice(["", "503"]))
        buried = Buried("gave up", "é", pick.random() < 0.5)
        outcomes: list[Done | Again | Buried] = [Done(), again, again, buried]
        return pick.choice(outcomes)

    def step(self) -> Callable[[Store], Awaitable[Any]]:
        """Something to be done to each store."""
        pick, now, kind = self.chance, self.now, self.chance.choice(KINDS)
        until = now + pick.choice([1.0, 30.0, 60.5])
        room = {lane: pick.randrange(-1, 6) for lane in pick.sample(LANES, 2)}
        subject = b"\xff:%d" % pick.randrange(40)
        jobs, settled, again = self.jobs(6), self.settled(), self.job()
        ids = [b"\x00:%d" % pick.randrange(self.number + 1) for _ in range(3)]
        some = pick.choice([[], ids])
        steps: list[tuple[int, Callable[[Store], Awaitable[Any]]]] = [
            (6, lambda store: store.add(jobs, within=5.0)),
            (6, lambda store: store.lease(kind, room, now=now, until=until)),
            (3, lambda store: store.lease_subject(kind, subject, now=now, until=until)),
            (6, lambda store: store.settle(settled, jobs[:2])),
            (1, lambda store: store.tidy(kind, OPEN, now=now)),
            (1, lambda store: store.replay(kind, some, again)),
            (1, lambda store: store.erase([], subjects=[subject], ids=[(kind, ids[0])])),
        ]
        (chosen,) = pick.choices(steps, [weight for weight, _ in steps])
        return chosen[1]


def plain(found: Any) -> Any:
    """An answer, without the order that nobody promises."""
    return sorted(found, key=repr) if isinstance(found, list) else found


async def seen(store: Store) -> list[Any]:
    """All that can be seen of a store's jobs."""
    found: list[Any] = [await store.depth()]
    for kind in KINDS:
        found.append(await store.dues(kind, LANES))
        found.append(await store.subjects(kind))
        found.append(plain(await store.letters(kind, EVERY)))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_both_say_the_same(place: Place, seed: int) -> None:
    async def main() -> None:
        clock = FakeClock(NOW)
        kinds = ("memory", "redis")
        sql, lua = [await open_store(place(kind), wall=clock, capacity=10) for kind in kinds]
        try:
            await both(sql, lua, Life(random.Random(seed)))
        finally:
            await sql.close()
            await lua.close()

    asyncio.run(main())


async def both(one: Store, other: Store, life: Life) -> None:
    """Do the same to both, and compare."""
    stores = (one, other)
    for number in range(STEPS):
        step = life.step()
        sql, lua = [plain(await step(store)) for store in stores]
        assert sql == lua, f"step {number}"
        if isinstance(sql, list):
            life.held += [lease for lease in sql if isinstance(lease, Lease)]
            life.held = life.held[-60:]
        if number % 5 == 0:
            assert await seen(one) == await seen(other), f"after step {number}"
        if number == STEPS // 2:
            life.now -= 1000.0
            for store in stores:
                await _restarted(store, life.now)
        life.now += life.chance.choice([0.0, 0.0, 0.5, 3.0, 40.0])
    assert {dead for _, dead in await one.depth()} == {True, False}, "it shows nothing"


async def _restarted(store: Store, now: float) -> None:
    """A restart, with a clock that was set back. What is leased then is another matter: it is given
    back by one, and in Redis it ends by itself.
    """
    await store.erase([], subjects=[b"\xff:%d" % number for number in range(40)])
    await store.begin(now)
