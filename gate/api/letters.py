"""Dead letters on the admin listener: what `gate webhooks` asks of a running gate.

What it promises: a page in a browser on the same machine can neither read nor replay them: the host
asked for must be a loopback address, and a replay must be JSON, which no page may send elsewhere
unasked. Nothing here holds an address, a secret, or more of an endpoint than its host.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gate.api.problems import Problem
from gate.webhooks.outbox import DeadLetter, Outbox

LETTERS_MOST: Final = 1000
BODY_MOST: Final = 64 * 1024
_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Replay(Struct, forbid_unknown_fields=True):
    """Which letters to deliver after all; none named: all of them."""

    ids: list[str] = []


class Listed(Struct):
    """Dead letters, the newest first."""

    letters: list[DeadLetter]


class Letters:
    """GET /webhooks and POST /webhooks/replay."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.routes = [
            Route("/webhooks", self.listed, methods=["GET"]),
            Route("/webhooks/replay", self.replay, methods=["POST"]),
        ]

    async def listed(self, request: Request) -> Response:
        """What was given up."""
        _refuse_pages(request)
        letters = Listed(await self._outbox.letters(LETTERS_MOST))
        return Response(msgspec.json.encode(letters), media_type="application/json")

    async def replay(self, request: Request) -> Response:
        """Try again."""
        _refuse_pages(request)
        if request.headers.get("content-type") != "application/json":
            raise Problem("unsupported_media_type")
        body = b""
        async with aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > BODY_MOST:
                    raise Problem("body_too_large")
        try:
            wanted = msgspec.json.decode(body, type=Replay)
        except msgspec.DecodeError:
            raise Problem("invalid_request") from None
        return JSONResponse({"replayed": await self._outbox.replay(wanted.ids)})


def _refuse_pages(request: Request) -> None:
    host = request.headers.get("host", "")
    if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
        raise Problem("wrong_host")
