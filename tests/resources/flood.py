"""A flood of one site's pages, and whoever is timed beside it: each in a process of its own, so
that what measures is neither what floods nor what plays the world.

Each request of the flood is a page's, with the site key and another client address (as a trusted
proxy says it); answers are read, and searched for what must never be in them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe

import uvloop

from tests.resources.crowd import HOST, Times, steadily

CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Flood:
    """So many requests a second, about `email` with a running number for its %d. `foreign`: octets
    that no answer may hold.
    """

    port: int
    site_key: str
    rate: float
    email: str
    foreign: bytes


@dataclass(slots=True)
class Tally:
    """What came back: by status and decision, and the answers that held foreign octets."""

    answers: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    seconds: float = 0.0


@contextmanager
def flooding(flood: Flood) -> Iterator[Pipe]:
    """While held, it floods; `send` anything and `recv` the `Tally` to end it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(flood, theirs))
    process.start()
    theirs.close()
    try:
        assert ours.recv() == "flooding"
        yield ours
    finally:
        ours.close()
        process.join(10)
        if process.exitcode is None:
            process.kill()
            process.join()
        process.close()


async def measured(
    port: int, secret: str, emails: Sequence[str], rate: float, seconds: float
) -> Times:
    """`steadily`, elsewhere."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    asked = (port, secret, emails, rate, seconds)
    process = context.Process(target=_measure, args=(*asked, theirs))
    process.start()
    theirs.close()
    times: Times = await asyncio.to_thread(ours.recv)
    await asyncio.to_thread(process.join)
    process.close()
    ours.close()
    return times


def _measure(
    port: int, secret: str, emails: Sequence[str], rate: float, seconds: float, pipe: Pipe
) -> None:
    pipe.send(uvloop.run(steadily(port, secret, emails, rate, seconds)))


def _child(flood: Flood, pipe: Pipe) -> None:
    uvloop.run(_flood(flood, pipe))


async def _flood(flood: Flood, pipe: Pipe) -> None:
    tally, started, over = Tally(), time.perf_counter(), asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), over.set)
    tasks = [asyncio.create_task(_one(flood, number, tally)) for number in range(CONNECTIONS)]
    pipe.send("flooding")
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tally.seconds = time.perf_counter() - started
    try:
        pipe.recv()
        pipe.send(tally)
    except (EOFError, OSError):
        pass  # nobody wants to know


async def _one(flood: Flood, first: int, tally: Tally) -> None:
    started, number = time.perf_counter(), first
    reader, writer = await asyncio.open_connection(HOST, flood.port)
    while True:
        due = started + (number - first) / flood.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = f"sitekey={flood.site_key}&email={flood.email % number}".encode()
        client = f"9.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        writer.write(
            b"POST /v1/check HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded"
            b"\r\nX-Forwarded-For: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (client.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        said = await reader.readexactly(length)
        reason = said.partition(b'"reason":"')[2].partition(b'"')[0].decode()
        tally.answers[f"{head[9:12].decode()} {reason}"] += 1
        tally.foreign += flood.foreign in head + said
        number += CONNECTIONS
