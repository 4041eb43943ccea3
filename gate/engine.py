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
from datetime import UTC, date, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final, Protocol

from gate import flightmetrics, metrics, proxy
from gate.budget import Clock, steady
from gate.checker import Checker
from gate.dns import Resolver, system_servers
from gate.egress import (
    SMTP_PORT,
    WEB_PORTS,
    Dialer,
    IPAddress,
    Seam,
    Source,
    is_ours,
    own_addresses,
)
from gate.memory import Memory
from gate.probing import STOPS, Probing
from gate.reason import GateError
from gate.recheck import Rechecks
from gate.settings import EgressAddress, Limits, Settings, Site, server_of
from gate.smtp.probe import Prober
from gate.smtp.provider import PROVIDERS, Provider, overlay
from gate.smtp.session import tls_context
from gate.smtp.sources import Sources
from gate.smtp.throttle import Caps, Stop, Throttle, Watch
from gate.store import Store, open_store
from gate.switch import Switch
from gate.tally import Tally
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
    probing: Probing
    switch: Switch

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
        practice = world is None and settings.sandbox.enabled
        if practice:
            from gate.sandbox import Sandbox  # with mail and DNS servers that only it needs

            world = await stack.enter_async_context(Sandbox())
        resolver = _resolver(settings, world, clock)
        stack.push_async_callback(resolver.close)
        identity = identity_of(settings, socket.gethostname())
        dialer = _mail_dialer(settings, world, identity, wall)
        sources = Sources(dialer.sources, clock=queue_clock)
        probing = _probing(settings, world, identity)
        prober = _prober(settings, practice, identity, dialer, sources, probing, clock)
        stack.push_async_callback(prober.close)
        sites, secret = _sites(settings, keys)
        poster = _poster(settings, world, sites, resolver, clock)
        rechecks, outbox = _later(store, keys, sites, poster, queue_clock, wall)
        checker = Checker(
            resolver=resolver,
            prober=prober,
            memory=Memory(store, keys, wall),
            control_of=_control(keys),
            refuses=probing.refusal,
            clock=clock,
            wall=wall,
            promises=rechecks,
            watch=flightmetrics.FlightCounts(),
        )
        if len(dialer.sources) > 1 or dialer.sources[0].since:
            tally = Tally(store, sources, wall)
            await tally.open()
            stack.push_async_callback(tally.close)
        stack.push_async_callback(checker.close)
        await store.begin(queue_clock())
        await outbox.open()
        await rechecks.open(checker)
        switch = Switch(probing=probing, store=store, wall=wall, rest=prober.let_go)
        await switch.open()
        stack.push_async_callback(outbox.close)
        stack.push_async_callback(rechecks.close)
        known = (settings, checker, resolver, store, keys, sites, secret, identity)
        later = (rechecks, outbox, dialer, prober, probing, switch)
        yield Engine(*known, clock, wall, *later)


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
    """The master key of the settings, or the one the store made for itself; and the one before."""
    server = settings.server
    previous = _master(server.secret_previous) if server.secret_previous else None
    if server.secret:
        return Keys(_master(server.secret), previous)
    return Keys((await store.keyring())["master"], previous)


def _master(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _resolver(settings: Settings, world: World | None, clock: Clock) -> Resolver:
    servers = [server_of(text) for text in settings.dns.servers] or system_servers()
    return Resolver(
        servers,
        stubs=world.stubs if world else {},
        private_names=bool(settings.egress.allow),
        clock=clock,
        random=random.SystemRandom(),
    )


def _mail_dialer(
    settings: Settings, world: World | None, identity: Identity | None, wall: Clock
) -> Dialer:
    """What dials mail hosts, from the addresses of the settings and under their names."""
    spoken = identity or NOBODY
    today = datetime.fromtimestamp(wall(), UTC).date()
    sources = [_source(entry, spoken.helo, today) for entry in settings.egress.address]
    if settings.egress.allow:
        log.warning("addresses dialled although not public: %s", ", ".join(settings.egress.allow))
    return _dialer(settings, world, sources or [Source(None, spoken.helo)], (SMTP_PORT,))


def _source(entry: EgressAddress, helo: str, today: date) -> Source:
    """A source address of the settings. Raises `GateError` for one that cannot be used now."""
    ip = ip_address(entry.ip) if entry.ip else None
    if ip is not None and not entry.proxy and not is_ours(ip):
        raise GateError(
            f"egress.address.ip: {ip} is no address of this machine; write one that `ip address` "
            "shows, or the proxy that dials from it"
        )
    if entry.since is not None and entry.since > today:
        raise GateError(
            f"egress.address.since: {entry.since} has not come yet (in UTC it is {today}); write "
            "the first day that the address is used"
        )
    through = proxy.parse(entry.proxy) if entry.proxy else None
    return Source(ip, entry.helo or helo, entry.since, through)


def providers_of(settings: Settings) -> Mapping[str, Provider]:
    """The shipped table of providers, under that of the operator."""
    path = settings.probe.providers
    if not path:
        return PROVIDERS
    try:
        return overlay(Path(path).read_text("utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(
            f"probe.providers: {path} cannot be read ({error}); write an existing file"
        ) from None


def _prober(
    settings: Settings,
    practice: bool,
    identity: Identity | None,
    dialer: Dialer,
    sources: Sources,
    probing: Probing,
    clock: Clock,
) -> Prober:
    throttle = Throttle(
        clock=clock,
        caps=_caps(settings.limits),
        practice=_in_sandbox if practice else lambda domain: False,
        halted=lambda: probing.halted,
        watch=_watch(probing),
    )
    return Prober(
        dialer=dialer,
        mail_from=(identity or NOBODY).mail_from,
        tls=settings.probe.tls,
        throttle=throttle,
        clock=clock,
        random=random.SystemRandom(),
        tls_context=tls_context(),
        warm=settings.limits.warm_connections,
        providers=providers_of(settings),
        sources=sources,
        watch=flightmetrics.SessionCounts(),
    )


def _watch(probing: Probing) -> Watch:
    """Counts what the throttle does, and says aloud when it asks nobody any more."""

    def stopped(why: Stop) -> None:
        log.error("%s; `gate doctor` says what to mend", STOPS[why])
        probing.stop(why)

    def resumed(why: Stop) -> None:
        log.warning("probing goes on")
        probing.resume(why)

    return Watch(
        stopped=stopped,
        resumed=resumed,
        blocked=flightmetrics.BLOCKS.add,
        refused=flightmetrics.THROTTLE_REFUSED.add,
        waited=flightmetrics.THROTTLE_WAIT.observe,
    )


def _caps(limits: Limits) -> Caps:
    return Caps(
        dialogues=limits.dialogues,
        site_dialogues=limits.site_dialogues,
        destination_dialogues=limits.destination_dialogues,
        network_dialogues=limits.network_dialogues,
        destination_recipients=limits.destination_recipients_per_minute,
        network_recipients=limits.network_recipients_per_minute,
        domain_dialogues=limits.domain_dialogues,
        domain_recipients=limits.domain_recipients_per_minute,
    )


def _in_sandbox(domain: str) -> bool:
    """Everybody there is one's own, on one machine: limits for the sake of strangers are off."""
    return domain.endswith(f".{SANDBOX_ZONE}")


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
        # What a proxy dials from is an address of ours, too, though none of this machine.
        own=own_addresses() | {source.ip for source in sources if source.ip},
        on_blocked=metrics.egress_blocked,
        ports=ports,
    )


def _probing(settings: Settings, world: World | None, identity: Identity | None) -> Probing:
    """Who decides whether mail servers may be asked."""
    probe = settings.probe
    return Probing(
        enabled=probe.enabled,
        known_to=_known_to(world, identity) if probe.enabled else lambda domain: False,
        deny_domains=[name.lower() for name in probe.deny_domains],
        deny_mx=[name.lower() for name in probe.deny_mx],
    )


def _known_to(world: World | None, identity: Identity | None) -> Callable[[str], bool]:
    """Which domains' mail servers there is a name to ask under: all, none, or the sandbox's."""
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
