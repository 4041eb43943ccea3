"""Where a store of each kind can be opened: the same suites run over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.redisworld import RedisServer, redis_server

KINDS: Final = ("memory", "sqlite", "redis")
Place = Callable[[str], str]
"""The URL of a store of a kind, empty, and another one at each call."""


@pytest.fixture(scope="session")
def redis_of_session() -> Iterator[RedisServer]:
    """One server for all; each test has databases of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Makes room for stores."""
    made = 0
    flushed: list[bytes] = []

    def room(kind: str) -> str:
        nonlocal made
        made += 1
        if kind == "memory":
            return "memory:"
        if kind == "sqlite":
            return f"sqlite:{tmp_path / f'gate{made}.db'}"
        server: RedisServer = request.getfixturevalue("redis_of_session")
        if not flushed:
            flushed.append(server.ask("FLUSHALL"))
        return server.url_of(made)

    return room
