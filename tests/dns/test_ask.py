"""Whom to ask, in what order; and the exchange on the event loop of production."""

from __future__ import annotations

import random
import time

import pytest
import uvloop

from gate.budget import DNS_SERVER_REST, DNS_SERVER_SLOW
from gate.dns import Resolver
from gate.dns.ask import Server, Upstream
from gate.reason import GateError
from gate.testing.zones import SERVFAIL, FakeZones, Truncated, Turns, Value
from tests.dns.ground import HOST, closed_port, soon

A, B, C = ("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)


def order(upstream: Upstream, now: float) -> list[int]:
    return [server.address[1] for server in upstream.candidates(now)]


def servers(upstream: Upstream) -> list[Server]:
    return upstream.candidates(0.0)


def test_resolvers_are_asked_in_the_order_of_the_settings() -> None:
    assert order(Upstream([A, B, C]), 0.0) == [1, 2, 3]


def test_no_resolver_at_all_is_a_mistake_of_ours() -> None:
    with pytest.raises(GateError, match=r"set dns\.servers"):
        Upstream([])


def test_a_slow_resolver_is_asked_last_for_a_while() -> None:
    upstream = Upstream([A, B, C])
    a, b, _ = servers(upstream)
    upstream.answered(b, [a], 0.0)
    assert order(upstream, 0.0) == [2, 3, 1]
    assert order(upstream, DNS_SERVER_SLOW) == [1, 2, 3]


def test_an_answer_makes_a_slow_resolver_quick_again() -> None:
    upstream = Upstream([A, B])
    a, b = servers(upstream)
    upstream.answered(b, [a], 0.0)
    upstream.answered(a, [], 1.0)
    assert order(upstream, 1.0) == [1, 2]


def test_a_refusing_resolver_rests_then_gets_one_question_at_a_time() -> None:
    upstream = Upstream([A, B])
    a, _ = servers(upstream)
    upstream.refused(a, 0.0)
    assert order(upstream, DNS_SERVER_REST / 2) == [2]
    assert order(upstream, DNS_SERVER_REST) == [1, 2], "the trial"
    assert order(upstream, DNS_SERVER_REST) == [2], "everybody else meanwhile"
    upstream.answered(a, [], DNS_SERVER_REST)
    assert order(upstream, DNS_SERVER_REST) == [1, 2]


def test_healthy_as_long_as_one_listens() -> None:
    upstream = Upstream([A, B])
    healthy = []
    for server in servers(upstream):
        healthy.append(upstream.healthy)
        upstream.refused(server, 0.0)
    assert [*healthy, upstream.healthy] == [True, True, False]
    assert order(upstream, 0.0) == []


def test_on_uvloop_too() -> None:
    """ICMP errors, TCP and closed sockets come in other ways there than from asyncio's own loop."""
    plan: dict[str, Value] = {
        "good.test": Turns(SERVFAIL, Truncated("MX 10 mx.good.test")),
        "mx.good.test": HOST,
    }

    async def body() -> list[str]:
        down = closed_port()
        async with FakeZones(plan) as zones:
            details = []
            for addresses in ([down], [down, zones.server], [down, zones.server]):
                ours = Resolver(
                    addresses, private_names=True, clock=time.monotonic, random=random.Random(1)
                )
                route = await ours.route("good.test", soon())
                details.append(route.detail or " ".join(route.mx_names))
                await ours.close()
            return details

    assert uvloop.run(body()) == ["resolver_down", "servfail", "mx.good.test"]
