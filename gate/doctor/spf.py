"""SPF (RFC 7208): may this address send mail under that domain?

What it promises: `evaluate` never raises for what zones hold, asks at most `LOOKUPS_MOST` terms'
worth of DNS, and follows `include` and `redirect` no deeper than that allows. It asks through a
function it is given, so that it knows no resolver and a test can answer it from a table.

Written by hand: the libraries at hand (pyspf, checkdmarc) bring a resolver of their own that blocks
the event loop and trusts whatever it is sent; what is left of the standard is small.

Bugs: `ptr` never matches (section 5.5 tells everybody not to use it), `exp` is not read, and the
macros c, r, t and p are taken for "unknown".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_network
from typing import Final, NamedTuple
from urllib.parse import quote

from gate.dns.records import Records
from gate.dns.wire import AAAA, MX, TXT, A, Kind
from gate.egress import IPAddress
from gate.reason import GateError

LOOKUPS_MOST: Final = 10
"""Terms that ask the DNS (section 4.6.4)."""
VOID_MOST: Final = 2
"""Of those, how many may find nothing."""
HOSTS_MOST: Final = 10

Look = Callable[[str, int], Awaitable[Records]]
"""(name, record type) to what the name has of it."""


class Spf(StrEnum):
    """The results of section 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 - the word of the standard
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Outcome(NamedTuple):
    """The result; `because`: the term that decided, or what is wrong; `record`: the domain's."""

    result: Spf
    because: str
    record: str = ""


class Term(NamedTuple):
    """One directive or modifier. `sign`: of a directive; "" for a modifier."""

    sign: str
    name: str
    value: str
    prefix4: int
    prefix6: int

    def __str__(self) -> str:
        mark = ("=" if not self.sign else ":") if self.value else ""
        return f"{self.sign}{self.name}{mark}{self.value}"


class Wrong(Exception):
    """The record breaks the rules (permerror), or nobody answers (temperror)."""

    def __init__(self, result: Spf, because: str) -> None:
        super().__init__(because)
        self.result = result


_SIGNS: Final = {"+": Spf.PASS, "-": Spf.FAIL, "~": Spf.SOFTFAIL, "?": Spf.NEUTRAL}
_TERM: Final = re.compile(
    r"(?P<sign>[+?~-]?)(?P<name>all|include|a|mx|ptr|ip4|ip6|exists)"
    r"(?::(?P<value>[^\s]*?))?(?P<cidr>(?:/\d{1,3})?(?://\d{1,3})?)",
    re.IGNORECASE,
)
_MODIFIER: Final = re.compile(r"(?P<name>[a-z][a-z0-9_.-]*)=(?P<value>\S*)", re.IGNORECASE)
_MACRO: Final = re.compile(r"%(?:([%_-])|\{([a-z])(\d*)(r?)([.+,/_=-]*)\})", re.IGNORECASE)
_NEED: Final = frozenset({"include", "exists", "ip4", "ip6"})
_ASKING: Final = frozenset({"include", "a", "mx", "ptr", "exists", "redirect"})


def parse(record: str) -> list[Term]:
    """The terms of a record, `redirect` last. Raises `Wrong` for one that breaks the grammar."""
    terms, modifiers = [], []
    for word in record.split()[1:]:
        found = _TERM.fullmatch(word)
        if found:
            terms.append(_directive(found, word))
            continue
        modifier = _MODIFIER.fullmatch(word)
        if not modifier:
            raise Wrong(Spf.PERMERROR, f"{word!r} is no term of SPF")
        if modifier["name"].lower() == "redirect":
            modifiers.append(Term("", "redirect", modifier["value"], 32, 128))
    if len(modifiers) > 1:
        raise Wrong(Spf.PERMERROR, "redirect= stands there twice")
    return [*terms, *modifiers]


def _directive(found: re.Match[str], word: str) -> Term:
    name, value = found["name"].lower(), found["value"] or ""
    four, _, six = found["cidr"].lstrip("/").partition("//")
    if found["cidr"].startswith("//"):
        four, six = "", found["cidr"][2:]
    if name in ("ip4", "ip6"):
        value, four, six = f"{value}{found['cidr']}", "", ""
    prefix4, prefix6 = int(four or 32), int(six or 128)
    bare = name in _NEED and not value
    dressed = name == "all" and (value or found["cidr"])
    if bare or dressed or prefix4 > 32 or prefix6 > 128:
        raise Wrong(Spf.PERMERROR, f"{word!r} is no term of SPF")
    return Term(found["sign"] or "+", name, value, prefix4, prefix6)


@dataclass(slots=True)
class _Walk:
    """One evaluation: who is asked about, and what may still be asked."""

    ip: IPAddress
    sender: str
    helo: str
    look: Look
    left: int = LOOKUPS_MOST
    void: int = VOID_MOST
    seen: set[str] = field(default_factory=set)

    async def of(self, domain: str) -> Outcome:
        """The result of `domain`'s record."""
        record = await self._record(domain)
        if not record:
            return Outcome(Spf.NONE, f"{domain} has no SPF record")
        for term in parse(record):
            if term.name in _ASKING:
                self._pay(term)
            if term.name == "redirect":
                there = await self.of(self._expand(term.value, domain))
                if there.result is Spf.NONE:
                    raise Wrong(Spf.PERMERROR, f"{term} leads to no record")
                return Outcome(there.result, there.because, record)
            if await self._matches(term, domain):
                return Outcome(_SIGNS[term.sign], str(term).removeprefix("+"), record)
        return Outcome(Spf.NEUTRAL, "no term matches", record)

    async def _record(self, domain: str) -> str:
        found = await self._ask(domain, TXT, counts=False)
        records = [t for t in found.texts if t.lower() == "v=spf1" or t.lower()[:7] == "v=spf1 "]
        if len(records) > 1:
            raise Wrong(Spf.PERMERROR, f"{domain} has {len(records)} SPF records")
        return records[0] if records else ""

    async def _matches(self, term: Term, domain: str) -> bool:
        name = self._expand(term.value, domain) if term.value else domain
        match term.name:
            case "all":
                return True
            case "ip4" | "ip6":
                return self._in_network(term)
            case "include":
                inner = await self.of(name)
                if inner.result is Spf.NONE:
                    raise Wrong(Spf.PERMERROR, f"{term} leads to no record")
                return inner.result is Spf.PASS
            case "a":
                return await self._has_address(name, term)
            case "mx":
                hosts = (await self._ask(name, MX)).names
                if len(hosts) > HOSTS_MOST:
                    raise Wrong(Spf.PERMERROR, f"{name} has more than {HOSTS_MOST} MX records")
                return any([await self._has_address(host, term, counts=False) for host in hosts])
            case "exists":
                return (await self._ask(name, A)).kind is Kind.FOUND
        return False

    def _in_network(self, term: Term) -> bool:
        try:
            network = ip_network(term.value, strict=False)
        except ValueError:
            raise Wrong(Spf.PERMERROR, f"{term}: no network") from None
        if network.version != int(term.name[2]):
            raise Wrong(Spf.PERMERROR, f"{term}: a network of the other family")
        return self.ip.version == network.version and self.ip in network

    async def _has_address(self, name: str, term: Term, *, counts: bool = True) -> bool:
        four = self.ip.version == 4
        found = await self._ask(name, A if four else AAAA, counts=counts)
        prefix = term.prefix4 if four else term.prefix6
        return any(self.ip in ip_network((ip, prefix), strict=False) for ip in found.addresses)

    async def _ask(self, name: str, rdtype: int, *, counts: bool = True) -> Records:
        try:
            found = await self.look(name.rstrip(".").lower(), rdtype)
        except GateError:
            raise Wrong(Spf.PERMERROR, f"{name!r} is no name") from None
        if found.kind is Kind.FAILED:
            raise Wrong(Spf.TEMPERROR, f"{name} could not be looked up ({found.detail})")
        if found.absent and counts:
            self.void -= 1
            if self.void < 0:
                raise Wrong(Spf.PERMERROR, f"more than {VOID_MOST} look-ups find nothing")
        return found

    def _pay(self, term: Term) -> None:
        self.left -= 1
        if self.left < 0:
            raise Wrong(
                Spf.PERMERROR, f"more than {LOOKUPS_MOST} look-ups; the one too many is {term}"
            )

    def _expand(self, text: str, domain: str) -> str:
        """A domain with its macros filled in (section 7)."""

        def fill(found: re.Match[str]) -> str:
            plain, letter, digits, turned, delimiters = found.groups()
            if plain:
                return {"%": "%", "_": " ", "-": "%20"}[plain]
            value = self._macro(letter.lower(), domain)
            parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
            if turned:
                parts.reverse()
            if digits:
                parts = parts[-max(1, int(digits)) :]
            filled = ".".join(parts)
            return quote(filled) if letter.isupper() else filled

        return _MACRO.sub(fill, text)

    def _macro(self, letter: str, domain: str) -> str:
        local, _, sender_domain = self.sender.rpartition("@")
        dotted = str(self.ip) if self.ip.version == 4 else ".".join(self.ip.packed.hex())
        return {
            "s": self.sender,
            "l": local,
            "o": sender_domain,
            "d": domain,
            "i": dotted,
            "h": self.helo,
            "v": "in-addr" if self.ip.version == 4 else "ip6",
        }.get(letter, "unknown")


async def evaluate(ip: IPAddress, sender: str, helo: str, look: Look) -> Outcome:
    """Whether mail from `sender` may come from `ip` (check_host of section 4)."""
    try:
        return await _Walk(ip, sender, helo, look).of(sender.rpartition("@")[2].lower())
    except Wrong as wrong:
        return Outcome(wrong.result, str(wrong))
