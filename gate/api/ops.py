"""For whoever runs it: health, readiness, the API's own description, metrics, the try-out page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gate import metrics, widget
from gate.api.problems import KINDS, Problem
from gate.api.reply import JSON, SAFE, Headers, Reply
from gate.doctor.watch import Watch
from gate.engine import Engine
from gate.probing import ON

_BY_STATUS = {404: "not_found", 405: "method_not_allowed"}


class Ops:
    """The quiet routes. `engine` is there once the application is open."""

    def __init__(self, engine: Engine, watch: Watch | None = None) -> None:
        """`watch`: what looks the gate over in the background, if anything does."""
        self._engine = engine
        self._watch = watch

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: the process lives and its event loop turns."""
        return respond(200, b'{"status":"ok"}')

    async def readyz(self, request: Request) -> Response:
        """GET /readyz: what works. Without a store or a resolver checks are still answered."""
        engine = self._engine
        store, resolver = engine.store.healthy, engine.resolver.healthy
        probing, why = probing_of(engine)
        body: dict[str, object] = {
            "status": "ready" if store and resolver else "degraded",
            "store": "ok" if store else "failing",
            "probing": probing,
            "probing_why": why,
            "resolver": "ok" if resolver else "failing",
        }
        if self._watch is not None:
            body["doctor"] = self._watch.summary()
        return respond(200, msgspec.json.encode(body))

    async def page(self, request: Request) -> Response:
        """GET /: the page to try it, in development and sandbox mode only."""
        engine = self._engine
        if not has_page(engine):
            raise Problem("not_found")
        from gate import page  # and the practice world with it, which no gate in public needs

        script = await asyncio.to_thread(widget.script)
        html = page.render(engine.settings, engine.sites[0].site_key, script)
        return respond(200, html, page.headers())


def probing_of(engine: Engine) -> tuple[str, str | None]:
    """`on`, `off`, or `sandbox` for its domains only; and why it is not on (gate/probing.py).

    The operator's own words are not for the public listener.
    """
    state = engine.probing.state
    if state != ON:
        return "off", state
    if engine.identity is not None:
        return "on", None
    return ("sandbox" if engine.settings.sandbox.enabled else "off"), "identity"


def has_page(engine: Engine) -> bool:
    """Whether the try-out page is there."""
    return engine.development_secret is not None or engine.settings.sandbox.enabled


async def describe(request: Request) -> Response:
    """GET /openapi.json."""
    from gate.api import openapi  # made when it is asked for: it takes 20 ms of a start

    return respond(200, openapi.document())


def respond(status: int, body: bytes, headers: Headers = JSON) -> Response:
    """A Starlette response with exactly these headers."""
    response = Response(body, status)
    response.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]
    return response


async def on_problem(request: Request, error: Exception) -> Response:
    """Any exception of a route as its problem document."""
    if isinstance(error, HTTPException):
        headers = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
        problem = Problem(_BY_STATUS.get(error.status_code, "not_found"), headers=headers)
    elif isinstance(error, Problem):
        problem = error
    else:
        problem = Problem("internal_error")
    metrics.PROBLEMS.labels(problem.name).inc()
    reply: Reply = problem.reply()
    return respond(KINDS[problem.name].status, reply.body, reply.headers)


ON_ERROR = {HTTPException: on_problem, Problem: on_problem, Exception: on_problem}


async def _metrics(request: Request) -> Response:
    return respond(200, metrics.render(), [(b"content-type", metrics.CONTENT_TYPE.encode()), *SAFE])


def admin(routes: Sequence[Route] = ()) -> Starlette:
    """The application of the admin listener, which is on loopback and nowhere else."""
    return Starlette(routes=[Route("/metrics", _metrics), *routes], exception_handlers=ON_ERROR)
