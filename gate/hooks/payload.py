"""Finding texts in bodies: JSON by a path, forms by a field, languages by their headers. Pure.

What it promises: whatever was sent, a text or None comes back, never an exception.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

FIELDS_MOST: Final = 1000
LANGUAGES_MOST: Final = 8
LANGUAGE_HEADER_MOST: Final = 256
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")


def from_json(body: bytes) -> Any:
    """The document; None for what is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def at(document: Any, path: str) -> Any:
    """What stands at `a.b[].c`; `[]` is the first member of a list in which the rest is found."""
    found = document
    steps = path.split(".")
    for number, step in enumerate(steps):
        if not isinstance(found, dict):
            return None
        found = found.get(step.removesuffix("[]"))
        if step.endswith("[]"):
            if not isinstance(found, list):
                return None
            rest = ".".join(steps[number + 1 :])
            members = (at(member, rest) if rest else member for member in found)
            return next((member for member in members if member is not None), None)
    return found


def text(document: Any, *paths: str) -> str | None:
    """The first text that is not empty at one of the paths."""
    for path in paths:
        found = at(document, path)
        if isinstance(found, str) and found.strip():
            return found
    return None


def texts(document: Any, *paths: str) -> tuple[str, ...]:
    """All texts at the paths, those of lists as well."""
    found: list[str] = []
    for path in paths:
        value = at(document, path)
        values = value if isinstance(value, list) else [value]
        found += [one for one in values if isinstance(one, str)]
    return tuple(found)


def form_values(body: bytes, field: str) -> list[str]:
    """Every value of a field of a form, or of a query."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MOST)
    except (UnicodeDecodeError, ValueError):
        return []
    return [value for name, value in pairs if name == field]


def languages(*sources: str | None) -> tuple[str, ...]:
    """Language tags, preferred ones first, of texts such as `de-AT` or `de;q=0.8, en`."""
    found: list[str] = []
    for source in sources:
        ranked: list[tuple[float, int, str]] = []
        for part in (source or "")[:LANGUAGE_HEADER_MOST].split(","):
            tag, _, quality = part.partition(";")
            if _LANGUAGE.fullmatch(tag.strip()):
                ranked.append((-_quality(quality), len(ranked), tag.strip().replace("_", "-")))
        found += [tag for rank, _, tag in sorted(ranked) if rank < 0]
    return tuple(dict.fromkeys(found))[:LANGUAGES_MOST]


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    known = re.fullmatch(r"[01](?:\.[0-9]{0,3})?", value.strip())
    return min(1.0, float(known.group())) if known else 1.0
