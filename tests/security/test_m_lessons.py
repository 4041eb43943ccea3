"""M: what became of others in our own stack, each as a test that stands."""

from __future__ import annotations

import ast
import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import gate as package
from gate.address import Address, parse
from gate.api.requests import Request
from gate.budget import Deadline
from gate.dns import MailRoute, Resolver
from gate.egress import classify
from gate.reason import GateError, RemoteProtocolError
from gate.smtp.command import command
from gate.smtp.reply import MAX_REPLY, ReplyReader
from gate.store import file, open_store
from gate.testing import FakeZones, ScriptedMta, transcript
from gate.testing.forgery import (
    Spoil,
    chain_of_aliases,
    crowd,
    deep_owners,
    other_case,
    other_class,
    other_id,
    other_name,
    referral,
    then_right,
)
from gate.testing.lag import LoopLag
from gate.testing.zones import Truncated, Value
from tests.api.ground import BEARER, gate, settings
from tests.mailworld import mail_world
from tests.test_server import HOST, POST, config, said, serving, statuses

SOURCES: Final = Path(package.__file__).parent


async def routed(plan: dict[str, Value], seconds: float = 3.0) -> tuple[MailRoute, list[str]]:
    """The route of good.test, and what was asked for it."""
    async with FakeZones({"mx.good.test": "A 8.8.8.8", **plan}) as zones:
        resolver = Resolver(
            [zones.server], private_names=True, clock=time.monotonic, random=random.Random(1)
        )
        route = await resolver.route("good.test", Deadline.after(seconds, time.monotonic))
        await resolver.close()
        return route, list(zones.queries)


# -- DNS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [other_id, other_name, other_class])
def test_M_dnspython__a_forged_packet_ends_nothing(spoil: Spoil) -> None:
    route, _ = asyncio.run(routed({"good.test": then_right(spoil)}))
    assert route.mx_names == ("mx.good.test",)


def test_M_dnspython__and_the_way_by_tcp_still_works() -> None:
    """The mending of the first hole had closed it."""
    route, asked = asyncio.run(routed({"good.test": Truncated("MX 10 mx.good.test")}))
    assert route.mx_names == ("mx.good.test",)
    assert "good.test MX tcp" in asked
    route, asked = asyncio.run(routed({"good.test": then_right(other_case)}))
    assert route.mx_names == ("mx.good.test",)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_M_dnspython_timeout__without_time_nothing_is_asked(seconds: float) -> None:
    begun = time.monotonic()
    route, asked = asyncio.run(routed({"good.test": "MX 10 mx.good.test"}, seconds))
    assert (route.failure, route.detail) == ("dns_error", "timeout")
    assert asked == []
    assert time.monotonic() - begun < 1.0


BOMBS: Final[dict[str, Callable[[], Value]]] = {
    "hundreds of deep names": deep_owners,
    "a chain of aliases over TCP": chain_of_aliases,
    "thousands of records over TCP": lambda: crowd(3000),
    "a referral": referral,
}


@pytest.mark.parametrize("name", BOMBS)
def test_M_dnspython_bomb__an_answer_holds_nobody_up(name: str) -> None:
    async def main() -> None:
        bomb = BOMBS[name]()
        async with LoopLag() as lag:
            begun = time.monotonic()
            await routed({"good.test": bomb}, 1.0)
            assert time.monotonic() - begun < 1.5
        assert lag.worst() < 0.05

    asyncio.run(main())


# -- SMTP and addresses ----------------------------------------------------------------------------

BREAKS: Final = ["\r\n", "\n", "\r", "\0", "\x0b", "\x1c", "\x85", "\u2028"]


@pytest.mark.parametrize("broken", BREAKS, ids=repr)
def test_M_aiosmtplib__no_argument_holds_a_line_end(broken: str) -> None:
    with pytest.raises(GateError):
        command("EHLO", f"mail.test{broken}QUIT")
    for verb in ("MAIL", "RCPT"):
        with pytest.raises(GateError):
            command(verb, f"a@b.test{broken}RSET")


@pytest.mark.parametrize("name", ["prestaged_replies", "tls_injection", "rcpt_two_replies"])
def test_M_aiosmtplib__nothing_that_came_early_is_taken_for_an_answer(name: str) -> None:
    async def main() -> None:
        async with mail_world({"a.test": ScriptedMta(transcript(name), strict=False)}) as world:
            assert await world.reason("jane@a.test") == "protocol_error"

    asyncio.run(main())


@pytest.mark.parametrize("text", ["(" * 300 + "@b.test", '"' * 300, "<" * 300, "a@" + "(" * 300])
def test_M_nodemailer__no_address_is_deep(text: str) -> None:
    assert not isinstance(parse(text), Address)
    with pytest.raises(GateError):
        command("EHLO", "x.test\r\nMAIL FROM:<>")


def test_M_idna__no_label_takes_long() -> None:
    for text in ("a@" + "ü" * 5000, "a@" + "xn--" + "9" * 5000, "a@" + "\u0660" * 250 + ".test"):
        begun = time.thread_time()
        parse(text)
        assert time.thread_time() - begun < 0.005


def test_M_email_validator__what_normalising_makes_is_judged_afterwards() -> None:
    for text in ("a\u037eb@c.test", "a@b\u037ec.test", "a\u037e@c.test"):
        assert not isinstance(parse(text), Address)


@examples(max_examples=400)
@given(st.lists(st.binary(max_size=80), max_size=30))
def test_M_postfix__whatever_bytes_come_a_reply_is_whole_or_refused(pieces: list[bytes]) -> None:
    reader, total = ReplyReader(), 0
    for piece in pieces:
        total += len(piece)
        try:
            for reply in reader.feed(piece):
                assert 200 <= reply.code < 600
                assert all(len(line) <= MAX_REPLY for line in reply.lines)
        except RemoteProtocolError:
            with pytest.raises(RemoteProtocolError):
                reader.feed(b"250 ok\r\n")
            return


# -- HTTP ------------------------------------------------------------------------------------------


def imported(*, but: str = "") -> set[str]:
    """Every name that the gate imports from anywhere; without what the room `but` imports."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        if but and but in path.relative_to(SOURCES).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_M_starlette__no_form_parser_no_file_server_no_url_from_a_host() -> None:
    names = imported()
    for word in ("multipart", "staticfiles", "FileResponse", "TemplateResponse", "formparsers"):
        assert not [name for name in names if word in name], word

    async def main() -> None:
        async with gate() as running:
            headers = {**BEARER, "content-type": "multipart/form-data; boundary=x"}
            body = b"--x\r\n" * 500
            refused = await running.client.post("/v1/check", content=body, headers=headers)
            assert refused.status_code == 415
            ranged = {"range": "bytes=" + ",".join(f"{n}-{n}" for n in range(500))}
            script = await running.client.get("/v1/gate.js", headers=ranged)
            assert script.status_code == 200 and "content-range" not in script.headers
            for path in ("/v1/../gate.toml", "/v1/gate.js/..%2f..%2fetc/passwd", "/%2e%2e/x"):
                assert (await running.client.get(path)).status_code == 404

    asyncio.run(main())


def test_M_uvicorn__forwarding_headers_that_are_repeated_are_one_list() -> None:
    async def main() -> None:
        async with gate(settings(server={"trusted_proxies": ["10.0.0.0/8"]})) as running:
            guard = running.app._guard(running.engine)
            lines = [b"6.6.6.6", b"7.7.7.7, 198.51.100.9", b"10.0.0.2"]
            raw = [(b"x-forwarded-for", line) for line in lines]
            assert guard.client(Request(raw, "10.0.0.1", 0.0)) == "198.51.100.9"

    asyncio.run(main())


def test_M_uvicorn__escapes_of_a_url_are_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(config()) as bound:
        url = f"http://{HOST}:{bound.port}/%1b%5b31m%0d%0aevil?x=%1b%5b2J"
        assert httpx.get(url).status_code == 404
    assert "evil" not in "".join(capfd.readouterr())


PARSED: Final = {
    "a URL of 65,600": (b"GET /" + b"a" * 65_600 + b"/../healthz HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "a chunk that ends in nothing": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n",
        400,
    ),
    "a chunk size with a space": (POST + b"Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n", 400),
}


@pytest.mark.parametrize("name", PARSED)
def test_M_parsers__what_others_cut_or_forgave_is_refused(name: str) -> None:
    sent, status = PARSED[name]
    with serving(config()) as bound:
        got = statuses(asyncio.run(said(bound.port, sent)))
        assert got in ([status], [431], [])
        assert httpx.get(f"http://{HOST}:{bound.port}/healthz").status_code == 200


# -- stores and libraries --------------------------------------------------------------------------


async def crossed(url: str, times: int) -> int:
    """How many answers went to somebody else, of callers who leave at any moment."""
    store = await open_store(url, wall=time.time, capacity=50)
    dice, foreign = random.Random(4), 0
    keys = {n: n.to_bytes(16, "big") for n in range(200)}
    for number, key in keys.items():
        await store.put(key, b"canary-%d" % number, expires=time.time() + 900)

    async def read(number: int) -> bytes | None:
        return await store.get(keys[number])

    async def claim(number: int) -> bytes | None:
        value = b"claim-%d" % number
        return await store.claim(b"c" + keys[number], expires=time.time() + 900, value=value)

    for _ in range(times):
        ways: list[Callable[[int], Awaitable[bytes | None]]] = [read, claim]
        asked = [(dice.choice(ways), dice.randrange(200)) for _ in range(8)]
        tasks = [asyncio.ensure_future(way(number)) for way, number in asked]
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        for task in tasks:
            if dice.random() < 0.5:
                task.cancel()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        for (way, number), answer in zip(asked, told, strict=True):
            own = b"canary-%d" % number if way is read else b"claim-%d" % number
            foreign += isinstance(answer, bytes) and answer != own
    await store.close()
    return foreign


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_M_redis__a_caller_who_leaves_leaves_his_answer_to_nobody(
    kind: str, tmp_path: Path
) -> None:
    url = "memory:" if kind == "memory" else f"sqlite:{tmp_path / 'gate.db'}"
    assert asyncio.run(crossed(url, 400)) == 0


SURPRISING: Final = """
192.0.0.8 192.0.0.192 168.63.129.16 224.0.0.1 64:ff9b::7f00:1 2002:7f00:1::1 ::127.0.0.1 fec0::1
3fff::1 5f00::1 2001:1::1
"""


def test_M_ipaddress__our_table_does_not_rest_on_the_librarys() -> None:
    """Some of these were global to Python, some still are."""
    for text in SURPRISING.split():
        assert not classify(ip_address(text)).allowed


SECOND: Final = """
import asyncio, sys, time
from gate.reason import GateError
from gate.store import open_store
async def main():
    try:
        await open_store("sqlite:" + sys.argv[1], wall=time.time, capacity=10)
    except GateError as error:
        print("refused:", error)
asyncio.run(main())
"""


def test_M_sqlite__a_file_has_one_process_and_a_library_that_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gate.db"

    async def main() -> str:
        store = await open_store(f"sqlite:{path}", wall=time.time, capacity=10)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SECOND, str(path), stdout=subprocess.PIPE
        )
        said, _ = await child.communicate()
        await store.close()
        return said.decode()

    assert asyncio.run(main()).startswith("refused:")
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 7, 0))
    with pytest.raises(GateError, match="too old"):
        file.check_library()
    assert sqlite3.sqlite_version_info < file.OLDEST_LIBRARY
