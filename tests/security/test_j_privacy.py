"""J: what is written down about people, and for how long."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gate import metrics
from gate.address import Address, parse
from gate.budget import DELIVERABLE_EXPIRES
from gate.engine import open_engine
from gate.store import open_store
from gate.testing import FakeClock, HostRules
from tests.api.ground import (
    BEARER,
    ORIGIN,
    OTHER,
    OTHER_BEARER,
    SITEKEY,
    Gate,
    gate,
    settings,
    site,
)
from tests.lateworld import SECRET as WEBHOOK_SECRET
from tests.lateworld import URL, Place, Receiver, place, status, trusted, until
from tests.security.process import gate_process
from tests.test_privacy import DOMAINS, send_everywhere

__all__ = ["trusted"]

ROOT: Final = Path(__file__).parents[2]
CANARY: Final = "canary-7f3a"
EVIL: Final = 'evil\n{"level":"x"}\x1b[31m\u2028@c.test'


# -- J1 --------------------------------------------------------------------------------------------


def test_J1__each_event_is_one_line_of_printable_ascii(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The canary through every input there is: fields, keys, headers, paths, methods, hosts."""
    caplog.set_level(logging.DEBUG, "gate")

    async def main() -> tuple[bytes, int]:
        async with gate() as running:
            client = running.client
            sent = 0
            for email in (EVIL, f"{EVIL}@inbox.test", "jé@exämple.test"):
                await running.check(email, action="signup", cdata=EVIL[:30])
                await running.page(email, cdata=EVIL[:30])
                await running.siteverify(email=email, response="")
                sent += 3
            await running.siteverify(response=EVIL)
            sent += 1
            odd = EVIL.replace("\n", " ").encode()
            for headers in ([(b"user-agent", odd)], [(b"referer", odd)], [(b"x-request-id", odd)]):
                await client.post("/v1/check", json={"email": "a@b"}, headers=[*headers,
                    (b"authorization", BEARER["authorization"].encode())])  # fmt: skip
                sent += 1
            await client.get("/v1/checks/%0Aevil%1B[31m", headers=BEARER)
            await client.request("EVIL", "/healthz")
            await client.post("/v1/hooks/%0aevil", content=EVIL.encode())
        return bytes(running.written), sent

    written, sent = asyncio.run(main())
    lines = written.splitlines()
    assert len(lines) == sent
    assert all(0x20 <= octet <= 0x7E for line in lines for octet in line)
    assert all(json.loads(line)["event"] == "decision" for line in lines)
    shown = written.decode() + caplog.text + "".join(capfd.readouterr())
    assert "evil\n" not in shown and "\x1b" not in shown and "\u2028" not in shown


# -- J2 --------------------------------------------------------------------------------------------


def files(when: str, folder: Path) -> dict[str, bytes]:
    return {f"{when} {path.name}": path.read_bytes() for path in folder.iterdir()}


def test_J2__a_canary_that_went_everywhere_is_written_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Looked for while the store is open, so in its log as well, and again when it is closed."""
    caplog.set_level(logging.DEBUG, "gate")
    config = settings(store={"url": f"sqlite:{tmp_path / 'gate.db'}"})
    found: dict[str, bytes] = {}

    async def main() -> None:
        async with gate(config) as running:
            await send_everywhere(running)
            await asyncio.sleep(0.1)
            found.update(files("open", tmp_path))
        found["decision lines"] = bytes(running.written)

    asyncio.run(main())
    found.update(files("closed", tmp_path))
    found |= {
        "log": caplog.text.encode(),
        "metrics": metrics.render(),
        "standard output and error": "".join(capfd.readouterr()).encode(),
    }
    assert {"open gate.db", "open gate.db-wal", "closed gate.db"} <= set(found)
    assert found["decision lines"].count(b"\n") > 4 * len(DOMAINS)
    assert [name for name, octets in found.items() if CANARY.encode() in octets] == []


def test_J2__nor_by_a_process_of_its_own(tmp_path: Path) -> None:
    with gate_process(tmp_path, store=f"sqlite:{tmp_path / 'gate.db'}") as running:
        for domain in DOMAINS:
            email = f"{CANARY}@{domain}"
            asked: Any = {"json": {"email": email, "explain": True}, "headers": BEARER}
            assert running.client.post("/v1/check", **asked).status_code == 200
            data = {"sitekey": SITEKEY, "email": email}
            running.client.post("/v1/check", data=data, headers={"origin": ORIGIN})
            running.client.get("/v1/check", params={"email": email})
        running.kill()
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"gate.log", "gate.db", "gate.db-wal"} <= set(written)
    assert [name for name, octets in written.items() if CANARY.encode() in octets] == []


def test_J2__an_address_does_not_show_itself() -> None:
    address = parse(f"{CANARY}@inbox.test")
    assert isinstance(address, Address)
    for shown in (repr(address), str(address), f"{address}", f"{address!r:>40}", f"{[address]}"):
        assert CANARY not in shown


# -- J3 --------------------------------------------------------------------------------------------


def series() -> int:
    return sum(len(family.samples) for family in metrics.REGISTRY.collect())


def test_J3__hundreds_of_domains_make_no_new_series() -> None:
    async def ask(running: Gate, start: int) -> None:
        for number in range(start, start + 200):
            await running.check(f"u{number}@d{number}.nxdomain.test", timeout_ms=50)
            await running.page(f"u{number}@d{number}.inbox.test", timeout_ms="50")

    async def main() -> tuple[int, int]:
        async with gate(settings(limits={"client_per_minute": 100_000})) as running:
            for domain in DOMAINS:
                await running.check(f"jane@{domain}")
                await running.page(f"jane@{domain}")
            await ask(running, 0)
            before = series()
            await ask(running, 200)
            return before, series()

    before, after = asyncio.run(main())
    assert before == after


# -- J4 --------------------------------------------------------------------------------------------

SERVERS: Final = {
    "grey.test": HostRules(users=["jane"], greylist=60.0),
    "mail.test": HostRules(users=["jane", "joe"]),
    "far.test": HostRules(users=["joe"], round_trip=0.2),
}


@asynccontextmanager
async def remembering(folder: Path) -> AsyncIterator[tuple[Gate, Place]]:
    """A gate with a file, two sites, and a webhook whose receiver is never ready."""
    hook = [{"url": URL, "secrets": [WEBHOOK_SECRET], "include_address": True}]
    config = settings(
        [site(webhook=hook), OTHER],
        store={"url": f"sqlite:{folder / 'gate.db'}"},
        sandbox={"enabled": False},
        probe={"helo": "gate.example.net", "mail_from": "probe@example.net"},
    )
    async with place(SERVERS, Receiver(status(503))) as here:
        opener = partial(open_engine, world=here, queue_clock=here.clock, wall=here.clock)
        async with gate(config, opener=opener) as running:
            yield running, here


async def forget(running: Gate, email: str, headers: dict[str, str] | None = None) -> int:
    answer = await running.client.request(
        "DELETE",
        "/v1/subject",
        json={"email": email},
        headers=BEARER if headers is None else headers,
    )
    return answer.status_code


def on_disk(folder: Path, *marks: bytes) -> list[str]:
    """The files that hold any of these octets."""
    return [p.name for p in folder.iterdir() if any(mark in p.read_bytes() for mark in marks)]


@pytest.mark.usefixtures("trusted")
def test_J4__who_wants_to_be_forgotten_is_on_the_disk_and_in_memory_no_more(
    tmp_path: Path,
) -> None:
    """A verdict, a re-check that waits, one that is over, and a message that nobody takes."""

    async def main() -> None:
        folder = tmp_path / "store"
        folder.mkdir()
        async with remembering(folder) as (running, here):
            mark = running.engine.keys.address_hash
            marks = [mark("main", email) for email in ("jane@grey.test", "jane@mail.test")]
            theirs = mark("other", "jane@mail.test")
            ids = [(await running.check("jane@grey.test", timeout_ms=3000)).json()["id"]]
            here.clock.advance(301)
            await running.engine.rechecks.round()
            await running.engine.outbox.round()
            ids += [
                (await running.check(email, timeout_ms=3000, max_age=0)).json()["id"]
                for email in ("jane@mail.test", "joe@mail.test")
            ]
            asked = {"email": "jane@mail.test", "timeout_ms": 3000}
            await running.client.post("/v1/check", json=asked, headers=OTHER_BEARER)
            await asyncio.sleep(0.2)
            assert on_disk(folder, *marks)
            assert (await running.engine.store.depth())["webhook", False] == 1

            for email in ("jane@grey.test", "jane@mail.test"):
                assert await forget(running, email) == 204
            assert on_disk(folder, *marks) == []
            assert on_disk(folder, theirs)
            assert sum((await running.engine.store.depth()).values()) == 0
            for gone in ids[:2]:
                found = await running.client.get(f"/v1/checks/{gone}", headers=BEARER)
                assert found.status_code == 404
            kept = await running.client.get(f"/v1/checks/{ids[2]}", headers=BEARER)
            assert kept.json()["email"] == "joe@mail.test"
            again = (await running.check("jane@mail.test", timeout_ms=3000)).json()
            assert again["cached"]["mailbox"] is None

        with sqlite3.connect(folder / "gate.db") as database:
            keys = {key for (key,) in database.execute("SELECT key FROM record")}
            assert theirs in keys
            assert database.execute("SELECT count(*) FROM job").fetchone() == (0,)
        database.close()

    asyncio.run(main())


@pytest.mark.usefixtures("trusted")
def test_J4__a_recheck_that_waits_and_a_flight_in_the_air_are_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with remembering(tmp_path) as (running, _):
            told = (await running.check("jane@grey.test", timeout_ms=3000)).json()
            assert told["reason"] == "greylisted"
            assert (await running.engine.store.depth())["recheck", False] == 1
            assert await forget(running, "jane@grey.test") == 204
            assert sum((await running.engine.store.depth()).values()) == 0
            flight = asyncio.create_task(running.check("joe@far.test", timeout_ms=3000))
            await until(lambda: running.engine.checker.flights)
            assert await forget(running, "joe@far.test") == 204
            assert (await flight).json()["reason"] == "timeout"
            mark = running.engine.keys.address_hash("main", "joe@far.test")
            assert running.engine.store.peek(mark) is None

    asyncio.run(main())


def test_J4__only_the_sites_own_server_may_ask_for_it() -> None:
    async def main() -> None:
        async with gate() as running:
            await running.check("jane@inbox.test")
            assert await forget(running, "jane@inbox.test", {}) == 401
            public = {"authorization": f"Bearer {SITEKEY}"}
            assert await forget(running, "jane@inbox.test", public) == 401
            wrong = {"authorization": "Bearer sk_wrong"}
            assert await forget(running, "jane@inbox.test", wrong) == 401
            assert await forget(running, "jane@inbox.test", OTHER_BEARER) == 204
            mark = running.engine.keys.address_hash("main", "jane@inbox.test")
            assert running.engine.store.peek(mark) is not None  # another site's wish
            in_url = await running.client.delete("/v1/subject?email=jane@inbox.test")
            assert in_url.status_code == 400
            assert await forget(running, "no address") == 204

    asyncio.run(main())


def test_J4__a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()

    def lose() -> None:
        folder.rename(tmp_path / "elsewhere")

    async def main() -> httpx.Response:
        async with gate(settings(store={"url": f"sqlite:{folder / 'gate.db'}"})) as running:
            await running.check("jane@inbox.test")
            lose()
            return await running.client.request(
                "DELETE", "/v1/subject", json={"email": "jane@inbox.test"}, headers=BEARER
            )

    answer = asyncio.run(main())
    assert answer.status_code == 503
    assert "jane" not in answer.text


def test_J4__time_ends_what_nobody_asked_to_be_ended(tmp_path: Path) -> None:
    """A verdict's keyed hash is nowhere in the file once it expired and was swept."""

    async def main() -> None:
        wall = FakeClock(1_700_000_000.0)
        store = await open_store(f"sqlite:{tmp_path / 'gate.db'}", wall=wall, capacity=100)
        mark, other = bytes(range(16)), bytes(range(16, 32))
        await store.put(mark, b"x" * 60, expires=wall() + DELIVERABLE_EXPIRES)
        assert await store.add([], within=5.0) in (True, False)
        await store.close()
        assert on_disk(tmp_path, mark)
        wall.advance(DELIVERABLE_EXPIRES + 61)
        store = await open_store(f"sqlite:{tmp_path / 'gate.db'}", wall=wall, capacity=100)
        wall.advance(61)
        await store.put(other, b"y", expires=wall() + 60)
        await store.close()
        assert on_disk(tmp_path, mark) == []
        assert on_disk(tmp_path, other)

    asyncio.run(main())


def test_J5__readme_names_everybody_who_is_shown_an_address() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = readme.index("Who learns what")
    paragraph = readme[start : readme.index("\n\n", start)]
    for named in ("mail servers", "resolver", "webhook", "page", "squatter"):
        assert named in paragraph
    assert "DELETE /v1/subject" in readme
