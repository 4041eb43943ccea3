"""What comes in: one request, its body, and the body as a checked record.

What it promises: at most `BODY_MOST` bytes of a body are held, counted as they arrive, whatever
Content-Length says; malformed JSON or form data, wrong types, doubled and unknown keys are a
`Problem`, never an exception of another kind. There is no multipart parser. How long a body may
take is the server's business (gate/server.py), which ends the connection.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta, Struct
from starlette.types import Receive

from gate.api.problems import Problem
from gate.budget import CHECK_LEAST, CHECK_MOST

if TYPE_CHECKING:
    from gate.api.guard import Caller

BODY_MOST: Final = 8 * 1024
_NEVER_IN_URL: Final = re.compile(
    rb"(?:^|[&;])\s*(?:secret|secret_key|email|sitekey|site_key|response|token|key|api_key)\s*=",
    re.IGNORECASE,
)
_SINGLE: Final = (b"host", b"authorization", b"origin", b"content-type", b"content-length")
_LEFT_EMPTY: Final = frozenset({"sitekey", "timeout_ms", "max_age", "remoteip", "explain"})
_NUMBERS: Final = frozenset({"timeout_ms", "max_age"})
_IP: Final = {
    "anyOf": [
        {"type": "string", "format": "ipv4"},
        {"type": "string", "format": "ipv6"},
        {"type": "string", "maxLength": 0},
    ]
}
_JSON: Final = b"application/json"
_FORM: Final = b"application/x-www-form-urlencoded"


class CheckBody(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Body of POST /v1/check."""

    email: Annotated[str, Meta(description="the address as it was typed")]
    sitekey: Annotated[str | None, Meta(description="public key, when called by a page")] = None
    timeout_ms: Annotated[
        Annotated[int, Meta(ge=int(CHECK_LEAST * 1000), le=int(CHECK_MOST * 1000))] | None,
        Meta(description="the answer leaves within this; `unknown` if need be"),
    ] = None
    max_age: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="seconds; an older remembered verdict is looked up again (secret key)"),
    ] = None
    action: Annotated[
        Annotated[str, Meta(max_length=32, pattern=r"^[A-Za-z0-9_-]*(?!\n)$")],
        Meta(description="a label of yours; siteverify repeats it"),
    ] = ""
    cdata: Annotated[
        Annotated[str, Meta(max_length=255)], Meta(description="data of yours, repeated likewise")
    ] = ""
    remoteip: Annotated[
        Annotated[str, Meta(max_length=64, extra_json_schema=_IP)] | None,
        Meta(description="the person's address, to be counted as that client (secret key)"),
    ] = None
    explain: Annotated[
        bool, Meta(description="adds the timed trace and the SMTP transcript (secret key)")
    ] = False


class PrefetchBody(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Body of POST /v1/prefetch."""

    domain: Annotated[str, Meta(max_length=255, description="the part behind the @")]
    sitekey: Annotated[str | None, Meta(description="public key, when called by a page")] = None


class SiteverifyBody(Struct, kw_only=True, gc=False):
    """Body of POST /v1/siteverify. Other keys are ignored: captcha clients send some."""

    secret: Annotated[str, Meta(description="secret key; or in the Authorization header")] = ""
    response: Annotated[str, Meta(description="the token that the form field carried")] = ""
    email: Annotated[
        str, Meta(description="the submitted address; with no token it is checked now")
    ] = ""
    remoteip: Annotated[str, Meta(description="accepted for Turnstile's sake")] = ""
    idempotency_key: Annotated[
        Annotated[str, Meta(max_length=128)],
        Meta(description="a retry with the same key gets the first answer again"),
    ] = ""


class SubjectBody(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Body of DELETE /v1/subject."""

    email: Annotated[str, Meta(description="the address to forget")]


T = TypeVar("T", bound=Struct)


class ClientGone(Exception):
    """The caller hung up before its request was whole; there is nobody to answer."""


def refuse_secrets_in_url(query: bytes) -> None:
    """Raise `Problem` for a query string that carries a key or an address, however encoded."""
    if query and _NEVER_IN_URL.search(unquote_to_bytes(query)):
        raise Problem("secret_in_url")


class Request:
    """One HTTP request as the hot routes see it: the head, and who sent it.

    `caller` is whose secret key it carries, once that was found out (gate/api/guard.py).
    """

    __slots__ = ("caller", "headers", "peer", "started")

    def __init__(self, raw: list[tuple[bytes, bytes]], peer: str, started: float) -> None:
        self.started = started
        self.peer = peer
        self.caller: Caller | None = None
        self.headers: dict[bytes, bytes] = dict(raw)
        if len(self.headers) != len(raw):
            self._resolve_doubled(raw)

    def _resolve_doubled(self, raw: list[tuple[bytes, bytes]]) -> None:
        """Headers sent twice: a list for the one that is a list, an error where one counts."""
        names = [name for name, _ in raw]
        for name in _SINGLE:
            if names.count(name) > 1:
                raise Problem("invalid_request", f"The header {name.decode()} was sent twice.")
        forwarded = [value for name, value in raw if name == b"x-forwarded-for"]
        if forwarded:
            self.headers[b"x-forwarded-for"] = b", ".join(forwarded)

    def again(self, peer: str, started: float) -> Request:
        """The request that comes with the same head."""
        request = object.__new__(Request)
        request.started, request.peer = started, peer
        request.caller, request.headers = self.caller, self.headers
        return request

    def header(self, name: bytes) -> str | None:
        """A header's value; None when it was not sent. Bytes beyond ASCII stay distinct."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def read(self, body: bytes, shape: type[T]) -> T:
        """The body as a record of `shape`. Raises `Problem`."""
        if b"content-encoding" in self.headers:
            raise Problem("unsupported_media_type")
        kind = self.headers.get(b"content-type", b"")
        if kind not in (_JSON, _FORM):
            kind = kind.partition(b";")[0].strip().lower()
        if kind == _JSON:
            return from_json(body, shape)
        if kind == _FORM:
            return from_form(body, shape)
        raise Problem("unsupported_media_type")


async def receive_body(receive: Receive, most: int = BODY_MOST) -> bytes:
    """The whole body. Raises `Problem` as soon as it is past `most` octets, `ClientGone`."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > most:
            raise Problem("body_too_large", f"A body is at most {most} bytes here.")
        if not message.get("more_body", False):
            return body


@lru_cache(maxsize=16)
def _decoder(shape: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(shape)


@lru_cache(maxsize=16)
def _names(shape: type[Struct]) -> tuple[tuple[str, bytes], ...]:
    return tuple((field, f'"{field}"'.encode()) for field in shape.__struct_encode_fields__)


def from_json(body: bytes, shape: type[T]) -> T:
    """A JSON body as a record. Raises `Problem`."""
    try:
        try:
            found: T = _decoder(shape).decode(body)
        except msgspec.ValidationError:
            # To JSON 800.0 is the same number as 800, and some languages write it so.
            found = msgspec.convert(_whole_numbers(msgspec.json.decode(body)), shape)
        _refuse_doubled(body, shape)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", _explain(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem("invalid_request", "The body is not valid JSON.") from None
    return found


def _whole_numbers(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in tree.items()
    }


def _refuse_doubled(body: bytes, shape: type[Struct]) -> None:
    """Two readers of a document with a doubled key may see different values; so there is none.

    Counting quoted names is enough for an ordinary body; only where one occurs twice, or hides
    behind an escape, is the document read again with its keys counted.
    """
    if b"\\" not in body:
        # Without escapes quotes come in pairs, and two keys with texts need four.
        if body.count(b'"') <= 4 or all(body.count(name) < 2 for _, name in _names(shape)):
            return

    def once(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        for field, _ in _names(shape):
            if names.count(field) > 1:
                raise Problem("invalid_request", f"The key {field} stands there twice.")

    json.loads(body, object_pairs_hook=once, parse_int=str)


def from_form(body: bytes, shape: type[T]) -> T:
    """A form-encoded body as a record; numbers and booleans are read from text."""
    if body[:1] == b"{":
        raise Problem(
            "invalid_request", "The body looks like JSON; send Content-Type: application/json."
        )
    values: dict[str, str] = {}
    try:
        for pair in filter(None, body.split(b"&")):
            name, _, value = pair.partition(b"=")
            key, text = _unquote(name), _unquote(value)
            if key in values:
                raise Problem("invalid_request", "A key of the form stands there twice.")
            values[key] = text
    except UnicodeDecodeError:
        raise Problem("invalid_request", "The body is not valid form data.") from None
    for key in _LEFT_EMPTY.intersection(values):
        # A field that was left empty is one that was not filled in.
        if not values[key]:
            del values[key]
    for key in _NUMBERS.intersection(values):
        if values[key].strip().lower() == "null":
            raise Problem("invalid_request", f"{key}: must be a number.")
    try:
        return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", _explain(error)) from None


def _unquote(text: bytes) -> str:
    """Text of a form: plus is a space, %XX an octet of UTF-8. Raises `UnicodeDecodeError`."""
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return unquote_to_bytes(text).decode() if b"%" in text else text.decode()


def _explain(error: msgspec.ValidationError) -> str:
    """msgspec's message, which names keys and types and never values."""
    text, _, path = str(error).partition(" - at `$")
    field = path.strip(".`")
    if "unknown field" in text:
        name = text.rpartition(" `")[2].rstrip("`")
        plain = re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name)
        return f"There is no key {name if plain else 'of that name'}; see /openapi.json."
    return f"{field}: {text}." if field else f"{text}."
