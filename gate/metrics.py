"""Every metric of the process, in one place. Labels come from closed lists only.

A label never carries a domain, an address, a site's text or anything else a stranger chooses: the
number of series is a constant of the program. The list of possible values stands beside each.
`render` is what /metrics answers, on the admin listener only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from gate import flightmetrics
from gate.checker import Checker
from gate.counts import Histogram, Read
from gate.egress import Egress
from gate.probing import Probing
from gate.smtp.probe import Prober
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


DOCTOR: Final = Read(
    "gate_doctor_findings",
    "What gate doctor found last in this gate.",
    "state",
    ("problem", "warning"),
    rises=False,
)

for _collector in (
    CHECK_SECONDS,
    ANSWERED_BY,
    WEBHOOK_SECONDS,
    LOOP_LATE,
    STORE_FAILURES,
    QUEUE_LATE,
    DOCTOR,
    *flightmetrics.COLLECTORS,
):
    REGISTRY.register(_collector)


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
    flightmetrics.ROUTES_REMEMBERED.source = lambda: {"": hits.route}
    ANSWERED_BY.source = lambda: {
        "mailbox": hits.mailbox,
        "accept_all": hits.accept_all,
        "flight": hits.flight,
    }
    flightmetrics.SMTP_CONNECTIONS.source = lambda: prober.connections
    flightmetrics.POOL.source = lambda: asdict(prober.counts)
    flightmetrics.UNASKED.source = lambda: probing.refusals
    flightmetrics.PROBING.source = lambda: {probing.state: 1.0}


def render() -> bytes:
    """The text of /metrics. Reading it starts a new interval of the loop's lag."""
    return generate_latest(REGISTRY)
