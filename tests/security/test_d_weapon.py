"""D: the gate as a weapon against mail servers and the people on them. Their logs are the judge."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import pytest

from gate.budget import RECHECK_JITTER, RECHECK_SPACING, RECHECK_WAITS, Deadline
from gate.engine import open_engine
from gate.lists import pairs
from gate.reason import GateError
from gate.smtp.caps import Caps
from gate.smtp.command import command
from gate.smtp.harvest import REFUSALS_MOST
from gate.testing import FakeClock, FakeZones, HostRules, MailHost
from gate.testing.wire import Connection
from tests.api.ground import gate, settings
from tests.lateworld import place
from tests.lateworld import settings as late_settings
from tests.mailworld import mail_world
from tests.security.ground import catch_all, gated
from tests.security.test_m_lessons import imported

CAPS: Final = Caps()
CONTROL: Final = "k4w8zq2m6t0r5v9x1c3b"
EVERYBODY: Final = HostRules(users=[f"u{n}" for n in range(3000)])
NOISE: Final = 0.1


def recipients(connections: Iterable[Connection]) -> list[str]:
    return [line for c in connections for line in c.lines if line.startswith("RCPT")]


def most_at_once(connections: Iterable[Connection]) -> int:
    """How many were spoken on at the same time, from the first octet of each to the last."""
    turns = []
    for connection in connections:
        if connection.log:
            turns += [(connection.log[0].at, 1), (connection.log[-1].at, -1)]
    running = [0]
    for _, change in sorted(turns):
        running.append(running[-1] + change)
    return max(running)


# -- D1 --------------------------------------------------------------------------------------------


def test_D1__a_flood_about_one_domain_is_ten_recipients_a_minute_and_one_dialogue() -> None:
    """From five hundred clients, through the whole gate; what is over is told so at once."""

    async def main() -> None:
        limits = {"client_per_minute": 60, "site_per_minute": 1_000_000}
        proxy = ("10.0.0.1", 1)
        tables: dict[str, Any] = {
            "limits": limits,
            "server": {"trusted_proxies": ["10.0.0.0/8"]},
            "client": proxy,
        }
        async with gated({"v.test": EVERYBODY}, **tables) as (running, here):

            async def ask(number: int) -> str:
                client = {"x-forwarded-for": f"198.51.{number % 500 // 250}.{number % 250}"}
                told = await running.page(f"u{number}@v.test", headers=client, timeout_ms="1000")
                assert told.status_code == 200
                reason: str = told.json()["reason"]
                return reason

            told: Counter[str] = Counter()
            for start in range(0, 1500, 50):
                told.update(await asyncio.gather(*map(ask, range(start, start + 50))))
            took = []
            for number in range(1500, 1600):
                begun = time.monotonic()
                told[await ask(number)] += 1
                took.append(time.monotonic() - begun)
            host = here.hosts["v.test"]
            assert CAPS.domain_recipients == 10
            assert 2 <= len(recipients(host.connections)) <= 10
            assert most_at_once(host.connections) == 1
            assert told["throttled"] >= 1590
            assert sorted(took)[95] < 0.05 + NOISE

    asyncio.run(main())


def test_D1__one_address_asked_by_everybody_is_one_dialogue() -> None:
    async def main() -> None:
        async with mail_world({"v.test": EVERYBODY}, caps=CAPS) as world:
            answers = await asyncio.gather(*(world.check("u1@v.test") for _ in range(300)))
            assert {answer.verdict.reason.value for answer in answers} == {"accepted_email"}
            assert world.hosts["v.test"].accepted == 1

    asyncio.run(main())


# -- D2 --------------------------------------------------------------------------------------------


async def many_domains(ips: list[str], number: int) -> tuple[list[int], int]:
    """Recipients that one mail server was asked about in each of three minutes, by so many domains
    whose hosts have these addresses in turn; and the most dialogues at once.
    """
    clock = FakeClock()
    zones: dict[str, Any] = {}
    for n in range(number):
        zones |= {f"d{n}.test": f"MX 0 m.d{n}.test", f"m.d{n}.test": f"A {ips[n % len(ips)]}"}
    async with (
        MailHost(EVERYBODY) as host,
        mail_world({}, zones, caps=CAPS, clock=clock) as world,
    ):
        for ip in ips:
            world.seam.add(ip, host.address)
        minutes = []
        for minute in range(3):
            before = len(recipients(host.connections))
            third = range(minute * number // 3, (minute + 1) * number // 3)
            for start in range(third.start, third.stop, 25):
                await asyncio.gather(
                    *(
                        world.check(f"u{n}@d{n}.test", 2.0)
                        for n in range(start, min(start + 25, third.stop))
                    )
                )
            minutes.append(len(recipients(host.connections)) - before)
            clock.advance(61.0)
        return minutes, most_at_once(host.connections)


def test_D2__three_hundred_domains_at_one_address_share_its_thirty_recipients() -> None:
    minutes, at_once = asyncio.run(many_domains(["8.8.8.8"], 300))
    assert all(0 < count <= 30 for count in minutes), minutes
    assert at_once <= 2


def test_D2__and_so_do_those_at_the_addresses_of_one_network() -> None:
    minutes, at_once = asyncio.run(many_domains([f"8.8.8.{n}" for n in range(1, 101)], 300))
    assert all(0 < count <= 30 for count in minutes), minutes
    assert at_once <= 2


# -- D3, D4 ----------------------------------------------------------------------------------------


def test_D3__whoever_tries_names_learns_five_and_then_nothing() -> None:
    async def main() -> None:
        clock, dice = FakeClock(), random.Random(1)
        async with mail_world({"a.test": EVERYBODY}, caps=CAPS, clock=clock) as world:
            reasons = []
            for _ in range(40):
                name = f"x{dice.randrange(2**40):x}"
                reasons.append(await world.reason(f"{name}@a.test"))
                clock.advance(10.0)  # patient enough for every other limit
            assert reasons[:REFUSALS_MOST] == ["rejected_email"] * 5
            assert set(reasons[REFUSALS_MOST:]) == {"throttled"}
            asked = [line for line in world.recipients("a.test") if CONTROL not in line]
            assert len(asked) == REFUSALS_MOST == 5
            assert await world.reason("u7@a.test") == "throttled"  # nor who is there
            clock.advance(3600.0)
            assert await world.reason("u7@a.test") == "accepted_email"

    asyncio.run(main())


def test_D4__a_hundred_addresses_of_one_domain_cost_one_random_recipient() -> None:
    async def main() -> None:
        clock = FakeClock()
        async with mail_world({"a.test": EVERYBODY}, caps=CAPS, clock=clock) as world:
            for number in range(100):
                assert await world.reason(f"u{number}@a.test") == "accepted_email"
                clock.advance(10.0)
            asked = world.recipients("a.test")
            assert sum(CONTROL in line for line in asked) == 1
            assert len(asked) == 101
            assert CONTROL in asked[1], "the real address goes first"

    asyncio.run(main())


def test_D4__a_hundred_at_once_do_not_ask_for_it_twice() -> None:
    async def main() -> None:
        async with mail_world({"a.test": EVERYBODY}, caps=CAPS) as world:
            await asyncio.gather(*(world.check(f"u{n}@a.test", 1.0) for n in range(100)))
            await world.landed()
            asked = world.recipients("a.test")
            assert sum(CONTROL in line for line in asked) == 1
            assert len(asked) <= 10

    asyncio.run(main())


# -- D5 --------------------------------------------------------------------------------------------

PUTS_OFF: Final = HostRules(answers={"rcpt": "451 4.7.1 Greylisted, come back later"})


def test_D5__what_was_put_off_comes_again_in_turn_and_not_soon() -> None:
    """Two dozen addresses at one host; all clocks are the test's own."""
    number = 24

    async def main() -> None:
        async with place({"grey.test": PUTS_OFF}) as here:
            clock = here.clock
            opened = open_engine(
                late_settings(), world=here, clock=clock, wall=clock, queue_clock=clock
            )
            async with opened as engine:
                site = engine.sites[0]
                first: dict[str, float] = {}
                while len(first) < number:
                    email = f"u{len(first)}@grey.test"
                    deadline = Deadline.after(5.0, clock)
                    answer = await engine.checker.check(email, site=site, deadline=deadline)
                    if answer.verdict.reason == "greylisted":
                        first[f"RCPT TO:<{email}>"] = clock()
                    clock.advance(7.0)
                seen = len(recipients(here.hosts["grey.test"].connections))
                again: list[tuple[float, str]] = []
                end = clock() + 2.5 * sum(RECHECK_WAITS)
                while (await engine.store.depth()).get(("recheck", False)) and clock() < end:
                    await engine.rechecks.round()
                    asked = recipients(here.hosts["grey.test"].connections)
                    again += [(clock(), line) for line in asked[seen:] if line in first]
                    seen = len(asked)
                    clock.advance(1.0)
                gaps = [b - a for (a, _), (b, _) in zip(again, again[1:], strict=False)]
                assert min(gaps) >= RECHECK_SPACING == 2.0
                times = Counter(line for _, line in again)
                assert set(times) == set(first) and max(times.values()) <= 3
                least = RECHECK_WAITS[0] * (1 - RECHECK_JITTER)
                assert RECHECK_WAITS[0] == 300.0
                assert all(at - first[line] >= least for at, line in again)
                for start, _ in again:
                    assert sum(start <= at < start + 60.0 for at, _ in again) <= 30

    asyncio.run(main())


# -- D6, D7, D8 ------------------------------------------------------------------------------------


def test_D6__a_serving_gate_has_no_way_to_send_mail() -> None:
    """The one message of `gate doctor --send-test` is an operator's, in a room of its own."""
    for verb in ("DATA", "BDAT"):
        with pytest.raises(GateError):
            command(verb, "x")
    senders = {"smtplib", "aiosmtplib", "email.message.EmailMessage"}
    assert not {name for name in imported(but="doctor") if name.split(".")[0] in senders}


SLIPS: Final = sorted(pairs("slips.txt").items())[::4]


def test_D7__no_host_of_a_slip_is_told_who_it_was() -> None:
    """Every fourth known slip: nobody is connected to, and what was meant is suggested."""

    async def main() -> None:
        zones = {"*": "A 8.8.8.8"}
        async with catch_all() as seam, mail_world({}, zones, seam=seam) as world:
            for slip, meant in SLIPS:
                answer = await world.check(f"jane.doe@{slip}")
                assert answer.did_you_mean == f"jane.doe@{meant}"
                assert answer.verdict.reason == "probe_off"
            assert seam.accepted == 0
            assert not [name for name in world.zones.queries if "jane" in name]

    asyncio.run(main())


INTERNAL: Final = """
router.local intranet printer.localdomain.local nas.home.arpa x.internal wiki.corp.internal
hidden.onion a.invalid b.example localhost db.localhost service.alt 4.3.2.10.in-addr.arpa
""".split()


def test_D8__a_name_of_an_internal_network_is_asked_of_nobody() -> None:
    async def main() -> None:
        async with FakeZones({"*": "A 10.0.0.1"}) as zones:
            host, port = zones.server
            tables: dict[str, Any] = {
                "sandbox": {"enabled": False},
                "dns": {"servers": [f"{host}:{port}"]},
                "probe": {"helo": "gate.example.net", "mail_from": "probe@example.net"},
            }
            async with gate(settings(**tables), opener=partial(open_engine)) as running:
                for domain in INTERNAL:
                    told = (await running.check(f"a@{domain}", timeout_ms=2000)).json()
                    assert told["result"] == "undeliverable", domain
                    assert told["reason"] in ("invalid_domain", "invalid_email"), domain
                    await running.client.post("/v1/prefetch", json={"domain": domain})
            assert list(zones.queries) == []

    asyncio.run(main())
