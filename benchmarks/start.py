"""How long from the command to the first answer? (promise S10)

Starts `gate serve` with the sandbox as a program of its own, again and again, and asks it as soon
as its port takes connections. Beside it, in the same run: what importing costs, and a bare
Starlette application on the same uvicorn.

    python -m benchmarks.start [rounds]
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import closing

from benchmarks.record import record
from tests.ports import free_port

PROMISE_S = 2.0
IMPORT_PROMISE_S = 0.5
SECRET = "start-benchmark-master-key-0123456789"

GATE = "import sys; from gate.cli import main; sys.exit(main(['serve']))"
BARE = """
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
app = Starlette(routes=[Route("/v1/check", lambda request: JSONResponse({{}}), methods=["POST"])])
uvicorn.run(app, port={port}, log_level="error")
"""


def first_answer(program: str, port: int, headers: dict[str, str]) -> float:
    """Seconds from starting `program` to its first answer."""
    environment = os.environ | {
        "GATE_SERVER__PORT": str(port),
        "GATE_SERVER__ADMIN_PORT": "0",
        "GATE_SERVER__SECRET": SECRET,
        "GATE_STORE__URL": "memory:",
        "GATE_SANDBOX__ENABLED": "true",
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program.format(port=port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as talk:
                    talk.request("POST", "/v1/check", b'{"email":"jane@inbox.test"}', headers)
                    status = talk.getresponse().status
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise SystemExit(f"it ended with status {process.returncode}") from None
                time.sleep(0.002)
                continue
            elapsed = time.perf_counter() - started
            assert status == 200, status
            return elapsed
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def import_seconds(module: str) -> float:
    """Seconds that a fresh interpreter takes to import `module`, its own start taken off."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def development_secret() -> str:
    """The secret key that a gate with our master key makes for its development site."""
    import hashlib

    from gate.engine import development_site
    from gate.token import Keys

    return development_site(Keys(hashlib.sha256(SECRET.encode()).digest()))[1]


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    headers = {
        "Authorization": f"Bearer {development_secret()}",
        "Content-Type": "application/json",
    }
    gate, bare, server, client = [], [], [], []
    for _ in range(rounds):
        gate.append(first_answer(GATE, free_port(), headers))
        bare.append(first_answer(BARE, free_port(), headers))
        server.append(import_seconds("gate.server"))
        client.append(import_seconds("gate"))
    print(f"{rounds} starts, median and worst in seconds")
    for name, found in (
        ("gate serve to a first verdict (live dialogue)", gate),
        ("bare Starlette to its first answer", bare),
        ("import gate.server", server),
        ("import gate", client),
    ):
        print(f"  {name:<46} {statistics.median(found):.2f}  {max(found):.2f}")
    met = max(gate) <= PROMISE_S and statistics.median(server) <= IMPORT_PROMISE_S
    print(f"promise: {PROMISE_S} s to the first answer, {IMPORT_PROMISE_S} s to import: ", end="")
    print("met" if met else "missed")
    if len(sys.argv) == 1:
        figure = f"{max(gate):.2f} s, import {statistics.median(server):.2f} s"
        goal = f"<= {PROMISE_S} s, import <= {IMPORT_PROMISE_S} s"
        figures = {"gate": gate, "bare Starlette": bare, "import": server, "import client": client}
        record("start", promises={"S10": (figure, goal, met)}, figures=figures)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
