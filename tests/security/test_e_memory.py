"""E: what is remembered, for whom, and what a stranger can do to it."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from typing import Final

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gate.budget import COOL_DOWN, Deadline
from gate.dns import MailRoute, Resolver
from gate.dns.answers import ESTATE_MOST, Memory
from gate.reason import Reason
from gate.store.memory import Recent
from gate.testing import FakeClock, FakeZones, HostRules, ScriptedMta, transcript
from gate.testing.forgery import Spoil, other_class, other_id, other_name, then_right
from gate.testing.zones import Value
from gate.token import Keys
from tests.api.ground import OTHER_BEARER, gate, settings
from tests.mailworld import mail_world, site
from tests.security.ground import resident
from tests.security.timing import answers_cannot_be_told_apart

MIB: Final = 1024 * 1024
CACHE: Final = 20_000


def route_of(domain: str) -> MailRoute:
    return MailRoute(domain, (), False, False, Reason.NO_MX, "no_address", 0.0, 1e12)


def flood(names: int) -> tuple[float, int, int]:
    """Random names below one domain and below many, with a hot one between: how often the hot one
    was there, how many of the one domain's names are remembered, and how much memory it all took.
    """
    dice, memory = random.Random(1), Memory[MailRoute](CACHE)
    recent = Recent(CACHE, lambda: 0.0)
    gc.collect()
    before, hits, asked = resident(), 0, 0
    for number in range(names):
        name = f"{dice.randrange(2**40):x}"
        owner = "attacker.test" if number % 2 else f"{name[:6]}.test"
        memory[f"{name}.{owner}"] = route_of(f"{name}.{owner}")
        recent.put(name.encode(), b"x" * 40, 1e12)
        if number % 50 == 0:
            asked += 1
            hits += memory.get("hot.test") is not None and recent.get(b"hot") is not None
            memory["hot.test"] = route_of("hot.test")
            recent.put(b"hot", b"x", 1e12)
    of_one = sum(name.endswith(".attacker.test") for name in memory)
    assert len(memory) <= CACHE and len(recent) <= CACHE
    return hits / asked, of_one, resident() - before


def test_E1__a_flood_of_subdomains_gets_a_small_part_of_a_bounded_memory() -> None:
    hits, of_one, grown = flood(150_000)
    assert hits > 0.99
    assert of_one <= ESTATE_MOST == 64
    assert grown < 40 * MIB


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_E1__a_million_of_them() -> None:
    hits, of_one, grown = flood(1_000_000)
    assert hits > 0.99 and of_one <= ESTATE_MOST
    assert grown < 40 * MIB


def test_E1__through_the_resolver_a_hot_domain_stays() -> None:
    async def main() -> None:
        plan = {
            "*.attacker.test": "MX 0 .",
            "hot.test": "MX 0 mx.hot.test",
            "mx.hot.test": "A 8.8.8.8",
        }
        async with mail_world({}, plan) as world:
            resolver = world.checker._resolver
            deadline = Deadline.after(30.0, time.monotonic)
            for number in range(400):
                await resolver.route(f"x{number}.attacker.test", deadline)
                await resolver.route("hot.test", deadline)
            assert world.zones.queries.count("hot.test MX") == 1
            kept = [resolver.cached(f"x{n}.attacker.test") for n in range(400)]
            assert sum(route is not None for route in kept) <= ESTATE_MOST

    asyncio.run(main())


def test_E1__no_answer_that_says_nothing_is_remembered_for_long() -> None:
    async def main() -> float:
        day = "A 8.8.8.8"
        soa = "86400 SOA ns.b.test h.b.test 1 3600 600 86400 86400"
        plan = {"a.b.test": [soa], "b.test": [soa, day]}
        async with mail_world({}, plan) as world:
            resolver = world.checker._resolver
            route = await resolver.route("a.b.test", Deadline.after(5.0, time.monotonic))
            return route.expires - route.found_at

    assert asyncio.run(main()) <= 300.0 + 1.0


# -- E2 --------------------------------------------------------------------------------------------

BLOCKED_ONCE: Final = {
    "at RCPT": f"{transcript('rcpt_blocked')}\n*connection\n{transcript('accepted')}",
    "at MAIL": f"{transcript('mail_blocked')}\n*connection\n{transcript('accepted')}",
    "in the greeting": f"{transcript('banner_blocked')}\n*connection\n{transcript('accepted')}",
}


@pytest.mark.parametrize("name", BLOCKED_ONCE)
def test_E2__a_refusal_of_us_is_never_remembered_as_one_of_the_mailbox(name: str) -> None:
    """The host rests for five minutes, as politeness has it; then it is asked, and says yes."""

    async def main() -> None:
        clock = FakeClock()
        server = ScriptedMta(BLOCKED_ONCE[name], strict=False)
        async with mail_world({"a.test": server}, clock=clock) as world:
            assert await world.reason("jane@a.test") == "probe_blocked"
            mark = world.checker._memory.mark("shop", "jane@a.test")
            assert world.store.peek(mark) is None
            clock.advance(61.0)
            world.wall.advance(61.0)
            assert await world.reason("jane@a.test") in ("probe_blocked", "accepted_email")
            clock.advance(COOL_DOWN)
            answer = await world.check("jane@a.test")
            # Whether everybody is accepted there was not asked again: that much is not known.
            assert answer.verdict.reason in ("accepted_email", "unconfirmed")
            assert answer.smtp is not None and answer.smtp[1] == 250

    asyncio.run(main())


@pytest.mark.parametrize("name", ["greylisted", "banner_421", "rcpt_421", "full_452", "silent"])
def test_E2__nothing_uncertain_is_remembered(name: str) -> None:
    async def main() -> None:
        async with mail_world({"a.test": ScriptedMta(transcript(name), strict=False)}) as world:
            await world.reason("jane@a.test", 0.3)
            assert world.store.peek(world.checker._memory.mark("shop", "jane@a.test")) is None
            await world.checker.close()

    asyncio.run(main())


# -- E3 --------------------------------------------------------------------------------------------

TEXT: Final = st.text(st.characters(codec="utf-8"), max_size=12)


@examples(max_examples=500)
@given(TEXT, TEXT, TEXT, TEXT)
def test_E3__no_two_sites_addresses_or_purposes_share_a_key(
    one: str, other: str, first: str, second: str
) -> None:
    keys = Keys(bytes(range(32)))
    if (one, first) != (other, second):
        assert keys.address_hash(one, first) != keys.address_hash(other, second)
        assert keys.derive(one, first) != keys.derive(other, second)
    if one != other:
        assert keys.derive(one, "address") != keys.derive(other, "address")
        assert keys.address_hash(one, first) != keys.address_hash(other, first)


def test_E3__one_site_does_not_see_what_another_asked() -> None:
    async def main() -> None:
        async with mail_world({"a.test": HostRules(users=["jane"])}) as world:
            one, other = site("one"), site("other")
            assert (await world.check("jane@a.test", site=one)).cached.mailbox is None
            assert (await world.check("jane@a.test", site=one)).cached.mailbox is not None
            assert (await world.check("jane@a.test", site=other)).cached.mailbox is None
            assert len([line for line in world.recipients("a.test") if "<jane@" in line]) == 2

    asyncio.run(main())


# -- E4 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [other_id, other_name, other_class])
def test_E4__fifty_forged_answers_do_not_keep_the_right_one_out(spoil: Spoil) -> None:
    async def main() -> None:
        plan: dict[str, Value] = {
            "good.test": then_right(spoil, times=50),
            "mx.good.test": "A 8.8.8.8",
        }
        async with FakeZones(plan) as zones:
            resolver = Resolver(
                [zones.server], private_names=True, clock=time.monotonic, random=random.Random(1)
            )
            route = await resolver.route("good.test", Deadline.after(3.0, time.monotonic))
            await resolver.close()
            assert route.mx_names == ("mx.good.test",)

    asyncio.run(main())


def test_E4__ids_ports_and_letter_case_differ_from_question_to_question() -> None:
    """Judged by what arrived at the name server."""
    seen: list[tuple[int, str, int]] = []

    class Listening(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            length = data[12]
            seen.append((int.from_bytes(data[:2], "big"), data[13 : 13 + length].decode(), addr[1]))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Listening, local_addr=("127.0.0.1", 0))
        server = transport.get_extra_info("sockname")[:2]
        resolver = Resolver(
            [server], private_names=True, clock=time.monotonic, random=random.SystemRandom()
        )
        await asyncio.gather(
            *(
                resolver.route(f"somewhatlong{n}.test", Deadline.after(0.3, time.monotonic))
                for n in range(40)
            )
        )
        await resolver.close()
        transport.close()

    asyncio.run(main())
    assert len({number for number, _, _ in seen}) >= 38
    assert len({port for _, _, port in seen}) >= 20
    assert sum(name not in (name.lower(), name.upper()) for _, name, _ in seen) >= 30


# -- E5, E6 ----------------------------------------------------------------------------------------


def test_E5__a_page_cannot_tell_what_another_site_has_asked() -> None:
    """Five hundred addresses that another site knows, and five hundred that nobody does."""

    async def main() -> None:
        limits = {"client_per_minute": 1_000_000, "site_per_minute": 1_000_000}
        async with gate(settings(limits=limits)) as running:
            for number in range(1000):
                asked = {"email": f"k{number:04}@inbox.test"}
                told = await running.client.post("/v1/check", json=asked, headers=OTHER_BEARER)
                assert told.json()["reason"] == "rejected_email"
            await answers_cannot_be_told_apart(
                lambda n: running.page(f"k{n:04}@inbox.test"),
                lambda n: running.page(f"u{n:04}@inbox.test"),
                times=500,
            )

    asyncio.run(main())


def test_E6__five_hundred_callers_at_once_are_one_dialogue() -> None:
    async def main() -> None:
        async with mail_world({"a.test": HostRules(users=["jane"], round_trip=0.02)}) as world:
            answers = await asyncio.gather(*(world.check("jane@a.test") for _ in range(500)))
            assert {answer.verdict.reason.value for answer in answers} == {"accepted_email"}
            assert world.hosts["a.test"].accepted == 1
            assert world.zones.queries.count("a.test MX") == 1
            world.wall.advance(2 * 86_400.0)
            stale = await asyncio.gather(*(world.check("jane@a.test") for _ in range(500)))
            assert {answer.verdict.reason.value for answer in stale} == {"accepted_email"}
            await world.landed()
            asked = [line for line in world.recipients("a.test") if "<jane@" in line]
            assert len(asked) == 2

    asyncio.run(main())
