"""Bombs inside one message (k-2, k-3, k-6): refused early, at no cost in memory or on the loop."""

from __future__ import annotations

import asyncio
import json

import pytest
import uvloop

from tests.resources.crowd import HOST, bomb
from tests.resources.process import SECRET, gate, settings, world

POST = b"POST /v1/check HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BOMBS = {
    "a chunk for each octet": (CHUNKED, b"1\r\nx\r\n" * 2000),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n" * 5000),
    "long trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"y" * 5000 + b"\r\n"),
    "one trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"y" * 65_536),
    "an extension of a chunk": (CHUNKED + b"1;", b"a=b;" * 5000),
    "a body for a route that has none": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n" * 2000,
    ),
}
MOST = 40_000_000


@pytest.mark.timeout(60)
def test_no_bomb_costs_memory_or_holds_up_the_loop() -> None:
    async def main() -> None:
        async with world(1) as outside:
            with gate(outside.outside, settings()) as running:
                await bomb(running.port, POST + b"Content-Length: 2\r\n\r\n", b"{}", 2)
                for name, (head, part) in BOMBS.items():
                    before = running.memory()
                    taken = await bomb(running.port, head, part, MOST)
                    assert taken < MOST, name
                    assert running.memory() - before < 4, name
                assert await running.lag() < 0.05

    uvloop.run(main())


async def _said(port: int, sent: bytes) -> tuple[int, dict[str, object]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(sent)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.transport.abort()
    return int(head[9:12]), json.loads(body)


def test_a_trailer_is_no_header() -> None:
    """RFC 9110 6.5.1: a proxy that checks headers does not look at what comes behind the body."""
    body = b'{"email":"a@b.test"}'
    chunked = CHUNKED.replace(b"Host: a", b"Host: a\r\nConnection: close") + b"14\r\n" + body
    key = b"Authorization: Bearer " + SECRET.encode()
    cases = {
        "no key": (chunked + b"\r\n0\r\n\r\n", 401),
        "the key behind the body": (chunked + b"\r\n0\r\n" + key + b"\r\n\r\n", 401),
        "the key in front": (
            chunked.replace(b"Host: a", b"Host: a\r\n" + key) + b"\r\n0\r\nX-Late: y\r\n\r\n",
            200,
        ),
    }

    async def main() -> None:
        async with world(1) as outside:
            with gate(outside.outside, settings()) as running:
                for name, (sent, status) in cases.items():
                    got, answer = await _said(running.port, sent)
                    assert got == status, (name, answer)

    uvloop.run(main())
