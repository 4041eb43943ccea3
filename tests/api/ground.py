"""What the tests of the HTTP surface stand on: the whole gate with its sandbox, in this process."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from gate.app import App, Opener, Write, create_app
from gate.budget import Clock
from gate.engine import Engine, open_engine
from gate.settings import Settings
from gate.settings.read import parse

SECRET = "sk_" + "a" * 40
SITEKEY = "pk_" + "a" * 20
OTHER_SECRET = "sk_" + "b" * 40
OTHER_SITEKEY = "pk_" + "b" * 20
ORIGIN = "https://www.example.com"
OTHER_ORIGIN = "https://other.example.com"
BASE = "http://gate.example.com"

BEARER = {"authorization": f"Bearer {SECRET}"}
OTHER_BEARER = {"authorization": f"Bearer {OTHER_SECRET}"}


def site(
    name: str = "main",
    key: str = SITEKEY,
    secret: str = SECRET,
    origins: tuple[str, ...] = (ORIGIN,),
    **more: Any,
) -> dict[str, Any]:
    """A [[site]] table."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return {
        "name": name,
        "site_key": key,
        "secret_hash": digest,
        "origins": list(origins),
        **more,
    }


OTHER = site("other", OTHER_SITEKEY, OTHER_SECRET, (OTHER_ORIGIN,))


def settings(sites: list[dict[str, Any]] | None = None, **tables: Any) -> Settings:
    """Settings of a gate that asks nobody but its sandbox."""
    tree: dict[str, Any] = {
        "store": {"url": "memory:"},
        "sandbox": {"enabled": True},
        "dns": {"servers": ["127.0.0.1:9"]},
        "site": [site(), OTHER] if sites is None else sites,
    }
    return parse({**tree, **tables})


@dataclass(slots=True)
class Gate:
    """A running gate and a client for it."""

    app: App
    engine: Engine
    client: httpx.AsyncClient
    written: bytearray
    _read: int = field(default=0)

    async def check(self, email: str, **body: Any) -> httpx.Response:
        """POST /v1/check with the secret key."""
        return await self.client.post("/v1/check", json={"email": email, **body}, headers=BEARER)

    async def page(
        self,
        email: str,
        *,
        origin: str | None = ORIGIN,
        headers: dict[str, str] | None = None,
        **fields: str,
    ) -> httpx.Response:
        """POST /v1/check as a page does it: form-encoded, with the site key."""
        sent = dict(headers or {})
        if origin is not None:
            sent["origin"] = origin
        data = {"sitekey": SITEKEY, "email": email, **fields}
        return await self.client.post("/v1/check", data=data, headers=sent)

    async def siteverify(self, **fields: str) -> dict[str, Any]:
        """POST /v1/siteverify with the secret in the body; the answer's JSON."""
        data = {"secret": SECRET, **fields}
        response = await self.client.post("/v1/siteverify", data=data)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def lines(self) -> list[dict[str, Any]]:
        """The decision lines written since the last call; call it when the gate is closed."""
        fresh = bytes(self.written[self._read :])
        self._read = len(self.written)
        return [json.loads(line) for line in fresh.splitlines()]


@asynccontextmanager
async def gate(
    config: Settings | None = None,
    *,
    client: tuple[str, int] = ("198.51.100.7", 4711),
    base: str = BASE,
    wall: Clock = time.time,
    clock: Clock = time.monotonic,
    opener: Opener | None = None,
    write: Write | None = None,
) -> AsyncIterator[Gate]:
    """Open one. `client` is the other end of its connections."""
    written = bytearray()
    opener = opener or partial(open_engine, wall=wall, clock=clock)
    app = create_app(config or settings(), opener=opener, write=write or written.extend)
    async with app.open() as engine:
        transport = httpx.ASGITransport(app=app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            yield Gate(app, engine, http, written)
