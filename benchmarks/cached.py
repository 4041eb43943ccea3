"""What a remembered check costs beside a bare Starlette route (promise S1).

The gate as `serve` runs it, with a site's secret key, limits, decision lines and metrics, answers
POST /v1/check for mailboxes whose verdicts it remembers, and mints a token for each. Beside it, on
the same uvicorn with uvloop and httptools: one Starlette route that answers a JSONResponse, with no
middleware at all, and as an outside mark a plain ASGI callable with ready bytes. wrk, in one thread
with 64 connections, has one core and the server the other. All are asked the same request, in
rounds that alternate, so that noise hits all alike; the median counts.

    python -m benchmarks.cached [seconds per round] [rounds]

Where the time of one goes, in µs of one process without its system calls, the least of many rounds
(before is the state this was last taken apart in):

                                             before   after
    the head known again                       1.0      0.4
    the body read                              0.6      0.6
    limits                                     0.4      0.4
    recalled: address, keyed hash, facts       7.0      5.6
    told: token, log note, JSON                6.3      4.8
      of it the token                          2.4      2.0
    written                                    1.4      0.5
    the whole, with what joins these          21.3     16.2
    a decision line and its metrics, later     2.2      1.5
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from benchmarks.record import record
from gate import server
from gate.address import Address, parse
from gate.budget import DNS_LOOKUP, Deadline
from gate.engine import Engine, open_engine
from gate.memory import Memory, Remembered
from gate.reason import Reason
from gate.settings import Settings
from gate.settings.read import parse as parse_settings
from tests.ports import free_port

CONNECTIONS = 64
ADDRESSES = 1_000
DOMAIN = "inbox.test"
"""Served by the sandbox: its route is looked up for good."""
COMMAND = (sys.executable, "-m", "benchmarks.cached")
SECRET = "sk_live_of_a_benchmark_0123456789"
RATIO = 1.0
P99_RATIO = 1.25
QUIET = 0.5
"""A load average, before the first round, up to which both cores are ours."""
BARE, PLAIN, ONE, MANY = "bare", "plain", "gate, one address", "gate, 1,000 addresses"
TITLES = {
    BARE: "bare Starlette route, JSONResponse",
    PLAIN: "plain ASGI callable, ready bytes",
    ONE: "gate, one remembered address",
    MANY: f"gate, {ADDRESSES:,} remembered addresses",
}
SERVERS = {BARE: "bare", PLAIN: "plain", ONE: "gate", MANY: "gate"}


# -- the servers, each a process of its own ------------------------------------------------


def address(number: int) -> str:
    return f"person{number:04}@{DOMAIN}"


def settings(port: int, remembered: int = ADDRESSES) -> Settings:
    """A site as in the field, but for limits that 64 connections of one client never meet."""
    never = 1_000_000_000
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    return parse_settings(
        {
            "server": {"port": port, "admin_port": 0},
            "store": {"url": "memory:"},
            "sandbox": {"enabled": True},
            # Two generations of half the capacity each: with room for twice as many all stay.
            "limits": {"secret_per_minute": never, "verdicts": max(200_000, 2 * remembered)},
            "site": [
                {
                    "name": "shop",
                    "site_key": "pk_live_of_a_benchmark",
                    "secret_hash": f"sha256:{digest}",
                    "origins": ["https://shop.example"],
                }
            ],
        }
    )


@asynccontextmanager
async def remembering(chosen: Settings, count: int = ADDRESSES) -> AsyncIterator[Engine]:
    """An engine that already knows the mailboxes and the way to their domain."""
    async with open_engine(chosen) as engine:
        await engine.resolver.route(DOMAIN, Deadline.after(DNS_LOOKUP, engine.clock))
        memory = Memory(engine.store, engine.keys, engine.wall)
        found = Remembered(Reason.ACCEPTED_EMAIL, engine.wall(), f"mx.{DOMAIN}", 250, "2.1.5")
        for number in range(count):
            mailbox = parse(address(number))
            assert isinstance(mailbox, Address)
            await memory.keep_verdict("shop", mailbox, found)
        yield engine


def serve_gate(port: int, count: int = ADDRESSES) -> None:
    opener = partial(remembering, count=count)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.run(settings(port, count), opener=opener))


def serve_bare(port: int) -> None:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def hello(request: Request) -> JSONResponse:
        return JSONResponse({"hello": "world"})

    _uvicorn(Starlette(routes=[Route("/v1/check", hello, methods=["POST"])]), port)


def serve_plain(port: int) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", b"17")]

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b'{"hello":"world"}'})

    _uvicorn(hello, port)


def _uvicorn(app: Any, port: int) -> None:
    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
        lifespan="off",
    )


# -- measuring -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Running:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def cpu_seconds(self) -> float:
        """What the process has used so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(kind: str, folder: Path, *remembered: int) -> Iterator[Running]:
    """A server on the first core, once it answers; its decision lines go to a file."""
    port, log = free_port(), folder / f"{kind}.log"
    with log.open("ab") as lines:
        process = subprocess.Popen(
            [*COMMAND, "serve", kind, str(port), *map(str, remembered)],
            stderr=lines,
            preexec_fn=lambda: os.sched_setaffinity(0, cores()[:1]),
        )
    try:
        _wait_for_answer(process, port)
        yield Running(process, port, log)
    finally:
        process.terminate()
        process.wait(15)


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _wait_for_answer(process: subprocess.Popen[bytes], port: int) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    body = json.dumps({"email": address(0)})
    while True:
        talk = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            talk.request("POST", "/v1/check", body, headers)
            answer = talk.getresponse()
            told = answer.read()
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise SystemExit(f"a server ended with status {process.returncode}") from None
            time.sleep(0.02)
            continue
        finally:
            talk.close()
        assert answer.status == 200, told
        if b"result" in told:
            found = json.loads(told)
            assert found["reason"] == "accepted_email" and found["token"], found
            assert found["cached"]["mailbox"] is not None, found
        return


def script(folder: Path, many: bool, numbers: Iterable[int] = range(ADDRESSES)) -> Path:
    """What wrk sends: requests made ready before the round begins."""
    asked = numbers if many else [0]
    bodies = [json.dumps({"email": address(number)}) for number in asked]
    lines = [
        'wrk.method = "POST"',
        'wrk.headers["Content-Type"] = "application/json"',
        f'wrk.headers["Authorization"] = "Bearer {SECRET}"',
        f"local bodies = {{{', '.join(f'{json.dumps(body)}' for body in bodies)}}}",
    ]
    if many:
        lines += [
            "local ready, at = {}, 0",
            "function init(args)",
            "  for i, body in ipairs(bodies) do",
            "    ready[i] = wrk.format(nil, nil, nil, body)",
            "  end",
            "end",
            "function request()",
            "  at = at % #ready + 1",
            "  return ready[at]",
            "end",
        ]
    else:
        lines.append("wrk.body = bodies[1]")
    path = folder / ("many.lua" if many else "one.lua")
    path.write_text("\n".join(lines) + "\n")
    return path


def measure(running: Running, lua: Path, seconds: int) -> Round:
    os.truncate(running.log, 0)
    before = running.cpu_seconds()
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(CONNECTIONS)),
            *("--duration", f"{seconds}s", "--latency", "--script", str(lua)),
            f"http://127.0.0.1:{running.port}/v1/check",
        ],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores()[-1:]),
    )
    used = running.cpu_seconds() - before
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    return Round(
        float(_said(r"Requests/sec:\s+([\d.]+)", done.stdout)[0]),
        _milliseconds(*_said(r"50%\s+([\d.]+)(us|ms|s)", done.stdout)),
        _milliseconds(*_said(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)),
        used / int(_said(r"(\d+) requests in", done.stdout)[0]) * 1e6,
    )


def _said(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    assert match, text
    return match.groups()


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def median(rounds: list[Round]) -> Round:
    return Round(*(statistics.median(getattr(r, name) for r in rounds) for name in Round.__slots__))


def show(found: dict[str, list[Round]]) -> bool:
    """Print the table; whether the promise is kept for one address and for many."""
    bare, met = median(found[BARE]), True
    print(
        f"{'':42} {'req/s':>8} {'CPU µs':>7} {'p50 ms':>7} {'p99 ms':>7}   "
        "× bare (rounds)   p99 ×  CPU ×"
    )
    for name, rounds in found.items():
        at = median(rounds)
        ratios = [r.per_second / b.per_second for r, b in zip(rounds, found[BARE], strict=True)]
        ratio, p99 = at.per_second / bare.per_second, at.p99_ms / bare.p99_ms
        print(
            f"{TITLES[name]:42} {at.per_second:8,.0f} {at.cpu_us:7.1f} {at.p50_ms:7.2f} "
            f"{at.p99_ms:7.2f}   {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})  {p99:7.2f} "
            f"{at.cpu_us / bare.cpu_us:6.2f}"
        )
        if name in (ONE, MANY):
            met = met and ratio >= RATIO and p99 <= P99_RATIO
    return met


def keep(found: dict[str, list[Round]], met: bool) -> None:
    """Write the figures down."""
    bare, ours = median(found[BARE]), median(found[ONE])
    figure = (
        f"{ours.per_second / bare.per_second:.2f} x bare Starlette, p99 "
        f"{ours.p99_ms / bare.p99_ms:.2f} x, CPU {ours.cpu_us / bare.cpu_us:.2f} x"
    )
    goal = f">= {RATIO} x, p99 <= {P99_RATIO} x"
    rounds = {
        TITLES[name]: [{field: getattr(r, field) for field in Round.__slots__} for r in all_rounds]
        for name, all_rounds in found.items()
    }
    record("cached", promises={"S1": (figure, goal, met)}, figures=rounds)


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve: dict[str, Callable[..., None]] = {
            "gate": serve_gate,
            "bare": serve_bare,
            "plain": serve_plain,
        }
        serve[sys.argv[2]](*map(int, sys.argv[3:]))
        return 0
    if shutil.which("wrk") is None:
        print("benchmarks.cached: needs wrk (Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    found: dict[str, list[Round]] = {name: [] for name in TITLES}
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, many = script(folder, many=False), script(folder, many=True)
        with (
            running("bare", folder) as bare,
            running("plain", folder) as plain,
            running("gate", folder) as gate,
        ):
            up = {"bare": bare, "plain": plain, "gate": gate}
            for _ in range(count):
                for title, rounds in found.items():
                    lua = many if title == MANY else one
                    rounds.append(measure(up[SERVERS[title]], lua, seconds))
    print(f"{count} rounds of {seconds} s, {CONNECTIONS} connections")
    if busy > QUIET:
        print(f"others kept this machine busy (load {busy:.1f}): only the CPU time means anything")
    met = show(found)
    print(f"promise: ≥ {RATIO} × bare, p99 ≤ {P99_RATIO} ×: {'met' if met else 'missed'}")
    if len(sys.argv) == 1:
        keep(found, met)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
