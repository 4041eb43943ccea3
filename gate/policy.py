"""From verdict and flags to a decision: what a site does with a signup. Pure.

The order is: the operator's allow list, the operator's deny list, then the *strictest* of what the
site's policy says about the verdict and about each flag. In `observe` mode the answer is always
`allow`; what it would have been is kept for the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from gate.reason import Choice, Flag, Reason, Result
from gate.settings import Policy

_RANK = {Choice.ALLOW: 0, Choice.WARN: 1, Choice.BLOCK: 2}


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the signup, and the one reason or flag it rests on.

    `message_id` names the text a form shows. `would_be` differs from `choice` only in observe mode.
    """

    choice: Choice
    because: Reason | Flag
    message_id: str
    would_be: Choice


def decide(
    *,
    reason: Reason,
    result: Result,
    flags: frozenset[Flag],
    policy: Policy,
    listed: Flag | None = None,
    observe: bool = False,
) -> Decision:
    """The decision of `policy`.

    `listed` is what `match` made of the operator's own lists. A flag outweighs a verdict only when
    its choice is stricter, so the reason given is always the one that matters.
    """
    choice, because = _weigh(reason, result, flags, policy, listed)
    shown = Choice.ALLOW if observe else choice
    return Decision(shown, because, because.value, choice)


def _weigh(
    reason: Reason, result: Result, flags: frozenset[Flag], policy: Policy, listed: Flag | None
) -> tuple[Choice, Reason | Flag]:
    if listed is Flag.ALLOWED_BY_RULE:
        return Choice.ALLOW, listed
    if listed is Flag.BLOCKED_BY_RULE:
        return Choice.BLOCK, listed
    best: tuple[Choice, Reason | Flag] = _of_verdict(reason, result, policy), reason
    for flag, choice in (
        (Flag.DISPOSABLE, policy.disposable),
        (Flag.POSSIBLE_TYPO, policy.possible_typo),
        (Flag.ROLE, policy.role),
        (Flag.RELAY, policy.relay),
        (Flag.FREE, policy.free),
    ):
        if flag in flags and _RANK[choice] > _RANK[best[0]]:
            best = choice, flag
    return best


def _of_verdict(reason: Reason, result: Result, policy: Policy) -> Choice:
    if result is Result.UNDELIVERABLE:
        return policy.undeliverable
    if result is Result.UNKNOWN:
        return policy.unknown
    if reason is Reason.ACCEPT_ALL:
        return policy.accept_all
    if reason is Reason.MAILBOX_FULL:
        return policy.mailbox_full
    return Choice.ALLOW


def match(exact: str, domain: str, policy: Policy) -> Flag | None:
    """What the operator's lists say of an address; the allow list wins.

    An entry with an `@` is a whole address, one without is a domain and all below it. Entries are
    compared without regard to case.
    """
    if not policy.allow and not policy.deny:
        return None
    if _listed(exact, domain, policy.allow):
        return Flag.ALLOWED_BY_RULE
    if _listed(exact, domain, policy.deny):
        return Flag.BLOCKED_BY_RULE
    return None


def _listed(exact: str, domain: str, entries: tuple[str, ...]) -> bool:
    for entry in entries:
        name = entry.lower().removeprefix("@")
        if "@" in name:
            if name == exact.lower():
                return True
        elif domain == name or domain.endswith("." + name):
            return True
    return False
