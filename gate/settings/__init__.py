"""Settings: one typed, frozen tree. Each section is a class, each key a field with its description.

What it promises: a key that does not exist and a value of the wrong type have no place in the tree.
Every field's description is shown by `gate settings` and must stand in README (a test compares).

`read` makes the tree of a file and the environment; `problems` refuses what no type can.
"""

from __future__ import annotations

from datetime import date
from ipaddress import ip_address
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gate.budget import CHECK, CHECK_LEAST, CHECK_MOST
from gate.hooks.settings import Hook
from gate.reason import Choice
from gate.webhooks.settings import Webhook

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Recipients = Annotated[int, Meta(ge=2)]
"""The first dialogue with a domain names two: the address, and one that cannot exist."""


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the settings file."""


class Server(_Section, frozen=True):
    """Where the gate listens."""

    host: Annotated[str, Meta(description="address the public listener binds to")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="port of the public listener")] = 8080
    admin_port: Annotated[
        Port, Meta(description="loopback port of /metrics; 0 switches the listener off")
    ] = 8081
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="CIDRs of reverse proxies whose X-Forwarded-For is believed"),
    ] = ()
    secret: Annotated[
        str,
        Meta(
            description="master key, 32 or more random characters; empty: made once and kept in "
            "the store"
        ),
    ] = ""
    secret_previous: Annotated[
        str,
        Meta(
            description="the master key before, while it is changed: what it sealed is still "
            "believed; drop it after a week"
        ),
    ] = ""


class Dns(_Section, frozen=True):
    """How names are looked up."""

    servers: Annotated[
        tuple[str, ...],
        Meta(description='resolvers as "ip:port"; empty: those of /etc/resolv.conf'),
    ] = ()


class EgressAddress(_Section, frozen=True):
    """One source address and the name it greets with."""

    ip: Annotated[
        str,
        Meta(
            description="source address, of this machine or, with a proxy, the one that hosts see; "
            "empty: the system chooses"
        ),
    ] = ""
    helo: Annotated[str, Meta(description="HELO name of this address; empty: that of [probe]")] = ""
    since: Annotated[
        date | None,
        Meta(description="first day of a new address, which then warms up; none: it is warm"),
    ] = None
    proxy: Annotated[
        str,
        Meta(description='SOCKS5 proxy that dials: "socks5://user:password@ip:port" or "env:NAME"'),
    ] = ""


class EgressSettings(_Section, frozen=True):
    """Which addresses may be dialled, and from where."""

    allow: Annotated[
        tuple[str, ...],
        Meta(description="CIDRs dialled although not public, for a lab or an intranet"),
    ] = ()
    address: Annotated[
        tuple[EgressAddress, ...],
        Meta(description="source addresses: tables of ip, helo, since and proxy"),
    ] = ()


class Probe(_Section, frozen=True):
    """The live SMTP dialogue."""

    enabled: Annotated[bool, Meta(description="false: no mail server is ever asked")] = True
    helo: Annotated[
        str, Meta(description="HELO name: an FQDN whose address is the egress address")
    ] = ""
    mail_from: Annotated[
        str, Meta(description="envelope sender: a real mailbox of yours that accepts mail")
    ] = ""
    tls: Annotated[
        Literal["when-required", "always", "never"],
        Meta(description="when to use STARTTLS: when-required, always, never"),
    ] = "when-required"
    providers: Annotated[
        str, Meta(description="TOML file whose rows are laid over the table of providers")
    ] = ""
    deny_domains: Annotated[
        tuple[str, ...],
        Meta(description="domains whose mail servers are never asked, nor those of names below"),
    ] = ()
    deny_mx: Annotated[
        tuple[str, ...],
        Meta(description='mail servers never asked: "protection.outlook.com" and all names below'),
    ] = ()
    budget_ms: Annotated[
        int,
        Meta(
            ge=int(CHECK_LEAST * 1000),
            le=int(CHECK_MOST * 1000),
            description="longest time a caller waits when it names no timeout_ms",
        ),
    ] = int(CHECK * 1000)


class Limits(_Section, frozen=True):
    """How much the gate takes on."""

    client_per_minute: Annotated[
        Count,
        Meta(
            description="checks a minute of one browser address (IPv6: of a /64; a /48 has 16 such)"
        ),
    ] = 60
    site_per_minute: Annotated[
        Count, Meta(description="checks a minute of one site by its public key")
    ] = 6_000
    secret_per_minute: Annotated[
        Count, Meta(description="checks a minute of one site by its secret key")
    ] = 600_000
    dialogues: Annotated[Count, Meta(description="SMTP dialogues at the same time, in all")] = 256
    destination_dialogues: Annotated[
        Count, Meta(description="SMTP dialogues at the same time with one destination")
    ] = 2
    destination_recipients_per_minute: Annotated[
        Recipients, Meta(description="recipients asked of one destination in a minute")
    ] = 30
    network_dialogues: Annotated[
        Count,
        Meta(description="SMTP dialogues at the same time with one address or its /24 (IPv6: /48)"),
    ] = 2
    network_recipients_per_minute: Annotated[
        Recipients,
        Meta(description="recipients asked of one address or its /24 (IPv6: /48) in a minute"),
    ] = 30
    domain_dialogues: Annotated[
        Count, Meta(description="SMTP dialogues at the same time about one domain")
    ] = 1
    domain_recipients_per_minute: Annotated[
        Recipients, Meta(description="recipients asked of one domain in a minute")
    ] = 10
    site_dialogues: Annotated[
        Count, Meta(description="SMTP dialogues at the same time for one site")
    ] = 16
    warm_connections: Annotated[
        int,
        Meta(ge=0, description="SMTP connections kept for the next question, in all; 0 keeps none"),
    ] = 128
    connections: Annotated[Count, Meta(description="HTTP connections at the same time")] = 2_048
    verdicts: Annotated[
        Count, Meta(description="remembered verdicts held in memory, in front of the store")
    ] = 200_000


class StoreSettings(_Section, frozen=True):
    """Where verdicts and claims are kept."""

    url: Annotated[
        str,
        Meta(
            description='"sqlite:FILE" (kept across restarts), "redis://user:password@host:6379/0" '
            '(shared by several gates; rediss:// with TLS), or "memory:"'
        ),
    ] = "sqlite:gate.db"


class SandboxSettings(_Section, frozen=True):
    """The practice world under .test."""

    enabled: Annotated[
        bool,
        Meta(description="answer .test domains from real SMTP servers inside the process"),
    ] = False


class Policy(_Section, frozen=True):
    """What a site makes of a verdict and of flags; `decide` reads nothing else."""

    undeliverable: Annotated[
        Choice, Meta(description="proved undeliverable (syntax, domain, refused mailbox)")
    ] = Choice.BLOCK
    accept_all: Annotated[Choice, Meta(description="the domain accepts every recipient")] = (
        Choice.ALLOW
    )
    mailbox_full: Annotated[Choice, Meta(description="the mailbox is over quota")] = Choice.WARN
    unknown: Annotated[
        Choice, Meta(description='no verdict could be had; "block" is refused at start')
    ] = Choice.ALLOW
    disposable: Annotated[Choice, Meta(description="throw-away address services")] = Choice.BLOCK
    possible_typo: Annotated[Choice, Meta(description="the domain looks like a slip")] = Choice.WARN
    role: Annotated[Choice, Meta(description="info@, admin@, sales@ and the like")] = Choice.ALLOW
    relay: Annotated[Choice, Meta(description="privacy relays; these people are real")] = (
        Choice.ALLOW
    )
    free: Annotated[Choice, Meta(description="free mailbox providers")] = Choice.ALLOW
    deny: Annotated[
        tuple[str, ...], Meta(description="addresses or domains that are always blocked")
    ] = ()
    allow: Annotated[
        tuple[str, ...], Meta(description="addresses or domains that are always let in; wins")
    ] = ()


class Site(_Section, frozen=True):
    """One site: its keys, its origins, its policy."""

    name: Annotated[str, Meta(description="name of the site, for you and the log")]
    site_key: Annotated[str, Meta(description="public key (pk_…), may stand in a page")]
    secret_hash: Annotated[
        str, Meta(description="SHA-256 of the secret key in hex, as `gate keys new` prints it")
    ]
    origins: Annotated[
        tuple[str, ...], Meta(description='pages that may call: "https://www.example.com"')
    ] = ()
    mode: Annotated[
        Literal["enforce", "observe"],
        Meta(description="observe: everyone is let in, what would be blocked is logged"),
    ] = "enforce"
    reveal: Annotated[
        Literal["mailbox", "domain"],
        Meta(description="what a browser may learn: the mailbox verdict, or only the domain's"),
    ] = "mailbox"
    policy: Annotated[Policy, Meta(description="what the site makes of verdicts and flags")] = (
        Policy()
    )
    webhook: Annotated[
        tuple[Webhook, ...], Meta(description="where late verdicts are delivered")
    ] = ()


class Settings(_Section, frozen=True):
    """The whole tree. Frozen: to change a setting, change the file and start again."""

    server: Server = Server()
    dns: Dns = Dns()
    egress: EgressSettings = EgressSettings()
    probe: Probe = Probe()
    limits: Limits = Limits()
    store: StoreSettings = StoreSettings()
    sandbox: SandboxSettings = SandboxSettings()
    site: tuple[Site, ...] = ()
    hook: tuple[Hook, ...] = ()


def server_of(text: str) -> tuple[str, int]:
    """`"ip:port"`, `"[v6]:port"` or a bare address as (address, port). Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or (":" in host and not host.startswith("[")):
        host, port = text, "53"
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(text)
    return str(ip_address(host.strip("[]"))), number
