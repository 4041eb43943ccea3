"""The `[[site.webhook]]` tables: where late verdicts are delivered, and who may read them.

What it promises: a URL that could lead anywhere but to a public web server by its name is refused
at start (security.md A11), and so is a secret that is none of Standard Webhooks.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode
from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta, Struct

ENV: Final = "env:"
PREFIX: Final = "whsec_"
SECRET_OCTETS: Final = range(24, 65)
"""Standard Webhooks 1.0.0: between 24 and 64 octets."""
URL_MOST: Final = 2000
_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")


class Webhook(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One endpoint of a site."""

    url: Annotated[str, Meta(description="https://… that is told of late verdicts, by host name")]
    secrets: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            max_length=2,
            description="whsec_… that messages are signed with, two while it is being changed; "
            "env:NAME is read from the environment",
        ),
    ]
    allow_http: Annotated[
        bool, Meta(description="let the URL be http://, where nobody else can listen")
    ] = False
    include_address: Annotated[
        bool, Meta(description="put the e-mail address into messages, not only its keyed hash")
    ] = False

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The octets of the secrets."""
        return tuple(key_of(secret) for secret in self.secrets)


def key_of(secret: str) -> bytes:
    """The octets of `whsec_…`. Raises ValueError for any other text."""
    if not secret.startswith(PREFIX):
        raise ValueError("no whsec_ in front")
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
    if len(key) not in SECRET_OCTETS:
        raise ValueError("too short or too long")
    return key


def endpoint_id(site: str, url: str) -> str:
    """Names an endpoint in the store, the log and on the command line: it shows no secret path."""
    return "ep_" + hashlib.sha256(f"{site}\0{url}".encode()).hexdigest()[:16]


def problems(webhook: Webhook) -> Iterator[str]:
    """What a type cannot say; each begins with the key and ends with what to write."""
    yield from _url_problems(webhook)
    for secret in webhook.secrets:
        try:
            key_of(secret)
        except ValueError as error:
            yield f'secrets: {error}; write "{PREFIX}" and 32 random octets in base64'


def _url_problems(webhook: Webhook) -> Iterator[str]:
    try:
        url = urlsplit(webhook.url)
        port = url.port
    except ValueError:
        yield "url: is no URL; write https://hooks.example.com/path"
        return
    host = url.hostname or ""
    labels = host.split(".")
    if url.scheme not in ("https", "http") or not url.netloc or not webhook.url.isascii():
        yield "url: write https://hooks.example.com/path (other scripts: as xn--…)"
    elif url.scheme == "http" and not webhook.allow_http:
        yield "url: is not encrypted; write https://, or set allow_http = true"
    if url.username is not None or url.password is not None or url.fragment:
        yield "url: user, password and fragment are not sent; take them out"
    if port not in (None, 443 if url.scheme == "https" else 80):
        yield f"url: port {port} is not dialled; webhooks use 443 (80 with http)"
    named = len(labels) > 1 and all(labels) and not set(host) - _NAME and len(host) <= 253
    if not named or labels[-1].isdigit() or any(len(label) > 63 for label in labels):
        yield "url: name a host, as in hooks.example.com; IP addresses are not dialled"
    if len(webhook.url) > URL_MOST or any(not "!" <= c <= "~" for c in webhook.url):
        yield f"url: write up to {URL_MOST} printable characters"
