"""How much one gate takes, and whether those who wait for nobody feel the others (S4, S6, S8).

Arrivals come at a constant rate, whatever became of the ones before, and each is timed from when it
was due, not from when a connection was free: nothing is left out because the server was slow.

    remembered      so many checks a second of mailboxes that are remembered             S8
    cold            so many first checks of a domain a second, hosts 20 ms away; what is over the
                    hosts' own four round trips is ours (three are added here: a connect over
                    loopback takes no time)                                              S8
    closed loop     as many first checks as 64 callers can have, hosts that answer at once S4
    beside others   remembered ones alone, and with 500 dialogues and 2,000 silent hosts under way;
                    the same in turns, three times                                       S6

    python -m benchmarks.throughput [short | full]        full: 10 and 2 minutes
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import uvloop

from benchmarks.ground import Place, Plan, callers, gate_before, percentiles
from benchmarks.record import record

LINES: Final = 64
TICK: Final = 0.0005
ROUND_TRIP: Final = 0.02
ADDED: Final = 3
REMEMBERED_RATE, COLD_RATE = 4_000, 150
P99_MS, OVERHEAD_MS, CLOSED_RATE, BESIDE = 25.0, 60.0, 1_000, 2.0
LIVE, SILENT = 500, 2_000
BATCH = 250


class Line(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, answered: Callable[[Line, float, bytes], None]) -> None:
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._due = 0.0
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due: float) -> None:
        self._due, self._held = due, b""
        assert self._transport
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(body) >= length:
            self._answered(self, self._due, self._held)

    def connection_lost(self, exc: Exception | None) -> None:
        self._answered(self, self._due, b"")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Arrivals:
    """Requests that come at a constant rate."""

    def __init__(self, place: Place, emails: Callable[[int], str], budget_ms: int) -> None:
        self._place = place
        self._emails = emails
        self._budget_ms = budget_ms
        self._free: deque[Line] = deque()
        self._waiting: deque[float] = deque()
        self._number = 0
        self.times: list[float] = []
        self.said: Counter[str] = Counter()

    async def run(self, rate: float, seconds: float, lines: int = LINES) -> None:
        loop = asyncio.get_running_loop()
        made = []
        for _ in range(lines):
            _, line = await loop.create_connection(
                lambda: Line(self._answered), "127.0.0.1", self._place.port
            )
            made.append(line)
            self._free.append(line)
        began, sent, total = time.perf_counter(), 0, int(rate * seconds)
        while sent < total or len(self.times) < total:
            due = min(total, int((time.perf_counter() - began) * rate))
            while sent < due:
                self._waiting.append(began + sent / rate)
                sent += 1
            self._hand_out()
            await asyncio.sleep(TICK)
        self._answered = lambda line, due, answer: None  # type: ignore[method-assign]
        for line in made:
            line.close()

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            body = json.dumps(
                {"email": self._emails(self._number), "timeout_ms": self._budget_ms}
            ).encode()
            self._number += 1
            self._free.popleft().send(
                b"POST /v1/check HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
                + self._place.secret.encode()
                + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                + body,
                self._waiting.popleft(),
            )

    def _answered(self, line: Line, due: float, answer: bytes) -> None:
        if len(self.times) >= self._number:
            return  # the connection ends, and nothing was asked on it
        self.times.append((time.perf_counter() - due) * 1000)
        self.said[_reason(answer)] += 1
        self._free.append(line)
        self._hand_out()


def _reason(answer: bytes) -> str:
    if not answer.startswith(b"HTTP/1.1 200"):
        return answer[:12].decode() or "closed"
    return answer.partition(b'"reason":"')[2].partition(b'"')[0].decode()


async def arrive(
    place: Place,
    emails: Callable[[int], str],
    *,
    rate: float,
    seconds: float,
    budget_ms: int,
    lines: int = LINES,
) -> dict[str, Any]:
    """One run, its distribution and what was said."""
    arrivals = Arrivals(place, emails, budget_ms)
    await arrivals.run(rate, seconds, lines)
    p50, p95, p99, worst = percentiles(arrivals.times)
    said = dict(arrivals.said)
    return {"rate": rate, "p50": p50, "p95": p95, "p99": p99, "worst": worst, "said": said}


def person(number: int) -> str:
    return f"person{number % 1000}@known.test"


async def remembered(place: Place, seconds: float) -> dict[str, Any]:
    await arrive(place, person, rate=200, seconds=5, budget_ms=2500)
    return await arrive(place, person, rate=REMEMBERED_RATE, seconds=seconds, budget_ms=800)


async def closed(place: Place, count: int, fresh: Iterator[int]) -> float:
    """First checks a second that 64 callers can have."""
    lines = await callers(place.port, LINES)
    emails = iter([f"person@d{next(fresh)}.test" for _ in range(count)])

    async def one(caller: Any) -> None:
        for email in emails:
            _, reason = await caller.ask(place.secret, email, 2500)
            assert reason == "accepted_email", reason

    started = time.perf_counter()
    await asyncio.gather(*(one(line) for line in lines))
    rate = count / (time.perf_counter() - started)
    for line in lines:
        await line.close()
    return rate


async def beside(place: Place, seconds: float, fresh: Iterator[int], silent: Iterator[int]) -> Any:
    """The remembered ones' 99th percentile alone, and with all the others under way."""
    alone, crowded = [], []
    for _ in range(3):
        run = await arrive(place, person, rate=1000, seconds=seconds, budget_ms=800)
        alone.append(run["p99"])
        others = [f"person@t{next(silent)}.test" for _ in range(SILENT)]
        slow = round(seconds * 1000) + 500
        others += [f"slow-{slow}@d{next(fresh)}.test" for _ in range(LIVE)]
        for first in range(0, len(others), BATCH):
            lines = await callers(place.port, BATCH)
            batch = zip(lines, others[first : first + BATCH], strict=False)
            await asyncio.gather(*(line.ask(place.secret, email, 50) for line, email in batch))
            for line in lines:
                await line.close()
        run = await arrive(place, person, rate=1000, seconds=seconds, budget_ms=800)
        crowded.append(run["p99"])
        await asyncio.sleep(13)  # until the flights have landed
    return statistics.median(alone), statistics.median(crowded)


async def main_async(form: str) -> dict[str, Any]:
    """All parts; `form` is short, usual or full."""
    long, cold_for, count = {"short": (2, 2, 300), "full": (600, 120, 10_000)}.get(
        form, (30, 20, 5_000)
    )
    found: dict[str, Any] = {}
    cold_count = COLD_RATE * cold_for + 100
    with gate_before(Plan(cold=cold_count, round_trip=ROUND_TRIP)) as place:
        found["remembered"] = await remembered(place, long)
        found["cold"] = await arrive(
            place,
            lambda n: f"person@d{n}.test",
            rate=COLD_RATE,
            seconds=cold_for,
            budget_ms=2500,
        )
    with gate_before(Plan(cold=count)) as place:
        found["closed"] = await closed(place, count, iter(range(count)))
    if form != "short":
        with gate_before(Plan(cold=3 * LIVE, tarpits=3 * SILENT)) as place:
            await arrive(place, person, rate=200, seconds=5, budget_ms=2500)
            found["beside"] = await beside(place, 3, iter(range(3 * LIVE)), iter(range(3 * SILENT)))
    return found


def main() -> int:
    form = sys.argv[1] if len(sys.argv) > 1 else "usual"
    found = uvloop.run(main_async(form))
    for name in ("remembered", "cold"):
        at = found[name]
        print(
            f"{name:12} {at['rate']:5.0f}/s  p50 {at['p50']:.2f}  p95 {at['p95']:.2f}  "
            f"p99 {at['p99']:.2f}  worst {at['worst']:.1f} ms  {at['said']}"
        )
    print(f"closed loop  {found['closed']:5.0f} first checks a second, 64 callers")
    kept, cold = found["remembered"], found["cold"]
    over = cold["p95"] - ADDED * ROUND_TRIP * 1000
    clean = set(kept["said"]) | set(cold["said"]) == {"accepted_email"}
    promises = {
        "S8": (
            f"{kept['rate']}/s p99 {kept['p99']:.1f} ms; {cold['rate']} cold/s p95 {over:.1f} ms "
            f"over the hosts' own",
            f"{REMEMBERED_RATE}/s <= {P99_MS} ms; {COLD_RATE}/s <= {OVERHEAD_MS} ms; no error",
            kept["p99"] <= P99_MS and over <= OVERHEAD_MS and clean,
        ),
        "S4 whole cold checks": (
            f"{found['closed']:.0f}/s",
            f">= {CLOSED_RATE}/s",
            found["closed"] >= CLOSED_RATE,
        ),
    }
    if "beside" in found:
        alone, crowded = found["beside"]
        promises["S6"] = (
            f"p99 {alone:.2f} ms alone, {crowded:.2f} ms beside {LIVE} + {SILENT}: "
            f"{crowded / alone:.2f} x",
            f"<= {BESIDE} x",
            crowded <= BESIDE * alone,
        )
    for name, (figure, goal, met) in promises.items():
        print(f"{name}: {figure} (promised {goal}): {'met' if met else 'MISSED'}")
    if form != "short":
        record("throughput", promises=promises, figures=found, form=form)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
