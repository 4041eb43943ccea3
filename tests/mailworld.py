"""A mail world for one test: real DNS and SMTP servers on loopback, and a checker in front of them.

The address guard stays switched on: hosts have public addresses, and a seam leads to the listeners.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from gate import metrics
from gate.answer import Answer
from gate.budget import Clock, Deadline
from gate.checker import Checker
from gate.dns import Resolver
from gate.egress import Dialer, Source
from gate.memory import Memory
from gate.probing import Probing
from gate.settings import Policy, Site
from gate.smtp.caps import PLACES_ONLY, Caps
from gate.smtp.probe import Prober
from gate.smtp.session import tls_context
from gate.smtp.throttle import Throttle
from gate.store import Store, open_store
from gate.testing import FakeClock, HostRules, MailHost, ScriptedMta, Seam
from gate.testing.zones import FakeZones
from gate.token import Keys
from gate.trace import Trace

SITE = Site(name="shop", site_key="pk_shop", secret_hash="0" * 64)
MASTER = bytes(range(32))
HELO, SENDER = "gate.example.com", "probe@example.com"


@dataclass(slots=True)
class World:
    """The running world. `wall` is the Unix time that memory sees; `check` asks the checker."""

    checker: Checker
    resolver: Resolver
    zones: FakeZones
    seam: Seam
    wall: FakeClock
    store: Store
    hosts: dict[str, MailHost | ScriptedMta] = field(default_factory=dict)

    async def check(
        self,
        email: str,
        seconds: float = 5.0,
        *,
        site: Site = SITE,
        max_age: float | None = None,
        trace: Trace | None = None,
    ) -> Answer:
        deadline = Deadline.after(seconds, time.monotonic)
        return await self.checker.check(
            email, site=site, deadline=deadline, max_age=max_age, trace=trace
        )

    async def reason(self, email: str, seconds: float = 5.0) -> str:
        return (await self.check(email, seconds)).verdict.reason.value

    def recipients(self, domain: str) -> list[str]:
        """Every RCPT that the domain's host was given, in order."""
        return [
            line
            for connection in self.hosts[domain].connections
            for line in connection.lines
            if line.startswith("RCPT")
        ]

    async def landed(self) -> None:
        """Wait until no flight is in the air."""
        while self.checker.flights:
            await next(iter(self.checker._flights.under_way.values())).task


@asynccontextmanager
async def mail_world(
    servers: Mapping[str, HostRules | MailHost | ScriptedMta],
    zones: Mapping[str, object] | None = None,
    *,
    store: Store | None = None,
    probing: Probing | bool = True,
    dialogues: int = 256,
    seam: Seam | None = None,
    caps: Caps | None = None,
    clock: Clock = time.monotonic,
    warm: int = 0,
) -> AsyncIterator[World]:
    """`servers` by the domain they serve; `zones`: names without a server (`FakeZones` values).

    `caps`: those of a practice world, if none are given; `clock` is the throttle's alone.
    `warm`: connections kept for the next question; with none, each question has one of its own.
    """
    decision = Probing(enabled=probing) if isinstance(probing, bool) else probing
    wall = FakeClock(1_700_000_000.0)
    seam = seam or Seam()
    plan: dict[str, object] = dict(zones or {})
    async with AsyncExitStack() as stack:
        hosts: dict[str, MailHost | ScriptedMta] = {}
        for number, (domain, server) in enumerate(servers.items(), 1):
            host = MailHost(server) if isinstance(server, HostRules) else server
            await stack.enter_async_context(host)
            hosts[domain] = host
            ip = f"8.8.4.{number}"
            seam.add(ip, host.address)
            plan.setdefault(domain, f"MX 10 mx.{domain}")
            plan.setdefault(f"mx.{domain}", f"A {ip}")
        fake = await stack.enter_async_context(FakeZones(plan))  # type: ignore[arg-type]
        resolver = Resolver(
            [fake.server], private_names=True, clock=time.monotonic, random=random.Random(1)
        )
        stack.push_async_callback(resolver.close)
        prober = Prober(
            dialer=Dialer(
                sources=[Source(None, HELO)], seam=seam, on_blocked=metrics.egress_blocked
            ),
            mail_from=SENDER,
            tls="when-required",
            throttle=Throttle(caps=caps or replace(PLACES_ONLY, dialogues=dialogues), clock=clock),
            clock=time.monotonic,
            random=random.Random(1),
            tls_context=tls_context(),
            warm=warm,
        )
        stack.push_async_callback(prober.close)
        if store is None:
            store = await open_store("memory:", wall=wall, capacity=1000)
            stack.push_async_callback(store.close)
        checker = Checker(
            resolver=resolver,
            prober=prober,
            memory=Memory(store, Keys(MASTER), wall),
            control_of=lambda domain: "k4w8zq2m6t0r5v9x1c3b",
            refuses=decision.refusal,
            clock=time.monotonic,
            wall=wall,
        )
        stack.push_async_callback(checker.close)
        yield World(checker, resolver, fake, seam, wall, store, hosts)


def site(name: str, **policy: object) -> Site:
    """A site with a policy of its own."""
    return Site(
        name=name,
        site_key=f"pk_{name}",
        secret_hash=name.encode().hex().ljust(64, "0"),
        policy=Policy(**policy),  # type: ignore[arg-type]
    )
