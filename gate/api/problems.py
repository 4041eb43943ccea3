"""Every error of the HTTP surface, as RFC 9457 problem documents.

What it promises: the `type` URIs are a closed list; no document repeats anything the caller sent
(the name of an unknown key excepted, when it is a plain word), and each says what to do instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from gate.api.reply import PROBLEM, Headers, Reply

URN: Final = "urn:signup-gate:problem:"


class Kind(NamedTuple):
    """One row of the closed list. `detail` is what is said when the case has nothing closer."""

    status: int
    title: str
    detail: str


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "invalid_request": Kind(
            400, "The request cannot be read", "See /openapi.json for the fields of this call."
        ),
        "secret_in_url": Kind(
            400,
            "A key or an address stands in the URL",
            "URLs end up in logs. Send addresses and site keys in the body, and the secret key as "
            "`Authorization: Bearer sk_…`. A secret key that stood in a URL should be replaced.",
        ),
        "missing_key": Kind(
            401,
            "No key was given",
            "Servers send `Authorization: Bearer sk_…`; pages send their site key as `sitekey` in "
            "the body. `gate keys new` makes a pair, `gate serve` prints those of the local site.",
        ),
        "invalid_key": Kind(
            401, "The key is not known", "Compare it with the keys of [[site]] in gate.toml."
        ),
        "secret_key_needed": Kind(
            401,
            "This call needs the secret key",
            "Send `Authorization: Bearer sk_…` from your server; a site key (pk_…) is not enough.",
        ),
        "origin_not_allowed": Kind(
            403,
            "The page's origin is not one of the site's",
            "Add the origin (scheme, host and port, no path) to `origins` of the [[site]].",
        ),
        "not_found": Kind(404, "There is nothing here", "See /openapi.json for what there is."),
        "method_not_allowed": Kind(
            405, "The method is not allowed here", "The Allow header names the right one."
        ),
        "body_timeout": Kind(
            408, "The body did not arrive in time", "Send the whole request at once."
        ),
        "body_too_large": Kind(
            413, "The body is too large", "A body is at most 8192 bytes; an address is under 320."
        ),
        "uri_too_long": Kind(414, "The URL is too long", "A URL is at most 2048 bytes."),
        "unsupported_media_type": Kind(
            415,
            "The body is of a type that is not read",
            "Send application/json or application/x-www-form-urlencoded, not compressed.",
        ),
        "wrong_host": Kind(
            421,
            "The Host header names another machine",
            "The local development site answers to localhost and 127.0.0.1 only.",
        ),
        "too_many_requests": Kind(
            429, "Too many requests", "Wait for the number of seconds in Retry-After."
        ),
        "headers_too_large": Kind(431, "The headers are too large", "At most 16 KiB in all."),
        "internal_error": Kind(
            500, "A fault of the gate itself", "It was logged. Let the person in and try later."
        ),
        "unavailable": Kind(503, "The gate is not ready", "It is starting or stopping; try again."),
    }
)
"""All problems there are: name (the end of the `type` URI) to what it says."""


def document(name: str, detail: str = "") -> bytes:
    """The problem's JSON text."""
    kind = KINDS[name]
    return msgspec.json.encode(
        {
            "type": URN + name,
            "title": kind.title,
            "status": kind.status,
            "detail": detail or kind.detail,
        }
    )


class Problem(Exception):
    """Raised wherever a request turns out to be wrong; the front turns it into the answer."""

    def __init__(self, name: str, detail: str = "", *, headers: Headers | None = None) -> None:
        super().__init__(name)
        self.name = name
        self.detail = detail
        self.headers = headers or []

    def reply(self) -> Reply:
        """The answer that tells the caller."""
        headers = [*PROBLEM, *self.headers]
        if KINDS[self.name].status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="signup-gate"'))
        return Reply(KINDS[self.name].status, document(self.name, self.detail), headers)
