"""What one dialogue, and one whole probe, has taught: `Finding`, and the reading of a `Dialog`.

What it promises: `read` decides from what was said and how it ended, and from nothing else.

Rules
  1. The reply of the stage that refused decides; of the envelope, the answer to the real recipient.
  2. An answer that arrived before the time was up or the connection broke off still stands; after
     a breach of the protocol none does.
  3. A 250 of a provider that accepts everybody settles nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gate.egress import IPAddress, Source
from gate.reason import SCOPE_OF, Reason, Scope
from gate.smtp.classify import Echo, Outcome, classify, said_to_all, same_answer
from gate.smtp.dialog import Dialog, Stage, Tls
from gate.smtp.provider import Provider
from gate.smtp.reply import Reply
from gate.smtp.session import Ending

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


_KEPT: Final = frozenset(
    {
        Reason.ACCEPTED_EMAIL,
        Reason.REJECTED_EMAIL,
        Reason.MAILBOX_DISABLED,
        Reason.MAILBOX_FULL,
        Reason.PROVIDER_OPAQUE,
    }
)
"""What a host says of a recipient that it has nothing against being asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of each host of a destination, and as whom. `recipient` None: nothing yet.
    `stage`: seconds for each command, if not the usual ones.
    """

    recipient: str | None
    control: str | None
    mail_from: str
    smtputf8: bool
    source: Source
    provider: Provider | None
    tls: Tls
    destination: str = ""
    stage: float | None = None

    def echo(self, recipient: str, our_ip: str) -> Echo:
        """Our own words, as a reply may repeat them."""
        # Behind a proxy, hosts see an address that is none of this machine's.
        seen = self.source.ip if self.source.proxy else None
        return Echo(recipient, self.mail_from, self.source.helo, str(seen or our_ip))


@dataclass(slots=True, kw_only=True)
class Visit:
    """What one host taught."""

    outcome: Outcome
    stage: Stage
    ip: IPAddress | None = None
    control: Outcome | None = None
    control_differs: bool | None = None
    tls_demanded: bool = False


def read(dialog: Dialog, ending: Ending, question: Question, our_ip: str) -> Visit:
    """What a dialogue that ended so has taught. Pure."""
    if ending is Ending.LOOP:
        return Visit(outcome=unanswered(Reason.MX_UNROUTABLE), stage=Stage.GREETING)
    if ending is Ending.BROKEN:
        return Visit(outcome=unanswered(Reason.PROTOCOL_ERROR), stage=dialog.stage)
    if ending is Ending.LIMITED:
        return Visit(outcome=unanswered(Reason.THROTTLED), stage=dialog.stage)
    if dialog.tls_required or ending in (Ending.TLS_FAILED, Ending.TLS_TIMED_OUT):
        # The host demanded it if it was brought up behind the envelope's first command; a
        # handshake that hung has cost so much time that it is not to be tried in plain.
        demanded = any(said.stage is Stage.MAIL for said in dialog.exchanges)
        return Visit(
            outcome=unanswered(Reason.TLS_FAILED),
            stage=dialog.stage,
            tls_demanded=demanded or ending is Ending.TLS_TIMED_OUT,
        )
    if dialog.smtputf8_missing:
        return Visit(outcome=unanswered(Reason.UNCONFIRMED), stage=Stage.EHLO)
    stage, reply = _decisive(dialog)
    if reply is None:
        silent = ending is Ending.TIMED_OUT
        reason = Reason.TIMEOUT if silent else Reason.NO_CONNECT
        return Visit(outcome=unanswered(reason), stage=stage)
    name = question.provider.name if question.provider else None
    echo = question.echo(question.recipient or "", our_ip)
    outcome = _worth(classify(stage, reply, provider=name, echo=echo), question.provider)
    answer = dialog.reply_to(Stage.CONTROL)
    if stage is not Stage.RCPT or answer is None or question.control is None:
        return Visit(outcome=outcome, stage=stage)
    control_echo = question.echo(question.control, our_ip)
    differs = not same_answer(reply, answer, echo, control_echo)
    return Visit(
        outcome=outcome if differs else said_to_all(outcome),
        stage=stage,
        control=classify(Stage.CONTROL, answer, provider=name, echo=control_echo),
        control_differs=differs,
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


def keeps_us(visit: Visit) -> bool:
    """Whether the host may be asked again on the same connection: it spoke of recipients only.

    Words that are not understood may be a refusal of us. Without any reply nothing was asked.
    """
    outcomes = [one for one in (visit.outcome, visit.control) if one is not None and one.reply]
    return all(outcome.reason in _KEPT for outcome in outcomes)


def unanswered(reason: Reason) -> Outcome:
    """An outcome that rests on no reply."""
    return Outcome(reason, SCOPE_OF[reason])


def accepted(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.reason is Reason.ACCEPTED_EMAIL
