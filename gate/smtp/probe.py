"""`Prober`: asks a domain's mail hosts about one address, and says what that taught.

What it promises: `probe` never raises for what a peer does, ends by its deadline, and leaves no
connection behind but the ones that were told QUIT (QUIT_LINGER). Never more dialogues at once than
the throttle allows; a destination that refuses us is not even dialled while it rests.

Rules
  1. Addresses are vetted before anything is waited for: nobody queues for a host we never dial.
  2. The reply of the stage that refused decides; of the envelope, the answer to the real recipient.
  3. An answer that arrived before the time was up or the connection broke off still stands; after
     a breach of the protocol none does.
  4. A 250 of a provider that accepts everybody settles nothing.

Bugs: a destination is not known to be down before it was dialled again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random

from gate.address import Address
from gate.budget import SLOT_SHARE, Clock, Deadline
from gate.dns import MailRoute, MxHost
from gate.egress import Dialer, Exhausted, IPAddress, NoConnect, Source, Unroutable
from gate.reason import SCOPE_OF, Reason, Scope
from gate.smtp.classify import Echo, Outcome, classify, same_answer
from gate.smtp.dialog import Dialog, Stage, Tls
from gate.smtp.provider import PROVIDERS, Provider, provider_of
from gate.smtp.reply import Reply
from gate.smtp.session import Ending, Session
from gate.smtp.throttle import Throttle, Ticket
from gate.smtp.walk import Walk, connect_seconds
from gate.trace import Trace

_UNKNOWN_COMMAND = frozenset({500, 502, 504})
"""EHLO answered so is followed by HELO: no refusal yet (RFC 5321, section 3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What probing one address taught.

    `mailbox`: the outcome of the real recipient, or of the stage that ended the talk; None only
    when no reply decides, and then `failure` says why. `control`: the outcome of the random
    recipient; None when it was not asked or not answered. `control_differs`: whether both were
    answered differently; None when that is not known. `destination`: what throttling and the
    memory of refusals hang on. `accepted_by_host`: some recipient was accepted in this dialogue.
    """

    mailbox: Outcome | None = None
    control: Outcome | None = None
    control_differs: bool | None = None
    failure: Reason | None = None
    stage: Stage | None = None
    mx_record: str | None = None
    ip: IPAddress | None = None
    destination: str
    accepted_by_host: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A host with those of its addresses that may be dialled."""

    name: str
    preference: int
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of each host, and as whom. `stage`: seconds for each command, if not the
    usual ones.
    """

    recipient: str
    control: str | None
    mail_from: str
    smtputf8: bool
    source: Source
    provider: Provider | None
    tls: Tls
    stage: float | None = None

    def echo(self, recipient: str, our_ip: str) -> Echo:
        """Our own words, as a reply may repeat them."""
        return Echo(recipient, self.mail_from, self.source.helo, our_ip)


@dataclass(slots=True, kw_only=True)
class Visit:
    """What one host taught."""

    outcome: Outcome
    stage: Stage
    ip: IPAddress | None = None
    control: Outcome | None = None
    control_differs: bool | None = None
    tls_demanded: bool = False


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
    ) -> None:
        """`tls`: the setting; `random` orders hosts of equal preference."""
        self._dialer = dialer
        self._mail_from = mail_from
        self._tls = tls
        self._throttle = throttle
        self._clock = clock
        self._random = random
        self._context = tls_context
        self._providers = providers
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._alive: set[Session] = set()

    def __repr__(self) -> str:
        return f"<Prober {len(self._alive)} connections, {self._throttle!r}>"

    async def probe(
        self,
        address: Address,
        route: MailRoute,
        *,
        control: str | None,
        deadline: Deadline,
        trace: Trace,
        stage: float | None = None,
    ) -> Finding:
        """Ask the hosts of `route` about `address`.

        `control`: the local part of a recipient that cannot exist, to be asked in the same write;
        None if the domain's accept-all state is known. `stage`: seconds for the greeting and for
        each command, where nobody stands before the form.
        """
        provider = provider_of(route.mx_names, self._providers)
        destination = provider.name if provider else route.destination
        source = self._dialer.source_for(destination)
        identity = f"{destination} {source.helo} {source.ip}"
        try:
            if provider and provider.accepts == "opaque":
                raise _Unasked(Reason.PROVIDER_OPAQUE)
            targets = self._targets(route.hosts, trace)
            if self._throttle.resting(identity, address.domain):
                raise _Unasked(Reason.PROBE_BLOCKED)
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
            async with self._slot(destination, deadline):
                if self._throttle.resting(identity, address.domain):  # since we began to wait
                    raise _Unasked(Reason.PROBE_BLOCKED)
                finding = await self._walk(targets, question, destination, deadline, trace)
        except _Unasked as unasked:
            trace.step("probe", f"not asked: {unasked.reason}")
            return Finding(failure=unasked.reason, destination=destination)
        self._learn(identity, address.domain, finding)
        return finding

    async def close(self) -> None:
        """Drop the connections that still wait for the end of their QUIT."""
        sessions = tuple(self._alive)
        for session in sessions:
            session.abort()
        for session in sessions:
            await session.gone()

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
        raise _Unasked(Reason.DNS_ERROR if failed else Reason.MX_UNROUTABLE)

    @asynccontextmanager
    async def _slot(self, destination: str, deadline: Deadline) -> AsyncIterator[None]:
        """A place at the destination, waited for in turn, for a share of the time."""
        ticket = self._throttle.ask(destination)
        try:
            if not ticket.granted:
                await self._turn(ticket, deadline.left() * SLOT_SHARE)
            yield
        finally:
            for granted in self._throttle.leave(ticket):
                turn = self._waiting.get(granted.number)
                if turn is not None and not turn.done():
                    turn.set_result(None)

    async def _turn(self, ticket: Ticket, seconds: float) -> None:
        turn = self._waiting[ticket.number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            raise _Unasked(Reason.THROTTLED) from None
        finally:
            del self._waiting[ticket.number]

    async def _walk(
        self,
        targets: list[Target],
        question: Question,
        destination: str,
        deadline: Deadline,
        trace: Trace,
    ) -> Finding:
        walk = Walk(targets, shuffle=self._random.shuffle)
        visits: dict[str, Visit] = {}
        while not deadline.passed and (target := walk.next()):
            visit = visits[target.name] = await self._visit(target, question, deadline, trace)
            walk.told(target, visit.outcome, visit.stage)
        if walk.result is None:
            raise _Unasked(Reason.TIMEOUT)
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
            destination=destination,
            accepted_by_host=_accepted(outcome) or _accepted(visit.control),
        )

    async def _visit(
        self, target: Target, question: Question, deadline: Deadline, trace: Trace
    ) -> Visit:
        """Talk to one host; once more, in plain, if TLS failed that nobody insists on."""
        visit = await self._talk(target, question, deadline, trace)
        insists = visit.tls_demanded or question.tls == self._tls
        if visit.outcome.reason is Reason.TLS_FAILED and not insists and not deadline.passed:
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
            return Visit(outcome=_unanswered(_unconnected(error)), stage=Stage.CONNECT)
        except BaseException:
            session.drop()
            raise
        trace.step("connect", f"{target.name} [{ip}]")
        ending = await session.run(target.name)
        if trace.steps:  # a trace that is off has none; the texts need not be made for it
            for said in dialog.exchanges:
                trace.exchange(said.stage, said.command, f"{said.reply.code} {said.reply.text}")
        visit = read(dialog, ending, question, session.our_ip)
        visit.ip = ip
        return visit

    def _learn(self, identity: str, domain: str, finding: Finding) -> None:
        """Let whoever refuses us rest; end that when it speaks of a recipient."""
        outcome = finding.mailbox
        if outcome is None:
            return
        if outcome.reason is Reason.PROBE_BLOCKED:
            named = finding.stage is Stage.RCPT
            self._throttle.blocked(identity, domain if named else "")
        elif finding.stage is Stage.RCPT and outcome.scope is Scope.RECIPIENT:
            self._throttle.welcomed(identity, domain)


class _Unasked(Exception):
    """Nobody is asked, for `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def read(dialog: Dialog, ending: Ending, question: Question, our_ip: str) -> Visit:
    """What a dialogue that ended so has taught. Pure."""
    if ending is Ending.LOOP:
        return Visit(outcome=_unanswered(Reason.MX_UNROUTABLE), stage=Stage.GREETING)
    if ending is Ending.BROKEN:
        return Visit(outcome=_unanswered(Reason.PROTOCOL_ERROR), stage=dialog.stage)
    if dialog.tls_required or ending in (Ending.TLS_FAILED, Ending.TLS_TIMED_OUT):
        # The host demanded it if it was brought up behind the envelope's first command; a
        # handshake that hung has cost so much time that it is not to be tried in plain.
        demanded = any(said.stage is Stage.MAIL for said in dialog.exchanges)
        return Visit(
            outcome=_unanswered(Reason.TLS_FAILED),
            stage=dialog.stage,
            tls_demanded=demanded or ending is Ending.TLS_TIMED_OUT,
        )
    if dialog.smtputf8_missing:
        return Visit(outcome=_unanswered(Reason.UNCONFIRMED), stage=Stage.EHLO)
    stage, reply = _decisive(dialog)
    if reply is None:
        silent = ending is Ending.TIMED_OUT
        reason = Reason.TIMEOUT if silent else Reason.NO_CONNECT
        return Visit(outcome=_unanswered(reason), stage=stage)
    name = question.provider.name if question.provider else None
    echo = question.echo(question.recipient, our_ip)
    outcome = _worth(classify(stage, reply, provider=name, echo=echo), question.provider)
    answer = dialog.reply_to(Stage.CONTROL)
    if stage is not Stage.RCPT or answer is None or question.control is None:
        return Visit(outcome=outcome, stage=stage)
    control_echo = question.echo(question.control, our_ip)
    return Visit(
        outcome=outcome,
        stage=stage,
        control=classify(Stage.CONTROL, answer, provider=name, echo=control_echo),
        control_differs=not same_answer(reply, answer, echo, control_echo),
    )


def _decisive(dialog: Dialog) -> tuple[Stage, Reply | None]:
    """The reply that settles it: the first refusal, else the answer to the real recipient."""
    hello = Stage.HELO if dialog.reply_to(Stage.HELO) else Stage.EHLO
    for stage in (Stage.GREETING, hello, Stage.MAIL, Stage.RCPT):
        reply = dialog.reply_to(stage)
        if reply is None or (stage is Stage.EHLO and reply.code in _UNKNOWN_COMMAND):
            continue
        if stage is Stage.RCPT or reply.code >= 400:
            return stage, reply
    return dialog.stage, None


def _worth(outcome: Outcome, provider: Provider | None) -> Outcome:
    """What an acceptance is worth where everybody is accepted: nothing."""
    if (
        outcome.reason is Reason.ACCEPTED_EMAIL
        and provider is not None
        and provider.accepts == "opaque_if_accepted"
    ):
        return replace(outcome, reason=Reason.PROVIDER_OPAQUE, scope=Scope.DOMAIN)
    return outcome


def _unanswered(reason: Reason) -> Outcome:
    """An outcome that rests on no reply."""
    return Outcome(reason, SCOPE_OF[reason])


def _unconnected(error: NoConnect | Unroutable) -> Reason:
    if isinstance(error, Exhausted):
        return Reason.THROTTLED
    return Reason.NO_CONNECT if isinstance(error, NoConnect) else Reason.MX_UNROUTABLE


def _accepted(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.reason is Reason.ACCEPTED_EMAIL
