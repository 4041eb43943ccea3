"""Probing scripted mail servers on loopback, with the address guard on: what is found, and how
many hosts it took. One row per row of the fault catalogue.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address

import pytest
import uvloop

from gate.address import Address, parse
from gate.budget import COOL_DOWN, QUIT_LINGER, Clock, Deadline
from gate.dns import MailRoute, MxHost
from gate.egress import Dialer, Egress, IPAddress, Source
from gate.reason import Reason
from gate.smtp.caps import PLACES_ONLY
from gate.smtp.dialog import Stage, Tls
from gate.smtp.finding import Finding
from gate.smtp.probe import Prober
from gate.smtp.provider import PROVIDERS
from gate.smtp.provider import load as load_providers
from gate.smtp.session import tls_context
from gate.smtp.throttle import Throttle
from gate.testing import FakeClock, HostRules, MailHost, ScriptedMta, Seam, transcript
from gate.testing.wire import Connection, SmtpListener
from gate.trace import Trace

FIRST = IPv4Address("8.8.8.1")
CONTEXT = tls_context()
SOURCE = Source(None, "gate.test")
CONTROL = "x4f7k2m9q3z8v5w1c6t0"
GOOD = """
S: 220 mx.test ESMTP
C: EHLO *
S: 250-mx.test
S: 250 PIPELINING
*rest 550 5.1.1 no such user
"""


def address(text: str = "jane@a.test") -> Address:
    parsed = parse(text)
    assert isinstance(parsed, Address)
    return parsed


def route_to(
    *hosts: tuple[str, Sequence[IPAddress]], failed: Sequence[str] = (), domain: str = "a.test"
) -> MailRoute:
    """A route whose hosts have rising preferences, as they come."""
    return MailRoute(
        domain=domain,
        hosts=tuple(
            MxHost(name, 10 * number, tuple(addresses), name in failed)
            for number, (name, addresses) in enumerate(hosts)
        ),
        implicit=False,
        null=False,
        failure=None,
        detail="",
        found_at=0.0,
        expires=3600.0,
    )


@dataclass
class World:
    """Some mail servers, a prober that reaches them through a seam, and what its guard refused."""

    servers: Sequence[SmtpListener]
    seam: Seam
    prober: Prober
    throttle: Throttle
    clock: FakeClock
    blocked: list[Egress] = field(default_factory=list)
    trace: Trace = field(default_factory=lambda: Trace(time.monotonic))

    @property
    def route(self) -> MailRoute:
        """All servers as the MX hosts of one domain, in their order."""
        return route_to(*((f"mx{n}.a.test", [FIRST + n]) for n in range(len(self.servers))))

    async def probe(
        self,
        route: MailRoute | None = None,
        *,
        to: str = "jane@a.test",
        control: str | None = CONTROL,
        seconds: float = 5.0,
    ) -> Finding:
        return await self.prober.probe(
            address(to),
            route or self.route,
            control=control,
            deadline=Deadline.after(seconds, time.monotonic),
            trace=self.trace,
        )


@asynccontextmanager
async def world(
    *servers: SmtpListener | str,
    tls: Tls = "when-required",
    destination_most: int = 2,
    global_most: int = 256,
    providers: str = "",
    warm: int = 128,
    clock: Clock | None = None,
) -> AsyncIterator[World]:
    """At the end no slot is taken, nobody waits, and no connection is left. `clock`: the pool's,
    instead of the one that the test moves.
    """
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(
                ScriptedMta(transcript(s) if "\n" not in s else s) if isinstance(s, str) else s
            )
            for s in servers
        ]
        seam = Seam({str(FIRST + n): server.address for n, server in enumerate(running)})
        blocked: list[Egress] = []
        moved = FakeClock()
        throttle = Throttle(
            clock=moved,
            caps=replace(
                PLACES_ONLY, dialogues=global_most, destination_dialogues=destination_most
            ),
        )
        prober = Prober(
            dialer=Dialer(sources=[SOURCE], seam=seam, on_blocked=blocked.append),
            mail_from="probe@gate.test",
            tls=tls,
            throttle=throttle,
            clock=clock or moved,
            random=random.Random(1),
            tls_context=CONTEXT,
            warm=warm,
            providers=load_providers(providers) if providers else PROVIDERS,
        )
        yield World(running, seam, prober, throttle, moved, blocked)
        await prober.close()
        assert repr(prober).startswith("<Prober 0 connections, <Throttle 0/")
        assert " 0 waiting" in repr(throttle)


def find(
    *scripts: str,
    to: str = "jane@a.test",
    control: str | None = CONTROL,
    seconds: float = 5.0,
    tls: Tls = "when-required",
) -> tuple[Finding, int]:
    """What is found, and how many connections it took."""

    async def scene() -> tuple[Finding, int]:
        async with world(*scripts, tls=tls) as here:
            finding = await here.probe(to=to, control=control, seconds=seconds)
            return finding, sum(server.accepted for server in here.servers)

    return asyncio.run(scene())


def reason_of(finding: Finding) -> Reason:
    assert (finding.mailbox is None) == (finding.failure is not None)
    if finding.mailbox is not None:
        assert finding.mailbox.reply is not None
        return finding.mailbox.reason
    assert finding.failure is not None
    return finding.failure


# (row of the catalogue, transcript, reason, stage, whether a second host is asked)
ROWS: list[tuple[str, str, Reason, Stage, bool]] = [
    ("C01", "refused", Reason.NO_CONNECT, Stage.CONNECT, True),
    ("C08", "accept_close", Reason.NO_CONNECT, Stage.GREETING, True),
    ("C09", "reset_after_one_byte", Reason.NO_CONNECT, Stage.GREETING, True),
    ("C11", "teaser_banner", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("C12", "banner_554", Reason.PROBE_BLOCKED, Stage.GREETING, True),
    ("C12", "banner_521", Reason.PROBE_BLOCKED, Stage.GREETING, True),
    ("C13", "banner_421", Reason.DEFERRED, Stage.GREETING, True),
    ("C14", "banner_blocked", Reason.PROBE_BLOCKED, Stage.GREETING, True),
    ("C15", "banner_long_line", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C15", "banner_endless", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C15", "banner_nul", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C15", "banner_bare_lf", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("C16", "http", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C16", "ssh", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C16", "tls_first", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C16", "noise", Reason.PROTOCOL_ERROR, Stage.GREETING, False),
    ("C17", "own_banner", Reason.MX_UNROUTABLE, Stage.GREETING, False),
    ("E01", "ehlo_bare", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("E02", "ehlo_refused", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("E03", "helo_blocked", Reason.PROBE_BLOCKED, Stage.EHLO, False),
    ("E04", "ehlo_421", Reason.DEFERRED, Stage.EHLO, True),
    ("E05", "ehlo_mixed_codes", Reason.PROTOCOL_ERROR, Stage.EHLO, False),
    ("E06", "ehlo_many_lines", Reason.PROTOCOL_ERROR, Stage.EHLO, False),
    ("E08", "ehlo_close", Reason.NO_CONNECT, Stage.EHLO, True),
    ("E09", "ehlo_extra_reply", Reason.PROTOCOL_ERROR, Stage.EHLO, False),
    ("E10", "ehlo_garbage_line", Reason.PROTOCOL_ERROR, Stage.EHLO, False),
    ("E12", "tls_required", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("E14", "tls_injection", Reason.PROTOCOL_ERROR, Stage.STARTTLS, False),
    ("E15", "tls_expired", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("E15", "tls_old", Reason.TLS_FAILED, Stage.TLS, False),
    ("E15", "tls_reset", Reason.TLS_FAILED, Stage.TLS, False),
    ("E15", "tls_noise", Reason.TLS_FAILED, Stage.TLS, False),
    ("E17", "tls_not_offered", Reason.TLS_FAILED, Stage.MAIL, False),
    ("E20", "no_pipelining", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("E20", "pipelining_extra_reply", Reason.PROTOCOL_ERROR, Stage.RCPT, False),
    ("M02", "mail_greylisted", Reason.GREYLISTED, Stage.MAIL, False),
    ("M03", "mail_rate_limited", Reason.DEFERRED, Stage.MAIL, False),
    ("M04", "mail_blocked", Reason.PROBE_BLOCKED, Stage.MAIL, False),
    ("M05", "mail_sender_unknown", Reason.PROBE_BLOCKED, Stage.MAIL, False),
    ("M06", "mail_sender_refused", Reason.PROBE_BLOCKED, Stage.MAIL, False),
    ("M07", "mail_no_space", Reason.DEFERRED, Stage.MAIL, False),
    ("M08", "mail_bad_sequence", Reason.PROTOCOL_ERROR, Stage.MAIL, False),
    ("M09", "mail_252", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("M10", "mail_close", Reason.NO_CONNECT, Stage.MAIL, True),
    ("R01", "accepted", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("R05", "rcpt_251", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("R06", "rcpt_252", Reason.UNCONFIRMED, Stage.RCPT, False),
    ("R07", "rejected", Reason.REJECTED_EMAIL, Stage.RCPT, False),
    ("R10", "rcpt_blocked", Reason.PROBE_BLOCKED, Stage.RCPT, False),
    ("R11", "relay_denied", Reason.RELAY_DENIED, Stage.RCPT, True),
    ("R12", "microsoft_block", Reason.PROBE_BLOCKED, Stage.RCPT, False),
    ("R13", "rate_of_mailbox", Reason.DEFERRED, Stage.RCPT, False),
    ("R14", "rate_of_mailbox_450", Reason.DEFERRED, Stage.RCPT, False),
    ("R15", "disabled", Reason.MAILBOX_DISABLED, Stage.RCPT, False),
    ("R16", "full", Reason.MAILBOX_FULL, Stage.RCPT, False),
    ("R16", "full_452", Reason.MAILBOX_FULL, Stage.RCPT, False),
    ("R17", "unverified_450", Reason.GREYLISTED, Stage.RCPT, False),
    ("R18", "greylisted", Reason.GREYLISTED, Stage.RCPT, False),
    ("R22", "local_error", Reason.DEFERRED, Stage.RCPT, False),
    ("R26", "bad_destination", Reason.NO_MX, Stage.RCPT, True),
    ("R27", "moved", Reason.REJECTED_EMAIL, Stage.RCPT, False),
    ("R29", "callout_failed", Reason.PROBE_BLOCKED, Stage.RCPT, False),
    ("R30", "rcpt_503", Reason.PROTOCOL_ERROR, Stage.RCPT, False),
    ("R31", "rcpt_354", Reason.PROTOCOL_ERROR, Stage.RCPT, False),
    ("R32", "code_disagrees_250", Reason.PROTOCOL_ERROR, Stage.RCPT, False),
    ("R33", "rcpt_mixed_codes", Reason.PROTOCOL_ERROR, Stage.RCPT, False),
    ("R34", "rcpt_two_replies", Reason.PROTOCOL_ERROR, Stage.RCPT, False),
    ("R36", "rcpt_close", Reason.NO_CONNECT, Stage.RCPT, True),
    ("R36", "rcpt_reset", Reason.NO_CONNECT, Stage.RCPT, True),
    ("S07", "split", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
    ("S08", "corked", Reason.ACCEPTED_EMAIL, Stage.RCPT, False),
]


@pytest.mark.parametrize(
    ("row", "name", "reason", "stage", "more"), ROWS, ids=[f"{r[0]}-{r[1]}" for r in ROWS]
)
def test_what_each_fault_is_found_to_be(
    row: str, name: str, reason: Reason, stage: Stage, more: bool
) -> None:
    started = time.monotonic()
    finding, connections = find(name, name)
    assert reason_of(finding) is reason, row
    if reason is not Reason.PROTOCOL_ERROR:  # where a breach shows depends on what came together
        assert finding.stage is stage, row
    if name != "refused":
        assert connections == (2 if more else 1), row
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    "name",
    ["silent", "slow_greeting", "ehlo_trickle", "mail_silence", "rcpt_silence", "deaf",
     "slow_everywhere", "half_a_code"],
)  # fmt: skip
def test_silence_is_a_timeout_within_the_budget_and_says_nothing_of_the_mailbox(
    name: str,
) -> None:
    started = time.monotonic()
    finding, connections = find(name, "accepted", seconds=0.3)
    assert reason_of(finding) is Reason.TIMEOUT
    assert connections == 1
    assert time.monotonic() - started < 0.8


def test_a_handshake_that_hangs_is_failed_tls_within_the_budget() -> None:
    assert reason_of(find("tls_hang", seconds=0.3)[0]) is Reason.TLS_FAILED


# Which host is heard.

HOSTS = [
    (["accept_close", "accepted"], Reason.ACCEPTED_EMAIL, "mx1.a.test"),
    (["banner_450", "accepted"], Reason.ACCEPTED_EMAIL, "mx1.a.test"),
    (["refused", "rejected"], Reason.REJECTED_EMAIL, "mx1.a.test"),
    (["banner_554", "accepted"], Reason.ACCEPTED_EMAIL, "mx1.a.test"),
    (["relay_denied", "accepted"], Reason.ACCEPTED_EMAIL, "mx1.a.test"),
    (["rejected", "accepted"], Reason.REJECTED_EMAIL, "mx0.a.test"),
    (["greylisted", "accepted"], Reason.GREYLISTED, "mx0.a.test"),
    (["banner_554", "refused"], Reason.PROBE_BLOCKED, "mx0.a.test"),
    (["refused", "refused", "accepted"], Reason.NO_CONNECT, "mx1.a.test"),
]


@pytest.mark.parametrize(("scripts", "reason", "host"), HOSTS)
def test_the_next_host_is_asked_only_when_it_may_know_better(
    scripts: list[str], reason: Reason, host: str
) -> None:
    finding, _ = find(*scripts)
    assert reason_of(finding) is reason
    assert finding.mx_record == host


# What an acceptance comes with.


def test_an_acceptance_comes_with_the_control_and_who_said_so() -> None:
    finding, _ = find("accepted")
    assert finding.accepted_by_host
    assert finding.control is not None and finding.control.reason is Reason.REJECTED_EMAIL
    assert finding.control_differs is True
    assert (finding.mx_record, finding.ip) == ("mx0.a.test", FIRST)


def test_who_accepts_everybody_gives_both_the_same_answer() -> None:
    finding, _ = find("accept_all")
    assert finding.control is not None and finding.control.reason is Reason.ACCEPTED_EMAIL
    assert finding.control_differs is False


def test_the_same_bare_refusal_of_both_is_seen_to_be_the_same() -> None:
    finding, _ = find("refused_same")
    assert finding.control_differs is False
    assert not finding.accepted_by_host


def test_a_bare_refusal_beside_another_answer_carries_its_contrast() -> None:
    finding, _ = find("rejected_bare")
    assert finding.mailbox is not None and finding.control_differs is True
    assert Reason.REJECTED_EMAIL in (finding.mailbox.reason, finding.mailbox.contrast)


def test_a_control_that_is_deferred_settles_nothing() -> None:
    finding, _ = find("control_deferred")
    assert reason_of(finding) is Reason.ACCEPTED_EMAIL
    assert finding.control is not None and finding.control.reason is not Reason.ACCEPTED_EMAIL


def test_without_a_control_one_transaction_is_made() -> None:
    async def scene() -> None:
        async with world(MailHost(HostRules(users=["jane"]))) as here:
            finding = await here.probe(control=None)
            assert finding.control is None and finding.control_differs is None
            assert reason_of(finding) is Reason.ACCEPTED_EMAIL
            (connection,) = here.servers[0].connections
            await here.prober.close()
            await connection.lost.wait()
            assert connection.lines == [
                "EHLO gate.test",
                "MAIL FROM:<probe@gate.test>",
                "RCPT TO:<jane@a.test>",
                "RSET",
                "QUIT",
            ]

    asyncio.run(scene())


def test_the_real_address_goes_first_and_both_ride_in_one_write() -> None:
    async def scene() -> None:
        async with world(MailHost(HostRules(users=["jane"]))) as here:
            await here.probe()
            (connection,) = here.servers[0].connections
            await here.prober.close()
            await connection.lost.wait()
            assert connection.round_trips == 4  # connect, greeting, EHLO, the group
            assert connection.bursts[1][:6] == [
                "MAIL FROM:<probe@gate.test>",
                "RCPT TO:<jane@a.test>",
                "RSET",
                "MAIL FROM:<probe@gate.test>",
                f"RCPT TO:<{CONTROL}@a.test>",
                "RSET",
            ]

    asyncio.run(scene())


SILENT_CONTROL = """
S: 220 mx.test ESMTP
C: EHLO *
S: 250-mx.test
S: 250 PIPELINING
C: MAIL FROM:<*>
S: 250 ok
C: RCPT TO:<jane@*>
S: 250 2.1.5 ok
C: RSET
S: 250 ok
C: MAIL FROM:<*>
S: 250 ok
C: RCPT TO:<*>
"""


@pytest.mark.parametrize("end", ["*hang", "*eof", "*pause 0.05\n*reset"])
def test_the_answer_for_the_mailbox_stands_though_the_control_never_came(end: str) -> None:
    finding, connections = find(SILENT_CONTROL + end, GOOD, seconds=0.3)
    assert reason_of(finding) is Reason.ACCEPTED_EMAIL
    assert finding.control is None and finding.control_differs is None
    assert finding.accepted_by_host
    assert connections == 1


def test_s03_a_peer_that_half_closes_is_still_heard() -> None:
    assert reason_of(find("half_close")[0]) is Reason.ACCEPTED_EMAIL


# SMTPUTF8.


def test_e18_a_mailbox_beyond_ascii_is_not_asked_for_where_it_cannot_be() -> None:
    finding, _ = find("no_smtputf8", to="jané@a.test")
    assert (reason_of(finding), finding.stage) == (Reason.UNCONFIRMED, Stage.EHLO)


def test_e19_a_mailbox_beyond_ascii_is_asked_for_in_utf_8() -> None:
    finding, _ = find("smtputf8", to="jané@a.test")
    assert reason_of(finding) is Reason.ACCEPTED_EMAIL


# TLS.


def test_tls_always_is_not_done_without() -> None:
    finding, connections = find("accepted", tls="always")
    assert reason_of(finding) is Reason.TLS_FAILED
    assert connections == 1


def test_tls_never_is_not_done_even_where_it_is_required() -> None:
    assert reason_of(find("tls_not_offered", tls="never")[0]) is Reason.TLS_FAILED


WANTS_TLS = """
[[provider]]
name = "Careful"
suffixes = ["a.test"]
accepts = "trust"
tls = "always"
why = "takes TLS well"
source = "this test"
date = "2026-01-01"
"""

STARTTLS_FAILS = """
S: 220 mx.test ESMTP
C: EHLO *
S: 250-mx.test
S: 250 STARTTLS
C: STARTTLS
"""

# (what becomes of STARTTLS, the setting, reason, connections)
UPGRADES = [
    ("S: 220 go\n*starttls old", "when-required", Reason.REJECTED_EMAIL, 2),
    ("S: 220 go\n*reset", "when-required", Reason.REJECTED_EMAIL, 2),
    ("S: 454 4.7.0 not available", "when-required", Reason.REJECTED_EMAIL, 2),
    ("S: 220 go\n*starttls old", "always", Reason.TLS_FAILED, 1),
    ("S: 220 go\n*hang", "when-required", Reason.TLS_FAILED, 1),
]


@pytest.mark.parametrize(("end", "tls", "reason", "connections"), UPGRADES)
def test_tls_that_only_we_wanted_is_done_without_once_it_failed(
    end: str, tls: Tls, reason: Reason, connections: int
) -> None:
    script = f"{STARTTLS_FAILS}{end}\n*connection\n{GOOD}"

    async def scene() -> None:
        async with world(script, tls=tls, providers=WANTS_TLS) as here:
            assert reason_of(await here.probe(seconds=0.5)) is reason
            assert here.servers[0].accepted == connections

    asyncio.run(scene())


# Addresses we do not dial.

PRIVATE = ip_address("10.0.0.1")
LOOPBACK = ip_address("127.0.0.1")
PUBLIC = FIRST


UNREACHABLE: list[tuple[str, MailRoute, Reason, int]] = [
    ("N38 loopback", route_to(("m.a.test", [LOOPBACK])), Reason.MX_UNROUTABLE, 1),
    ("N39 private", route_to(("m.a.test", [PRIVATE])), Reason.MX_UNROUTABLE, 1),
    (
        "two hosts, both denied",
        route_to(("m.a.test", [PRIVATE]), ("n.a.test", [LOOPBACK])),
        Reason.MX_UNROUTABLE,
        2,
    ),
    (
        "one denied, one not looked up",
        route_to(("m.a.test", [PRIVATE]), ("n.a.test", []), failed=["n.a.test"]),
        Reason.DNS_ERROR,
        1,
    ),
    (
        "none looked up",
        route_to(("m.a.test", []), failed=["m.a.test"]),
        Reason.DNS_ERROR,
        0,
    ),
]


@pytest.mark.parametrize(("name", "route", "reason", "blocked"), UNREACHABLE)
def test_nobody_is_dialled_where_no_address_may_be(
    name: str, route: MailRoute, reason: Reason, blocked: int
) -> None:
    async def scene() -> None:
        async with world(GOOD, global_most=1) as here:
            assert reason_of(await here.probe(route)) is reason, name
            assert len(here.blocked) == blocked
            assert list(here.seam.dialled) == []

    asyncio.run(scene())


def test_denied_addresses_are_dropped_and_the_others_dialled() -> None:
    async def scene() -> None:
        async with world(GOOD) as here:
            route = route_to(("bad.a.test", [LOOPBACK]), ("mx.a.test", [PRIVATE, PUBLIC]))
            finding = await here.probe(route)
            assert (finding.mx_record, finding.ip) == ("mx.a.test", PUBLIC)
            assert here.blocked == [Egress.LOOPBACK, Egress.PRIVATE]
            assert list(here.seam.dialled) == [PUBLIC]

    asyncio.run(scene())


# Providers.


def test_a_provider_whose_acceptance_means_nothing_is_not_asked() -> None:
    async def scene() -> None:
        async with world(GOOD) as here:
            finding = await here.probe(route_to(("mta5.am0.yahoodns.net", [PUBLIC])))
            assert finding.failure is Reason.PROVIDER_OPAQUE
            assert finding.destination == "Yahoo"
            assert here.servers[0].accepted == 0

    asyncio.run(scene())


# (transcript, reason)
MIMECAST = [("accepted", Reason.PROVIDER_OPAQUE), ("rejected", Reason.REJECTED_EMAIL)]


@pytest.mark.parametrize(("name", "reason"), MIMECAST)
def test_only_a_refusal_counts_where_everybody_is_accepted(name: str, reason: Reason) -> None:
    async def scene() -> None:
        async with world(name) as here:
            finding = await here.probe(route_to(("eu-smtp-inbound-1.mimecast.com", [PUBLIC])))
            assert finding.destination == "Mimecast"
            assert reason_of(finding) is reason
            assert not finding.accepted_by_host

    asyncio.run(scene())


# Cool-down.


def test_who_refuses_us_is_left_alone_until_the_rest_is_over_and_a_welcome_ends_it() -> None:
    refusing_once = f"{transcript('rcpt_blocked')}\n*connection\n{transcript('accepted')}"

    async def scene() -> None:
        async with world(refusing_once) as here:
            assert reason_of(await here.probe()) is Reason.PROBE_BLOCKED
            started = time.monotonic()
            again = await here.probe(to="joe@a.test")
            assert again.failure is Reason.PROBE_BLOCKED
            assert time.monotonic() - started < 0.1
            assert here.servers[0].accepted == 1
            here.clock.advance(COOL_DOWN)
            assert reason_of(await here.probe()) is Reason.ACCEPTED_EMAIL
            assert "0 refused us" in repr(here.throttle)

    asyncio.run(scene())


def test_another_destination_is_not_made_to_rest() -> None:
    async def scene() -> None:
        async with world("rcpt_blocked", GOOD) as here:
            assert reason_of(await here.probe(route_to(("m.a.test", [FIRST])))) is (
                Reason.PROBE_BLOCKED
            )
            finding = await here.probe(route_to(("m.b.test", [FIRST + 1])))
            assert reason_of(finding) is Reason.REJECTED_EMAIL

    asyncio.run(scene())


# Slots.


def test_s11_the_cap_is_waited_for_a_share_of_the_time_then_throttled() -> None:
    async def scene() -> None:
        async with world("silent", GOOD, global_most=1) as here:
            route = route_to(("m.b.test", [FIRST + 1]))
            stuck = asyncio.create_task(here.probe(route_to(("m.a.test", [FIRST])), seconds=2.0))
            await asyncio.sleep(0.05)
            started = time.monotonic()
            finding = await here.probe(route, seconds=1.0)
            assert finding.failure is Reason.THROTTLED
            assert 0.15 <= time.monotonic() - started <= 0.5
            stuck.cancel()
            await asyncio.gather(stuck, return_exceptions=True)
            assert reason_of(await here.probe(route)) is Reason.REJECTED_EMAIL

    asyncio.run(scene())


def most_at_once(connections: Iterable[Connection]) -> int:
    """How many dialogues ran at the same time, from the first byte to the QUIT."""
    turns = []
    for connection in connections:
        spoken = [piece.at for piece in connection.log]
        farewell = next(p.at for p in connection.log if not p.sent and b"QUIT" in p.data)
        turns += [(spoken[0], 1), (farewell, -1)]
    running = [0]
    for _, change in sorted(turns):
        running.append(running[-1] + change)
    return max(running)


def test_a_destination_never_has_more_than_two_dialogues_and_all_are_served() -> None:
    async def scene() -> None:
        host = MailHost(HostRules(users=["jane"], round_trip=0.01))
        async with world(host) as here:
            findings = await asyncio.gather(*(here.probe(to=f"user{n}@a.test") for n in range(12)))
            assert {reason_of(finding) for finding in findings} == {Reason.REJECTED_EMAIL}
            await here.prober.close()
            assert most_at_once(host.connections) == 2

    asyncio.run(scene())


def test_cancelling_who_waits_and_who_talks_gives_every_place_back() -> None:
    async def scene() -> None:
        dice = random.Random(3)
        async with world("silent", destination_most=2, global_most=3) as here:
            for _ in range(20):
                tasks = [asyncio.create_task(here.probe(seconds=1.0)) for _ in range(5)]
                for _ in range(dice.randrange(8)):
                    await asyncio.sleep(0)
                dice.shuffle(tasks)
                for task in tasks:
                    task.cancel()
                    if dice.random() < 0.5:
                        await asyncio.sleep(0)
                await asyncio.gather(*tasks, return_exceptions=True)
            assert "0/3 running" in repr(here.throttle)

    asyncio.run(scene())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_probe_may_be_cancelled_at_any_turn_of_the_loop(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Between connecting and being told so, too: uvloop then closes without a word."""

    async def scene() -> None:
        async with world(MailHost(HostRules(users=["jane"]))) as here:
            for turns in range(40):
                probes = [asyncio.create_task(here.probe()) for _ in range(2)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for probe in probes:
                    probe.cancel()
                await asyncio.gather(*probes, return_exceptions=True)
            await asyncio.wait_for(here.prober.close(), 1.0)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())


def test_a_tarpit_does_not_hold_up_another_destination() -> None:
    async def scene() -> None:
        async with world("silent", GOOD) as here:
            stuck = [
                asyncio.create_task(here.probe(route_to(("m.a.test", [FIRST])), seconds=1.0))
                for _ in range(20)
            ]
            await asyncio.sleep(0.05)
            started = time.monotonic()
            finding = await here.probe(route_to(("m.b.test", [FIRST + 1])))
            assert reason_of(finding) is Reason.REJECTED_EMAIL
            assert time.monotonic() - started < 0.3
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)

    asyncio.run(scene())


def test_o10_no_descriptor_left_is_a_limit_of_ours() -> None:
    async def scene() -> None:
        async with world(GOOD) as here:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                finding = await here.probe()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert finding.failure is Reason.THROTTLED

    asyncio.run(scene())


# The end.


def test_s02_the_verdict_does_not_wait_for_quit_and_close_ends_what_lingers() -> None:
    async def scene() -> None:
        async with world("quit_ignored", warm=0) as here:
            started = time.monotonic()
            assert reason_of(await here.probe()) is Reason.ACCEPTED_EMAIL
            assert "1 connections" in repr(here.prober)
            await here.prober.close()
            assert "0 connections" in repr(here.prober)
            assert time.monotonic() - started < QUIT_LINGER

    asyncio.run(scene())


def test_s10_a_caller_who_leaves_takes_the_connection_along() -> None:
    async def scene() -> None:
        async with world("rcpt_silence") as here:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await here.probe()
            await asyncio.wait_for(here.servers[0].connections[0].lost.wait(), 1.0)

    asyncio.run(scene())


def test_the_trace_tells_the_story_without_the_address() -> None:
    async def scene() -> None:
        async with world("accept_close", "accepted") as here:
            await here.probe()
            told = [f"{step.name} {step.detail}" for step in here.trace.steps]
            assert told[0] == "connect mx0.a.test [8.8.8.1]"
            assert any(line.startswith("connect mx1.a.test") for line in told)
            assert "smtp.rcpt 250" in told
            assert not any("jane" in line for line in [*told, *here.trace.transcript])

    asyncio.run(scene())


def test_the_deadline_before_anything_was_asked_is_a_timeout() -> None:
    async def scene() -> None:
        async with world(GOOD) as here:
            finding = await here.probe(seconds=0.0)
            assert finding.failure is Reason.TIMEOUT
            assert here.servers[0].accepted == 0

    asyncio.run(scene())
