"""Time: `Deadline`, and every default number of seconds in the project.

A deadline is made once, at the edge (an HTTP request, a CLI call, a flight), and passed down; each
stage takes the smaller of its own limit and what is left. No other module writes a number of
seconds. The clock is passed in, so that this module, and what is built on it, stays pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct

Clock = Callable[[], float]
"""A clock in seconds. Monotonic for deadlines, wall-clock (Unix time) for what is stored."""


class Deadline(Struct, frozen=True, gc=False):
    """The moment (on `clock`, seconds) after which an answer is of no use any more."""

    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """A deadline `seconds` from now."""
        return cls(clock() + seconds, clock)

    def left(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.at - self.clock())

    @property
    def passed(self) -> bool:
        """True once nothing is left."""
        return self.clock() >= self.at

    def cap(self, seconds: float) -> Deadline:
        """The earlier of this deadline and `seconds` from now: a stage limit inside the whole."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)


def steady(clock: Clock, wall: Clock) -> Clock:
    """Unix time as it was when this was made, carried on by `clock`: it never steps.

    What is to happen later is dated with it, so that a wall clock that is set an hour ahead or back
    under a running process makes nothing early, late, or due all at once.
    """
    ahead = wall() - clock()
    return lambda: clock() + ahead


# -- one check ------------------------------------------------------------------------------------
CHECK: Final = 0.8
"""What a form is made to wait at most, unless the caller says otherwise."""
CHECK_LEAST: Final = 0.05
CHECK_MOST: Final = 10.0
"""Bounds of a caller's `timeout_ms`."""
ANSWER_RESERVE: Final = 0.005
"""Kept back from the caller's budget to write the answer in."""
FLIGHT: Final = 12.0
"""A flight's own budget: postscreen greets after six seconds, and the person is still typing."""
CLI_CHECK: Final = 10.0
"""`gate check` waits longer than a form does: nobody stands before a button."""
CLI_ADMIN: Final = 5.0
"""How long the command line waits for a gate that runs on this machine."""
SITEVERIFY_JOIN: Final = 1.0
"""How long siteverify waits for a flight that is about to land."""
CHECK_MEMORY: Final = 3600.0
"""How long `GET /v1/checks/{id}` finds a check."""
PREFETCH: Final = 5.0
"""The most that a prefetch may spend on the look-up, in the background."""
AHEAD: Final = 10.0
"""The most that opening a connection ahead may take: postscreen greets after six seconds, and
remembers who hangs up before."""

# -- DNS ------------------------------------------------------------------------------------------
DNS_LOOKUP: Final = 4.0
"""One look-up, all resolvers and retransmissions together."""
DNS_SHARE: Final = 0.4
"""The share of a flight that DNS may take (faults.md N19); a fraction, not seconds."""
DNS_RETRANSMIT: Final = 0.4
"""A lost datagram is sent again after this."""
DNS_NEXT_SERVER: Final = 0.15
"""With several resolvers, the next is asked after this silence."""
DNS_TCP: Final = 2.0
"""A TCP exchange after truncation, connect included."""
DNS_TTL_LEAST: Final = 60.0
DNS_TTL_MOST: Final = 3600.0
"""Clamp of positive answers."""
DNS_NEGATIVE_MOST: Final = 300.0
DNS_NEGATIVE_DEFAULT: Final = 60.0
"""NXDOMAIN and NODATA: at most this; this when the answer names no SOA."""
DNS_FAILURE: Final = 10.0
"""SERVFAIL and timeouts are remembered no longer."""
DNS_FAMILY_DELAY: Final = 0.05
"""A host whose first address family answered waits this long for the other (RFC 8305 section 3)."""
DNS_PREFERRED: Final = 1.0
"""A usable MX host waits this long for the addresses of a more preferred one."""
DNS_SERVER_REST: Final = 1.0
"""A resolver that refuses datagrams is left alone this long, then tried with one question."""
DNS_SERVER_SLOW: Final = 10.0
"""A resolver that another one had to stand in for is asked last for this long."""

# -- SMTP -----------------------------------------------------------------------------------------
CONNECT: Final = 3.0
"""One TCP connect."""
CONNECT_SHARE: Final = 0.3
"""The share of the dialogue's time a connect may take (faults.md C02); a fraction."""
HAPPY_EYEBALLS: Final = 0.25
"""Head start of IPv6 over IPv4 (RFC 8305)."""
GREETING: Final = 8.0
"""Postscreen greets after six seconds."""
COMMAND: Final = 6.0
"""EHLO, or one pipelined group."""
TLS_HANDSHAKE: Final = 4.0
TLS_LEAST: Final = 0.001
"""What a handshake is given when nothing is left: a loop takes no timeout of zero."""
TLS_SHUTDOWN: Final = 0.5
"""Closing a TLS connection politely may take so long; then it is cut."""
QUIT_LINGER: Final = 0.2
"""A closed dialogue's socket is aborted after this (faults.md S02)."""
WARM_IDLE: Final = 8.0
"""A connection that nobody asks on is told QUIT after this: longer than it takes to end an address
whose domain is typed, shorter than the ten seconds after which a Postfix under load hangs up."""
AHEAD_AGAIN: Final = 60.0
"""A destination at which a connection was opened ahead, and not used, is spared for so long."""
SLOT_SHARE: Final = 0.2
"""The share of a dialogue's time that may be spent waiting for a slot; a fraction."""
COOL_DOWN: Final = 300.0
COOL_DOWN_MOST: Final = 10_800.0
"""A destination that refuses us rests; doubling, up to the second figure."""
PROBING_SWITCH: Final = 100 * 365 * 86_400.0
"""How long the operator's switch is remembered: for ever, as far as a store's dates can say it."""
RATE_REST: Final = 900.0
"""A destination that says we ask too fast, or 421, is left alone this long."""
RECIPIENT_WINDOW: Final = 61.0
"""The minute of recipients a minute, and a second for what is on its way: the host counts, too."""
ANSWERED_LATELY: Final = 86_400.0
"""A destination that answered is no stranger for so long, unless it hangs."""
CONTROL_HELD: Final = 60.0
"""Who decided to ask the random recipient longer ago than this knows what it was answered."""
HARVEST_WINDOW: Final = 600.0
HARVEST_REST: Final = 3600.0
HARVEST_REST_MOST: Final = 86_400.0
"""A domain with so many refusals in this time is searched for users; its rest, and the longest."""
DOWN_WINDOW: Final = 600.0
DOWN_REST: Final = 300.0
DOWN_TRY: Final = 30.0
"""Hosts that could not be connected to twice in this time are down; asked again this often."""
PORT_WINDOW: Final = 120.0
PORT_REST: Final = 4.0
"""With nobody connected to in this time, port 25 of ours is closed; one try after that. An outage
of our own way out must be over five seconds behind its end (promise R6), and a try costs one caller
a connect."""
GREYLIST_RETRY: Final = 300.0
GREYLIST_RETRY_LEAST: Final = 60.0
GREYLIST_RETRY_MOST: Final = 3600.0
"""When to ask again after greylisting; bounds of what a reply may name."""

SOURCE_DAY: Final = 86_400.0
"""A warm-up allowance is for a UTC day."""
SOURCE_NOTES: Final = 3600.0
"""Refusals of a source by so many destinations within this time rest it."""
SOURCE_REST: Final = 3600.0
SOURCE_REST_MOST: Final = 86_400.0
"""How long; doubling, up to the second figure."""
SOURCE_KEEP: Final = 1.0
"""What sources have used up is written so long after it changed."""
SOURCE_KEPT: Final = 3 * 86_400.0
"""What was written is good for so long: longer than any rest."""

# -- memory (architecture.md 6): fresh, then served while a new flight starts behind, then gone ----
DELIVERABLE_FRESH: Final = 86_400.0
DELIVERABLE_EXPIRES: Final = 7 * 86_400.0
UNDELIVERABLE_FRESH: Final = 600.0
UNDELIVERABLE_EXPIRES: Final = 7200.0
ACCEPT_ALL_FRESH: Final = 3 * 86_400.0
ACCEPT_ALL_EXPIRES: Final = 7 * 86_400.0
CONTROL_EVERY: Final = 86_400.0
"""At most one control probe a domain in this time."""
ACCEPTED_LATELY: Final = 86_400.0
"""How long an accepted recipient vouches that the host tells mailboxes apart."""

# -- tokens ---------------------------------------------------------------------------------------
TOKEN: Final = 300.0
TOKEN_SKEW: Final = 5.0
"""Clocks of two servers may differ by this."""
IDEMPOTENCY: Final = 600.0
"""A retry with the same idempotency key gets the first answer this long."""

# -- HTTP -----------------------------------------------------------------------------------------
HTTP_HEADERS: Final = 5.0
HTTP_BODY: Final = 5.0
HTTP_WRITE: Final = 10.0
HTTP_IDLE: Final = 15.0
HTTP_STOP: Final = 8.0
"""Graceful shutdown ends after this."""
HTTP_SWEEP: Final = 0.5
"""How often connections are looked over for the deadlines above; they are late by at most this."""
HTTP_PREFLIGHT: Final = 600
"""A browser need not repeat a CORS preflight for this long."""
QUOTA_WINDOW: Final = 60.0
"""The minute of `…_per_minute`."""
TEST_KEY_DELAY: Final = 0.8
"""What the test key `always_unknown` makes its caller wait."""
LOG_FLUSH: Final = 0.01
"""Decision lines wait at most this long and are written together."""
GC_THAW: Final = 3600.0
"""So often all objects are looked at for garbage, if there is a moment without any request."""
LOOP_LAG: Final = 0.25
"""An event loop held up longer than this is logged."""

# -- store ----------------------------------------------------------------------------------------
STORE_FLUSH: Final = 0.05
"""Write-behind: rows wait at most this long for company."""
STORE_WAIT: Final = 0.1
"""The store may hold up a check no longer; then it is answered unremembered."""
STORE_RETRY: Final = 1.0
"""A store that failed is tried again after this."""
STORE_CLAIM: Final = 1.0
"""A claim waits so long to be on disk; then memory holds it, and it is written when it can be."""
STORE_SWEEP: Final = 60.0
"""Expired rows are deleted about this often."""
CLAIM_GRACE: Final = 7200.0
"""Claims are kept this much longer than asked: a clock that was an hour ahead revives no token."""
STORE_QUEUE: Final = 0.5
"""What is promised waits so long to be on disk; it is written as soon as can be all the same."""
STORE_ANSWER: Final = 0.5
"""A store over the network that has not answered by then is out of order."""
STORE_ANSWER_MORE: Final = 0.05
"""It has so much more for each thousand words of a question."""
STORE_OPEN: Final = 2.0
"""Connecting to a store over the network, all of it. Recovery: this and STORE_RETRY, at most."""
STORE_NEWS: Final = 1.0
"""What another process of the same store erased is forgotten by this one within this."""
STORE_NEWS_KEPT: Final = 3600.0
"""Who did not look for so long forgets all that it holds in memory in front of the store."""
STORE_SKEW: Final = 2.0
"""A clock that is further from the store's is worth a warning: leases and claims go by it."""
QUEUE_IDLE: Final = 30.0
"""A queue with nothing due is looked at again after this; what is added wakes it at once."""

# -- re-checks (probing.md 5) ----------------------------------------------------------------------
RECHECK_WAITS: Final = (300.0, 900.0, 2400.0)
"""Five, twenty and sixty minutes after the first answer: the waits between."""
RECHECK_JITTER: Final = 0.2
"""Each wait is longer or shorter by up to this share; a fraction."""
RECHECK: Final = 60.0
"""A re-check's own budget: nobody stands before it."""
RECHECK_STAGE: Final = 30.0
"""Greeting and commands of a re-check, instead of GREETING and COMMAND (faults.md C10)."""
RECHECK_SPACING: Final = 2.0
"""Re-checks at one destination are apart by this: thirty a minute."""
RECHECK_THROTTLED: Final = 60.0
"""A re-check that one of our own limits stopped is tried again after this."""
RECHECK_LEASE: Final = 120.0
RECHECK_KEEPS: Final = 86_400.0
"""An address waits no longer than a day, sealed; then it is forgotten unasked."""

# -- webhooks out (promises.md R12) ----------------------------------------------------------------
WEBHOOK_WAITS: Final = (
    5.0,
    300.0,
    1800.0,
    7200.0,
    18_000.0,
    36_000.0,
    50_400.0,
    72_000.0,
    86_400.0,
    86_400.0,
    86_400.0,
)
"""Between twelve attempts, over five days."""
WEBHOOK_JITTER: Final = 0.1
"""Each wait is longer or shorter by up to this share; a fraction."""
WEBHOOK: Final = 15.0
"""One delivery: look-up, connect, handshake, request and response together."""
WEBHOOK_LEASE: Final = 60.0
WEBHOOK_RETRY_AFTER_MOST: Final = 86_400.0
"""A receiver may put us off by a day."""
WEBHOOK_EXPIRES: Final = 6 * 86_400.0
"""Undelivered after this, a message becomes a dead letter however few attempts it had."""
WEBHOOK_FORGOTTEN: Final = 7 * 86_400.0
"""A dead letter is deleted this long after its message was made, or replayed."""
WEBHOOK_REST: Final = 10.0
WEBHOOK_REST_MOST: Final = 600.0
"""An endpoint that fails again and again is tried once in this time; doubling."""
WEBHOOK_SPACING: Final = 0.005
"""Deliveries to one endpoint are apart by this: two hundred a second at most."""
WEBHOOK_SLOW: Final = 1.0
WEBHOOK_SLOW_MOST: Final = 60.0
"""Spacing for one that says it is busy; doubling, and halved by each success."""
WEBHOOK_GONE: Final = 30 * 86_400.0
"""An endpoint that said 410 is left alone until its letters are replayed, or for this long."""


# -- signup hooks (gate.hooks) ---------------------------------------------------------------------
class HookTime(NamedTuple):
    """When a platform stops waiting (None: not known, or the operator sets it), and when we do."""

    theirs: float | None
    ours: float


HOOKS: Final[Mapping[str, HookTime]] = MappingProxyType(
    {
        "supabase": HookTime(5.0, 2.5),  # over all its attempts together
        "kratos": HookTime(30.0, 4.0),
        "zitadel": HookTime(None, 3.0),  # set by target; 10 s in its documentation
        "workos": HookTime(None, 1.5),  # documented nowhere
        "authgear": HookTime(5.0, 2.5),
        "okta": HookTime(3.0, 1.5),
        "entra": HookTime(2.0, 1.0),
        "azure-b2c": HookTime(20.0, 4.0),
        "fusionauth": HookTime(None, 1.5),  # set by webhook
        "parse": HookTime(None, 4.0),  # waits for ever; the person does not
        "generic": HookTime(15.0, 2.5),  # the least that Standard Webhooks recommends
        "forward": HookTime(30.0, 1.5),  # Traefik; nginx 60 s; Envoy 0.2 s unless it is told more
        "truemail": HookTime(5.0, 2.5),  # Misskey
    }
)
"""Platforms refuse the signup when they get no answer, so ours leaves well before."""
HOOK_LEAST: Final = 0.05
"""The least that `deadline_ms` of a hook may be."""
HOOK_RESERVE: Final = 0.1
"""Kept back from a hook's time, to set down its answer in the store and to write it."""
HOOK_TOLERANCE: Final = 300.0
"""How far a signed message's time may be off, both ways (every Standard Webhooks library)."""
HOOK_TOLERANCE_WORKOS: Final = 30.0
HOOK_REPLAY: Final = 900.0
"""A message seen again within this is answered as it was the first time."""

# -- gate doctor -----------------------------------------------------------------------------------
DOCTOR: Final = 25.0
"""All checks together, side by side."""
DOCTOR_LEAST: Final = 1.0
DOCTOR_MOST: Final = 300.0
"""Bounds of `gate doctor --timeout`."""
DOCTOR_CONNECT: Final = 8.0
"""One connect to port 25: long enough for a lost packet to be sent twice more."""
DOCTOR_DNS_SLOW: Final = 0.3
"""A resolver that takes longer to answer what half the world asks eats up a form's time."""
DOCTOR_CLOCK_BEHIND: Final = 86_400.0
"""A clock may be behind the newest file of the program by time zones and file systems, not more."""
DOCTOR_CLOCK_ERROR: Final = 1.0
"""The error that a kernel may own up to and still have its clock called right."""
DOCTOR_EVERY: Final = 6 * 3600.0
"""A gate that runs looks itself over this often."""
DOCTOR_LETTER: Final = 60.0
"""The test message, one egress address: servers take their time over a message they do not know."""

# -- the Python client (gate.client, gate.middleware) ----------------------------------------------
CLIENT: Final = 2.0
"""A call that names no timeout is given up after this: well after the gate's own budget."""
CLIENT_RESERVE: Final = 0.1
"""Kept back from a caller's timeout for the way to the gate and back."""
CLIENT_IDLE: Final = 10.0
"""An unused connection is closed after this, before the gate closes it (`HTTP_IDLE`)."""

# -- the practice world (gate.sandbox, gate.testing) -----------------------------------------------
PRACTICE_IDLE: Final = 60.0
"""A practice mail server drops a client that has said nothing for so long."""
PRACTICE_GREYLIST: Final = 5.0
"""The sandbox's greylisting clears after this: long enough to see, short enough to wait for."""
LEAK_GRACE: Final = 0.2
"""A socket or thread that closes this soon after its test is no leak."""
LAG_TICK: Final = 0.005
"""How often the kit's watch over an event loop looks whether it is held up."""
