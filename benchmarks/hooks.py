"""How long does an auth platform wait while the mail server says nothing?

A gate in a process of its own, with its store on disk, and a mail server for each address that
greets and never says another word. Each platform's recorded call, signed anew, with an address
nobody has asked about: measured at the caller, over HTTP, from request to answer. Beside it the
same with a mail server that answers, and the time that the platform itself would have waited.

    python -m benchmarks.hooks [calls of each platform]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from benchmarks.ground import Plan, gate_before
from benchmarks.record import record
from gate.budget import HOOKS
from tests.hooks.ground import EVERY, Case, resigned

GRACE_MS = 100
GOOD = 100
"""Calls one after the other, before a mail server that answers at once."""
ADDRESSES = {
    "supabase": b"valid.email@supabase.com",
    "kratos": b"0.g5vv0qpoxl@ory.sh",
    "workos": b"jane@foocorp.com",
    "zitadel": b"mini+test@mouse.com",
    "authgear": b"user@example.com",
    "fusionauth": b"example@fusionauth.io",
    "okta": b"john.doe@example.com",
    "entra": b"larissa.price@contoso.onmicrosoft.com",
    "parse": b"jane@example.com",
    "forward": b"jane%40example.com",
    "azure-b2c": b"john.doe@fabrikam.com",
    "generic": b"jane@example.com",
    "truemail": b"jane@example.com",
}


class Platform:
    """One keep-alive connection of a platform. Bare, as in benchmarks/ground.py."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, case: Case, email: str) -> tuple[float, int]:
        """Milliseconds from request to answer, and its status."""
        platform = case.platform.partition("?")[0]
        address = email.encode().replace(b"@", b"%40") if platform == "forward" else email.encode()
        body = case.body.replace(ADDRESSES[platform], address)
        path = case.platform.replace("jane@example.com", email)
        headers = resigned(case, body, time.time())
        lines = [f"{case.method} /v1/hooks/{path} HTTP/1.1", "Host: gate.example"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        began = time.perf_counter()
        self._writer.write("\r\n".join(lines).encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await self._reader.readexactly(int(length or 0))
        return (time.perf_counter() - began) * 1000, int(head.split(b" ", 2)[1])

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def measure(port: int, calls: int) -> list[dict[str, float | str]]:
    """One row a platform: calls one after the other before a mail server that answers, then
    `calls` at once before silent ones.
    """
    rows: list[dict[str, float | str]] = []
    connections = [
        Platform(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(calls)
    ]
    fresh = iter(range(calls * len(EVERY)))
    for one in connections:
        await one.ask(EVERY[0], "person@known.test")
    for case in EVERY:
        platform = case.platform.partition("?")[0]
        good = [
            (await connections[0].ask(case, f"person+{platform}{number}@known.test"))[0]
            for number in range(GOOD)
        ]
        asked = [one.ask(case, f"person@t{next(fresh)}.test") for one in connections]
        answers = await asyncio.gather(*asked)
        assert Counter(status for _, status in answers) == {200: calls}, platform
        late = [elapsed for elapsed, _ in answers]
        rows.append(
            {
                "platform": platform,
                "p50": statistics.median(late),
                "p99": statistics.quantiles(late, n=100)[98],
                "worst": max(late) - HOOKS[platform].ours * 1000,
                "good": statistics.median(good),
                "good99": statistics.quantiles(good, n=100)[98],
            }
        )
    for connection in connections:
        await connection.close()
    return rows


def main() -> int:
    """Measure and print; exit 1 when an answer came later than its deadline + 100 ms."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        with gate_before(
            Plan(tarpits=calls * len(EVERY)),
            hook=[dict(case.hook) for case in EVERY],
            store={"url": f"sqlite:{Path(folder) / 'gate.db'}"},
        ) as place:
            rows = uvloop.run(measure(place.port, calls))
    print(f"{calls} calls of each platform at once; the mail servers never say a word")
    print(
        f"{'platform':<11} {'theirs':>8} {'ours':>8} {'p50':>9} {'p99':>9} {'worst':>13}"
        f" {'answering p50':>15} {'p99':>8}"
    )
    for row in rows:
        times = HOOKS[str(row["platform"])]
        theirs = "?" if times.theirs is None else f"{times.theirs:.0f} s"
        print(
            f"{row['platform']:<11} {theirs:>8} {times.ours * 1000:>5.0f} ms {row['p50']:>6.0f} ms "
            f"{row['p99']:>6.0f} ms {row['worst']:>+6.0f} ms over {row['good']:>12.2f} ms"
            f" {row['good99']:>5.2f} ms"
        )
    worst = max(float(row["worst"]) for row in rows)
    print(f"promise: every answer within its deadline: worst is {worst:+.0f} ms")
    if len(sys.argv) == 1:
        record("hooks", promises={}, figures=rows)
    return 0 if worst <= GRACE_MS else 1


if __name__ == "__main__":
    sys.exit(main())
