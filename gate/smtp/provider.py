"""Providers: who runs a domain's mail, and what a 250 to RCPT is worth there.

A provider is known by the names of its MX hosts, compared at their dots: `aspmx.l.google.com` is
Google's, `mygoogle.com` is not. Most of a domain's hosts must be the provider's, so that a backup
elsewhere does not make the domain somebody else's. The rows are data, each with its reason, its
source and the day it was read; a provider without a row is judged by the random recipient alone.

Bugs: a domain that hides a provider behind a host name of its own is not recognised.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, Literal, cast, get_args

from gate.reason import GateError

Accepts = Literal["trust", "opaque", "opaque_if_accepted"]
"""`trust`: it means the mailbox. `opaque`: it means nothing, so nobody is asked.
`opaque_if_accepted`: a refusal means something, an acceptance does not."""
Tls = Literal["when-required", "always", "never"]
Control = Literal["same-session", "never"]
"""Where the random recipient is asked: behind the real one in the same session, or not at all,
where it hurts or would tell nothing."""


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
    """Dialogues at the same time; None: the ordinary limit of a destination. So are the next two."""
    recipients_per_minute: int | None = None
    spacing: float | None = None
    """Seconds between the starts of two dialogues."""
    control: Control = "same-session"


def load(text: str) -> Mapping[str, Provider]:
    """The rows of a table by MX suffix.

    Raises:
        GateError: a row is wrong, or two rows claim one suffix; the message names it.
    """
    found: dict[str, Provider] = {}
    for row in tomllib.loads(text).get("provider", []):
        provider = _provider(row)
        for suffix in provider.suffixes:
            if suffix in found:
                raise GateError(f"providers.toml: {suffix} is claimed twice")
            found[suffix] = provider
    return MappingProxyType(found)


def _provider(row: Mapping[str, Any]) -> Provider:
    try:
        provider = Provider(
            name=row["name"],
            suffixes=tuple(suffix.lower() for suffix in row["suffixes"]),
            accepts=cast(Accepts, row["accepts"]),
            tls=cast("Tls | None", row.get("tls")),
            why=row["why"],
            source=row["source"],
            date=row["date"],
            dialogues=row.get("dialogues"),
            recipients_per_minute=row.get("recipients_per_minute"),
            spacing=row.get("spacing"),
            control=row.get("control", "same-session"),
        )
    except KeyError as missing:
        raise GateError(
            f"providers.toml, row {row.get('name', '?')!r}: {missing} is missing"
        ) from None
    if provider.accepts not in get_args(Accepts) or provider.tls not in (None, *get_args(Tls)):
        raise GateError(f"providers.toml, row {provider.name!r}: unknown value of accepts or tls")
    return provider


PROVIDERS: Final = load(files("gate.smtp").joinpath("providers.toml").read_text(encoding="utf-8"))
"""The table that is shipped, by MX suffix."""


def provider_of(
    mx_names: Sequence[str], providers: Mapping[str, Provider] = PROVIDERS
) -> Provider | None:
    """Who runs the mail of a domain with these MX hosts, in any order; None if nobody we know."""
    hosts = Counter(_owner(name.lower().rstrip("."), providers) for name in mx_names)
    for provider, count in hosts.most_common(1):
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
