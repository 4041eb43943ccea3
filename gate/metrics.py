"""Every metric of the process, in one place. Labels come from closed lists only.

A label never carries a domain, an address, a site's text or anything else a stranger chooses: the
number of series is a constant of the program. The list of possible values stands beside each.
`render` is what /metrics answers, on the admin listener only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from gate.checker import Checker
from gate.counts import OTHER, Histogram, Read, Tally
from gate.dns import MailRoute
from gate.egress import Egress
from gate.probing import STATES, WHY, Probing
from gate.reason import Reason
from gate.smtp.finding import Finding
from gate.smtp.probe import Prober
from gate.smtp.provider import PROVIDERS
from gate.smtp.session import Ending, Watch
from gate.store import Store

REGISTRY: Final = CollectorRegistry()
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

ProcessCollector(registry=REGISTRY)

DECISIONS: Final = Counter(
    "gate_decisions_total",
    "Decisions given, by verdict and by who asked.",
    # result, reason, decision: gate/reason.py. key: public, secret, siteverify, hook.
    ["result", "reason", "decision", "key"],
    registry=REGISTRY,
)
WOULD_BLOCK: Final = Counter(
    "gate_observed_blocks_total",
    "Decisions that observe mode turned from block into allow.",
    registry=REGISTRY,
)


CHECK_SECONDS: Final = Histogram(
    "gate_check_seconds",
    "Time from the request's arrival to its answer.",
    (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0),
)
ANSWERED_BY: Final = Read(
    "gate_answered_by_total",
    "Checks, by what answered them.",
    # source: mailbox, accept_all (remembered); flight (looked up, or joined one under way).
    "source",
    ("mailbox", "accept_all", "flight"),
    rises=True,
)
SITEVERIFY: Final = Counter(
    "gate_siteverify_total",
    "Answers of siteverify.",
    # outcome: success, or one of the nine error codes of gate/api/siteverify.py.
    ["outcome"],
    registry=REGISTRY,
)
HOOKS: Final = Counter(
    "gate_hooks_total",
    "Answers to signup hooks.",
    # platform: gate/hooks/settings.py. outcome: allow, deny, repeated (answered as the first time),
    # no_address, refused (not proved); allowed because of a limit or the time (unasked) or of a
    # fault of ours (failed).
    ["platform", "outcome"],
    registry=REGISTRY,
)
PROBLEMS: Final = Counter(
    "gate_problems_total",
    "Requests answered with a problem document.",
    # problem: the names in gate/api/problems.py.
    ["problem"],
    registry=REGISTRY,
)
THROTTLED: Final = Counter(
    "gate_throttled_total",
    "Requests over a limit.",
    # limit: client, site, secret.
    ["limit"],
    registry=REGISTRY,
)
EGRESS_BLOCKED: Final = Counter(
    "gate_egress_blocked_total",
    "Addresses of mail servers that were not dialled.",
    # class: the labels of gate.egress.Egress.
    ["class"],
    registry=REGISTRY,
)
CONNECTIONS: Final = Gauge(
    "gate_http_connections", "Open connections of the public listener.", registry=REGISTRY
)
CUT: Final = Counter(
    "gate_http_cut_total",
    "Connections that the server ended.",
    # why: head, body, write, idle (a deadline passed); crowded (room was needed), peer (one
    # address held too many).
    ["why"],
    registry=REGISTRY,
)
LOOP_LATE: Final = Histogram(
    "gate_loop_late_seconds",
    "How late the event loop was, ten times a second.",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
LOOP_LAG: Final = Gauge(
    "gate_loop_lag_seconds",
    "How late the event loop was, at worst, since the last scrape.",
    registry=REGISTRY,
)
FLIGHTS: Final = Gauge("gate_flights", "Investigations under way.", registry=REGISTRY)
STORE_HEALTHY: Final = Gauge(
    "gate_store_healthy", "1: what is found is remembered; 0: it is not.", registry=REGISTRY
)
STORE_FAILURES: Final = Read(
    "gate_store_failures_total", "Times that the store was found out of order.", rises=True
)
QUEUE_LATE: Final = Read(
    "gate_queue_late_seconds",
    "For how long the most overdue job has been due.",
    "kind",
    ("recheck", "webhook"),
    rises=False,
)
QUEUE_DEPTH: Final = Gauge(
    "gate_queue_jobs",
    "What waits to be done, and what was given up; counted now and then.",
    # kind: recheck, webhook. state: waiting, dead.
    ["kind", "state"],
    registry=REGISTRY,
)
RECHECKS: Final = Counter(
    "gate_rechecks_total",
    "Addresses asked about once more.",
    # outcome: found (a final verdict), again (later), gave_up, throttled, unreadable, lost.
    ["outcome"],
    registry=REGISTRY,
)
WEBHOOKS: Final = Counter(
    "gate_webhooks_total",
    "Attempts to deliver a late verdict.",
    # outcome: delivered, failed, slow, gone (gate/webhooks/message.py); dead (the last attempt).
    ["outcome"],
    registry=REGISTRY,
)
WEBHOOK_SECONDS: Final = Histogram(
    "gate_webhook_first_attempt_seconds",
    "Time from a late verdict to the first attempt to deliver it.",
    (0.01, 0.05, 0.2, 1.0, 5.0, 30.0, 300.0),
)
PROMISES: Final = Counter(
    "gate_promises_total",
    "Answers that a better one may follow.",
    # outcome: kept (queued on disk before the answer left), behind (a moment after it), late (the
    # disk was slow; the answer was timeout), refused (there was no room).
    ["outcome"],
    registry=REGISTRY,
)
LINES_LOST: Final = Counter(
    "gate_log_lines_lost_total", "Decision lines that could not be written.", registry=REGISTRY
)


# -- flights, and what stands in their way ---------------------------------------------------------
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

for _collector in (
    CHECK_SECONDS,
    ANSWERED_BY,
    WEBHOOK_SECONDS,
    LOOP_LATE,
    STORE_FAILURES,
    QUEUE_LATE,
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
):
    REGISTRY.register(_collector)


class SessionCounts(Watch):
    """Counts what connections to mail servers do."""

    def took(self, stage: str, seconds: float) -> None:
        """A stage is over."""
        STAGE_SECONDS.by[stage].observe(seconds)

    def ended(self, ending: Ending) -> None:
        """A dialogue is over."""
        SESSIONS.add(ending.name.lower())


class FlightCounts:
    """Counts what flights do: `gate.checker.Watch`."""

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


def egress_blocked(found: Egress) -> None:
    """Count an address that was refused before it was dialled."""
    EGRESS_BLOCKED.labels(found.label).inc()


def queue_depth(found: Mapping[tuple[str, bool], int]) -> None:
    """Note how many jobs there are, by kind, waiting and (True) dead."""
    for kind in ("recheck", "webhook"):
        for dead, state in ((False, "waiting"), (True, "dead")):
            QUEUE_DEPTH.labels(kind, state).set(found.get((kind, dead), 0))


_worst_lag = 0.0


def note_lag(seconds: float) -> None:
    """Remember how late the event loop was, if that is the worst since /metrics was last read."""
    global _worst_lag
    _worst_lag = max(_worst_lag, seconds)
    LOOP_LATE.observe(seconds)


def _take_worst_lag() -> float:
    global _worst_lag
    taken, _worst_lag = _worst_lag, 0.0
    return taken


LOOP_LAG.set_function(_take_worst_lag)


def watch(
    *,
    checker: Checker,
    prober: Prober,
    probing: Probing,
    store: Store,
    late: Mapping[str, Callable[[], float]],
) -> None:
    """Ask the running engine whenever /metrics is read. `late`: of each kind of job, for how long
    the most overdue one has been due.
    """
    hits = checker.hits
    FLIGHTS.set_function(lambda: checker.flights)
    STORE_HEALTHY.set_function(lambda: float(store.healthy))
    STORE_FAILURES.source = lambda: {"": store.failures}
    QUEUE_LATE.source = lambda: {kind: seconds() for kind, seconds in late.items()}
    ROUTES_REMEMBERED.source = lambda: {"": hits.route}
    ANSWERED_BY.source = lambda: {
        "mailbox": hits.mailbox,
        "accept_all": hits.accept_all,
        "flight": hits.flight,
    }
    SMTP_CONNECTIONS.source = lambda: prober.connections
    POOL.source = lambda: asdict(prober.counts)
    UNASKED.source = lambda: probing.refusals
    PROBING.source = lambda: {probing.state: 1.0}


def render() -> bytes:
    """The text of /metrics. Reading it starts a new interval of the loop's lag."""
    return generate_latest(REGISTRY)
