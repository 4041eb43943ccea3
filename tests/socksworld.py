"""SOCKS servers on loopback for one test run: two of Debian's, and one that plays any script.

Real ones come from scripts/lab-packages, or are installed; without them a test is skipped, and
under CI, or as root, it fails.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, SupportsIndex

import pytest

from tests.ports import free_port

PACKAGES: Final = Path(__file__).resolve().parents[1] / ".cache" / "lab" / "root"
USER, PASSWORD = "gate", "s3cret-word"
SEEN_FROM: Final = "127.0.0.77"
"""What microsocks dials from."""
FORBIDDEN: Final = "127.0.0.78"
"""Where dante's rules let nobody go."""
READY: Final = 10.0

DANTE: Final = """
logoutput: /dev/null
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: none
user.privileged: {user}
user.unprivileged: {user}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 0.0.0.0/0 to: {forbidden}/32 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 command: connect }}
"""


def program(name: str) -> str:
    """Where a Debian package's program is. Skips the test, or fails it, without one."""
    for folder in ("usr/bin", "usr/sbin"):
        if (PACKAGES / folder / name).is_file():
            return str(PACKAGES / folder / name)
    if found := shutil.which(name) or shutil.which(name, path="/usr/sbin"):
        return found
    reason = f"{name} is not there: run scripts/lab-packages"
    if os.environ.get("CI") == "true" or os.geteuid() == 0:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """A server in the foreground, ended at the end; its address as `ip:port`."""
    library = PACKAGES / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
    process = subprocess.Popen(
        command,
        env={"LD_LIBRARY_PATH": str(library)} if command[0].startswith(str(PACKAGES)) else {},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + READY
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < until, f"{command[0]} does not listen"
            time.sleep(0.01)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(READY)


@contextmanager
def microsocks() -> Iterator[str]:
    """One that wants a password, and dials from SEEN_FROM."""
    port = free_port()
    listen = ["-i", "127.0.0.1", "-p", str(port), "-b", SEEN_FROM]
    with running([program("microsocks"), *listen, "-u", USER, "-P", PASSWORD], port) as where:
        yield where


@contextmanager
def dante(folder: Path) -> Iterator[str]:
    """One that wants no password, and has rules: nobody goes to FORBIDDEN."""
    port = free_port()
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    file = folder / "danted.conf"
    file.write_text(DANTE.format(port=port, user=user, forbidden=FORBIDDEN))
    with running([program("danted"), "-f", str(file)], port) as where:
        yield where


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Ear(asyncio.StreamReader):
    """Remembers everything that comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = b""

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self.heard += bytes(data)
        super().feed_data(data)


@asynccontextmanager
async def playing(script: Script) -> AsyncIterator[tuple[str, list[Ear]]]:
    """A server of ours that does anything at all; where it is, and what each client said to it."""
    ears: list[Ear] = []
    tasks: set[asyncio.Task[None]] = set()

    def accept() -> asyncio.StreamReaderProtocol:
        ears.append(Ear())
        return asyncio.StreamReaderProtocol(ears[-1], serve)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", ears
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
