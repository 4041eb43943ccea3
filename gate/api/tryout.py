"""POST /try: what a site's own server would do with the form of the page at `/`.

It stands in for that server, in development and sandbox mode only: it takes the form as it was
sent and asks siteverify, in this very process, as the page's site. What it promises: only the page
itself may use it (same origin), within the limits of the site and of the client, because the whole
verdict is in the answer.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response

from gate.api.guard import Caller
from gate.api.ops import respond
from gate.api.problems import Problem
from gate.api.requests import Request, SiteverifyBody, receive_body
from gate.api.service import Service
from gate.api.siteverify import Siteverify, SiteverifyAnswer

FIELD = "signup-gate-response"


class TriedAnswer(Struct, kw_only=True):
    """What the page shows of it."""

    siteverify: SiteverifyAnswer
    token: Annotated[bool, Meta(description="whether the form carried one")]
    milliseconds: float


class TryOut:
    """The page's own server. `there` says whether there is a page at all."""

    def __init__(self, service: Service, siteverify: Siteverify, *, there: bool) -> None:
        self._service = service
        self._siteverify = siteverify
        self._there = there

    async def receive(self, called: StarletteRequest) -> Response:
        """POST /try."""
        if not self._there:
            raise Problem("not_found")
        engine, guard = self._service.engine, self._service.guard
        peer = called.client.host if called.client else ""
        request = Request(called.scope["headers"], peer, engine.clock())
        origin = request.header(b"origin")
        if origin is None or origin.partition("://")[2] != request.header(b"host"):
            raise Problem("origin_not_allowed")
        tenant = guard.tenants.by_site_key(engine.sites[0].site_key)
        if tenant is None or not guard.within_limits(
            Caller(tenant, True, origin, guard.client(request)), "try "
        ):
            raise Problem("too_many_requests")
        form = dict(parse_qsl((await receive_body(called.receive)).decode("utf-8", "replace")))
        body = SiteverifyBody(response=form.get(FIELD, ""), email=form.get("email", ""))
        told = await self._siteverify.verify(request, body, tenant)
        took = (engine.clock() - request.started) * 1000
        tried = TriedAnswer(siteverify=told, token=bool(body.response), milliseconds=round(took, 1))
        return respond(200, msgspec.json.encode(tried))
