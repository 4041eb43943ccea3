"""Where the address stands in a request's body: JSON, a plain form, or one with files. Pure.

What it promises: never raises, whatever the octets are; reads a body as the common ASGI frameworks
read it, so that what the application will see is what is checked. A field that is there several
times is read several times, because applications differ in which of them they take. A body whose
end is missing is read as far as its fields are whole.

Bugs: a body in a transfer or content encoding is not decoded, nor do the frameworks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any, Final
from urllib.parse import unquote_to_bytes

PARTS_MOST: Final = 1000
"""Parts of a multipart body that are looked at; Starlette and Django refuse more."""
_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_headers: Final = BytesHeaderParser()


def values_of(
    body: bytes, content_type: str, fields: Sequence[str], *, whole: bool = True
) -> list[str]:
    """What stands in the first of `fields` that is there, each different text once.

    In JSON, `user.email` is also the key `email` of the object `user`. `whole`: nothing of the
    body is missing.
    """
    kind = Message()
    kind["content-type"] = content_type or "application/json"
    found: dict[str, list[str]] = {}
    if kind.get_content_type() == _FORM:
        _collect(found, fields, _pairs(body, whole))
    elif kind.get_content_type() == _MULTIPART:
        boundary = kind.get_param("boundary")
        if isinstance(boundary, str) and boundary:
            _collect(found, fields, _parts(body, boundary.encode("latin-1", "replace"), whole))
    if not found and whole:
        # Many a handler asks for JSON without a look at the content type.
        _collect(found, fields, _members(body, fields))
    texts = next((found[name] for name in fields if name in found), [])
    return list(dict.fromkeys(texts))


def _collect(
    found: dict[str, list[str]], fields: Sequence[str], pairs: Iterator[tuple[str, str]]
) -> None:
    for name, text in pairs:
        if name in fields and text.strip():
            found.setdefault(name, []).append(text.strip())


def _pairs(body: bytes, whole: bool) -> Iterator[tuple[str, str]]:
    pairs = body.split(b"&")
    for pair in pairs if whole else pairs[:-1]:
        name, _, value = pair.partition(b"=")
        yield _unquote(name), _unquote(value)


def _parts(body: bytes, boundary: bytes, whole: bool) -> Iterator[tuple[str, str]]:
    """The fields of a multipart body (RFC 7578) that are no files."""
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary, PARTS_MOST + 1)
    for part in parts[1:] if whole else parts[1:-1]:
        if part.startswith(b"--"):
            return
        head, separator, value = part.partition(b"\r\n\r\n")
        if not separator:
            continue
        headers = _headers.parsebytes(head.lstrip())
        name = headers.get_param("name", header="content-disposition")
        if headers.get_filename() is None and name is not None:
            text = name[2] if isinstance(name, tuple) else name
            yield text, _text(value)


def _members(body: bytes, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return
    for name in fields:
        for path in ([name], name.split(".")):
            at: Any = tree
            for key in path:
                at = at.get(key) if isinstance(at, dict) else None
            if isinstance(at, str):
                yield name, at


def _unquote(text: bytes) -> str:
    return _text(unquote_to_bytes(text.replace(b"+", b" ")))


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
