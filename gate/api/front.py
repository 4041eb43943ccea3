"""The front door: every HTTP request passes here, and the hot routes are answered here.

One plain ASGI callable instead of a stack of middlewares, because each layer would cost more than
the rest of a remembered check together. It looks at what concerns every request (a key or an
address in the URL, the Host header), answers CORS for the hot routes, turns a `Problem` into its
document, and hands everything else to the router.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from gate import metrics
from gate.api.guard import cors, host_problem, preflight
from gate.api.logs import place
from gate.api.problems import Problem
from gate.api.reply import SAFE, Reply, lines
from gate.api.requests import ClientGone, Request, receive_body, refuse_secrets_in_url
from gate.api.sites import Tenants
from gate.budget import Clock

log = logging.getLogger("gate.api")

Later = Awaitable[Reply]
Handler = Callable[[Request, bytes], Reply | Later]
"""Takes the head and the whole body. Answers at once when nothing has to be waited for."""
VARY: Final = (b"vary", b"Origin")
_VARY: Final = lines([VARY])
HOOKS: Final = "/v1/hooks/"
"""Signup hooks look at a request for themselves: what it proves, where its address stands."""
HEADS_MOST: Final = 1024
"""Heads known again: of each server, one for every length of body it sends."""
BEGUN: Final = "gate.begun"
"""Key of a scope whose request is being answered already: the `Later` to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """What the front hands requests to while the gate is open.

    `hot`: path to handler, POST only. `hooks`: what is below `HOOKS`. `cold`: everything else.
    `development`: only Host headers that name this very machine are served.
    """

    hot: Mapping[str, Handler]
    hooks: ASGIApp
    cold: ASGIApp
    tenants: Tenants
    clock: Clock
    development: bool


class Head(NamedTuple):
    """A head that was read: its request, who answers it, how long its body is."""

    routes: Routes
    handler: Handler
    request: Request
    length: int


class Front:
    """The ASGI application. Without routes it answers 503; `lifespan` hears the server start."""

    def __init__(self, lifespan: ASGIApp) -> None:
        self._lifespan = lifespan
        self.routes: Routes | None = None
        self._heads: dict[bytes, Head] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
        elif BEGUN in scope:
            reply: Reply = await scope[BEGUN]
            await reply(send)
        elif self.routes is None:
            await Problem("unavailable").reply()(send)
        elif scope["path"] in self.routes.hot:
            await _hot(self.routes, scope, receive, send)
        elif scope["path"].startswith(HOOKS):
            await self.routes.hooks(scope, receive, send)
        else:
            await _cold(self.routes, scope, receive, send)

    def read(
        self, path: str, raw: list[tuple[bytes, bytes]], peer: str, length: int
    ) -> Head | Reply | None:
        """The head of a whole POST of HTTP/1.1, for a server that has it in hand.

        A `Reply` says what is wrong with it. None: it is of no hot route.
        """
        routes = self.routes
        if routes is None or path not in routes.hot:
            return None
        try:
            request = Request(raw, peer, routes.clock())
            _look(routes, b"", request.header(b"host"), "1.1")
        except Problem as problem:
            return _told(routes, problem, None)
        return Head(routes, routes.hot[path], request, length)

    def begin(self, head: Head, body: bytes) -> Reply | Later:
        """Begin to answer a whole request.

        A `Reply` is finished. What can be awaited is to be handed over in the scope, as `BEGUN`.
        """
        return _begin(head.routes, head.handler, head.request, body)

    def begin_again(self, head: Head, body: bytes, peer: str) -> Reply | Later:
        """The same for a head that is `known`, which came again from `peer`."""
        routes = head.routes
        return _begin(routes, head.handler, head.request.again(peer, routes.clock()), body)

    def known(self, octets: bytes) -> Head | None:
        """The head that these very octets were before, if they came with a secret key.

        A server sends the same head with each request. Reading it again, header by header, took a
        third of a remembered check: 9 µs of 26.
        """
        head = self._heads.get(sha256(octets).digest())
        return head if head is not None and head.routes is self.routes else None

    def learn(self, octets: bytes, head: Head) -> None:
        """Know a head again that was answered. Neither its octets nor its key are kept."""
        if head.request.caller is None:
            return
        if len(self._heads) >= HEADS_MOST:
            self._heads.clear()
        head.request.headers.pop(b"authorization", None)
        self._heads[sha256(octets).digest()] = head


async def _hot(routes: Routes, scope: Scope, receive: Receive, send: Send) -> None:
    """A hot route under any ASGI server."""
    origin: str | None = None
    try:
        client = scope.get("client")
        request = Request(scope["headers"], client[0] if client else "", routes.clock())
        origin = request.header(b"origin")
        _look(routes, scope["query_string"], request.header(b"host"), scope["http_version"])
        if scope["method"] == "POST":
            body = await receive_body(receive)
            reply = _begin(routes, routes.hot[scope["path"]], request, body)
            if not isinstance(reply, Reply):
                reply = await reply
        else:
            reply = _not_posted(routes, scope["method"], origin)
    except Problem as problem:
        reply = _told(routes, problem, origin)
    except ClientGone:
        return
    await reply(send)


def _begin(routes: Routes, handler: Handler, request: Request, body: bytes) -> Reply | Later:
    """The handler's answer, or what becomes of it; its problems and faults are answers too."""
    try:
        reply = handler(request, body)
    except Exception as error:
        return _failed(routes, request, error)
    if isinstance(reply, Reply):
        reply.ready += _VARY
        return reply
    return _wait(routes, request, reply)


async def _wait(routes: Routes, request: Request, later: Later) -> Reply:
    try:
        reply = await later
    except Exception as error:
        return _failed(routes, request, error)
    reply.ready += _VARY
    return reply


def _failed(routes: Routes, request: Request, error: Exception) -> Reply:
    origin = request.header(b"origin")
    if isinstance(error, Problem):
        return _told(routes, error, origin)
    report(error)
    return _told(routes, Problem("internal_error"), origin)


async def _cold(routes: Routes, scope: Scope, receive: Receive, send: Send) -> None:
    """Everything but the hot routes: looked at in the same way, answered by the router."""
    try:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1:
            raise Problem("invalid_request", "The header host was sent twice.")
        host = hosts[0].decode("latin-1") if hosts else None
        _look(routes, scope["query_string"], host, scope["http_version"])
        await routes.cold(scope, receive, send)
    except Problem as problem:
        await _told(routes, problem, None)(send)
    except Exception as error:
        # The router has sent its problem document already, and raises again for the log.
        report(error)


def _look(routes: Routes, query: bytes, host: str | None, http_version: str) -> None:
    """What concerns every request, whatever its path."""
    refuse_secrets_in_url(query)
    wrong = host_problem(host, http_version, routes.development)
    if wrong is not None:
        detail = "The Host header is missing or malformed." if wrong == "invalid_request" else ""
        raise Problem(wrong, detail)


def _not_posted(routes: Routes, method: str, origin: str | None) -> Reply:
    if method != "OPTIONS":
        raise Problem("method_not_allowed", headers=[(b"allow", b"POST, OPTIONS")])
    if origin is None or not routes.tenants.may_preflight(origin):
        raise Problem("origin_not_allowed")
    return Reply(204, b"", [*SAFE, *preflight(origin), VARY])


def _told(routes: Routes, problem: Problem, origin: str | None) -> Reply:
    """The problem's answer, readable for a page that some site expects."""
    metrics.PROBLEMS.labels(problem.name).inc()
    reply = problem.reply()
    reply.headers.append(VARY)
    refused = problem.name == "origin_not_allowed"
    if origin is not None and not refused and routes.tenants.may_preflight(origin):
        reply.headers.extend(cors(origin))
    return reply


def report(error: Exception) -> None:
    """Log a fault of our own by its kind and place; its text could quote what somebody typed."""
    log.error("unexpected %s in %s", type(error).__name__, place(error))
