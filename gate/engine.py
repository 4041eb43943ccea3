"""The engine: every room wired together, with no HTTP in sight.

`open_engine` is what the server, the CLI and the tests open; it decides nothing that a setting does
not say, apart from two safe defaults: without sites of its own it makes one for development, and
without an identity to probe with it leaves the mail servers of strangers alone.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Protocol

from gate import metrics
from gate.budget import Clock, steady
from gate.checker import Checker
from gate.dns import Resolver, system_servers
from gate.egress import SMTP_PORT, WEB_PORTS, Dialer, IPAddress, Seam, Source, own_addresses
from gate.memory import Memory
from gate.recheck import Rechecks
from gate.sandbox import Sandbox
from gate.settings import Settings, Site, server_of
from gate.smtp.probe import Prober
from gate.smtp.session import tls_context
from gate.smtp.throttle import Throttle
from gate.store import Store, open_store
from gate.token import Keys
from gate.webhooks.outbox import Outbox
from gate.webhooks.post import Poster, web_context

log = logging.getLogger("gate.engine")

SANDBOX_ZONE = "test"
LAB_HELO = "gate.invalid"
"""Greets in a lab that gave no name; the TLD can never be anybody's (RFC 6761)."""


class World(Protocol):
    """A mail world of one's own on loopback: the sandbox, or what a test or benchmark opens.

    `stubs` are the resolvers of its zones, `seam` leads from its addresses to its listeners, and
    `seam_addresses` are let through the address guard for that reason only.
    """

    @property
    def stubs(self) -> Mapping[str, Sequence[tuple[str, int]]]: ...
    @property
    def seam(self) -> Seam: ...
    @property
    def seam_addresses(self) -> Collection[IPAddress]: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the gate says it is in the dialogue; `note` says how the name was come by."""

    helo: str
    mail_from: str
    note: str = ""


NOBODY: Final = Identity(f"gate.{SANDBOX_ZONE}", f"postmaster@gate.{SANDBOX_ZONE}")
"""Greets in the sandbox, and nowhere else, when no identity was given."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The running rooms. `development_secret` is set when the only site is the made-up one."""

    settings: Settings
    checker: Checker
    resolver: Resolver
    store: Store
    keys: Keys
    sites: tuple[Site, ...]
    development_secret: str | None
    identity: Identity | None
    clock: Clock
    wall: Clock
    rechecks: Rechecks
    outbox: Outbox
    dialer: Dialer
    prober: Prober

    def start(self) -> None:
        """Do in the background what is due later. A process that only checks need not."""
        self.rechecks.start()
        self.outbox.start()


def since_boot() -> float:
    """Seconds that also count while the machine is suspended, where the system can tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@asynccontextmanager
async def open_engine(
    settings: Settings,
    *,
    store_url: str | None = None,
    world: World | None = None,
    clock: Clock = time.monotonic,
    wall: Clock = time.time,
    queue_clock: Clock | None = None,
) -> AsyncIterator[Engine]:
    """Everything a check needs, closed again in the reverse order.

    `store_url` overrides the setting: the CLI keeps its facts in memory, so that it never
    contends with a running server for one file. `world`: an open one, instead of the sandbox.
    `queue_clock` dates what is to be done later; without one, Unix time that never steps. Raises
    `GateError` with what to do.
    """
    queue_clock = queue_clock or steady(since_boot, wall)
    async with AsyncExitStack() as stack:
        url = store_url or settings.store.url
        store = await open_store(url, wall=wall, capacity=settings.limits.verdicts)
        stack.push_async_callback(store.close)
        keys = await _keys(settings, store)
        if world is None and settings.sandbox.enabled:
            world = await stack.enter_async_context(Sandbox())
        resolver = _resolver(settings, world, clock)
        stack.push_async_callback(resolver.close)
        identity = identity_of(settings, socket.gethostname())
        dialer = _mail_dialer(settings, world, identity)
        prober = _prober(settings, identity, dialer, clock)
        stack.push_async_callback(prober.close)
        sites, secret = _sites(settings, keys)
        poster = _poster(settings, world, sites, resolver, clock)
        rechecks, outbox = _later(store, keys, sites, poster, queue_clock, wall)
        checker = Checker(
            resolver=resolver,
            prober=prober,
            memory=Memory(store, keys, wall),
            control_of=_control(keys),
            may_probe=_may_probe(settings, world, identity),
            clock=clock,
            wall=wall,
            promises=rechecks,
        )
        stack.push_async_callback(checker.close)
        await store.begin(queue_clock())
        await outbox.open()
        await rechecks.open(checker)
        stack.push_async_callback(outbox.close)
        stack.push_async_callback(rechecks.close)
        known = (settings, checker, resolver, store, keys, sites, secret, identity)
        yield Engine(*known, clock, wall, rechecks, outbox, dialer, prober)


def identity_of(settings: Settings, host_name: str) -> Identity | None:
    """The HELO name and envelope sender to probe with; None when there is no honest one.

    A machine whose own name is an FQDN may use it. In a lab (`egress.allow`) any name will do. On
    the open internet a made-up name would cost the operator's reputation, so there is no default.
    """
    probe = settings.probe
    helo = probe.helo or next((a.helo for a in settings.egress.address if a.helo), "")
    note = ""
    if not helo and "." in host_name and not host_name.endswith((".local", ".localdomain")):
        helo, note = host_name, "probe.helo is not set: this machine's name is used"
    if not helo and settings.egress.allow:
        helo, note = LAB_HELO, "probe.helo is not set: a name for labs is used"
    if not helo:
        return None
    return Identity(helo, probe.mail_from or f"postmaster@{helo}", note)


async def _keys(settings: Settings, store: Store) -> Keys:
    """The master key of the settings, or the one the store made for itself."""
    if settings.server.secret:
        return Keys(hashlib.sha256(settings.server.secret.encode()).digest())
    return Keys((await store.keyring())["master"])


def _resolver(settings: Settings, world: World | None, clock: Clock) -> Resolver:
    servers = [server_of(text) for text in settings.dns.servers] or system_servers()
    return Resolver(
        servers,
        stubs=world.stubs if world else {},
        private_names=bool(settings.egress.allow),
        clock=clock,
        random=random.SystemRandom(),
    )


def _mail_dialer(settings: Settings, world: World | None, identity: Identity | None) -> Dialer:
    """What dials mail hosts, from the addresses of the settings and under their names."""
    spoken = identity or NOBODY
    sources = [
        Source(ip_address(entry.ip) if entry.ip else None, entry.helo or spoken.helo)
        for entry in settings.egress.address
    ]
    if settings.egress.allow:
        log.warning("addresses dialled although not public: %s", ", ".join(settings.egress.allow))
    return _dialer(settings, world, sources or [Source(None, spoken.helo)], (SMTP_PORT,))


def _prober(settings: Settings, identity: Identity | None, dialer: Dialer, clock: Clock) -> Prober:
    throttle = Throttle(
        destination_most=settings.limits.destination_dialogues,
        global_most=settings.limits.dialogues,
        clock=clock,
    )
    return Prober(
        dialer=dialer,
        mail_from=(identity or NOBODY).mail_from,
        tls=settings.probe.tls,
        throttle=throttle,
        clock=clock,
        random=random.SystemRandom(),
        tls_context=tls_context(),
    )


def _later(
    store: Store, keys: Keys, sites: tuple[Site, ...], poster: Poster, clock: Clock, wall: Clock
) -> tuple[Rechecks, Outbox]:
    """What is done later: asking again, and telling the sites' webhooks what came of it."""
    chance = random.SystemRandom()
    outbox = Outbox(
        store=store, keys=keys, sites=sites, poster=poster, clock=clock, wall=wall, chance=chance
    )
    rechecks = Rechecks(
        store=store,
        keys=keys,
        sites=sites,
        messages=outbox.messages,
        told=outbox.wake,
        clock=clock,
        wall=wall,
        chance=chance,
    )
    return rechecks, outbox


def _poster(
    settings: Settings, world: World | None, sites: Sequence[Site], resolver: Resolver, clock: Clock
) -> Poster:
    """What posts webhooks. The system's authorities are read only for sites that have any."""
    wanted = any(site.webhook for site in sites)
    context = web_context() if wanted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialer = _dialer(settings, world, [Source(None, "")], WEB_PORTS)
    return Poster(resolver=resolver, dialer=dialer, context=context, clock=clock)


def _dialer(
    settings: Settings, world: World | None, sources: Sequence[Source], ports: Collection[int]
) -> Dialer:
    return Dialer(
        sources=sources,
        allow=[ip_network(text) for text in settings.egress.allow],
        seam=world.seam if world else None,
        seam_addresses=world.seam_addresses if world else (),
        own=own_addresses(),
        on_blocked=metrics.egress_blocked,
        ports=ports,
    )


def _may_probe(
    settings: Settings, world: World | None, identity: Identity | None
) -> Callable[[str], bool]:
    """Which domains' mail servers may be asked: all, none, or those of the sandbox."""
    if not settings.probe.enabled:
        return lambda domain: False
    # A gate that was started to be tried out asks strangers only under a name it was given.
    if identity is not None and not (world and identity.note):
        return lambda domain: True
    where = "except in the sandbox" if world else "everywhere"
    log.warning(
        "probing is off %s: set probe.helo and probe.mail_from to a name and a mailbox of yours",
        where,
    )
    return lambda domain: world is not None and domain.endswith(f".{SANDBOX_ZONE}")


def _control(keys: Keys) -> Callable[[str], str]:
    """The random recipient of a domain: unguessable, and the same each time.

    Greylisting counts (address, sender, recipient): only the same recipient, asked again, is ever
    let through. 24 characters of base 32 hold 120 bits of the master key's hash.
    """

    def local_part(domain: str) -> str:
        digest = keys.address_hash("", f"control:{domain}")
        return "x" + base64.b32encode(digest[:15]).decode("ascii").lower()

    return local_part


def _sites(settings: Settings, keys: Keys) -> tuple[tuple[Site, ...], str | None]:
    """The sites of the settings; without any, the development site and its secret key."""
    if settings.site:
        return settings.site, None
    site, secret = development_site(keys)
    return (site,), secret


def development_site(keys: Keys) -> tuple[Site, str]:
    """A site whose keys follow from the master key, and its secret key: the same at each start."""
    public = keys.derive("development", "site-key").hex()[:24]
    secret = "sk_dev_" + keys.derive("development", "secret-key").hex()
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Site(name="development", site_key=f"pk_dev_{public}", secret_hash=digest), secret
