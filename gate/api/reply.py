"""`Reply`: a finished HTTP answer, and the headers that every answer carries."""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from starlette.types import Send

Headers = list[tuple[bytes, bytes]]

SAFE: Final[Headers] = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'"),
]
"""An answer is about one person, is data and nothing else, and is for its caller alone."""

JSON: Final[Headers] = [(b"content-type", b"application/json"), *SAFE]
PROBLEM: Final[Headers] = [(b"content-type", b"application/problem+json"), *SAFE]


def lines(headers: Headers) -> bytes:
    """Headers as they go on the wire, each with the end of the line before it."""
    return b"".join([b"\r\n%b: %b" % header for header in headers])


class Reply(Struct, gc=False):
    """Status, body, and all headers but `content-length`.

    `ready`: headers that were made `lines` beforehand; joining the same ones for each answer took
    0.6 µs.
    """

    status: int
    body: bytes
    headers: Headers
    ready: bytes = b""

    async def __call__(self, send: Send) -> None:
        """Send it as ASGI messages."""
        headers = [*self.headers]
        for line in self.ready.split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            headers.append((name, value))
        if self.status != 204:
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
