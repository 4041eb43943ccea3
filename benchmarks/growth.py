"""What becomes of speed and memory as there is more to remember (promise S7).

Three things grow, each in a process of its own: remembered verdicts from a thousand to a million,
domains of remembered mailboxes from one to a hundred thousand, sites from one to a thousand. For
each size: how many remembered checks a second one core answers (the whole of `Checker.recall`,
asked in an order nobody could guess), what an entry takes of the process's memory, and how long the
longest collection of the garbage collector stops everything. The smallest and the largest number of
verdicts are asked over HTTP as well, in turns. Beside it: what cachetools' LRUCache with a small
object an entry takes for the same.

    python -m benchmarks.growth [short]
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from cachetools import LRUCache

from benchmarks import cached
from benchmarks.record import record
from gate.address import Address, parse
from gate.budget import DNS_LOOKUP, Deadline
from gate.engine import Engine, open_engine
from gate.memory import Memory, Remembered
from gate.reason import Reason
from gate.settings.read import parse as parse_settings

VERDICTS: Final = (1_000, 10_000, 100_000, 1_000_000)
DOMAINS: Final = (1, 100, 10_000, 100_000)
SITES: Final = (1, 10, 100, 1_000)
SHORT: Final = 3
"""How many of the sizes the short form takes."""
ASKED: Final = 40_000
ROUNDS: Final = 5
RATIO, BYTES, PAUSE_MS = 0.9, 320, 10.0


class Size(NamedTuple):
    """What one size showed."""

    entries: int
    per_second: float
    bytes_each: float
    pause_ms: float


def settings(sites: int, verdicts: int) -> Any:
    digests = [hashlib.sha256(f"sk_{n}".encode()).hexdigest() for n in range(sites)]
    return parse_settings(
        {
            "server": {"secret": "the same in each process, for all that matters"},
            "store": {"url": "memory:"},
            "sandbox": {"enabled": True},
            # Two generations of half the capacity each: with room for twice as many all stay.
            "limits": {"verdicts": 2 * verdicts + 1_000},
            "site": [
                {"name": f"site{n}", "site_key": f"pk_{n}", "secret_hash": f"sha256:{digests[n]}"}
                for n in range(sites)
            ],
        }
    )


def resident() -> int:
    """Octets of memory this process has."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def pause_ms() -> float:
    """The longest of a few collections of everything."""
    longest = 0.0
    for _ in range(3):
        started = time.perf_counter()
        gc.collect()
        longest = max(longest, time.perf_counter() - started)
    return longest * 1000


async def remember(engine: Engine, addresses: Callable[[int], tuple[str, str]], count: int) -> None:
    """Keep a verdict for each of the first so many (site, address) pairs."""
    memory = Memory(engine.store, engine.keys, engine.wall)
    found = Remembered(Reason.ACCEPTED_EMAIL, engine.wall(), "mx.inbox.test", 250, "2.1.5")
    for number in range(count):
        site, email = addresses(number)
        mailbox = parse(email)
        assert isinstance(mailbox, Address)
        await memory.keep_verdict(site, mailbox, found)


def recalled(engine: Engine, addresses: Callable[[int], tuple[str, str]], count: int) -> float:
    """Remembered checks a second, the fastest of a few rounds: noise only ever slows."""
    chance = random.Random(1)
    sites = {site.name: site for site in engine.sites}
    asked = [addresses(chance.randrange(count)) for _ in range(ASKED)]
    best = 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for site, email in asked:
            answer = engine.checker.recall(email, site=sites[site], budget_ms=800)
            assert answer is not None, email
        best = max(best, ASKED / (time.perf_counter() - started))
    return best


async def measure(kind: str, count: int) -> Size:
    """One size of one kind, in a process that has nothing else to remember."""
    sites = count if kind == "sites" else 1
    entries = max(count, 1_000)
    places: dict[str, Callable[[int], tuple[str, str]]] = {
        "verdicts": lambda n: ("site0", f"person{n}@inbox.test"),
        "domains": lambda n: ("site0", f"person@d{n % count}.wild.test"),
        "sites": lambda n: (f"site{n % count}", f"person{n}@inbox.test"),
    }
    addresses = places[kind]
    async with open_engine(settings(sites, entries)) as engine:
        await engine.resolver.route("inbox.test", Deadline.after(DNS_LOOKUP, engine.clock))
        await remember(engine, addresses, 1)
        recalled(engine, addresses, 1)
        gc.collect()
        gc.freeze()  # as the server does once it is up
        before = resident()
        await remember(engine, addresses, entries)
        taken = (resident() - before) / entries
        pause = pause_ms()
        return Size(count, recalled(engine, addresses, entries), taken, pause)


def rival(count: int) -> Size:
    """cachetools' LRUCache with an object an entry, as most people would write it."""

    class Kept:
        def __init__(self, reason: str, found_at: float) -> None:
            self.reason, self.found_at = reason, found_at

    gc.collect()
    gc.freeze()
    before = resident()
    cache: LRUCache[str, Kept] = LRUCache(count)
    for number in range(count):
        cache[f"person{number}@inbox.test"] = Kept("accepted_email", time.time())
    taken = (resident() - before) / count
    pause = pause_ms()
    chance = random.Random(1)
    asked = [f"person{chance.randrange(count)}@inbox.test" for _ in range(ASKED)]
    started = time.perf_counter()
    for email in asked:
        assert cache[email]
    return Size(count, ASKED / (time.perf_counter() - started), taken, pause)


def apart(kind: str, count: int) -> Size:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", "one", kind, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Size(*json.loads(done.stdout.splitlines()[-1]))


def over_http(least: int, most: int, rounds: int, seconds: int) -> tuple[float, float]:
    """Requests a second of POST /v1/check with so few and so many remembered, in turns."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        few, many = Path(name) / "few", Path(name) / "many"
        few.mkdir()
        many.mkdir()
        with cached.running("gate", few, least) as small, cached.running("gate", many, most) as big:
            scripts = [
                (at, cached.script(folder, True, [chance.randrange(count) for _ in range(20_000)]))
                for at, folder, count in ((small, few, least), (big, many, most))
            ]
            found = [
                [cached.measure(at, lua, seconds) for at, lua in scripts] for _ in range(rounds)
            ]
    middle = [statistics.median(r[n].per_second for r in found) for n in range(2)]
    return middle[0], middle[1]


def main() -> int:
    if sys.argv[1:2] == ["one"]:
        kind, count = sys.argv[2], int(sys.argv[3])
        size = rival(count) if kind == "rival" else asyncio.run(measure(kind, count))
        print(json.dumps(size))
        return 0
    most = SHORT if sys.argv[1:2] == ["short"] else None
    kinds = {"verdicts": VERDICTS, "domains": DOMAINS, "sites": SITES, "rival": VERDICTS}
    found = {kind: [apart(kind, size) for size in sizes[:most]] for kind, sizes in kinds.items()}
    for kind, sizes in found.items():
        title = "cachetools, look-up alone" if kind == "rival" else kind
        print(f"\n{title:28}{'checks/s':>12}{'ratio':>7}{'bytes each':>12}{'longest pause ms':>18}")
        for size in sizes:
            ratio = size.per_second / sizes[0].per_second
            print(
                f"{size.entries:28,}{size.per_second:12,.0f}{ratio:7.2f}"
                f"{size.bytes_each:12.0f}{size.pause_ms:18.1f}"
            )
    first, last = found["verdicts"][0], found["verdicts"][-1]
    small, big = over_http(first.entries, last.entries, *((1, 1) if most else (5, 3)))
    ratio = big / small
    print(f"\nover HTTP{small:31,.0f}{big:12,.0f}{ratio:7.2f}")
    figure = (
        f"{ratio:.2f} x over HTTP with {last.entries:,}, {last.bytes_each:.0f} bytes, "
        f"{last.pause_ms:.1f} ms pause"
    )
    met = ratio >= RATIO and last.bytes_each <= BYTES and last.pause_ms <= PAUSE_MS
    goal = f">= {RATIO} x, <= {BYTES} bytes, <= {PAUSE_MS:.0f} ms"
    print(f"\nS7 {figure} (promised {goal}): {'met' if met else 'MISSED'}")
    if most is None:
        figures = {kind: [size._asdict() for size in sizes] for kind, sizes in found.items()}
        record("growth", promises={"S7": (figure, goal, met)}, figures=figures)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
