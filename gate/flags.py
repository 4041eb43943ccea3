"""Flags: what lists and rules say of an address. They feed a site's policy, never the verdict.

Sources: the disposable-email-domains package; in lists/, mail servers of throw-away services,
privacy relays, providers of free mailboxes and names of functions, each file saying where its rows
come from. A flag is a fact or, for `free`, None: a domain that is on no list may still be free.

What overrules what: relays and providers are never disposable whoever lists them, and neither is a
known slip of a provider's name: whoever typed gmial.com has a mailbox elsewhere and is asked, not
turned away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from disposable_email_domains import blocklist
from msgspec import Struct

from gate.address import Address
from gate.lists import pairs, table, words

_ROLES = words("roles.txt")
_FREE = words("providers.txt")
_RELAYS = frozenset(domain for row in table("relays.toml")["relay"] for domain in row["domains"])
_DISPOSABLE = frozenset(blocklist) - _FREE - _RELAYS - frozenset(pairs("slips.txt"))
_DISPOSABLE_MX = frozenset(
    name for row in table("disposable_mx.toml")["operator"] for name in row["mx"]
)

_REMEMBERED_DOMAINS: Final = 8192
"""Answers kept, one per domain: a bound on memory, whatever is typed."""


class Flags(Struct, frozen=True, gc=False):
    """What is known of an address without asking anybody."""

    disposable: bool
    """A throw-away service: nobody will read this mailbox tomorrow."""
    relay: bool
    """A privacy relay: a real person who keeps the real address private."""
    role: bool
    """The local part names a function (info, admin), not a person."""
    free: bool | None
    """A provider with which anybody can have a mailbox; None: not known."""
    subaddress: bool
    """The local part carries a tag, as jane+news does."""


def of(address: Address) -> Flags:
    """The flags of an address. No network; remembered per domain."""
    disposable, relay, free = _of_domain(address.domain)
    local = address.local
    tag = address.tag
    base = local if tag is None else local.partition("+")[0]
    return Flags(disposable, relay, base.lower() in _ROLES, free, tag is not None)


def disposable_by_mx(mx_names: Sequence[str]) -> bool:
    """True if every mail server of a domain is a throw-away service's.

    Every one, because a domain that also has a server of its own is not proved to be one.
    """
    return bool(mx_names) and all(
        _serves_throw_aways(name.lower().rstrip(".")) for name in mx_names
    )


@lru_cache(maxsize=_REMEMBERED_DOMAINS)
def _of_domain(domain: str) -> tuple[bool, bool, bool | None]:
    relay = any(name in _RELAYS for name in _with_parents(domain))
    free = True if domain in _FREE else None
    disposable = not relay and any(name in _DISPOSABLE for name in _with_parents(domain))
    return disposable, relay, free


def _serves_throw_aways(host: str) -> bool:
    names = list(_with_parents(host))
    if any(name in _RELAYS or name in _FREE for name in names):
        return False
    return any(name in _DISPOSABLE_MX or name in _DISPOSABLE for name in names)


def _with_parents(domain: str) -> Iterator[str]:
    """The domain and every parent that has a dot: a.b.example.com, b.example.com, example.com."""
    while "." in domain:
        yield domain
        domain = domain.partition(".")[2]
