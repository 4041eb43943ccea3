"""The clock: is it right, as far as this machine can tell without asking anybody?"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gate
from gate.budget import DOCTOR_CLOCK_BEHIND, DOCTOR_CLOCK_ERROR, Clock
from gate.doctor.finding import Finding, Topic

NAME: Final = "clock"
WHY: Final = (
    "tokens, signatures of hooks and webhooks, and re-checks carry times that other machines "
    "compare with theirs"
)
MEND: Final = "switch time synchronisation on (or install chrony):\ntimedatectl set-ntp true"
_TIMESYNC: Final = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd makes this file when it has set the clock."""
_TIMEX_SIZE: Final = 208
_AT_MAXERROR: Final = 24
_AT_STATUS: Final = 40
_STA_UNSYNC: Final = 0x40


@dataclass(frozen=True, slots=True)
class Told:
    """What the machine says. `synchronised`: None if it cannot tell; `error`: seconds, at most."""

    now: float
    newest_file: float
    synchronised: bool | None
    error: float | None = None


def check(wall: Clock) -> list[Finding]:
    """Look at the kernel's own flag, and at the time of our files."""
    newest = max(path.stat().st_mtime for path in Path(gate.__file__).parent.glob("*.py"))
    synchronised, error = _kernel()
    if _TIMESYNC.exists():
        synchronised = True
    return [judge(Told(wall(), newest, synchronised, error))]


def judge(told: Told) -> Finding:
    """What that means. Pure."""
    topic = Topic(NAME, WHY)
    behind = told.newest_file - told.now
    if behind > DOCTOR_CLOCK_BEHIND:
        return topic.problem(
            f"the clock is at least {behind / 86_400:.0f} days behind: the program's own files are "
            "newer",
            MEND,
        )
    if told.synchronised is None:
        return topic.skipped("this system does not say whether its clock is synchronised", MEND)
    if not told.synchronised:
        return topic.warning("the system says that nobody keeps its clock right", MEND)
    if told.error is not None and told.error > DOCTOR_CLOCK_ERROR:
        return topic.warning(f"synchronised, but it may be {told.error:.1f} s off", MEND)
    return topic.ok("the clock is synchronised")


def _kernel() -> tuple[bool | None, float | None]:
    """The kernel's word, from adjtimex(2), which only reads here: synchronised, greatest error."""
    if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
        return None, None  # the record has another shape there
    record = ctypes.create_string_buffer(_TIMEX_SIZE)
    try:
        if ctypes.CDLL(None).adjtimex(record) < 0:
            return None, None
    except (OSError, AttributeError):
        return None, None
    status = int.from_bytes(record.raw[_AT_STATUS : _AT_STATUS + 4], sys.byteorder)
    error = int.from_bytes(record.raw[_AT_MAXERROR : _AT_MAXERROR + 8], sys.byteorder) / 1e6
    synchronised = not status & _STA_UNSYNC
    return synchronised, error if synchronised else None
