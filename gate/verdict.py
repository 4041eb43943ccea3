"""From evidence to verdict: what the mail system says about an address. Pure.

What it promises: `undeliverable` only with one of four proofs: bad syntax; a domain that cannot
receive mail, by its records or by the word of all its hosts; a permanent refusal of this mailbox at
RCPT in a clean session; (the fourth, the operator's own list, is the policy's business). Everything
else is `unknown`, with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from gate.reason import TEMPORARY, VERDICT_OF, Reason, Result
from gate.smtp.classify import Outcome

_MAILBOX_EXISTS = frozenset({Reason.ACCEPTED_EMAIL, Reason.MAILBOX_FULL, Reason.ACCEPT_ALL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything known about one address now. None means *not determined*, never False.

    `cause` settles the verdict by itself (syntax, DNS, a walk that reached nobody); else `mailbox`
    is what the real recipient was answered, `accept_all` whether a random one is accepted too,
    `control_differs` whether both got different answers in this very dialogue, and
    `tells_apart` whether the destination accepted some recipient lately.
    """

    cause: Reason | None = None
    mailbox: Outcome | None = None
    accept_all: bool | None = None
    control_differs: bool | None = None
    tells_apart: bool = False


class Verdict(Struct, frozen=True, gc=False):
    """What the mail system says, with exactly one reason.

    `final` is False when a better answer may follow by itself; `retry_after` is the number of
    seconds after which asking again is worthwhile; `found_at` is Unix time.
    """

    reason: Reason
    final: bool
    found_at: float
    retry_after: int | None = None

    @property
    def result(self) -> Result:
        """The result of the reason; there is no other way to get one."""
        return VERDICT_OF[self.reason]

    @property
    def mailbox_full(self) -> bool | None:
        """Whether the mailbox is over quota; None when nothing was learned about it."""
        if self.reason is Reason.MAILBOX_FULL:
            return True
        return False if self.reason is Reason.ACCEPTED_EMAIL else None


def judge(evidence: Evidence, *, found_at: float) -> Verdict:
    """The verdict that `evidence` supports, and no stronger one."""
    outcome = evidence.mailbox
    if evidence.cause is not None:
        reason = evidence.cause
    elif outcome is None:
        reason = Reason.UNCONFIRMED
    elif outcome.reason is Reason.ACCEPTED_EMAIL:
        reason = _accepted(evidence.accept_all)
    elif outcome.contrast is not None:
        reason = _bare_refusal(outcome.contrast, evidence)
    else:
        reason = outcome.reason
    retry_after = outcome.retry_after if outcome is not None and evidence.cause is None else None
    return Verdict(reason, reason not in TEMPORARY, found_at, retry_after)


def _accepted(accept_all: bool | None) -> Reason:
    """An accepted recipient means something only where a random one is not accepted."""
    if accept_all is None:
        return Reason.UNCONFIRMED
    return Reason.ACCEPT_ALL if accept_all else Reason.ACCEPTED_EMAIL


def _bare_refusal(contrast: Reason, evidence: Evidence) -> Reason:
    """A refusal without words counts only where the host is seen to tell mailboxes apart.

    The same answer for a random recipient, from a host not known to accept anybody, is how a
    policy that refuses *us* looks (faults.md R08, R09).
    """
    if evidence.control_differs or evidence.tells_apart:
        return contrast
    return Reason.PROBE_BLOCKED if evidence.control_differs is False else Reason.UNCONFIRMED


def mailbox_exists(reason: Reason) -> bool:
    """True for reasons that only an existing mailbox (or an accept-all domain) can give."""
    return reason in _MAILBOX_EXISTS
