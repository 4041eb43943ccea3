"""What is known of an address by now: by its form alone, from memory, or from a flight. Pure.

What it promises: what was not determined is None, never False; what was remembered has its age.
"""

from __future__ import annotations

from msgspec import Struct

from gate.dns import MailRoute
from gate.memory import AcceptAll, Remembered
from gate.reason import Reason
from gate.smtp.finding import Finding
from gate.verdict import Evidence, Verdict, judge


class Known(Struct, kw_only=True):
    """What one check, or the flight it joined, has learned so far.

    Ages are in seconds. `stale`: remembered, and past the age at which a new flight starts behind.
    """

    verdict: Verdict
    route: MailRoute | None = None
    route_age: float | None = None
    finding: Finding | None = None
    accept_all: AcceptAll | None = None
    remembered: Remembered | None = None
    mailbox_age: float | None = None
    stale: bool = False

    @property
    def mx_record(self) -> str | None:
        """The mail server that the verdict comes from."""
        if self.finding is not None and self.finding.mx_record:
            return self.finding.mx_record
        if self.remembered is not None and self.remembered.mx_record:
            return self.remembered.mx_record
        return None

    @property
    def smtp(self) -> tuple[str, int, str | None] | None:
        """Stage, code and enhanced code of the reply the verdict rests on."""
        if self.remembered is not None and self.remembered.code is not None:
            return "rcpt", self.remembered.code, self.remembered.enhanced
        finding = self.finding
        if finding is None or finding.mailbox is None or finding.mailbox.reply is None:
            return None
        reply = finding.mailbox.reply
        return str(finding.stage or "rcpt"), reply.code, reply.enhanced

    @property
    def reached_mx(self) -> bool | None:
        """Whether a mail server was talked to: None when none was tried."""
        if self.remembered is not None:
            return True
        return None if self.finding is None else self.finding.mailbox is not None

    @property
    def accept_all_age(self) -> float | None:
        """Age of the accept-all state; None if it is unknown, or was found in this very flight."""
        asked_now = self.finding is not None and self.finding.control is not None
        return None if self.accept_all is None or asked_now else self.accept_all.age


def said(reason: Reason, found_at: float) -> Known:
    """A verdict that rests on `reason` alone."""
    return Known(verdict=judge(Evidence(cause=reason), found_at=found_at))


def of_mailbox(
    remembered: Remembered, now: float, route: MailRoute | None, route_age: float | None
) -> Known:
    """What a remembered verdict says at `now` (Unix time)."""
    age = remembered.age(now)
    accepted = remembered.reason is Reason.ACCEPTED_EMAIL
    return Known(
        verdict=Verdict(remembered.reason, True, remembered.found_at),
        route=route,
        route_age=route_age,
        accept_all=AcceptAll(False, age) if accepted else None,
        remembered=remembered,
        mailbox_age=age,
        stale=not remembered.fresh(now),
    )
