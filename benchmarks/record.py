"""Keeps what a benchmark found: benchmarks/results/NAME.json, with the machine it was found on.

`promises` of a file say for each promise the figure, the goal, and whether it was met;
scripts/prove puts those of all files into one table.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent / "results"
LIBRARIES: Final = ("uvloop", "uvicorn", "starlette", "msgspec", "dnspython", "aiosmtplib")
Promises = Mapping[str, tuple[str, str, bool]]
"""For each promise its figure, its goal and whether it was met."""


def machine() -> dict[str, Any]:
    """What ran it, and how busy it was."""
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        kilobytes = int(file.readline().split()[1])
    with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "memory_gib": round(kilobytes / 1024**2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "load_one_minute": round(os.getloadavg()[0], 2),
    }


def judge(rows: Sequence[tuple[str, float, str, float]], digits: int) -> Promises:
    """Print and return what became of promises: name, figure, "<=" or ">=", goal."""
    judged = {}
    print()
    for name, value, sign, goal in rows:
        met = value >= goal if sign == ">=" else value <= goal
        told = f"{value:.{digits}f}"
        print(f"{name:28}{told:>10}  promised {sign} {goal:<8} {'met' if met else 'MISSED'}")
        judged[name] = (told, f"{sign} {goal}", met)
    return judged


def record(name: str, *, promises: Promises, figures: Any, **more: Any) -> Path:
    """Write the file of the benchmark called `name`; the one of the last run is replaced."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    told = {
        "benchmark": name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "promises": {
            promise: {"figure": figure, "goal": goal, "met": met}
            for promise, (figure, goal, met) in promises.items()
        },
        "figures": figures,
        **more,
    }
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path
