"""What every route of the admin listener asks of its caller, and how it reads a body.

What it promises: a page in a browser on the same machine can neither read nor change anything: the
host asked for must be a loopback address, and a change must be JSON, which no page may send
elsewhere unasked.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request

from gate.api.problems import Problem

BODY_MOST: Final = 64 * 1024
_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})

T = TypeVar("T")


def refuse_pages(request: Request) -> None:
    """Raise `Problem` unless the host asked for is this machine."""
    host = request.headers.get("host", "")
    if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
        raise Problem("wrong_host")


async def read_json(request: Request, kind: type[T]) -> T:
    """The body as `kind`. Raises `Problem`, also for callers that `refuse_pages` refuses."""
    refuse_pages(request)
    if request.headers.get("content-type") != "application/json":
        raise Problem("unsupported_media_type")
    body = b""
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > BODY_MOST:
                raise Problem("body_too_large")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        raise Problem("invalid_request") from None
