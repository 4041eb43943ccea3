"""What a warm connection saves: round trips, milliseconds and CPU, beside aiosmtplib (S3, S4).

First with 40 ms added to every answer of the host, as a distant one takes: a cold check, a check on
a warm connection, a check after a prefetch, and aiosmtplib holding the same dialogue anew and on a
connection that it keeps. Then how many questions a second one core asks on warm connections, and
what each costs, in the same run as aiosmtplib; the peer is the sink of benchmarks.probe, in a
process of its own. A domain's first question holds a random recipient, so that a cold one has it; a
warm one has it only for a domain that is new.

    python -m benchmarks.warm [questions per round] [rounds]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import aiosmtplib
import uvloop

from benchmarks.probe import (
    CONTEXT,
    CONTROL,
    HELO,
    IN_FLIGHT,
    MX,
    REAL,
    ROUTE,
    SENDER,
    Cost,
    dialer_for,
    measure,
    parsed,
    pin,
    prober_for,
    sink,
    with_aiosmtplib,
)
from benchmarks.record import judge, record
from gate.budget import FLIGHT, Deadline
from gate.reason import Reason
from gate.smtp.dialog import Dialog, Stage
from gate.smtp.finding import Finding
from gate.smtp.probe import Prober
from gate.smtp.session import Session
from gate.testing import HostRules, MailHost
from gate.trace import Trace

ANSWER = 0.04
"""Seconds that the distant host takes for each answer."""
AGAIN = 9
"""Questions asked of it in each way: fewer than wear a connection out."""
KEPT = 128
S3_COLD, S3_WARM = 4, 1
S4_RATIO = 10


# -- a distant host -------------------------------------------------------------------------------


class Distant(MailHost):
    """A host whose greeting takes as long as its other answers; the connect has no host to wait
    for it, so it is added by the client's side of the measurement."""

    async def talk(self, connection) -> None:  # type: ignore[no-untyped-def]
        await asyncio.sleep(ANSWER)
        await super().talk(connection)


@dataclass
class Way:
    """One way of asking: round trips of a question, and the median of its milliseconds."""

    trips: float
    ms: float


async def probe(prober: Prober, control: str | None = None) -> Finding:
    finding = await prober.probe(
        parsed(),
        ROUTE,
        control=control,
        deadline=Deadline.after(FLIGHT, time.monotonic),
        trace=Trace(time.monotonic, on=False),
    )
    assert finding.mailbox is not None and finding.mailbox.reason is Reason.ACCEPTED_EMAIL
    return finding


async def timed(
    host: MailHost, ask: Callable[[], Awaitable[object]], *, fresh: bool, before: object = None
) -> Way:
    """The same question AGAIN times. `fresh`: each on a connection of its own; `before` is done
    ahead of each and not counted."""
    taken, trips = [], []
    for _ in range(AGAIN):
        if callable(before):
            await before()
        counted = 0 if fresh else sum(one.round_trips for one in host.connections)
        host_before = host.accepted
        began = time.perf_counter()
        await ask()
        taken.append(1000 * (time.perf_counter() - began + (ANSWER if fresh else 0.0)))
        if fresh:
            assert host.accepted == host_before + 1
            trips.append(host.connections[-1].round_trips)
        else:
            trips.append(sum(one.round_trips for one in host.connections) - counted)
    return Way(statistics.fmean(trips), statistics.median(taken))


async def distant() -> dict[str, Way]:
    """Every way of asking a distant host."""
    found: dict[str, Way] = {}
    rules = HostRules(users=["jane"], round_trip=ANSWER)
    async with AsyncExitStack() as stack:

        async def opened() -> Distant:
            return await stack.enter_async_context(Distant(rules))

        host = await opened()
        cold = prober_for(host.address)
        found["gate, cold"] = await timed(host, partial(probe, cold, CONTROL), fresh=True)
        await cold.close()
        host = await opened()
        warm = prober_for(host.address, warm=KEPT)
        await probe(warm, CONTROL)
        found["gate, warm"] = await timed(host, partial(probe, warm), fresh=False)
        await warm.close()
        host = await opened()
        found["gate, after a prefetch"] = await prefetched(host)
        host = await opened()
        client = partial(with_aiosmtplib, host.address, 1)
        found["aiosmtplib, cold"] = await timed(host, client, fresh=True)
        host = await opened()
        async with kept(host.address) as smtp:
            found["aiosmtplib, kept"] = await timed(host, partial(again, smtp), fresh=False)
    return found


async def prefetched(host: MailHost) -> Way:
    """The first check of a destination whose domain was announced before."""
    taken, trips = [], []
    for _ in range(AGAIN):
        prober = prober_for(host.address, warm=KEPT)
        deadline = Deadline.after(FLIGHT, time.monotonic)
        await prober.warm("a.test", ROUTE, deadline=deadline, site="")
        before = host.connections[-1].round_trips
        began = time.perf_counter()
        await probe(prober, CONTROL)
        taken.append(1000 * (time.perf_counter() - began))
        trips.append(host.connections[-1].round_trips - before)
        await prober.close()
    return Way(statistics.fmean(trips), statistics.median(taken))


# -- many questions on connections that stay ------------------------------------------------------


def kept(where: tuple[str, int]) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=where[0], port=where[1], local_hostname=HELO, start_tls=False, timeout=12.0
    )


async def again(client: aiosmtplib.SMTP) -> None:
    await client.mail(SENDER)
    await client.rcpt(REAL)
    await client.rset()


async def again_with_control(client: aiosmtplib.SMTP) -> None:
    await again(client)
    await client.mail(SENDER)
    try:
        await client.rcpt(f"{CONTROL}@a.test")
    except aiosmtplib.SMTPRecipientRefused:
        await client.rset()


async def aiosmtplib_kept(
    where: tuple[str, int], count: int, ask: Callable[[aiosmtplib.SMTP], Awaitable[None]]
) -> None:
    async def work(share: int) -> None:
        async with kept(where) as client:
            await client.ehlo()
            for _ in range(share):
                await ask(client)

    await asyncio.gather(*(work(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))


async def gate_sessions(where: tuple[str, int], count: int, *, control: str | None = None) -> None:
    """The dialogue alone: a question, its answers, on sessions that stay open."""
    dialer, alive = dialer_for(where), set[Session]()

    async def work(share: int) -> None:
        deadline = Deadline.after(FLIGHT, time.monotonic)
        dialog = Dialog(
            helo=HELO,
            mail_from=SENDER,
            recipient=None,
            control=None,
            tls="when-required",
            smtputf8=False,
        )
        session = Session(
            dialog, helo=HELO, deadline=deadline, context=CONTEXT, alive=alive, stay=True
        )
        await dialer.dial(lambda: session, [MX], source=dialer.sources[0], deadline=deadline)
        await session.run("mx.a.test")
        for _ in range(share):
            assert session.usable()
            session.ask(
                REAL,
                control,
                smtputf8=False,
                deadline=Deadline.after(FLIGHT, time.monotonic),
            )
            await session.run("mx.a.test")
            real, random = dialog.reply_to(Stage.RCPT), dialog.reply_to(Stage.CONTROL)
            assert real is not None and real.code == 250
            assert (random.code if random else None) == (550 if control else None)
        session.leave()

    await asyncio.gather(*(work(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    for session in tuple(alive):
        await session.gone()


async def gate_probes(where: tuple[str, int], count: int) -> None:
    """Whole probes: admission, the pool with its limits of wear, walk, classification."""
    prober = prober_for(where, warm=KEPT)
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await probe(prober)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    await prober.close()


WARM = "gate, dialogue, warm"
RIVAL = "aiosmtplib, cold + random"
VARIANTS: dict[str, Callable[[tuple[str, int], int], Awaitable[None]]] = {
    WARM: gate_sessions,
    f"{WARM} + random": partial(gate_sessions, control=f"{CONTROL}@a.test"),
    "gate, whole probes, warm": gate_probes,
    "aiosmtplib, kept": partial(aiosmtplib_kept, ask=again),
    "aiosmtplib, kept + random": partial(aiosmtplib_kept, ask=again_with_control),
    "aiosmtplib, cold + random": with_aiosmtplib,
}


def compare(count: int, rounds: int) -> dict[str, Cost]:
    """The median cost of each variant."""
    found: dict[str, list[Cost]] = {}

    def on_loop(variant: Callable[[], Awaitable[None]]) -> None:
        async def scene() -> None:
            await variant()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scene())

    with sink() as where:
        for _ in range(rounds):
            for name, variant in VARIANTS.items():
                cost = measure(partial(on_loop, partial(variant, where, count)), count)
                found.setdefault(name, []).append(cost)
    return {
        name: Cost(
            statistics.median(cost.per_second for cost in costs),
            statistics.median(cost.cpu_ms for cost in costs),
        )
        for name, costs in found.items()
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    ways = asyncio.run(distant())
    print(f"{'every answer takes 40 ms':28}{'round trips':>12}{'ms':>8}")
    for name, way in ways.items():
        print(f"{name:28}{way.trips:12.1f}{way.ms:8.1f}")
    pin(0)
    costs = compare(count, rounds)
    rival = costs[RIVAL]
    print(f"\n{'many at once':28}{'questions/s':>12}{'CPU ms':>8}{'x the last':>12}")
    for name, cost in costs.items():
        times = cost.per_second / rival.per_second
        print(f"{name:28}{cost.per_second:12.0f}{cost.cpu_ms:8.3f}{times:12.1f}")
    ratio = costs[WARM].per_second / rival.per_second
    rows = [
        ("S3 round trips, cold", ways["gate, cold"].trips, "<=", S3_COLD),
        ("S3 round trips, warm", ways["gate, warm"].trips, "<=", S3_WARM),
        ("S3 ... after a prefetch", ways["gate, after a prefetch"].trips, "<=", S3_WARM),
        ("S4 warm, times aiosmtplib", ratio, ">=", S4_RATIO),
    ]
    promises = judge(rows, digits=1)
    if len(sys.argv) == 1:
        figures = {name: {"round_trips": way.trips, "ms": way.ms} for name, way in ways.items()}
        many = {
            name: {"per_second": cost.per_second, "cpu_ms": cost.cpu_ms}
            for name, cost in costs.items()
        }
        record("warm", promises=promises, figures={"40 ms an answer": figures, "many": many})


if __name__ == "__main__":
    main()
