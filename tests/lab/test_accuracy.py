"""benchmarks.accuracy in its short form: the gate as shipped, before every server of the lab."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import accuracy
from tests.lab.lab import Lab


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


def test_no_person_of_the_lab_is_turned_away(lab: Lab) -> None:
    del lab  # it is only asked whether its servers can be had
    printed = short("accuracy", "short")
    lost = next(line for line in printed.splitlines() if line.startswith("the gate  ")).split()
    assert lost[2] == "0"
    truths = accuracy.population()
    assert len(truths) > 100
    assert set(truths.values()) == set(accuracy.TRUTHS)
