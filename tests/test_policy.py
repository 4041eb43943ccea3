"""Decisions: the default table of the API, precedence of lists and flags, observe mode."""

from __future__ import annotations

import pytest

from gate.policy import decide, match
from gate.reason import VERDICT_OF, Choice, Flag, Reason, Result
from gate.settings import Policy

DEFAULTS = {
    Reason.INVALID_EMAIL: Choice.BLOCK,
    Reason.INVALID_DOMAIN: Choice.BLOCK,
    Reason.NO_MX: Choice.BLOCK,
    Reason.NULL_MX: Choice.BLOCK,
    Reason.REJECTED_EMAIL: Choice.BLOCK,
    Reason.MAILBOX_DISABLED: Choice.BLOCK,
    Reason.MAILBOX_FULL: Choice.WARN,
}


def decided(
    reason: Reason,
    *flags: Flag,
    policy: Policy | None = None,
    listed: Flag | None = None,
    observe: bool = False,
) -> tuple[Choice, str]:
    decision = decide(
        reason=reason,
        result=VERDICT_OF[reason],
        flags=frozenset(flags),
        policy=policy or Policy(),
        listed=listed,
        observe=observe,
    )
    return decision.choice, decision.because


@pytest.mark.parametrize("reason", Reason)
def test_the_default_decision_of_every_reason(reason: Reason) -> None:
    assert decided(reason) == (DEFAULTS.get(reason, Choice.ALLOW), reason)


@pytest.mark.parametrize(
    ("flag", "choice"),
    [
        (Flag.DISPOSABLE, Choice.BLOCK),
        (Flag.POSSIBLE_TYPO, Choice.WARN),
        (Flag.ROLE, Choice.ALLOW),
        (Flag.RELAY, Choice.ALLOW),
        (Flag.FREE, Choice.ALLOW),
    ],
)
def test_the_default_decision_of_every_flag(flag: Flag, choice: Choice) -> None:
    because = Reason.ACCEPTED_EMAIL if choice is Choice.ALLOW else flag
    assert decided(Reason.ACCEPTED_EMAIL, flag) == (choice, because)


def test_the_strictest_wins_and_is_the_one_named() -> None:
    assert decided(Reason.MAILBOX_FULL, Flag.DISPOSABLE) == (Choice.BLOCK, Flag.DISPOSABLE)
    assert decided(Reason.REJECTED_EMAIL, Flag.POSSIBLE_TYPO) == (
        Choice.BLOCK,
        Reason.REJECTED_EMAIL,
    )


def test_the_allow_list_wins_over_everything() -> None:
    assert decided(Reason.REJECTED_EMAIL, Flag.DISPOSABLE, listed=Flag.ALLOWED_BY_RULE) == (
        Choice.ALLOW,
        Flag.ALLOWED_BY_RULE,
    )


def test_the_deny_list_blocks_a_good_mailbox() -> None:
    assert decided(Reason.ACCEPTED_EMAIL, listed=Flag.BLOCKED_BY_RULE) == (
        Choice.BLOCK,
        Flag.BLOCKED_BY_RULE,
    )


def test_observing_lets_everyone_in_and_keeps_what_it_would_have_been() -> None:
    decision = decide(
        reason=Reason.REJECTED_EMAIL,
        result=Result.UNDELIVERABLE,
        flags=frozenset(),
        policy=Policy(),
        observe=True,
    )
    assert (decision.choice, decision.would_be) == (Choice.ALLOW, Choice.BLOCK)


@pytest.mark.parametrize(
    ("exact", "allow", "deny", "expected"),
    [
        ("jane@a.example", (), ("a.example",), Flag.BLOCKED_BY_RULE),
        ("jane@mail.a.example", (), ("a.example",), Flag.BLOCKED_BY_RULE),
        ("jane@nota.example", (), ("a.example",), None),
        ("jane@a.example", (), ("@a.example",), Flag.BLOCKED_BY_RULE),
        ("Jane@a.example", (), ("jane@a.example",), Flag.BLOCKED_BY_RULE),
        ("joe@a.example", (), ("jane@a.example",), None),
        ("jane@a.example", ("jane@a.example",), ("a.example",), Flag.ALLOWED_BY_RULE),
        ("jane@a.example", (), (), None),
    ],
)
def test_lists(
    exact: str, allow: tuple[str, ...], deny: tuple[str, ...], expected: Flag | None
) -> None:
    policy = Policy(allow=allow, deny=deny)
    assert match(exact, exact.rpartition("@")[2], policy) is expected
