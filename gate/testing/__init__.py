"""The kit for tests, shipped and public: real servers on loopback, a clock that obeys, a seam.

Used by the gate's own tests, by the sandbox and the benchmarks, and meant for tests of a signup
that stands behind a gate. Everything here binds to loopback and nothing dials out.
"""

from __future__ import annotations

from gate.testing.clock import FakeClock
from gate.testing.lag import LoopLag
from gate.testing.mailhost import HostRules, MailHost
from gate.testing.mta import ScriptedMta, transcript, transcripts
from gate.testing.proxy import Faults, FaultyProxy
from gate.testing.seam import Seam
from gate.testing.wire import Connection, Piece, SmtpListener
from gate.testing.zones import NXDOMAIN, SERVFAIL, FakeZones

__all__ = [
    "NXDOMAIN",
    "SERVFAIL",
    "Connection",
    "FakeClock",
    "FakeZones",
    "Faults",
    "FaultyProxy",
    "HostRules",
    "LoopLag",
    "MailHost",
    "Piece",
    "ScriptedMta",
    "Seam",
    "SmtpListener",
    "transcript",
    "transcripts",
]
