"""Providers: who runs a domain's mail, what a 250 to RCPT is worth there, and what it bears.

A provider is known by the names of its MX hosts, compared at their dots: `aspmx.l.google.com` is
Google's, `mygoogle.com` is not. Most of a domain's hosts must be the provider's, so that a backup
elsewhere does not make the domain somebody else's. The rows are data, each with its reason, its
source and the day it was read; a provider without a row is judged by the random recipient alone.

An operator's own table lies over the one that is shipped: a row with a known name changes the keys
it names, a row with a new name is added.

Bugs: a domain that hides a provider behind a host name of its own is not recognised.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gate.reason import GateError

Accepts = Literal["trust", "opaque", "opaque_if_accepted"]
"""`trust`: it means the mailbox. `opaque`: it means nothing, so nobody is asked.
`opaque_if_accepted`: a refusal means something, an acceptance does not."""
Tls = Literal["when-required", "always", "never"]
Control = Literal["same-session", "never"]
"""Where the random recipient is asked: behind the real one in the same session, or not at all,
where it hurts or would tell nothing."""
Asked = Literal["allowed", "never"]
SHIPPED: Final = "providers.toml"


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of providers.toml."""

    name: str
    suffixes: tuple[str, ...]
    accepts: Accepts
    tls: Tls | None
    """Overrides the setting for this provider; None leaves it."""
    why: str
    source: str
    date: str
    dialogues: int | None = None
    """Dialogues at the same time. None: the ordinary limit of a destination; so in the next two."""
    recipients_per_minute: int | None = None
    spacing: float | None = None
    """Seconds between the starts of two dialogues."""
    control: Control = "same-session"
    probe: Asked = "allowed"
    """`never`: the operator wants nobody asked there."""
    overlaid: tuple[str, ...] = field(default=(), compare=False)
    """The keys that come from the operator's table; all of them for a row of its own."""


class _Row(Struct, forbid_unknown_fields=True, kw_only=True):
    """The keys of a row. Which of them may be left out depends on the table."""

    name: str
    suffixes: list[Annotated[str, Meta(min_length=1)]] | UnsetType = UNSET
    accepts: Accepts | UnsetType = UNSET
    tls: Tls | UnsetType = UNSET
    why: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    date: str | UnsetType = UNSET
    dialogues: Annotated[int, Meta(ge=1, le=256)] | UnsetType = UNSET
    recipients_per_minute: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    spacing: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    control: Control | UnsetType = UNSET
    probe: Asked | UnsetType = UNSET


def load(text: str) -> Mapping[str, Provider]:
    """The rows of the shipped table by MX suffix.

    Raises:
        GateError: a row is wrong, or two rows claim one suffix; the message names it.
    """
    rows = []
    for keys in _rows(text, SHIPPED):
        for needed in ("suffixes", "accepts", "why", "source", "date"):
            if needed not in keys:
                raise GateError(f"{SHIPPED}, row {keys['name']!r}: {needed!r} is missing")
        rows.append(Provider(**({"tls": None} | keys)))
    return _by_suffix(rows, SHIPPED)


def overlay(
    text: str, origin: str, providers: Mapping[str, Provider] | None = None
) -> Mapping[str, Provider]:
    """The table with an operator's rows laid over it, by MX suffix. `origin`: the file's name.

    Raises:
        GateError: a row is wrong; the message names the file, the row and the key.
    """
    below = PROVIDERS if providers is None else providers
    named = {row.name.lower(): row for row in below.values()}
    for keys in _rows(text, origin):
        at = keys["name"].lower()
        named[at] = _laid(keys, named.get(at), origin)
    return _by_suffix(named.values(), origin)


def _laid(keys: dict[str, Any], below: Provider | None, origin: str) -> Provider:
    """An operator's row: over the row of its name, or a new one."""
    own = tuple(key for key in keys if key != "name")
    if below is not None:
        keys = keys | {"name": below.name}
        return replace(below, **keys, overlaid=tuple(dict.fromkeys((*below.overlaid, *own))))
    for needed in ("suffixes", "accepts"):
        if needed not in keys:
            raise GateError(
                f"{origin}, row {keys['name']!r}: {needed!r} is missing; no provider of that name "
                "is known, and a new one needs it"
            )
    given = {"tls": None, "why": "the operator's row", "source": origin, "date": ""}
    return Provider(**(given | keys), overlaid=own)


def _rows(text: str, origin: str) -> list[dict[str, Any]]:
    """The rows of a table, each as the keys it names, checked one by one."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise GateError(f"{origin}: is not valid TOML: {error}") from None
    rows = tree.pop("provider", [])
    if tree or not isinstance(rows, list):
        raise GateError(f"{origin}: holds more than rows; write each as [[provider]]")
    checked: list[dict[str, Any]] = []
    for row in rows:
        keys = _checked(row, origin)
        if keys["name"].lower() in {one["name"].lower() for one in checked}:
            raise GateError(f"{origin}, row {keys['name']!r}: there are two of that name")
        checked.append(keys)
    return checked


def _checked(row: Any, origin: str) -> dict[str, Any]:
    name = row.get("name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise GateError(f"{origin}: a row has no name")
    try:
        read = msgspec.convert(row, _Row)
    except msgspec.ValidationError as error:
        raise GateError(f"{origin}, row {name!r}: {_explain(str(error), row)}") from None
    keys = {key: value for key, value in msgspec.structs.asdict(read).items() if value is not UNSET}
    if "suffixes" in keys:
        keys["suffixes"] = tuple(suffix.lower() for suffix in keys["suffixes"])
        for suffix in keys["suffixes"]:
            if not _is_suffix(suffix):
                raise GateError(
                    f"{origin}, row {name!r}: suffixes: {suffix!r} is no end of a host name; "
                    'write it as in "mx.example.com"'
                )
    return keys


def _explain(message: str, row: Mapping[str, Any]) -> str:
    """msgspec's message with the key first and, for an unknown word, the words that there are."""
    text, _, path = message.partition(" - at `$.")
    key = path.rstrip("`").partition("[")[0]
    if "unknown field" in text:
        known = ", ".join(_Row.__struct_fields__)
        return f"{text.rsplit('`', 2)[-2]}: there is no such key; there is {known}"
    if choice := _CHOICES.get(key):
        return f"unknown value of {key}: {row[key]!r}; write one of {', '.join(choice)}"
    return f"{key}: {text[0].lower()}{text[1:]}"


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "accepts": get_args(Accepts),
        "tls": get_args(Tls),
        "control": get_args(Control),
        "probe": get_args(Asked),
    }
)


def _is_suffix(suffix: str) -> bool:
    labels = suffix.split(".")
    return all(label and not set(label) - _HOST and label[0] != "-" for label in labels)


_HOST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def _by_suffix(rows: Iterable[Provider], origin: str) -> Mapping[str, Provider]:
    found: dict[str, Provider] = {}
    for provider in rows:
        for suffix in provider.suffixes:
            if suffix in found:
                both = f"{found[suffix].name!r} and {provider.name!r}"
                raise GateError(f"{origin}: suffixes: {suffix} is claimed twice, by {both}")
            found[suffix] = provider
    return MappingProxyType(found)


PROVIDERS: Final = load(files("gate.smtp").joinpath(SHIPPED).read_text(encoding="utf-8"))
"""The table that is shipped, by MX suffix."""


def provider_of(
    mx_names: Sequence[str], providers: Mapping[str, Provider] = PROVIDERS
) -> Provider | None:
    """Who runs the mail of a domain with these MX hosts, in any order; None if nobody we know."""
    owners = [_owner(name.lower().rstrip("."), providers) for name in mx_names]
    if not any(owners):
        return None
    for provider, count in Counter(owners).most_common(1):
        if count * 2 > len(mx_names):
            return provider
    return None


def _owner(name: str, providers: Mapping[str, Provider]) -> Provider | None:
    """The row with the longest suffix of `name`."""
    while name:
        if found := providers.get(name):
            return found
        name = name.partition(".")[2]
    return None
