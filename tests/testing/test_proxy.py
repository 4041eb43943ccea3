"""The faulty proxy, in front of a server that says everything back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gate.reason import GateError
from gate.testing import Faults, FaultyProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def before_an_echo() -> AsyncIterator[FaultyProxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with FaultyProxy(server.sockets[0].getsockname()[:2]) as proxy:
        yield proxy
    server.close()
    await asyncio.sleep(0.01)  # the echo notices that its client is gone
    await server.wait_closed()


def scene(body: Callable[[FaultyProxy], Awaitable[None]]) -> None:
    async def main() -> None:
        async with before_an_echo() as proxy:
            await body(proxy)

    asyncio.run(main())


async def said_back(proxy: FaultyProxy, data: bytes) -> tuple[list[bytes], float]:
    """The pieces that come back, and the seconds it took."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(*proxy.address)
    writer.write(data)
    pieces: list[bytes] = []
    try:
        while len(b"".join(pieces)) < len(data):
            pieces.append(await reader.read(4096))
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)
    assert b"".join(pieces) == data
    return pieces, time.monotonic() - started


def test_without_faults_all_is_carried() -> None:
    async def body(proxy: FaultyProxy) -> None:
        _, took = await said_back(proxy, b"hello")
        assert took < 0.5
        assert (proxy.accepted, proxy.carried) == (1, 10)

    scene(body)


@pytest.mark.parametrize(
    ("faults", "least"),
    [
        (Faults(latency=0.1), 0.2),
        (Faults(bandwidth=100), 0.2),
        (Faults(slices=1, pause=0.02), 0.1),
    ],
    ids=["latency", "bandwidth", "slicer"],
)
def test_bytes_are_late(faults: Faults, least: float) -> None:
    async def body(proxy: FaultyProxy) -> None:
        proxy.faults = faults
        pieces, took = await said_back(proxy, b"0123456789")
        assert least <= took < least + 1
        assert len(pieces) > 1 or faults.slices is None

    scene(body)


def test_silence_swallows_everything() -> None:
    async def body(proxy: FaultyProxy) -> None:
        proxy.faults = Faults(silent=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await said_back(proxy, b"hello")
        assert proxy.carried == 0

    scene(body)


def test_an_answer_of_its_own() -> None:
    async def body(proxy: FaultyProxy) -> None:
        reader, writer = await asyncio.open_connection(*proxy.address)
        proxy.faults = Faults(answer=b"-LOADING\r\n")
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"-LOADING\r\n"
        proxy.faults = Faults()
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"PING\r\n"
        writer.transport.abort()
        assert proxy.carried == 12

    scene(body)


def test_the_end_of_a_connection_may_be_slow() -> None:
    async def body(proxy: FaultyProxy) -> None:
        proxy.faults = Faults(slow_close=0.1)
        reader, writer = await asyncio.open_connection(*proxy.address)
        started = time.monotonic()
        writer.write_eof()
        assert await reader.read() == b""
        assert time.monotonic() - started >= 0.1
        writer.transport.abort()

    scene(body)


def test_down_refuses_and_resets_and_up_is_the_same_port() -> None:
    async def body(proxy: FaultyProxy) -> None:
        reader, writer = await asyncio.open_connection(*proxy.address)
        writer.write(b"hello")
        await reader.read(5)
        await proxy.down()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.transport.abort()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*proxy.address)
        await proxy.up()
        await said_back(proxy, b"again")

    scene(body)


def test_it_leads_nowhere_but_to_loopback() -> None:
    with pytest.raises(GateError, match="loopback"):
        FaultyProxy(("192.0.2.1", 25))
