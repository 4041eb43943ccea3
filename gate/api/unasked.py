"""Answers for which nobody was asked: over a limit, or fixed by a test key."""

from __future__ import annotations

import secrets

from gate import address as addresses
from gate import flags as flagging
from gate import policy
from gate.address import Address, Fault
from gate.answer import Answer, Cached
from gate.budget import Clock
from gate.reason import TEMPORARY, VERDICT_OF, Flag, Reason
from gate.settings import Site
from gate.trace import Trace
from gate.verdict import Verdict


def unasked(
    email: str, site: Site, reason: Reason, *, clock: Clock, wall: Clock, suggestion: str | None
) -> Answer:
    """An answer that rests on `reason` alone. It can be found under its id by nobody."""
    parsed = addresses.parse(email)
    address = parsed if isinstance(parsed, Address) else None
    raised = frozenset({Flag.POSSIBLE_TYPO} if suggestion else ())
    decision = policy.decide(
        reason=reason,
        result=VERDICT_OF[reason],
        flags=raised,
        policy=site.policy,
        observe=site.mode == "observe",
    )
    return Answer(
        id=f"chk_{secrets.token_hex(16)}",
        email=email,
        address=address,
        fault=parsed if isinstance(parsed, Fault) and reason is Reason.INVALID_EMAIL else None,
        verdict=Verdict(reason, reason not in TEMPORARY, wall()),
        decision=decision,
        flags=flagging.of(address) if address else None,
        did_you_mean=suggestion,
        accept_all=None,
        mx_record=None,
        provider=None,
        smtp=None,
        reached_mx=None,
        cached=Cached(),
        trace=Trace(clock, on=False),
    )
