"""L: what is promised is kept, by one site for itself, whatever becomes of process or disk."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gate.cli import main as cli
from gate.engine import development_site
from gate.store import Again, Done, Lease, Settled, Store, open_store
from gate.store.queue import POISON
from gate.testing import FakeClock
from gate.token import Keys
from tests.api.ground import (
    BEARER,
    ORIGIN,
    OTHER_BEARER,
    OTHER_SITEKEY,
    SITEKEY,
    gate,
    settings,
    site,
)
from tests.contract.test_queue import NOW, add, job
from tests.security.process import gate_process

KINDS: Final = ["memory", "sqlite"]


def in_store(kind: str, folder: Path, body: Callable[[Store], Any]) -> None:
    url = "memory:" if kind == "memory" else f"sqlite:{folder / 'gate.db'}"

    async def main() -> None:
        store = await open_store(url, wall=FakeClock(NOW), capacity=1000)
        try:
            await store.begin(NOW)
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


# -- L1 --------------------------------------------------------------------------------------------


def test_L1__what_was_promised_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    """Four kills, each right behind an answer that promised a re-check."""
    store = f"sqlite:{tmp_path / 'gate.db'}"
    promised: list[str] = []
    for number in range(4):
        with gate_process(tmp_path, store=store) as running:
            for check in promised:
                found = running.client.get(f"/v1/checks/{check}", headers=BEARER)
                assert found.status_code == 200, "a promise was lost"
            body = {"email": f"greylisted+{number}@grey.test", "timeout_ms": 5000}
            told = running.client.post("/v1/check", json=body, headers=BEARER).json()
            running.kill()
        assert told["reason"] == "greylisted"
        promised.append(told["id"])
    with sqlite3.connect(tmp_path / "gate.db") as database:
        ids = {row[0].decode() for row in database.execute("SELECT id FROM job")}
    database.close()
    assert set(promised) == ids


# -- L2, L3 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_L2__a_job_that_always_fails_is_buried_and_the_others_go_on(
    kind: str, tmp_path: Path
) -> None:
    async def body(store: Store) -> None:
        await add(store, job("poison"), *(job(f"good{n}") for n in range(20)))
        done, now = Counter[bytes](), NOW
        for _ in range(3 * POISON):
            for lease in await store.lease("k", {"shop": 100}, now=now, until=now + 5):
                if lease.job.id != b"poison":  # whoever touches that one dies with it
                    assert await store.settle([Settled(lease, Done())])
                    done[lease.job.id] += 1
            now += 6
        assert len(done) == 20 and set(done.values()) == {1}
        (letter,) = await store.letters("k", 10)
        assert (letter.id, letter.why) == (b"poison", "poison: never finished")
        assert await store.depth() == {("k", True): 1}

    in_store(kind, tmp_path, body)


@pytest.mark.parametrize("kind", KINDS)
def test_L3__of_eight_workers_one_has_an_effect_for_each_job(kind: str, tmp_path: Path) -> None:
    """Some pause for longer than their lease; what they then settle is refused."""
    most, chance = 1000, random.Random(2)

    async def body(store: Store) -> None:
        now, effects, refused = [NOW], Counter[bytes](), [0]
        await add(store, *(job(f"{n}") for n in range(most)))

        async def end(lease: Lease) -> None:
            if chance.random() < 0.05:
                await asyncio.sleep(0)
                now[0] += 6
            outcome = Done() if chance.random() < 0.9 else Again(now[0], counts=False)
            if not await store.settle([Settled(lease, outcome)]):
                refused[0] += 1
            elif isinstance(outcome, Done):
                effects[lease.job.id] += 1

        async def work() -> None:
            while (await store.depth()).get(("k", False)):
                leases = await store.lease("k", {"shop": 10}, now=now[0], until=now[0] + 5)
                now[0] += 0 if leases else 6
                for lease in leases:
                    await end(lease)

        await asyncio.gather(*(work() for _ in range(8)))
        letters = await store.letters("k", most)
        assert len(effects) + len(letters) == most
        assert set(effects.values()) == {1}
        assert refused[0] > 0

    in_store(kind, tmp_path, body)


# -- L4 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["gone", "read-only folder gone", "replaced"])
def test_L4__with_a_broken_disk_checks_are_answered_and_it_is_said(
    harm: str, tmp_path: Path
) -> None:
    """And tokens are still spent once, and what comes later is written again."""
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "gate.db"

    def damage() -> None:
        if harm == "gone":
            path.unlink()
        elif harm == "replaced":
            path.rename(folder / "old.db")
            path.write_bytes(b"no database" * 1000)
        else:
            folder.rename(tmp_path / "moved")

    async def main() -> None:
        async with gate(settings(store={"url": f"sqlite:{path}"})) as running:
            token = (await running.page("jane@inbox.test")).json()["token"]
            damage()
            begun = time.monotonic()
            for number in range(30):
                answer = await running.check(f"u{number}@inbox.test")
                assert answer.status_code == 200
                assert answer.json()["reason"] == "rejected_email"
            assert time.monotonic() - begun < 3.0
            spent = [(await running.siteverify(response=token))["success"] for _ in range(3)]
            assert spent == [True, False, False]
            ready = await running.client.get("/readyz")
            if harm != "gone":  # a file that was removed is simply made again
                assert ready.json()["status"] == "degraded"
                assert ready.json()["store"] == "failing"

    asyncio.run(main())


def test_L4__a_damaged_file_is_seen_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.db"

    async def fill() -> None:
        async with gate(settings(store={"url": f"sqlite:{path}"})) as running:
            store, wall = running.engine.store, running.engine.wall
            for number in range(2000):
                await store.put(number.to_bytes(16, "big"), b"x" * 200, expires=wall() + 900)

    asyncio.run(fill())
    octets = bytearray(path.read_bytes())
    for place in range(8192, len(octets) - 4096, 4096):
        octets[place : place + 64] = b"\xa5" * 64
    path.write_bytes(octets)
    config = tmp_path / "gate.toml"
    config.write_text(f'[store]\nurl = "sqlite:{path}"\n[dns]\nservers = ["127.0.0.1:9"]\n')
    assert cli(["serve", "--config", str(config)]) == 2
    assert "damaged" in capsys.readouterr().err


# -- L5 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9/0", "rediss://127.0.0.1:9/0", "postgres://x"])
def test_L5__a_store_that_cannot_be_had_is_refused_at_the_start(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody gets a promise from a store that keeps none; for real ones see test_redis_store.py."""
    config = tmp_path / "gate.toml"
    config.write_text(f'[store]\nurl = "{url}"\n[dns]\nservers = ["127.0.0.1:9"]\n')
    assert cli(["serve", "--config", str(config)]) == 2
    assert "store.url" in capsys.readouterr().err


# -- L6 --------------------------------------------------------------------------------------------


def test_L6__what_belongs_to_another_site_is_404_on_every_route() -> None:
    """Every path of the OpenAPI document that takes an id, with an id of the other site."""

    async def main() -> None:
        async with gate() as running:
            mine = (await running.check("jane@inbox.test")).json()
            document = (await running.client.get("/openapi.json")).json()
            with_id = [path for path in document["paths"] if "{id}" in path]
            assert with_id == ["/v1/checks/{id}"]
            for path in with_id:
                for method in document["paths"][path]:
                    url = path.replace("{id}", mine["id"])
                    own = await running.client.request(method, url, headers=BEARER)
                    theirs = await running.client.request(method, url, headers=OTHER_BEARER)
                    nobodys = await running.client.request(
                        method, path.replace("{id}", "chk_" + "0" * 32), headers=OTHER_BEARER
                    )
                    assert (own.status_code, theirs.status_code) == (200, 404)
                    theirs_body, nobodys_body = theirs.json(), nobodys.json()
                    assert theirs_body == nobodys_body, "the id is not even known to exist"
            forgot = await running.client.request(
                "DELETE", "/v1/subject", json={"email": "jane@inbox.test"}, headers=OTHER_BEARER
            )
            assert forgot.status_code == 204
            still = await running.client.get(f"/v1/checks/{mine['id']}", headers=BEARER)
            assert still.status_code == 200

    asyncio.run(main())


def test_L6__ids_cannot_be_guessed() -> None:
    async def main() -> list[str]:
        async with gate() as running:
            return [(await running.check(f"u{n}@nomx0.test")).json()["id"] for n in range(200)]

    ids = asyncio.run(main())
    assert len(set(ids)) == 200
    numbers = [int(check.removeprefix("chk_"), 16) for check in ids]
    assert all(len(check) == 4 + 32 for check in ids)
    steps = {later - earlier for earlier, later in zip(numbers, numbers[1:], strict=False)}
    assert len(steps) == 199 and min(map(abs, steps)) > 2**64


def test_L6__sites_have_keys_of_their_own_for_everything_that_is_kept() -> None:
    keys = Keys(bytes(range(32)))
    purposes = ("token", "address", "webhook", "queue", "check")
    derived = [keys.derive(name, purpose) for name in ("a", "b", "") for purpose in purposes]
    assert len(set(derived)) == len(derived)
    assert development_site(keys)[1] != development_site(Keys(bytes(32)))[1]


# -- L7 --------------------------------------------------------------------------------------------

QUOTA: Final = 60


def second_site() -> str:
    table = site("quiet", OTHER_SITEKEY, OTHER_BEARER["authorization"].partition(" ")[2])
    lines = [f'{key} = "{value}"' for key, value in table.items() if isinstance(value, str)]
    limits = f"[limits]\nclient_per_minute = {QUOTA}\nsite_per_minute = {QUOTA}\n"
    return "[[site]]\n" + "\n".join(lines) + f'\norigins = ["{ORIGIN}"]\n{limits}'


async def quiet_calls(client: httpx.AsyncClient, number: int) -> list[float]:
    """How long the quiet site's calls took; each answer is its own."""
    took = []
    for count in range(number):
        email = f"quiet-{count % 20}@inbox.test"
        begun = time.perf_counter()
        answer = await client.post("/v1/check", json={"email": email}, headers=OTHER_BEARER)
        took.append(time.perf_counter() - begun)
        assert (answer.status_code, answer.json()["email"]) == (200, email)
        assert answer.json()["reason"] == "rejected_email"
        await asyncio.sleep(0.01)
    return sorted(took)


def test_L7__a_site_that_floods_leaves_the_other_its_answers_and_its_speed(tmp_path: Path) -> None:
    """At many times its quota: 0 errors, 0 foreign octets, and the time."""

    async def flood(client: httpx.AsyncClient, until: float) -> Counter[str]:
        told: Counter[str] = Counter()
        while time.monotonic() < until:
            data = {"sitekey": SITEKEY, "email": "noisy@inbox.test"}
            answer = await client.post("/v1/check", data=data, headers={"origin": ORIGIN})
            assert answer.status_code == 200 and "quiet" not in answer.text
            told[answer.json()["reason"]] += 1
            await asyncio.sleep(0.003)
        return told

    async def main(base: str) -> None:
        async with httpx.AsyncClient(base_url=base, timeout=5) as client:
            alone = await quiet_calls(client, 80)
            flooding = asyncio.create_task(flood(client, time.monotonic() + 1.2))
            beside = await quiet_calls(client, 80)
            told = await flooding
            assert told["throttled"] > 0 and sum(told.values()) > QUOTA / 2
            assert beside[78] < max(1.3 * alone[78], 0.1)

    with gate_process(tmp_path, more=second_site()) as running:
        asyncio.run(main(str(running.client.base_url)))


# -- L8 --------------------------------------------------------------------------------------------


def test_L8__a_file_of_a_newer_gate_is_exit_2_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.db"

    async def make() -> None:
        async with gate(settings(store={"url": f"sqlite:{path}"})):
            pass

    asyncio.run(make())
    with sqlite3.connect(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1}")
    database.close()
    before = path.read_bytes()
    config = tmp_path / "gate.toml"
    config.write_text(f'[store]\nurl = "sqlite:{path}"\n[dns]\nservers = ["127.0.0.1:9"]\n')
    assert cli(["serve", "--config", str(config)]) == 2
    assert "newer gate" in capsys.readouterr().err
    assert path.read_bytes() == before
