"""The gate as one of the verifiers: starts `gate serve`, and asks it over HTTP, so many at once."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers.verifier import MOST_MS, SETTINGS
from tests.ports import free_port

SECRET = "sk_live_of_the_peers_benchmark_01"


def said_of(found: dict[str, str]) -> str:
    """The gate's verdict in the words that all verifiers are put to."""
    if found["result"] == "undeliverable":
        return "missing"
    words = {"accepted_email": "exists", "accept_all": "accepts all", "mailbox_full": "full"}
    return words.get(found["reason"], "unknown")


def asker(port: int) -> Callable[[str], str]:
    """A function that asks; each thread keeps its connection."""
    mine = threading.local()
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}

    def ask(email: str) -> str:
        if not hasattr(mine, "talk"):
            mine.talk = http.client.HTTPConnection("127.0.0.1", port)
        started = time.perf_counter()
        body = json.dumps({"email": email, "timeout_ms": MOST_MS})
        mine.talk.request("POST", "/v1/check", body, headers)
        found = json.loads(mine.talk.getresponse().read())
        ms = (time.perf_counter() - started) * 1000
        told = {"email": email, "said": said_of(found), "why": found["reason"], "ms": ms}
        return json.dumps(told) + "\n"

    return ask


def tell(done: Future[str]) -> None:
    """Whole lines, for many threads tell at once."""
    sys.stdout.write(done.result())
    sys.stdout.flush()


def main() -> None:
    limits, at_once = sys.argv[1], int(sys.argv[2])
    nameserver = Path("/etc/resolv.conf").read_text("ascii").split()[1]
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gate.toml"
        digest = hashlib.sha256(SECRET.encode()).hexdigest()
        text = SETTINGS.format(port=port, resolver=nameserver, limits=limits, digest=digest)
        file.write_text(text, "utf-8")
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("gate")), "serve", "--config", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=(Path(folder) / "log").open("wb"),
        )
        try:
            _wait(server, port, Path(folder) / "log")
            ask = asker(port)
            print("ready", flush=True)
            with ThreadPoolExecutor(at_once) as pool:
                for line in sys.stdin:
                    pool.submit(ask, line.strip()).add_done_callback(tell)
        finally:
            server.terminate()
            server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while True:
        talk = http.client.HTTPConnection("127.0.0.1", port)
        try:
            talk.request("GET", "/readyz")
            talk.getresponse().read()
            return
        except ConnectionRefusedError:
            if server.poll() is not None:
                raise SystemExit(f"the gate did not start: {log.read_text()[-500:]}") from None
            time.sleep(0.02)
        finally:
            talk.close()


if __name__ == "__main__":
    main()
