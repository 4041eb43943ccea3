from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest

from gate.dns.answers import ESTATE_MOST, Answer, Memory, Shared
from gate.dns.wire import Kind

SHAPES = [
    ("a.example.test", True),
    ("a.b.c.example.test", True),
    ("a.example.co.uk", True),
    ("example.test", False),
    ("example.co.uk", False),
]


@pytest.mark.parametrize(("name", "shares"), SHAPES)
def test_names_below_a_registrable_domain_share_its_part(name: str, shares: bool) -> None:
    memory: Memory[int] = Memory(1000)
    memory[name] = 1
    owner = name.split(".", name.count(".") - (2 if name.endswith(".co.uk") else 1))[-1]
    for number in range(ESTATE_MOST):
        memory[f"x{number}.{owner}"] = number
    assert (name not in memory) is shares


def test_the_least_recently_used_go_first_whoever_owns_them() -> None:
    memory: Memory[int] = Memory(3)
    for name in ("a.test", "x.b.test", "c.test"):
        memory[name] = 1
    assert memory["a.test"] == 1
    memory["d.test"] = 1
    assert sorted(memory) == ["a.test", "c.test", "d.test"]
    for number in range(200):
        memory[f"{number}.b.test"] = number
    assert len(memory) == 3


def test_a_flood_of_names_neither_grows_nor_evicts() -> None:
    """security.md E1, in small: a wildcard zone against a memory with a busy domain in it."""
    memory: Memory[Answer] = Memory(20_000)
    memory["busy.test"] = answer = Answer(Kind.NODATA, 1.0)
    tracemalloc.start()
    for number in range(50_000):
        memory[f"x{number}.attacker.test"] = answer
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "busy.test" in memory
    assert len(memory) == ESTATE_MOST + 1
    assert size < 200_000


def test_what_is_remembered_is_not_tracked_by_the_collector() -> None:
    """Tens of thousands of tracked entries would be pauses of tens of milliseconds."""
    assert not gc.is_tracked(Answer(Kind.FOUND, 1.0, exchanges=((10, "mx.test"),)))


def test_shared_work_ends_with_the_last_who_waits() -> None:
    async def body() -> list[str]:
        shared: Shared[str, str] = Shared()
        events = []

        async def work() -> str:
            events.append("begun")
            try:
                await asyncio.Event().wait()
            finally:
                events.append("ended")
            return "done"

        first, second = shared.join("key", work), shared.join("key", work)
        assert first is second
        await asyncio.sleep(0)
        shared.leave("key", first)
        await asyncio.sleep(0)
        events.append("one has left")
        shared.leave("key", second)
        assert shared.join("key", work) is not first, "nobody joins work that is being ended"
        await asyncio.sleep(0)
        await shared.close()
        return events

    assert asyncio.run(body()) == ["begun", "one has left", "ended", "begun", "ended"]


def test_an_error_of_ours_reaches_everybody_who_waits() -> None:
    async def body() -> list[object]:
        shared: Shared[str, str] = Shared()

        async def work() -> str:
            raise RuntimeError("a bug")

        tasks = [shared.join("key", work) for _ in range(3)]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    assert [str(result) for result in asyncio.run(body())] == ["a bug"] * 3
