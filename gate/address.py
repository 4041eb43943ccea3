"""Addresses: what a person typed, as an `Address` in one canonical form, or the `Fault` in it.

What it knows: RFC 5321 and 5322 dot-atoms, RFC 6531 local parts, UTS-46 and IDNA 2008 domains. It
asks nobody; whether a name exists is the business of `dns`.

Rules:

1. Lengths are looked at before anything else: normalising 120 KB of combining marks takes seconds.
2. Text is normalised once and judged afterwards, because normalising can make new specials
   (U+037E becomes ";").
3. The local part is kept exactly as typed but for NFC. Case, dots and tags mean what the mail
   server says they mean; two spellings are two mailboxes.
4. The domain is what goes on the wire: A-labels, ASCII, lower case, no trailing dot.
5. Forms that are legal in a message header but never in a signup field (quoted strings, comments,
   display names, source routes, bang paths, percent hack, address literals) are refused by name.
6. An address never shows its local part by accident: `repr` and `str` hide it, `reveal` says it.

Bugs: labels with hyphens in third and fourth place that are no A-labels, and emoji domains, are
refused, as IDNA 2008 wants; a few such names were registered before it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

import idna
from email_validator import EmailNotValidError, validate_email
from msgspec import Struct

MAX_CHARACTERS: Final = 320
"""64 + "@" + 255: nothing longer can be an address, in whatever script it is written."""
MAX_OCTETS: Final = 254
"""A path is at most 256 octets with its angle brackets (RFC 5321 4.5.3.1.3)."""
MAX_LOCAL_OCTETS: Final = 64
"""RFC 5321 4.5.3.1.1."""

_ATEXT = r"A-Za-z0-9#$&'*+/=?^_`{|}~\-"
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_ORDINARY = re.compile(
    rf"(?P<local>[{_ATEXT}]+(?:\.[{_ATEXT}]+)*)@(?P<domain>{_LABEL}(?:\.{_LABEL})*)"
)
"""An ordinary address: ASCII, and nothing that could be a route. Matches in linear time."""
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_FORM = re.compile(r'["()<>\[\]:\\]')
"""Characters that only the refused forms contain."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
"""A last label like this makes the whole name an IPv4 address to many a parser (RFC 3696 2)."""
_NEUTRAL_DOMAIN = "a.co"
"""Stands in while the library judges a local part: it would also refuse special-use domains,
which are `special_use`'s to judge, so that a laboratory can have its own."""

_LABELS_LOOKED_AT: Final = 12
"""The place of a fault is looked for in so many labels: each costs some ten microseconds."""

_SPECIAL_USE: Final = frozenset(
    {"alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"}
)
"""RFC 2606, 6761, 6762, 7686, 8375 (home.arpa; all of arpa is infrastructure, RFC 3172), 9476, and
ICANN's reservation of "internal" (2024). example.com and its sisters exist and are not meant."""

_LOOKALIKES = str.maketrans(
    "авеіјкмнорԛѕтухԝьһԁӏпгѵαβικνορτυχωϲϳոսօգհյɡɑ",
    "abeijkmhopqstyxwbhdlnrvabiknoptuxwcjnuoqhjga",
)
"""Cyrillic, Greek, Armenian and phonetic letters that are read as a Latin one in a domain; after
Unicode's confusables (UTS 39), only those that common fonts draw alike."""

_COMPANIONS = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
)
"""Scripts that one label may mix (UTS 39 5.2, "highly restrictive")."""


class Address(Struct, frozen=True, gc=False):
    """One address in canonical form. Equal addresses are the same mailbox as far as we may know."""

    local: str
    """Exactly as typed, NFC: case, dots and tags kept."""
    domain: str
    """Lower-case A-labels, ASCII, no trailing dot."""
    unicode_domain: str
    """The domain as people read it. For display only."""
    tag: str | None
    """What follows the first "+" (RFC 5233): "news" of jane+news. None if there is none."""
    smtputf8: bool
    """The local part is not ASCII: only a server with SMTPUTF8 (RFC 6531) can take it."""
    mixed_script: bool
    """The domain mixes scripts or imitates Latin letters, as "gmаil" with a Cyrillic а does."""

    def __repr__(self) -> str:
        return f"…@{self.domain}"

    __str__ = __repr__

    def reveal(self) -> str:
        """The whole address, as it goes on the wire. Never for logs, metrics or errors."""
        return f"{self.local}@{self.domain}"

    @property
    def exact(self) -> str:
        """The identity under which the address is remembered: nothing folded but the domain."""
        return f"{self.local}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a text is no address we take. Never holds any of the text."""

    position: int
    """Index of the character at fault; the length of the text if something is missing there."""
    detail: str
    """`empty`, `too_long`, `no_at`, `local_part`, `domain` or `unsupported_form`."""


def parse(text: str) -> Address | Fault:
    """What `text` says, with nothing trimmed. Never raises, asks nobody; well under 5 ms always.

    Single labels and special-use names are parsed: whether they are public is another question.
    """
    match = _ORDINARY.fullmatch(text) if len(text) <= MAX_OCTETS else None
    if match is None:
        return _parse_unusual(text)
    local, domain = match.groups()
    if len(local) > MAX_LOCAL_OCTETS or "--" in domain or domain[-1] in "0123456789":
        return _parse_unusual(text)
    domain = domain.lower()
    tag = _tag(local) if "+" in local else None
    return Address(local, domain, domain, tag, False, False)


def special_use(domain: str) -> bool:
    """True if a canonical domain never names a public mail domain, whatever a resolver says.

    Names of RFC 6761 and its kin, and single labels.
    """
    parent, _, last = domain.rpartition(".")
    return not parent or last in _SPECIAL_USE


def latin_lookalike(unicode_domain: str) -> str:
    """The domain as a hasty reader sees it: letters of other scripts read as Latin ones."""
    return unicode_domain.translate(_LOOKALIKES)


def _parse_unusual(text: str) -> Address | Fault:
    """Anything but a plain ASCII address: first the forms that we refuse, then part by part."""
    fault = _length_fault(text) or _form_fault(text)
    if fault:
        return fault
    local, _, typed_domain = text.partition("@")
    start = len(local) + 1
    local_fault = _local_fault(local)
    if local_fault:
        return local_fault
    local = unicodedata.normalize("NFC", local)
    forms = _domain_forms(typed_domain)
    if forms is None:
        return Fault(start + _bad_domain_position(typed_domain), "domain")
    domain, shown = forms
    octets = len(local.encode())
    if octets > MAX_LOCAL_OCTETS:
        return Fault(MAX_LOCAL_OCTETS, "too_long")
    if octets + 1 + len(domain) > MAX_OCTETS:
        return Fault(len(text), "too_long")
    return Address(local, domain, shown, _tag(local), not local.isascii(), _imitates(shown))


def _tag(local: str) -> str | None:
    base, _, tag = local.partition("+")
    return tag if base and tag else None


def _length_fault(text: str) -> Fault | None:
    if not text:
        return Fault(0, "empty")
    if len(text) > MAX_CHARACTERS:
        return Fault(MAX_CHARACTERS, "too_long")
    octets = text.encode("utf-8", "surrogatepass")
    if len(octets) > MAX_OCTETS:
        return Fault(len(octets[:MAX_OCTETS].decode("utf-8", "ignore")), "too_long")
    return None


def _form_fault(text: str) -> Fault | None:
    """Faults of the whole: control characters, no "@" or two, and the forms we do not take."""
    at = text.find("@")
    control = _CONTROL.search(text)
    if control:
        side = "local_part" if at < 0 or control.start() < at else "domain"
        return Fault(control.start(), side)
    form = _FORM.search(text)
    if form:
        return Fault(form.start(), "unsupported_form")
    if at < 0:
        return Fault(len(text), "no_at")
    if "@" in text[at + 1 :]:
        return Fault(text.index("@", at + 1), "domain")
    if text.endswith(".") and not text.endswith(("..", "@.")):
        return Fault(len(text) - 1, "unsupported_form")
    # "%" and "!" are ordinary letters of a name ("100%", "wow!"), but between two names mail
    # servers read them as a route to a third party.
    route = re.search(r"(?<=.)[%!](?=.)", text[:at])
    if route:
        return Fault(route.start(), "unsupported_form")
    return None


def _local_fault(local: str) -> Fault | None:
    if not local:
        return Fault(0, "local_part")
    try:
        validate_email(
            f"{local}@{_NEUTRAL_DOMAIN}", allow_quoted_local=False, check_deliverability=False
        )
    except EmailNotValidError:
        return Fault(_bad_local_position(local), "local_part")
    return None


def _bad_local_position(local: str) -> int:
    """Where a local part that was refused goes wrong: the first dot or character out of place."""
    for index, character in enumerate(local):
        if character == ".":
            if index in (0, len(local) - 1) or local[index - 1] == ".":
                return index
        elif character.isascii():
            if not re.match(rf"[{_ATEXT}!%]", character):
                return index
        elif unicodedata.normalize("NFC", character).isascii():
            return index
        elif unicodedata.category(character)[0] not in ("LNPS" if index == 0 else "LNPSM"):
            return index
    return 0


def _domain_forms(typed: str) -> tuple[str, str] | None:
    """A domain as it goes on the wire and as it is read (UTS-46 non-transitional, IDNA 2008).

    UTS-46 would drop soft hyphens and joiners unseen; a name that holds any is not what it seems.
    """
    if any(unicodedata.category(character)[0] in "CZ" for character in typed):
        return None
    try:
        domain = idna.encode(typed, uts46=True, std3_rules=True).decode("ascii").lower()
        shown = idna.decode(domain)
    except UnicodeError:
        return None
    if not _DOMAIN.fullmatch(domain) or _NUMBER.fullmatch(domain.rpartition(".")[2]):
        return None
    return domain, shown


def _bad_domain_position(typed: str) -> int:
    """Where a domain that was refused goes wrong: its first label that is none, else its last."""
    start = 0
    *parents, last = typed.split(".")
    for label in parents[:_LABELS_LOOKED_AT]:
        if _domain_forms(f"{label}.a") is None:
            return start
        start += len(label) + 1
    return len(typed) - len(last)


def _imitates(shown: str) -> bool:
    """True if a label mixes scripts that do not belong together or only looks like Latin."""
    labels = shown.split(".")
    latin_parent = labels[-1].isascii()
    return any(
        _is_mixed(label) or (latin_parent and latin_lookalike(label).isascii())
        for label in labels
        if not label.isascii()
    )


def _is_mixed(label: str) -> bool:
    scripts = {
        unicodedata.name(letter, "UNKNOWN").split()[0] for letter in label if letter.isalpha()
    }
    return len(scripts) > 1 and not any(scripts <= companions for companions in _COMPANIONS)
