"""Wording: what a reply says, once everything we said ourselves is taken out of it.

Mail servers quote: our recipient, our sender, our name and address, their own host names, links.
A mailbox at `greylist-agency.example` must not read as greylisting, nor `spf@` as a failed SPF
check, so every quotation is replaced by one of a few words before any phrase is looked for:

    addr_  an address, or anything in angle brackets       ip_    an IP address
    host_  a host or domain name                           url_   a link

What a quotation *is* may still say something: a name under spamhaus.org also leaves `rbl_`, and
Gmail's help links leave the word behind `p=` as `p_nosuchuser`, which is steadier than its prose.
These signals are data (`[[signal]]` in rules.toml).

What it promises: pure functions of their arguments that never raise; the result has no upper case,
no accents, no control characters, no reply codes of its own, and at most LONGEST characters.

Bugs: a name of two labels whose last is also a word ("reached.it") is left alone, because a full
stop without a blank behind it is commoner in replies than such names outside addresses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

LONGEST: Final = 2000
"""Characters that are looked at: the reason stands in the first or in the last lines of a reply."""
_HEAD: Final = 1400


@dataclass(frozen=True, slots=True)
class Echo:
    """Our own words of this dialogue, which the server may quote back: not signs of anything."""

    recipient: str = ""
    sender: str = ""
    helo: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """A link or name that says something by itself: its host, its path, the word it leaves."""

    host: re.Pattern[str]
    path: re.Pattern[str] | None
    word: str


@dataclass(frozen=True, slots=True)
class Wording:
    """The matchable text of a reply and the enhanced codes (RFC 3463) found in it."""

    text: str
    enhanced: str = ""
    """The code that a line of the reply begins with, if its class is that of the reply code."""
    trailing: str = ""
    """A code in qmail's manner, "(#5.1.1)", of the same class."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A reply's text without our own address and names, those names that stand in it all the same,
    and the enhanced codes as in `Wording`.
    """

    text: str
    own: frozenset[str]
    enhanced: str
    trailing: str


_PLAIN: Final = str.maketrans(
    {
        **dict.fromkeys("‘’‛`´", "'"),
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("–—−", "-"),
        **{"ł": "l", "Ł": "l", "ı": "i", "ø": "o", "Ø": "o", "đ": "d", "ß": "ss", "œ": "oe"},
    }
)
"""Typography, and letters that Unicode does not take apart."""
_ACCENTS: Final = re.compile(r"[\u0300-\u036f]+")
_BLANKS: Final = re.compile(r"[\x00-\x20\x7f-\x9f]+")
_OWN_CODES: Final = re.compile(
    r"(?:^|(?<=\s))(?:[245]\d\d[- ])?"
    r"(?:[245]\.\d{1,3}\.\d{1,3}(?=[\s:;,-]|$)|[245]\d\d-(?=[a-z<\"' ]))"
)
_LEADING: Final = re.compile(r"(?:[2-5]\d\d[- ]+){0,3}#?([245])\.(\d{1,3})\.(\d{1,3})(?![.\d])")
_TRAILING: Final = re.compile(r"#([245])\.(\d{1,3})\.(\d{1,3})(?![.\d])")
_INNER: Final = re.compile(r"(?<=[^:=\"'(]\s)[2-5]\d\d[- ]#?([245])\.(\d{1,3})\.(\d{1,3})(?![.\d])")
_EXCHANGE: Final = re.compile(r"\b(resolver|storedrv)\.")
"""Names of Exchange's own errors, such as RESOLVER.ADR.RecipNotFound: no host names."""
_JOINED: Final = re.compile(r"(?<=[a-z])_(?=[a-z])")
_CODE_FIRST: Final = re.compile(r"^(?:[2-5]\d\d(?:[- ]+|$)){1,3}")

_WORDLIKE: Final = (
    "am an as at be by co do he id im in is it la me my no of on or pm re se so st to tv us we"
).split()
_NAME: Final = r"(?:[a-z0-9_][a-z0-9_-]{0,62}\.)"
_QUOTED: Final = re.compile(
    r"(?P<url>(?:https?|ftp):\s?/{1,2}\s?[^\s<>\"'()]{1,400}|\bwww\.[^\s<>\"'()]{1,400})"
    r"|(?P<angle><[^<>\s]{0,320}>)"
    r"|(?P<addr>(?<![^\s<>()\[\]\"',;:=])"
    r"[^\s<>()\[\]\"',;:=@]{1,128}@[^\s<>()\[\]\"',;:]{0,255})"
    r"|(?P<ip>\[?(?:ipv6:)?(?:\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7})\]?)"
    rf"|(?P<host>(?<![\w.@-])(?:{_NAME}{{2,9}}[a-z][a-z0-9-]{{1,23}}"
    rf"|{_NAME}(?!(?:{'|'.join(_WORDLIKE)})\b)"
    r"(?:[a-z]{2}|com|net|org|edu|gov|mil|int|info|biz|name|example|test|invalid|arpa|cloud|app|dev"
    r"|online|site|shop|tech|mail|email|zone|asia|pro|coop|jobs|mobi|local|internal))\b\.?)"
)
_SAID: Final = re.compile(r"\bhost {1,3}host_ {1,3}(?:ip_ {1,3})?said\b:? ?")
_LINK: Final = re.compile(
    r"(?:(?:https?|ftp):\s?/{1,2}\s?)?(?:[^/@\s]*@)?([^/:?#\s]*)(?::\d+)?(.*)"
)
_SUBJECT_BEFORE: Final = re.compile(
    r"(?:\b(?:user(?:name)?|mail-?box|account|recipient|alias|local[ -]?part|address|rcpt)"
    r"[ :=]{1,3}"
    r"|[\"'(])$"
)


def unechoed(code: int, lines: Sequence[str], echo: Echo) -> Heard:
    """A reply with `code` and `lines`, without our own words: the half of the reading that depends
    on who was asked about. Servers say the same of everybody, so the other may be remembered.
    """
    text = fold(" ".join(lines))
    if len(text) > LONGEST:
        text = f"{text[:_HEAD]} {text[_HEAD - LONGEST :]}"
    enhanced = _enhanced(code, lines, text)
    trailing = _of_class(_TRAILING.search(text), code) if "#" in text else ""
    if "2" <= text[:1] <= "5":
        text = _CODE_FIRST.sub("", text)
    text = _OWN_CODES.sub("", text).replace("...", " ... ")
    if "resolver." in text or "storedrv." in text:
        text = _EXCHANGE.sub(r"\1 ", text)
    text = _own_words(text, echo)
    domains = (_domain(echo.recipient), _domain(echo.sender), echo.helo)
    own = frozenset(name for name in map(_folded, domains) if name and name in text)
    return Heard(text, own, enhanced, trailing)


def unquoted(text: str, own: Collection[str], signals: Sequence[Signal]) -> str:
    """The other half: the text as a phrase may be looked for in it, with every quotation replaced,
    and what the signals make of names and links appended. `own`: as in `Heard`.
    """
    said: list[str] = []

    def replace(found: re.Match[str]) -> str:
        kind = found.lastgroup or ""
        if kind == "url" or kind == "host":
            parts = _LINK.match(found[0])
            host = parts[1].rstrip(".") if parts else ""
            if host not in own:
                path = parts[2] if parts else ""
                said.extend(word for s in signals if (word := _signal(s, host, path)))
        return f" {_WORD_OF[kind]} "

    text = _JOINED.sub(" ", _QUOTED.sub(replace, text))
    if "said" in text:
        text = _SAID.sub("", text)
    if said:
        text = " ".join((text, *dict.fromkeys(said)))
    return _BLANKS.sub(" ", text).strip()


def fold(text: str) -> str:
    """Lower case without accents, typographic marks or control characters."""
    if text.isascii() and text.isprintable():
        return " ".join(text.lower().split())
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.translate(_PLAIN)))
        text = unicodedata.normalize("NFC", text)  # kana and hangul, which are no accents
    return _BLANKS.sub(" ", text.lower()).strip()


def _enhanced(code: int, lines: Sequence[str], text: str) -> str:
    """The enhanced code of the first line that begins with one; of lines that were joined to one,
    the first behind the reply code of a later line."""
    for line in lines:
        if begins := _of_class(_LEADING.match(line), code):
            return begins
    return _of_class(_LEADING.match(text) or _INNER.search(text), code)


def _of_class(found: re.Match[str] | None, code: int) -> str:
    if found is None or int(found[1]) != code // 100:
        return ""
    return f"{found[1]}.{int(found[2])}.{int(found[3])}"


_WORD_OF: Final = {"url": "url_", "angle": "addr_", "addr": "addr_", "ip": "ip_", "host": "host_"}


def _signal(signal: Signal, host: str, path: str) -> str:
    if not signal.host.search(host):
        return ""
    if signal.path is None:
        return signal.word
    found = signal.path.search(path)
    return signal.word + (found[1] if found.re.groups else "") if found else ""


def _own_words(text: str, echo: Echo) -> str:
    """Take out our own address even where it does not look like one (no domain, odd characters)."""
    for whole in (fold(echo.recipient), _folded(echo.sender)):
        if not whole:
            continue
        text = text.replace(whole, "addr_")
        local, _, domain = whole.rpartition("@")
        text = _mask(text, local, "addr_", subject=True)
        text = _mask(text, domain, "host_", subject=False)
    text = _mask(text, _folded(echo.helo), "host_", subject=False)
    return _mask(text, _folded(echo.ip), "ip_", subject=False)


@lru_cache(maxsize=512)
def _folded(text: str) -> str:
    """`fold` of what is the same in many dialogues."""
    return fold(text)


def _mask(text: str, own: str, word: str, *, subject: bool) -> str:
    """Replace `own` where it stands as a word of its own; if `subject`, only behind a word such as
    "user" or an opening quote, because a local part may be any word of the language."""
    at = text.find(own) if own else -1
    while at >= 0:
        end = at + len(own)
        alone = not (_inner(text, at - 1) or _inner(text, end))
        if alone and (not subject or _SUBJECT_BEFORE.search(text[max(0, at - 16) : at])):
            text = f"{text[:at]}{word}{text[end:]}"
            end = at + len(word)
        at = text.find(own, end)
    return text


def _inner(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] in "@_-")


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
