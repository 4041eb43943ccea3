"""The envelope sender: does its domain take mail, and does that very mailbox?

Hosts that verify senders call back (Exim's and Postfix's `reject_unverified_sender`), and a sender
whose domain has no MX is refused by default at many. So the gate asks its own MX what strangers
will ask it.
"""

from __future__ import annotations

from typing import Final

from gate.address import Address, parse
from gate.budget import Deadline
from gate.dns import MailRoute, Resolver
from gate.doctor.face import is_name
from gate.doctor.finding import Finding, Topic
from gate.doctor.names import SEE_DNS
from gate.reason import MEANING, Reason
from gate.smtp.finding import Finding as Probed
from gate.smtp.probe import Prober
from gate.trace import Trace

NAME: Final = "sender"
WHY: Final = (
    "mail hosts look up the domain of the envelope sender and may ask its MX whether the mailbox "
    "is there; a sender that takes no mail is refused, and checks end as probe_blocked"
)
_NOT_THERE: Final = frozenset({Reason.REJECTED_EMAIL, Reason.MAILBOX_DISABLED})
_LATER: Final = frozenset({Reason.GREYLISTED, Reason.DEFERRED, Reason.MAILBOX_FULL})


async def check(
    mail_from: str, resolver: Resolver, prober: Prober, deadline: Deadline
) -> list[Finding]:
    """Look up the sender's domain, then ask its MX about the mailbox (MAIL, RCPT, RSET, QUIT)."""
    address = parse(mail_from)
    if not isinstance(address, Address) or not is_name(address.domain):
        return [
            Topic(NAME, WHY).problem(
                "the envelope sender's domain can be nobody's on the internet",
                "set probe.mail_from to a mailbox of yours, as in postmaster@your-domain",
            )
        ]
    route = await resolver.route(address.domain, deadline)
    findings = [judge_route(address.domain, route)]
    if route.hosts:
        probed = await prober.probe(
            address,
            route,
            control=None,
            deadline=deadline,
            trace=Trace(deadline.clock, on=False),
        )
        findings.append(judge_mailbox(address.domain, probed))
    return findings


def judge_route(domain: str, route: MailRoute) -> Finding:
    """Where mail to the sender goes. Pure."""
    topic = Topic(NAME, WHY, domain)
    mx = f"publish one:\n{domain}. MX 10 <your mail server>."
    match route.failure:
        case None if route.implicit:
            return topic.warning(f"{domain} has no MX, only an address", mx)
        case None:
            return topic.ok(f"{domain} has the MX {', '.join(route.mx_names)}")
        case Reason.INVALID_DOMAIN:
            return topic.problem(
                f"{domain} does not exist",
                "set probe.mail_from to a mailbox of a domain of yours that takes mail",
            )
        case Reason.NULL_MX:
            return topic.problem(
                f"{domain} declares that it takes no mail (null MX)",
                "set probe.mail_from to a mailbox of another domain of yours, or publish in place "
                f"of the null MX:\n{domain}. MX 10 <your mail server>.",
            )
        case Reason.NO_MX:
            return topic.problem(f"{domain} has no mail server", mx)
    return topic.skipped(f"{domain} could not be looked up ({route.detail})", SEE_DNS)


def judge_mailbox(domain: str, probed: Probed) -> Finding:
    """What the sender's own MX says of the mailbox. Pure."""
    topic = Topic(NAME, WHY, domain)
    host = probed.mx_record or "its MX"
    mailbox = probed.mailbox
    reason = mailbox.reason if mailbox is not None else probed.failure or Reason.UNEXPECTED_ERROR
    code = mailbox.reply.code if mailbox is not None and mailbox.reply is not None else None
    said = f"{host} answered {code} ({reason})" if code else f"{reason}: {MEANING[reason]}"
    if code is not None and code < 300 and reason is not Reason.PROTOCOL_ERROR:
        return topic.ok(f"the mailbox of probe.mail_from is there: {said}")
    if reason in _NOT_THERE:
        return topic.problem(
            f"the mailbox of probe.mail_from is not there: {said}",
            "create the mailbox or an alias for it, or set probe.mail_from to one that is there",
        )
    if reason in _LATER:
        return topic.warning(
            f"the mailbox of probe.mail_from cannot take mail now: {said}",
            "see to it that your own server takes mail from this gate at once, without greylisting "
            "it, then run this again",
        )
    if reason is Reason.MX_UNROUTABLE:
        return topic.skipped(
            f"{host} has no address that the gate dials (its own machine, or a private network)",
            "ask it from elsewhere whether it takes mail for probe.mail_from",
        )
    if reason is Reason.PROBE_BLOCKED:
        return topic.problem(
            f"your own MX refuses this gate: {said}",
            "mend the names and block lists first (see those checks); what your MX dislikes, "
            "others will as well",
        )
    return topic.skipped(
        f"{domain}'s MX said nothing of the mailbox: {said}",
        "run this again; if port-25 is closed, mend that first",
    )
