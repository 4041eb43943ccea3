"""A gate as a process of its own, which can be killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
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
port = 0
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
    path = folder / "gate.toml"
    digest = site()["secret_hash"]
    path.write_text(
        TABLES.format(store=store, key=SITEKEY, digest=digest, origin=ORIGIN, more=more)
    )
    path.chmod(0o600)
    log = folder / "gate.log"
    start = log.stat().st_size if log.exists() else 0
    with log.open("a") as written:
        command = [sys.executable, "-c", SERVE, str(path)]
        child = subprocess.Popen(command, stderr=written, text=True)
    try:
        while (port := port_said(log.read_text()[start:])) is None:
            assert child.poll() is None, log.read_text()[start:]
            time.sleep(0.02)
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=5) as client:
            yield Running(client, child)
    finally:
        child.kill()
        child.wait()


def port_said(log: str) -> int | None:
    """Where a gate listens, as its log has it; None until it does."""
    found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", log)
    return int(found[1]) if found else None
