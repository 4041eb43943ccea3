"""Caps: how much may be asked of whom, and which of it counts for one errand. Pure.

- A *destination* is a provider's name or an MX set; of an ordinary one, also each of its addresses
  and their network (/24, of IPv6 /48), so that a thousand domains on one machine share one budget.
- A named provider's row is its budget, for all its hosts wherever they are.
- A *domain* has a limit of its own, except a free mailbox service at a named provider: there the
  domain is the provider, and those who ask for its mailboxes are strangers to each other.
- A *site* has a share of the places, and there is an end to all. Destinations that never answered,
  or hung lately, get three quarters of each: hosts that hold every dialogue as long as they can are
  free to make, and must not hold up those who ask at hosts that answer.

Bugs: a domain whose hosts have many addresses in one network takes that network's budget once only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from msgspec import Struct

from gate.lists import words
from gate.smtp.places import Claim, Key
from gate.smtp.provider import Provider

ADDRESSES_MOST: Final = 16
"""Addresses of one errand that count: four hosts are looked up, and four of each are tried."""
_NEIGHBOURS: Final = frozenset({"provider", "destination", "address", "network"})
_FREE: Final = words("providers.txt")


class Errand(Struct, frozen=True, kw_only=True, gc=False):
    """What a dialogue is wanted for: with whom, about whose address, as whom, and by whose wish.

    `identity`: the destination with the source it sees. `site`: who wants to know. `provider`: the
    row whose limits count instead of the ordinary ones. `hosts`: the addresses that may be dialled.
    `recipients`: RCPT commands that one dialogue will send, the random recipient's included; 0: it
    opens a connection for a question that is to be expected.
    """

    destination: str
    identity: str
    domain: str
    site: str = ""
    provider: Provider | None = None
    hosts: tuple[IPv4Address | IPv6Address, ...] = ()
    recipients: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The figures. Dialogues at the same time; recipients in any minute. None: no such limit.

    `network_…` holds for each address and for each network. `harvest`: whether a domain that is
    searched for users rests.
    """

    dialogues: int = 256
    site_dialogues: int | None = 16
    destination_dialogues: int | None = 2
    network_dialogues: int | None = 2
    domain_dialogues: int | None = 1
    destination_recipients: int | None = 30
    network_recipients: int | None = 30
    domain_recipients: int | None = 10
    harvest: bool = True


PLACES_ONLY: Final = Caps(
    site_dialogues=None,
    network_dialogues=None,
    domain_dialogues=None,
    destination_recipients=None,
    network_recipients=None,
    domain_recipients=None,
    harvest=False,
)
"""Two dialogues a destination and no more limits: for a practice world, where everybody is one's
own, on one machine."""


def claims(errand: Errand, caps: Caps, *, stranger: bool = False) -> tuple[Claim, ...]:
    """All that counts for one errand, each key once. `stranger`: its destination did not answer
    lately.
    """
    return (
        *_of_site(errand.site, caps, stranger and errand.provider is None),
        *_of_destination(errand, caps),
        *_of_domain(errand, caps),
    )


def open_most(claimed: Iterable[Claim]) -> dict[Key, int]:
    """How many connections may be open, in use or kept for later, with each neighbour claimed:
    as many as dialogues. Sites and domains are no neighbours, they hold no connection."""
    return {
        claim.key: claim.dialogues
        for claim in claimed
        if claim.dialogues is not None and claim.key[0] in _NEIGHBOURS
    }


@lru_cache(maxsize=256)
def _of_site(site: str, caps: Caps, stranger: bool) -> tuple[Claim, ...]:
    """What counts whoever is asked: made once, because it is part of every dialogue's claims."""
    always = (Claim(("all", ""), caps.dialogues), Claim(("site", site), caps.site_dialogues))
    if not stranger:
        return always
    of_all = Claim(("strangers", ""), _most_of(caps.dialogues))
    if caps.site_dialogues is None:
        return *always, of_all
    return *always, of_all, Claim(("strangers", f"of {site}"), _most_of(caps.site_dialogues))


def _most_of(dialogues: int) -> int:
    return dialogues - dialogues // 4


def _of_destination(errand: Errand, caps: Caps) -> Iterator[Claim]:
    row = errand.provider
    if row is not None:
        # Without figures in the row, the ordinary ones.
        dialogues = row.dialogues or caps.destination_dialogues
        recipients = row.recipients_per_minute or caps.destination_recipients
        yield Claim(("provider", row.name), dialogues, recipients, row.spacing or 0.0)
        return
    yield Claim(
        ("destination", errand.destination), caps.destination_dialogues, caps.destination_recipients
    )
    if caps.network_dialogues is None and caps.network_recipients is None:
        return
    hosts = errand.hosts[:ADDRESSES_MOST]
    # A set: a host's addresses may be named twice, and a key counts once.
    for packed in {ip.packed for ip in hosts}:
        yield Claim(("address", packed), caps.network_dialogues, caps.network_recipients)
    for network in {network_of(ip) for ip in hosts}:
        yield Claim(("network", network), caps.network_dialogues, caps.network_recipients)


def _of_domain(errand: Errand, caps: Caps) -> Iterator[Claim]:
    if not errand.recipients:
        return  # a connection that is opened ahead of any question asks nothing of a domain
    if errand.provider is None or errand.domain not in _FREE:
        yield Claim(("domain", errand.domain), caps.domain_dialogues, caps.domain_recipients)


def network_of(ip: IPv4Address | IPv6Address) -> bytes:
    """The network that an address is counted with: /24, of IPv6 /48."""
    return ip.packed[: 3 if ip.version == 4 else 6]
