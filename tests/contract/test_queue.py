"""What every queue promises, held against each kind of store."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gate.store import Again, Buried, Done, Job, Kept, Settled, Store, open_store
from gate.store.queue import EXPIRED, LANE_MOST, POISON, UNKNOWN_LANE, WORN_OUT
from gate.testing import FakeClock
from tests.contract.conftest import KINDS, Place

NOW = 1_800_000_000.0
HOUR = 3600.0
ALL = {"shop": 100, "blog": 100}

Body = Callable[[Store], Awaitable[None]]
With = Callable[[Body], None]


@pytest.fixture(params=KINDS)
def with_store(request: pytest.FixtureRequest, place: Place) -> With:
    """Run an async body with an open store of each kind."""
    url = place(request.param)

    def run(body: Body) -> None:
        async def main() -> None:
            store = await open_store(url, wall=FakeClock(NOW), capacity=1000)
            try:
                await store.begin(NOW)
                await body(store)
            finally:
                await store.close()

        asyncio.run(main())

    return run


def job(
    name: str, *, due: float = NOW, lane: str = "shop", subject: str = "", kind: str = "k"
) -> Job:
    return Job(
        kind=kind,
        id=name.encode(),
        lane=lane,
        subject=(subject or name).encode(),
        payload=name.encode() * 2,
        due=due,
        made=NOW,
        expires=NOW + 24 * HOUR,
        forgotten=NOW + 48 * HOUR,
    )


async def add(store: Store, *jobs: Job) -> None:
    assert await store.add(jobs, within=5.0)


async def names(store: Store, now: float, room: dict[str, int] | None = None) -> list[str]:
    """What can be leased at a moment."""
    leases = await store.lease("k", room or ALL, now=now, until=now + 60)
    return sorted(lease.job.id.decode() for lease in leases)


def test_a_job_comes_back_as_it_was_given_and_not_before_it_is_due(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a", due=NOW + 10))
        assert await store.dues("k", ALL) == {"shop": NOW + 10}
        assert await names(store, NOW + 9.9) == []
        (lease,) = await store.lease("k", ALL, now=NOW + 10, until=NOW + 70)
        assert (lease.job, lease.attempts) == (job("a", due=NOW + 70), 0)
        assert await store.settle([Settled(lease, Done())])
        assert await names(store, NOW + HOUR) == []
        assert await store.dues("k", ALL) == {}

    with_store(body)


def test_the_same_id_twice_is_one_job(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a"), job("a", due=NOW + 5), job("a", kind="other"))
        await add(store, job("a"))
        assert await names(store, NOW) == ["a"]
        assert await store.depth() == {("k", False): 1, ("other", False): 1}

    with_store(body)


def test_who_holds_a_lease_is_alone_until_it_ends(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a"))
        (first,) = await store.lease("k", ALL, now=NOW, until=NOW + 60)
        assert await names(store, NOW + 59) == []
        (second,) = await store.lease("k", ALL, now=NOW + 60, until=NOW + 120)
        assert not await store.settle([Settled(first, Done())]), "it came too late"
        assert not await store.settle([Settled(first, Again(NOW + 60))])
        assert await store.settle([Settled(second, Done())])
        assert not await store.settle([Settled(second, Done())]), "once"

    with_store(body)


def test_a_settlement_is_all_or_nothing(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a"), job("b"))
        a, b = await store.lease("k", ALL, now=NOW, until=NOW + 60)
        assert await store.settle([Settled(a, Done())])
        both = [Settled(b, Done()), Settled(a, Done())]
        record = {b"r" * 16: Kept(b"verdict", NOW + HOUR)}
        assert not await store.settle(both, [job("follows")], record)
        assert await store.get(b"r" * 16) is None
        assert await names(store, NOW + 60) == ["b"]
        (b,) = await store.lease("k", ALL, now=NOW + 120, until=NOW + 180)
        assert await store.settle([Settled(b, Done())], [job("follows")], record)
        assert await store.get(b"r" * 16) == b"verdict"
        assert await names(store, NOW + 120) == ["follows"]

    with_store(body)


def test_again_counts_attempts_unless_told_otherwise(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a"))
        for counts, attempts in ((True, 0), (False, 1), (True, 1), (True, 2)):
            (lease,) = await store.lease("k", ALL, now=NOW, until=NOW + 60)
            assert lease.attempts == attempts
            assert await store.settle([Settled(lease, Again(NOW, counts=counts))])

    with_store(body)


def test_jobs_of_one_subject_are_leased_together(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(
            store,
            job("a", subject="jane"),
            job("b", subject="jane", due=NOW + HOUR),
            job("c", subject="joe", due=NOW + HOUR),
        )
        assert await store.subjects("k") == {b"jane", b"joe"}
        assert await names(store, NOW) == ["a", "b"]
        await add(store, job("d", subject="jane"))
        held = await store.lease_subject("k", b"jane", now=NOW, until=NOW + 60)
        assert [lease.job.id for lease in held] == [b"d"], "the others are somebody's"

    with_store(body)


def test_each_lane_has_its_own_room(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, *(job(f"s{n}", due=NOW - 50 + n) for n in range(9)))
        await add(store, job("b0", lane="blog"), job("x0", lane="unknown"))
        assert await names(store, NOW, {"shop": 2, "blog": 5}) == ["b0", "s0", "s1"]
        assert await names(store, NOW, {"shop": 0, "blog": 5}) == []
        assert await store.dues("k", ["blog", "none"]) == {"blog": NOW + 60}

    with_store(body)


def test_a_job_that_is_never_settled_is_buried(with_store: With) -> None:
    """L2: whatever it does to its worker, it does so POISON times."""

    async def body(store: Store) -> None:
        await add(store, job("poison"), job("good", due=NOW + HOUR))
        now = NOW
        for _ in range(POISON):
            assert await names(store, now) == ["poison"]
            now += 61
        assert await names(store, now) == []
        (letter,) = await store.letters("k", 10)
        assert (letter.id, letter.why) == (b"poison", WORN_OUT)
        assert await names(store, NOW + HOUR) == ["good"]
        assert await store.depth() == {("k", False): 1, ("k", True): 1}

    with_store(body)


def test_a_dead_letter_can_be_replayed_until_it_is_forgotten(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a"), job("b"), job("c"))
        for lease in await store.lease("k", ALL, now=NOW, until=NOW + 60):
            assert await store.settle([Settled(lease, Buried("gave up", "503"))])
        found = await store.letters("k", 2)
        assert [(letter.why, letter.told, letter.attempts) for letter in found] == [
            ("gave up", "503", 1)
        ] * 2
        again = job("", due=NOW + 5)
        assert await store.replay("k", [b"a", b"unknown"], again) == ["shop"]
        assert await names(store, NOW + 4) == []
        assert await names(store, NOW + 5) == ["a"]
        assert await store.tidy("k", ALL, now=NOW + 48 * HOUR) == 1, "a expired"
        assert await store.replay("k", [], again) == [], "all are forgotten"

    with_store(body)


def test_all_letters_are_replayed_at_once(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a"), job("b", lane="blog"))
        for lease in await store.lease("k", ALL, now=NOW, until=NOW + 60):
            await store.settle([Settled(lease, Buried("gave up"))])
        assert sorted(await store.replay("k", [], job("", due=NOW))) == ["blog", "shop"]
        assert await names(store, NOW) == ["a", "b"]

    with_store(body)


def test_what_is_too_old_or_of_no_lane_is_buried(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, job("a"), job("b", lane="sold"))
        assert await store.tidy("k", ALL, now=NOW) == 1
        assert await store.tidy("k", ALL, now=NOW + 24 * HOUR) == 1
        found = {letter.id: letter.why for letter in await store.letters("k", 10)}
        assert found == {b"a": EXPIRED, b"b": UNKNOWN_LANE}

    with_store(body)


def test_a_lane_that_is_full_takes_no_more_but_what_follows_from_it(with_store: With) -> None:
    async def body(store: Store) -> None:
        await add(store, *(job(f"{n}") for n in range(LANE_MOST)))
        assert not await store.add([job("one more")], within=5.0)
        await add(store, job("elsewhere", lane="blog"))
        (lease,) = await store.lease("k", {"shop": 1}, now=NOW, until=NOW + 60)
        assert await store.settle([Settled(lease, Done())], [job("x"), job("y")])
        assert (await store.depth())[("k", False)] == LANE_MOST + 2

    with_store(body)


def test_eight_workers_and_slow_ones_have_one_effect_for_each_job(with_store: With) -> None:
    """L3: some hold a job longer than its lease; the fence decides."""
    most = 2_000
    chance = random.Random(1)

    async def body(store: Store) -> None:
        now, effects, refused = [NOW], Counter[bytes](), [0]
        await add(store, *(job(f"{n}", subject=f"{n // 2}") for n in range(most)))

        async def work() -> None:
            while (await store.depth()).get(("k", False)):
                leases = await store.lease("k", {"shop": 20}, now=now[0], until=now[0] + 5)
                if not leases:
                    now[0] += 6  # every lease has ended, the slow ones' too
                slow = chance.random() < 0.05
                for lease in leases:
                    if slow:
                        await asyncio.sleep(0)
                        now[0] += 0.2
                    if await store.settle([Settled(lease, Done())]):
                        effects[lease.job.id] += 1
                    else:
                        refused[0] += 1

        await asyncio.gather(*(work() for _ in range(8)))
        letters = await store.letters("k", most)  # some may be late POISON times
        assert len(effects) + len(letters) == most
        assert len(letters) < most / 100
        assert set(effects.values()) == {1}
        assert refused[0] > 0, "nobody was too late: the test shows nothing"

    with_store(body)


# -- across processes: only what is outside them is there to be found again


def test_a_restart_gives_back_what_was_leased(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:{tmp_path / 'gate.db'}"
        store = await open_store(url, wall=FakeClock(NOW), capacity=10)
        await store.begin(NOW)
        await add(store, job("a"), job("later", due=NOW + HOUR))
        (old,) = await store.lease("k", ALL, now=NOW, until=NOW + 600)
        await store.close()
        store = await open_store(url, wall=FakeClock(NOW), capacity=10)
        await store.begin(NOW + 1)
        assert not await store.settle([Settled(old, Done())])
        assert await names(store, NOW + 1) == ["a"]
        assert await store.dues("k", ALL) == {"shop": NOW + 61}
        await store.close()

    asyncio.run(main())


def test_a_lease_of_a_shared_store_outlives_a_restart_of_another_gate(place: Place) -> None:
    """O14: one of two dies; what it held is the other's when the lease ends, and not before."""

    async def main() -> None:
        url = place("redis")
        one = await open_store(url, wall=FakeClock(NOW), capacity=10)
        await one.begin(NOW)
        await add(one, job("a"))
        (held,) = await one.lease("k", ALL, now=NOW, until=NOW + 60)
        other = await open_store(url, wall=FakeClock(NOW), capacity=10)
        await other.begin(NOW + 1)
        assert await names(other, NOW + 59) == []
        assert await names(other, NOW + 60) == ["a"]
        assert not await one.settle([Settled(held, Done())])
        await one.close()
        await other.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["an hour back", "an hour ahead"])
def test_a_clock_that_was_set_puts_nothing_off_for_long(
    place: Place, kind: str, step: float
) -> None:
    """O09: what was made by a clock an hour ahead waits as long as it was meant to."""

    async def main() -> None:
        url = place(kind)
        store = await open_store(url, wall=FakeClock(NOW), capacity=10)
        await store.begin(NOW)
        await add(store, job("a", due=NOW + 300))
        await store.close()
        store = await open_store(url, wall=FakeClock(NOW), capacity=10)
        await store.begin(NOW + step)
        expected = NOW + 300 + min(step, 0.0)
        assert await store.dues("k", ALL) == {"shop": expected}
        await store.close()

    asyncio.run(main())


def test_a_file_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    from gate.store.file import APPLICATION_ID, MIGRATIONS

    path = tmp_path / "gate.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(MIGRATIONS[0])
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO secret VALUES ('master', ?)", (bytes(32),))
        connection.commit()

    async def main() -> None:
        store = await open_store(f"sqlite:{path}", wall=FakeClock(NOW), capacity=10)
        assert await store.keyring() == {"master": bytes(32)}
        await add(store, job("a"))
        assert await names(store, NOW) == ["a"]
        await store.close()

    asyncio.run(main())
