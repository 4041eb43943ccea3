"""The doctor inside a gate that runs: looks it over at start and every few hours.

What it promises: it delays nothing, not even readiness; a problem is logged when it appears and
when it is gone, not each time it is still there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gate.budget import DOCTOR, DOCTOR_EVERY, Deadline
from gate.doctor.examine import Patient, examine, why_offline
from gate.doctor.finding import Finding, Report, State
from gate.engine import Engine

log = logging.getLogger("gate.doctor")


class Watch:
    """The newest report of a gate that runs."""

    def __init__(self) -> None:
        self.report: Report | None = None
        """None until the first examination is over."""

    def summary(self) -> dict[str, object]:
        """What /readyz says: how many of each, and the names of the checks to look at."""
        if self.report is None:
            return {"state": "pending", "problems": [], "warnings": []}
        return {
            "state": str(self.report.state),
            "problems": self.report.names(State.PROBLEM),
            "warnings": self.report.names(State.WARNING),
        }

    def counts(self) -> dict[str, int]:
        """How many findings of each bad kind there are, for /metrics."""
        bad = (State.PROBLEM, State.WARNING)
        return {str(state): self.report.count(state) for state in bad} if self.report else {}

    def note(self, report: Report) -> None:
        """Take a new report, and log what is new in it."""
        before = set(_problems(self.report))
        now = _problems(report)
        for finding in now:
            if finding not in before:
                log.warning(
                    "%s: %s (gate doctor says how to mend it)", finding.check, finding.found
                )
        gone = {finding.check for finding in before} - {finding.check for finding in now}
        for name in sorted(gone):
            log.info("%s: mended", name)
        if self.report is None and not now:
            warnings = report.count(State.WARNING)
            log.info("no problems%s", f", {warnings} warnings: gate doctor" if warnings else "")
        self.report = report


def _problems(report: Report | None) -> list[Finding]:
    return [f for f in report.findings if f.state is State.PROBLEM] if report else []


@asynccontextmanager
async def watching(engine: Engine, watch: Watch | None) -> AsyncIterator[None]:
    """Look a gate over in the background for as long as this is held, and tell `watch`, if any."""
    if watch is None:
        yield
        return
    task = asyncio.create_task(_look_again_and_again(engine, watch), name="gate-doctor")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _look_again_and_again(engine: Engine, watch: Watch) -> None:
    while True:
        patient = Patient(engine, apart=False, offline=why_not_alone(engine))
        try:
            watch.note(await examine(patient, Deadline.after(DOCTOR, engine.clock)))
        except Exception:
            log.exception("the look over this gate failed for a reason of its own")
        await asyncio.sleep(DOCTOR_EVERY)


def why_not_alone(engine: Engine) -> str:
    """Why a gate that nobody told to asks nobody outside; empty if it may."""
    if engine.identity is None:
        return "there is no identity to ask with (probe.helo)"
    if engine.settings.egress.allow:
        return "the gate is set up for a lab (egress.allow)"
    return why_offline(engine)
