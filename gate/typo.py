"""did_you_mean: the address a person probably meant, when the domain looks like a slip.

What it knows: slips that are known as such (lists/slips.txt), endings that do not exist but are
often typed (lists/endings.txt), and how a hand slips on a keyboard, which is tried only on coined
names of providers (lists/targets.txt).

Rules:

1. Only the domain is ever mended; the local part is repeated as it was typed.
2. A suggestion is a name of our own lists, or the typed name with an ending that exists.
3. A false suggestion on a real domain costs trust: providers, relays and the look-alikes of
   lists/real.txt are never corrected, likeness means one slip of the hand (two in a long name),
   and the first letter must agree ("hmail.com" is no slip of "gmail.com").

Bugs: slips inside the local part, and slips from one real provider to another (gmx.com for
gmx.de), are not seen.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

import idna
from rapidfuzz.distance import OSA

from gate.address import Address, latin_lookalike
from gate.lists import pairs, table, words

_SLIPS = pairs("slips.txt")
_ENDINGS = pairs("endings.txt")
_TARGETS = words("targets.txt")
_PROVIDERS = words("providers.txt")
_REAL = (
    _PROVIDERS
    | words("real.txt")
    | {domain for row in table("relays.toml")["relay"] for domain in row["domains"]}
)

_REMEMBERED_DOMAINS: Final = 8192
"""Answers kept, one per domain: a bound on memory, whatever is typed."""
_LONG_NAME: Final = 9
"""From this length on, two slips still leave no doubt about what is meant."""

_SLIPPED_ENDINGS = {"cm": "com", "om": "com", "co": "com", "ne": "net"}
"""Real top-level domains that under the coined name of a provider are a slip."""
_STRAY_ENDINGS = frozenset(
    "com net org fr es it de nl be ch at pt pl ca uk us co.uk com.br com.au".split()
)
_ONE_DOMAIN = {
    "gmail": "gmail.com",
    "icloud": "icloud.com",
    "rocketmail": "rocketmail.com",
    "btinternet": "btinternet.com",
    "rediffmail": "rediffmail.com",
    "sbcglobal": "sbcglobal.net",
    "bellsouth": "bellsouth.net",
}
"""Providers that give out mailboxes under this one domain: any stray ending is a slip."""
_DOTLESS = {name.replace(".", ""): name for name in sorted(_PROVIDERS)} | {
    "gmail": "gmail.com",
    "googlemail": "googlemail.com",
    "hotmail": "hotmail.com",
    "outlook": "outlook.com",
    "yahoo": "yahoo.com",
    "icloud": "icloud.com",
    "protonmail": "protonmail.com",
    "aol": "aol.com",
}
"""A forgotten dot or ending: "gmailcom" and "gmail" for gmail.com."""

_NAMES_BY_ENDING: dict[str, list[str]] = {}
for _target in sorted(_TARGETS):
    _name, _, _ending = _target.partition(".")
    _NAMES_BY_ENDING.setdefault(_ending, []).append(_name)

_KEYS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEAR = {
    frozenset({key, other})
    for row, keys in enumerate(_KEYS)
    for column, key in enumerate(keys)
    for down, right in ((0, 1), (1, 0), (1, -1))
    if row + down < len(_KEYS) and 0 <= column + right < len(_KEYS[row + down])
    for other in _KEYS[row + down][column + right]
} | {frozenset(pair) for pair in ("l1", "i1", "il", "s5", "rn")}
"""Keys that touch on QWERTY (near enough for QWERTZ and AZERTY), and letters that look alike."""
_PLAIN = str.maketrans("ıłøđħŧ", "ilodht")


def suggest(address: Address) -> str | None:
    """The whole corrected address, or None if nothing is likely. Remembered per domain."""
    domain = _suggestion(address.domain)
    return None if domain is None else f"{address.local}@{domain}"


def known_slip(domain: str) -> str | None:
    """The domain that a known slip means: gmail.com for gmial.com. Such a domain is not probed.

    A domain that reads as a provider's, letter for letter, is one: gmаil.com with a Cyrillic а.
    """
    return _SLIPS.get(domain) or (_imitated(domain) if "xn--" in domain else None)


@lru_cache(maxsize=_REMEMBERED_DOMAINS)
def _suggestion(domain: str) -> str | None:
    if domain in _REAL:
        return None
    known = known_slip(domain)
    if known:
        return known
    if "." not in domain:
        return _DOTLESS.get(domain)
    mended = _mend_ending(domain)
    return _likeliest(mended) or (mended if mended != domain else None)


@lru_cache(maxsize=_REMEMBERED_DOMAINS)
def _imitated(domain: str) -> str | None:
    """The provider whose name is drawn like this one, in other scripts or with accents."""
    try:
        shown = unicodedata.normalize("NFD", latin_lookalike(idna.decode(domain)))
    except UnicodeError:
        return None
    bare = "".join(letter for letter in shown if not unicodedata.combining(letter))
    bare = bare.translate(_PLAIN)
    return bare if bare in _PROVIDERS else None


def _mend_ending(domain: str) -> str:
    """The domain with an ending that exists, if its own does not; else the domain itself."""
    rest, _, last = domain.rpartition(".")
    parent, _, second = rest.rpartition(".")
    if parent and f"{second}.{last}" in _ENDINGS:
        return f"{parent}.{_ENDINGS[f'{second}.{last}']}"
    return f"{rest}.{_ENDINGS[last]}" if last in _ENDINGS else domain


def _likeliest(domain: str) -> str | None:
    """The provider that a domain with a proper ending means, if any."""
    if domain in _PROVIDERS:
        return domain
    if domain in _REAL:
        return None
    name, _, ending = domain.partition(".")
    if ending in _STRAY_ENDINGS and name in _ONE_DOMAIN:
        return _ONE_DOMAIN[name]
    if ending in _SLIPPED_ENDINGS:
        whole = f"{name}.{_SLIPPED_ENDINGS[ending]}"
        return whole if whole in _TARGETS else _SLIPS.get(whole)
    for meant in _NAMES_BY_ENDING.get(ending, ()):
        if _is_slip(name, meant):
            return f"{meant}.{ending}"
    return _SLIPS.get(domain)


def _is_slip(typed: str, meant: str) -> bool:
    """True if a hand that meant one name may well have typed the other."""
    allowed = 2 if len(meant) >= _LONG_NAME else 1
    if typed[0] != meant[0] and typed[:2] != meant[1::-1]:
        return False
    distance = OSA.distance(typed, meant, score_cutoff=allowed)
    if distance > allowed or distance == 0:
        return False
    return distance == 2 or len(typed) < len(meant) or _is_one_slip(typed, meant)


def _is_one_slip(typed: str, meant: str) -> bool:
    """One key too many (doubled or brushed) or one key beside the right one. A swap is one, too.

    A plural is not: "iclouds.com" may well be somebody.
    """
    at = next((i for i, key in enumerate(meant) if typed[i] != key), len(meant))
    if len(typed) > len(meant):
        if typed == f"{meant}s":
            return False
        around = {typed[at - 1], *meant[at : at + 1]}
        return any(typed[at] == key or frozenset({typed[at], key}) in _NEAR for key in around)
    swapped = typed[at : at + 2] == meant[at : at + 2][::-1]
    return swapped or frozenset({typed[at], meant[at]}) in _NEAR
