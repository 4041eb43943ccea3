"""Shared by the rows: a listener that counts whoever comes, wherever the gate thinks it goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from gate import metrics
from gate.egress import IPAddress
from gate.engine import open_engine
from gate.testing import HostRules, ScriptedMta, Seam
from gate.testing.zones import Value
from tests.api.ground import Gate, gate, settings
from tests.lateworld import Place, place


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


@asynccontextmanager
async def gated(
    servers: Mapping[str, HostRules | ScriptedMta],
    zones: Mapping[str, Value] | None = None,
    *,
    sites: list[dict[str, Any]] | None = None,
    client: tuple[str, int] = ("198.51.100.7", 4711),
    **tables: Any,
) -> AsyncIterator[tuple[Gate, Place]]:
    """A whole gate, with its HTTP surface and all its limits, before mail servers of the test."""
    tables = {
        "sandbox": {"enabled": False},
        "probe": {"helo": "gate.example.net", "mail_from": "probe@example.net"},
        **tables,
    }
    async with place(servers, zones=zones) as here:
        opener = partial(open_engine, world=here)
        async with gate(settings(sites, **tables), opener=opener, client=client) as running:
            yield running, here


def resident() -> int:
    """Octets of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
