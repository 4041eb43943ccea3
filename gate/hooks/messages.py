"""What a person reads who is turned away: texts by language, chosen by what the call says of them.

What it promises: a text is never empty (Supabase takes an empty one for *allow*), has no control
characters, names no address, and is ASCII where the platform needs that.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

from gate.hooks.adapter import Said
from gate.reason import Flag, Reason

FALLBACK: Final = "en"
REFUSED: Final = "refused"
TYPO: Final = "typo"

TEXT_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        Reason.INVALID_EMAIL: "invalid",
        Reason.INVALID_DOMAIN: "domain",
        Reason.NO_MX: "domain",
        Reason.NULL_MX: "domain",
        Reason.REJECTED_EMAIL: "mailbox",
        Reason.MAILBOX_DISABLED: "mailbox",
        Reason.MAILBOX_FULL: "full",
        Flag.DISPOSABLE: "disposable",
        Flag.POSSIBLE_TYPO: TYPO,
    }
)
"""Reasons and flags to texts; what is not here is `refused`."""

MAILBOX_FACTS: Final = frozenset({"mailbox", "full"})
"""Texts that say whether a mailbox exists."""


@cache
def built_in() -> Mapping[str, Mapping[str, str]]:
    """The texts that the gate brings, by language."""
    source = resources.files("gate.hooks").joinpath("messages.toml").read_text("utf-8")
    return MappingProxyType(tomllib.loads(source))


def say(
    because: str,
    *,
    languages: Iterable[str],
    own: Mapping[str, str],
    reveal_mailbox: bool,
    suggestion: str | None = None,
    ascii_only: bool = False,
) -> Said:
    """The text for a decision, in the first of `languages` that there is one in.

    `own` are the operator's texts by language, which win in theirs. `suggestion` is the domain that
    was probably meant. Without `reveal_mailbox` a text does not say whether the mailbox exists.
    """
    key = TEXT_OF.get(because, REFUSED)
    if (key in MAILBOX_FACTS and not reveal_mailbox) or (key == TYPO and not suggestion):
        key = REFUSED
    for language in (*_lookup(languages), FALLBACK):
        texts = built_in().get(language, {})
        text = own.get(language) or texts.get(key, "").replace("{suggestion}", suggestion or "")
        if text and (text.isascii() or not ascii_only):
            title = texts.get("title", built_in()[FALLBACK]["title"])
            return Said(because, title, text, language)
    english = built_in()[FALLBACK]
    return Said(because, english["title"], english[REFUSED], FALLBACK)


def _lookup(languages: Iterable[str]) -> Iterable[str]:
    """Each tag, then the same with its end cut off, subtag by subtag (RFC 4647, 3.4)."""
    for language in languages:
        parts = language.split("-")
        for length in range(len(parts), 0, -1):
            yield "-".join([parts[0].lower(), *parts[1:length]])
