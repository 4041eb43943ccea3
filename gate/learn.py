"""What a finding teaches of a domain, of its mail hosts and of a mailbox; proofs are remembered.

What it promises: a deferral or a refusal of ourselves settles nothing about a domain, and a refusal
that contradicts a mailbox known to be good settles nothing about either.
"""

from __future__ import annotations

from gate.address import Address
from gate.budget import Clock
from gate.known import Known
from gate.memory import AcceptAll, Memory, Remembered
from gate.reason import Reason, Result
from gate.settings import Site
from gate.smtp.finding import Finding
from gate.verdict import Evidence, Verdict, judge, mailbox_exists


async def learn(
    finding: Finding,
    address: Address,
    site: Site,
    before: AcceptAll | None,
    *,
    memory: Memory,
    wall: Clock,
) -> Known:
    """The verdict that a finding supports, once what it proves is remembered.

    `before`: what was remembered of the domain's accept-all state when the mail hosts were asked.
    """
    accept_all = await _of_domain(finding, address.domain, before, memory)
    evidence = Evidence(
        cause=finding.failure,
        mailbox=finding.mailbox,
        accept_all=accept_all.known if accept_all else None,
        control_differs=finding.control_differs,
        tells_apart=await memory.tells_apart(finding.destination),
    )
    verdict = judge(evidence, found_at=wall())
    verdict = await _of_mailbox(finding, address, site, verdict, memory)
    return Known(verdict=verdict, finding=finding, accept_all=accept_all)


async def _of_domain(
    finding: Finding, domain: str, before: AcceptAll | None, memory: Memory
) -> AcceptAll | None:
    """Remember what the random recipient was answered, and that the host accepts people."""
    control = finding.control
    if finding.accepted_by_host and not (control and control.reason is Reason.ACCEPTED_EMAIL):
        await memory.keep_accepted(finding.destination)
    if control is None:
        if before is None or before.known is None:  # another flight may have asked since
            return await memory.accept_all(domain)
        return before
    known = _accepts_all(finding)
    # A deferred control is the same probe when it is asked again: greylisting answers both
    # recipients the same way, and only the second visit settles either.
    if known is not None or control.reason not in (Reason.GREYLISTED, Reason.DEFERRED):
        await memory.keep_accept_all(domain, known)
    return AcceptAll(known, 0.0)


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


async def _of_mailbox(
    finding: Finding, address: Address, site: Site, verdict: Verdict, memory: Memory
) -> Verdict:
    """Remember a proof; a refusal that contradicts a good mailbox settles nothing yet."""
    earlier = await memory.verdict(site.name, address)
    contradicts = (
        verdict.result is Result.UNDELIVERABLE
        and earlier is not None
        and mailbox_exists(earlier.reason)
    )
    if contradicts:
        await memory.forget_verdict(site.name, address)
        return Verdict(Reason.UNCONFIRMED, True, verdict.found_at)
    reply = finding.mailbox.reply if finding.mailbox else None
    await memory.keep_verdict(
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
