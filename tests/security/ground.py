"""Shared by the rows: a listener that counts whoever comes, wherever the gate thinks it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gate import metrics
from gate.egress import IPAddress
from gate.testing import Seam


class CatchAll(Seam):
    """Every address that the guard lets pass, known or not, leads to one listener, which counts.

    What the test planned (`add`) still leads where it was planned to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.accepted = 0
        self.ports: list[int] = []
        self.listener = ("127.0.0.1", 0)

    def __call__(self, ip: IPAddress, port: int) -> tuple[str, int]:
        self.ports.append(port)
        try:
            return super().__call__(ip, port)
        except LookupError:
            return self.listener


@asynccontextmanager
async def catch_all() -> AsyncIterator[CatchAll]:
    """One that listens. It says 220 to whoever comes, and nothing more."""
    seam = CatchAll()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seam.accepted += 1
        writer.transport.abort()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    seam.listener = server.sockets[0].getsockname()[:2]
    try:
        yield seam
    finally:
        server.close()
        await server.wait_closed()


def blocked() -> float:
    """How many addresses were refused so far, of every class."""
    return sum(
        sample.value
        for family in metrics.EGRESS_BLOCKED.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


def blocked_as(label: str) -> float:
    """How many of one class."""
    value: float = metrics.EGRESS_BLOCKED.labels(label)._value.get()
    return value
