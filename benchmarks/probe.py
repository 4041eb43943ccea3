"""What a dialogue costs, beside aiosmtplib and smtplib holding the same one (promises S3, S4).

Every variant asks about one mailbox and one random recipient, RSET behind each, and says QUIT. The
gate has two rows: the dialogue (guard, connection, pipelined talk), which is what the libraries do,
and the whole probe, which also walks, waits for its place and says what the replies mean. The peer
is a small sink in a process of its own; with two cores the client has one for itself. Rounds are
short and alternate, so that noise hits all alike; the median counts.

    python -m benchmarks.probe [dialogues per round] [rounds]
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import random
import smtplib
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from ipaddress import ip_address
from multiprocessing.connection import Connection as Pipe

import aiosmtplib
import uvloop

from benchmarks.record import judge, record
from gate.address import Address, parse
from gate.budget import FLIGHT, Deadline
from gate.dns import MailRoute, MxHost
from gate.egress import Dialer, Source
from gate.reason import Reason
from gate.smtp.caps import PLACES_ONLY
from gate.smtp.dialog import Dialog, Stage
from gate.smtp.probe import Prober
from gate.smtp.session import Session, tls_context
from gate.smtp.throttle import Throttle
from gate.testing import HostRules, MailHost
from gate.trace import Trace

IN_FLIGHT = 50
STUCK = 1000
MX = ip_address("8.8.8.8")
CONTEXT = tls_context()
HELO, SENDER, REAL, CONTROL = "gate.test", "probe@gate.test", "jane@a.test", "x4f7k2m9q3z8v5w1"

S3_ROUND_TRIPS = 4
S4_PER_SECOND = 6_000
S4_CPU_MS = 0.16
S4_KIB_STUCK = 8
S4_RATIO = 2.5


# -- the peer ----------------------------------------------------------------------------


class Sink(asyncio.Protocol):
    """Answers as fast as it can: jane exists, nobody else. `silent`: greets and says no more."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(b"220 mx.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        if self.silent:
            return
        *lines, self.held = (self.held + data).split(b"\r\n")
        self.transport.write(b"".join(map(self.answer, lines)))
        if lines[-1:] == [b"QUIT"]:
            self.transport.close()

    @staticmethod
    def answer(line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"250-mx.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250 8BITMIME\r\n"
        if verb == b"RCPT" and b"jane" not in line:
            return b"550 5.1.1 <x@a.test>: Recipient address rejected: User unknown\r\n"
        return b"221 2.0.0 Bye\r\n" if verb == b"QUIT" else b"250 2.1.0 Ok\r\n"


def serve_sink(pipe: Pipe, core: int, silent: bool) -> None:
    pin(core)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Sink(silent), "127.0.0.1", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[:2])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


@contextmanager
def sink(*, silent: bool = False) -> Iterator[tuple[str, int]]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_sink, args=(there, 1, silent), daemon=True
    )
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def pin(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


# -- the variants ----------------------------------------------------------------------------


def dialer_for(where: tuple[str, int]) -> Dialer:
    return Dialer(sources=[Source(None, HELO)], seam=lambda ip, port: where)


def prober_for(where: tuple[str, int], *, warm: int = 0) -> Prober:
    """`warm`: connections kept for the next question; with none, every dialogue is a cold one."""
    return Prober(
        dialer=dialer_for(where),
        mail_from=SENDER,
        tls="when-required",
        throttle=Throttle(
            clock=time.monotonic,
            caps=replace(PLACES_ONLY, dialogues=2 * STUCK, destination_dialogues=2 * STUCK),
        ),
        clock=time.monotonic,
        random=random.Random(1),
        tls_context=CONTEXT,
        warm=warm,
    )


@cache
def parsed(number: int = 0) -> Address:
    """Jane of a domain of her own: the random recipient of a domain is asked once only."""
    found = parse(REAL.replace("@", f"@d{number}."))
    assert isinstance(found, Address)
    return found


ROUTE = MailRoute(
    "a.test", (MxHost("mx.a.test", 10, (MX,), False),), False, False, None, "", 0.0, 3600.0
)


async def in_flight(one: Callable[[], Awaitable[None]], count: int) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


async def whole_probe(where: tuple[str, int], count: int) -> None:
    prober, numbers = prober_for(where), iter(range(count))

    async def one() -> None:
        finding = await prober.probe(
            parsed(next(numbers)),
            ROUTE,
            control=CONTROL,
            deadline=Deadline.after(FLIGHT, time.monotonic),
            trace=Trace(time.monotonic, on=False),
        )
        assert finding.mailbox is not None and finding.control is not None
        assert finding.mailbox.reason is Reason.ACCEPTED_EMAIL
        assert finding.control.reason is Reason.REJECTED_EMAIL

    await in_flight(one, count)
    await prober.close()


async def dialogue(where: tuple[str, int], count: int) -> None:
    dialer = dialer_for(where)
    alive: set[Session] = set()

    async def one() -> None:
        deadline = Deadline.after(FLIGHT, time.monotonic)
        dialog = Dialog(
            helo=HELO,
            mail_from=SENDER,
            recipient=REAL,
            control=f"{CONTROL}@a.test",
            tls="when-required",
            smtputf8=False,
        )
        session = Session(dialog, helo=HELO, deadline=deadline, context=CONTEXT, alive=alive)
        await dialer.dial(lambda: session, [MX], source=dialer.sources[0], deadline=deadline)
        await session.run("mx.a.test")
        real, control = dialog.reply_to(Stage.RCPT), dialog.reply_to(Stage.CONTROL)
        assert real is not None and control is not None
        assert (real.code, control.code) == (250, 550)

    await in_flight(one, count)
    for session in tuple(alive):
        session.abort()
        await session.gone()


async def with_aiosmtplib(where: tuple[str, int], count: int) -> None:
    async def one() -> None:
        client = aiosmtplib.SMTP(
            hostname=where[0], port=where[1], local_hostname=HELO, start_tls=False, timeout=12.0
        )
        await client.connect()
        await client.ehlo()
        await client.mail(SENDER)
        await client.rcpt(REAL)
        await client.rset()
        await client.mail(SENDER)
        try:
            await client.rcpt(f"{CONTROL}@a.test")
        except aiosmtplib.SMTPRecipientRefused:
            await client.rset()
        await client.quit()

    await in_flight(one, count)


def with_smtplib(where: tuple[str, int], count: int) -> None:
    def one(_: int) -> None:
        with smtplib.SMTP(where[0], where[1], local_hostname=HELO, timeout=12.0) as client:
            client.ehlo()
            client.mail(SENDER)
            assert client.rcpt(REAL)[0] == 250
            client.rset()
            client.mail(SENDER)
            assert client.rcpt(f"{CONTROL}@a.test")[0] == 550
            client.rset()

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(one, range(count)))


def on(loop: str, variant: Variant, where: tuple[str, int], count: int) -> None:
    async def scene() -> None:
        await variant(where, count)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scene())


Variant = Callable[[tuple[str, int], int], Awaitable[None]]
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
VARIANTS: dict[str, Variant] = {
    "gate, the dialogue": dialogue,
    "gate, the whole probe": whole_probe,
    "aiosmtplib": with_aiosmtplib,
}
THREADS = "smtplib, 50 threads"


# -- measuring ----------------------------------------------------------------------------


@dataclass
class Cost:
    """One round: dialogues a second, and CPU milliseconds of this process for each."""

    per_second: float
    cpu_ms: float


def measure(run: Callable[[], None], count: int) -> Cost:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Cost(count / (time.perf_counter() - wall), 1000 * (time.process_time() - cpu) / count)


def compare(count: int, rounds: int) -> dict[tuple[str, str], Cost]:
    """The median cost of each (loop, variant)."""
    found: dict[tuple[str, str], list[Cost]] = {}
    with sink() as where:
        for _ in range(rounds):
            for loop in LOOPS:
                for name, variant in VARIANTS.items():
                    cost = measure(partial(on, loop, variant, where, count), count)
                    found.setdefault((loop, name), []).append(cost)
            cost = measure(partial(with_smtplib, where, count), count)
            found.setdefault(("", THREADS), []).append(cost)
    return {
        key: Cost(
            statistics.median(cost.per_second for cost in costs),
            statistics.median(cost.cpu_ms for cost in costs),
        )
        for key, costs in found.items()
    }


async def stuck_kib() -> float:
    """Memory of one probe that waits for an answer, sockets in the kernel not counted."""
    with sink(silent=True) as where:
        prober, address = prober_for(where), parsed()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [
            asyncio.create_task(
                prober.probe(
                    address,
                    ROUTE,
                    control=CONTROL,
                    deadline=Deadline.after(FLIGHT, time.monotonic),
                    trace=Trace(time.monotonic, on=False),
                )
            )
            for _ in range(STUCK)
        ]
        await asyncio.sleep(2.0)
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await prober.close()
    return used / STUCK / 1024


async def round_trips() -> int:
    """Of one cold dialogue with its control, counted by the server; TCP connect included."""
    async with MailHost(HostRules(users=["jane"])) as host:
        await whole_probe(host.address, 1)
        return host.connections[0].round_trips


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    pin(0)
    costs = compare(count, rounds)
    print(f"{'loop':9}{'variant':24}{'dialogues/s':>12}{'CPU ms':>9}{'x aiosmtplib':>14}")
    for (loop, name), cost in costs.items():
        rival = costs[loop or "asyncio", "aiosmtplib"]
        times = cost.per_second / rival.per_second
        print(f"{loop:9}{name:24}{cost.per_second:12.0f}{cost.cpu_ms:9.3f}{times:14.2f}")
    ours, rival = costs["uvloop", "gate, the dialogue"], costs["uvloop", "aiosmtplib"]
    trips, kib = asyncio.run(round_trips()), asyncio.run(stuck_kib())
    rows = [
        ("S3 round trips, cold", trips, "<=", S3_ROUND_TRIPS),
        ("S4 dialogues/s a core", ours.per_second, ">=", S4_PER_SECOND),
        ("S4 CPU ms each", ours.cpu_ms, "<=", S4_CPU_MS),
        ("S4 times aiosmtplib", ours.per_second / rival.per_second, ">=", S4_RATIO),
        ("S4 KiB while stuck", kib, "<=", S4_KIB_STUCK),
    ]
    promises = judge(rows, digits=2)
    if len(sys.argv) == 1:
        figures = {
            f"{name}, {loop or 'threads'}": {"per_second": cost.per_second, "cpu_ms": cost.cpu_ms}
            for (loop, name), cost in costs.items()
        }
        record("probe", promises=promises, figures=figures)


if __name__ == "__main__":
    main()
