"""Rounds of questions that several tests look at; several of those that are wanted go at once.

Each takes seconds of waiting (servers greet late, greylists have their time), and each is of
clients of its own, whom the servers tell apart by their addresses. A test module names its rounds
in `ROUNDS`; a fixture of the same name, made by `came_of`, gives a test what came of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab.lab import Lab

Round = Callable[[Lab, Path], Any]
"""Given the lab and a folder of its own."""
Played = Mapping[str, "Future[Any]"]
AT_ONCE: Final = 4
"""Rounds: with more of them two cores have too much to do for what has its time to be in time."""


def wanted(items: Iterable[pytest.Item]) -> dict[str, Round]:
    """The rounds that the tests of a session look at, by name."""
    found: dict[str, Round] = {}
    for item in items:
        known: Mapping[str, Round] = getattr(getattr(item, "module", None), "ROUNDS", {})
        asked = getattr(item, "fixturenames", ())
        found |= {name: play for name, play in known.items() if name in asked}
    return found


def play(rounds: Mapping[str, Round], lab: Lab, folder: Path) -> Played:
    """All of them, a few at a time, each in a thread; they are over when this returns."""
    played = {}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for name, one in rounds.items():
            (folder / name).mkdir()
            played[name] = threads.submit(one, lab, folder / name)
    return played


def came_of(name: str) -> Any:
    """The fixture with what came of a round; raises what the round raised."""

    @pytest.fixture(scope="module", name=name)
    def result(played: Played) -> Any:
        return played[name].result()

    return result
