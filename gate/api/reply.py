"""`Reply`: a finished HTTP answer, and the headers that every answer carries."""

from __future__ import annotations

from typing import Final, NamedTuple

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


class Reply(NamedTuple):
    """Status, body, and all headers but `content-length`."""

    status: int
    body: bytes
    headers: Headers

    async def __call__(self, send: Send) -> None:
        """Send it as ASGI messages."""
        headers = self.headers
        if self.status != 204:
            headers = [*headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
