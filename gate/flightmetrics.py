"""What is counted of flights: routes, dialogues, limits, refusals. Shown by `gate.metrics`.

Labels come from closed lists only, as there.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from gate.counts import OTHER, Histogram, Read, Tally
from gate.dns import MailRoute
from gate.probing import STATES, WHY
from gate.reason import Reason
from gate.smtp.finding import Finding
from gate.smtp.provider import PROVIDERS
from gate.smtp.session import Ending, Watch

ROUTES: Final = Tally(
    "gate_routes_total",
    "Mail routes looked up, by what came of it.",
    # outcome: found, or the reason of gate/reason.py that there is none for.
    "outcome",
    ("found", "invalid_domain", "no_mx", "null_mx", "dns_error"),
)
ROUTES_REMEMBERED: Final = Read(
    "gate_routes_remembered_total", "Flights whose mail route was remembered.", rises=True
)
STAGE_SECONDS: Final = Histogram(
    "gate_stage_seconds",
    "Time that the stages of a flight took.",
    (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8),
    # dns: the route; connect, greeting, hello, tls, envelope: of one dialogue, each to the host's
    # answer; whole: all mail hosts together, waiting for a place included.
    "stage",
    ("dns", "connect", "greeting", "hello", "tls", "envelope", "whole"),
)
SESSIONS: Final = Tally(
    "gate_sessions_total",
    "Dialogues with mail servers, by how they ended.",
    # ending: gate/smtp/session.py.
    "ending",
    (ending.name.lower() for ending in Ending),
)
SMTP_CONNECTIONS: Final = Read(
    "gate_smtp_connections",
    "Open connections to mail servers, and those of them kept for the next question.",
    # state: open, parked.
    "state",
    ("open", "parked"),
    rises=False,
)
POOL: Final = Read(
    "gate_pool_total",
    "Questions to mail servers that found an open connection, or did not.",
    # outcome: hits, misses; lost (closed by the peer while it was parked); replaced (it died under
    # a question, which was asked again); ahead (opened before there was a question).
    "outcome",
    ("hits", "misses", "lost", "replaced", "ahead"),
    rises=True,
)
PROBES: Final = Tally(
    "gate_probes_total",
    "Mail servers asked, or not to be asked, by what came of it.",
    # outcome: gate/reason.py, before the domain's accept-all state is weighed.
    "outcome",
    Reason,
)
PROVIDERS_MOST: Final = 40
BLOCKS: Final = Tally(
    "gate_blocks_total",
    "Dialogues in which a mail server refused us.",
    # provider: the first PROVIDERS_MOST of gate/smtp/providers.toml; other.
    "provider",
    (*islice(PROVIDERS, PROVIDERS_MOST), OTHER),
)
UNASKED: Final = Read(
    "gate_unasked_total",
    "Domains whose mail servers were left alone.",
    # why: gate/probing.py.
    "why",
    WHY,
    rises=True,
)
PROBING: Final = Read(
    "gate_probing",
    "1 for the state that probing is in.",
    # state: on, or why nobody is asked (gate/probing.py).
    "state",
    STATES,
    rises=False,
)
THROTTLE_REFUSED: Final = Tally(
    "gate_throttle_refused_total",
    "Dialogues that a limit or a rest of ours did not let begin.",
    # kind: gate/smtp/throttle.py, the caps of gate/smtp/caps.py; wait (no place came free in time).
    "kind",
    (
        "all",
        "site",
        "strangers",
        "provider",
        "destination",
        "address",
        "network",
        "domain",
        "memory",
        "cool-down",
        "busy",
        "harvest",
        "down",
        "blocked",
        "shut",
        "halted",
        "wait",
        OTHER,
    ),
)
THROTTLE_WAIT: Final = Histogram(
    "gate_throttle_wait_seconds",
    "Time spent waiting for a place at a destination, in vain or not.",
    (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
)

COLLECTORS: Final = (
    ROUTES,
    ROUTES_REMEMBERED,
    STAGE_SECONDS,
    SESSIONS,
    SMTP_CONNECTIONS,
    POOL,
    PROBES,
    BLOCKS,
    UNASKED,
    PROBING,
    THROTTLE_REFUSED,
    THROTTLE_WAIT,
)


class SessionCounts(Watch):
    """Counts what connections to mail servers do."""

    def took(self, stage: str, seconds: float) -> None:
        """A stage is over."""
        STAGE_SECONDS.by[stage].observe(seconds)

    def ended(self, ending: Ending) -> None:
        """A dialogue is over."""
        SESSIONS.add(ending.name.lower())


class FlightCounts:
    """Counts what flights do: `gate.flight.Watch`."""

    def routed(self, seconds: float, route: MailRoute) -> None:
        """A route was looked up."""
        STAGE_SECONDS.by["dns"].observe(seconds)
        ROUTES.add(route.failure or "found")

    def probed(self, seconds: float, finding: Finding) -> None:
        """Mail servers were asked, or could not be."""
        STAGE_SECONDS.by["whole"].observe(seconds)
        outcome = finding.mailbox
        reason = outcome.reason if outcome is not None else finding.failure
        PROBES.add(reason or Reason.UNEXPECTED_ERROR)
