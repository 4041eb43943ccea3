"""POST /v1/siteverify: is this token good, and what is today's verdict on its address?

The shape and the error codes are Cloudflare Turnstile's, so a server that verifies its tokens can
be pointed here; `email-mismatch` and `email-rejected` are added. Every answer is 200 with a body
of this shape, our own faults included: a status code of 5xx would make sites turn people away.

Rules:

1. The seal of a token is looked at before anything it says.
2. A token is spent by one atomic claim in the store, before the answer is looked up.
3. A retry with the same `idempotency_key` gets the first answer again for ten minutes.
4. The verdict is today's: a flight that landed after the token was made counts, and one about to
   land is waited for. When the check is forgotten, and no address came along, the token's word
   counts.
5. While the store cannot write, memory decides whether a token is spent (gate/store).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from gate import address as addresses
from gate import metrics
from gate.address import Address
from gate.answer import Answer
from gate.api.answer import encode
from gate.api.front import report
from gate.api.guard import bearer
from gate.api.journal import Line, remembered
from gate.api.problems import Problem
from gate.api.reply import JSON, Reply
from gate.api.requests import Request, SiteverifyBody
from gate.api.service import Service
from gate.api.sites import Tenant
from gate.api.testkeys import fixed_answer
from gate.budget import ANSWER_RESERVE, IDEMPOTENCY, SITEVERIFY_JOIN, TOKEN_SKEW, Deadline
from gate.reason import Choice
from gate.token import Claims, TokenFault, open_token

MISSING_SECRET: Final = "missing-input-secret"  # noqa: S105 - an error code
INVALID_SECRET: Final = "invalid-input-secret"  # noqa: S105 - an error code
MISSING_RESPONSE: Final = "missing-input-response"
INVALID_RESPONSE: Final = "invalid-input-response"
BAD_REQUEST: Final = "bad-request"
SPENT: Final = "timeout-or-duplicate"
INTERNAL: Final = "internal-error"
MISMATCH: Final = "email-mismatch"
REJECTED: Final = "email-rejected"
ERROR_CODES: Final = (
    MISSING_SECRET,
    INVALID_SECRET,
    MISSING_RESPONSE,
    INVALID_RESPONSE,
    BAD_REQUEST,
    SPENT,
    INTERNAL,
    MISMATCH,
    REJECTED,
)
"""Turnstile's seven, and two of ours."""


class SiteverifyAnswer(Struct, kw_only=True, gc=False, rename={"error_codes": "error-codes"}):
    """Turnstile's answer, and the verdict beside it."""

    success: bool
    challenge_ts: Annotated[
        str | None, Meta(description="when the token was made, ISO 8601 in UTC")
    ] = None
    hostname: str | None = None
    error_codes: list[str] = msgspec.field(default_factory=list)
    action: str | None = None
    cdata: str | None = None
    email: str | None = None
    result: str | None = None
    reason: str | None = None
    decision: Choice | None = None


class Kept(Struct, array_like=True, gc=False):
    """A first answer as it is stored for retries: without the address."""

    check: str
    answer: SiteverifyAnswer


class Refused(Exception):
    """Ends a call with one error code."""


class Siteverify:
    """The surface for the site's own server, when the form arrives there."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._engine = service.engine
        self._guard = service.guard

    async def __call__(self, request: Request, raw: bytes) -> Reply:
        """Answer one call. Raises `Problem` only for 415 and 429."""
        try:
            body = _read(request, raw)
            told = await self.verify(request, body, self._tenant(request, body))
        except Refused as refused:
            told = self._refused(request, None, str(refused))
        headers = [*JSON, (b"x-request-id", self._service.request_id().encode())]
        return Reply(200, encode(told), headers)

    async def verify(
        self, request: Request, body: SiteverifyBody, tenant: Tenant
    ) -> SiteverifyAnswer:
        """What a call of the site's server is told. Raises `Problem` only for 429."""
        try:
            self._guard.charge(tenant)
            return await self._verify(request, body, tenant)
        except Refused as refused:
            return self._refused(request, tenant, str(refused))
        except Problem:
            raise
        except Exception as error:
            report(error)
            return self._refused(request, tenant, INTERNAL)

    def _refused(self, request: Request, tenant: Tenant | None, code: str) -> SiteverifyAnswer:
        told = SiteverifyAnswer(success=False, error_codes=[code])
        self._note(request, tenant, told, None, None)
        return told

    async def _verify(
        self, request: Request, body: SiteverifyBody, tenant: Tenant
    ) -> SiteverifyAnswer:
        if not body.response:
            if not body.email:
                raise Refused(MISSING_RESPONSE)
            answer = await self._inline(request, body, tenant)
            return self._told(request, tenant, body, answer, None)
        first = await self._first(tenant, body)
        if first is not None:
            return first
        claims = self._opened(tenant, body)
        await self._spend(tenant, body, claims)
        newest = await self._today(request, body, tenant, claims)
        told = self._told(request, tenant, body, newest, claims)
        await self._keep(tenant, body, claims, told)
        return told

    def _tenant(self, request: Request, body: SiteverifyBody) -> Tenant:
        secret = body.secret
        if not secret:
            try:
                secret = bearer(request) or ""
            except Problem:
                raise Refused(INVALID_SECRET) from None
        if not secret:
            raise Refused(MISSING_SECRET)
        tenant = self._guard.tenants.by_secret(secret)
        if tenant is None:
            raise Refused(INVALID_SECRET)
        return tenant

    def _opened(self, tenant: Tenant, body: SiteverifyBody) -> Claims:
        """The token's claims, if they are this site's and about this address."""
        engine, site = self._engine, tenant.site.name
        opened = open_token(engine.keys, body.response, engine.wall())
        if isinstance(opened, TokenFault):
            raise Refused(SPENT if opened is TokenFault.EXPIRED else INVALID_RESPONSE)
        if opened.site != site or opened.env != tenant.env:
            raise Refused(INVALID_RESPONSE)
        if body.email:
            parsed = addresses.parse(body.email)
            exact = parsed.exact if isinstance(parsed, Address) else body.email
            if not engine.keys.stands_for(opened.address, site, exact):
                raise Refused(MISMATCH)
        return opened

    async def _spend(self, tenant: Tenant, body: SiteverifyBody, claims: Claims) -> None:
        """Claim the token; the second to come is refused, unless it is a retry of the first."""
        if tenant.fixed is not None and tenant.fixed.spent:
            raise Refused(SPENT)
        key = hashlib.sha256(b"token\0" + body.response.encode()).digest()
        mark = hashlib.sha256(b"retry\0" + body.idempotency_key.encode()).digest()
        first = await self._engine.store.claim(
            key, expires=claims.expires + 2 * TOKEN_SKEW, value=mark
        )
        if first is not None and not (body.idempotency_key and first == mark):
            raise Refused(SPENT)

    async def _today(
        self, request: Request, body: SiteverifyBody, tenant: Tenant, claims: Claims
    ) -> Answer | None:
        """The newest answer about the token's address; None when only the token knows."""
        if tenant.fixed is not None:
            return None
        answer = await self._engine.checker.latest(claims.check, tenant.site, wait=SITEVERIFY_JOIN)
        if answer is None and body.email:
            answer = await self._inline(request, body, tenant)
        return answer

    async def _inline(self, request: Request, body: SiteverifyBody, tenant: Tenant) -> Answer:
        """Check the address now: forms without JavaScript, apps and curl use the same call."""
        engine = self._engine
        if tenant.fixed is not None:
            return fixed_answer(
                body.email, tenant.fixed, tenant.site, clock=engine.clock, wall=engine.wall
            )
        seconds = engine.settings.probe.budget_ms / 1000 - ANSWER_RESERVE
        deadline = Deadline(engine.clock() + seconds, engine.clock)
        return await engine.checker.check(body.email, site=tenant.site, deadline=deadline)

    async def _first(self, tenant: Tenant, body: SiteverifyBody) -> SiteverifyAnswer | None:
        """The answer this very call was given before, if it is a retry."""
        if not body.idempotency_key:
            return None
        raw = await self._engine.store.get(_retry_key(tenant, body))
        if raw is None:
            return None
        kept = msgspec.msgpack.decode(raw, type=Kept)
        found = self._engine.checker.find(kept.check, tenant.site)
        kept.answer.email = _email(body, found)
        return kept.answer

    async def _keep(
        self, tenant: Tenant, body: SiteverifyBody, claims: Claims, told: SiteverifyAnswer
    ) -> None:
        if body.idempotency_key:
            kept = Kept(claims.check, msgspec.structs.replace(told, email=None))
            expires = self._engine.wall() + IDEMPOTENCY
            await self._engine.store.put(
                _retry_key(tenant, body), msgspec.msgpack.encode(kept), expires=expires
            )

    def _told(
        self,
        request: Request,
        tenant: Tenant,
        body: SiteverifyBody,
        answer: Answer | None,
        claims: Claims | None,
    ) -> SiteverifyAnswer:
        """What is answered: today's verdict, or else the token's word."""
        said: tuple[str, str, Choice]
        if answer is not None:
            said = answer.verdict.result, answer.verdict.reason, answer.decision.choice
        else:
            assert claims is not None
            said = claims.result, claims.reason, Choice(claims.decision)
        accepted = said[2] is not Choice.BLOCK
        told = SiteverifyAnswer(
            success=accepted,
            challenge_ts=_timestamp(claims.issued if claims else self._engine.wall()),
            hostname=claims.hostname if claims else "",
            error_codes=[] if accepted else [REJECTED],
            action=claims.action if claims else "",
            cdata=claims.cdata if claims else "",
            email=_email(body, answer),
            result=said[0],
            reason=said[1],
            decision=said[2],
        )
        self._note(request, tenant, told, answer, claims)
        return told

    def _note(
        self,
        request: Request,
        tenant: Tenant | None,
        told: SiteverifyAnswer,
        answer: Answer | None,
        claims: Claims | None,
    ) -> None:
        """Count the call, and write its line; a call without a site of ours has none."""
        outcome = told.error_codes[0] if told.error_codes else "success"
        metrics.SITEVERIFY.labels(outcome).inc()
        if tenant is None:
            return
        engine = self._engine
        address = answer.address if answer else None
        digest = claims.address if claims else None
        if address is not None:
            digest = engine.keys.address_hash(tenant.site.name, address.exact)
        self._service.journal.wrote(
            Line(
                ts=round(engine.wall(), 3),
                request=self._service.request_id(),
                site=tenant.site.name,
                key="siteverify",
                check=answer.id if answer else claims.check if claims else None,
                address=digest.hex() if digest is not None else None,
                domain=address.domain if address else None,
                result=told.result,
                reason=told.reason,
                decision=told.decision,
                because=answer.decision.because if answer else told.reason,
                would_be=answer.decision.would_be if answer else told.decision,
                final=answer.verdict.final if answer else None,
                remembered=remembered(answer) if answer else None,
                outcome=outcome,
                duration_ms=round((engine.clock() - request.started) * 1000, 2),
                budget_ms=engine.settings.probe.budget_ms,
            )
        )


def _email(body: SiteverifyBody, answer: Answer | None) -> str | None:
    """The address as it is repeated: the checked one, else the one that was sent along."""
    if answer is not None and answer.address is not None:
        return answer.address.reveal()
    return body.email or None


def _read(request: Request, raw: bytes) -> SiteverifyBody:
    try:
        return request.read(raw, SiteverifyBody)
    except Problem as problem:
        if problem.name == "invalid_request":
            raise Refused(BAD_REQUEST) from None
        raise


def _retry_key(tenant: Tenant, body: SiteverifyBody) -> bytes:
    """Where the first answer to a token and an idempotency key is kept."""
    parts = (tenant.site.name, body.response, body.email, body.idempotency_key)
    return hashlib.sha256(b"answer\0" + msgspec.json.encode(parts)).digest()


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
