"""What every store promises, held against each kind of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gate.reason import GateError
from gate.store import Store, open_store
from tests.contract.conftest import KINDS, Place

KEY, OTHER = b"k" * 16, b"o" * 16
HOUR = 3600.0


class Wall:
    """Unix time, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


Body = Callable[[Store, Wall], Awaitable[None]]
With = Callable[..., None]


@pytest.fixture(params=KINDS)
def with_store(request: pytest.FixtureRequest, place: Place) -> With:
    """Run an async body with an open store of each kind, and close it."""
    url = place(request.param)

    def run(body: Body, capacity: int = 1000) -> None:
        async def main() -> None:
            wall = Wall()
            store = await open_store(url, wall=wall, capacity=capacity)
            try:
                await body(store, wall)
            finally:
                await store.close()

        asyncio.run(main())

    return run


VALUES = {
    "text": b"deliverable",
    "empty": b"",
    "zeros": bytes(8),
    "every octet": bytes(range(256)),
    "64 KiB": bytes(65_536),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_was_put_is_found(with_store: With, value: bytes) -> None:
    async def body(store: Store, wall: Wall) -> None:
        await store.put(KEY, value, expires=wall.now + 60)
        assert store.peek(KEY) == value
        assert await store.get(KEY) == value
        assert store.peek(OTHER) is None
        assert await store.get(OTHER) is None

    with_store(body)


def test_the_newer_value_counts(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        await store.put(KEY, b"one", expires=wall.now + 60)
        await store.put(KEY, b"two", expires=wall.now + 30)
        assert await store.get(KEY) == b"two"
        wall.now += 31
        assert await store.get(KEY) is None

    with_store(body)


def test_a_record_ends_with_its_expiry(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        await store.put(KEY, b"v", expires=wall.now + 60)
        wall.now += 59.9
        assert store.peek(KEY) == await store.get(KEY) == b"v"
        wall.now += 0.1
        assert store.peek(KEY) is None
        assert await store.get(KEY) is None

    with_store(body)


def test_a_record_that_was_put_too_late_is_not_found(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        await store.put(KEY, b"v", expires=wall.now - 1)
        assert store.peek(KEY) is None
        assert await store.get(KEY) is None

    with_store(body)


def test_a_deleted_record_is_gone(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        await store.put(KEY, b"v", expires=wall.now + 60)
        await store.delete(KEY)
        await store.delete(OTHER)
        assert store.peek(KEY) is None
        assert await store.get(KEY) is None
        await store.put(KEY, b"again", expires=wall.now + 60)
        assert await store.get(KEY) == b"again"

    with_store(body)


def test_memory_is_bounded_and_keeps_what_is_used(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        keys = [number.to_bytes(16, "big") for number in range(1000)]
        for key in keys:
            await store.put(key, key, expires=wall.now + 60)
            assert store.peek(keys[0]) == keys[0], "asked for all the time"
        held = [key for key in reversed(keys) if store.peek(key) is not None]
        assert len(held) <= 100
        assert set(keys[-40:]) < set(held), "the newest ones stay"

    with_store(body, capacity=100)


def test_a_claim_is_won_once(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        assert await store.claim(KEY, expires=wall.now + 300, value=b"first") is None
        assert await store.claim(KEY, expires=wall.now + 300, value=b"second") == b"first"
        assert await store.claim(OTHER, expires=wall.now + 300) is None
        assert await store.claim(OTHER, expires=wall.now + 300) == b"", "no value is a value"

    with_store(body)


def test_a_hundred_at_once_have_one_winner(with_store: With) -> None:
    """G2, R8."""

    async def body(store: Store, wall: Wall) -> None:
        values = [str(number).encode() for number in range(100)]
        found = await asyncio.gather(
            *(store.claim(KEY, expires=wall.now + 300, value=value) for value in values)
        )
        assert found.count(None) == 1
        winner = values[found.index(None)]
        assert set(found) == {None, winner}

    with_store(body)


def test_many_different_claims_at_once_all_win(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        found = await asyncio.gather(
            *(store.claim(b"%d" % number, expires=wall.now + 300) for number in range(500))
        )
        assert set(found) == {None}

    with_store(body)


def test_a_claim_that_was_cancelled_still_stands(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        claim = asyncio.ensure_future(store.claim(KEY, expires=wall.now + 300, value=b"gone"))
        await asyncio.sleep(0)
        claim.cancel()
        await asyncio.wait({claim})
        assert await store.claim(KEY, expires=wall.now + 300) == b"gone"

    with_store(body)


def test_records_and_claims_do_not_meet(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        await store.put(KEY, b"record", expires=wall.now + 60)
        assert await store.claim(KEY, expires=wall.now + 60, value=b"claim") is None
        await store.delete(KEY)
        assert await store.claim(KEY, expires=wall.now + 60) == b"claim"
        assert await store.get(KEY) is None

    with_store(body)


def test_an_expired_claim_may_be_made_again(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        assert await store.claim(KEY, expires=wall.now + 300, value=b"one") is None
        wall.now += 299
        assert await store.claim(KEY, expires=wall.now + 300, value=b"two") == b"one"
        wall.now += 2
        assert await store.claim(KEY, expires=wall.now + 300, value=b"three") is None

    with_store(body)


def test_a_clock_that_was_an_hour_ahead_revives_no_claim(with_store: With) -> None:
    """G3, O09: everything that sweeps may run while the clock is wrong."""

    async def body(store: Store, wall: Wall) -> None:
        assert await store.claim(KEY, expires=wall.now + 300, value=b"spent") is None
        wall.now += HOUR
        for number in range(50):
            await store.put(b"%d" % number, b"", expires=wall.now + 60)
            assert await store.claim(b"%d" % number, expires=wall.now + 300) is None
        wall.now -= HOUR
        assert await store.claim(KEY, expires=wall.now + 300) == b"spent"

    with_store(body)


def test_a_clock_that_steps_back_revives_no_claim(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        assert await store.claim(KEY, expires=wall.now + 300, value=b"spent") is None
        wall.now -= 600
        assert await store.claim(KEY, expires=wall.now + 300) == b"spent"

    with_store(body)


def test_a_flood_of_records_drives_no_claim_out(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        assert await store.claim(KEY, expires=wall.now + 300, value=b"spent") is None
        for number in range(5000):
            await store.put(number.to_bytes(16, "big"), b"v", expires=wall.now + 60)
        assert await store.claim(KEY, expires=wall.now + 300) == b"spent"

    with_store(body, capacity=10)


def test_the_master_key_is_made_once(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        keyring = await store.keyring()
        assert len(keyring["master"]) == 32
        keyring["master"] = b"changed by the caller"
        again = await store.keyring()
        assert len(again["master"]) == 32

    with_store(body)


def test_two_stores_have_two_master_keys(place: Place) -> None:
    async def main() -> None:
        urls = [place(kind) for kind in KINDS for _ in range(2)]
        stores = [await open_store(url, wall=Wall(), capacity=10) for url in urls]
        masters = {(await store.keyring())["master"] for store in stores}
        for store in stores:
            await store.close()
        assert len(masters) == 6

    asyncio.run(main())


def test_a_good_store_is_healthy_and_closes_twice(with_store: With) -> None:
    async def body(store: Store, wall: Wall) -> None:
        await store.put(KEY, b"v", expires=wall.now + 60)
        assert store.healthy
        assert store.trouble is None
        await store.close()

    with_store(body)


UNKNOWN = [
    "",
    "memory",
    "memory:x",
    "sqlite",
    "sqlite:",
    "redis",
    "redis:",
    "redis://",
    "redis://host/db",
    "redis://user@host/",
    "redis://host?ssl=off",
    "redis+tls://host/0",
    "gate.db",
    "SQLITE:x",
]


@pytest.mark.parametrize("url", UNKNOWN)
def test_an_unknown_url_is_refused_with_what_to_write(url: str) -> None:
    async def main() -> None:
        with pytest.raises(GateError, match="sqlite:gate.db"):
            await open_store(url, wall=Wall(), capacity=10)

    asyncio.run(main())
