"""SPF of the envelope sender: may each egress address use it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gate.budget import Deadline
from gate.dns import Resolver
from gate.dns.records import Records
from gate.doctor.face import Face, is_name
from gate.doctor.finding import Finding, Topic
from gate.doctor.names import SEE_DNS
from gate.doctor.spf import Outcome, Spf, evaluate
from gate.egress import IPAddress

NAME: Final = "spf"
WHY: Final = (
    "mail hosts check at MAIL or RCPT whether the sender's domain lets this address use it; a fail "
    "is a refusal, and checks end as probe_blocked"
)


async def check(
    mail_from: str, faces: Sequence[Face], resolver: Resolver, deadline: Deadline
) -> list[Finding]:
    """Evaluate the record of the sender's domain for each egress address."""
    domain = mail_from.rpartition("@")[2].lower()
    if not is_name(domain):
        return [Topic(NAME, WHY).skipped("there is no envelope sender of yours (see sender)")]

    async def look(name: str, rdtype: int) -> Records:
        return await resolver.records(name, rdtype, deadline)

    findings = []
    for face in faces:
        for ip in face.seen:
            outcome = await evaluate(ip, mail_from, face.helo, look)
            findings.append(judge(domain, ip, outcome))
    return findings or [
        Topic(NAME, WHY, domain).skipped(
            "the address that mail leaves from is not known",
            "give the HELO name its A record (see the check named names)",
        )
    ]


def judge(domain: str, ip: IPAddress, outcome: Outcome) -> Finding:
    """What one evaluation means for us. Pure."""
    topic = Topic(NAME, WHY, f"{ip} {domain}")
    term = f"ip{ip.version}:{ip}"
    match outcome.result:
        case Spf.PASS:
            return topic.ok(f"{domain} lets {ip} send: {outcome.because}")
        case Spf.NONE:
            return topic.problem(
                f"{domain} has no SPF record",
                f'publish one:\n{domain}. TXT "v=spf1 mx {term} -all"',
            )
        case Spf.TEMPERROR:
            return topic.skipped(outcome.because, SEE_DNS)
        case Spf.PERMERROR:
            return topic.problem(
                f"the SPF record of {domain} is broken: {outcome.because}",
                f"repair the TXT record of {domain} so that it holds {term} and at most ten terms "
                "that ask the DNS",
            )
    better = with_term(outcome.record, term)
    said = f"SPF of {domain} says {outcome.result} for {ip} ({outcome.because})"
    mend = f'publish in place of the present record:\n{domain}. TXT "{better}"'
    if outcome.result is Spf.NEUTRAL:
        return topic.warning(said, mend)
    return topic.problem(said, mend)


def with_term(record: str, term: str) -> str:
    """The record with one more term, as the first: the first that matches decides. Pure."""
    version, _, rest = record.partition(" ")
    return " ".join(filter(None, (version, term, rest.strip())))
