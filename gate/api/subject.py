"""DELETE /v1/subject: somebody wants to be forgotten.

What it promises: 204 when nothing about the address is left at this site: the remembered verdict,
re-checks and messages that wait, answers kept for `GET /v1/checks/{id}`, and what the disk held of
them. Other sites keep what is theirs. 503 while the store cannot be written: ask again.

Bugs: lines that were logged keep the address's keyed hash; whoever keeps logs has to let them
expire. Whoever asks about the address again makes it known again.
"""

from __future__ import annotations

from starlette.requests import Request as StarletteRequest
from starlette.responses import Response

from gate import address as addresses
from gate.address import Address
from gate.api.problems import Problem
from gate.api.reply import SAFE
from gate.api.requests import BODY_MOST, Request, SubjectBody
from gate.api.service import Service
from gate.settings import Site


class Subject:
    """The surface for whoever answers requests under data-protection law."""

    def __init__(self, service: Service) -> None:
        self._engine = service.engine
        self._guard = service.guard

    async def erase(self, request: StarletteRequest) -> Response:
        """DELETE /v1/subject, with the secret key and the address in the body."""
        engine = self._engine
        called = Request(request.scope["headers"], "", engine.clock())
        tenant = self._guard.server(called)
        self._guard.charge(tenant)
        address = addresses.parse(called.read(await _body(request), SubjectBody).email)
        if isinstance(address, Address) and not await self._forgotten(address, tenant.site):
            raise Problem("unavailable", "The store cannot be written; ask again.")
        done = Response(status_code=204)
        done.raw_headers = list(SAFE)
        return done

    async def _forgotten(self, address: Address, site: Site) -> bool:
        """Whether nothing is left; what is no address was never kept."""
        engine = self._engine
        marks = engine.checker.forget(address, site)
        promised = await engine.rechecks.forget(address, site)
        if promised is None:
            return False
        checks, keys = promised
        ids = engine.outbox.ids_about(site, checks)
        return await engine.store.erase([*marks, *keys], ids=ids) is not None


async def _body(request: StarletteRequest) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MOST:
            raise Problem("body_too_large", f"A body is at most {BODY_MOST} bytes here.")
    return body
