"""The operator's switch on the admin listener: what `gate probing` asks of a running gate."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gate.api.loopback import read_json, refuse_pages
from gate.probing import Probing
from gate.switch import Position, Switch, place_of


class Turn(Struct, forbid_unknown_fields=True):
    """Where to, and the operator's own words for it."""

    on: bool
    why: str = ""


class Report(Struct):
    """`state` is one of `probing.STATES`; `store`: where the position is kept; `kept`: it is on
    disk (None: it was not turned just now).
    """

    state: str
    switch: Position
    store: str
    kept: bool | None = None


class Switching:
    """GET and POST /probing."""

    def __init__(self, probing: Probing, switch: Switch, store: str) -> None:
        """`store`: its URL."""
        self._store = place_of(store)
        self._probing = probing
        self._switch = switch
        self.routes = [
            Route("/probing", self.status, methods=["GET"]),
            Route("/probing", self.turn, methods=["POST"]),
        ]

    async def status(self, request: Request) -> Response:
        """How things stand."""
        refuse_pages(request)
        return self._report(None)

    async def turn(self, request: Request) -> Response:
        """Turn it."""
        wanted = await read_json(request, Turn)
        return self._report(await self._switch.turn(wanted.on, wanted.why))

    def _report(self, kept: bool | None) -> Response:
        report = Report(self._probing.state, self._switch.position, self._store, kept)
        return Response(msgspec.json.encode(report), media_type="application/json")
