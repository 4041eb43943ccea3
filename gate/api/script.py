"""GET /v1/gate.js and /v1/gate.json: the widget, and how to load exactly these bytes of it.

`/v1/gate.js?v=…` as gate.json names it never changes and is kept for a year. Without `v`, or with
another build's, the script is today's and is asked for again each time: whoever pins an old hash
finds out at once, not when a cache runs out.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import gate
from gate import widget
from gate.api.ops import respond
from gate.api.reply import Headers

FOREVER: Final = b"public, max-age=31536000, immutable"
_PUBLIC: Final[Headers] = [
    (b"access-control-allow-origin", b"*"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"timing-allow-origin", b"*"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'"),
]
"""Any page may load it: it is the same for everybody, and says nothing about anybody."""


async def serve(request: Request) -> Response:
    """GET /v1/gate.js."""
    script = await asyncio.to_thread(widget.script)
    etag = f'"{script.tag}"'.encode()
    pinned = request.query_params.get("v") == script.tag
    headers = [
        *_PUBLIC,
        (b"cache-control", FOREVER if pinned else b"no-cache"),
        (b"etag", etag),
        (b"vary", b"Accept-Encoding"),
    ]
    if request.headers.get("if-none-match", "").encode("latin-1") == etag:
        response = Response(status_code=304)
        response.raw_headers = headers
        return response
    headers.append((b"content-type", b"text/javascript; charset=utf-8"))
    if "gzip" in request.headers.get("accept-encoding", ""):
        return respond(200, script.gzipped, [*headers, (b"content-encoding", b"gzip")])
    return respond(200, script.body, headers)


async def describe(request: Request) -> Response:
    """GET /v1/gate.json: where the script stands for good, its hash for `integrity`, its size."""
    script = await asyncio.to_thread(widget.script)
    body = {
        "path": script.path,
        "integrity": script.integrity,
        "version": gate.__version__,
        "bytes": len(script.body),
        "gzip_bytes": len(script.gzipped),
    }
    headers = [*_PUBLIC, (b"cache-control", b"no-cache"), (b"content-type", b"application/json")]
    return respond(200, msgspec.json.encode(body), headers)
