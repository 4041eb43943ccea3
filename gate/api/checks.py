"""POST /v1/check, GET /v1/checks/{id}, POST /v1/prefetch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response

from gate import address as addresses
from gate.address import Fault
from gate.answer import Answer
from gate.api.answer import View, coarse, encode, full, trimmed, whole
from gate.api.front import Later
from gate.api.guard import Caller
from gate.api.journal import Note
from gate.api.problems import Problem
from gate.api.reply import JSON, SAFE, Reply, lines
from gate.api.requests import CheckBody, PrefetchBody, Request
from gate.api.service import Service
from gate.api.sites import Tenant
from gate.api.testkeys import fixed_answer
from gate.api.unasked import unasked
from gate.budget import ANSWER_RESERVE, TOKEN, Deadline
from gate.reason import Reason
from gate.settings import Site
from gate.token import Claims, mint
from gate.trace import Trace

PREFETCHES: Final = 64
"""Prefetches in the background at the same time; more are dropped, they are only a favour."""
See = Callable[[Answer, Site], View]
_TOLD: Final = lines([*JSON, (b"x-request-id", b"%b"), (b"server-timing", b"gate;dur=%.2f")])
"""What an answer to a server carries, but for the two that are its own."""
_TOKEN_LASTS: Final = int(TOKEN)
_CHECK_ID = re.compile(r"chk_[0-9a-f]{32}")


class Ask(Struct, frozen=True, gc=False):
    """One request for a verdict that was admitted."""

    request: Request
    body: CheckBody
    caller: Caller
    budget_ms: int


class Checks:
    """The surface that says whether an address can receive mail."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._engine = service.engine
        self._guard = service.guard
        self._budget_ms = service.engine.settings.probe.budget_ms
        self._prefetches: set[asyncio.Task[None]] = set()

    def check(self, request: Request, raw: bytes) -> Reply | Later:
        """POST /v1/check: 200 for every verdict, a bad address included."""
        caller = self._guard.by_header(request)
        body = request.read(raw, CheckBody)
        if caller is None:
            caller = self._guard.by_site_key(request, body.sitekey)
        budget_ms = body.timeout_ms or self._budget_ms
        ask = Ask(request, body, caller, budget_ms)
        if not caller.public:
            self._guard.charge(caller.tenant, body.remoteip)
        elif body.max_age is not None or body.remoteip is not None or body.explain:
            raise Problem(
                "invalid_request",
                "max_age, remoteip and explain are for calls with the secret key.",
            )
        elif not self._guard.within_limits(caller):
            return self._tell(ask, self._throttled(ask), whole)
        if caller.tenant.fixed is None and not body.explain:
            answer = self._engine.checker.recall(
                body.email,
                site=caller.tenant.site,
                budget_ms=budget_ms,
                max_age=body.max_age,
            )
            if answer is not None:
                return self._tell(ask, answer)
        return self._find_out(ask)

    def _deadline(self, ask: Ask) -> Deadline:
        """When the answer has to be there, so that it can be written in time."""
        seconds = ask.budget_ms / 1000 - ANSWER_RESERVE
        return Deadline(ask.request.started + seconds, self._engine.clock)

    async def _find_out(self, ask: Ask) -> Reply:
        engine, tenant, body = self._engine, ask.caller.tenant, ask.body
        deadline = self._deadline(ask)
        if tenant.fixed is not None:
            await asyncio.sleep(min(tenant.fixed.delay, deadline.left()))
            return self._tell(
                ask,
                fixed_answer(
                    body.email, tenant.fixed, tenant.site, clock=engine.clock, wall=engine.wall
                ),
            )
        answer = await engine.checker.check(
            body.email,
            site=tenant.site,
            deadline=deadline,
            max_age=body.max_age,
            trace=Trace(engine.clock) if body.explain else None,
        )
        return self._tell(ask, answer)

    def _throttled(self, ask: Ask) -> Answer:
        """What a page over its limits is told: the person goes on, siteverify looks again.

        What is no address at all needs nobody's help to be seen.
        """
        bad = isinstance(addresses.parse(ask.body.email), Fault)
        return unasked(
            ask.body.email,
            ask.caller.tenant.site,
            Reason.INVALID_EMAIL if bad else Reason.THROTTLED,
            clock=self._engine.clock,
            wall=self._engine.wall,
            suggestion=None,
        )

    def _tell(self, ask: Ask, answer: Answer, see: See | None = None) -> Reply:
        """The decision as the caller may see it; it is set down for the log and the metrics."""
        caller, engine = ask.caller, self._engine
        site = caller.tenant.site
        see = see or (coarse if caller.public else whole)
        view = see(answer, site)
        mark = answer.mark or self._mark(answer, caller.tenant)
        now = engine.wall()
        token = self._token(ask, answer, mark, view, now) if mark is not None else None
        expires_in = _TOKEN_LASTS if token else None
        request_id = self._service.request_id()
        seconds = engine.clock() - ask.request.started
        key = "public" if caller.public else "secret"
        self._service.journal.wrote(
            Note(
                answer,
                now,
                request_id,
                site.name,
                key,
                view.decision,
                mark,
                seconds,
                ask.budget_ms,
            )
        )
        if caller.public:
            body = encode(trimmed(view, token=token, expires_in=expires_in))
            return Reply(200, body, [*JSON, *caller.cors])
        told = full(answer, token=token, expires_in=expires_in, explain=ask.body.explain)
        told.duration_ms, told.budget_ms = round(seconds * 1000), ask.budget_ms
        return Reply(200, encode(told), [], _TOLD % (request_id.encode(), seconds * 1000))

    def _mark(self, answer: Answer, tenant: Tenant) -> bytes | None:
        """The keyed hash of the address, for the token and the log; None for what is no address."""
        if answer.address is not None:
            return self._engine.keys.address_hash(tenant.site.name, answer.address.exact)
        if tenant.fixed is not None:
            return self._engine.keys.address_hash(tenant.site.name, answer.email)
        return None

    def _token(self, ask: Ask, answer: Answer, mark: bytes, view: View, now: float) -> str:
        """A token that says what the caller was told, and no more: its payload can be read."""
        tenant = ask.caller.tenant
        return mint(
            self._engine.keys,
            Claims(
                site=tenant.site.name,
                check=answer.id,
                address=mark,
                hostname=ask.caller.hostname,
                action=ask.body.action,
                cdata=ask.body.cdata,
                issued=now,
                expires=now + TOKEN,
                result=view.result,
                reason=view.reason,
                decision=view.decision,
                env=tenant.env,
            ),
        )

    def prefetch(self, request: Request, raw: bytes) -> Reply:
        """POST /v1/prefetch: 204 at once. In the background, if we may, the domain is looked up and
        its mail host connected to."""
        caller = self._guard.by_header(request)
        body = request.read(raw, PrefetchBody)
        if caller is None:
            caller = self._guard.by_site_key(request, body.sitekey)
        if caller.public:
            allowed = self._guard.within_limits(caller, "prefetch ")
        else:
            self._guard.charge(caller.tenant)
            allowed = True
        if allowed and caller.tenant.fixed is None and len(self._prefetches) < PREFETCHES:
            task = asyncio.create_task(
                self._engine.checker.prefetch(body.domain, site=caller.tenant.site.name)
            )
            self._prefetches.add(task)
            task.add_done_callback(self._prefetches.discard)
        return Reply(204, b"", [*SAFE, *caller.cors])

    async def find(self, request: StarletteRequest) -> Response:
        """GET /v1/checks/{id}: the newest answer, a late verdict included."""
        called = Request(request.scope["headers"], "", self._engine.clock())
        tenant = self._guard.server(called)
        self._guard.charge(tenant)
        check_id = request.path_params["id"]
        answer = None
        if _CHECK_ID.fullmatch(check_id):
            answer = await self._engine.checker.latest(check_id, tenant.site, wait=0.0)
        if answer is None:
            raise Problem("not_found", "No check of this site has this id, or it was too long ago.")
        headers = {name.decode(): value.decode() for name, value in JSON}
        headers["x-request-id"] = self._service.request_id()
        return Response(encode(full(answer)), headers=headers)

    async def close(self) -> None:
        """End what runs in the background."""
        tasks = list(self._prefetches)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
