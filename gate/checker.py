"""One check: remembered facts first, then a flight that outlives its callers.

What it promises: `check` never raises for anything a stranger types, resolves to or answers; it
returns within the deadline it is given; and a flight that its callers left lands anyway and is
remembered. One address has at most one flight a site, however many ask.

The layers run in order of cost: syntax, the operator's lists, flags, remembered verdict,
remembered facts of the domain, then DNS and the dialogue.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

from msgspec import Struct, structs

from gate import address as addresses
from gate import flags as flagging
from gate import policy, typo
from gate.address import Address, Fault
from gate.answer import Answer, Cached, copied
from gate.budget import (
    AHEAD,
    DNS_LOOKUP,
    DNS_SHARE,
    FLIGHT,
    PREFETCH,
    RECHECK,
    RECHECK_STAGE,
    Clock,
    Deadline,
)
from gate.dns import MailRoute, Resolver
from gate.flags import Flags
from gate.kept import KeptAnswers
from gate.memory import AcceptAll, Memory, Remembered
from gate.reason import Flag, Reason, Result
from gate.settings import Site
from gate.smtp.finding import Finding
from gate.smtp.probe import Prober
from gate.trace import Trace
from gate.verdict import Evidence, Verdict, judge, mailbox_exists

log = logging.getLogger("gate.checker")

PROMISED = frozenset({Reason.GREYLISTED, Reason.DEFERRED, Reason.TIMEOUT})
"""Verdicts after which the gate asks again by itself."""
KINDS_MOST = 1024
"""Kinds of remembered answers made ready: site, verdict, reply's code and flags tell them apart."""
IDS_AT_ONCE = 64
ROUTES_MOST = 4096
"""Routes whose hosts' names were understood."""


@dataclass(slots=True, kw_only=True)
class Known:
    """What one check, or the flight it joined, has learned so far.

    Ages are in seconds. `stale`: remembered, and past the age at which a new flight starts behind.
    """

    verdict: Verdict
    route: MailRoute | None = None
    route_age: float | None = None
    finding: Finding | None = None
    accept_all: AcceptAll | None = None
    remembered: Remembered | None = None
    mailbox_age: float | None = None
    stale: bool = False


class RouteFacts(Struct, frozen=True, gc=False):
    """What the names of a route's hosts say."""

    mx_record: str | None
    provider: str | None
    disposable: bool


NO_FACTS = RouteFacts(None, None, False)
NO_TRACE = Trace(lambda: 0.0, on=False)


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
    """Who counts what flights do (gate/metrics.py)."""

    def routed(self, seconds: float, route: MailRoute) -> None:
        """A route was looked up, in so many seconds."""

    def probed(self, seconds: float, finding: Finding) -> None:
        """The mail servers of a route were asked, or could not be."""


@dataclass(slots=True)
class Hits:
    """How many checks were answered by what; how many flights had their route remembered."""

    mailbox: int = 0
    accept_all: int = 0
    flight: int = 0
    route: int = 0


@dataclass(slots=True)
class Flight:
    """The one running investigation of one address. `trace` belongs to whoever started it.

    `stage`: seconds for each command of the dialogue, instead of the usual ones.
    """

    task: asyncio.Task[Known]
    trace: Trace
    stage: float | None = None
    route: MailRoute | None = field(default=None)


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
        self._resolver = resolver
        self._prober = prober
        self._memory = memory
        self._control_of = control_of
        self._refuses = refuses
        self._watch = watch
        self.hits = Hits()
        self._promises = promises
        self._clock = clock
        self._wall = wall
        self._flights: dict[tuple[str, str], Flight] = {}
        self._facts_held: dict[str, tuple[MailRoute, RouteFacts]] = {}
        self._background: set[asyncio.Task[object]] = set()
        self._answers = KeptAnswers(clock)
        self._moulds: dict[tuple[object, ...], Answer] = {}

    @property
    def flights(self) -> int:
        """Investigations under way."""
        return len(self._flights)

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
        trace = trace or Trace(self._clock, on=False)
        parsed = addresses.parse(email)
        check_id = _new_id()
        try:
            if isinstance(parsed, Fault):
                known = self._said(Reason.INVALID_EMAIL)
            else:
                known = await self._known(parsed, site, deadline, max_age, trace)
                known = await self._promised(check_id, parsed, site, known, deadline)
        except Exception:
            log.exception("a check failed for a reason of our own")
            known = self._said(Reason.UNEXPECTED_ERROR)
        answer = self._answer(check_id, email, parsed, site, known, trace)
        answer.duration_ms = round((self._clock() - started) * 1000)
        answer.budget_ms = round((deadline.at - started) * 1000)
        self._answers.put(site.name, answer)
        return answer

    def recall(
        self, email: str, *, site: Site, budget_ms: int, max_age: float | None = None
    ) -> Answer | None:
        """The answer, if memory alone gives one at once; None: `check` has to be awaited.

        Not awaiting saves a remembered check a task and a turn of the event loop: half its time.
        """
        try:
            parsed = addresses.parse(email)
            if isinstance(parsed, Fault):
                known = self._said(Reason.INVALID_EMAIL)
                answer = self._answer(_new_id(), email, parsed, site, known, NO_TRACE)
            else:
                recalled = self._recalled(parsed, site, max_age)
                if recalled is None:
                    return None
                answer = recalled
                answer.id, answer.email = _new_id(), email
        except Exception:
            log.exception("a remembered check failed for a reason of our own")
            return None
        answer.budget_ms = budget_ms
        self._answers.put(site.name, answer)
        return answer

    def _recalled(self, address: Address, site: Site, max_age: float | None) -> Answer | None:
        """The answer that rests on a remembered verdict, but for who asked and when."""
        exact, domain, now = address.exact, address.domain, self._wall()
        mark = self._memory.mark(site.name, exact)
        remembered = self._memory.held(mark, now)
        if remembered is None:
            return None
        age = remembered.age(now)
        listed = policy.match(exact, domain, site.policy)
        if (max_age is not None and age > max_age) or listed is Flag.BLOCKED_BY_RULE:
            return None
        if not remembered.fresh(now):
            self._depart(address, site, NO_TRACE)
        accepted = remembered.reason is Reason.ACCEPTED_EMAIL
        suggestion = None if accepted else typo.suggest(address)
        route_age, facts = self._way_to(domain)
        mx_record = remembered.mx_record or facts.mx_record
        kind = (
            site.name,
            listed,
            remembered.reason,
            remembered.code,
            remembered.enhanced,
            mx_record is None,
            suggestion is None,
            flagging.of(address),
            facts.disposable,
        )
        mould = self._moulds.get(kind)
        if mould is None:
            mould = self._cast(kind, address, site, remembered)
        answer: Answer = copied(mould)
        answer.address, answer.mark, answer.did_you_mean = address, mark, suggestion
        answer.verdict = Verdict(remembered.reason, True, remembered.found_at)
        answer.mx_record, answer.provider = mx_record, facts.provider
        answer.cached = Cached(route_age, age if accepted else None, age)
        self.hits.mailbox += 1
        return answer

    def _cast(
        self, kind: tuple[object, ...], address: Address, site: Site, remembered: Remembered
    ) -> Answer:
        """What all answers of one kind have in common; nothing of the address that was the first.

        To copy it and fill in the rest takes 3 µs, to make each answer anew took 13.
        """
        known = self._of_mailbox(address, remembered, self._wall())
        mould = self._answer("", "", address, site, known, NO_TRACE)
        mould.address = mould.did_you_mean = mould.mx_record = mould.provider = None
        mould.kind = object()
        if len(self._moulds) >= KINDS_MOST:
            self._moulds.clear()
        self._moulds[kind] = mould
        return mould

    async def prefetch(self, domain: str, *, site: str = "") -> None:
        """Look the domain's route up and open a connection to its mail host, for the check to come.

        Nobody is connected to for a domain whose accept-all state will answer, or that is not to be
        probed; where and how often else, `Prober.warm` says.
        """
        parsed = addresses.parse(f"postmaster@{domain}")
        if not isinstance(parsed, Address) or typo.known_slip(parsed.domain) is not None:
            return
        route = await self._resolver.route(parsed.domain, Deadline.after(PREFETCH, self._clock))
        if route.failure is not None or self._unwanted(route) is not None:
            return
        known = await self._memory.accept_all(parsed.domain)
        if known is None or not known.known:
            deadline = Deadline.after(AHEAD, self._clock)
            await self._prober.warm(parsed.domain, route, deadline=deadline, site=site)

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
        again = self._answer(
            check_id, answer.email, answer.address, site, newer, Trace(self._clock, on=False)
        )
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
        answer = self._answer(check_id, email, address, site, known, NO_TRACE)
        if earlier is not None:
            answer.duration_ms, answer.budget_ms = earlier.duration_ms, earlier.budget_ms
            self._answers.put(site.name, answer)
        return answer

    async def recheck(self, address: Address, site: Site) -> Known:
        """Ask about an address once more, with time for hosts that are slow on purpose."""
        flight = self._depart(address, site, NO_TRACE, unhurried=True)
        await asyncio.wait({flight.task})
        return self._said(Reason.TIMEOUT) if flight.task.cancelled() else flight.task.result()

    async def destination(self, domain: str) -> str:
        """What limits on asking a domain's mail hosts hang on."""
        route = await self._resolver.route(domain, Deadline.after(DNS_LOOKUP, self._clock))
        return self._facts(route).provider or route.destination

    def forget(self, address: Address, site: Site) -> list[bytes]:
        """Drop what this process holds about an address of a site, the flight to it too, whose
        callers hear `timeout`. What its verdict is remembered under.
        """
        flight = self._flights.get((site.name, address.exact))
        if flight is not None:
            flight.task.cancel()
        self._answers.forget(site.name, address.exact)
        return self._memory.marks(site.name, address.exact)

    async def newest(self, address: Address, site: Site, *, wait: float) -> Known | None:
        """What is known of an address by now, without starting anything; None if nothing new."""
        flight = self._flights.get((site.name, address.exact))
        if flight is not None:
            await asyncio.wait({flight.task}, timeout=wait)
            if flight.task.done() and not flight.task.cancelled():
                known = flight.task.result()
                return known if known.verdict.final else None
        return await self._from_memory(address, site, None, Trace(self._clock, on=False))

    async def close(self) -> None:
        """End every flight; nothing of them is remembered that was not proved."""
        tasks = [flight.task for flight in self._flights.values()] + list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _promised(
        self, check_id: str, address: Address, site: Site, known: Known, deadline: Deadline
    ) -> Known:
        """What is to be said now: that somebody will ask again only if that is made sure of."""
        verdict = known.verdict
        if self._promises is None or verdict.reason not in PROMISED:
            return known
        if await self._promises.promise(check_id, address, site, verdict, deadline):
            return known
        return replace(known, verdict=self._said(Reason.TIMEOUT).verdict)

    # -- layers, in order of cost ------------------------------------------------------------------

    async def _known(
        self, address: Address, site: Site, deadline: Deadline, max_age: float | None, trace: Trace
    ) -> Known:
        trace.step("syntax")
        if policy.match(address.exact, address.domain, site.policy) is Flag.BLOCKED_BY_RULE:
            return self._said(Reason.PROBE_OFF)
        found = await self._from_memory(address, site, max_age, trace)
        if found is not None:
            if found.remembered is not None:
                self.hits.mailbox += 1
            else:
                self.hits.accept_all += 1
            if found.stale:
                self._depart(address, site, trace)
            return found
        self.hits.flight += 1
        flight = self._depart(address, site, trace)
        await asyncio.wait({flight.task}, timeout=deadline.left())
        if flight.task.done() and not flight.task.cancelled():
            return flight.task.result()
        trace.step("deadline", "the flight goes on")
        late = self._said(Reason.TIMEOUT)
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
            return self._of_mailbox(address, remembered, now)
        domain = await self._memory.accept_all(address.domain)
        if domain is not None and domain.known and domain.age <= limit:
            trace.step("memory", Reason.ACCEPT_ALL)
            known = self._said(Reason.ACCEPT_ALL, now - domain.age)
            known.accept_all, known.stale = domain, not domain.fresh
            known.route, known.route_age = self._cached_route(address.domain)
            return known
        return None

    def _of_mailbox(self, address: Address, remembered: Remembered, now: float) -> Known:
        age = remembered.age(now)
        route, route_age = self._cached_route(address.domain)
        accepted = remembered.reason is Reason.ACCEPTED_EMAIL
        return Known(
            verdict=Verdict(remembered.reason, True, remembered.found_at),
            route=route,
            route_age=route_age,
            accept_all=AcceptAll(False, age) if accepted else None,
            remembered=remembered,
            mailbox_age=age,
            stale=not remembered.fresh(now),
        )

    def _cached_route(self, domain: str) -> tuple[MailRoute | None, float | None]:
        route = self._resolver.cached(domain)
        return route, None if route is None else max(0.0, self._clock() - route.found_at)

    def _way_to(self, domain: str) -> tuple[float | None, RouteFacts]:
        """The age of a domain's remembered route, and its facts.

        While one that was understood is fresh the resolver need not be asked for it: 0.6 µs.
        """
        now = self._clock()
        held = self._facts_held.get(domain)
        if held is None or now >= held[0].expires:
            route = self._resolver.cached(domain)
            if route is None:
                return None, NO_FACTS
            held = route, self._facts(route)
        return max(0.0, now - held[0].found_at), held[1]

    # -- flights -----------------------------------------------------------------------------------

    def _depart(
        self, address: Address, site: Site, trace: Trace, *, unhurried: bool = False
    ) -> Flight:
        """The flight of an address: the one under way, or a new one."""
        key = (site.name, address.exact)
        flight = self._flights.get(key)
        if flight is None:
            deadline = Deadline.after(RECHECK if unhurried else FLIGHT, self._clock)
            stage = RECHECK_STAGE if unhurried else None
            flight = Flight(asyncio.Future(), trace, stage)  # type: ignore[arg-type]
            flight.task = asyncio.create_task(self._fly(address, site, deadline, flight))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda _task: self._flights.pop(key, None))
        return flight

    async def _fly(self, address: Address, site: Site, deadline: Deadline, flight: Flight) -> Known:
        """The whole investigation of one address; what it proves is remembered."""
        try:
            known = await self._investigate(address, site, deadline, flight)
        except Exception:
            log.exception("a flight failed for a reason of our own")
            known = self._said(Reason.UNEXPECTED_ERROR)
        if self._promises is not None and self._promises.expected(address, site):
            task = asyncio.create_task(self._tell(self._promises, address, site, known))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return known

    async def _tell(self, promises: Promises, address: Address, site: Site, known: Known) -> None:
        """Let those who wait for a better answer have what a flight found out."""
        try:
            await promises.landed(address, site, known)
        except Exception:
            log.exception("what a flight found out could not be told")

    async def _investigate(
        self, address: Address, site: Site, deadline: Deadline, flight: Flight
    ) -> Known:
        started = self._clock()
        dns_deadline = deadline.cap(deadline.left() * DNS_SHARE)
        route = await self._resolver.route(address.domain, dns_deadline)
        flight.route = route
        leads = route.failure or ", ".join(route.mx_names)
        flight.trace.step("dns", f"{leads} ({route.detail})" if route.detail else leads)
        age = None if route.found_at >= started else started - route.found_at
        if age is not None:
            self.hits.route += 1
        elif self._watch is not None:
            self._watch.routed(self._clock() - started, route)
        if route.failure is not None:
            known = self._said(route.failure)
        elif (why := self._unwanted(route)) is not None:
            flight.trace.step("probe", f"not asked: {why}")
            known = self._said(Reason.PROBE_OFF)
        else:
            known = await self._probe(address, site, route, deadline, flight)
        known.route, known.route_age = route, age
        return known

    def _unwanted(self, route: MailRoute) -> str | None:
        """Why the mail servers of a route are left alone; None: they may be asked."""
        return "known_slip" if typo.known_slip(route.domain) else self._refuses(route)

    async def _probe(
        self, address: Address, site: Site, route: MailRoute, deadline: Deadline, flight: Flight
    ) -> Known:
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
        accept_all = await self._learn_domain(address, finding, before)
        evidence = Evidence(
            cause=finding.failure,
            mailbox=finding.mailbox,
            accept_all=accept_all.known if accept_all else None,
            control_differs=finding.control_differs,
            tells_apart=await self._memory.tells_apart(finding.destination),
        )
        verdict = judge(evidence, found_at=self._wall())
        verdict = await self._learn_mailbox(address, site, verdict, finding)
        flight.trace.step("verdict", verdict.reason)
        return Known(verdict=verdict, finding=finding, accept_all=accept_all)

    async def _learn_domain(
        self, address: Address, finding: Finding, before: AcceptAll | None
    ) -> AcceptAll | None:
        """Remember what the random recipient was answered, and that the host accepts people."""
        control = finding.control
        if finding.accepted_by_host and not (control and control.reason is Reason.ACCEPTED_EMAIL):
            await self._memory.keep_accepted(finding.destination)
        if control is None:
            if before is None or before.known is None:  # another flight may have asked since
                return await self._memory.accept_all(address.domain)
            return before
        known = _accepts_all(finding)
        # A deferred control is the same probe when it is asked again: greylisting answers both
        # recipients the same way, and only the second visit settles either.
        if known is not None or control.reason not in (Reason.GREYLISTED, Reason.DEFERRED):
            await self._memory.keep_accept_all(address.domain, known)
        return AcceptAll(known, 0.0)

    async def _learn_mailbox(
        self, address: Address, site: Site, verdict: Verdict, finding: Finding
    ) -> Verdict:
        """Remember a proof; a refusal that contradicts a good mailbox settles nothing yet."""
        earlier = await self._memory.verdict(site.name, address)
        contradicts = (
            verdict.result is Result.UNDELIVERABLE
            and earlier is not None
            and mailbox_exists(earlier.reason)
        )
        if contradicts:
            await self._memory.forget_verdict(site.name, address)
            return Verdict(Reason.UNCONFIRMED, True, verdict.found_at)
        reply = finding.mailbox.reply if finding.mailbox else None
        await self._memory.keep_verdict(
            site.name,
            address,
            Remembered(
                reason=verdict.reason,
                found_at=verdict.found_at,
                mx_record=finding.mx_record,
                code=reply.code if reply else None,
                enhanced=reply.enhanced if reply else None,
            ),
        )
        return verdict

    def _facts(self, route: MailRoute) -> RouteFacts:
        """What the names of a route's hosts say; worked out once for each route."""
        held = self._facts_held.get(route.domain)
        if held is not None and held[0] is route:
            return held[1]
        names = route.mx_names
        provider = self._prober.provider_of(names)
        facts = RouteFacts(
            names[0] if names else None,
            provider.name if provider else None,
            flagging.disposable_by_mx(names),
        )
        if len(self._facts_held) >= ROUTES_MOST:
            self._facts_held.clear()
        self._facts_held[route.domain] = route, facts
        return facts

    # -- answers -----------------------------------------------------------------------------------

    def _said(self, reason: Reason, found_at: float | None = None) -> Known:
        """A verdict that rests on `reason` alone."""
        now = self._wall() if found_at is None else found_at
        return Known(verdict=judge(Evidence(cause=reason), found_at=now))

    def _answer(
        self,
        check_id: str,
        email: str,
        parsed: Address | Fault,
        site: Site,
        known: Known,
        trace: Trace,
    ) -> Answer:
        address = parsed if isinstance(parsed, Address) else None
        verdict, route = known.verdict, known.route
        flags = flagging.of(address) if address else None
        facts = self._facts(route) if route else NO_FACTS
        if flags and not flags.disposable and facts.disposable:
            flags = structs.replace(flags, disposable=True)
        suggestion = None
        if address is not None and verdict.reason is not Reason.ACCEPTED_EMAIL:
            suggestion = typo.suggest(address)
        listed = None
        if address is not None:
            listed = policy.match(address.exact, address.domain, site.policy)
        decision = policy.decide(
            reason=verdict.reason,
            result=verdict.result,
            flags=_flag_set(flags, suggestion),
            policy=site.policy,
            listed=listed,
            observe=site.mode == "observe",
        )
        return Answer(
            id=check_id,
            email=email,
            address=address,
            fault=parsed if isinstance(parsed, Fault) else None,
            verdict=verdict,
            decision=decision,
            flags=flags,
            did_you_mean=suggestion,
            accept_all=known.accept_all.known if known.accept_all else None,
            mx_record=_mx_record(known) or facts.mx_record,
            provider=facts.provider,
            smtp=_smtp(known),
            reached_mx=_reached(known),
            cached=Cached(
                mx=known.route_age,
                accept_all=_remembered_age(known),
                mailbox=known.mailbox_age,
            ),
            trace=trace,
        )


def _ids() -> Iterator[str]:
    """Unguessable ids; the system is asked for randomness once for many."""
    while True:
        digits = secrets.token_hex(16 * IDS_AT_ONCE)
        for at in range(0, len(digits), 32):
            yield "chk_" + digits[at : at + 32]


_new_id = _ids().__next__


def _accepts_all(finding: Finding) -> bool | None:
    """What the random recipient's answer says of the domain.

    A permanent refusal that is not about us separates it from an accept-all domain; a deferral or
    a refusal of ourselves settles nothing.
    """
    control = finding.control
    if control is None or control.reply is None:
        return None
    if control.reason is Reason.ACCEPTED_EMAIL:
        return True
    about_us = control.reason in (Reason.PROBE_BLOCKED, Reason.RELAY_DENIED)
    return None if about_us or control.reply.code < 500 else False


def _flag_set(flags: Flags | None, suggestion: str | None) -> frozenset[Flag]:
    if flags is None:
        return frozenset()
    return _raised(flags.disposable, suggestion is not None, flags.role, flags.relay, flags.free)


@lru_cache(maxsize=64)
def _raised(
    disposable: bool, typo: bool, role: bool, relay: bool, free: bool | None
) -> frozenset[Flag]:
    raised = {
        Flag.DISPOSABLE: disposable,
        Flag.POSSIBLE_TYPO: typo,
        Flag.ROLE: role,
        Flag.RELAY: relay,
        Flag.FREE: free,
    }
    return frozenset(flag for flag, up in raised.items() if up)


def _mx_record(known: Known) -> str | None:
    if known.finding is not None and known.finding.mx_record:
        return known.finding.mx_record
    if known.remembered is not None and known.remembered.mx_record:
        return known.remembered.mx_record
    return None


def _smtp(known: Known) -> tuple[str, int, str | None] | None:
    """Stage, code and enhanced code of the reply the verdict rests on."""
    if known.remembered is not None and known.remembered.code is not None:
        return "rcpt", known.remembered.code, known.remembered.enhanced
    finding = known.finding
    if finding is None or finding.mailbox is None or finding.mailbox.reply is None:
        return None
    reply = finding.mailbox.reply
    return str(finding.stage or "rcpt"), reply.code, reply.enhanced


def _reached(known: Known) -> bool | None:
    """Whether a mail server was talked to: None when none was tried."""
    if known.remembered is not None:
        return True
    return None if known.finding is None else known.finding.mailbox is not None


def _remembered_age(known: Known) -> float | None:
    """Age of the accept-all state; None if it is unknown, or was found in this very flight."""
    asked_now = known.finding is not None and known.finding.control is not None
    return None if known.accept_all is None or asked_now else known.accept_all.age
