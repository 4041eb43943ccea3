"""How long one caller waits: remembered, warm, cold, and cold with the widget's prefetch.

One caller, one question after the other, hosts that are 20 ms away (added to every burst of
commands; loopback adds nothing to the connect). For each kind the distribution over many addresses,
and what share of answers said something about the mailbox, at three budgets.

    remembered    the mailbox was asked about before
    warm          another mailbox of a domain whose connection is open: one round trip
    prefetched    a domain's first mailbox, 300 ms after the widget saw the domain
    cold          a domain's first mailbox: DNS, connect, greeting, EHLO, one group

    python -m benchmarks.latency [short]
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import uvloop

from benchmarks.ground import Place, Plan, callers, gate_before, percentiles
from benchmarks.record import record

ROUND_TRIP: Final = 0.02
BUDGETS_MS: Final = (300, 800, 2500)
AHEAD: Final = 0.3
"""Seconds between the domain is typed and the address is."""
SETTLED: Final = frozenset({"accepted_email", "rejected_email", "accept_all"})


async def measure(place: Place, count: int) -> dict[str, dict[str, Any]]:
    """Times of each kind, cold ones for each budget."""
    (caller,) = await callers(place.port, 1)
    fresh = iter(range(10 * count))
    found: dict[str, dict[str, Any]] = {}

    async def kind(name: str, budget: int, emails: Callable[[int], str], *, ahead: bool) -> None:
        times, settled = [], 0
        for number in range(count):
            email = emails(number)
            if ahead:
                domain = json.dumps({"domain": email.partition("@")[2]}).encode()
                await caller.post("/v1/prefetch", place.secret, domain)
                await asyncio.sleep(AHEAD)
            took, reason = await caller.ask(place.secret, email, budget)
            times.append(took)
            settled += reason in SETTLED
        found[name] = {"ms": times, "settled": settled / count}

    await caller.ask(place.secret, "person@known.test", 2500)
    await kind("remembered", 800, lambda n: "person@known.test", ahead=False)
    await kind("warm", 800, lambda n: f"person{n}@known.test", ahead=False)
    await kind("prefetched", 800, lambda n: f"person@d{next(fresh)}.test", ahead=True)
    for budget in BUDGETS_MS:
        await kind(f"cold, {budget}", budget, lambda n: f"person@d{next(fresh)}.test", ahead=False)
    await caller.close()
    return found


async def floor(count: int) -> list[float]:
    """What asyncio itself takes to have one octet sent back over loopback."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octet := await reader.read(1):
            writer.write(octet)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    times = []
    for _ in range(count):
        started = time.perf_counter()
        writer.write(b".")
        await reader.readexactly(1)
        times.append((time.perf_counter() - started) * 1000)
    writer.close()
    server.close()
    return times


def main() -> int:
    short = sys.argv[1:2] == ["short"]
    count = 20 if short else 300
    with gate_before(Plan(cold=10 * count, round_trip=ROUND_TRIP)) as place:
        found = uvloop.run(measure(place, count))
    found["an echo on loopback"] = {"ms": uvloop.run(floor(count)), "settled": 1.0}
    print(f"{count} of each, hosts {ROUND_TRIP * 1000:.0f} ms away; milliseconds")
    print(f"{'':24}{'p50':>9}{'p95':>9}{'p99':>9}{'worst':>9}{'settled':>10}")
    for name, row in found.items():
        shown = "".join(f"{ms:9.2f}" for ms in percentiles(row["ms"]))
        print(f"{name:24}{shown}{row['settled']:10.0%}")
    if not short:
        record("latency", promises={}, figures=found, round_trip_ms=ROUND_TRIP * 1000)
    return 0 if found["cold, 800"]["settled"] == 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
