"""`Prober`: asks a domain's mail hosts about one address, and says what that taught.

What it promises: `probe` never raises for what a peer does, ends by its deadline, and leaves no
connection behind but the ones that were told QUIT (QUIT_LINGER) or are kept for the next question
(WARM_IDLE). Never more dialogues at once than the throttle allows; a destination that refuses us is
not even dialled while it rests.

Addresses are vetted before anything is waited for: nobody queues for a host we never dial.

Bugs: a destination is not known to be down before it was dialled again.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from gate.address import Address
from gate.budget import Clock, Deadline
from gate.dns import MailRoute, MxHost
from gate.egress import Dialer, Source, Unroutable
from gate.reason import Reason, Scope
from gate.smtp.admission import Admission, Errand, Place, Unasked
from gate.smtp.caps import Caps, claims, open_most
from gate.smtp.classify import Outcome
from gate.smtp.dialog import Stage, Tls
from gate.smtp.finding import Finding, Question, Visit, accepted
from gate.smtp.pool import PARKED_MOST, Counts
from gate.smtp.provider import PROVIDERS, Provider, provider_of
from gate.smtp.session import Watch
from gate.smtp.sources import Sources
from gate.smtp.throttle import Throttle
from gate.smtp.visit import Target, Visitor, line_of
from gate.smtp.walk import Walk
from gate.smtp.warm import WarmConnections
from gate.trace import Trace

log = logging.getLogger("gate.smtp.probe")


class Prober:
    """Probes. One for the process: it owns the waiting for slots and the connections."""

    def __init__(
        self,
        *,
        dialer: Dialer,
        mail_from: str,
        tls: Tls,
        throttle: Throttle,
        clock: Clock,
        random: Random,
        tls_context: ssl.SSLContext,
        providers: Mapping[str, Provider] = PROVIDERS,
        sources: Sources | None = None,
        warm: int = PARKED_MOST,
        watch: Watch | None = None,
    ) -> None:
        """`tls`: the setting; `random` orders hosts of equal preference. `sources`: those of the
        dialer, unless what they have used up is to outlive the process. `warm`: connections that
        are kept for the next question, with all destinations together; 0 keeps none.
        """
        self._dialer = dialer
        self._mail_from = mail_from
        self._tls = tls
        self._admission = Admission(throttle)
        self._random = random
        self._providers = providers
        self._sources = sources or Sources(dialer.sources, clock=clock)
        self._warm = WarmConnections(clock=clock, most=warm, halted=throttle.halted)
        self._visitor = Visitor(
            dialer=dialer, tls=tls, context=tls_context, warm=self._warm, watch=watch or Watch()
        )

    def __repr__(self) -> str:
        return f"<Prober {self._warm!r}, {self._admission!r}>"

    @property
    def counts(self) -> Counts:
        """How often a question found an open connection, and so on; the very counters."""
        return self._warm.counts

    @property
    def connections(self) -> Mapping[str, int]:
        """How many are `open`, and how many of them `parked` for the next question."""
        return self._warm.connections

    def provider_of(self, mx_names: Sequence[str]) -> Provider | None:
        """Who runs the mail of a domain with these MX hosts, by the table in force."""
        return provider_of(mx_names, self._providers)

    async def probe(
        self,
        address: Address,
        route: MailRoute,
        *,
        control: str | None,
        deadline: Deadline,
        trace: Trace,
        stage: float | None = None,
        site: str = "",
    ) -> Finding:
        """Ask the hosts of `route` about `address`.

        `control`: the local part of a recipient that cannot exist, to be asked in the same write;
        None if the domain's accept-all state is known. `stage`: seconds for the greeting and for
        each command, where nobody stands before the form. `site`: the name of who wants to know.
        """
        provider = provider_of(route.mx_names, self._providers)
        destination = provider.name if provider else route.destination
        if provider and provider.control == "never":
            control = None
        try:
            targets, errand, source = self._prepared(
                address.domain,
                route,
                provider,
                recipients=2 if control else 1,
                site=site,
                trace=trace,
            )
            with await self._admission.place(errand, deadline) as place:
                if not self._sources.take(source):
                    raise Unasked(Reason.THROTTLED)
                question = self._question(
                    errand,
                    source,
                    recipient=address.reveal(),
                    control=f"{control}@{address.domain}" if control and place.control else None,
                    smtputf8=address.smtputf8,
                    stage=stage,
                )
                hosts = len(route.mx_names)
                finding = await self._walk(targets, hosts, question, place, deadline, trace)
                place.learn(finding)
        except Unasked as unasked:
            trace.step("probe", f"not asked: {unasked}")
            return Finding(failure=unasked.reason, destination=destination)
        self._learn_of(source, finding)
        return finding

    async def warm(self, domain: str, route: MailRoute, *, deadline: Deadline, site: str) -> None:
        """Open a connection for the question that is to be expected, up to EHLO, and keep it.

        Only where nothing is open yet, none was opened so lately in vain, and every limit leaves
        room for it: a dialogue that names nobody counts as one all the same.
        """
        provider = provider_of(route.mx_names, self._providers)
        if not self._warm.parks or (provider and (provider.dialogues == 1 or provider.spacing)):
            return  # the place, or the start, would be missing when it is needed
        trace = Trace(lambda: 0.0, on=False)
        try:
            targets, errand, source = self._prepared(
                domain, route, provider, recipients=0, site=site, trace=trace
            )
            question = self._question(errand, source)
            counted = open_most(claims(errand, Caps()))
            if not self._warm.wanted_ahead(line_of(question), counted):
                return
            with await self._admission.place(errand, deadline) as place:
                if not self._sources.take(source):
                    return
                target = Walk(targets, shuffle=self._random.shuffle).next()
                if target is None:
                    return
                visit = await self._visitor.open_ahead(target, question, place, deadline)
                if visit is None:
                    return
                finding = _finding(target, visit, visit.outcome, visit.stage, question.destination)
                place.learn(finding)
        except Unasked:
            return
        self._learn_of(source, finding)

    def let_go(self) -> None:
        """Say QUIT on every connection that is kept: nobody is to be asked for now."""
        self._warm.let_go()

    async def close(self) -> None:
        """Take leave where a connection is kept, and drop those that still wait for the end of
        their QUIT."""
        await self._warm.close()

    def _prepared(
        self,
        domain: str,
        route: MailRoute,
        provider: Provider | None,
        *,
        recipients: int,
        site: str,
        trace: Trace,
    ) -> tuple[list[Target], Errand, Source]:
        """Whom to ask, what that counts with, and from where. Raises `Unasked`."""
        _refuse_if_unwanted(provider)
        destination = provider.name if provider else route.destination
        targets = self._targets(route.hosts, trace)
        source = self._source(destination, targets)
        errand = Errand(
            destination=destination,
            identity=f"{destination} {source.helo} {source.name}",
            domain=domain,
            site=site,
            provider=provider,
            hosts=tuple(ip for target in targets for ip in target.addresses),
            recipients=recipients,
        )
        return targets, errand, source

    def _question(
        self,
        errand: Errand,
        source: Source,
        *,
        recipient: str | None = None,
        control: str | None = None,
        smtputf8: bool = False,
        stage: float | None = None,
    ) -> Question:
        """What to ask there; of nobody, to get acquainted only."""
        provider = errand.provider
        return Question(
            destination=errand.destination,
            recipient=recipient,
            control=control,
            mail_from=self._mail_from,
            smtputf8=smtputf8,
            source=source,
            provider=provider,
            tls=provider.tls if provider and provider.tls else self._tls,
            stage=stage,
        )

    def _source(self, destination: str, targets: Sequence[Target]) -> Source:
        """Which of our addresses the destination meets."""
        versions = {ip.version for target in targets for ip in target.addresses}
        source = self._sources.choose(destination, versions)
        if source is None:
            raise Unasked(Reason.THROTTLED)
        return source

    def _learn_of(self, source: Source, finding: Finding) -> None:
        """Let an address rest that several destinations refuse."""
        outcome = finding.mailbox
        if outcome is None:
            return
        if outcome.reason is Reason.PROBE_BLOCKED:
            if seconds := self._sources.blocked(source, finding.destination):
                log.warning(
                    "source address %s is refused by several destinations: it rests %d minutes",
                    source.name,
                    seconds / 60,
                )
        elif finding.stage is Stage.RCPT and outcome.scope is Scope.RECIPIENT:
            self._sources.welcomed(source, finding.destination)

    def _targets(self, hosts: Sequence[MxHost], trace: Trace) -> list[Target]:
        """The hosts that may be dialled. A look-up that failed is not the absence of an address."""
        targets, blocked = [], False
        for host in hosts:
            try:
                if host.addresses:
                    vetted = tuple(self._dialer.vet(host.addresses))
                    targets.append(Target(host.name, host.preference, vetted))
            except Unroutable as refusal:
                blocked = True
                trace.step("egress", f"{host.name}: {refusal}")
        if targets:
            return targets
        failed = not blocked or any(host.failed for host in hosts)
        raise Unasked(Reason.DNS_ERROR if failed else Reason.MX_UNROUTABLE)

    async def _walk(
        self,
        targets: list[Target],
        hosts: int,
        question: Question,
        place: Place,
        deadline: Deadline,
        trace: Trace,
    ) -> Finding:
        """Ask one target after the other. `hosts`: how many the domain has, dialled or not."""
        if deadline.passed:
            raise Unasked(Reason.TIMEOUT)
        taken = self._visitor.take(question, targets)
        first = taken.target if taken else None
        walk = Walk(targets, shuffle=self._random.shuffle, first=first)
        visits: dict[str, Visit] = {}
        while (taken or not deadline.passed) and (target := walk.next()):
            if visits and not place.again():
                break
            visit = await self._visitor.visit(target, question, place, deadline, trace, taken)
            visits[target.name], taken = visit, None
            walk.told(target, visit.outcome, visit.stage)
        if walk.result is None:
            raise Unasked(Reason.TIMEOUT)
        target, outcome, stage = walk.result
        if walk.unserved_by(hosts):
            outcome = replace(outcome, reason=Reason.NO_MX, scope=Scope.DOMAIN)
        return _finding(target, visits[target.name], outcome, stage, place.destination)


def _finding(
    target: Target, visit: Visit, outcome: Outcome, stage: Stage, destination: str
) -> Finding:
    """What a visit that counts has taught; `outcome` and `stage` are what the walk made of it."""
    decided = outcome.reply is not None
    return Finding(
        mailbox=outcome if decided else None,
        control=visit.control,
        control_differs=visit.control_differs,
        failure=None if decided else outcome.reason,
        stage=stage,
        mx_record=target.name,
        ip=visit.ip,
        destination=destination,
        accepted_by_host=accepted(outcome) or accepted(visit.control),
    )


def _refuse_if_unwanted(provider: Provider | None) -> None:
    """Nobody is asked where the answer means nothing, or where the operator wants nobody asked."""
    if provider and provider.probe == "never":
        raise Unasked(Reason.PROBE_OFF)
    if provider and provider.accepts == "opaque":
        raise Unasked(Reason.PROVIDER_OPAQUE)
