"""Warm connections through the whole prober, judged by the peer's log: round trips, QUITs, who was
asked on which connection, and what becomes of one that dies, speaks, wears out or is not wanted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address

import pytest
from msgspec import structs

from gate.budget import COOL_DOWN, QUIT_LINGER, WARM_IDLE, Deadline
from gate.dns import MailRoute
from gate.reason import GateError, Reason
from gate.smtp import pool
from gate.smtp.dialog import Tls
from gate.smtp.pool import REFUSALS_MOST, Counts
from gate.testing import HostRules, MailHost, ScriptedMta
from gate.testing.wire import Connection
from tests.smtp.test_probe import CONTROL, FIRST, World, address, reason_of, route_to, world

JANE = HostRules(users=["jane", "joe"])
PROVIDER = """
[[provider]]
name = "Big"
suffixes = ["big.test"]
accepts = "trust"
why = "many tenants on many hosts"
source = "this test"
date = "2026-01-01"
"""


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene()

    asyncio.run(main())


def counted(here: World) -> tuple[int, int, int, int]:
    """Questions that found a connection and that did not; connections lost; questions repeated."""
    counts: Counts = here.prober.counts
    return counts.hits, counts.misses, counts.lost, counts.replaced


def ended_well(connections: Iterable[Connection]) -> bool:
    """Every session ended with QUIT, and said nothing before the greeting was out."""
    for connection in connections:
        first = connection.log[0]
        if not first.sent or connection.lines[-1:] != ["QUIT"]:
            return False
    return True


async def warm(here: World, route: MailRoute | None = None) -> None:
    """What a prefetch does."""
    deadline = Deadline.after(5.0, time.monotonic)
    await here.prober.warm("a.test", route or here.route, deadline=deadline, site="shop")


# -- one round trip --------------------------------------------------------------------------------


@pytest.mark.parametrize("starttls", ["none", "required"])
def test_the_second_question_costs_one_round_trip(starttls: str) -> None:
    async def scene() -> None:
        host = MailHost(HostRules(users=["jane", "joe"], starttls=starttls))  # type: ignore[arg-type]
        async with world(host) as here:
            assert reason_of(await here.probe()) is Reason.ACCEPTED_EMAIL
            (connection,) = host.connections
            cold = connection.round_trips
            assert starttls == "required" or cold == 4
            asked = (
                ("joe@b.test", CONTROL, Reason.ACCEPTED_EMAIL),
                ("ann@a.test", None, Reason.REJECTED_EMAIL),
            )
            for trips, (to, control, reason) in enumerate(asked, start=1):
                finding = await here.probe(to=to, control=control)
                assert reason_of(finding) is reason
                assert (finding.ip, finding.mx_record) == (FIRST, "mx0.a.test")
                assert (finding.control is None) == (control is None)
                assert connection.round_trips == cold + trips
            assert connection.bursts[-1] == [
                "MAIL FROM:<probe@gate.test>",
                "RCPT TO:<ann@a.test>",
                "RSET",
            ]
            assert counted(here) == (2, 1, 0, 0)
            await here.prober.close()
            await connection.lost.wait()
            assert host.accepted == 1
            assert ended_well(host.connections)

    run(scene)


def test_the_trace_says_that_the_connection_was_warm_and_holds_only_the_new_question() -> None:
    async def scene() -> None:
        async with world(MailHost(JANE)) as here:
            await here.probe()
            before = len(here.trace.steps)
            await here.probe(to="joe@b.test")
            told = [f"{step.name} {step.detail}" for step in here.trace.steps[before:]]
            assert told[0] == "connect mx0.a.test [8.8.8.1] warm"
            assert told[1:] == [
                "smtp.mail 250", "smtp.rcpt 250", "smtp.rset 250",
                "smtp.mail 250", "smtp.control 550", "smtp.rset 250",
            ]  # fmt: skip

    run(scene)


def test_many_questions_one_after_the_other_share_a_connection_until_it_is_worn() -> None:
    async def scene() -> None:
        host = MailHost(JANE)
        async with world(host) as here:
            for number in range(2 * REFUSALS_MOST):
                finding = await here.probe(to=f"nobody{number}@a.test", control=None)
                assert reason_of(finding) is Reason.REJECTED_EMAIL
            assert [c.lines.count("RSET") for c in host.connections] == [REFUSALS_MOST] * 2
            await here.prober.close()
            assert ended_well(host.connections)

    run(scene)


def test_many_questions_at_once_never_hold_more_than_two_connections() -> None:
    async def scene() -> None:
        host = MailHost(HostRules(users=["jane"], round_trip=0.005))
        async with world(host) as here:
            findings = await asyncio.gather(*(here.probe(to=f"user{n}@a.test") for n in range(40)))
            assert {reason_of(finding) for finding in findings} == {Reason.REJECTED_EMAIL}
            await here.prober.close()
            assert open_at_once(host.connections) == 2
            assert ended_well(host.connections)
            assert host.accepted < 20

    run(scene)


def open_at_once(connections: Iterable[Connection]) -> int:
    """The most that were open at a time, from the first byte to the last."""
    turns = []
    for connection in connections:
        turns += [(connection.log[0].at, 1), (connection.log[-1].at, -1)]
    running = most = 0
    for _, change in sorted(turns):
        running += change
        most = max(most, running)
    return most


# -- which connection ------------------------------------------------------------------------------
BIG = {
    "a": [("mx1.big.test", [FIRST])],
    "a's host is a backup": [("mx2.big.test", [FIRST + 1]), ("mx1.big.test", [FIRST])],
    "another host": [("mx2.big.test", [FIRST + 1])],
    "more addresses": [("mx3.big.test", [FIRST + 1, FIRST])],
}


@pytest.mark.parametrize(
    ("tenant", "shared"),
    [
        ("a", True),
        ("a's host is a backup", False),
        ("another host", False),
        ("more addresses", True),
    ],
)
def test_a_connection_serves_another_tenant_only_if_it_leads_to_a_host_of_his(
    tenant: str, shared: bool
) -> None:
    async def scene() -> None:
        one, two = MailHost(JANE), MailHost(JANE)
        async with world(one, two, providers=PROVIDER) as here:
            await here.probe(route_to(*BIG["a"]))
            finding = await here.probe(route_to(*BIG[tenant]), to="joe@b.test")
            assert finding.destination == "Big"
            assert reason_of(finding) is Reason.ACCEPTED_EMAIL
            assert finding.ip == (FIRST if shared else FIRST + 1)
            assert (one.accepted, two.accepted) == ((1, 0) if shared else (1, 1))
            if tenant == "more addresses":
                assert finding.mx_record == "mx3.big.test"

    run(scene)


def test_of_two_equal_hosts_the_one_with_an_open_connection_is_asked() -> None:
    async def scene() -> None:
        one, two = MailHost(JANE), MailHost(JANE)
        async with world(one, two) as here:
            equal = route_to(("mx0.a.test", [FIRST]), ("mx1.a.test", [FIRST + 1]))
            hosts = tuple(
                host.__class__(host.name, 10, host.addresses, host.failed) for host in equal.hosts
            )
            route = MailRoute("a.test", hosts, False, False, None, "", 0.0, 3600.0)
            for number in range(6):
                await here.probe(route, to=f"u{number}@a.test", control=None)
            assert sorted((one.accepted, two.accepted)) == [0, 1]

    run(scene)


def test_at_the_cap_a_parked_connection_makes_room_before_another_is_dialled() -> None:
    async def scene() -> None:
        hosts = [MailHost(HostRules(users=["jane"], round_trip=0.02)) for _ in range(2)]
        async with world(*hosts, providers=PROVIDER) as here:
            await asyncio.gather(*(here.probe(route_to(*BIG["a"])) for _ in range(2)))
            assert hosts[0].accepted == 2
            await asyncio.gather(*(here.probe(route_to(*BIG["another host"])) for _ in range(2)))
            assert hosts[1].accepted == 2
            connections = [connection for host in hosts for connection in host.connections]
            await here.prober.close()
            assert open_at_once(connections) == 2
            assert ended_well(connections)

    run(scene)


# -- what is never kept ----------------------------------------------------------------------------
REFUSALS = [
    "greylisted", "rcpt_blocked", "microsoft_block", "relay_denied", "local_error", "banner_421",
    "mail_blocked", "mail_greylisted", "helo_blocked", "callout_failed", "rate_of_mailbox",
    "rcpt_252",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_whoever_refuses_us_or_puts_us_off_is_told_quit(name: str) -> None:
    async def scene() -> None:
        async with world(name) as here:
            await here.probe()
            (connection,) = here.servers[0].connections
            await asyncio.wait_for(connection.lost.wait(), 1.0)
            assert counted(here)[0] == 0

    run(scene)


def test_a_control_that_is_put_off_ends_the_connection_too() -> None:
    async def scene() -> None:
        async with world("control_deferred") as here:
            assert reason_of(await here.probe()) is Reason.ACCEPTED_EMAIL
            await asyncio.wait_for(here.servers[0].connections[0].lost.wait(), 1.0)

    run(scene)


def test_with_none_to_keep_every_question_has_its_own_connection() -> None:
    async def scene() -> None:
        host = MailHost(JANE)
        async with world(host, warm=0) as here:
            for _ in range(3):
                await here.probe()
            assert host.accepted == 3
            await warm(here)
            assert host.accepted == 3

    run(scene)


# -- what happens to one that is parked, or under a question ---------------------------------------
ONCE = """
S: 220 mx.test ESMTP
C: EHLO *
S: 250-mx.test
S: 250 PIPELINING
C: MAIL FROM:<*>
S: 250 ok
C: RCPT TO:<*>
S: 250 2.1.5 ok
C: RSET
S: 250 ok
"""
AGAIN = "\n*connection\nS: 220 mx.test ESMTP\n*rest 550 5.1.1 no such user"
SURPRISES = [
    "S: 421 4.4.2 idle",
    "S: 421 4.4.2 idle\n*eof",
    "S: 250 ok",
    "*raw 2",
    "*eof",
    "*reset",
]


@pytest.mark.parametrize("surprise", SURPRISES)
def test_one_that_hears_anything_while_it_is_parked_is_closed_and_never_asked(
    surprise: str,
) -> None:
    async def scene() -> None:
        async with world(f"{ONCE}*pause 0.05\n{surprise}{AGAIN}") as here:
            await here.probe(control=None)
            await asyncio.wait_for(here.servers[0].connections[0].lost.wait(), 1.0)
            assert reason_of(await here.probe(control=None)) is Reason.REJECTED_EMAIL
            assert here.servers[0].accepted == 2
            assert here.servers[0].connections[0].lines.count("RSET") == 1
            assert counted(here) == (0, 2, 1, 0)

    run(scene)


DEATHS = ["*eof", "*reset", "S: 421 4.3.2 shutting down\n*eof"]


@pytest.mark.parametrize("death", DEATHS)
def test_one_that_dies_before_its_first_reply_is_replaced_once(death: str) -> None:
    async def scene() -> None:
        async with world(f"{ONCE}C: MAIL FROM:<*>\n{death}{AGAIN}") as here:
            await here.probe(control=None)
            finding = await here.probe(control=None)
            assert reason_of(finding) is Reason.REJECTED_EMAIL
            assert here.servers[0].accepted == 2
            assert counted(here) == (1, 1, 0, 1)

    run(scene)


def test_a_fresh_one_that_dies_as_well_is_not_replaced() -> None:
    async def scene() -> None:
        dies = f"{ONCE}C: MAIL FROM:<*>\n*eof"
        opened = ONCE.partition("C: MAIL")[0]
        script = f"{dies}\n*connection\n{opened}C: MAIL FROM:<*>\n*eof{AGAIN}"
        async with world(script) as here:
            await here.probe(control=None)
            assert reason_of(await here.probe(control=None)) is Reason.NO_CONNECT
            assert here.servers[0].accepted == 2

    run(scene)


# What the server does with the second question; what comes of it.
ANSWERS: dict[str, tuple[str, Reason]] = {
    "half an answer": ("S: 250 ok\n*eof", Reason.NO_CONNECT),
    "out of step": ("S: 220 hello", Reason.PROTOCOL_ERROR),
    "no SMTP": ("S: hello", Reason.PROTOCOL_ERROR),
    "too many replies": ("*raw " + r"250 ok\r\n" * 4, Reason.PROTOCOL_ERROR),
    "refused as a sender": (
        "S: 554 5.7.1 sender address rejected\nC: RCPT TO:<*>\nS: 503 no\nC: RSET\nS: 250 ok",
        Reason.PROBE_BLOCKED,
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_after_an_answer_or_a_surprise_nothing_is_replaced(name: str) -> None:
    said, reason = ANSWERS[name]

    async def scene() -> None:
        server = ScriptedMta(f"{ONCE}C: MAIL FROM:<*>\n{said}{AGAIN}", strict=False)
        async with world(server) as here:
            await here.probe(control=None)
            assert reason_of(await here.probe(control=None)) is reason
            assert server.accepted == 1
            assert counted(here)[3] == 0

    run(scene)


def test_one_that_is_silent_under_a_question_costs_the_time_of_that_question_only() -> None:
    async def scene() -> None:
        async with world(f"{ONCE}C: MAIL FROM:<*>\n*hang{AGAIN}") as here:
            await here.probe(control=None)
            assert reason_of(await here.probe(control=None, seconds=0.3)) is Reason.TIMEOUT
            assert reason_of(await here.probe(control=None)) is Reason.REJECTED_EMAIL
            assert here.servers[0].accepted == 2

    run(scene)


def test_a_caller_who_leaves_takes_a_warm_connection_along() -> None:
    async def scene() -> None:
        async with world(f"{ONCE}C: MAIL FROM:<*>\n*hang{AGAIN}") as here:
            await here.probe(control=None)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await here.probe()
            await asyncio.wait_for(here.servers[0].connections[0].lost.wait(), 1.0)

    run(scene)


# -- time ------------------------------------------------------------------------------------------


def test_an_idle_one_is_told_quit_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WARM_IDLE", 0.1)

    async def scene() -> None:
        host = MailHost(JANE)
        async with world(host, clock=time.monotonic) as here:
            started = time.monotonic()
            await here.probe()
            (connection,) = host.connections
            await asyncio.wait_for(connection.lost.wait(), 2.0)
            assert connection.lines[-1] == "QUIT"
            assert time.monotonic() - started >= 0.1

    run(scene)


def test_one_that_was_idle_for_too_long_is_not_asked_though_nobody_closed_it_yet() -> None:
    async def scene() -> None:
        host = MailHost(JANE)
        async with world(host) as here:
            await here.probe()
            here.clock.advance(WARM_IDLE)
            await here.probe(to="joe@a.test")
            assert host.accepted == 2
            await asyncio.wait_for(host.connections[0].lost.wait(), 1.0)
            assert host.connections[0].lines[-1] == "QUIT"

    run(scene)


def test_closing_says_quit_on_all_that_are_parked_and_waits_for_nobody() -> None:
    async def scene() -> None:
        hosts = [MailHost(JANE), ScriptedMta(f"{ONCE}C: QUIT\n*hang")]
        async with world(*hosts) as here:
            await here.probe(route_to(("m.a.test", [FIRST])))
            await here.probe(route_to(("m.b.test", [FIRST + 1])), control=None)
            assert "2 connections" in repr(here.prober)
            started = time.monotonic()
            await here.prober.close()
            assert time.monotonic() - started < QUIT_LINGER + 0.3
            assert "0 connections" in repr(here.prober)
            assert all(ended_well(host.connections) for host in hosts)
            assert reason_of(await here.probe(to="joe@a.test")) is Reason.ACCEPTED_EMAIL
            await asyncio.wait_for(hosts[0].connections[-1].lost.wait(), 1.0)

    run(scene)


def test_letting_go_says_quit_and_leaves_the_prober_as_it_is() -> None:
    async def scene() -> None:
        host = MailHost(JANE)
        async with world(host) as here:
            await here.probe()
            here.prober.let_go()
            await asyncio.wait_for(host.connections[0].lost.wait(), 1.0)
            assert ended_well(host.connections)
            await here.probe()
            await here.probe()
            assert host.accepted == 2

    run(scene)


# -- ahead of a question ---------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["when-required", "always"])
def test_a_connection_opened_ahead_names_nobody_and_makes_the_check_one_round_trip(
    tls: Tls,
) -> None:
    async def scene() -> None:
        host = MailHost(HostRules(users=["jane"], starttls="offered"))
        async with world(host, tls=tls) as here:
            await warm(here)
            (connection,) = host.connections
            before = connection.round_trips
            assert set(connection.lines) <= {"EHLO gate.test", "STARTTLS"}
            assert reason_of(await here.probe()) is Reason.ACCEPTED_EMAIL
            assert connection.round_trips == before + 1
            assert (counted(here), here.prober.counts.ahead) == ((1, 0, 0, 0), 1)

    run(scene)


def test_one_is_opened_ahead_at_a_time_and_not_beside_a_dialogue() -> None:
    async def scene() -> None:
        host = MailHost(HostRules(users=["jane"], round_trip=0.02))
        async with world(host) as here:
            await asyncio.gather(*(warm(here) for _ in range(20)))
            assert host.accepted == 1
            here.clock.advance(WARM_IDLE)
            here.prober.let_go()
            await host.connections[0].lost.wait()
            await warm(here)
            assert host.accepted == 1, "nobody used the last one"
            here.clock.advance(60.0)
            asked = asyncio.create_task(here.probe())
            await asyncio.sleep(0)  # it is being dialled by now
            await warm(here)
            await asked
            assert host.accepted == 2

    run(scene)


NOT_AHEAD: dict[str, MailRoute] = {
    "a provider whose acceptance means nothing": route_to(("mta5.am0.yahoodns.net", [FIRST])),
    "a provider with one place": route_to(("mx.one.test", [FIRST])),
    "a provider whose dialogues are spaced": route_to(("mx.spaced.test", [FIRST])),
    "an address that is not dialled": route_to(("mx.a.test", [ip_address("10.0.0.1")])),
    "no address": route_to(("mx.a.test", [])),
}
TIGHT = PROVIDER.replace('"Big"', '"One"').replace("big.test", "one.test") + "dialogues = 1\n"
TIGHT += (
    PROVIDER.replace('"Big"', '"Spaced"').replace("big.test", "spaced.test") + "spacing = 1.0\n"
)
TIGHT += (
    PROVIDER.replace('"Big"', '"Yahoo"')
    .replace("big.test", "yahoodns.net")
    .replace('"trust"', '"opaque"')
)


@pytest.mark.parametrize("name", NOT_AHEAD)
def test_nothing_is_opened_ahead_where_it_would_harm_or_not_help(name: str) -> None:
    async def scene() -> None:
        async with world(MailHost(JANE), providers=TIGHT) as here:
            await warm(here, NOT_AHEAD[name])
            assert here.servers[0].accepted == 0

    run(scene)


def test_who_refuses_us_ahead_of_a_question_rests_and_is_not_connected_to_again() -> None:
    async def scene() -> None:
        async with world("banner_554") as here:
            await warm(here)
            assert reason_of(await here.probe()) is Reason.PROBE_BLOCKED
            assert here.servers[0].accepted == 1
            here.clock.advance(COOL_DOWN - 1.0)
            await warm(here)
            assert here.servers[0].accepted == 1

    run(scene)


@pytest.mark.parametrize("name", ["silent", "accept_close", "http", "refused", "ehlo_close"])
def test_a_host_that_errs_ahead_of_a_question_is_no_fault_of_ours(name: str) -> None:
    async def scene() -> None:
        async with world(name) as here:
            deadline = Deadline.after(0.3, time.monotonic)
            await here.prober.warm("a.test", here.route, deadline=deadline, site="shop")
            assert here.prober.counts.hits == 0
            await asyncio.sleep(0)
            assert repr(here.prober).startswith("<Prober 0 connections")

    run(scene)


def test_a_recipient_that_cannot_be_written_costs_no_connection() -> None:
    async def scene() -> None:
        host = MailHost(JANE)
        async with world(host) as here:
            await here.probe()
            with pytest.raises(GateError):
                await here.prober.probe(
                    structs.replace(address(), local="x" * 600),
                    here.route,
                    control=None,
                    deadline=Deadline.after(1.0, time.monotonic),
                    trace=here.trace,
                )
            await asyncio.wait_for(host.connections[0].lost.wait(), 1.0)
            assert ended_well(host.connections)

    run(scene)
