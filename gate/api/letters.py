"""Dead letters on the admin listener: what `gate webhooks` asks of a running gate.

Nothing here holds an address, a secret, or more of an endpoint than its host.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gate.api.loopback import read_json, refuse_pages
from gate.webhooks.outbox import DeadLetter, Outbox

LETTERS_MOST: Final = 1000


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
        refuse_pages(request)
        letters = Listed(await self._outbox.letters(LETTERS_MOST))
        return Response(msgspec.json.encode(letters), media_type="application/json")

    async def replay(self, request: Request) -> Response:
        """Try again."""
        wanted = await read_json(request, Replay)
        return JSONResponse({"replayed": await self._outbox.replay(wanted.ids)})
