"""The widget as it is served: for good under its own name, fresh otherwise."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest

from tests.api.ground import gate


def test_the_named_build_is_kept_for_good_and_has_the_hash_it_is_said_to_have() -> None:
    async def main() -> None:
        async with gate() as running:
            described = (await running.client.get("/v1/gate.json")).json()
            script = await running.client.get(described["path"])
            assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
            digest = base64.b64encode(hashlib.sha384(script.content).digest()).decode()
            assert described["integrity"] == f"sha384-{digest}"
            assert described["bytes"] == len(script.content)
            assert described["gzip_bytes"] == int(script.headers["content-length"])
            plain = await running.client.get(
                described["path"], headers={"accept-encoding": "identity"}
            )
            assert plain.content == script.content
            assert "content-encoding" not in plain.headers

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/v1/gate.js", "/v1/gate.js?v=0.0.1-old", "/v1/gate.json"])
def test_anything_else_is_asked_for_again(path: str) -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.get(path)
            assert response.status_code == 200
            assert response.headers["cache-control"] == "no-cache"
            assert response.headers["access-control-allow-origin"] == "*"
            assert response.headers["x-content-type-options"] == "nosniff"

    asyncio.run(main())


def test_what_a_browser_has_already_is_not_sent_again() -> None:
    async def main() -> None:
        async with gate() as running:
            first = await running.client.get("/v1/gate.js?render=explicit")
            again = await running.client.get(
                "/v1/gate.js", headers={"if-none-match": first.headers["etag"]}
            )
            assert (again.status_code, again.content) == (304, b"")
            assert first.headers["content-type"] == "text/javascript; charset=utf-8"
            assert first.headers["content-encoding"] == "gzip"

    asyncio.run(main())
