"""`SignupGate`: ASGI middleware that asks the gate before a signup reaches the application.

    app.add_middleware(SignupGate, gate=AsyncGate(URL, SECRET_KEY), path="/signup")

What it promises: only the named paths and methods are looked at, everything else passes untouched;
the application reads the very octets that came, as soon as it would have; at most `body_most` of
them are held here. A block is answered with 422 and a problem document (RFC 9457), or with what
`on_block` says. A warning goes on to the application, which finds the answer in
`request.state.signup_gate`. Whatever fails here, the person goes on.

With `add_middleware` the last one added is the outermost: add `CORSMiddleware` after this one, so
that pages of another origin can read the refusal.

Bugs: a body of more than `body_most` octets passes unchecked when the field is not whole within
them; so does one with no such field, whose absence is the application's to complain of.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from inspect import isawaitable
from typing import Any, Final, NamedTuple, Protocol, Self

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gate.api.answer import MESSAGES
from gate.api.problems import URN
from gate.api.reply import PROBLEM, Reply
from gate.client import AsyncGate, CheckAnswer
from gate.middleware.body import values_of
from gate.middleware.local import LocalGate
from gate.reason import Choice, Reason

__all__ = ["AsyncGate", "CheckAnswer", "LocalGate", "SignupGate"]

log = logging.getLogger("gate.middleware")

BODY_MOST: Final = 256 * 1024
"""Octets held of one body. Forms with files are longer, but begin with their fields."""
VALUES_MOST: Final = 3
"""Different addresses of one field that are checked; nobody means more than one."""
STATE: Final = "signup_gate"
_RANK: Final = {Choice.ALLOW: 0, Choice.WARN: 1, Choice.BLOCK: 2}


class Asked(Protocol):
    """What can be asked: `AsyncGate` for a running gate, `LocalGate` for one in this process."""

    async def check(self, email: str, *, remoteip: str | None = None) -> CheckAnswer: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: Any) -> None: ...


OnBlock = Callable[[Scope, CheckAnswer], ASGIApp | Awaitable[ASGIApp | None] | None]
"""What to answer instead of a problem document: a redirect, a page, any response of Starlette.
None: the application goes on, and shows its own form with what it finds in the state."""


class SignupGate:
    """The middleware.

    `gate`: whom to ask; opened and closed with the application. `path`: one, several, or a pattern
    that fits whole paths. `field`: name of the form field or JSON key (`user.email` for one inside
    another); several are tried in order. `block_warned`: what the policy warns of is blocked too.
    `client`: finds the person's IP address, to be counted at the gate; behind a proxy the
    connection's own is the proxy's, so unset nobody's is sent.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        gate: Asked,
        path: str | Collection[str] | re.Pattern[str],
        field: str | Sequence[str] = "email",
        methods: Collection[str] = ("POST",),
        block_warned: bool = False,
        on_block: OnBlock | None = None,
        client: Callable[[Scope], str | None] | None = None,
        body_most: int = BODY_MOST,
    ) -> None:
        self._app = app
        self._gate = gate
        self._path = frozenset([path]) if isinstance(path, str) else path
        self._fields = [field] if isinstance(field, str) else list(field)
        self._methods = frozenset(methods)
        self._refused = {Choice.BLOCK, Choice.WARN} if block_warned else {Choice.BLOCK}
        self._on_block = on_block
        self._client = client
        self._body_most = body_most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _Lifespan(self._app, self._gate)(scope, receive, send)
        elif scope["type"] == "http" and self._is_signup(scope):
            await self._signup(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_signup(self, scope: Scope) -> bool:
        if scope["method"] not in self._methods:
            return False
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if isinstance(self._path, re.Pattern):
            return self._path.fullmatch(path) is not None
        return path in self._path

    async def _signup(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = await _hold(receive, self._body_most)
        answer = await self._asked(scope, held)
        if answer is not None:
            scope = {**scope, "state": {**(scope.get("state") or {}), STATE: answer}}
        app: ASGIApp | None = self._app
        if answer is not None and answer.decision in self._refused:
            app = await self._instead(scope, answer)
        await (app or self._app)(scope, _replay(held, receive), send)

    async def _asked(self, scope: Scope, held: _Held) -> CheckAnswer | None:
        """The strictest answer about what stands in the field; None: there is nothing to ask."""
        try:
            kinds = [value for name, value in scope["headers"] if name == b"content-type"]
            kind = kinds[0].decode("latin-1") if kinds else ""
            values = values_of(held.body, kind, self._fields, whole=held.whole)
            if not values:
                if not held.whole:
                    log.warning("a signup of more than %d octets passes unchecked", len(held.body))
                return None
            remoteip = self._client(scope) if self._client else None
            answers = await asyncio.gather(
                *(self._gate.check(value, remoteip=remoteip) for value in values[:VALUES_MOST])
            )
            return max(answers, key=lambda answer: _RANK[answer.decision])
        except Exception as error:
            # Its text could quote what somebody typed.
            log.error("unexpected %s; the person is let in", type(error).__name__)
            return None

    async def _instead(self, scope: Scope, answer: CheckAnswer) -> ASGIApp | None:
        if self._on_block is None:
            return problem(answer)
        chosen = self._on_block(scope, answer)
        return await chosen if isawaitable(chosen) else chosen


class _Held(NamedTuple):
    """What was read of a body. Not `whole`: it is longer, or `gone`, the person hung up."""

    body: bytes
    whole: bool
    gone: Message | None


async def _hold(receive: Receive, most: int) -> _Held:
    """Read until the body ends or is longer than `most`."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return _Held(bytes(body), False, message)
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return _Held(bytes(body), True, None)
        if len(body) > most:
            return _Held(bytes(body), False, None)


def _replay(held: _Held, receive: Receive) -> Receive:
    """What the application receives: what was held, then whatever comes."""
    waiting: list[Message] = [
        {"type": "http.request", "body": held.body, "more_body": not held.whole}
    ]
    if held.gone is not None:
        waiting.append(held.gone)

    async def replay() -> Message:
        return waiting.pop(0) if waiting else await receive()

    return replay


def problem(answer: CheckAnswer) -> ASGIApp:
    """What a blocked person's page is told: 422, why in words for people, and the suggestion."""
    document = {
        "type": f"{URN}address_refused",
        "title": "The e-mail address cannot be used",
        "status": 422,
        "detail": message_of(answer),
        "reason": answer.because or answer.reason,
        "did_you_mean": answer.did_you_mean,
    }
    reply = Reply(422, msgspec.json.encode(document), [*PROBLEM])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send)

    return app


_SAID_AS: Final[Mapping[str, str]] = {
    Reason.NO_MX: Reason.INVALID_DOMAIN,
    Reason.NULL_MX: Reason.INVALID_DOMAIN,
    Reason.MAILBOX_DISABLED: Reason.REJECTED_EMAIL,
}
_ELSE: Final = "We could not confirm this address. Is it spelled right?"


def message_of(answer: CheckAnswer) -> str:
    """English text to show beside the field, for an answer that is not simply allow."""
    because = answer.because or answer.reason
    return MESSAGES.get(_SAID_AS.get(because, because)) or _ELSE


class _Lifespan:
    """Opens the gate before the application starts, and closes it after it has stopped.

    An application that knows no lifespan is served none the worse: its part is played here.
    """

    def __init__(self, app: ASGIApp, gate: Asked) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        try:
            gate = await self._gate.__aenter__()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        try:
            await self._run(message, scope, receive, send)
        finally:
            await gate.__aexit__(None, None, None)

    async def _run(self, first: Message, scope: Scope, receive: Receive, send: Send) -> None:
        waiting = [first]
        answered = False

        async def replay() -> Message:
            return waiting.pop(0) if waiting else await receive()

        async def noting(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, replay, noting)
        except Exception:
            if answered:
                raise
        if not answered:
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
