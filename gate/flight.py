"""Flights: the one running investigation of one address, whoever joins it, and its landing.

What it promises: one address has at most one flight a site, however many ask; a flight that its
callers left lands anyway, and what it proves is remembered; whoever was promised a better answer
is told of it; and no flight raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from msgspec import Struct

from gate import typo
from gate.address import Address
from gate.budget import DNS_SHARE, FLIGHT, RECHECK, RECHECK_STAGE, Clock, Deadline
from gate.dns import MailRoute, Resolver
from gate.known import Known, said
from gate.learn import learn
from gate.memory import Memory
from gate.reason import Reason
from gate.settings import Site
from gate.smtp.finding import Finding
from gate.smtp.probe import Prober
from gate.trace import NO_TRACE, Trace
from gate.verdict import Verdict

log = logging.getLogger("gate.checker")


class Recalled(NamedTuple):
    """What is known of an earlier check that was promised a better answer."""

    address: Address
    verdict: Verdict


class Promises(Protocol):
    """What becomes of a verdict that could not be had in time (gate/recheck.py)."""

    async def promise(
        self, check: str, address: Address, site: Site, verdict: Verdict, deadline: Deadline
    ) -> bool:
        """Ask again later; False if that could not be made sure of before the deadline."""

    def expected(self, address: Address, site: Site) -> bool:
        """Whether somebody waits for what a flight finds out."""

    async def landed(self, address: Address, site: Site, known: Known) -> None:
        """A flight found something out."""

    async def recall(self, check: str, site: Site) -> Recalled | None:
        """What is known by now of a check."""


class Watch(Protocol):
    """Who counts what flights do (gate/flightmetrics.py)."""

    def routed(self, seconds: float, route: MailRoute) -> None:
        """A route was looked up, in so many seconds."""

    def probed(self, seconds: float, finding: Finding) -> None:
        """The mail servers of a route were asked, or could not be."""


class Hits(Struct):
    """How many checks were answered by what; how many flights had their route remembered."""

    mailbox: int = 0
    accept_all: int = 0
    flight: int = 0
    route: int = 0


class Flight(Struct):
    """The one running investigation of one address. `trace` belongs to whoever started it.

    `stage`: seconds for each command of the dialogue, instead of the usual ones.
    """

    task: asyncio.Task[Known]
    trace: Trace
    stage: float | None = None
    route: MailRoute | None = None


class Flights:
    """Starts flights and knows those in the air: `under_way`, by site and exact address."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        prober: Prober,
        memory: Memory,
        control_of: Callable[[str], str],
        refuses: Callable[[MailRoute], str | None],
        clock: Clock,
        wall: Clock,
        hits: Hits,
        promises: Promises | None,
        watch: Watch | None,
    ) -> None:
        self.under_way: dict[tuple[str, str], Flight] = {}
        self._resolver = resolver
        self._prober = prober
        self._memory = memory
        self._control_of = control_of
        self._refuses = refuses
        self._clock = clock
        self._wall = wall
        self._hits = hits
        self._promises = promises
        self._watch = watch
        self._background: set[asyncio.Task[object]] = set()

    def to(self, address: Address, site: Site) -> Flight | None:
        """The flight to an address, if one is under way."""
        return self.under_way.get((site.name, address.exact))

    def depart(
        self, address: Address, site: Site, trace: Trace = NO_TRACE, *, unhurried: bool = False
    ) -> Flight:
        """The flight to an address: the one under way, or a new one."""
        key = (site.name, address.exact)
        flight = self.under_way.get(key)
        if flight is None:
            deadline = Deadline.after(RECHECK if unhurried else FLIGHT, self._clock)
            stage = RECHECK_STAGE if unhurried else None
            flight = Flight(asyncio.Future(), trace, stage)  # type: ignore[arg-type]
            flight.task = asyncio.create_task(self._fly(address, site, deadline, flight))
            self.under_way[key] = flight
            flight.task.add_done_callback(lambda _task: self.under_way.pop(key, None))
        return flight

    async def close(self) -> None:
        """End every flight; nothing of them is remembered that was not proved."""
        tasks = [flight.task for flight in self.under_way.values()] + list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def unwanted(self, route: MailRoute) -> str | None:
        """Why the mail servers of a route are left alone; None: they may be asked."""
        return "known_slip" if typo.known_slip(route.domain) else self._refuses(route)

    async def _fly(self, address: Address, site: Site, deadline: Deadline, flight: Flight) -> Known:
        """The whole investigation of one address; what it proves is remembered."""
        try:
            known = await self._investigate(address, site, deadline, flight)
        except Exception:
            log.exception("a flight failed for a reason of our own")
            known = said(Reason.UNEXPECTED_ERROR, self._wall())
        if self._promises is not None and self._promises.expected(address, site):
            task = asyncio.create_task(self._tell(self._promises, address, site, known))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return known

    async def _investigate(
        self, address: Address, site: Site, deadline: Deadline, flight: Flight
    ) -> Known:
        """The route, and what its mail servers say, if they may be asked."""
        started = self._clock()
        dns_deadline = deadline.cap(deadline.left() * DNS_SHARE)
        route = await self._resolver.route(address.domain, dns_deadline)
        flight.route = route
        leads = route.failure or ", ".join(route.mx_names)
        flight.trace.step("dns", f"{leads} ({route.detail})" if route.detail else leads)
        age = None if route.found_at >= started else started - route.found_at
        if age is not None:
            self._hits.route += 1
        elif self._watch is not None:
            self._watch.routed(self._clock() - started, route)
        if route.failure is not None:
            known = said(route.failure, self._wall())
        elif (why := self.unwanted(route)) is not None:
            flight.trace.step("probe", f"not asked: {why}")
            known = said(Reason.PROBE_OFF, self._wall())
        else:
            known = await self._probe(address, site, route, deadline, flight)
        known.route, known.route_age = route, age
        return known

    async def _probe(
        self, address: Address, site: Site, route: MailRoute, deadline: Deadline, flight: Flight
    ) -> Known:
        """What the mail servers of a route say of the address, and of a random one if need be."""
        before = await self._memory.accept_all(address.domain)
        control = None
        if before is None or before.may_ask:
            control = self._control_of(address.domain)
        begun = self._clock()
        finding = await self._prober.probe(
            address,
            route,
            control=control,
            deadline=deadline,
            trace=flight.trace,
            stage=flight.stage,
            site=site.name,
        )
        if self._watch is not None:
            self._watch.probed(self._clock() - begun, finding)
        known = await learn(finding, address, site, before, memory=self._memory, wall=self._wall)
        flight.trace.step("verdict", known.verdict.reason)
        return known

    async def _tell(self, promises: Promises, address: Address, site: Site, known: Known) -> None:
        """Let those who wait for a better answer have what a flight found out."""
        try:
            await promises.landed(address, site, known)
        except Exception:
            log.exception("what a flight found out could not be told")
