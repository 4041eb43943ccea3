"""`Answer`: everything one check says, before any surface turns it into JSON or text."""

from __future__ import annotations

from operator import methodcaller
from typing import Final, Literal

from msgspec import Struct

from gate.address import Address, Fault
from gate.flags import Flags
from gate.policy import Decision
from gate.reason import Reason, Result
from gate.trace import Trace
from gate.verdict import Verdict

Check = Literal["pass", "fail", "unknown", "skipped"]

copied: Final = methodcaller("__copy__")
"""A copy of a record. `copy.copy` first looks for how that is made: 0.3 µs instead of 0.1."""

_DOMAIN_FAILS = frozenset({Reason.INVALID_DOMAIN})
_MX_FAILS = frozenset({Reason.NO_MX, Reason.NULL_MX, Reason.MX_UNROUTABLE})


class Cached(Struct, frozen=True, gc=False):
    """Ages in seconds of remembered facts; None: looked up now, or not at all."""

    mx: float | None = None
    accept_all: float | None = None
    mailbox: float | None = None


class Answer(Struct, kw_only=True, gc=False):
    """The answer to one check. Facts are True, False, or None for *not determined*.

    `email` is what the caller typed and goes back to nobody else. `smtp` is stage, code and
    enhanced code of the reply the verdict rests on. `provider` is the name in providers.toml.

    Answers of one `kind`, where there is one, differ in nothing but id, email, address, when the
    verdict was found, the texts of suggestion, MX and provider, ages and times: what a surface
    makes of the rest, it can make once. `mark` is the keyed hash of the address, where it is
    known already.
    """

    id: str
    email: str
    address: Address | None
    fault: Fault | None
    verdict: Verdict
    decision: Decision
    flags: Flags | None
    did_you_mean: str | None
    accept_all: bool | None
    mx_record: str | None
    provider: str | None
    smtp: tuple[str, int, str | None] | None
    reached_mx: bool | None
    cached: Cached
    trace: Trace
    duration_ms: int = 0
    budget_ms: int = 0
    kind: object | None = None
    mark: bytes | None = None

    def __repr__(self) -> str:
        return f"Answer({self.id!r}, {self.address!r}, {self.verdict!r}, {self.decision!r})"

    @property
    def checks(self) -> dict[str, Check]:
        """How each layer ended: syntax, domain, mx, smtp, accept_all."""
        reason = self.verdict.reason
        if self.address is None:
            return {
                "syntax": "fail",
                "domain": "skipped",
                "mx": "skipped",
                "smtp": "skipped",
                "accept_all": "skipped",
            }
        accept_all: dict[bool | None, Check] = {None: "unknown", True: "fail", False: "pass"}
        return {
            "syntax": "pass",
            "domain": self._domain(reason),
            "mx": self._mx(reason),
            "smtp": self._smtp(),
            "accept_all": accept_all[self.accept_all],
        }

    def _domain(self, reason: Reason) -> Check:
        if reason in _DOMAIN_FAILS:
            return "fail"
        known = self.mx_record is not None or reason in _MX_FAILS
        return "pass" if known else "unknown"

    def _mx(self, reason: Reason) -> Check:
        if reason in _DOMAIN_FAILS:
            return "skipped"
        if reason in _MX_FAILS:
            return "fail"
        return "pass" if self.mx_record is not None else "unknown"

    def _smtp(self) -> Check:
        """Pass: the mailbox was accepted; fail: it was refused; skipped: nobody was asked."""
        result = self.verdict.result
        if self.verdict.reason in _DOMAIN_FAILS | _MX_FAILS or self.reached_mx is None:
            return "skipped"
        if result is Result.UNDELIVERABLE:
            return "fail"
        accepted = self.smtp is not None and self.smtp[1] < 300
        return "pass" if accepted else "unknown"
