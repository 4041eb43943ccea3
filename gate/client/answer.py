"""What the client answers, read from what the gate sent, however new or broken that is.

What it promises: a key it does not know is passed over; a result it does not know is `unknown`, a
decision it does not know lets the person in; anything else that does not fit is a `Failure`. No
`repr` shows an address.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, field

from gate.reason import Choice, Reason, Result

_NOT_ABOUT_THE_PERSON: Final = frozenset(
    {"internal-error", "missing-input-secret", "invalid-input-secret"}
)
"""Error codes of siteverify that say nothing of the token or the address."""
_TITLE_MOST: Final = 80


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no verdict: the reason an answer gives, and a text without an address."""

    reason: Reason
    text: str


class CheckAnswer(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """The verdict on one address. Facts are True, False, or None for *not determined*.

    `reason` and `because` are texts, because a newer gate may know more of them than `Reason`;
    they compare equal to its members. README explains each.
    """

    decision: Choice
    result: Result = Result.UNKNOWN
    reason: str = Reason.UNEXPECTED_ERROR.value
    because: str = ""
    final: bool = True
    failed_open: bool = False
    id: str = ""
    email: str | None = None
    normalized: str | None = None
    user: str | None = None
    domain: str | None = None
    did_you_mean: str | None = None
    disposable: bool | None = None
    relay: bool | None = None
    role: bool | None = None
    free: bool | None = None
    subaddress: bool | None = None
    accept_all: bool | None = None
    mailbox_full: bool | None = None
    mx_record: str | None = None
    smtp_provider: str | None = None
    checks: dict[str, str] = field(default_factory=dict)
    retry_after: int | None = None
    duration_ms: int = 0
    token: str | None = None
    token_expires_in: int | None = None

    @property
    def allowed(self) -> bool:
        """Whether the person goes on; with a warning, if `decision` is warn."""
        return self.decision is not Choice.BLOCK

    def __repr__(self) -> str:
        opened = ", failed_open" if self.failed_open else ""
        return f"CheckAnswer({self.decision}, {self.result}, {self.reason}{opened}, {self.id!r})"


class SiteverifyAnswer(Struct, frozen=True, kw_only=True, rename={"error_codes": "error-codes"}):
    """What became of a form's token, and today's verdict on its address."""

    success: bool
    error_codes: tuple[str, ...] = ()
    decision: Choice | None = None
    result: Result | None = None
    reason: str | None = None
    email: str | None = None
    hostname: str | None = None
    action: str | None = None
    cdata: str | None = None
    challenge_ts: str | None = None
    failed_open: bool = False

    def __repr__(self) -> str:
        opened = ", failed_open" if self.failed_open else ""
        return f"SiteverifyAnswer({self.success}, {self.error_codes}, {self.reason}{opened})"


Got = tuple[int, bytes]
"""Status and body."""
Listed = TypeVar("Listed", bound=StrEnum)
T = TypeVar("T", bound=Struct)


def read_check(got: Got) -> CheckAnswer | Failure:
    """The body of /v1/check or /v1/checks/{id}."""
    tree = _tree(got)
    if isinstance(tree, Failure):
        return tree
    if not isinstance(tree.get("decision"), str):
        return _NONSENSE
    tree["decision"] = _listed(Choice, tree["decision"], Choice.ALLOW)
    tree["result"] = _listed(Result, tree.get("result"), Result.UNKNOWN)
    return _shaped(tree, CheckAnswer)


def read_siteverify(got: Got) -> SiteverifyAnswer | Failure:
    """The body of /v1/siteverify."""
    tree = _tree(got)
    if isinstance(tree, Failure):
        return tree
    for key, kind, unlisted in (
        ("decision", Choice, Choice.ALLOW),
        ("result", Result, Result.UNKNOWN),
    ):
        if tree.get(key) is not None:
            tree[key] = _listed(kind, tree[key], unlisted)
    answer = _shaped(tree, SiteverifyAnswer)
    if isinstance(answer, SiteverifyAnswer) and not answer.success:
        for code in _NOT_ABOUT_THE_PERSON.intersection(answer.error_codes):
            return Failure(Reason.UNEXPECTED_ERROR, f"siteverify answered {code}")
    return answer


def _tree(got: Got) -> dict[str, Any] | Failure:
    status, raw = got
    try:
        tree = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        tree = None
    if status != 200:
        reason = Reason.THROTTLED if status == 429 else Reason.UNEXPECTED_ERROR
        title = tree.get("title") if isinstance(tree, dict) else None
        plain = isinstance(title, str) and title.isprintable() and "@" not in title
        said = f": {title[:_TITLE_MOST]}" if isinstance(title, str) and plain else ""
        return Failure(reason, f"answered with status {status}{said}")
    return tree if isinstance(tree, dict) else _NONSENSE


def _listed(kind: type[Listed], value: Any, unlisted: Listed) -> Listed:
    try:
        return kind(value)
    except ValueError:
        return unlisted


def _shaped(tree: dict[str, Any], shape: type[T]) -> T | Failure:
    try:
        return msgspec.convert(tree, shape)
    except msgspec.ValidationError:
        return _NONSENSE


_NONSENSE: Final = Failure(Reason.UNEXPECTED_ERROR, "what it answered is no answer of a gate")
