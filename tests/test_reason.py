"""The tables of the closed list are exhaustive, and only proofs are undeliverable."""

from __future__ import annotations

import pytest

from gate.reason import MEANING, SCOPE_OF, TEMPORARY, VERDICT_OF, Reason, Result


@pytest.mark.parametrize("table", [VERDICT_OF, SCOPE_OF, MEANING], ids=["verdict", "scope", "text"])
def test_every_reason_has_its_row(table: dict[Reason, object]) -> None:
    assert set(table) == set(Reason)


def test_only_the_proofs_are_undeliverable() -> None:
    undeliverable = {reason for reason in Reason if VERDICT_OF[reason] is Result.UNDELIVERABLE}
    assert undeliverable == {
        Reason.INVALID_EMAIL,
        Reason.INVALID_DOMAIN,
        Reason.NO_MX,
        Reason.NULL_MX,
        Reason.REJECTED_EMAIL,
        Reason.MAILBOX_DISABLED,
    }


def test_what_may_still_change_is_unknown_today() -> None:
    assert {VERDICT_OF[reason] for reason in TEMPORARY} == {Result.UNKNOWN}
