"""k: the HTTP surface and the process under it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import string
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gate.api.problems import KINDS
from gate.cli import main as cli
from gate.reason import GateError
from gate.server import Bound, connections_most
from gate.settings.read import parse
from gate.testing.lag import LoopLag
from tests.api.ground import BEARER, SECRET, SITEKEY, gate, settings, site
from tests.security.process import port_said
from tests.security.test_m_lessons import crossed
from tests.security.timing import cannot_be_told_apart
from tests.test_address import BOMBS as BOMBS_OF_TEXT
from tests.test_server import (
    BAD,
    CHECK,
    CHUNKED,
    HEALTH,
    HOST,
    POST,
    answers,
    ask_in_turn,
    config,
    connected,
    pour,
    rss,
    said,
    serving,
    statuses,
)

ROOT: Final = Path(__file__).parents[2]
MEGABYTE: Final = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[Bound]:
    with serving(config(limits={"warm_connections": 0})) as bound:
        yield bound


# -- k-1: slow clients -----------------------------------------------------------------------------

HALVES: Final = (b"", b"GET / HTTP/1.1\r\nX: ", CHECK[:-5])


async def good_traffic(port: int, seconds: float, pace: float) -> list[float]:
    """How long each of a steady stream of good requests took, on connections of their own."""
    took = []

    async def one() -> None:
        begun = time.perf_counter()
        (got,) = await ask_in_turn(port, CHECK)
        assert statuses(got) == [200]
        took.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            group.create_task(one())
            await asyncio.sleep(pace)
    return sorted(took)


async def crowded(port: int, number: int, seconds: float, pace: float) -> tuple[float, float]:
    """The 99th percentile of good requests beside so many half-open clients, and how long the last
    of these lived.
    """
    async with AsyncExitStack() as stack:
        crowd = []
        for index in range(number):
            crowd.append(await stack.enter_async_context(connected(port)))
            crowd[-1][1].write(HALVES[index % len(HALVES)])
        begun = time.monotonic()
        took = await good_traffic(port, seconds, pace)
        async with asyncio.timeout(12):
            await asyncio.gather(*(answers(reader) for reader, _ in crowd))
        return took[int(0.99 * len(took))], time.monotonic() - begun


def test_k1__half_open_clients_end_and_good_ones_are_answered() -> None:
    """Three hundred here; the five thousand are in tests/resources."""
    with serving(config()) as bound:
        idle = asyncio.run(good_traffic(bound.port, 0.5, 0.01))
        slow, lived = asyncio.run(crowded(bound.port, 300, 1.0, 0.01))
    assert lived < 6.0 + 1.0  # their limit, one look around, and a busy machine
    assert slow < max(2 * idle[int(0.99 * len(idle))], 0.25)


# -- k-2: bombs ------------------------------------------------------------------------------------

BOMBS: Final = {
    "a header of 64 MB": (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"y" * 65_536, 64, 431),
    "a body of 200 MB": (POST + b"Content-Length: 200000000\r\n\r\n", b"x" * 65_536, 200, 413),
    "chunks without end": (POST + CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n", 64, 413),
}


@pytest.mark.parametrize("name", BOMBS)
def test_k2__bombs_are_cut_short_in_little_memory(server: Bound, name: str) -> None:
    head, part, megabytes, status = BOMBS[name]
    before = rss()
    got, sent = asyncio.run(pour(server.port, head, part, megabytes * MEGABYTE))
    assert statuses(got) in ([status], [])  # a reset may swallow the answer
    assert sent < 8 * MEGABYTE  # what the system's own buffers took
    assert rss() - before < 4 * MEGABYTE


@pytest.mark.parametrize("name", ["negative length", "both lengths", "long URL", "endless headers"])
def test_k2__lengths_that_lie_are_refused(server: Bound, name: str) -> None:
    (row,) = (row for row in BAD if row[0] == name)
    got = asyncio.run(said(server.port, row[1]))
    assert statuses(got) in ([row[2]], [])


# -- k-3: messages that can be cut in two ways -----------------------------------------------------

HIDDEN: Final = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
"""A request inside another one; whoever sees it as one of its own answers 404 for it."""
KEYED: Final = (
    b"POST /v1/check HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + SECRET.encode() + b"\r\n"
)
TYPE: Final = b"Content-Type: application/json\r\n"
BODY: Final = b'{"email":"jane@inbox.test"}'
TWO_WAYS: Final = {
    "length, then chunked": KEYED + b"Content-Length: 39\r\n" + CHUNKED + b"0\r\n\r\n" + HIDDEN,
    "chunked, then length": KEYED + CHUNKED[:-2] + b"Content-Length: 39\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked in capitals, with length": KEYED + b"CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED"
    b"\r\n\r\n0\r\n\r\n" + HIDDEN,
    "space before the colon": KEYED + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "vertical tab": KEYED + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "another encoding": KEYED + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "identity": KEYED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice over": KEYED + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "encoding on two lines": KEYED + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"
    b"\r\n\r\n0\r\n\r\n" + HIDDEN,
    "encoding on a folded line": KEYED + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5"
    b"\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": KEYED + b"Content-Length: 0\r\nContent-Length: 33\r\n\r\n" + HIDDEN,
    "a list of lengths": KEYED + b"Content-Length: 0, 33\r\n\r\n" + HIDDEN,
    "a length with a plus": KEYED + b"Content-Length: +33\r\n\r\n" + HIDDEN,
    "a length that overflows": KEYED + b"Content-Length: 18446744073709551649\r\n\r\n" + HIDDEN,
    "a chunk size that overflows": KEYED + CHUNKED + b"10000000000000000\r\n" + HIDDEN,
    "a chunk size in hexadecimal style": KEYED + CHUNKED + b"0x0\r\n\r\n" + HIDDEN,
    "a chunk that ends with LF alone": KEYED + CHUNKED + b"2\r\n{}\n0\r\n\r\n" + HIDDEN,
    "a chunk size that ends with LF alone": KEYED + CHUNKED + b"0\n\n" + HIDDEN,
    "a chunk extension with LF": KEYED + CHUNKED + b"0;x\n\r\n\r\n" + HIDDEN,
    "a bare CR in a header": KEYED + b"X: a\rContent-Length: 33\r\n\r\n" + HIDDEN,
    "NUL in a name": KEYED + b"Content-Length\x00: 33\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("name", TWO_WAYS)
def test_k3__what_can_be_cut_in_two_ways_is_400_and_the_end(server: Bound, name: str) -> None:
    """Behind a request whose head is known, too: what is remembered changes no reading."""

    async def main() -> bytes:
        assert statuses((await ask_in_turn(server.port, CHECK))[0]) == [200]
        async with connected(server.port) as (reader, writer), asyncio.timeout(5):
            writer.write(CHECK)
            await reader.readuntil(b'token_expires_in":300}')
            writer.write(TWO_WAYS[name])
            return await answers(reader)

    assert statuses(asyncio.run(main())) == [400]


PLAIN: Final = b"POST /v1/check HTTP/1.1\r\nHost: a\r\n" + TYPE
LENGTH: Final = b"Content-Length: %d\r\n\r\n" % len(BODY)
NO_KEY: Final = PLAIN + LENGTH + BODY
LAST: Final = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
JANE: Final = b'"email":"jane@inbox.test"'


async def in_pieces(port: int, *pieces: bytes) -> bytes:
    """All that is answered to octets that arrive in exactly these pieces, until the end."""
    async with connected(port) as (reader, writer), asyncio.timeout(10):
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reading = asyncio.create_task(answers(reader))
        with suppress(ConnectionError):  # it may have ended before the last piece
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.03)
        return await reading


def wrapped(inner: bytes) -> bytes:
    """The head of a keyed request whose body is `inner`."""
    return KEYED + TYPE + b"Content-Length: %d\r\n\r\n" % len(inner)


# name: pieces, statuses of what is answered, and how often the answer is one about jane
REMEMBERED: Final[dict[str, tuple[tuple[bytes, ...], list[int], int]]] = {
    "a known message inside a body": ((wrapped(CHECK), CHECK, LAST), [400, 404], 0),
    "a known message inside a chunk": (
        (KEYED + TYPE + CHUNKED + b"%x\r\n" % len(CHECK), CHECK, b"\r\n0\r\n\r\n" + LAST),
        [400, 404],
        0,
    ),
    "a known message inside a header": (
        (KEYED + b"Content-Length: 0\r\nX: ", CHECK.replace(b"Host: a\r\n", b"") + LAST),
        [400],
        0,
    ),
    "a known message behind half a body": (
        (KEYED + TYPE + LENGTH + BODY[:5], CHECK[: len(BODY) - 5] + LAST),
        [400, 404],
        0,
    ),
    "two known messages in one piece": ((CHECK + CHECK, LAST), [200, 200, 404], 2),
    "one and a half known messages": ((CHECK + CHECK[:40], CHECK[40:] + LAST), [200, 200, 404], 2),
    "a known head whose body comes later": ((CHECK[:-27], CHECK[-27:], LAST), [200, 404], 1),
    "a known head with a longer body": ((CHECK + HIDDEN, LAST), [200, 404, 404], 1),
    "a known message behind an empty line": ((b"\r\n", CHECK, LAST), [200, 404], 1),
    "a known message behind garbage": ((b"\x00\x00", CHECK + LAST), [400], 0),
    "a known message behind one that closes": (
        (CHECK.replace(b"Host: a", b"Connection: close\r\nHost: a"), CHECK, CHECK),
        [200],
        1,
    ),
    "a known message while another is answered": (
        (
            KEYED + TYPE + b"Content-Length: 30\r\n\r\n" + b'{"email":"slow-99@inbox.test"}',
            CHECK,
            LAST,
        ),
        [200, 200, 404],
        1,
    ),
    "a known message behind HTTP/1.0": (
        (HEALTH.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
         CHECK, LAST),
        [200],
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REMEMBERED)
def test_k3__a_known_head_is_known_only_where_a_message_begins(server: Bound, name: str) -> None:
    pieces, expected, about_jane = REMEMBERED[name]

    async def main() -> bytes:
        await ask_in_turn(server.port, CHECK, CHECK)
        return await in_pieces(server.port, *pieces)

    got = asyncio.run(main())
    assert statuses(got) == expected
    assert got.count(JANE) == about_jane


# name: the pieces after which nobody may get in with NO_KEY, which they end with or contain
POISONS: Final[dict[str, tuple[bytes, ...]]] = {
    "the end of a head whose key came before, behind a body": (
        CHECK[:-5],
        CHECK[-5:] + KEYED + b"X: ",
        NO_KEY + LAST,
    ),
    "the end of a head, alone on its connection": (KEYED + b"X: ", NO_KEY + LAST),
    "the end of a head, behind a known message": (CHECK, KEYED + b"X: ", NO_KEY + LAST),
    "the end of a head, message exactly ending a piece": (CHECK + KEYED + b"X: ", NO_KEY, LAST),
    "a folded line": (KEYED + b"X: a\r\n ", NO_KEY + LAST),
    "a body that is a message": (wrapped(NO_KEY), NO_KEY, LAST),
    "a chunk that is a message": (
        KEYED + TYPE + CHUNKED + b"%x\r\n" % len(NO_KEY), NO_KEY, b"\r\n0\r\n\r\n" + LAST,
    ),
    "behind an upgrade": (
        KEYED + TYPE + b"Connection: Upgrade\r\nUpgrade: h2c\r\nX: ", NO_KEY + LAST,
    ),
    "the site key in the header": (NO_KEY.replace(
        TYPE, TYPE + b"Authorization: Bearer " + SITEKEY.encode() + b"\r\n"), LAST),
}  # fmt: skip


@pytest.mark.parametrize("name", POISONS)
def test_k3__octets_that_look_like_a_head_let_nobody_in(server: Bound, name: str) -> None:
    """A head is remembered with whoever it proved; one without a key must never be."""

    async def main() -> bytes:
        await in_pieces(server.port, *POISONS[name])
        return await in_pieces(server.port, NO_KEY, NO_KEY + LAST)

    got = asyncio.run(main())
    assert statuses(got) == [401, 401, 404]
    assert JANE not in got


# -- k-4, k-5 --------------------------------------------------------------------------------------


def test_k4__a_host_of_somebodys_choice_is_refused_or_never_repeated() -> None:
    async def main() -> None:
        async with gate(settings([]), base="http://127.0.0.1:8080") as development:
            for path in ("/healthz", "/", "/v1/gate.js", "/openapi.json", "/nowhere"):
                answer = await development.client.get(path, headers={"host": "evil.example"})
                assert answer.status_code == 421
        async with gate() as running:
            for path in ("/healthz", "/v1/gate.js", "/v1/gate.json", "/openapi.json", "/nowhere/"):
                answer = await running.client.get(path, headers={"host": "evil.example"})
                assert b"evil.example" not in answer.content
                assert not [v for v in answer.headers.values() if "evil.example" in v]
            for host in ("a b", "a/b", "u@a", ""):
                bad = await running.client.get("/healthz", headers={"host": host})
                assert bad.status_code == 400

    asyncio.run(main())


LIMITED: Final = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[1])))
from gate.cli import main
sys.exit(main(["serve", "--config", sys.argv[2]]))
"""
TABLES: Final = """
[server]
port = {port}
admin_port = 0
[store]
url = "memory:"
[dns]
servers = ["127.0.0.1:9"]
[sandbox]
enabled = true
[limits]
dialogues = {dialogues}
"""


def served_with(hard: int, dialogues: int, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "gate.toml"
    path.write_text(TABLES.format(port=0, dialogues=dialogues))
    command = [sys.executable, "-c", LIMITED, str(hard), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)


def test_k5__with_256_descriptors_it_is_refused_with_what_to_change(tmp_path: Path) -> None:
    done = served_with(256, 256, tmp_path)
    assert done.returncode == 2
    assert "ulimit -n" in done.stderr and "limits.dialogues" in done.stderr


@asynccontextmanager
async def limited_server(folder: Path, *, dialogues: int) -> AsyncIterator[int]:
    path = folder / "gate.toml"
    path.write_text(TABLES.format(port=0, dialogues=dialogues))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LIMITED, "256", str(path), stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    try:
        async with asyncio.timeout(15):
            port = None
            while port is None:
                port = port_said((await child.stderr.readline()).decode())
        yield port
    finally:
        child.kill()
        await child.communicate()


def test_k5__where_it_starts_a_crowd_meets_fewer_connections_and_no_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with limited_server(tmp_path, dialogues=16) as port, AsyncExitStack() as stack:
            for _ in range(400):
                with suppress(ConnectionError):
                    await stack.enter_async_context(connected(port))
            async with httpx.AsyncClient() as client:
                for _ in range(20):
                    answer = await client.get(f"http://{HOST}:{port}/healthz", timeout=5)
                    assert answer.status_code == 200

    asyncio.run(main())


def test_k5__the_limit_of_this_process_is_counted_against_its_settings() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with pytest.raises(GateError, match="open files"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            connections_most(parse({"limits": {"dialogues": hard}}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- k-6, k-7 --------------------------------------------------------------------------------------


def test_k6__nothing_that_a_stranger_sends_holds_the_loop_up() -> None:
    """Texts, bodies and tokens that are meant to take long, all at once, in one process."""
    texts = [*BOMBS_OF_TEXT.values(), '"' * 4000, "a" * 4000 + "@b.test", "(" * 4000]
    bodies = [b"[" * 8192, b'{"email":' * 900, b"1" * 8000, b"a=1&" * 2000, b"\xff" * 8192]

    async def main() -> float:
        async with gate(settings(limits={"client_per_minute": 100_000})) as running:
            async with LoopLag() as lag:
                for text in texts:
                    await running.check(text[:4000])
                    await running.page(text[:2000])
                    data = {"secret": SECRET, "response": text[:4000], "email": text[:2000]}
                    await running.client.post("/v1/siteverify", data=data)
                for body in bodies:
                    for kind in ("application/json", "application/x-www-form-urlencoded"):
                        headers = {**BEARER, "content-type": kind}
                        for path in ("/v1/check", "/v1/siteverify", "/v1/prefetch"):
                            await running.client.post(path, content=body, headers=headers)
            return lag.worst()

    assert asyncio.run(main()) < 0.05


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_k7__who_leaves_in_the_middle_of_a_storage_call_leaves_nothing_to_others(
    kind: str, tmp_path: Path
) -> None:
    url = "memory:" if kind == "memory" else f"sqlite:{tmp_path / 'gate.db'}"
    assert asyncio.run(crossed(url, 600)) == 0


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_k7__ten_thousand_times(tmp_path: Path) -> None:
    assert asyncio.run(crossed(f"sqlite:{tmp_path / 'gate.db'}", 10_000)) == 0


# -- k-8: keys -------------------------------------------------------------------------------------


def test_k8__a_key_in_a_url_is_400_and_a_site_key_is_no_secret() -> None:
    async def main() -> None:
        async with gate() as running:
            client = running.client
            for query in (f"secret={SECRET}", f"KEY={SECRET}", f"%73ecret={SECRET}"):
                in_url = await client.post(f"/v1/check?{query}")
                assert in_url.status_code == 400
                assert SECRET not in in_url.text
            public = {"authorization": f"Bearer {SITEKEY}"}
            for path in ("/v1/checks/chk_" + "0" * 32,):
                assert (await client.get(path, headers=public)).status_code == 401

    asyncio.run(main())


def wrong_at(*places: int) -> Iterator[str]:
    """The secret key with one letter wrong, a different one each time."""
    letters = [letter for letter in string.ascii_letters + string.digits if letter != "a"]
    keys = [SECRET[:place] + letter + SECRET[place + 1 :] for letter in letters for place in places]
    return cycle(keys)


def test_k8__where_a_wrong_key_is_wrong_does_not_show_in_the_time() -> None:
    async def main() -> None:
        async with gate() as running:
            by_secret = running.app._guard(running.engine).tenants.by_secret
            first, last = wrong_at(3, 4, 5), wrong_at(len(SECRET) - 3, len(SECRET) - 1, 40)
            cannot_be_told_apart(lambda: by_secret(next(first)), lambda: by_secret(next(last)))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"server": {"secret": "changeme"}}, "server.secret"),
        ({"server": {"secret": "changeme" * 8}}, "server.secret"),
        ({"site": [site(secret="changeme")]}, "secret_hash"),
        ({"site": [site(secret="sk_changeme")]}, "secret_hash"),
        ({"site": [site(secret="")]}, "secret_hash"),
    ],
    ids=["short", "repeated", "of a site", "with its prefix", "empty"],
)  # fmt: skip
def test_k8__a_secret_that_everybody_knows_is_exit_2(
    tables: dict[str, Any], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for name, table in tables.items():
        for one in table if isinstance(table, list) else [table]:
            lines.append(f"[[{name}]]" if isinstance(table, list) else f"[{name}]")
            lines += [f"{field} = {json.dumps(value)}" for field, value in one.items()]
    path = tmp_path / "gate.toml"
    path.write_text("\n".join(lines))
    assert cli(["serve", "--config", str(path)]) == 2
    assert key in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o644, True)])
def test_k8__a_settings_file_with_a_secret_that_others_may_read_is_warned_of(
    mode: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from gate.settings.read import load

    path = tmp_path / "gate.toml"
    path.write_text(f'[server]\nsecret = "{os.urandom(32).hex()}"\n')
    path.chmod(mode)
    load(str(path), {})
    assert ("chmod 600" in caplog.text) is warned
    path.write_text("[server]\nport = 8080\n")
    caplog.clear()
    load(str(path), {})
    assert not caplog.text


# -- k-9, k-10, k-11 -------------------------------------------------------------------------------


def test_k9__whatever_store_call_fails_the_answer_is_of_the_closed_set() -> None:
    class Broken:
        """A store whose every call fails in a way nobody thought of."""

        def __init__(self, inner: Any, broken: str) -> None:
            self._inner, self._broken = inner, broken

        def __getattr__(self, name: str) -> Any:
            if name == self._broken:
                raise RuntimeError("/var/lib/gate.db: secret path")
            return getattr(self._inner, name)

    async def main(broken: str) -> None:
        async with gate() as running:
            engine = running.engine
            engine.checker._memory._store = Broken(engine.store, broken)
            checked = await running.check("jane@inbox.test")
            found = await running.client.get("/v1/checks/chk_" + "0" * 32, headers=BEARER)
            for answer in (checked, found):
                body = answer.json()
                assert "secret path" not in answer.text and "Traceback" not in answer.text
                if answer.status_code == 200:
                    assert body["decision"] == "allow"
                else:
                    assert body["type"].rpartition(":")[2] in KINDS

    for broken in ("peek", "get", "put", "delete", "claim", "add"):
        asyncio.run(main(broken))


def test_k10__metrics_are_not_on_the_public_port(server: Bound) -> None:
    with httpx.Client(base_url=f"http://{HOST}:{server.port}") as client:
        for path in ("/metrics", "/metrics/", "/admin", "/webhooks", "/debug"):
            assert client.get(path).status_code == 404
            assert client.get(path, headers=BEARER).status_code == 404


def test_k11__every_dependency_is_pinned_with_hashes() -> None:
    for name in ("run", "dev", "bench", "build"):
        text = (ROOT / "scripts" / "lock" / f"{name}.txt").read_text(encoding="utf-8")
        logical = text.replace("\\\n", " ").splitlines()
        wanted = [line for line in logical if line.strip() and not line.startswith(("#", "-"))]
        assert wanted
        assert [line for line in wanted if "==" not in line or "--hash=sha256:" not in line] == []
    install = (ROOT / "scripts" / "install").read_text(encoding="utf-8")
    assert "--require-hashes" in install


def test_k11__the_audit_reads_the_lock_and_refuses_what_is_known_to_be_bad(tmp_path: Path) -> None:
    """The advisories are a file here; the script fetches them where there is a network."""
    lock = tmp_path / "run.txt"
    lock.write_text("idna==3.6 \\\n    --hash=sha256:0\nh11==0.16.0 \\\n    --hash=sha256:0\n")
    script = ROOT / "scripts" / "audit"
    done = subprocess.run([script, lock], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"idna 3\.6.*CVE-2024-3651", done.stdout)
    assert "h11" not in done.stdout
    own = subprocess.run([script], capture_output=True, text=True, check=False)
    assert own.returncode == 0, own.stdout
