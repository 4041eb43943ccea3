"""A Redis server of the tests' own: Debian's, on a free loopback port, in a temporary folder.

`scripts/store-packages` fetches it; one that is on PATH will do. It is ended with the test run,
whatever becomes of that.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from gate.budget import Clock
from gate.store import Store, open_store
from tests.ports import free_port

CACHE: Final = Path(__file__).resolve().parents[1] / ".cache" / "redis"
READY: Final = 15.0
"""Seconds it may take to answer; it takes hundredths, on a machine that has time."""
_DIES_WITH_PARENT: Final = 1


def program() -> str:
    """The server's path. Without one a test is skipped; under CI it fails."""
    own = CACHE / "redis-server"
    found = str(own) if own.exists() else shutil.which("redis-server")
    if found is None:
        reason = "there is no redis-server: run scripts/store-packages"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


class RedisServer:
    """One server, started by `start` and ended by `stop`; it keeps its port and its files."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int, login: str = "", port: int | None = None) -> str:
        return f"redis://{login}127.0.0.1:{port or self.port}/{database}"

    def start(self, *options: str) -> None:
        """Start it, and return when it takes connections."""
        command = [program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.folder), "--logfile", "log", "--databases", "100"]
        libraries = {"LD_LIBRARY_PATH": str(CACHE / "lib")}
        self._process = subprocess.Popen(
            [*command, *self.options, *options],
            env=os.environ | libraries,
            preexec_fn=_die_with_parent,
        )
        until = time.monotonic() + READY
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    pytest.fail((self.folder / "log").read_text(), pytrace=False)
                time.sleep(0.01)

    def send(self, number: int) -> None:
        """Send it a signal; SIGSTOP makes it silent, SIGCONT speak again."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it, and wait until it has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def ask(self, *words: str | bytes, login: Sequence[str] = ()) -> bytes:
        """Say one command on a connection of its own; the answer as it comes, at most 64 KiB."""
        said = b""
        for command in ([("AUTH", *login)] if login else []) + [words]:
            parts = [word if isinstance(word, bytes) else word.encode() for word in command]
            said += b"*%d\r\n" % len(parts)
            said += b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=READY) as sock:
            sock.sendall(said)
            answer = sock.recv(65536)
            if login and answer == b"+OK\r\n":
                answer = sock.recv(65536)
            return answer.removeprefix(b"+OK\r\n") if login else answer


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A running server with these options more."""
    with tempfile.TemporaryDirectory(prefix="gate-redis-") as folder:
        server = RedisServer(Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@asynccontextmanager
async def opened(url: str, wall: Clock = time.time, capacity: int = 100) -> AsyncIterator[Store]:
    """An open store, closed again."""
    store = await open_store(url, wall=wall, capacity=capacity)
    try:
        yield store
    finally:
        await store.close()
