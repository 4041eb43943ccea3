"""The ground that the lab's servers stand on: addresses, a root file system, processes.

What it promises: everything listens in one /16 of 127.0.0.0/8 that no other run on the machine uses
at the same time; every server runs chrooted into a tree of its session's own, so that the
machine's configuration, users and resolver play no part; and exactly the processes that were
started here are ended, also when the test run is killed.

Rules
  1. A server stays in the foreground, as a child of the test run and the leader of its own group.
  2. Nothing is written outside the session's tree.
  3. A server that does not come up in time fails the run with its log.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "lab"
PACKAGES: Final = CACHE / "root"
"""What scripts/lab-packages unpacked."""

READY: Final = 15.0
"""Seconds a server may take to listen; it takes tenths, on a machine that has time."""
STOP: Final = 5.0

USERS: Final = (
    "nobody",
    "postfix",
    "Debian-exim",
    "opensmtpd",
    "opensmtpq",
    "dovecot",
    "dovenull",
    "mailbox",
)
GROUPS: Final = ("nogroup", "mail", "postdrop")
WATCH: Final = 'while read -r pid; do pids="$pids $pid"; done; kill $pids'
"""Gets the servers' numbers as they start, and ends them when the pipe ends: the test run is gone.
The kernel's own signal for that (PR_SET_PDEATHSIG) is lost when a server changes its user."""

FIRST_ID: Final = 61_100
"""Above what Debian gives to anybody: no process of the lab shares a user with one outside it."""


class LabError(Exception):
    """The lab cannot stand; the message says what to do or what a server said."""


def missing() -> str | None:
    """Why the lab cannot be started here, or None."""
    if not (CACHE / "complete").is_file():
        return "the lab's servers are not there: run scripts/lab-packages"
    if os.geteuid() != 0:
        return "the lab needs root: its servers listen on port 25 (scripts/lab-packages tells more)"
    return None


class Network:
    """A /16 of the loopback network, ours until `release`."""

    def __init__(self) -> None:
        for second in range(200, 220):
            keeper = socket.socket()
            with suppress(OSError):
                keeper.bind((f"127.{second}.255.254", 25))
                keeper.listen(1)
                self._keeper = keeper
                self.second = second
                return
            keeper.close()
        raise LabError("127.200.0.0/16 to 127.219.0.0/16 are all in use")

    def ip(self, third: int, fourth: int) -> str:
        """The address of a host of the lab."""
        return f"127.{self.second}.{third}.{fourth}"

    def release(self) -> None:
        """Let another run have the network."""
        self._keeper.close()


@dataclass(slots=True)
class Ground:
    """One session's tree and the processes that run in it."""

    network: Network
    root: Path
    _watch: subprocess.Popen[bytes]
    _running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    @classmethod
    def lay(cls, network: Network) -> Ground:
        """A fresh tree: the packages' files by hard link, our own users, resolver and devices."""
        root = CACHE / f"run-{network.second}"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(PACKAGES, root, symlinks=True, copy_function=_link)
        root.chmod(0o755)
        watch = subprocess.Popen(
            ["sh", "-c", WATCH], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        ground = cls(network, root, watch)
        try:
            ground._furnish()
        except OSError as error:
            ground.stop()
            raise LabError(f"no root file system for the lab: {error}") from error
        return ground

    def write(self, path: str, text: str, owner: str = "root") -> Path:
        """Write a file of the tree, in place of a packaged one if there is one."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text, encoding="utf-8")
        os.chown(file, _number(owner), _number(owner))
        return file

    def folder(
        self, path: str, owner: str = "root", group: str = "root", mode: int = 0o755
    ) -> Path:
        """Make a folder of the tree, owned by one of the tree's own users."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        os.chown(folder, _number(owner), _number(group))
        return folder

    def start(self, name: str, command: Sequence[str], *, chroot: bool = True) -> None:
        """Start a server in the foreground; its output goes to var/log/NAME.log."""
        inside = ["chroot", str(self.root)] if chroot else []
        with (self.root / f"var/log/{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*inside, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"},
            )
        self._running.append((name, process))
        assert self._watch.stdin
        self._watch.stdin.write(b"%d\n" % process.pid)

    def wait_for(self, name: str, address: tuple[str, int]) -> None:
        """Wait until the server called `name` accepts connections."""
        process = dict(self._running)[name]
        limit = time.monotonic() + READY
        while time.monotonic() < limit and not _ended(process.pid):
            with socket.socket() as probe:
                if probe.connect_ex(address) == 0:
                    return
            time.sleep(0.02)
        state = "ended" if _ended(process.pid) else "does not listen"
        raise LabError(f"{name} {state} ({address[0]}:{address[1]})\n{self.logs()}")

    def logs(self, most: int = 4_000) -> str:
        """The end of every server's log."""
        files = sorted(file for file in (self.root / "var/log").iterdir() if file.is_file())
        texts = ((file.name, file.read_text("utf-8", "replace").strip()) for file in files)
        return "\n".join(f"-- {name}\n{text[-most:]}" for name, text in texts if text)

    def stop(self) -> None:
        """End the servers, the last one first, and take the tree away."""
        self._watch.kill()
        self._watch.communicate()
        for _name, process in reversed(self._running):
            if not _ended(process.pid):
                os.kill(process.pid, signal.SIGTERM)
        limit = time.monotonic() + STOP
        for _name, process in reversed(self._running):
            while time.monotonic() < limit and not _ended(process.pid):
                time.sleep(0.02)
            # The process led a group of its own, and while it is not waited for, the group's number
            # is not given to another: this ends what a server left behind, and nothing else.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()
        shutil.rmtree(self.root, ignore_errors=True)

    def _furnish(self) -> None:
        self._accounts()
        self._devices()
        for name in ("run", "var/empty", "var/lib", "var/spool", "srv"):
            self.folder(name)
        (self.root / "var/run").symlink_to("/run")
        for name in ("tmp", "var/log"):
            self.folder(name, mode=0o1777)
        self.write("etc/hosts", "127.0.0.1 localhost\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        self.write("etc/services", "smtp 25/tcp\ndomain 53/udp\ndomain 53/tcp\n")

    def _accounts(self) -> None:
        passwd = ["root:x:0:0::/root:/bin/sh"]
        group = ["root:x:0:"]
        for name, number in _ids():
            passwd.append(f"{name}:x:{number}:{number}::/var/empty:/bin/false")
            group.append(f"{name}:x:{number}:")
        self.write("etc/passwd", "\n".join(passwd) + "\n")
        self.write("etc/group", "\n".join(group) + "\n")

    def _devices(self) -> None:
        self.folder("dev")
        for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
            node = self.root / "dev" / name
            os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, minor))
            node.chmod(0o666)


def _ids() -> Iterator[tuple[str, int]]:
    return zip((*USERS, *GROUPS), range(FIRST_ID, FIRST_ID + 100), strict=False)


def _number(name: str) -> int:
    return 0 if name == "root" else dict(_ids())[name]


def _ended(pid: int) -> bool:
    """True when our child has ended; it stays a zombie until it is waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _link(source: str, target: str) -> str:
    os.link(source, target, follow_symlinks=False)
    return target
