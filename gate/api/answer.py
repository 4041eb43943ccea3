"""The JSON of an answer: whole for a server or the command line, trimmed for a browser.

What it promises: every field is always there, and null means *not determined*, never a default
false; a browser learns the decision and a coarse reason, nothing that would help to map a domain's
mailboxes; with `reveal = "domain"` its answer is the same whether the mailbox exists or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gate import policy, typo
from gate.answer import Answer, Cached, Check, copied
from gate.flags import Flags
from gate.reason import VERDICT_OF, Choice, Flag, Reason, Result
from gate.settings import Site


class Smtp(Struct, gc=False):
    """The reply the verdict rests on."""

    stage: str
    code: int
    enhanced: str | None


class CachedAges(Struct, gc=False):
    """Ages in seconds of remembered facts; null: looked up now, or not at all."""

    mx: int | None
    accept_all: int | None
    mailbox: int | None


_NO_AGES: Final = CachedAges(None, None, None)


class TraceStep(Struct, gc=False):
    """One thing that was done, and when it ended, in milliseconds from the start."""

    at_ms: float
    step: str
    detail: str


class FullAnswer(Struct, kw_only=True, gc=False):
    """What a server with the secret key is told."""

    id: str
    email: str
    normalized: str | None
    user: str | None
    domain: str | None
    result: Result
    reason: Reason
    final: Annotated[bool, Meta(description="false: a better answer may follow by itself")]
    decision: Choice
    because: Annotated[str, Meta(description="the reason or flag the decision rests on")]
    did_you_mean: str | None
    disposable: bool | None
    relay: bool | None
    role: bool | None
    free: bool | None
    subaddress: bool | None
    accept_all: bool | None
    mailbox_full: bool | None
    mx_record: str | None
    smtp_provider: str | None
    checks: dict[str, Check]
    smtp: Smtp | None
    cached: CachedAges
    retry_after: Annotated[
        int | None, Meta(description="seconds after which asking again is worthwhile")
    ]
    duration_ms: int
    budget_ms: int
    token: Annotated[str | None, Meta(description="for siteverify; null for what is no address")]
    token_expires_in: int | None
    detail: Annotated[
        str | UnsetType, Meta(description="only with invalid_email: what is wrong with it")
    ] = UNSET
    position: Annotated[
        int | UnsetType,
        Meta(description="only with invalid_email: index of the character at fault"),
    ] = UNSET
    trace: list[TraceStep] | UnsetType = UNSET
    transcript: list[str] | UnsetType = UNSET


class BrowserAnswer(Struct, kw_only=True, gc=False):
    """What a page with the site key is told."""

    decision: Choice
    reason: Annotated[str, Meta(description="one of the coarse reasons")]
    did_you_mean: str | None
    message: Annotated[str | None, Meta(description="English text to show; null: say nothing")]
    final: bool
    token: str | None
    token_expires_in: int | None


_COARSE: Final[Mapping[Reason, Reason]] = MappingProxyType(
    {
        Reason.ACCEPT_ALL: Reason.ACCEPTED_EMAIL,
        Reason.NO_MX: Reason.INVALID_DOMAIN,
        Reason.NULL_MX: Reason.INVALID_DOMAIN,
        Reason.MAILBOX_DISABLED: Reason.REJECTED_EMAIL,
    }
)
_KEPT: Final = frozenset(
    {
        Reason.ACCEPTED_EMAIL,
        Reason.INVALID_EMAIL,
        Reason.INVALID_DOMAIN,
        Reason.REJECTED_EMAIL,
        Reason.MAILBOX_FULL,
        Reason.TIMEOUT,
        Reason.THROTTLED,
    }
)
_OF_THE_DOMAIN: Final = frozenset(
    {Reason.INVALID_EMAIL, Reason.INVALID_DOMAIN, Reason.NO_MX, Reason.NULL_MX}
)
"""What a page may learn with `reveal = "domain"`: syntax, and what anybody can ask the DNS."""

COARSE: Final = (
    *sorted(_KEPT | {Reason.UNCONFIRMED}),
    *sorted(set(Flag) - {Flag.ALLOWED_BY_RULE}),
)
"""Every reason a browser can be given: few enough to say nothing about how we found out."""

MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        Reason.INVALID_EMAIL: "This does not look like an e-mail address.",
        Reason.INVALID_DOMAIN: "The part after the @ cannot receive e-mail. Is it spelled right?",
        Reason.REJECTED_EMAIL: "This mailbox does not exist. Is it spelled right?",
        Reason.MAILBOX_FULL: "This mailbox is full. Our message may not reach you.",
        Flag.DISPOSABLE: "Please use an address that you keep.",
        Flag.POSSIBLE_TYPO: "Is this address spelled right?",
        Flag.ROLE: "Please use a personal address.",
        Flag.RELAY: "Please use an address of your own, not a forwarding service.",
        Flag.FREE: "Please use an address of your company.",
        Flag.BLOCKED_BY_RULE: "This address cannot be used here.",
    }
)
"""What a form may show for a coarse reason, in English; the widget has other languages."""
_MESSAGE_ELSE: Final = "We could not confirm this address. Is it spelled right?"


class View(Struct, frozen=True, gc=False):
    """What one caller is let see of an answer; the token and the log line say the same."""

    result: Result
    reason: str
    decision: Choice
    did_you_mean: str | None
    final: bool


def whole(answer: Answer, site: Site) -> View:
    """The view of a server."""
    verdict = answer.verdict
    return View(
        verdict.result,
        verdict.reason,
        answer.decision.choice,
        answer.did_you_mean,
        verdict.final,
    )


def coarse(answer: Answer, site: Site) -> View:
    """The view of a browser on a page of `site`."""
    verdict, decision, suggestion = answer.verdict, answer.decision, answer.did_you_mean
    reason, final = verdict.reason, verdict.final
    if site.reveal == "domain" and reason not in _OF_THE_DOMAIN and answer.address is not None:
        # Decided anew as if the mailbox had never been asked; the suggestion too, because one is
        # dropped for a mailbox that was accepted.
        reason, final = Reason.UNCONFIRMED, True
        suggestion = typo.suggest(answer.address)
        decision = policy.decide(
            reason=reason,
            result=VERDICT_OF[reason],
            flags=_raised(answer.flags, suggestion),
            policy=site.policy,
            listed=policy.match(answer.address.exact, answer.address.domain, site.policy),
            observe=site.mode == "observe",
        )
    shown = _COARSE.get(reason, reason)
    if shown not in _KEPT:
        shown = Reason.UNCONFIRMED
    because = decision.because
    flagged = isinstance(because, Flag) and because is not Flag.ALLOWED_BY_RULE
    return View(
        VERDICT_OF[shown],
        because.value if flagged else shown.value,
        decision.choice,
        suggestion,
        final,
    )


def _raised(flags: Flags | None, suggestion: str | None) -> frozenset[Flag]:
    raised = {Flag.POSSIBLE_TYPO} if suggestion else set()
    if flags is not None:
        names = (Flag.DISPOSABLE, Flag.RELAY, Flag.ROLE, Flag.FREE)
        raised.update(flag for flag in names if getattr(flags, flag.value))
    return frozenset(raised)


def full(
    answer: Answer,
    *,
    token: str | None = None,
    expires_in: int | None = None,
    explain: bool = False,
) -> FullAnswer:
    """The whole answer. Encode it with `encode`."""
    address = answer.address
    body: FullAnswer = copied(_mould(answer))
    body.id, body.email = answer.id, answer.email
    if address is not None:
        body.normalized, body.user, body.domain = address.reveal(), address.local, address.domain
    body.did_you_mean = answer.did_you_mean
    body.mx_record, body.smtp_provider = answer.mx_record, answer.provider
    body.cached = _ages(answer.cached)
    body.duration_ms, body.budget_ms = answer.duration_ms, answer.budget_ms
    body.token, body.token_expires_in = token, expires_in
    if answer.fault is not None:
        body.detail, body.position = answer.fault.detail, answer.fault.position
    if explain:
        body.trace = [TraceStep(s.at_ms, s.name, s.detail) for s in answer.trace.steps]
        body.transcript = list(answer.trace.transcript)
    return body


_moulds: Final[dict[object, FullAnswer]] = {}
_MOULDS_MOST: Final = 1024


def _mould(answer: Answer) -> FullAnswer:
    """What the answers of one kind have in common, made once: 2 µs an answer instead of 5."""
    kind = answer.kind
    if kind is None:
        return _common(answer)
    mould = _moulds.get(kind)
    if mould is None:
        if len(_moulds) >= _MOULDS_MOST:
            _moulds.clear()
        mould = _moulds[kind] = _common(answer)
    return mould


def _common(answer: Answer) -> FullAnswer:
    verdict, flags = answer.verdict, answer.flags
    return FullAnswer(
        id="",
        email="",
        normalized=None,
        user=None,
        domain=None,
        result=verdict.result,
        reason=verdict.reason,
        final=verdict.final,
        decision=answer.decision.choice,
        because=answer.decision.because.value,
        did_you_mean=None,
        disposable=flags.disposable if flags else None,
        relay=flags.relay if flags else None,
        role=flags.role if flags else None,
        free=flags.free if flags else None,
        subaddress=flags.subaddress if flags else None,
        accept_all=answer.accept_all,
        mailbox_full=verdict.mailbox_full,
        mx_record=None,
        smtp_provider=None,
        checks=answer.checks,
        smtp=Smtp(*answer.smtp) if answer.smtp else None,
        cached=_NO_AGES,
        retry_after=verdict.retry_after,
        duration_ms=0,
        budget_ms=0,
        token=None,
        token_expires_in=None,
    )


def trimmed(view: View, *, token: str | None, expires_in: int | None) -> BrowserAnswer:
    """The browser's answer."""
    message = None
    if view.decision is not Choice.ALLOW:
        message = MESSAGES.get(view.reason, _MESSAGE_ELSE)
    return BrowserAnswer(
        decision=view.decision,
        reason=view.reason,
        did_you_mean=view.did_you_mean,
        message=message,
        final=view.final,
        token=token,
        token_expires_in=expires_in,
    )


def _ages(cached: Cached) -> CachedAges:
    mx, accept_all, mailbox = cached.mx, cached.accept_all, cached.mailbox
    return CachedAges(
        None if mx is None else int(mx),
        None if accept_all is None else int(accept_all),
        None if mailbox is None else int(mailbox),
    )


_encoder = msgspec.json.Encoder()


def encode(body: Any) -> bytes:
    """A record as JSON text, in UTF-8."""
    return _encoder.encode(body)
