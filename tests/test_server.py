"""The server on real connections: what it bears, what it cuts off, and how it starts and stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvloop

from gate.api.connection import Connection, House
from gate.api.ops import admin
from gate.reason import GateError
from gate.server import Bound, Listener, bind, run
from gate.settings import Settings
from tests.api.ground import BEARER, SECRET, settings

HOST = "127.0.0.1"
CHECK = (
    f"POST /v1/check HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SECRET}\r\n"
    "Content-Type: application/json\r\nContent-Length: 27\r\n\r\n"
    '{"email":"jane@inbox.test"}'
).encode()
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def config(**tables: Any) -> Settings:
    server = {"host": HOST, "port": 0, "admin_port": 0, **tables.pop("server", {})}
    return settings(server=server, **tables)


@contextmanager
def serving(tables: Settings) -> Iterator[Bound]:
    """A server in a thread of its own, until the block ends."""
    started: list[Bound] = []
    failed: list[BaseException] = []
    up = threading.Event()

    def tell(bound: Bound) -> None:
        started.append(bound)
        up.set()

    def main() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run(tables, started=tell, write=lambda text: None))
        except BaseException as error:
            failed.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=main)
    thread.start()
    try:
        assert up.wait(10)
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        if started:
            started[0].stop()
        thread.join(12)
        assert not thread.is_alive()


OUTLIVED = {"warm_connections": 0}
"""For a server that several tests share: what it keeps open would look like a leak of one."""


@pytest.fixture(scope="module")
def server() -> Iterator[Bound]:
    with serving(config(limits=OUTLIVED)) as bound:
        yield bound


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answers(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes; a reset ends it as well."""
    got = bytearray()
    try:
        while part := await reader.read(65536):
            got += part
    except ConnectionError:
        pass
    return bytes(got)


def statuses(raw: bytes) -> list[int]:
    """The status codes of the answers in `raw`, in order."""
    return [int(part[:3]) for part in raw.split(b"HTTP/1.1 ")[1:]]


async def said(port: int, sent: bytes, *, more: bytes = b"") -> bytes:
    async with connected(port) as (reader, writer):
        writer.write(sent)
        if more:
            await asyncio.sleep(0.05)
            writer.write(more)
        async with asyncio.timeout(5):
            return await answers(reader)


# -- ordinary life ---------------------------------------------------------------------------------


def test_checks_over_a_real_connection(server: Bound) -> None:
    url = f"http://{HOST}:{server.port}"
    with httpx.Client(base_url=url) as client:
        for _ in range(3):
            response = client.post("/v1/check", json={"email": "jane@inbox.test"}, headers=BEARER)
            assert response.json()["reason"] == "accepted_email"
        assert client.post("/v1/check", content=b"{").status_code == 415
        assert client.options("/v1/check").status_code == 403
        assert client.get("/readyz").json()["status"] == "ready"
        assert "server" not in response.headers
        assert response.headers["date"]


async def ask_in_turn(port: int, *sent: bytes) -> list[bytes]:
    """Each request after the answer to the one before, on one connection."""
    got = []
    async with connected(port) as (reader, writer), asyncio.timeout(5):
        for request in sent:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower().partition(b"content-length: ")[2]
            got.append(head + await reader.readexactly(int(fields.partition(b"\r\n")[0])))
    return got


@pytest.mark.parametrize("parts", [1, 2, 7, 40])
def test_a_request_may_come_in_pieces(server: Bound, parts: int) -> None:
    async def main() -> bytes:
        async with connected(server.port) as (reader, writer), asyncio.timeout(5):
            size = -(-len(CHECK) // parts)
            for start in range(0, len(CHECK), size):
                writer.write(CHECK[start : start + size])
                await writer.drain()
                await asyncio.sleep(0.001)
            return await reader.readuntil(b"\r\n\r\n")

    assert statuses(asyncio.run(main())) == [200]


def test_pipelined_requests_are_answered_in_order(server: Bound) -> None:
    slow = CHECK.replace(b"jane@inbox.test", b"slow-99@inbox.test").replace(b": 27", b": 30")
    last = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    got = asyncio.run(said(server.port, slow + CHECK + HEALTH + CHECK + last))
    assert statuses(got) == [200, 200, 200, 200, 404]
    assert got.index(b"slow-99@") < got.index(b"jane@") < got.index(b'{"status":"ok"}')


def test_a_connection_is_kept_for_the_next_request(server: Bound) -> None:
    got = asyncio.run(ask_in_turn(server.port, CHECK, HEALTH, CHECK, HEALTH))
    assert [statuses(part) for part in got] == [[200]] * 4


def test_a_head_that_comes_again_is_answered_for_its_own_body(server: Bound) -> None:
    john, gone = CHECK.replace(b"jane", b"john"), CHECK.replace(b"jane@inbox", b"jane@nomx0")
    wrong = CHECK.replace(SECRET.encode(), b"sk_" + b"0" * (len(SECRET) - 3))
    got = asyncio.run(ask_in_turn(server.port, CHECK, CHECK, john, gone, wrong, CHECK))
    assert [statuses(part)[0] for part in got] == [200, 200, 200, 200, 401, 200]
    emails = [json.loads(part.partition(b"\r\n\r\n")[2]).get("email") for part in got]
    jane = "jane@inbox.test"
    assert emails == [jane, jane, "john@inbox.test", "jane@nomx0.test", None, jane]


def test_a_head_that_comes_again_may_have_more_behind_it(server: Bound) -> None:
    close = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    async def main() -> bytes:
        async with connected(server.port) as (reader, writer), asyncio.timeout(5):
            writer.write(CHECK)
            first = await reader.readuntil(b'token_expires_in":300}')
            writer.write(CHECK + CHECK)
            await writer.drain()
            writer.write(CHECK[:-5])
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(CHECK[-5:] + close)
            return first + await reader.read()

    assert statuses(asyncio.run(main())) == [200, 200, 200, 200, 404]


@pytest.mark.parametrize(
    ("name", "sent", "status"),
    [
        ("asks to close", CHECK.replace(b"Host: a", b"Host: a\r\nConnection: close"), 200),
        ("HTTP/1.0", CHECK.replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
        ("HTTP/1.0 without a host", b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("HEAD", b"HEAD /healthz HTTP/1.0\r\n\r\n", 200),
        ("chunked", CHECK.partition(b"Content-Length")[0] + b"Connection: close\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n1b\r\n" + CHECK[-27:] + b"\r\n0\r\n\r\n", 200),
        ("absolute form", b"GET http://evil.test/healthz HTTP/1.1\r\nHost: a\r\n"
         b"Connection: close\r\n\r\n", 200),
        ("upgrade to h2c", CHECK.replace(b"Host: a", b"Host: a\r\nConnection: close, Upgrade\r\n"
         b"Upgrade: h2c"), 200),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_requests_of_every_shape(server: Bound, name: str, sent: bytes, status: int) -> None:
    assert statuses(asyncio.run(said(server.port, sent)))[0] == status


def test_100_continue(server: Bound) -> None:
    head, body = CHECK[:-27], CHECK[-27:]
    head = head.replace(b"Host: a", b"Host: a\r\nConnection: close\r\nExpect: 100-continue")
    assert statuses(asyncio.run(said(server.port, head, more=body))) == [100, 200]


def test_metrics_on_the_admin_port_and_not_on_the_public_one() -> None:
    with bind(HOST, 0, "x") as free:
        port = free.getsockname()[1]
    with serving(config(server={"admin_port": port})) as bound:
        assert bound.admin_port == port
        text = httpx.get(f"http://{HOST}:{port}/metrics").text
        assert "gate_http_connections" in text
        assert httpx.get(f"http://{HOST}:{bound.port}/metrics").status_code == 404
        assert httpx.get(f"http://{HOST}:{port}/healthz").status_code == 404


# -- what cannot be read ---------------------------------------------------------------------------

POST = b"POST /v1/check HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
BAD = [
    ("both lengths", POST + b"Content-Length: 2\r\n" + CHUNKED + b"0\r\n\r\n", 400),
    ("both, the other way", POST + CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n{}", 400),
    ("negative length", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("signed length", POST + b"Content-Length: +2\r\n\r\n{}", 400),
    ("length of letters", POST + b"Content-Length: 0x2\r\n\r\n{}", 400),
    ("length with a space", POST + b"Content-Length: 2 2\r\n\r\n{}", 400),
    ("two lengths", POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    ("length as a list", POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    ("huge length", POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}", 400),
    ("other encoding", POST + b"Transfer-Encoding: gzip\r\n\r\n{}", 400),
    ("list of encodings", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("encoding twice", POST + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("encoding with a tab", POST + b"Transfer-Encoding:\tx\tchunked\r\n\r\n0\r\n\r\n", 400),
    ("space before the colon", POST + b"Content-Length : 2\r\n\r\n{}", 400),
    ("folded header", POST + b"X: a\r\n b\r\nContent-Length : 2\r\n\r\n{}", 400),
    ("NUL in a header", POST + b"X: a\0b\r\n\r\n", 400),
    ("CR in a header", POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n", 400),
    ("chunk size of letters", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ("chunk size signed", POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
    ("chunk longer than said", POST + CHUNKED + b"1\r\n{}\r\n0\r\n\r\n", 400),
    ("no HTTP", b"hello\r\n\r\n", 400),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("SMTP", b"EHLO mail.example.com\r\n", 400),
    ("lower-case method", b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("HTTP/3.7", b"GET /healthz HTTP/3.7\r\nHost: a\r\n\r\n", 400),
    ("URL beyond ASCII", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT", b"CONNECT evil.test:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("long URL", b"GET /" + b"x" * 2048 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("longer URL", b"GET /" + b"x" * 15_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("endless URL", b"GET /" + b"x" * 70_000, 431),
    ("one long header", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    ("many headers", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 4000 + b"\r\n", 431),
    ("endless headers", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000, 431),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sent", "status"), BAD, ids=[row[0] for row in BAD])
def test_what_cannot_be_read_is_a_problem_and_the_end(
    server: Bound, name: str, sent: bytes, status: int
) -> None:
    got = asyncio.run(said(server.port, sent))
    if got:  # a reset may swallow the answer when more was sent than read
        head, _, body = got.partition(b"\r\n\r\n")
        assert statuses(got) == [status]
        assert b"content-type: application/problem+json" in head
        assert b"connection: close" in head
        assert json.loads(body)["status"] == status
    else:
        assert len(sent) > 60_000


@pytest.mark.parametrize(
    "host",
    [b"", b"Host: a/b\r\n", b"Host: a\r\nHost: b\r\n", b"Host: \r\n"],
    ids=["none", "with a path", "two", "empty"],
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/check"])
def test_bad_hosts(server: Bound, path: str, host: bytes) -> None:
    sent = b"POST %s HTTP/1.1\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n"
    assert statuses(asyncio.run(said(server.port, sent % (path.encode(), host)))) == [400]


def test_garbage_behind_a_good_request_does_not_cost_its_answer(server: Bound) -> None:
    slow = CHECK.replace(b"jane@inbox.test", b"slow-99@inbox.test").replace(b": 27", b": 30")
    for first in (slow, CHECK, HEALTH):
        got = asyncio.run(said(server.port, first + b"\x00garbage\r\n\r\n"))
        assert statuses(got)[0] == 200
        assert set(statuses(got)[1:]) <= {400}


# -- bombs -----------------------------------------------------------------------------------------


async def pour(port: int, head: bytes, part: bytes, most: int) -> tuple[bytes, int]:
    """Send `part` over and over, up to `most` bytes; what was answered, how much was taken."""
    sent = 0
    async with connected(port) as (reader, writer), asyncio.timeout(15):
        reading = asyncio.create_task(answers(reader))
        writer.write(head)
        try:
            while sent < most and not reading.done():
                writer.write(part)
                sent += len(part)
                await writer.drain()
        except ConnectionError:
            pass
        done, _ = await asyncio.wait({reading}, timeout=0.2)
        if not done:
            writer.transport.abort()
        return await reading, sent


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("name", "head", "part", "status"),
    [
        ("64 MB of headers", b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: " + b"y" * 4000 + b"\r\n", 431),
        ("64 MB header", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"y" * 4000, 431),
        ("declared body", POST + b"Content-Length: 200000000\r\n\r\n", b"x" * 65536, 413),
        ("chunked body", POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096
         + b"\r\n", 413),
        ("tiny chunks", POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000, 413),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_bombs_are_cut_short(
    server: Bound, name: str, head: bytes, part: bytes, status: int
) -> None:
    before = rss()
    got, _ = asyncio.run(pour(server.port, head, part, 64_000_000))
    assert statuses(got) in ([status], [])
    assert rss() - before < 4 * 1024 * 1024
    with httpx.Client() as client:
        assert client.get(f"http://{HOST}:{server.port}/healthz").status_code == 200


# -- slow clients ----------------------------------------------------------------------------------


async def until_closed(port: int, sent: bytes, drip: bytes = b"") -> tuple[float, list[int]]:
    """Seconds until the server ends a connection that sent this, and then drips."""
    async with connected(port) as (reader, writer):
        before = time.monotonic()
        reading = asyncio.create_task(answers(reader))
        writer.write(sent)
        while not reading.done() and time.monotonic() - before < 18:
            await asyncio.wait({reading}, timeout=0.25)
            if drip:
                writer.write(drip)
        return time.monotonic() - before, statuses(await reading)


SLOW = {
    "silent": (b"", b"", 5, []),
    "half a head": (b"GET /healthz HT", b"", 5, []),
    "a head that drips": (b"GET / HTTP/1.1\r\nX: ", b"y", 5, []),
    "empty lines": (b"", b"\r\n", 5, []),
    "half a body": (CHECK[:-5], b"", 5, [408]),
    "a body that drips": (POST + b"Content-Length: 900\r\n\r\n", b"x", 5, [408]),
    "chunks that drip": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 5, [408]),
    "half a body for a quiet route": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"", 5, [200]
    ),
    "idle after an answer": (HEALTH, b"", 15, [200]),
    "empty lines after an answer": (HEALTH, b"\r\n", 15, [200]),
}  # fmt: skip


def until_not_taken(port: int) -> float:
    """Seconds until the server ends a connection that asks for a long document again and again,
    and reads nothing.
    """
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(18)
        sock.connect((HOST, port))
        before = time.monotonic()
        while time.monotonic() - before < 18:
            try:
                sock.sendall(ask * 16)
            except OSError:
                break
            time.sleep(0.02)
        return time.monotonic() - before


@pytest.mark.slow
@pytest.mark.timeout(40)
def test_whoever_is_late_or_does_not_take_an_answer_is_cut_off(server: Bound) -> None:
    """All of them at once: each limit is waited for in full."""

    async def main() -> tuple[list[tuple[float, list[int]]], float]:
        not_taken = asyncio.create_task(asyncio.to_thread(until_not_taken, server.port))
        late = await asyncio.gather(
            *(until_closed(server.port, sent, drip) for sent, drip, _, _ in SLOW.values())
        )
        return late, await not_taken

    late, not_taken = asyncio.run(main())
    for name, (took, got) in zip(SLOW, late, strict=True):
        _, _, limit, expected = SLOW[name]
        assert limit <= took + 0.3 and took < limit + 1.2, (name, took)
        assert got == expected, name
    assert 9.5 < not_taken < 14


def test_thousands_of_requests_in_one_go_are_cut_off(server: Bound) -> None:
    for request in (CHECK, HEALTH):
        before = time.monotonic()
        got = asyncio.run(said(server.port, request * 1000))
        assert time.monotonic() - before < 2
        assert set(statuses(got)) <= {200, 400}
        assert len(statuses(got)) <= 34


def test_a_client_that_hangs_up_in_the_middle_hurts_nobody(server: Bound) -> None:
    async def main() -> None:
        slow = CHECK.replace(b"jane@inbox.test", b"slow-99@inbox.test").replace(b": 27", b": 30")
        for sent in (b"", CHECK[:20], CHECK[:-3], slow, CHECK, HEALTH * 3):
            async with connected(server.port) as (_, writer):
                writer.write(sent)
                await writer.drain()
                await asyncio.sleep(0.01)
        assert statuses((await ask_in_turn(server.port, CHECK))[0]) == [200]

    asyncio.run(main())


# -- crowds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GET / HT", CHECK[:-5]], ids=["silent", "head", "body"])
def test_half_open_connections_lock_nobody_out(sent: bytes) -> None:
    async def main(port: int) -> None:
        crowd = [await asyncio.open_connection(HOST, port) for _ in range(150)]
        try:
            for _, writer in crowd:
                writer.write(sent)
            for _ in range(20):
                (got,) = await ask_in_turn(port, CHECK)
                assert statuses(got) == [200]
            await asyncio.sleep(0.1)
            ended = sum(reader.at_eof() or reader.exception() is not None for reader, _ in crowd)
            assert ended >= 110
        finally:
            for _, writer in crowd:
                writer.transport.abort()

    with serving(config(limits={"connections": 40})) as bound:
        asyncio.run(main(bound.port))


def test_when_all_are_being_served_the_next_is_told_to_come_back() -> None:
    slow = CHECK.replace(b"jane@inbox.test", b"slow-700@inbox.test").replace(b": 27", b": 31")

    async def main(port: int) -> None:
        busy = [await asyncio.open_connection(HOST, port) for _ in range(5)]
        try:
            for _, writer in busy:
                writer.write(slow)
            await asyncio.sleep(0.1)
            assert statuses(await said(port, b"")) == [503]
            heads = [await reader.readuntil(b"\r\n\r\n") for reader, _ in busy]
            assert [statuses(head) for head in heads] == [[200]] * 5
        finally:
            for _, writer in busy:
                writer.transport.abort()

    with serving(config(limits={"connections": 5})) as bound:
        asyncio.run(main(bound.port))


def test_one_client_has_at_most_64_connections() -> None:
    async def main() -> None:
        house = House(most=500, exempt=lambda _: False)
        listener = Listener(admin(), house, watches_loop=False)
        with bind(HOST, 0, "x") as listening:
            port = listening.getsockname()[1]
            task = asyncio.create_task(listener.serve(sockets=[listening]))
            await listener.up.wait()
            crowd = [await asyncio.open_connection(HOST, port) for _ in range(64)]
            assert statuses(await said(port, b"")) == [503]
            crowd[0][1].transport.abort()
            await asyncio.sleep(0.05)
            assert statuses((await ask_in_turn(port, HEALTH))[0]) == [404]
            for _, writer in crowd:
                writer.transport.abort()
            listener.should_exit = True
            await task
        assert not house.waiting
        assert not [c for c in house.connections if isinstance(c, Connection)]

    asyncio.run(main())


# -- start and stop --------------------------------------------------------------------------------


def test_a_port_that_is_taken() -> None:
    with bind(HOST, 0, "server.port") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GateError, match=rf"server\.port: 127\.0\.0\.1, port {port} is taken"):
            asyncio.run(run(config(server={"port": port})))
        with pytest.raises(GateError, match=r"server\.admin_port: "):
            asyncio.run(run(config(server={"admin_port": port})))


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("203.0.113.7", "no address of this machine"),
        ("no-such-host.invalid", "cannot listen on"),
    ],
)
def test_a_host_that_is_not_ours(host: str, said: str) -> None:
    with pytest.raises(GateError, match=f"server.host: .*{said}"):
        bind(host, 0, "server.port")


def test_a_store_that_cannot_be_opened(tmp_path: Any) -> None:
    with pytest.raises(GateError):
        asyncio.run(run(config(store={"url": f"sqlite:{tmp_path}/missing/gate.db"})))


DESCRIPTORS = """
import resource, sys
from gate.reason import GateError
from gate.server import connections_most
from gate.settings.read import parse
soft, hard = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    print(connections_most(parse({})), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except GateError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (4096, 4096, "2048 4096"),
        (256, 4096, "2048 3281"),
        (256, 2000, "1024 2000"),
        (256, 256, "refused: limits: 2048 connections and 256 dialogues need 3281 open files"),
    ],
)
def test_descriptors_are_counted_before_they_run_out(soft: int, hard: int, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DESCRIPTORS, str(soft), str(hard)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(expected)


PROCESS = """
import sys
from gate.server import serve
from gate.settings.read import parse
serve(parse({
    "store": {"url": "memory:"},
    "sandbox": {"enabled": True},
    "dns": {"servers": ["127.0.0.1:9"]},
    "server": {"port": int(sys.argv[1]), "admin_port": 0},
}))
"""


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], int, list[dict[str, Any]]]]:
    """The server as a process of its own; its log so far, with the line that says it listens."""
    with bind(HOST, 0, "x") as free:
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(port)], stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    log = []
    try:
        for line in child.stderr:
            log.append(json.loads(line))
            if log[-1]["message"].startswith("development site"):
                break
        yield child, port, log
    finally:
        child.kill()
        child.wait()
        child.stderr.close()


def test_the_start_is_told_in_log_lines() -> None:
    with process() as (_, port, log):
        told = " ".join(line["message"] for line in log)
    assert f"listening on http://127.0.0.1:{port}" in told
    assert "sandbox: " in told
    assert "site key pk_dev_" in told and "secret key sk_dev_" in told
    assert all({"ts", "event", "level", "logger", "message"} <= set(line) for line in log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_under_way_finish(number: signal.Signals) -> None:
    async def main(child: subprocess.Popen[str], port: int, log: list[dict[str, Any]]) -> None:
        secret = log[-1]["message"].rpartition(" ")[2].encode()
        slow = CHECK.replace(b"jane@inbox.test", b"slow-400@inbox.test").replace(b": 27", b": 31")
        slow = slow.replace(SECRET.encode(), secret).replace(b"Host: a", b"Host: localhost")
        halves = [await asyncio.open_connection(HOST, port) for _ in range(20)]
        for index, (_, writer) in enumerate(halves):
            writer.write((b"", b"GET / HT", CHECK[:-5], HEALTH)[index % 4])
        async with connected(port) as (reader, writer):
            writer.write(slow)
            await asyncio.sleep(0.15)
            child.send_signal(number)
            before = time.monotonic()
            got = await answers(reader)
            assert statuses(got) == [200]
            assert b'"reason":"accepted_email"' in got
        with pytest.raises(OSError):
            await asyncio.open_connection(HOST, port)
        assert await asyncio.to_thread(child.wait, 10) == 0
        assert time.monotonic() - before < 3
        for _, writer in halves:
            writer.transport.abort()

    with process() as (child, port, log):
        asyncio.run(main(child, port, log))
        assert child.stderr is not None
        lines = [json.loads(line) for line in child.stderr]
    decisions = [line for line in lines if line["event"] == "decision"]
    assert [line["reason"] for line in decisions] == ["accepted_email"]
    assert lines[-1]["message"] == "stopped"
