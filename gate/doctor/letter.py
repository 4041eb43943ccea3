"""`gate doctor --send-test`: one real message to the operator, and what the receiver says to it.

The probe can send no message: its writer has no word for it. Here, and nowhere else, a library that
has is loaded, and speaks over a socket that the one door out has opened. One recipient, one
message for each egress address that was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Final

from gate import __version__
from gate.address import Address, parse
from gate.budget import COMMAND, DOCTOR_CONNECT, DOCTOR_LETTER, Deadline
from gate.dns import MxHost
from gate.doctor.finding import Finding, Report, Topic
from gate.egress import NoConnect, Source, Unroutable
from gate.engine import Engine, Identity
from gate.reason import MEANING, GateError, Reason
from gate.smtp.classify import Echo, classify
from gate.smtp.dialog import Stage
from gate.smtp.reply import Reply
from gate.smtp.session import tls_context

if TYPE_CHECKING:
    from aiosmtplib import SMTP

NAME: Final = "send-test"
WHY: Final = "a message that is taken, and not put among the spam, shows that others will listen"
TEXT: Final = """\
This is the test message of a signup gate ({version}), sent by hand with
`gate doctor --send-test`. You need not answer it.

It was sent from {source} under the name {helo},
with the envelope sender that the gate uses when it asks mail servers
whether a mailbox is there.

If you find it among the spam, look at its headers: what the receiver
says of SPF, of the name and of the address is what other servers think
of the gate as well.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host said. `at`: to which command; `reply`: None if the talk broke off."""

    host: str
    at: str
    reply: Reply | None
    trouble: str = ""
    taken: bool = False
    encrypted: bool = False

    @property
    def stage(self) -> Stage:
        """The stage in the words of the dialogue, which knows no DATA: it is about the mailbox or
        about us, as RCPT is.
        """
        return Stage.RCPT if self.at == "DATA" else Stage(self.at.lower())


async def send_test(engine: Engine, recipient: str, *, every_address: bool) -> Report:
    """Send it, and report what each egress address was told. Raises `GateError` for misuse."""
    who = engine.identity
    if who is None:
        raise GateError(
            "--send-test: there is no identity to send with; set probe.helo and probe.mail_from"
        )
    address = parse(recipient)
    if not isinstance(address, Address) or address.smtputf8:
        raise GateError("--send-test: write one plain address of yours, as in you@your-domain")
    deadline = Deadline.after(DOCTOR_LETTER, engine.clock)
    route = await engine.resolver.route(address.domain, deadline)
    if not route.hosts:
        detail = f" ({route.detail})" if route.detail else ""
        raise GateError(
            f"--send-test: {address.domain} has no mail host: {route.failure}{detail}; write an "
            "address that receives mail, or see gate doctor --only resolver"
        )
    sources = engine.dialer.sources if every_address else engine.dialer.sources[:1]
    findings = []
    for source in sources:  # one after the other: two at once would look like a campaign
        deadline = Deadline.after(DOCTOR_LETTER, engine.clock)
        answer = await _send(engine, who, source, address, route.hosts, deadline)
        findings.append(judge(source, answer, Echo(address.reveal(), who.mail_from, source.helo)))
    return Report(tuple(findings))


async def _send(
    engine: Engine,
    who: Identity,
    source: Source,
    address: Address,
    hosts: Sequence[MxHost],
    deadline: Deadline,
) -> Answer:
    """The first host that can be connected to is the one that decides."""
    answer = Answer(hosts[0].name, "connect", None, "it has no address")
    for host in hosts:
        if not host.addresses:
            continue
        try:
            sock, _ = await engine.dialer.reach(
                host.addresses, source=source, deadline=deadline.cap(DOCTOR_CONNECT)
            )
        except (NoConnect, Unroutable) as error:
            answer = Answer(host.name, "connect", None, str(error))
            continue
        import aiosmtplib

        client = aiosmtplib.SMTP(
            hostname=host.name,
            sock=sock,
            local_hostname=source.helo,
            timeout=max(deadline.left(), COMMAND),
            start_tls=False,
        )
        try:
            async with asyncio.timeout(deadline.left()):
                return await _hand_over(client, host.name, who, source, address)
        except TimeoutError:
            return Answer(host.name, "connect", None, "it did not answer in time")
        finally:
            client.close()
    return answer


async def _hand_over(
    client: SMTP, host: str, who: Identity, source: Source, address: Address
) -> Answer:
    """The dialogue, step by step, so that a refusal can be told by its stage."""
    import aiosmtplib

    at, encrypted = "greeting", False
    taken: Answer | None = None
    try:
        async with client:  # says QUIT at the end
            at = "EHLO"
            await client.ehlo()
            if client.supports_extension("starttls"):
                at = "STARTTLS"
                await client.starttls(tls_context=tls_context())
                encrypted = True
                at = "EHLO"
                await client.ehlo()
            at = "MAIL"
            await client.mail(who.mail_from)
            at = "RCPT"
            await client.rcpt(address.reveal())
            at = "DATA"
            said = await client.data(message(who, source, address).as_bytes(policy=policy.SMTP))
            taken = Answer(host, at, _reply(said.code, said.message), "", True, encrypted)
        return taken
    except aiosmtplib.SMTPResponseException as error:
        if error.code not in range(200, 600):  # the library's own: what answers is no mail server
            return taken or Answer(host, at, None, error.message.strip(), encrypted=encrypted)
        return taken or Answer(host, at, _reply(error.code, error.message), encrypted=encrypted)
    except (aiosmtplib.SMTPException, OSError) as error:
        return taken or Answer(host, at, None, str(error), encrypted=encrypted)


def _reply(code: int, text: str) -> Reply:
    return Reply(code, tuple(line.strip() for line in text.split("\n")))


def message(who: Identity, source: Source, address: Address) -> EmailMessage:
    """What is sent."""
    letter = EmailMessage()
    letter["From"] = who.mail_from
    letter["To"] = address.reveal()
    letter["Subject"] = f"A test message from {source.helo}"
    letter["Date"] = formatdate(localtime=True)
    letter["Message-ID"] = make_msgid(domain=source.helo)
    letter["Auto-Submitted"] = "auto-generated"
    where = source.ip or "the address that the system chose"
    letter.set_content(TEXT.format(version=__version__, source=where, helo=source.helo))
    return letter


def judge(source: Source, answer: Answer, echo: Echo) -> Finding:
    """What the answer means. Pure."""
    topic = Topic(NAME, WHY, f"{source.ip or source.helo}")
    if answer.reply is None:
        return topic.problem(
            f"{answer.host}: no answer at {answer.at}: {answer.trouble}",
            "see gate doctor --only port-25 --only resolver",
        )
    said = f"{answer.reply.code} {answer.reply.text}".replace(echo.recipient, "<address>")
    if answer.taken:
        how = "encrypted" if answer.encrypted else "in clear"
        return topic.ok(f"{answer.host} took it, {how}: {said}")
    outcome = classify(answer.stage, answer.reply, echo=echo)
    return topic.problem(
        f"{answer.host} refused at {answer.at}: {said}; that means {outcome.reason}: "
        f"{MEANING[outcome.reason]}",
        _MEND.get(outcome.reason, "read what it says; gate doctor may name the cause"),
    )


_MEND: Final = {
    Reason.PROBE_BLOCKED: "it refuses this gate: mend what gate doctor finds, then try again",
    Reason.REJECTED_EMAIL: "look at the address you gave: it says that nobody has it",
    Reason.GREYLISTED: "wait some minutes and send it again: it will know the gate by then",
    Reason.MAILBOX_FULL: "make room in that mailbox, or give another address",
}
