"""Text for people: one line per answer, the table of settings, a new pair of keys."""

from __future__ import annotations

import hashlib
import json
import secrets
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, get_args

import msgspec
from msgspec import Meta, Struct

from gate.answer import Answer
from gate.reason import MEANING, GateError, Reason, Result
from gate.settings import Settings

ADDRESS_WIDTH: Final = 28
RESULT_WIDTH: Final = 13
TABLE_WIDTH: Final = 120
COLOURS: Final = {
    Result.DELIVERABLE: "32",
    Result.UNDELIVERABLE: "31",
    Result.RISKY: "33",
    Result.UNKNOWN: "36",
}
"""The colour of a result on a terminal (SGR parameter)."""
FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "empty": "nothing was given",
        "too_long": "it is too long",
        "no_at": "there is no @",
        "local_part": "the part before the @ is malformed",
        "domain": "the part after the @ is no domain",
        "unsupported_form": "a quoted, bracketed or commented form that no signup needs",
    }
)
"""The codes of `address.Fault` in words."""
SECRET_OCTETS: Final = 32
PUBLIC_OCTETS: Final = 12


def describe(answer: Answer, *, explain: bool = False, colour: bool = False) -> str:
    """An answer as lines of text; nothing in them can move a terminal's cursor."""
    verdict = answer.verdict
    result = f"{verdict.result:<{RESULT_WIDTH}}"
    if colour:
        result = f"\x1b[{COLOURS[verdict.result]}m{result}\x1b[0m"
    said = f"{verdict.reason}: {_meaning(answer)}"
    notes = [note for note in (_flags(answer), _suggestion(answer)) if note]
    tail = "".join(f"; {note}" for note in notes)
    address = printable(answer.email)
    lines = [f"{result} {address:<{ADDRESS_WIDTH}} {said}{tail} ({answer.duration_ms} ms)"]
    if explain:
        lines += _explanation(answer)
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """`text` with every character that is not printable as its escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _meaning(answer: Answer) -> str:
    if answer.fault is not None:
        fault = answer.fault
        return f"{FAULTS.get(fault.detail, fault.detail)} (at character {fault.position + 1})"
    meaning = MEANING[answer.verdict.reason]
    if answer.verdict.reason is Reason.GREYLISTED and answer.verdict.retry_after:
        meaning += f" (in {answer.verdict.retry_after} s)"
    return meaning


def _flags(answer: Answer) -> str:
    if answer.flags is None:
        return ""
    names = ("disposable", "relay", "role", "free")
    return ", ".join(name for name in names if getattr(answer.flags, name))


def _suggestion(answer: Answer) -> str:
    return f"did you mean {printable(answer.did_you_mean)}?" if answer.did_you_mean else ""


def _explanation(answer: Answer) -> Iterator[str]:
    for step in answer.trace.steps:
        yield f"  {step.at_ms:9.1f} ms  {step.name:<16} {step.detail}".rstrip()
    for line in answer.trace.transcript:
        yield f"    {line}"


# -- settings ----------------------------------------------------------------------------------


def settings_table() -> str:
    """Every setting: its name, its default, its meaning."""
    rows = list(_settings(Settings, ""))
    width = max(len(name) for name, _, _ in rows)
    default_width = max(len(default) for _, default, _ in rows)
    indent = " " * (width + default_width + 4)
    lines = []
    for name, default, meaning in rows:
        head = f"{name:<{width}}  {default:<{default_width}}  "
        wrapped = textwrap.wrap(meaning, max(30, TABLE_WIDTH - len(indent)))
        lines += [head + wrapped[0], *(indent + more for more in wrapped[1:])]
    return "\n".join(lines) + "\n"


def _settings(section: type[Struct], prefix: str) -> Iterator[tuple[str, str, str]]:
    """(name, default, meaning) of each field; `site[].name` for tables that may be repeated."""
    for field in msgspec.structs.fields(section):
        inner, repeated = _section_of(field.type)
        name = f"{prefix}{field.name}"
        if inner is not None:
            yield from _settings(inner, f"{name}[]." if repeated else f"{name}.")
            continue
        meta = next((m for m in getattr(field.type, "__metadata__", ()) if _described(m)), None)
        yield name, _default(field), str(meta.description) if meta else ""


def _described(meta: Any) -> bool:
    return isinstance(meta, Meta) and bool(meta.description)


def _section_of(kind: Any) -> tuple[type[Struct] | None, bool]:
    """The table a field's type stands for, and whether there may be several."""
    if hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind, False
    inner = [part for part in get_args(kind) if isinstance(part, type) and issubclass(part, Struct)]
    return (inner[0], True) if inner else (None, False)


def _default(field: Any) -> str:
    if field.required:
        return "(required)"
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    return json.dumps(value, default=str)


# -- keys --------------------------------------------------------------------------------------


def new_keys() -> tuple[str, str]:
    """A new site key and secret key, of 96 and 256 random bits."""
    return f"pk_{secrets.token_hex(PUBLIC_OCTETS)}", f"sk_{secrets.token_hex(SECRET_OCTETS)}"


def new_pair(name: str) -> str:
    """A new pair of keys and the table of settings for it; the secret is nowhere else."""
    if not name.strip() or not name.isprintable():
        raise GateError("--name: write the site's name, as in --name shop")
    site_key, secret = new_keys()
    digest = hashlib.sha256(secret.encode("ascii")).hexdigest()
    return f"""\
# Site key, for your pages:   {site_key}
# Secret key, for your server: {secret}
#
# The secret is shown only now. Add what follows to gate.toml, where its hash is enough, and put
# your own page into origins.

[[site]]
name = {json.dumps(name, ensure_ascii=False)}
site_key = "{site_key}"
secret_hash = "{digest}"
origins = ["https://www.example.com"]
"""
