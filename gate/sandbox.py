"""The sandbox: a small mail world under .test, served inside the process by real servers.

What it knows: one memorable address for every reason a check can end with, and a real SMTP or DNS
server on loopback behind each, so that an integration meets every verdict with no internet. What
it promises: the address guard stays switched on; the sandbox's DNS names addresses of the
documentation range 203.0.113.0/24, which the guard lets through for one reason only: the seam
leads exactly these to loopback.

Two things the gate knows by the name of a mail server, not by what it says: a provider whose
acceptance means nothing, and a throw-away service. The sandbox has such names in DNS zones of its
own, below those of the real services, which nobody else will ever be asked about.

Bugs: `throttled` and `unexpected_error` have no address; neither is anything a domain can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from gate.budget import PRACTICE_GREYLIST
from gate.reason import Flag, Reason
from gate.testing.mailhost import HostRules, MailHost
from gate.testing.mta import ScriptedMta, transcript
from gate.testing.seam import IPAddress, Seam
from gate.testing.wire import SmtpListener
from gate.testing.zones import NXDOMAIN, SERVFAIL, FakeZones, Value

ZONE: Final = "test"
OPAQUE_MX: Final = "sandbox.yahoodns.net"
"""A mail server named as a provider's whose acceptance means nothing (providers.toml)."""
DISPOSABLE_MX: Final = "sandbox.mail.mailinator.com"
"""A mail server named as a throw-away service's (lists/disposable_mx.toml)."""
SLIP: Final = "gmial.com"
"""A slip everybody knows (lists/slips.txt). Never probed, so that only its DNS is served here."""
ADDRESSES: Final = "203.0.113."
"""TEST-NET-3 (RFC 5737): addresses that are nobody's."""
FIRST_ADDRESS: Final = 10
HISTORY: Final = 20
"""Connections each server remembers: the sandbox may run for days."""


@dataclass(frozen=True, slots=True)
class Example:
    """An address to try: what a check of it ends with, the flag it raises, and why."""

    address: str
    reason: Reason
    note: str
    flag: Flag | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """A mail server: the domain it serves, the name of its MX, what it does."""

    domain: str
    peer: HostRules | str
    mx: str = ""

    @property
    def mx_name(self) -> str:
        return self.mx or f"mx.{self.domain}"


_INBOX = HostRules(
    name="mx.inbox.test",
    users=("jane", "john", "info", "support"),
    full=("full",),
    disabled=("disabled",),
    mailboxes={
        "deferred": "451 4.3.0 temporary trouble, try again later",
        "maybe": "252 2.5.2 cannot verify the user, but will take the message",
    },
)
_PLACES: Final = (
    _Place("inbox.test", _INBOX),
    _Place("secure.test", HostRules(name="mx.secure.test", users=("jane",), starttls="required")),
    _Place("catchall.test", HostRules(name="mx.catchall.test", accept_all=True)),
    _Place(
        "grey.test",
        HostRules(name="mx.grey.test", users=("greylisted",), greylist=PRACTICE_GREYLIST),
    ),
    _Place(
        "blocked.test",
        HostRules(
            name="mx.blocked.test",
            answers={"rcpt": "550 5.7.1 client host blocked using zen.spamhaus.org"},
        ),
    ),
    _Place(
        "relay.test",
        HostRules(name="mx.relay.test", answers={"rcpt": "554 5.7.1 relay access denied"}),
    ),
    _Place("tls.test", "tls_not_offered"),
    _Place("garbage.test", "http"),
    _Place("closed.test", "refused"),
    _Place("silent.test", "silent"),
    _Place("opaque.test", HostRules(name=OPAQUE_MX, accept_all=True), OPAQUE_MX),
    _Place("throwaway.test", HostRules(name=DISPOSABLE_MX, users=("jane",)), DISPOSABLE_MX),
)

EXAMPLES: Final = (
    Example("jane@inbox.test", Reason.ACCEPTED_EMAIL, "an ordinary mailbox"),
    Example("slow-500@inbox.test", Reason.ACCEPTED_EMAIL, "answers after as many milliseconds"),
    Example("jane@secure.test", Reason.ACCEPTED_EMAIL, "a host that insists on TLS"),
    Example("jane..doe@inbox.test", Reason.INVALID_EMAIL, "two dots in a row"),
    Example("jane@nxdomain.test", Reason.INVALID_DOMAIN, "a domain that does not exist"),
    Example("jane@no-mx.test", Reason.NO_MX, "a domain without mail servers"),
    Example("jane@null-mx.test", Reason.NULL_MX, "a domain that takes no mail, and says so"),
    Example("nobody@inbox.test", Reason.REJECTED_EMAIL, "no such mailbox"),
    Example("disabled@inbox.test", Reason.MAILBOX_DISABLED, "a mailbox that is switched off"),
    Example("anyone@catchall.test", Reason.ACCEPT_ALL, "every address is accepted"),
    Example("full@inbox.test", Reason.MAILBOX_FULL, "over quota"),
    Example(
        "slow-1500@inbox.test", Reason.TIMEOUT, "too slow for the form; found out a little later"
    ),
    Example("jane@silent.test", Reason.TIMEOUT, "a host that never says a word"),
    Example("greylisted@grey.test", Reason.GREYLISTED, "put off; let in after a few seconds"),
    Example("deferred@inbox.test", Reason.DEFERRED, "not now"),
    Example("jane@closed.test", Reason.NO_CONNECT, "nobody listens there"),
    Example(
        "jane@blocked.test", Reason.PROBE_BLOCKED, "the host refuses the gate, not the mailbox"
    ),
    Example("jane@tls.test", Reason.TLS_FAILED, "wants TLS and does not offer it"),
    Example("jane@garbage.test", Reason.PROTOCOL_ERROR, "a web server where mail should be"),
    Example("maybe@inbox.test", Reason.UNCONFIRMED, "an answer that settles nothing"),
    Example("jane@relay.test", Reason.RELAY_DENIED, "the host serves other domains"),
    Example("jane@private.test", Reason.MX_UNROUTABLE, "a mail server at a private address"),
    Example("jane@opaque.test", Reason.PROVIDER_OPAQUE, "a provider that accepts everything"),
    Example("jane@servfail.test", Reason.DNS_ERROR, "a domain whose name servers are broken"),
    Example(
        "jane@gmial.com", Reason.PROBE_OFF, "a slip of the fingers: never asked", Flag.POSSIBLE_TYPO
    ),
    Example("jane@throwaway.test", Reason.ACCEPTED_EMAIL, "a throw-away service", Flag.DISPOSABLE),
    Example("info@inbox.test", Reason.ACCEPTED_EMAIL, "a function, not a person", Flag.ROLE),
)
"""An address for every reason that can be produced, in the order of reason.py, then flags."""


class Sandbox:
    """The running world: `async with` opens it.

    `stubs` are the DNS servers of its zones, for the resolver; `seam` and `seam_addresses` are
    what the dialer needs to reach its mail servers. Addresses that are not the sandbox's lead
    where they always do.
    """

    def __init__(self) -> None:
        self.seam = Seam(open_world=True)
        self.stubs: Mapping[str, list[tuple[str, int]]] = {}
        self.seam_addresses: frozenset[IPAddress] = frozenset()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            plan = dict(_WITHOUT_SERVERS)
            for number, place in enumerate(_PLACES, FIRST_ADDRESS):
                server = await stack.enter_async_context(_server(place.peer))
                ip = f"{ADDRESSES}{number}"
                self.seam.add(ip, server.address)
                plan[place.domain] = f"MX 10 {place.mx_name}"
                plan[place.mx_name] = f"A {ip}"
            self.seam_addresses = self.seam.addresses
            zones = await stack.enter_async_context(FakeZones(plan))
            self.stubs = {zone: [zones.server] for zone in (ZONE, SLIP, OPAQUE_MX, DISPOSABLE_MX)}
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()


_WITHOUT_SERVERS: Final[Mapping[str, Value]] = {
    "*.test": NXDOMAIN,
    "no-mx.test": 'TXT "this domain has no mail server"',
    "null-mx.test": "MX 0 .",
    "servfail.test": SERVFAIL,
    "private.test": "MX 10 mx.private.test",
    "mx.private.test": "A 10.11.12.13",
    SLIP: "MX 10 mx.inbox.test",
}
"""What the zones hold besides the places."""


def _server(peer: HostRules | str) -> SmtpListener:
    """The server behind a place. Not strict: whoever tries it out may connect by hand."""
    if isinstance(peer, str):
        return ScriptedMta(transcript(peer), history=HISTORY, strict=False)
    return MailHost(peer, history=HISTORY, strict=False)
