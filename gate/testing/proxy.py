"""`FaultyProxy`: stands before a TCP server on loopback and makes the network between them bad.

    async with FaultyProxy(("127.0.0.1", 6379)) as proxy:
        store = await open_store(f"redis://127.0.0.1:{proxy.address[1]}/0", …)
        proxy.faults = Faults(latency=0.5)  # from now on, on old and new connections
        proxy.reset()                       # RST to everybody
        await proxy.down()                  # and refuse who comes, on the same port …
        await proxy.up()                    # … until now

Both directions suffer the same. It reads no protocol, and holds at most one piece each way.
Bugs: TCP only; answers of a name server over UDP are made bad by `gate.testing.zones`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

from gate.reason import GateError

PIECE: Final = 64 * 1024
"""Octets that are carried at once."""
RST: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to the bytes. Seconds and octets; nothing of it by default.

    `answer`: what a client says gets no further, and each piece of it is answered with this.
    `latency`: each piece is late by so much. `bandwidth`: octets a second. `slices`: octets of a
    segment, `pause` seconds between two of them. `silent`: nothing gets through, and nobody is
    told. `slow_close`: the end of a connection is passed on so much later.
    """

    answer: bytes = b""
    latency: float = 0.0
    bandwidth: float | None = None
    slices: int | None = None
    pause: float = 0.0
    silent: bool = False
    slow_close: float = 0.0


class FaultyProxy:
    """An async context manager; `address` is where it listens, `faults` may change at any time.

    `accepted` counts connections, `carried` the octets that got through, both ways together.
    """

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1") -> None:
        for end in (target[0], host):
            if not ip_address(end).is_loopback:
                raise GateError(f"{end} is not a loopback address; the proxy leads nowhere else")
        self.faults = Faults()
        self.address = (host, 0)
        self.accepted = 0
        self.carried = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def __repr__(self) -> str:
        state = "up" if self._server else "down"
        return f"<FaultyProxy {state}, {len(self._writers) // 2} connections, {self.faults}>"

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.down()

    async def up(self) -> None:
        """Accept connections, on the port of before."""
        host, port = self.address
        self._server = await asyncio.start_server(self._serve, host, port)
        self.address = self._server.sockets[0].getsockname()[:2]

    async def down(self) -> None:
        """Refuse connections, and reset those there are."""
        if self._server is not None:
            self._server.close()
        self.reset()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        self._server = None

    def reset(self) -> None:
        """Drop every connection with RST, at both ends."""
        for writer in tuple(self._writers):
            sock: socket.socket | None = writer.get_extra_info("socket")
            if sock is not None and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        self._writers.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            answers, behind = await asyncio.open_connection(*self._target)
            self._writers.add(behind)
            there = self._carry(reader, behind, back=writer)
            await asyncio.gather(there, self._carry(answers, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the peer is gone, or the proxy goes down
        finally:
            for end in (writer, behind):
                if end is not None:
                    end.transport.abort()
                    self._writers.discard(end)
            self._tasks.discard(task)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter | None = None,
    ) -> None:
        """One direction, until its end. `back`: the way to who speaks, if that is the client."""
        while data := await reader.read(PIECE):
            faults = self.faults
            if faults.silent:
                continue
            if faults.answer and back is not None:
                back.write(faults.answer)
                continue
            await asyncio.sleep(faults.latency)
            size = faults.slices or len(data)
            for at in range(0, len(data), size):
                piece = data[at : at + size]
                if faults.bandwidth:
                    await asyncio.sleep(len(piece) / faults.bandwidth)
                writer.write(piece)
                await writer.drain()
                self.carried += len(piece)
                await asyncio.sleep(faults.pause if faults.slices else 0)
        await asyncio.sleep(self.faults.slow_close)
        if writer.can_write_eof():
            writer.write_eof()
