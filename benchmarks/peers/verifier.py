"""The verifiers: each a process that reads addresses and says what it thinks of them.

The others are asked through a few lines around their one function (see the folders beside this
file), the gate over HTTP. Each line of their output is a JSON object: the address, what was `said`
of it ("exists", "missing", "accepts all", "full" or "unknown"), and the milliseconds it took.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import world

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).parent
BUILT: Final = ROOT / ".cache" / "peers"
PATIENCE: Final = 60.0
"""Seconds that any one answer is waited for."""
FAREWELL: Final = 12.0
"""Seconds for what still waits for a mail server when nobody asks any more."""
MOST_MS: Final = 10_000
"""What the gate is given; the others have ten seconds as well, where one can say so."""


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


class Asked:
    """A running verifier."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = self._lines.get(timeout=PATIENCE)
        if ready != "ready":
            raise SystemExit(f"{process.args!r}: did not start: {ready}")

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def close(self) -> None:
        """Let its output go; it has ended."""
        self._reader.join(FAREWELL)
        assert self._process.stdout
        self._process.stdout.close()

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
    running = Asked(process)
    try:
        yield running
    finally:
        assert process.stdin
        process.stdin.close()  # it ends by itself, and ends what it started
        try:
            process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        running.close()


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
AS_SHIPPED: Final = """
network_dialogues = 256
network_recipients_per_minute = 100_000
"""
"""Only that the whole lab is one /24, which in the field would be one host's network."""
UNLIMITED: Final = f"""
{AS_SHIPPED}
destination_dialogues = 16
site_dialogues = 256
destination_recipients_per_minute = 100_000
domain_dialogues = 16
domain_recipients_per_minute = 100_000
"""
"""As for a domain of one's own: the others have no limits."""


def gate(limits: str, name: str) -> Verifier:
    """The gate as `gate serve` runs it, asked over HTTP."""
    command = (sys.executable, "-m", "benchmarks.peers.gate_over_http", limits)
    return Verifier(name, "over HTTP", command, over="HTTP")
