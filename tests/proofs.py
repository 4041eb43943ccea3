"""Which program proves which promise, how long it may take, and where it says its figure."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `figure`: a pattern; the groups of its last match (of every match, joined) are
    the figure. `result`: a benchmark whose file in benchmarks/results says it better. Without a
    command, whatever file there says it counts, of whatever day.
    """

    command: tuple[str, ...]
    minutes: float
    figure: str = ""
    result: str = ""
    every: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """A promise in short, and the steps that prove it; all of them must succeed."""

    promise: str
    goal: str
    steps: tuple[Step, ...]


def _tests(*paths: str, minutes: float, only: str = "prove or not prove", figure: str = "",
           every: bool = False, chosen: str = "") -> Step:  # fmt: skip
    """Tests by path, those included that the normal suite leaves out."""
    more = ("-k", chosen) if chosen else ()
    command = (sys.executable, "-m", "pytest", "-s", "-m", only, *more, *paths)
    return Step(command, minutes, figure or r"(\d+ passed.*) in", every=every)


def _bench(name: str, *arguments: str, minutes: float = 15, figure: str = "") -> Step:
    """A benchmark: its file says for each promise what came of it, or its exit status does."""
    command = (sys.executable, "-m", f"benchmarks.{name}", *arguments)
    return Step(command, minutes, figure or r"promise[^:\n]*: (.+)", result=name)


def _module(name: str, *arguments: str, minutes: float, figure: str) -> Step:
    return Step((sys.executable, "-m", name, *arguments), minutes, figure)


_SIEGE: Final = "tests/resources/test_crowds.py"
_NEIGHBOURS: Final = "tests/resources/test_isolation.py"

PROOFS: Final[dict[str, Proof]] = {
    "S1": Proof(
        "a remembered check costs less than a hello-world",
        ">= 1.0 x, p99 <= 1.25 x a bare Starlette route",
        (_bench("cached"),),
    ),
    "S2": Proof(
        "a repeat check beside verifiers that ask each time", ">= 50 x faster", (Step((), 0),)
    ),
    "S3": Proof(
        "round trips of a cold and a warm check", "4 and 1", (_bench("probe"), _bench("warm"))
    ),
    "S4": Proof(
        "dialogues a second a core, CPU, memory",
        ">= 6,000/s, <= 0.16 ms, <= 8 KiB, >= 2.5 x aiosmtplib, warm >= 10 x",
        (_bench("probe"), _bench("warm"), _bench("throughput", minutes=30)),
    ),
    "S5": Proof(
        "every answer within its budget, 1,000 tarpits in flight",
        "budget + 100 ms",
        (_bench("budget", "1000", "1"),),
    ),
    "S6": Proof(
        "remembered answers do not feel the cold ones",
        "p99 <= 2 x idle",
        (_tests(_NEIGHBOURS, minutes=8, only="prove", chosen="remembered",
                figure=r"remembered answers: (.+)"),),
    ),
    "S7": Proof(
        "a million verdicts remembered", ">= 0.9 x, <= 320 bytes, <= 10 ms", (_bench("growth"),)
    ),
    "S8": Proof(
        "4,000 remembered and 150 cold checks a second",
        "p99 <= 25 ms, 0 errors; p95 <= 60 ms over the peer's",
        (_bench("throughput", minutes=30),),
    ),
    "S9": Proof("the widget", "<= 5 KB gzip, verdict <= 50 ms", (_bench("widget"),)),
    "S10": Proof("start and import", "<= 2 s, <= 0.5 s", (_bench("start", minutes=5),)),
    "C1": Proof(
        "no false refusal",
        "0 over the fault catalogue and 20,000 made-up servers",
        (
            _tests("tests/faults", minutes=30, figure=r"(fault catalogue: .+)"),
            _tests("tests/fuzz/test_scripts.py", minutes=30, only="prove", figure=r"(\d+ scripts)"),
        ),
    ),
    "C2": Proof(
        "replies nobody tuned to",
        ">= 97 % right, <= 0.3 % false, >= 92 % recall",
        (_bench("classifier"),),
    ),
    "C3": Proof(
        "real servers give the verdict of their configuration",
        "all, 0 false refusals",
        (_tests("tests/lab", minutes=20),),
    ),
    "R1": Proof(
        "the event loop under hostile peers and octets",
        "<= 50 ms; inputs bounded in CPU",
        (
            _tests("tests/faults", minutes=30, figure=r"(worst loop lag \d+ ms)"),
            _tests(_SIEGE, "tests/resources/test_bombs.py", minutes=15,
                   chosen="slow_clients or bomb",
                   figure=r"(loop lag at worst \d+ ms)", every=True),
            _tests("tests/fuzz/test_octets.py", "tests/fuzz/test_bodies.py", minutes=60,
                   only="prove", figure=r"(slowest \w+: [\d.]+ ms)", every=True),
        ),
    ),
    "R2": Proof(
        "acknowledged re-checks and webhooks lost",
        "0 in 1,000 kills and 300 power cuts; without syncs, some",
        (
            _module("tests.durability.supervisor", "1000", minutes=45,
                    figure=r"(\d+ kills, \d+ acknowledged re-checks, \d+ lost)"),
            _module("tests.durability.powercut", "300", minutes=15,
                    figure=r"synchronous=FULL: (.+ lost)"),
            _tests("tests/durability", minutes=10),
        ),
    ),
    "R3": Proof(
        "connections to denied address space",
        "0",
        (_tests("tests/security/test_a_egress.py", "tests/test_egress.py", minutes=20),),
    ),
    "R4": Proof(
        "dialogues and recipients a destination under attack",
        "<= 2, <= 30 and 10 a minute",
        (_tests("tests/smtp/test_manners.py", minutes=40), _bench("manners")),
    ),
    "R5": Proof(
        "memory and descriptors under 5,000 slow clients, 2,000 tarpits and bombs",
        "<= 256 MiB, <= 80 %, back within 60 s",
        (_tests(_SIEGE, minutes=10, only="prove", figure=r"(RSS .+ s later)"),),
    ),
    "R6": Proof(
        "DNS, disk, SMTP egress and Redis down 30 s each",
        "0 HTTP 5xx, back within 5 s",
        (
            _tests("tests/resources/test_outages.py", minutes=10, only="prove",
                   figure=r"(no [a-z ]+) for 30 s.*(back after [\d.]+ s)", every=True),
            _tests("tests", minutes=20, only="prove", chosen="redis and (down or outage)"),
        ),
    ),
    "R7": Proof(
        "SIGTERM with 500 slow clients and 256 dialogues",
        "<= 10 s, 0 promises lost",
        (_tests("tests/resources/test_limits.py", minutes=5, figure=r"(stopped in .+)"),),
    ),
    "R8": Proof(
        "tokens and inbound ids are accepted once",
        "exactly once: race, restart, clock step",
        (
            _tests("tests/durability/test_once.py", minutes=15, figure=r"(\d+ tokens in .+)"),
            _tests("tests/api/test_siteverify.py", "tests/api/test_hooks.py", minutes=10),
        ),
    ),
    "R9": Proof(
        "plaintext addresses in logs, metrics, errors, at rest",
        "none",
        (_tests("tests/test_privacy.py", "tests/security/test_j_privacy.py", minutes=15),),
    ),
    "R10": Proof(
        "the API as its document says",
        "2,000 calls an operation, nothing found",
        (Step(("scripts/prove-api",), 40, r"(\d+ passed.*) in"),),
    ),
    "R11": Proof(
        "one site at 20 x its quota, the other one",
        "p99 <= 1.3 x alone, 0 errors, 0 foreign bytes",
        (_tests(_NEIGHBOURS, minutes=8, only="prove", chosen="flood",
                figure=r"the other's (p99 .+ foreign answers)"),),
    ),
    "R12": Proof(
        "one dead endpoint among a hundred",
        "<= 1 s p99 for the rest; 12 attempts, then replay",
        (_tests("tests/webhooks", minutes=10),),
    ),
}  # fmt: skip
"""In the order of the table."""
