"""The gate beside what people would use instead (promises S2 and S3).

Each verifier is a process of its own that is asked through its public interface: a library by a few
lines around its one function, the gate over HTTP, so that its figures hold an HTTP exchange more
than the others'. All ask the same Postfix about the same addresses and look names up at the same
resolver, with nothing added and with 20 ms added to every reply. Six kinds of work:

    first         the first question about a domain, at five domains one after the other
    repeat        the same five addresses again, four times
    many          different addresses at one domain, all there, sixteen at once
    accepts all   a domain that takes every recipient
    dead MX       the most preferred host refuses connections
    tarpit        the host accepts the connection and says nothing

The gate keeps no limits here, as for a domain of one's own, because the others have none; as
shipped it asks one domain about ten recipients a minute. What each gets wrong: benchmarks.accuracy.

    scripts/peer-packages                     build the others
    python -m benchmarks.peers [short]        needs root, for port 25 and for resolv.conf
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.peers import world
from benchmarks.peers.verifier import RIVALS, UNLIMITED, Verifier, asked, gate
from benchmarks.record import record
from tests.lab.servers import missing

LATER: Final = (0, 20)
"""Milliseconds added to every reply."""
AT_ONCE: Final = 16
REPEATS: Final = 4
TIMES: Final = 50
OURS: Final = "the gate"
KEEPS: Final = "@devmehq/email-validator-js"
"""The one of the others that remembers answers."""

FIRST: Final = tuple(
    f"alice@{name}.example.com" for name in ("mailbox", "local", "alias", "relay", "footer")
)
ACCEPTS_ALL: Final = "anybody@catchall.example.com"
DEAD_FIRST: Final = "alice@second.example.com"
TARPIT: Final = "alice@ascii.example.com"


@dataclass(slots=True, kw_only=True)
class Figures:
    """What one verifier took for each kind of work: milliseconds, and what it said at last."""

    first: float
    repeat: float
    many_per_second: float
    many_cpu: float
    accepts_all: tuple[float, str]
    dead_first: tuple[float, str]
    tarpit: tuple[float, str]


def measure(verifier: Verifier, at: world.World, many: int) -> Figures:
    """All kinds of work, each with a fresh process."""
    with asked(verifier, at, AT_ONCE) as one:
        one.ask([*FIRST, ACCEPTS_ALL, DEAD_FIRST])  # so that the resolver knows the names
    with asked(verifier, at, 1) as one:

        def timed(email: str) -> tuple[float, str]:
            answer = one.ask([email])[email]
            return answer["ms"], answer["said"]

        first = [timed(email)[0] for email in FIRST]
        again = [timed(email)[0] for _ in range(REPEATS) for email in FIRST]
        others = [timed(email) for email in (ACCEPTS_ALL, DEAD_FIRST, TARPIT)]
    per_second, cpu = crowded(verifier, at, many)
    return Figures(
        first=statistics.median(first),
        repeat=statistics.median(again),
        many_per_second=per_second,
        many_cpu=cpu,
        accepts_all=others[0],
        dead_first=others[1],
        tarpit=others[2],
    )


def crowded(verifier: Verifier, at: world.World, many: int) -> tuple[float, float]:
    """Answers a second and milliseconds of CPU for each, its start not counted."""
    before = _cpu_of_children()
    with asked(verifier, at, AT_ONCE):
        pass
    idle = _cpu_of_children() - before
    emails = [f"alice+{number}@mailbox.example.com" for number in range(many)]
    with asked(verifier, at, AT_ONCE) as crowd:
        before, started = _cpu_of_children(), time.perf_counter()
        crowd.ask(emails)
        per_second = many / (time.perf_counter() - started)
    return per_second, max(0.0, _cpu_of_children() - before - idle) / many * 1000


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Measure all, print the tables, keep the figures."""
    if reason := missing():
        print(f"benchmarks.peers: {reason}", file=sys.stderr)
        return 2
    short = sys.argv[1:2] == ["short"]
    many = 100 if short else 1_000
    verifiers = [gate(UNLIMITED, OURS), *RIVALS]
    tables: dict[int, dict[str, Figures]] = {}
    for later in LATER:
        table = tables[later] = {}
        with world.running(later) as at:
            for verifier in verifiers:
                if verifier.error is None:
                    table[verifier.name] = measure(verifier, at, many // (5 if later else 1))
        show(later, table)
    for verifier in verifiers:
        if verifier.error is not None:
            print(f"{verifier.name}: not built: {verifier.error}")
    slow = tables[LATER[-1]]
    anew = min(at.repeat for name, at in slow.items() if name not in (OURS, KEEPS))
    times = anew / slow[OURS].repeat
    met = times >= TIMES
    figure = f"{times:.0f} x the fastest that asks anew, {LATER[-1]} ms a reply"
    print(f"\nS2 repeat: {figure} (promised {TIMES} x): {'met' if met else 'MISSED'}")
    if not short:
        record(
            "peers",
            promises={"S2": (figure, f">= {TIMES} x", met)},
            figures={
                f"{later} ms": {name: asdict(at) for name, at in table.items()}
                for later, table in tables.items()
            },
            verifiers={v.name: f"{v.version}, {v.error or v.over}" for v in verifiers},
        )
    return 0 if met else 1


def show(later: int, table: dict[str, Figures]) -> None:
    print(f"\n{later} ms added to every reply; milliseconds, and what was said")
    print(
        f"{'':32}{'first':>8}{'repeat':>8}{'many/s':>8}{'CPU':>7}"
        f"{'accepts all':>22}{'dead MX':>20}{'tarpit':>20}"
    )
    for name, at in table.items():
        said = "".join(
            f"{ms:10.1f} {word:<{width}}"
            for (ms, word), width in ((at.accepts_all, 11), (at.dead_first, 9), (at.tarpit, 9))
        )
        print(
            f"{name:32}{at.first:8.1f}{at.repeat:8.2f}{at.many_per_second:8.0f}"
            f"{at.many_cpu:7.2f}{said}"
        )


if __name__ == "__main__":
    sys.exit(main())
