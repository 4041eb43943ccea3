"""The gate beside what people would use instead (promises S2 and S3).

Each verifier is a process of its own that is asked through its public interface: a library by a few
lines around its one function, the gate over HTTP, so that its figures hold an HTTP exchange more
than the others'. All ask the same Postfix about the same addresses and look names up at the same
resolver, with nothing added and with 20 ms added to every reply. Six kinds of work:

    first         the first question about a domain, at five domains one after the other
    repeat        the same five addresses again, four times
    many          different addresses at one domain, sixteen at once
    accepts all   a domain that takes every recipient
    dead MX       the most preferred host refuses connections
    tarpit        the host accepts the connection and says nothing

and the cases of `CASES`, whose truth is in the servers' configuration: what each verifier got
wrong stands beside its times. "Lost people" are addresses said to be missing that are not, or of
which the servers said nothing: the costliest mistake.

    scripts/peer-packages                     build the others
    python -m benchmarks.peers [short]        needs root, for port 25 and for resolv.conf
"""

from __future__ import annotations

import json
import queue
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import world
from benchmarks.record import record
from tests.lab.servers import missing

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).parent
BUILT: Final = ROOT / ".cache" / "peers"
PATIENCE: Final = 60.0
"""Seconds that any one answer is waited for."""
FAREWELL: Final = 12.0
"""Seconds for what still waits for a mail server when nobody asks any more."""
AT_ONCE: Final = 16
REPEATS: Final = 4
MOST_MS: Final = 10_000
"""What the gate is given; the others have ten seconds as well, where one can say so."""

FIRST: Final = tuple(
    f"alice@{name}.example.com" for name in ("mailbox", "local", "alias", "relay", "footer")
)
ACCEPTS_ALL: Final = "anybody@catchall.example.com"
DEAD_FIRST: Final = "alice@second.example.com"
TARPIT: Final = "alice@ascii.example.com"

CASES: Final[dict[str, str]] = {
    "alice@mailbox.example.com": "exists",
    "nobody@mailbox.example.com": "missing",
    "nobody@local.example.com": "missing",
    "nobody@alias.example.com": "missing",
    "alice@tls.example.com": "exists",
    "alice@one-by-one.example.com": "exists",
    "alice@second.example.com": "exists",
    "alice@second-if-busy.example.com": "exists",
    "alice@implicit.example.com": "exists",
    "alice@underscore.example.com": "exists",
    "alice@nick.example.com": "exists",
    "anybody@catchall.example.com": "accepts all",
    "someone@exim-all.example.com": "accepts all",
    "full@quota.example.com": "full",
    "later@access.example.com": "full",
    "gone@access.example.com": "missing",
    "alice@nullmx.example.com": "missing",
    "alice@nomx.example.com": "missing",
    "alice@missing.example.com": "missing",
    "new@grey-first.example.com": "unknown",
    "nobody@soft.example.com": "unknown",
    "alice@helo.example.com": "unknown",
    "alice@helo-early.example.com": "unknown",
    "alice@sender-callout.example.com": "exists",
    "alice@elsewhere.example.com": "unknown",
    "alice@lame.example.com": "unknown",
    "alice@dead.example.com": "unknown",
    "alice@ascii.example.com": "unknown",
    "nobody@exim.example.com": "missing",
    "nobody@opensmtpd-list.example.com": "missing",
}
"""What the servers' configuration makes of each. "unknown": they refuse us, put us off, are broken
or say nothing; whoever then says that the mailbox is missing turns a person away."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """`command` is run with the number of questions at once behind it. `over`: how it is asked."""

    name: str
    version: str
    command: tuple[str, ...]
    built: str = ""
    over: str = "function call"

    @property
    def error(self) -> str | None:
        """Why it is not here."""
        file = BUILT / f"{self.built}.error"
        if self.built and file.exists():
            return file.read_text("utf-8").strip()
        return None if not self.built or (BUILT / f"{self.built}.built").exists() else "not built"


PYTHON: Final = str(BUILT / "python" / "bin" / "python")
RIVALS: Final = (
    Verifier("AfterShip/email-verifier", "1.4.1 (Go)", (str(BUILT / "go" / "rival"),), "aftership"),
    Verifier(
        "check-if-email-exists (Reacher)",
        "0.11.11 (Rust)",
        (str(BUILT / "rust/target/release/rival"),),
        "reacher",
    ),
    Verifier(
        "deep-email-validator",
        "0.1.27 (Node)",
        ("node", str(BUILT / "node/deep-email-validator.mjs")),
        "node",
    ),
    Verifier(
        "@devmehq/email-validator-js",
        "2.10.2 (Node, caches)",
        ("node", str(BUILT / "node/email-validator-js.mjs")),
        "node",
    ),
    Verifier(
        "py3-validate-email",
        "1.0.5 (Python)",
        (PYTHON, str(HERE / "python" / "py3_validate_email.py")),
        "python",
    ),
    Verifier(
        "aiosmtplib by hand",
        "5.1 (Python)",
        (sys.executable, str(HERE / "python" / "by_hand.py")),
    ),
    Verifier("truemail", "3.3.1 (Ruby)", ("ruby",), "truemail"),
)


@dataclass(slots=True)
class Figures:
    """What one verifier took for each kind of work, in milliseconds, and got wrong."""

    first_ms: float = 0.0
    repeat_ms: float = 0.0
    many_per_second: float = 0.0
    many_cpu_ms: float = 0.0
    accepts_all: tuple[str, float] = ("", 0.0)
    dead_first: tuple[str, float] = ("", 0.0)
    tarpit: tuple[str, float] = ("", 0.0)
    wrong: dict[str, str] = field(default_factory=dict)
    lost: int = 0


class Asked:
    """A running verifier."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        ready = self._lines.get(timeout=PATIENCE)
        if ready != "ready":
            raise SystemExit(f"a verifier did not start: {ready}")

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def ask(self, emails: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Its answers, once all have come or PATIENCE is at its end."""
        assert self._process.stdin
        for email in emails:
            self._process.stdin.write(f"{email}\n")
        self._process.stdin.flush()
        answers: dict[str, dict[str, Any]] = {}
        while len(answers) < len(emails):
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                break
            if line is None:
                break
            answer = json.loads(line)
            answers[answer["email"]] = answer
        for email in emails:
            answers.setdefault(email, {"said": "no answer", "ms": PATIENCE * 1000})
        return answers


@contextmanager
def asked(verifier: Verifier, at: world.World, at_once: int) -> Iterator[Asked]:
    """Start a verifier that knows nothing yet."""
    process = subprocess.Popen(
        at.inside([*verifier.command, str(at_once)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Asked(process)
    finally:
        assert process.stdin
        process.stdin.close()  # it ends by itself, and ends what it started
        try:
            process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(verifier: Verifier, at: world.World, many: int) -> Figures:
    """All kinds of work, each with a fresh process."""
    found = Figures()
    with asked(verifier, at, AT_ONCE) as one:
        one.ask([*FIRST, ACCEPTS_ALL, DEAD_FIRST])  # so that the resolver knows the names
    with asked(verifier, at, 1) as one:
        found.first_ms = statistics.median(one.ask([email])[email]["ms"] for email in FIRST)
        again = [one.ask([email])[email]["ms"] for _ in range(REPEATS) for email in FIRST]
        found.repeat_ms = statistics.median(again)
        for name, email in (("accepts_all", ACCEPTS_ALL), ("dead_first", DEAD_FIRST)):
            answer = one.ask([email])[email]
            setattr(found, name, (answer["said"], answer["ms"]))
    before = _children_cpu()
    with asked(verifier, at, AT_ONCE):
        pass
    idle = _children_cpu() - before
    with asked(verifier, at, AT_ONCE) as crowd:
        emails = [f"person{number}@mailbox.example.com" for number in range(many)]
        before, started = _children_cpu(), time.perf_counter()
        crowd.ask(emails)
        found.many_per_second = many / (time.perf_counter() - started)
    found.many_cpu_ms = (_children_cpu() - before - idle) / many * 1000
    return found


def judge(verifier: Verifier, at: world.World, found: Figures) -> None:
    """The cases whose truth is known, and the tarpit."""
    local = "".join(letter for letter in verifier.name if letter.isalpha()).lower()
    cases = {email.replace("new@", f"{local}@"): truth for email, truth in CASES.items()}
    with asked(verifier, at, AT_ONCE) as crowd:
        answers = crowd.ask(list(cases))
    tarpit = answers[TARPIT]
    found.tarpit = (tarpit["said"], tarpit["ms"])
    for email, truth in cases.items():
        said = answers[email]["said"]
        if said != truth and not (truth == "full" and said == "unknown"):
            found.wrong[email.replace(f"{local}@", "new@")] = said
            found.lost += said == "missing"


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -- the gate --------------------------------------------------------------------------------------

SETTINGS: Final = """
[server]
port = {port}
admin_port = 0
secret = "of a benchmark, which nobody else will ever use"
[dns]
servers = ["{resolver}:53"]
[egress]
allow = ["127.0.0.0/8"]
[probe]
helo = "good.lab.example.com"
mail_from = "probe@lab.example.com"
[store]
url = "memory:"
[limits]
{limits}
[[site]]
name = "shop"
site_key = "pk_of_a_benchmark"
secret_hash = "sha256:{digest}"
"""
UNLIMITED: Final = """
destination_dialogues = 16
site_dialogues = 256
destination_recipients_per_minute = 1_000_000
domain_recipients_per_minute = 1_000_000
harvest_refusals = 1_000_000
"""
"""As for one's own mail domain: what the others have no limits for."""


def gate(limits: str, name: str) -> Verifier:
    """The gate as `gate serve` runs it, asked over HTTP."""
    command = (sys.executable, "-m", "benchmarks.peers.gate_over_http", limits)
    return Verifier(name, "over HTTP", command, over="HTTP")


def main() -> int:
    """Measure all, print the tables, keep the figures."""
    if reason := missing():
        print(f"benchmarks.peers: {reason}", file=sys.stderr)
        return 2
    short = sys.argv[1:2] == ["short"]
    many = 100 if short else 1_000
    verifiers = [gate(UNLIMITED, "the gate"), *RIVALS]
    tables: dict[str, dict[str, Figures]] = {}
    for later in (0, 20):
        table = tables[f"{later} ms"] = {}
        with world.running(later) as at:
            for verifier in verifiers:
                if verifier.error is None:
                    table[verifier.name] = measure(verifier, at, many if later == 0 else many // 5)
    with world.running(0) as at:
        for verifier in verifiers:
            if verifier.error is None:
                judge(verifier, at, tables["0 ms"][verifier.name])
    return show(tables, verifiers)


def show(tables: dict[str, dict[str, Figures]], verifiers: Sequence[Verifier]) -> int:
    ours = {later: table["the gate"] for later, table in tables.items()}
    for later, table in tables.items():
        print(f"\n{later} added to every reply; milliseconds")
        print(f"{'':34}{'first':>9}{'repeat':>9}{'many/s':>9}{'CPU ms':>8}{'all':>9}{'dead MX':>9}")
        for name, at in table.items():
            print(
                f"{name:34}{at.first_ms:9.1f}{at.repeat_ms:9.2f}{at.many_per_second:9.0f}"
                f"{at.many_cpu_ms:8.2f}{at.accepts_all[1]:9.1f}{at.dead_first[1]:9.1f}"
            )
    print(f"\nright of {len(CASES)} cases, people lost, and the tarpit")
    for name, at in tables["0 ms"].items():
        right = len(CASES) - len(at.wrong)
        print(f"{name:34}{right:4}{at.lost:6}   {at.tarpit[0]} after {at.tarpit[1]:.0f} ms")
        for email, said in at.wrong.items():
            print(f"{'':38}{email}: said {said}, is {CASES[email]}")
    for verifier in verifiers:
        if verifier.error is not None:
            print(f"{verifier.name:34}not built: {verifier.error}")
    asked_anew = [
        at.repeat_ms
        for name, at in tables["20 ms"].items()
        if name not in ("the gate", "@devmehq/email-validator-js")
    ]
    times = min(asked_anew) / ours["20 ms"].repeat_ms
    met = times >= 50
    print(f"S2 repeat, 20 ms a reply: {times:.0f} x the fastest that asks anew (promised 50)")
    record(
        "peers",
        promises={"S2": (f"{times:.0f} x", ">= 50 x", met)},
        figures={
            later: {
                name: {field: getattr(at, field) for field in Figures.__slots__}
                for name, at in table.items()
            }
            for later, table in tables.items()
        },
        absent={v.name: v.error for v in verifiers if v.error is not None},
    )
    return 0 if met and not ours["0 ms"].lost else 1


if __name__ == "__main__":
    sys.exit(main())
