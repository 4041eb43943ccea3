"""Verdicts: what evidence supports, row by row; and that nothing else is ever undeliverable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.reason import SCOPE_OF, VERDICT_OF, Reason, Result
from gate.smtp.classify import Outcome
from gate.verdict import Evidence, judge

R = Reason
PROOFS = {R.INVALID_EMAIL, R.INVALID_DOMAIN, R.NO_MX, R.NULL_MX}
REFUSALS = {R.REJECTED_EMAIL, R.MAILBOX_DISABLED}


def said(reason: Reason, contrast: Reason | None = None) -> Outcome:
    return Outcome(reason, SCOPE_OF[reason], contrast=contrast)


BARE = said(R.UNCONFIRMED, R.REJECTED_EMAIL)

ROWS: dict[str, tuple[Evidence, Reason]] = {
    "accepted, random refused": (
        Evidence(mailbox=said(R.ACCEPTED_EMAIL), accept_all=False),
        R.ACCEPTED_EMAIL,
    ),
    "accepted, random accepted": (
        Evidence(mailbox=said(R.ACCEPTED_EMAIL), accept_all=True),
        R.ACCEPT_ALL,
    ),
    "accepted, random not determined": (
        Evidence(mailbox=said(R.ACCEPTED_EMAIL), accept_all=None),
        R.UNCONFIRMED,
    ),
    "refused with words": (Evidence(mailbox=said(R.REJECTED_EMAIL)), R.REJECTED_EMAIL),
    "refused with words, random alike": (
        Evidence(mailbox=said(R.REJECTED_EMAIL), control_differs=False),
        R.REJECTED_EMAIL,
    ),
    "switched off": (Evidence(mailbox=said(R.MAILBOX_DISABLED)), R.MAILBOX_DISABLED),
    "bare 550, random answered differently": (
        Evidence(mailbox=BARE, control_differs=True),
        R.REJECTED_EMAIL,
    ),
    "bare 550, host accepted somebody lately": (
        Evidence(mailbox=BARE, tells_apart=True),
        R.REJECTED_EMAIL,
    ),
    "bare 550, random alike": (Evidence(mailbox=BARE, control_differs=False), R.PROBE_BLOCKED),
    "bare 550, nothing to compare with": (Evidence(mailbox=BARE), R.UNCONFIRMED),
    "blocked": (Evidence(mailbox=said(R.PROBE_BLOCKED)), R.PROBE_BLOCKED),
    "over quota": (Evidence(mailbox=said(R.MAILBOX_FULL), accept_all=True), R.MAILBOX_FULL),
    "a cause settles it": (
        Evidence(cause=R.NO_CONNECT, mailbox=said(R.ACCEPTED_EMAIL)),
        R.NO_CONNECT,
    ),
    "nothing at all": (Evidence(), R.UNCONFIRMED),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_evidence_supports(row: str) -> None:
    evidence, reason = ROWS[row]
    verdict = judge(evidence, found_at=0)
    assert (verdict.reason, verdict.result) == (reason, VERDICT_OF[reason])


reasons = st.sampled_from(Reason)
outcomes = st.builds(said, reasons, st.none() | st.sampled_from(sorted(REFUSALS)))


@given(
    st.builds(
        Evidence,
        cause=st.none() | reasons,
        mailbox=st.none() | outcomes,
        accept_all=st.none() | st.booleans(),
        control_differs=st.none() | st.booleans(),
        tells_apart=st.booleans(),
    )
)
def test_undeliverable_always_rests_on_a_proof(evidence: Evidence) -> None:
    verdict = judge(evidence, found_at=0)
    if verdict.result is not Result.UNDELIVERABLE:
        return
    if evidence.cause is not None:
        assert verdict.reason is evidence.cause
        return
    outcome = evidence.mailbox
    assert outcome is not None
    contrasted = evidence.control_differs or evidence.tells_apart
    assert outcome.contrast is None or contrasted
    assert verdict.reason in (outcome.reason, outcome.contrast)


def test_a_temporary_answer_is_not_final_and_says_when_to_ask_again() -> None:
    outcome = Outcome(R.GREYLISTED, SCOPE_OF[R.GREYLISTED], retry_after=300)
    verdict = judge(Evidence(mailbox=outcome), found_at=7)
    assert (verdict.final, verdict.retry_after, verdict.found_at) == (False, 300, 7)
