"""One check: remembered facts first, then a flight that outlives its callers.

What it promises: `check` never raises for anything a stranger types, resolves to or answers, and
returns within the deadline it is given; what it is told too late, it says to whoever asks again.

The layers run in order of cost: syntax, the operator's lists, the remembered verdict, remembered
facts of the domain (all in this module), then a flight: DNS and the dialogue (`flight`, `learn`).
`compose` makes the answer of what is `known`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import structs

from gate import address as addresses
from gate import policy, typo
from gate.address import Address, Fault
from gate.answer import Answer
from gate.budget import AHEAD, DNS_LOOKUP, PREFETCH, Clock, Deadline
from gate.compose import Composer
from gate.dns import MailRoute, Resolver
from gate.flight import Flights, Hits, Promises, Watch
from gate.kept import KeptAnswers
from gate.known import Known, of_mailbox, said
from gate.memory import Memory
from gate.reason import Flag, Reason
from gate.settings import Site
from gate.smtp.probe import Prober
from gate.trace import NO_TRACE, Trace

log = logging.getLogger("gate.checker")

PROMISED: Final = frozenset({Reason.GREYLISTED, Reason.DEFERRED, Reason.TIMEOUT})
"""Verdicts after which the gate asks again by itself."""
IDS_AT_ONCE: Final = 64


class Checker:
    """Answers `check`; owns the flights."""

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
        promises: Promises | None = None,
        watch: Watch | None = None,
    ) -> None:
        """`refuses`: why the mail servers of a route may not be asked now; None: they may."""
        self.hits = Hits()
        self._resolver = resolver
        self._prober = prober
        self._memory = memory
        self._promises = promises
        self._clock = clock
        self._wall = wall
        self._answers = KeptAnswers(clock)
        self._composer = Composer(
            route_of=resolver.cached, provider_of=prober.provider_of, clock=clock
        )
        self._flights = Flights(
            resolver=resolver,
            prober=prober,
            memory=memory,
            control_of=control_of,
            refuses=refuses,
            clock=clock,
            wall=wall,
            hits=self.hits,
            promises=promises,
            watch=watch,
        )

    @property
    def flights(self) -> int:
        """Investigations under way."""
        return len(self._flights.under_way)

    # -- a check -----------------------------------------------------------------------------------

    async def check(
        self,
        email: str,
        *,
        site: Site,
        deadline: Deadline,
        max_age: float | None = None,
        trace: Trace | None = None,
    ) -> Answer:
        """The answer about `email` for `site`, before `deadline`.

        `max_age` (seconds): a remembered verdict older than this is looked up again. A fault of
        our own is `unknown/unexpected_error`; only cancellation of the caller passes through.
        """
        started = self._clock()
        trace = trace or NO_TRACE
        parsed = addresses.parse(email)
        check_id = _new_id()
        try:
            if isinstance(parsed, Fault):
                known = said(Reason.INVALID_EMAIL, self._wall())
            else:
                known = await self._known(parsed, site, deadline, max_age, trace)
                known = await self._promised(check_id, parsed, site, known, deadline)
        except Exception:
            log.exception("a check failed for a reason of our own")
            known = said(Reason.UNEXPECTED_ERROR, self._wall())
        answer = self._composer.answer(check_id, email, parsed, site, known, trace)
        answer.duration_ms = round((self._clock() - started) * 1000)
        answer.budget_ms = round((deadline.at - started) * 1000)
        self._answers.put(site.name, answer)
        return answer

    async def _known(
        self, address: Address, site: Site, deadline: Deadline, max_age: float | None, trace: Trace
    ) -> Known:
        """What the cheapest layer that knows anything says; at last a flight, or `timeout`."""
        trace.step("syntax")
        if policy.match(address.exact, address.domain, site.policy) is Flag.BLOCKED_BY_RULE:
            return said(Reason.PROBE_OFF, self._wall())
        found = await self._from_memory(address, site, max_age, trace)
        if found is not None:
            if found.remembered is not None:
                self.hits.mailbox += 1
            else:
                self.hits.accept_all += 1
            if found.stale:
                self._flights.depart(address, site, trace)
            return found
        self.hits.flight += 1
        flight = self._flights.depart(address, site, trace)
        await asyncio.wait({flight.task}, timeout=deadline.left())
        if flight.task.done() and not flight.task.cancelled():
            return flight.task.result()
        trace.step("deadline", "the flight goes on")
        late = said(Reason.TIMEOUT, self._wall())
        late.route = flight.route
        return late

    async def _from_memory(
        self, address: Address, site: Site, max_age: float | None, trace: Trace
    ) -> Known | None:
        """An answer without a dialogue, if the remembered facts give one."""
        now = self._wall()
        limit = float("inf") if max_age is None else max_age
        remembered = await self._memory.verdict(site.name, address)
        if remembered is not None and remembered.age(now) <= limit:
            trace.step("memory", remembered.reason)
            return of_mailbox(remembered, now, *self._cached_route(address.domain))
        domain = await self._memory.accept_all(address.domain)
        if domain is not None and domain.known and domain.age <= limit:
            trace.step("memory", Reason.ACCEPT_ALL)
            known = said(Reason.ACCEPT_ALL, now - domain.age)
            known.accept_all, known.stale = domain, not domain.fresh
            known.route, known.route_age = self._cached_route(address.domain)
            return known
        return None

    def _cached_route(self, domain: str) -> tuple[MailRoute | None, float | None]:
        route = self._resolver.cached(domain)
        return route, None if route is None else max(0.0, self._clock() - route.found_at)

    async def _promised(
        self, check_id: str, address: Address, site: Site, known: Known, deadline: Deadline
    ) -> Known:
        """What is to be said now: that somebody will ask again only if that is made sure of."""
        verdict = known.verdict
        if self._promises is None or verdict.reason not in PROMISED:
            return known
        if await self._promises.promise(check_id, address, site, verdict, deadline):
            return known
        return structs.replace(known, verdict=said(Reason.TIMEOUT, self._wall()).verdict)

    def recall(
        self, email: str, *, site: Site, budget_ms: int, max_age: float | None = None
    ) -> Answer | None:
        """The answer, if memory alone gives one at once; None: `check` has to be awaited.

        Not awaiting saves a remembered check a task and a turn of the event loop: half its time.
        """
        try:
            parsed = addresses.parse(email)
            if isinstance(parsed, Fault):
                known = said(Reason.INVALID_EMAIL, self._wall())
                answer = self._composer.answer(_new_id(), email, parsed, site, known)
            else:
                exact, now = parsed.exact, self._wall()
                mark = self._memory.mark(site.name, exact)
                remembered = self._memory.held(mark, now)
                if remembered is None:
                    return None
                age = remembered.age(now)
                listed = policy.match(exact, parsed.domain, site.policy)
                if (max_age is not None and age > max_age) or listed is Flag.BLOCKED_BY_RULE:
                    return None
                if not remembered.fresh(now):
                    self._flights.depart(parsed, site)
                answer = self._composer.of_remembered(parsed, site, mark, remembered, age, listed)
                answer.id, answer.email = _new_id(), email
                self.hits.mailbox += 1
        except Exception:
            log.exception("a remembered check failed for a reason of our own")
            return None
        answer.budget_ms = budget_ms
        self._answers.put(site.name, answer)
        return answer

    async def prefetch(self, domain: str, *, site: str = "") -> None:
        """Look the domain's route up and open a connection to its mail host, for the check to come.

        Nobody is connected to for a domain whose accept-all state will answer, or that is not to be
        probed; where and how often else, `Prober.warm` says.
        """
        parsed = addresses.parse(f"postmaster@{domain}")
        if not isinstance(parsed, Address) or typo.known_slip(parsed.domain) is not None:
            return
        route = await self._resolver.route(parsed.domain, Deadline.after(PREFETCH, self._clock))
        if route.failure is not None or self._flights.unwanted(route) is not None:
            return
        known = await self._memory.accept_all(parsed.domain)
        if known is None or not known.known:
            deadline = Deadline.after(AHEAD, self._clock)
            await self._prober.warm(parsed.domain, route, deadline=deadline, site=site)

    # -- an answer given earlier -------------------------------------------------------------------

    def find(self, check_id: str, site: Site) -> Answer | None:
        """The answer once given under `check_id`, if it is this site's and not yet forgotten."""
        return self._answers.find(check_id, site.name)

    async def latest(self, check_id: str, site: Site, *, wait: float) -> Answer | None:
        """Today's answer for an earlier check: the late verdict, if it has landed by now.

        Joins a flight that is still under way for up to `wait` seconds.
        """
        answer = self.find(check_id, site)
        if answer is None or not answer.verdict.final:
            answer = await self._recollected(check_id, site, answer)
        if answer is None or answer.address is None or answer.verdict.final:
            return answer
        newer = await self.newest(answer.address, site, wait=wait)
        if newer is None:
            return answer
        again = self._composer.answer(check_id, answer.email, answer.address, site, newer)
        again.duration_ms, again.budget_ms = answer.duration_ms, answer.budget_ms
        self._answers.put(site.name, again)
        return again

    async def _recollected(self, check_id: str, site: Site, answer: Answer | None) -> Answer | None:
        """The answer as promises have it: final by now, or given before a restart."""
        recalled = await self._promises.recall(check_id, site) if self._promises else None
        if recalled is None or (answer is not None and not recalled.verdict.final):
            return answer
        return self.late(check_id, recalled.address, site, Known(verdict=recalled.verdict))

    def late(self, check_id: str, address: Address, site: Site, known: Known) -> Answer:
        """The answer that an earlier check would be given now."""
        earlier = self.find(check_id, site)
        email = earlier.email if earlier is not None else address.reveal()
        answer = self._composer.answer(check_id, email, address, site, known)
        if earlier is not None:
            answer.duration_ms, answer.budget_ms = earlier.duration_ms, earlier.budget_ms
            self._answers.put(site.name, answer)
        return answer

    async def newest(self, address: Address, site: Site, *, wait: float) -> Known | None:
        """What is known of an address by now, without starting anything; None if nothing new."""
        flight = self._flights.to(address, site)
        if flight is not None:
            await asyncio.wait({flight.task}, timeout=wait)
            if flight.task.done() and not flight.task.cancelled():
                known = flight.task.result()
                return known if known.verdict.final else None
        return await self._from_memory(address, site, None, NO_TRACE)

    async def recheck(self, address: Address, site: Site) -> Known:
        """Ask about an address once more, with time for hosts that are slow on purpose."""
        flight = self._flights.depart(address, site, unhurried=True)
        await asyncio.wait({flight.task})
        if flight.task.cancelled():
            return said(Reason.TIMEOUT, self._wall())
        return flight.task.result()

    async def destination(self, domain: str) -> str:
        """What limits on asking a domain's mail hosts hang on."""
        route = await self._resolver.route(domain, Deadline.after(DNS_LOOKUP, self._clock))
        return self._composer.facts(route).provider or route.destination

    # -- the end -----------------------------------------------------------------------------------

    def forget(self, address: Address, site: Site) -> list[bytes]:
        """Drop what this process holds about an address of a site, the flight to it too, whose
        callers hear `timeout`. What its verdict is remembered under.
        """
        flight = self._flights.to(address, site)
        if flight is not None:
            flight.task.cancel()
        self._answers.forget(site.name, address.exact)
        return self._memory.marks(site.name, address.exact)

    async def close(self) -> None:
        """End every flight; nothing of them is remembered that was not proved."""
        await self._flights.close()


def _ids() -> Iterator[str]:
    """Unguessable ids; the system is asked for randomness once for many."""
    while True:
        digits = secrets.token_hex(16 * IDS_AT_ONCE)
        for at in range(0, len(digits), 32):
            yield "chk_" + digits[at : at + 32]


_new_id = _ids().__next__
