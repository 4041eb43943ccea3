"""What the tests of routes stand on: a good domain, a resolver for it, and time."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from gate.budget import Deadline
from gate.dns import MailRoute, Resolver
from gate.dns.ask import QUESTIONS
from gate.dns.optout import LABEL
from gate.testing.forgery import MX_GOOD
from gate.testing.zones import FakeZones, Value

T = TypeVar("T")

HOST = ["A 203.0.113.7", "AAAA 2001:db8::7"]
MAIL: Mapping[str, Value] = {"good.test": MX_GOOD, "mx.good.test": HOST}
SLACK = 0.3
"""Seconds by which a busy machine may be late; less than the waits that tests tell apart."""


def resolver(*zones: FakeZones, clock: Callable[[], float] = time.monotonic) -> Resolver:
    """One that may ask for .test and waits for IPv6, whatever machine it runs on."""
    return Resolver(
        [zone.server for zone in zones],
        private_names=True,
        clock=clock,
        random=random.SystemRandom(),
        ipv6=True,
    )


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds, time.monotonic)


def serve(
    body: Callable[[Resolver, FakeZones], Awaitable[T]],
    plan: Mapping[str, Value],
    *,
    clock: Callable[[], float] = time.monotonic,
    tcp: bool = True,
) -> T:
    """Run `body` with a resolver and the zones it asks."""

    async def run() -> T:
        async with FakeZones(plan, tcp=tcp) as zones:
            ours = resolver(zones, clock=clock)
            try:
                return await body(ours, zones)
            finally:
                await ours.close()

    return asyncio.run(run())


def of_route(queries: Iterable[str]) -> list[str]:
    """The questions but those that ask for the wish of a domain's owner."""
    return [query for query in queries if not query.startswith(LABEL)]


def find(plan: Mapping[str, Value], *, tcp: bool = True) -> tuple[MailRoute, list[str]]:
    """The route of good.test, and the questions it took; with the one beside it ten at most."""

    async def body(ours: Resolver, zones: FakeZones) -> tuple[MailRoute, list[str]]:
        route = await ours.route("good.test", soon())
        assert len(zones.queries) <= QUESTIONS
        return route, of_route(zones.queries)

    return serve(body, plan, tcp=tcp)


def closed_port() -> tuple[str, int]:
    """A port nobody listens on: bound and let go a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", int(probe.getsockname()[1])
