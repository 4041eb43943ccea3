"""Runs the long proofs, and sets every promise beside its figure in one table.

    scripts/prove               all of them: some hours
    scripts/prove R2 R8         the named ones
    scripts/prove --list        what there is

A proof that fails, crashes or takes too long is a miss, with what it said last. The table is kept
in benchmarks/results/prove.md and prove.json; a run of some replaces their rows only, and every row
says when it was made and how busy the machine was. Exits 1 on a miss.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, machine
from tests.proofs import PROOFS, Proof, Step

ROOT = Path(__file__).parents[1]
KEPT, TABLE = RESULTS / "prove.json", RESULTS / "prove.md"
SAID = 400
"""Characters of what a miss said last."""
PASSED = "passed"
"""The figure of a step that shows none."""


@dataclass(slots=True)
class Row:
    """What came of one promise."""

    promise: str
    goal: str
    figure: str
    met: bool
    seconds: float
    when: str
    load: float


@dataclass(slots=True)
class Ended:
    """What came of one command. `output` is everything it said."""

    status: int | None
    output: str


def run(step: Step) -> Ended:
    """One command, in a group of its own so that nothing of it stays behind."""
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        try:
            process = subprocess.Popen(
                step.command,
                cwd=ROOT,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Ended(None, str(error))
        try:
            status: int | None = process.wait(step.minutes * 60)
        except subprocess.TimeoutExpired:
            status = None
            said.write(f"\nnot done after {step.minutes:.0f} minutes")
        finally:
            _end(process)
        said.seek(0, os.SEEK_SET)
        return Ended(status, said.read())


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever of its group is still there is ended."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def prove(name: str, proof: Proof) -> Row:
    """Run the steps of a promise; what they showed, or why it is a miss."""
    started, load = time.monotonic(), os.getloadavg()[0]
    figures, met = [], True
    for step in proof.steps:
        began = time.time()
        ended = run(step) if step.command else Ended(None, "no benchmark has measured it")
        known = _recorded(step, name, began)
        if known is not None:
            figures.append(str(known["figure"]))
            met = met and bool(known["met"])
        elif ended.status == 0:
            figures.append(_figure(step, ended.output))
        else:
            shown = _figure(step, ended.output)
            figures += ["" if shown == PASSED else shown, _failure(step, ended)]
            met = False
    when = datetime.now(UTC).isoformat(timespec="seconds")
    figure = "; ".join(filter(None, figures))
    seconds = round(time.monotonic() - started)
    return Row(proof.promise, proof.goal, figure, met, seconds, when, round(load, 1))


def _recorded(step: Step, name: str, since: float) -> Mapping[str, Any] | None:
    """What a benchmark wrote of this promise, if it did now; any that did, if none is named."""
    paths = [RESULTS / f"{step.result}.json"] if step.command else list(RESULTS.glob("*.json"))
    found: Mapping[str, Any] | None = None
    for path in paths:
        if path.exists() and (not step.command or path.stat().st_mtime >= since - 1):
            found = json.loads(path.read_text()).get("promises", {}).get(name) or found
    return found


def _figure(step: Step, output: str) -> str:
    """The figure in what a step said."""
    found = [" ".join(match.groups()) for match in re.finditer(step.figure, output)]
    if not found:
        return PASSED
    return ", ".join(found) if step.every else found[-1]


def _failure(step: Step, ended: Ended) -> str:
    """What a step that failed said of it: the lines that tell of failures, or the last ones."""
    lines = [line for line in ended.output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E  ", "FAILED", "ERROR", "promise"))]
    said = " | ".join(telling or lines[-3:])
    if ended.status is None:
        return said[-SAID:]
    return f"{' '.join(step.command[1:])}: exit {ended.status}: {said[-SAID:]}"


def table(rows: Mapping[str, Row], about: Mapping[str, Any]) -> str:
    """The whole of it in Markdown."""
    missed = sum(not row.met for row in rows.values())
    lines = [
        "# Promises, as last proved",
        "",
        f"`scripts/prove` on {about['cores']} cores ({about['processor']}), "
        f"{about['memory_gib']} GiB, Linux {about['kernel']}, Python {about['python']}, "
        f"load {about['load_one_minute']} before: {len(rows) - missed} of {len(rows)} kept.",
        "",
        "| id | promise | goal | figure | | load | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        figure = row.figure.replace("|", "/").replace("\n", " ")
        verdict = "pass" if row.met else "**miss**"
        lines.append(
            f"| {name} | {row.promise} | {row.goal} | {figure} | {verdict} | {row.load} "
            f"| {row.seconds / 60:.1f} |"
        )
    return "\n".join(lines) + "\n"


def kept() -> dict[str, Row]:
    """The rows of earlier runs."""
    if not KEPT.exists():
        return {}
    rows = json.loads(KEPT.read_text())["rows"]
    return {name: Row(**row) for name, row in rows.items() if name in PROOFS}


def keep(rows: Mapping[str, Row], about: Mapping[str, Any]) -> None:
    """Write both files anew."""
    RESULTS.mkdir(exist_ok=True)
    every = {name: asdict(row) for name, row in rows.items()}
    kept = json.dumps({"machine": dict(about), "rows": every}, indent=1, ensure_ascii=False)
    KEPT.write_text(kept + "\n", "utf-8")
    TABLE.write_text(table(rows, about), "utf-8")


def main(names: Iterable[str]) -> int:
    """Prove the named promises, or all."""
    wanted = [name.upper() for name in names] or list(PROOFS)
    unknown = [name for name in wanted if name not in PROOFS]
    if unknown:
        print(f"no such promise: {', '.join(unknown)}; there is {', '.join(PROOFS)}")
        return 2
    about, rows = machine(), kept()
    for name in wanted:
        print(f"{name:4} {PROOFS[name].promise} ...", flush=True)
        row = rows[name] = prove(name, PROOFS[name])
        rows = {key: rows[key] for key in PROOFS if key in rows}
        keep(rows, about)
        print(f"     {'pass' if row.met else 'MISS'}: {row.figure}", flush=True)
    proved = {name: rows[name] for name in PROOFS if name in wanted}
    print("\n" + table(proved, about))
    return 0 if all(row.met for row in proved.values()) else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        for name, proof in PROOFS.items():
            print(f"{name:4} {proof.promise}: {proof.goal}")
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
