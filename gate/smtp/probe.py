"""`Prober`: asks a domain's mail hosts about one address, and says what that taught.

What it promises: `probe` never raises for what a peer does, ends by its deadline, and leaves no
connection behind but the ones that were told QUIT (QUIT_LINGER). Never more dialogues at once than
the throttle allows; a destination that refuses us is not even dialled while it rests.

Addresses are vetted before anything is waited for: nobody queues for a host we never dial.

Bugs: a destination is not known to be down before it was dialled again.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from gate.address import Address
from gate.budget import Clock, Deadline
from gate.dns import MailRoute, MxHost
from gate.egress import Dialer, Exhausted, IPAddress, NoConnect, Source, Unroutable
from gate.reason import Reason, Scope
from gate.smtp.admission import Admission, Errand, Place, Unasked
from gate.smtp.dialog import Dialog, Stage, Tls
from gate.smtp.finding import Finding, Question, Visit, accepted, read, unanswered
from gate.smtp.provider import PROVIDERS, Provider, provider_of
from gate.smtp.session import Session
from gate.smtp.sources import Sources
from gate.smtp.throttle import Throttle
from gate.smtp.walk import Walk, connect_seconds
from gate.trace import Trace

log = logging.getLogger("gate.smtp.probe")


@dataclass(frozen=True, slots=True)
class Target:
    """A host with those of its addresses that may be dialled."""

    name: str
    preference: int
    addresses: tuple[IPAddress, ...]


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
    ) -> None:
        """`tls`: the setting; `random` orders hosts of equal preference. `sources`: those of the
        dialer, unless what they have used up is to outlive the process.
        """
        self._dialer = dialer
        self._mail_from = mail_from
        self._tls = tls
        self._admission = Admission(throttle)
        self._clock = clock
        self._random = random
        self._context = tls_context
        self._providers = providers
        self._sources = sources or Sources(dialer.sources, clock=clock)
        self._alive: set[Session] = set()

    def __repr__(self) -> str:
        return f"<Prober {len(self._alive)} connections, {self._admission!r}>"

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
            _refuse_if_unwanted(provider)
            targets = self._targets(route.hosts, trace)
            source = self._source(destination, targets)
            errand = Errand(
                destination=destination,
                identity=f"{destination} {source.helo} {source.name}",
                domain=address.domain,
                site=site,
                provider=provider,
                hosts=tuple(ip for target in targets for ip in target.addresses),
                recipients=2 if control else 1,
            )
            question = Question(
                recipient=address.reveal(),
                control=f"{control}@{address.domain}" if control else None,
                mail_from=self._mail_from,
                smtputf8=address.smtputf8,
                source=source,
                provider=provider,
                tls=provider.tls if provider and provider.tls else self._tls,
                stage=stage,
            )
            async with self._admission.place(errand, deadline) as place:
                if not self._sources.take(source):
                    raise Unasked(Reason.THROTTLED)
                if not place.control:
                    question = replace(question, control=None)
                finding = await self._walk(targets, question, place, deadline, trace)
                place.learn(finding)
        except Unasked as unasked:
            trace.step("probe", f"not asked: {unasked.reason}")
            return Finding(failure=unasked.reason, destination=destination)
        self._learn_of(source, finding)
        return finding

    async def close(self) -> None:
        """Drop the connections that still wait for the end of their QUIT."""
        sessions = tuple(self._alive)
        for session in sessions:
            session.abort()
        for session in sessions:
            await session.gone()

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
        question: Question,
        place: Place,
        deadline: Deadline,
        trace: Trace,
    ) -> Finding:
        walk = Walk(targets, shuffle=self._random.shuffle)
        visits: dict[str, Visit] = {}
        while not deadline.passed and (target := walk.next()):
            if visits and not place.again():
                break
            visit = await self._visit(target, question, place, deadline, trace)
            visits[target.name] = visit
            walk.told(target, visit.outcome, visit.stage)
        if walk.result is None:
            raise Unasked(Reason.TIMEOUT)
        target, outcome, stage = walk.result
        visit = visits[target.name]
        decided = outcome.reply is not None
        return Finding(
            mailbox=outcome if decided else None,
            control=visit.control,
            control_differs=visit.control_differs,
            failure=None if decided else outcome.reason,
            stage=stage,
            mx_record=target.name,
            ip=visit.ip,
            destination=place.destination,
            accepted_by_host=accepted(outcome) or accepted(visit.control),
        )

    async def _visit(
        self,
        target: Target,
        question: Question,
        place: Place,
        deadline: Deadline,
        trace: Trace,
    ) -> Visit:
        """Talk to one host; once more, in plain, if TLS failed that nobody insists on."""
        visit = await self._talk(target, question, deadline, trace)
        insists = visit.tls_demanded or question.tls == self._tls
        failed = visit.outcome.reason is Reason.TLS_FAILED and not insists
        if failed and not deadline.passed and place.again():
            plain = replace(question, tls="never")
            visit = await self._talk(target, plain, deadline, trace)
        return visit

    async def _talk(
        self, target: Target, question: Question, deadline: Deadline, trace: Trace
    ) -> Visit:
        """One connection, one dialogue."""
        dialog = Dialog(
            helo=question.source.helo,
            mail_from=question.mail_from,
            recipient=question.recipient,
            control=question.control,
            tls=question.tls,
            smtputf8=question.smtputf8,
        )
        session = Session(
            dialog,
            helo=question.source.helo,
            deadline=deadline,
            context=self._context,
            alive=self._alive,
            stage=question.stage,
        )
        try:
            _, _, ip = await self._dialer.dial(
                lambda: session,
                target.addresses,
                source=question.source,
                deadline=deadline.cap(connect_seconds(deadline.left())),
            )
        except (NoConnect, Unroutable) as error:
            trace.step("connect", f"{target.name}: {error}")
            return Visit(outcome=unanswered(_unconnected(error)), stage=Stage.CONNECT)
        except BaseException:
            session.drop()
            raise
        trace.step("connect", f"{target.name} [{ip}]")
        ending = await session.run(target.name)
        if trace.steps:  # a trace that is off has none; the texts need not be made for it
            for said in dialog.exchanges:
                trace.exchange(said.stage, said.command, f"{said.reply.code} {said.reply.text}")
        # Behind a proxy, the host repeats an address that is not this machine's.
        seen = question.source.ip if question.source.proxy else None
        visit = read(dialog, ending, question, str(seen or session.our_ip))
        visit.ip = ip
        return visit


def _refuse_if_unwanted(provider: Provider | None) -> None:
    """Nobody is asked where the answer means nothing, or where the operator wants nobody asked."""
    if provider and provider.probe == "never":
        raise Unasked(Reason.PROBE_OFF)
    if provider and provider.accepts == "opaque":
        raise Unasked(Reason.PROVIDER_OPAQUE)


def _unconnected(error: NoConnect | Unroutable) -> Reason:
    if isinstance(error, Exhausted):
        return Reason.THROTTLED
    return Reason.NO_CONNECT if isinstance(error, NoConnect) else Reason.MX_UNROUTABLE
