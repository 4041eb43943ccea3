"""A visit: one mail host is asked one question, on an open connection if there is one.

What it promises: never raises for what a peer does, ends by the deadline, and leaves the connection
parked, or told QUIT, or dropped; whoever refused us, or put us off, is never kept on the line.

A warm connection that dies before its first reply is replaced once by a fresh one: a probe changes
nothing at the host, so that asking twice does no harm. A 421 in that place is such a death, for it
speaks of the connection (RFC 5321, section 3.8); the fresh one hears it in its greeting if it was
meant for us. After any other surprise nothing is replaced.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace

from msgspec import Struct

from gate.budget import Deadline
from gate.egress import Dialer, Exhausted, IPAddress, NoConnect, Unroutable
from gate.reason import GateError, Reason
from gate.smtp.admission import Place
from gate.smtp.dialog import Dialog, Stage, Tls
from gate.smtp.finding import Question, Visit, keeps_us, read, unanswered
from gate.smtp.pool import Line
from gate.smtp.session import Ending, Session, Watch
from gate.smtp.walk import connect_seconds
from gate.smtp.warm import WarmConnections
from gate.trace import Trace


class Target(Struct, frozen=True, gc=False):
    """A host with those of its addresses that may be dialled."""

    name: str
    preference: int
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """A warm connection that was taken for a question, and whom it leads to."""

    session: Session
    target: Target
    ip: IPAddress


class Visitor:
    """Asks hosts. One for the process: it owns the connections."""

    def __init__(
        self,
        *,
        dialer: Dialer,
        tls: Tls,
        context: ssl.SSLContext,
        warm: WarmConnections,
        watch: Watch,
    ) -> None:
        """`tls`: the setting, which no provider's row weakens."""
        self._watch = watch
        self._dialer = dialer
        self._tls = tls
        self._context = context
        self._warm = warm

    def take(self, question: Question, targets: Sequence[Target]) -> Taken | None:
        """An open connection to one of the most preferred hosts, for `visit`."""
        best = min(target.preference for target in targets)
        leads = {ip: t for t in targets if t.preference == best for ip in t.addresses}
        found = self._warm.take(line_of(question), leads)
        return Taken(found[0], leads[found[1]], found[1]) if found else None

    async def visit(
        self,
        target: Target,
        question: Question,
        place: Place,
        deadline: Deadline,
        trace: Trace,
        taken: Taken | None = None,
    ) -> Visit:
        """Talk to one host; once more, in plain, if TLS failed that nobody insists on."""
        if taken:
            taken.session.again = place.again
        visit = await self._ask_warm(taken, question, deadline, trace) if taken else None
        if visit is None and taken and not place.again():
            return Visit(outcome=unanswered(Reason.THROTTLED), stage=Stage.CONNECT)
        if visit is None:
            visit = await self._talk(target, question, place, deadline, trace)
        insists = visit.tls_demanded or question.tls == self._tls
        failed = visit.outcome.reason is Reason.TLS_FAILED and not insists
        if failed and not deadline.passed and place.again():
            plain = replace(question, tls="never")
            visit = await self._talk(target, plain, place, deadline, trace)
        return visit

    async def open_ahead(
        self, target: Target, question: Question, place: Place, deadline: Deadline
    ) -> Visit | None:
        """Get acquainted with one host and park the connection, before there is a recipient.

        None: it is parked, or was not wanted any more; else what the host said to us.
        """
        session = self._session(question, deadline)
        if not self._warm.admit_ahead(session, line_of(question), place.open_most):
            return None
        try:
            ip = await self._dial(session, target, question, deadline)
        except (NoConnect, Unroutable) as error:
            return Visit(outcome=unanswered(_unconnected(error)), stage=Stage.CONNECT)
        ending = await session.run(target.name)
        if session.resting:
            self._warm.park(session, ip)
            return None
        return self._concluded(session, ending, question, ip)

    async def _ask_warm(
        self, taken: Taken, question: Question, deadline: Deadline, trace: Trace
    ) -> Visit | None:
        """The question on a warm connection; None if that died before its first reply."""
        session, dialog = taken.session, taken.session.dialog
        trace.step("connect", f"{taken.target.name} [{taken.ip}] warm")
        try:
            session.ask(
                question.recipient or "",
                question.control,
                smtputf8=question.smtputf8,
                deadline=deadline,
                stage=question.stage,
            )
        except GateError:  # what cannot be written, as a fresh dialogue would find as well
            self._warm.leave(session)
            raise
        ending = await session.run(taken.target.name)
        _tell(trace, dialog)
        if ending in (Ending.LOST, Ending.FINISHED) and dialog.unheard:
            self._warm.counts.replaced += 1
            self._warm.leave(session)
            return None
        return self._concluded(session, ending, question, taken.ip)

    async def _talk(
        self, target: Target, question: Question, place: Place, deadline: Deadline, trace: Trace
    ) -> Visit:
        """One fresh connection, one dialogue."""
        session = self._session(question, deadline)
        session.again = place.again
        if not await self._warm.admit(session, line_of(question), place.open_most, deadline):
            return Visit(outcome=unanswered(Reason.THROTTLED), stage=Stage.CONNECT)
        try:
            ip = await self._dial(session, target, question, deadline)
        except (NoConnect, Unroutable) as error:
            trace.step("connect", f"{target.name}: {error}")
            return Visit(outcome=unanswered(_unconnected(error)), stage=Stage.CONNECT)
        trace.step("connect", f"{target.name} [{ip}]")
        ending = await session.run(target.name)
        _tell(trace, session.dialog)
        return self._concluded(session, ending, question, ip)

    def _session(self, question: Question, deadline: Deadline) -> Session:
        dialog = Dialog(
            helo=question.source.helo,
            mail_from=question.mail_from,
            recipient=question.recipient,
            control=question.control,
            tls=question.tls,
            smtputf8=question.smtputf8,
        )
        return Session(
            dialog,
            helo=question.source.helo,
            deadline=deadline,
            context=self._context,
            alive=self._warm,
            stage=question.stage,
            stay=self._warm.parks,
            watch=self._watch,
        )

    async def _dial(
        self, session: Session, target: Target, question: Question, deadline: Deadline
    ) -> IPAddress:
        """Connect an admitted session; it is let go of if that fails."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            _, _, ip = await self._dialer.dial(
                lambda: session,
                target.addresses,
                source=question.source,
                deadline=deadline.cap(connect_seconds(deadline.left())),
            )
        except BaseException:
            session.drop()
            raise
        self._watch.took("connect", loop.time() - begun)
        return ip

    def _concluded(
        self, session: Session, ending: Ending, question: Question, ip: IPAddress
    ) -> Visit:
        """What it has taught; the connection is parked, or let go of."""
        try:
            visit = read(session.dialog, ending, question, session.our_ip)
        except BaseException:
            session.abort()  # a fault of ours must not keep a connection for ever
            raise
        visit.ip = ip
        if session.resting and keeps_us(visit):
            self._warm.park(session, ip)
        else:
            self._warm.leave(session)
        return visit


def line_of(question: Question) -> Line:
    """What an open connection must be good for to be asked this."""
    return Line(question.destination, question.source, question.tls)


def _tell(trace: Trace, dialog: Dialog) -> None:
    if trace.steps:  # a trace that is off has none; the texts need not be made for it
        for said in dialog.exchanges:
            trace.exchange(said.stage, said.command, f"{said.reply.code} {said.reply.text}")


def _unconnected(error: NoConnect | Unroutable) -> Reason:
    if isinstance(error, Exhausted):
        return Reason.THROTTLED
    return Reason.NO_CONNECT if isinstance(error, NoConnect) else Reason.MX_UNROUTABLE
