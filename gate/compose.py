"""How an answer is composed of what is known: flags, a suggestion, and what the site decides. Pure.

What it promises: an answer made from a mould says what one made anew would say. Composing takes
13 µs; answers that rest on a remembered verdict differ in little, so that those of one kind are
copied, and the rest of each is filled in: 3 µs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from msgspec import Struct, structs

from gate import flags as flagging
from gate import policy, typo
from gate.address import Address, Fault
from gate.answer import Answer, Cached, copied
from gate.budget import Clock
from gate.dns import MailRoute
from gate.flags import Flags
from gate.known import Known, of_mailbox
from gate.memory import Remembered
from gate.reason import Flag, Reason
from gate.settings import Site
from gate.smtp.provider import Provider
from gate.trace import NO_TRACE, Trace
from gate.verdict import Verdict

KINDS_MOST: Final = 1024
"""Kinds of remembered answers made ready: site, verdict, reply's code and flags tell them apart."""
ROUTES_MOST: Final = 4096
"""Routes whose hosts' names were understood."""


class RouteFacts(Struct, frozen=True, gc=False):
    """What the names of a route's hosts say."""

    mx_record: str | None
    provider: str | None
    disposable: bool


NO_FACTS: Final = RouteFacts(None, None, False)


class Composer:
    """Composes answers; holds what routes say, and the mould of each kind of remembered answer."""

    def __init__(
        self,
        *,
        route_of: Callable[[str], MailRoute | None],
        provider_of: Callable[[tuple[str, ...]], Provider | None],
        clock: Clock,
    ) -> None:
        """`route_of`: the remembered route of a domain. `clock` is the one that routes are on."""
        self._route_of = route_of
        self._provider_of = provider_of
        self._clock = clock
        self._facts_held: dict[str, tuple[MailRoute, RouteFacts]] = {}
        self._moulds: dict[tuple[object, ...], Answer] = {}

    def answer(
        self,
        check_id: str,
        email: str,
        parsed: Address | Fault,
        site: Site,
        known: Known,
        trace: Trace = NO_TRACE,
    ) -> Answer:
        """The answer to one check, composed anew. Its times are not filled in."""
        address = parsed if isinstance(parsed, Address) else None
        verdict, route = known.verdict, known.route
        flags = flagging.of(address) if address else None
        facts = self.facts(route) if route else NO_FACTS
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
            mx_record=known.mx_record or facts.mx_record,
            provider=facts.provider,
            smtp=known.smtp,
            reached_mx=known.reached_mx,
            cached=Cached(known.route_age, known.accept_all_age, known.mailbox_age),
            trace=trace,
        )

    def of_remembered(
        self,
        address: Address,
        site: Site,
        mark: bytes,
        remembered: Remembered,
        age: float,
        listed: Flag | None,
    ) -> Answer:
        """The answer that rests on a remembered verdict, but for who asked and when."""
        accepted = remembered.reason is Reason.ACCEPTED_EMAIL
        suggestion = None if accepted else typo.suggest(address)
        route_age, facts = self._way_to(address.domain)
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
        return answer

    def _cast(
        self, kind: tuple[object, ...], address: Address, site: Site, remembered: Remembered
    ) -> Answer:
        """What all answers of one kind have in common; nothing of the address that was the first,
        nor of its ages.
        """
        route = self._route_of(address.domain)
        known = of_mailbox(remembered, remembered.found_at, route, None)
        mould = self.answer("", "", address, site, known)
        mould.address = mould.did_you_mean = mould.mx_record = mould.provider = None
        mould.kind = object()
        if len(self._moulds) >= KINDS_MOST:
            self._moulds.clear()
        self._moulds[kind] = mould
        return mould

    def _way_to(self, domain: str) -> tuple[float | None, RouteFacts]:
        """The age of a domain's remembered route, and its facts.

        While one that was understood is fresh the resolver need not be asked for it: 0.6 µs.
        """
        now = self._clock()
        held = self._facts_held.get(domain)
        if held is None or now >= held[0].expires:
            route = self._route_of(domain)
            if route is None:
                return None, NO_FACTS
            held = route, self.facts(route)
        return max(0.0, now - held[0].found_at), held[1]

    def facts(self, route: MailRoute) -> RouteFacts:
        """What the names of a route's hosts say; worked out once for each route."""
        held = self._facts_held.get(route.domain)
        if held is not None and held[0] is route:
            return held[1]
        names = route.mx_names
        provider = self._provider_of(names)
        facts = RouteFacts(
            names[0] if names else None,
            provider.name if provider else None,
            flagging.disposable_by_mx(names),
        )
        if len(self._facts_held) >= ROUTES_MOST:
            self._facts_held.clear()
        self._facts_held[route.domain] = route, facts
        return facts


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
