"""benchmarks.accuracy in its short form: the gate as shipped, before every server of the lab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import accuracy
from benchmarks.peers import world
from benchmarks.peers.__main__ import ACCEPTS_ALL, DEAD_FIRST, FIRST
from benchmarks.peers.verifier import RIVALS, asked
from tests.lab.lab import Lab
from tests.lab.rounds import came_of


def short(name: str, *arguments: str) -> str:
    """What a benchmark prints; it has to end well."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _the_gate(lab: Lab, folder: Path) -> str:
    return short("accuracy", "short")


def _another(lab: Lab, folder: Path) -> dict[str, Any]:
    by_hand = next(rival for rival in RIVALS if not rival.built)
    with world.running(20) as at, asked(by_hand, at, 1) as one:
        return one.ask([*FIRST, ACCEPTS_ALL, DEAD_FIRST, "nobody@mailbox.example.com"])


ROUNDS = {"printed": _the_gate, "answers": _another}


printed = came_of("printed")
answers = came_of("answers")


def test_no_person_of_the_lab_is_turned_away(printed: str) -> None:
    lost = next(line for line in printed.splitlines() if line.startswith("the gate  ")).split()
    assert lost[2] == "0"
    truths = accuracy.population()
    assert len(truths) > 100
    assert set(truths.values()) == set(accuracy.TRUTHS)


def test_another_verifier_is_asked_the_same_at_the_same_servers(answers: dict[str, Any]) -> None:
    said = {email: answer["said"] for email, answer in answers.items()}
    assert said == dict.fromkeys((*FIRST, DEAD_FIRST), "exists") | {
        ACCEPTS_ALL: "accepts all",
        "nobody@mailbox.example.com": "missing",
    }
    assert all(answer["ms"] > 60 for answer in answers.values()), "the replies were not late"
