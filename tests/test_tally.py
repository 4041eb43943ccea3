"""The tally: what source addresses have used up is there after the process, however that ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from gate.egress import Source
from gate.smtp.sources import Sources
from gate.store import Store, open_store
from gate.tally import KEY, Tally
from gate.testing import FakeClock
from tests.lateworld import NOW, until

NEW = Source(
    ip_address("192.0.2.1"), "new.example.com", since=datetime.fromtimestamp(NOW, UTC).date()
)


async def sources_of(store: Store, clock: FakeClock) -> tuple[Sources, Tally]:
    """The sources of one process, going on from what the store holds."""
    sources = Sources([NEW], clock=clock)
    tally = Tally(store, sources, clock)
    await tally.open()
    return sources, tally


def test_a_process_that_is_killed_has_kept_its_count_a_second_later(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = FakeClock(NOW)
        store = await open_store(f"sqlite:{tmp_path / 'gate.db'}", wall=clock, capacity=10)
        try:
            sources, dies = await sources_of(store, clock)
            for _ in range(7):
                assert sources.take(NEW)
            await until(lambda: store.peek(KEY) is not None)
            later, tally = await sources_of(store, clock)
            assert later.left(NEW) == 43
            await tally.close()
            await dies.close()
        finally:
            await store.close()

    asyncio.run(scene())


def test_nothing_is_written_while_nothing_is_used_up() -> None:
    async def scene() -> None:
        clock = FakeClock(NOW)
        store = await open_store("memory:", wall=clock, capacity=10)
        _, tally = await sources_of(store, clock)
        await tally.close()
        assert store.peek(KEY) is None
        await store.close()

    asyncio.run(scene())


@pytest.mark.parametrize("kept", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x92\x81\xa1x\x01\x80"])
def test_what_cannot_be_read_is_begun_anew_and_said(
    kept: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        clock = FakeClock(NOW)
        store = await open_store("memory:", wall=clock, capacity=10)
        await store.put(KEY, kept, expires=NOW + 100)
        sources, tally = await sources_of(store, clock)
        assert sources.left(NEW) == 50
        assert sources.take(NEW)
        await tally.close()
        later, again = await sources_of(store, clock)
        assert later.left(NEW) == 49
        await again.close()
        await store.close()

    asyncio.run(scene())
    assert caplog.text.count("cannot be read") == 1
