"""A gate as a process of its own, which can be killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.api.ground import ORIGIN, SITEKEY, site

HOST = "127.0.0.1"
SERVE = "import sys; from gate.cli import main; sys.exit(main(['serve', '--config', sys.argv[1]]))"
TABLES = """
[server]
port = {port}
admin_port = 0
[store]
url = "{store}"
[dns]
servers = ["127.0.0.1:9"]
[sandbox]
enabled = true
[[site]]
name = "main"
site_key = "{key}"
secret_hash = "{digest}"
origins = ["{origin}"]
{more}
"""


@dataclass(slots=True)
class Running:
    """One life of it."""

    client: httpx.Client
    child: subprocess.Popen[str]

    def kill(self) -> None:
        """SIGKILL: no chance to say good-bye."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


@contextmanager
def gate_process(folder: Path, *, store: str = "memory:", more: str = "") -> Iterator[Running]:
    """Served from a settings file in `folder`; `more` is put behind the site's table."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    path = folder / "gate.toml"
    digest = site()["secret_hash"]
    path.write_text(
        TABLES.format(port=port, store=store, key=SITEKEY, digest=digest, origin=ORIGIN, more=more)
    )
    path.chmod(0o600)
    log = folder / "gate.log"
    with log.open("a") as written:
        command = [sys.executable, "-c", SERVE, str(path)]
        child = subprocess.Popen(command, stderr=written, text=True)
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=5) as client:
            while not _answers(client):
                assert child.poll() is None, log.read_text()
            yield Running(client, child)
    finally:
        child.kill()
        child.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
