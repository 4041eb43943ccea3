"""Routes that take time, company or more than one resolver; the rest is in test_catalogue."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.budget import (
    DNS_FAILURE,
    DNS_FAMILY_DELAY,
    DNS_NEXT_SERVER,
    DNS_PREFERRED,
    DNS_RETRANSMIT,
    DNS_SERVER_REST,
    DNS_TTL_LEAST,
    DNS_TTL_MOST,
)
from gate.dns import MailRoute, Resolver, system_servers
from gate.dns.answers import ESTATE_MOST
from gate.dns.ask import QUESTIONS
from gate.reason import GateError, Reason
from gate.testing import FakeClock
from gate.testing.forgery import MX_GOOD, alone, only, records
from gate.testing.zones import (
    NXDOMAIN,
    SERVFAIL,
    SILENT,
    FakeZones,
    Late,
    Rcode,
    Turns,
    Value,
)
from tests.dns.ground import HOST, MAIL, SLACK, closed_port, find, of_route, resolver, serve, soon


def test_n04_an_implicit_route_says_so() -> None:
    route, _ = find({"good.test": "A 203.0.113.1"})
    assert (route.implicit, route.destination) == (True, "good.test")
    assert route.hosts[0].addresses == (IPv4Address("203.0.113.1"),)


def test_n11_the_domains_own_address_is_not_even_asked_for() -> None:
    _, asked = find({"good.test": [MX_GOOD, "A 203.0.113.1"], "mx.good.test": NXDOMAIN})
    assert sorted(asked) == ["good.test MX", "mx.good.test A", "mx.good.test AAAA"]


def test_n12_a_host_that_failed_is_told_from_one_that_is_absent() -> None:
    plan = {**MAIL, "good.test": [MX_GOOD, "MX 20 gone.test", "MX 30 bad.test"]}
    route, _ = find({**plan, "gone.test": NXDOMAIN, "bad.test": SERVFAIL})
    assert [host.failed for host in route.hosts] == [False, False, True]
    assert route.failure is None


def test_n17_one_retry_on_the_other_resolver() -> None:
    async def body() -> tuple[MailRoute, list[int]]:
        async with (
            FakeZones({"*": SERVFAIL}) as first,
            FakeZones(MAIL) as second,
            FakeZones(MAIL) as third,
        ):
            ours = resolver(first, second, third)
            route = await ours.route("good.test", soon())
            await ours.close()
            return route, [len(zones.queries) for zones in (first, second, third)]

    route, asked = asyncio.run(body())
    assert route.failure is None
    assert asked[2] == 0, "and no further"
    assert sum(asked) <= QUESTIONS


def test_n17_two_resolvers_that_fail_are_enough() -> None:
    async def body() -> tuple[MailRoute, int]:
        broken = {"*": SERVFAIL}
        async with FakeZones(broken) as a, FakeZones(broken) as b, FakeZones(MAIL) as c:
            ours = resolver(a, b, c)
            route = await ours.route("good.test", soon())
            await ours.close()
            return route, len(c.queries)

    route, asked_last = asyncio.run(body())
    assert (route.failure, route.detail, asked_last) == (Reason.DNS_ERROR, "servfail", 0)


def test_n18_a_resolver_that_dislikes_edns_is_asked_without_from_then_on() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[str]:
        await ours.route("good.test", soon())
        return list(zones.queries)

    plan = {
        "good.test": Rcode("FORMERR", unless_plain=MX_GOOD),
        "mx.good.test": Rcode("FORMERR", unless_plain=HOST),
    }
    asked = serve(body, plan)
    assert asked.count("good.test MX") == 2
    assert asked.count("mx.good.test A") == 1


def test_n19_silence_ends_with_the_deadline() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[MailRoute, float]:
        start = time.monotonic()
        route = await ours.route("good.test", soon(0.3))
        return route, time.monotonic() - start

    route, took = serve(body, {"good.test": SILENT})
    assert (route.failure, route.detail) == (Reason.DNS_ERROR, "timeout")
    assert 0.29 < took < 0.3 + SLACK


def test_n20_a_lost_datagram_is_sent_again() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[MailRoute, float]:
        start = time.monotonic()
        route = await ours.route("good.test", soon())
        return route, time.monotonic() - start

    route, took = serve(body, {**MAIL, "good.test": Turns(SILENT, MX_GOOD)})
    assert route.failure is None
    assert DNS_RETRANSMIT <= took < DNS_RETRANSMIT + SLACK


def test_n21_what_comes_after_the_deadline_is_not_remembered() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[MailRoute, MailRoute | None]:
        route = await ours.route("good.test", soon(0.1))
        await asyncio.sleep(0.2)
        return route, ours.cached("good.test")

    route, cached = serve(body, {**MAIL, "good.test": Late(0.2, MX_GOOD)})
    assert (route.detail, cached) == ("timeout", None)


def test_n21_no_time_left_means_no_question() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[MailRoute, int]:
        return await ours.route("good.test", soon(0)), len(zones.queries)

    route, asked = serve(body, MAIL)
    assert (route.detail, asked) == ("timeout", 0)


def test_n23_a_resolver_that_changes_letter_case_is_asked_by_tcp() -> None:
    """Its datagrams could be anybody's; over a connection the case says nothing."""
    fold = only(lambda wire: wire[:12] + wire[12:23].lower() + wire[23:])
    route, asked = find({**MAIL, "good.test": fold})
    assert [host.name for host in route.hosts] == ["mx.good.test"]
    assert "good.test MX tcp" in asked


def test_n31_of_a_hundred_equal_hosts_any_four() -> None:
    plan = {
        "good.test": [f"MX 10 mx{n}.good.test" for n in range(100)],
        "*.good.test": "A 203.0.113.7",
    }
    routes = [find(plan) for _ in range(5)]
    orders = {tuple(host.name for host in route.hosts) for route, _ in routes}
    assert len(orders) > 1
    assert all(len(order) == 4 for order in orders)
    assert all(len(asked) <= QUESTIONS for _, asked in routes)
    assert len({route.destination for route, _ in routes}) == 1, "one destination, however ordered"


def test_n32_of_thousands_of_addresses_four() -> None:
    many = [f"A 10.0.{n // 256}.{n % 256}" for n in range(2048)]
    six = ["AAAA 2001:db8::1", "AAAA 2001:db8::2", "AAAA 2001:db8::3"]
    route, _ = timed({"good.test": MX_GOOD, "mx.good.test": [*many, *six]}, ipv6=False)
    assert [ip.version for ip in route.hosts[0].addresses] == [6, 4, 6, 4]


def test_n33_ttl_0_serves_those_who_wait_and_nobody_else() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[int, int]:
        await asyncio.gather(*(ours.route("good.test", soon()) for _ in range(10)))
        together = zones.queries.count("good.test MX")
        await ours.route("good.test", soon())
        return together, zones.queries.count("good.test MX")

    assert serve(body, {**MAIL, "good.test": "0 MX 10 mx.good.test"}) == (1, 2)


def test_n35_the_first_answer_is_the_one_that_counts() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[MailRoute, int]:
        return await ours.route("good.test", soon()), zones.queries.count("mx.good.test A")

    rebinding = Turns("0 A 203.0.113.7", "0 A 127.0.0.1")
    route, asked = serve(
        body, {"good.test": MX_GOOD, "mx.good.test A": rebinding, "mx.good.test": "TXT x"}
    )
    assert (route.hosts[0].addresses, asked) == ((ip_address("203.0.113.7"),), 1)


def test_n41_a_wildcard_zone_gets_a_small_part_of_the_memory() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[bool, int]:
        await ours.route("good.test", soon())
        names = [f"x{n}.wild.test" for n in range(ESTATE_MOST * 3)]
        for name in names:
            await ours.route(name, soon())
        remembered = sum(ours.cached(name) is not None for name in names)
        return ours.cached("good.test") is not None, remembered

    clock = FakeClock()
    plan = {**MAIL, "*.wild.test": "MX 0 ."}
    assert serve(body, plan, clock=clock) == (True, ESTATE_MOST)


@pytest.mark.parametrize(
    ("wildcard", "invents"), [("A 203.0.113.99", True), (NXDOMAIN, False), (SERVFAIL, None)]
)
def test_n43_a_resolver_that_invents_names_is_noticed(
    wildcard: Value, invents: bool | None
) -> None:
    async def body(ours: Resolver, zones: FakeZones) -> bool | None:
        return await ours.invents_names(soon())

    assert serve(body, {"*.com": wildcard, "*.net": NXDOMAIN, "*.org": NXDOMAIN}) is invents


def test_n43_such_a_resolver_proves_nothing_absent() -> None:
    route, _ = find({"good.test MX": NXDOMAIN, "good.test": "A 203.0.113.99"})
    assert route.failure is Reason.DNS_ERROR


def test_n44_only_a_labels_are_asked_for() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[str]:
        with pytest.raises(GateError, match="A-label"):
            await ours.route("bücher.test", soon())
        await ours.route("xn--bcher-kva.test", soon())
        return of_route(zones.queries)

    assert serve(body, {"xn--bcher-kva.test": "MX 0 ."}) == ["xn--bcher-kva.test MX"]


def test_n46_a_resolver_that_is_down_costs_no_time() -> None:
    async def body() -> tuple[MailRoute, MailRoute, float, list[bool]]:
        clock = FakeClock()
        ours = Resolver([closed_port()], private_names=True, clock=clock, random=random.Random(1))
        healthy = [ours.healthy]
        start = time.monotonic()
        first = await ours.route("good.test", soon())
        healthy.append(ours.healthy)
        resting = await ours.route("good.test", soon())
        took = time.monotonic() - start
        await ours.close()
        return first, resting, took, healthy

    first, resting, took, healthy = asyncio.run(body())
    assert {(route.failure, route.detail) for route in (first, resting)} == {
        (Reason.DNS_ERROR, "resolver_down")
    }
    assert took < SLACK
    assert first.expires == first.found_at, "no name is to suffer for it later"
    assert healthy == [True, False]


def test_n46_the_next_resolver_steps_in_at_once() -> None:
    async def body() -> tuple[MailRoute, float]:
        async with FakeZones(MAIL) as zones:
            ours = Resolver(
                [closed_port(), zones.server],
                private_names=True,
                clock=time.monotonic,
                random=random.Random(1),
            )
            start = time.monotonic()
            route = await ours.route("good.test", soon())
            await ours.close()
            return route, time.monotonic() - start

    route, took = asyncio.run(body())
    assert route.failure is None
    assert took < DNS_NEXT_SERVER + SLACK


def test_n46_it_is_tried_again_after_a_rest() -> None:
    async def body() -> list[str]:
        clock, details = FakeClock(), []
        port = closed_port()
        ours = Resolver([port], private_names=True, clock=clock, random=random.Random(1))
        details.append((await ours.route("good.test", soon())).detail)
        loop = asyncio.get_running_loop()
        echo, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=port)
        details.append((await ours.route("good.test", soon(0.05))).detail)
        clock.advance(DNS_SERVER_REST)
        details.append((await ours.route("good.test", soon(0.05))).detail)
        details.append((await ours.route("other.test", soon(0.05))).detail)
        await ours.close()
        echo.close()
        return details

    assert asyncio.run(body()) == ["resolver_down", "resolver_down", "timeout", "resolver_down"]


# -- more than one resolver ------------------------------------------------------------------------


def test_a_silent_resolver_costs_one_step_and_is_asked_last_from_then_on() -> None:
    async def body() -> tuple[list[float], int]:
        async with FakeZones({"*": SILENT}) as dead, FakeZones({"*": "MX 0 ."}) as alive:
            ours = resolver(dead, alive)
            times = []
            for domain in ("one.test", "two.test"):
                start = time.monotonic()
                await ours.route(domain, soon())
                times.append(time.monotonic() - start)
            await ours.close()
            return times, len(of_route(dead.queries))

    (first, second), asked = asyncio.run(body())
    assert DNS_NEXT_SERVER <= first < DNS_NEXT_SERVER + SLACK
    assert second < first
    assert asked == 1


def test_a_stub_zone_has_servers_of_its_own() -> None:
    async def body() -> tuple[list[str], list[str]]:
        async with FakeZones({"*": "MX 0 ."}) as public, FakeZones({"*": "MX 0 ."}) as lab:
            ours = Resolver(
                [public.server],
                stubs={"lab.test": [lab.server]},
                clock=time.monotonic,
                random=random.Random(1),
            )
            for domain in ("a.lab.test", "lab.test", "notlab.example.org"):
                await ours.route(domain, soon())
            await ours.close()
            return of_route(public.queries), of_route(lab.queries)

    assert asyncio.run(body()) == (["notlab.example.org MX"], ["a.lab.test MX", "lab.test MX"])


@pytest.mark.parametrize("domain", ["router.local", "intranet", "a.internal", "x.test", "b.onion"])
def test_names_that_are_never_public_are_not_asked_for(domain: str) -> None:
    async def body() -> tuple[MailRoute, int]:
        async with FakeZones({"*": "MX 0 ."}) as zones:
            ours = Resolver([zones.server], clock=time.monotonic, random=random.Random(1))
            route = await ours.route(domain, soon())
            return route, len(zones.queries)

    route, asked = asyncio.run(body())
    assert (route.failure, route.detail, asked) == (Reason.INVALID_DOMAIN, "not_public", 0)


def test_a_public_domain_cannot_send_us_to_a_private_name() -> None:
    async def body() -> tuple[MailRoute, list[str]]:
        plan: dict[str, Value] = {
            "a.org": "MX 1 mail.router.local",
            "b.org": alone("CNAME db.internal"),
        }
        async with FakeZones(plan) as zones:
            ours = Resolver([zones.server], clock=time.monotonic, random=random.Random(1))
            route = await ours.route("a.org", soon())
            await ours.route("b.org", soon())
            await ours.close()
            return route, of_route(zones.queries)

    route, asked = asyncio.run(body())
    assert (route.failure, route.detail) == (Reason.DNS_ERROR, "unusable_mx")
    assert asked == ["a.org MX", "b.org MX"]


# -- memory and company ----------------------------------------------------------------------------


def test_a_route_is_asked_for_once_and_remembered_until_it_expires() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[int]:
        counts = []
        for seconds in (0, DNS_TTL_LEAST, 240):
            clock.advance(seconds)
            await ours.route("good.test", soon())
            counts.append(len(of_route(zones.queries)))
        return counts

    clock = FakeClock()
    plan = {"good.test": "MX 10 mx.good.test", "mx.good.test": ["60 A 203.0.113.7", "TXT x"]}
    first, after_a_minute, after_five = serve(body, plan, clock=clock)
    assert first == 3
    assert after_a_minute == 4, "the address alone is asked for again: MX and absence last longer"
    assert after_five == 7


def test_hosts_are_remembered_apart_from_domains() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[str]:
        await ours.route("good.test", soon())
        zones.queries.clear()
        await ours.route("other.test", soon())
        return of_route(zones.queries)

    assert serve(body, {**MAIL, "other.test": MX_GOOD}) == ["other.test MX"]


def test_cached_never_asks() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[bool, bool, bool]:
        before = ours.cached("good.test") is None
        route = await ours.route("good.test", soon())
        same = ours.cached("good.test") is route
        clock.advance(DNS_TTL_MOST)
        return before, same, ours.cached("good.test") is None

    clock = FakeClock()
    assert serve(body, MAIL, clock=clock) == (True, True, True)


def test_a_hundred_callers_ask_once() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[str]:
        routes = await asyncio.gather(*(ours.route("good.test", soon()) for _ in range(100)))
        assert len(set(map(id, routes))) == 1
        return sorted(of_route(zones.queries))

    asked = serve(body, {**MAIL, "good.test": Late(0.05, MX_GOOD)})
    assert asked == ["good.test MX", "mx.good.test A", "mx.good.test AAAA"]


def test_domains_that_share_a_host_ask_for_it_once() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> int:
        await asyncio.gather(*(ours.route(f"d{n}.test", soon()) for n in range(20)))
        return zones.queries.count("mx.good.test A")

    assert serve(body, {"*.test": MX_GOOD, "mx.good.test": HOST}) == 1


def test_a_caller_that_leaves_does_not_take_the_answer_along() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[str, MailRoute]:
        leaves = asyncio.create_task(ours.route("good.test", soon()))
        stays = asyncio.create_task(ours.route("good.test", soon()))
        hurries = await ours.route("good.test", soon(0.05))
        leaves.cancel()
        return hurries.detail, await stays

    detail, route = serve(body, {**MAIL, "good.test": Late(0.1, MX_GOOD)})
    assert detail == "timeout"
    assert route.failure is None


def test_when_all_have_left_nothing_goes_on() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> set[str]:
        caller = asyncio.create_task(ours.route("good.test", soon()))
        await zones.asked()
        caller.cancel()
        await asyncio.wait({caller})
        await ours.close()
        return {task.get_name() for task in asyncio.all_tasks()} - {here()}

    def here() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    assert serve(body, {"good.test": SILENT}) == set()


def test_closing_answers_those_who_wait() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> MailRoute:
        caller = asyncio.create_task(ours.route("good.test", soon()))
        await zones.asked()
        await ours.close()
        return await caller

    assert serve(body, {"good.test": SILENT}).failure is Reason.DNS_ERROR


# -- ready when what matters is there --------------------------------------------------------------


def timed(plan: Mapping[str, Value], *, ipv6: bool = True) -> tuple[MailRoute, float]:
    async def body() -> tuple[MailRoute, float]:
        async with FakeZones(plan) as zones:
            ours = Resolver(
                [zones.server],
                private_names=True,
                clock=time.monotonic,
                random=random.Random(1),
                ipv6=ipv6,
            )
            start = time.monotonic()
            route = await ours.route("good.test", soon())
            took = time.monotonic() - start
            await ours.close()
            return route, took

    return asyncio.run(body())


SLOW_SIX: Mapping[str, Value] = {
    "good.test": MX_GOOD,
    "mx.good.test": "A 203.0.113.7",
    "mx.good.test AAAA": SILENT,
}


def test_a_slow_family_is_waited_for_a_moment() -> None:
    route, took = timed(SLOW_SIX)
    assert route.failure is None
    assert DNS_FAMILY_DELAY <= took < DNS_FAMILY_DELAY + SLACK
    assert route.expires - route.found_at <= DNS_FAILURE, "an incomplete route is soon renewed"


def test_without_ipv6_it_is_not_waited_for_at_all() -> None:
    quickest = min(timed(SLOW_SIX, ipv6=False)[1] for _ in range(3))
    assert quickest < DNS_FAMILY_DELAY


def test_without_ipv6_both_families_are_still_needed_for_a_proof() -> None:
    plan = {**SLOW_SIX, "mx.good.test": "TXT x", "mx.good.test AAAA": Late(0.2, "TXT x")}
    route, took = timed(plan, ipv6=False)
    assert route.failure is Reason.NO_MX
    assert took >= 0.2


def test_a_preferred_host_is_waited_for_longer_than_an_equal_one() -> None:
    slow: Mapping[str, Value] = {"mx.good.test": HOST, "slow.test": SILENT}
    _, equal = timed({"good.test": [MX_GOOD, "MX 10 slow.test"], **slow})
    route, preferred = timed({"good.test": [MX_GOOD, "MX 5 slow.test"], **slow})
    assert DNS_FAMILY_DELAY <= equal < DNS_FAMILY_DELAY + SLACK
    assert DNS_PREFERRED <= preferred < DNS_PREFERRED + SLACK
    assert [(host.name, host.failed) for host in route.hosts] == [
        ("slow.test", True),
        ("mx.good.test", False),
    ]


# -- whatever comes --------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 5)), min_size=20, max_size=40))
def test_arbitrary_bytes_never_prove_anything(bodies: list[tuple[bytes, int]]) -> None:
    """Behind a good header and question: only a whole, empty answer is an answer."""

    async def body(ours: Resolver, zones: FakeZones) -> list[MailRoute]:
        domains = [f"d{number}.test" for number in range(len(bodies))]
        return await asyncio.gather(*(ours.route(domain, soon()) for domain in domains))

    plan: dict[str, Value] = {"*": SERVFAIL}
    for number, (junk, count) in enumerate(bodies):
        plan[f"d{number}.test MX"] = records(junk, count)
    for (junk, count), route in zip(bodies, serve(body, plan), strict=True):
        assert route.failure is Reason.DNS_ERROR, (junk, count)


def test_the_resolvers_of_this_machine_are_addresses() -> None:
    try:
        servers = system_servers()
    except GateError as error:
        assert "dns.servers" in str(error)
    else:
        assert all(ip_address(host) and port == 53 for host, port in servers)


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        ({"hook.test": HOST}, ["2001:db8::7", "203.0.113.7"]),
        ({"hook.test": "CNAME other.test", "other.test": "A 203.0.113.8"}, ["203.0.113.8"]),
        ({"hook.test": NXDOMAIN}, []),
        ({"hook.test": 'TXT "no address"'}, []),
        ({"hook.test": SERVFAIL}, None),
    ],
    ids=["both families", "an alias", "no such name", "no address", "not to be had"],
)
def test_the_addresses_of_a_host_that_is_no_mail_host(
    plan: dict[str, Value], found: list[str] | None
) -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[str] | None:
        ips = await ours.addresses("hook.test", soon())
        return None if ips is None else [str(ip) for ip in ips]

    assert serve(body, plan) == found


@pytest.mark.parametrize(
    ("root", "failure", "detail"),
    [
        (NXDOMAIN, Reason.DNS_ERROR, "no_public_names"),
        ("A 198.41.0.4", Reason.INVALID_DOMAIN, "nxdomain"),
        (SERVFAIL, Reason.INVALID_DOMAIN, "nxdomain"),
    ],
    ids=["denies everything", "knows the root", "says nothing of it"],
)
def test_a_resolver_that_is_cut_off_refuses_nobody(
    root: Value, failure: Reason, detail: str
) -> None:
    async def run() -> tuple[MailRoute, int]:
        async with FakeZones({"a.root-servers.net": root, "*.com": NXDOMAIN}) as zones:
            ours = Resolver(
                [zones.server], clock=time.monotonic, random=random.SystemRandom(), ipv6=False
            )
            try:
                route = await ours.route("typed.com", soon())
                await ours.route("another.com", soon())
                return route, zones.queries.count("a.root-servers.net A")
            finally:
                await ours.close()

    route, asked = asyncio.run(run())
    assert (route.failure, route.detail) == (failure, detail)
    if root is not SERVFAIL:
        assert asked == 1
