"""Pytest plugin: a test that leaves a socket, a thread or a running task behind fails.

It does nothing until `gate_leaks = true` stands in pytest's ini file, since it is loaded wherever
the package is installed. A test marked `may_leak` is not looked at. What fixtures open before the
test and close after it is no leak. Bugs: sockets are seen on Linux only (/proc); tasks are seen
only where `asyncio.run` or `asyncio.Runner` ends them.
"""

from __future__ import annotations

import asyncio
import asyncio.runners
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from gate.budget import LEAK_GRACE

DESCRIPTORS: Final = Path("/proc/self/fd")
ATTEMPTS: Final = 10
"""How often, within the grace, something that is still closing is looked at again."""


@dataclass(slots=True)
class Leftovers:
    """What is open at one moment: sockets by inode (with a descriptor to name them by), threads."""

    sockets: dict[str, int] = field(default_factory=dict)
    threads: set[threading.Thread] = field(default_factory=set)

    @classmethod
    def now(cls) -> Leftovers:
        """Look; some 50 µs for a process with a few dozen descriptors."""
        sockets = {}
        for name in os.listdir(DESCRIPTORS) if DESCRIPTORS.is_dir() else ():
            try:
                target = os.readlink(DESCRIPTORS / name)
            except OSError:
                continue  # the descriptor of the listing itself
            if target.startswith("socket:"):
                sockets[target] = int(name)
        return cls(sockets, set(threading.enumerate()))

    def since(self, before: Leftovers) -> list[str]:
        """A line for each thing that is open now and was not before."""
        new = sorted(fd for inode, fd in self.sockets.items() if inode not in before.sockets)
        return [
            *(f"socket {_describe(fd)}" for fd in new),
            *(f"thread {thread.name!r}" for thread in self.threads - before.threads),
        ]


class LeakCheck:
    """The hooks, registered when the ini file asks for them."""

    def __init__(self) -> None:
        self._tasks: list[str] = []
        self._cancel_all: Callable[[asyncio.AbstractEventLoop], None] | None = None

    def watch_tasks(self) -> None:
        """Note what still runs when `asyncio.run` is about to cancel everything.

        There is no public place to look from: by the time the call returns all is cancelled.
        """
        runners: Any = asyncio.runners
        self._cancel_all = cancel_all = getattr(runners, "_cancel_all_tasks", None)
        if cancel_all is None:
            return

        def note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
            self._tasks += [
                f"task {getattr(task.get_coro(), '__qualname__', task.get_name())}"
                for task in asyncio.all_tasks(loop)
            ]
            cancel_all(loop)

        runners._cancel_all_tasks = note_and_cancel

    def pytest_unconfigure(self) -> None:
        """Give asyncio back what it was."""
        runners: Any = asyncio.runners
        if self._cancel_all is not None:
            runners._cancel_all_tasks = self._cancel_all

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Compare before and after; a test that failed by itself is left alone."""
        if item.get_closest_marker("may_leak"):
            return (yield)
        before = Leftovers.now()
        self._tasks.clear()
        result = yield
        left = self._tasks + _lasting(before)
        if left:
            pytest.fail("the test leaves behind: " + ", ".join(left), pytrace=False)
        return result


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini setting that switches the check on."""
    parser.addini("gate_leaks", "fail tests that leave sockets, threads or tasks", "bool", False)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the check if it is wanted."""
    config.addinivalue_line("markers", "may_leak: leave what this test leaves open alone")
    if config.getini("gate_leaks"):
        check = LeakCheck()
        check.watch_tasks()
        config.pluginmanager.register(check, "gate_leak_check")


def _lasting(before: Leftovers) -> list[str]:
    """What is still there after the grace; without a suspicion there is no waiting at all."""
    left = Leftovers.now().since(before)
    for _ in range(ATTEMPTS):
        if not left:
            break
        gc.collect()
        time.sleep(LEAK_GRACE / ATTEMPTS)
        left = Leftovers.now().since(before)
    return left


def _describe(descriptor: int) -> str:
    """Where a leaked socket is bound and to whom it is connected."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            try:
                return f"{copy.getsockname()} → {copy.getpeername()}"
            except OSError:
                return f"{copy.getsockname()}"
    except OSError:
        return f"descriptor {descriptor}"
