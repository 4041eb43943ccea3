"""Settings: one typed, frozen tree, read from a TOML file and `GATE_*` environment variables.

What it promises: a key that does not exist, a value of the wrong type, or a choice that would turn
people away by accident is refused at start with the key's name and what to write instead. Every
field's description is shown by `gate settings` and must stand in README (a test compares).

Order: `--config FILE`, else `GATE_CONFIG`, else `./gate.toml`, else defaults; on top of that
`GATE_SECTION__KEY` variables (`GATE_SERVER__PORT=8080`; lists separated by commas).
"""

from __future__ import annotations

import hashlib
import logging
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gate import proxy
from gate.budget import CHECK, CHECK_LEAST, CHECK_MOST
from gate.hooks.settings import ENV, Hook
from gate.hooks.settings import problems as hook_problems
from gate.reason import Choice, GateError
from gate.redis_url import SCHEMES, WRITE_URL
from gate.redis_url import parse as parse_redis
from gate.webhooks.settings import Webhook
from gate.webhooks.settings import problems as webhook_problems

log = logging.getLogger("gate.settings")

IPNetwork = IPv4Network | IPv6Network
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Recipients = Annotated[int, Meta(ge=2)]
"""The first dialogue with a domain names two: the address, and one that cannot exist."""

_UNKNOWN_BLOCKED = (
    "would refuse people whenever a check fails for a technical reason; "
    'write unknown = "allow" (or "warn") and look at siteverify for the late verdict'
)


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


_WELL_KNOWN = (
    *("", "admin", "changeme", "change-me", "default", "example"),
    *("password", "secret", "test"),
)
"""What stands in examples, and is tried first by whoever guesses."""
_GUESSED = frozenset(
    hashlib.sha256(f"{prefix}{word}".encode()).hexdigest()
    for prefix in ("", "sk_")
    for word in _WELL_KNOWN
)

_INDEX = re.compile(r"\[[^]]*\]")
ENV_PREFIX = "GATE_"
CONFIG_VARIABLE = "GATE_CONFIG"
DEFAULT_FILE = "gate.toml"
_TABLES = ("site", "hook")
"""Written [[site]]: there may be several, so that no variable can name one."""


def load(config: str | None, environ: Mapping[str, str], *, cwd: Path | None = None) -> Settings:
    """Settings of `config` (or the first file of the documented order) and the environment.

    Raises `GateError` with the key's name and what to write instead.
    """
    path = _config_path(config, environ, cwd or Path())
    tree = _read(path) if path else {}
    if path and _readable_by_others(path) and _holds_secrets(tree):
        log.warning("%s holds secrets and others may read it: chmod 600 %s", path, path)
    origin = str(path) if path else "the defaults"
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX) and "__" in name:
            _set(tree, name, value)
    return parse(_with_secrets(tree, environ, origin), origin=origin)


def parse(tree: Mapping[str, Any], *, origin: str = "settings") -> Settings:
    """A plain tree (as read from TOML) as checked `Settings`."""
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise GateError(f"{origin}: {_explain(str(error))}") from None
    for problem in _problems(settings):
        raise GateError(f"{origin}: {problem}")
    return settings


def _config_path(config: str | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = config or environ.get(CONFIG_VARIABLE)
    if named:
        return cwd / named
    default = cwd / DEFAULT_FILE
    return default if default.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise GateError(
            f"{path}: cannot be read ({error.strerror}); give --config an existing file"
        ) from None
    except RecursionError:
        raise GateError(f"{path}: is not valid TOML: nested too deep") from None
    except ValueError as error:  # also of text that is no UTF-8, and of numbers without end
        raise GateError(f"{path}: is not valid TOML: {error}") from None


def _readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)


def _holds_secrets(tree: Mapping[str, Any]) -> bool:
    """Whether a secret stands in the file itself; the hash of a secret key is none."""

    def plain(table: Any) -> bool:
        if not isinstance(table, dict):
            return False
        secrets = table.get("secrets")
        written = isinstance(secrets, list) and any(
            isinstance(text, str) and not text.startswith(ENV) for text in secrets
        )
        return written or any(plain(inner) for inner in _listed(table, "webhook"))

    server = tree.get("server")
    own = isinstance(server, dict) and bool(server.get("secret") or server.get("secret_previous"))
    egress = tree.get("egress")
    addresses = _listed(egress, "address") if isinstance(egress, dict) else []
    urls = [entry.get("proxy") for entry in addresses if isinstance(entry, dict)]
    store = tree.get("store")
    urls.append(store.get("url") if isinstance(store, dict) else None)
    return (
        own
        or any(isinstance(url, str) and "@" in url for url in urls)
        or any(plain(table) for name in _TABLES for table in _listed(tree, name))
    )


def _listed(tree: Mapping[str, Any], name: str) -> list[Any]:
    found = tree.get(name)
    return found if isinstance(found, list) else []


def _set(tree: dict[str, Any], name: str, value: str) -> None:
    """Put one `GATE_SECTION__KEY` variable into the tree; the environment wins over the file."""
    *sections, key = name.removeprefix(ENV_PREFIX).lower().split("__")
    if len(sections) != 1 or not key:
        raise GateError(f"{name}: write GATE_SECTION__KEY, as in GATE_SERVER__PORT=8080")
    (section,) = sections
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    if section not in fields or section in _TABLES:
        known = ", ".join(f"GATE_{n.upper()}__…" for n in fields if n not in _TABLES)
        raise GateError(f"{name}: there is no section {section!r}; there is {known}")
    table = tree.setdefault(section, {})
    if not isinstance(table, dict):
        raise GateError(f"{section}: must be a table, written [{section}]")
    table[key] = _typed(fields[section].type, key, value)


def _with_secrets(tree: dict[str, Any], environ: Mapping[str, str], origin: str) -> dict[str, Any]:
    """The tree with the secrets of hooks, webhooks and proxies that are written `env:NAME` read
    from the environment.
    """

    def read(text: Any, key: str) -> Any:
        if not isinstance(text, str) or not text.startswith(ENV):
            return text
        value = environ.get(text.removeprefix(ENV), "")
        if not value:
            raise GateError(f"{origin}: {key}: {text}: the variable is not set, or is empty")
        return value

    def filled(table: Any, name: str) -> Any:
        """One table with its secrets read; what is no such table is left to be refused."""
        if not isinstance(table, dict):
            return table
        if isinstance(table.get("secrets"), list):
            secrets = [read(text, f"{name}.secrets") for text in table["secrets"]]
            table = table | {"secrets": secrets}
        if isinstance(table.get("webhook"), list):
            webhooks = [filled(inner, f"{name}.webhook") for inner in table["webhook"]]
            table = table | {"webhook": webhooks}
        return table

    lists = {name: tree[name] for name in _TABLES if isinstance(tree.get(name), list)}
    tree = tree | {name: [filled(t, name) for t in tables] for name, tables in lists.items()}
    egress = tree.get("egress")
    if isinstance(egress, dict) and isinstance(egress.get("address"), list):
        addresses = [
            entry | {"proxy": read(entry["proxy"], "egress.address.proxy")}
            if isinstance(entry, dict) and "proxy" in entry
            else entry
            for entry in egress["address"]
        ]
        tree = tree | {"egress": egress | {"address": addresses}}
    return tree


def _typed(section: Any, key: str, value: str) -> Any:
    """A variable's text in the shape its setting has: lists are separated by commas."""
    for field in msgspec.structs.fields(section):
        if field.name == key and "tuple" in str(field.type):
            return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _explain(message: str) -> str:
    """msgspec's message with the key first and, for an unknown key, the keys that exist."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if "unknown field" in text:
        unknown = text.rsplit("`", 2)[-2]
        known = ", ".join(_keys_at(path))
        where = f"{path}.{unknown}" if path else unknown
        return f"{where}: there is no such key; there is {known}"
    return f"{path or 'settings'}: {text[0].lower()}{text[1:]}"


def _keys_at(path: str) -> list[str]:
    """The keys that exist in the table that `path` (msgspec's notation) names."""
    at: Any = Settings
    for part in filter(None, _INDEX.sub("", path).split(".")):
        kind = next((f.type for f in msgspec.structs.fields(at) if f.name == part), at)
        at = _struct_of(kind) or at
    return [field.name for field in msgspec.structs.fields(at)]


def _struct_of(kind: Any) -> Any:
    """The section type inside `Annotated[...]` and `tuple[..., ...]`, if there is one."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind
    return next(filter(None, map(_struct_of, getattr(kind, "__args__", ()))), None)


def _problems(settings: Settings) -> list[str]:
    """What a type cannot say; each line begins with the key and ends with what to write."""
    return [
        *_network_problems(settings),
        *_identity_problems(settings),
        *_site_problems(settings.site),
        *hook_problems(settings.hook, [site.name for site in settings.site]),
    ]


def _network_problems(settings: Settings) -> list[str]:
    found = []
    for key, texts in (
        ("egress.allow", settings.egress.allow),
        ("server.trusted_proxies", settings.server.trusted_proxies),
    ):
        for text in texts:
            try:
                network = ip_network(text)
            except ValueError as error:
                found.append(f'{key}: {error}; write a CIDR, as in "10.0.0.0/8"')
                continue
            if network.prefixlen == 0:
                found.append(f"{key}: {text} is every address there is; name the networks you mean")
    for text in settings.dns.servers:
        try:
            server_of(text)
        except ValueError:
            found.append(f'dns.servers: {text!r} is no resolver; write "ip:port", "127.0.0.53:53"')
    return found + _source_problems(settings.egress.address)


def _source_problems(addresses: tuple[EgressAddress, ...]) -> list[str]:
    """What is wrong with the source addresses; no message holds a proxy's password."""
    found = []
    several = len(addresses) > 1
    for entry in addresses:
        try:
            if entry.ip and not _is_single(entry.ip):
                found.append(f"egress.address.ip: {entry.ip} is no single address; write one")
        except ValueError:
            found.append(f"egress.address.ip: {entry.ip!r} is no IP address of this machine")
        if entry.proxy:
            try:
                proxy.parse(entry.proxy)
            except ValueError as error:
                found.append(
                    f'egress.address.proxy: {error}; write "socks5://user:password@192.0.2.1:1080"'
                )
        if several and not entry.helo:
            found.append(
                "egress.address.helo: is missing; each of several addresses greets with a name of "
                "its own, which its PTR says too"
            )
        if several and not (entry.ip or entry.proxy):
            found.append("egress.address.ip: is missing; with several addresses, write each")
    places = [(entry.ip, entry.proxy.rpartition("@")[2]) for entry in addresses]
    if len(set(places)) != len(places):
        found.append("egress.address: two are the same; write each address once")
    return found


def _is_single(text: str) -> bool:
    """Whether an IP address is one that a connection can come from. Raises ValueError."""
    ip = ip_address(text)
    return not (ip.is_unspecified or ip.is_multicast)


def _identity_problems(settings: Settings) -> list[str]:
    found = []
    names = [("probe.helo", settings.probe.helo)]
    names += [("egress.address.helo", entry.helo) for entry in settings.egress.address]
    for key, name in names:
        if name and not _is_host_name(name):
            found.append(f"{key}: {name!r} is no host name; write an FQDN, as in gate.example.com")
    for key in ("deny_domains", "deny_mx"):
        found += [
            f'probe.{key}: {name!r} is no domain; write "example.com", without a star or a dot '
            "before it, in ASCII (xn--…)"
            for name in getattr(settings.probe, key)
            if not _is_host_name(name)
        ]
    sender = settings.probe.mail_from
    local, _, domain = sender.rpartition("@")
    if sender and not (_is_plain(local) and _is_host_name(domain)):
        found.append(f"probe.mail_from: {sender!r} is no address; write one of yours")
    found += _store_problems(settings.store.url)
    for name in ("secret", "secret_previous"):
        found += _secret_problems(f"server.{name}", getattr(settings.server, name))
    return found


def _store_problems(url: str) -> list[str]:
    """Nothing of a URL but its kind is repeated: a password may be in it."""
    kind, _, name = url.partition(":")
    if url.startswith(SCHEMES):
        try:
            parse_redis(url)
        except ValueError as error:
            return [f"store.url: {error}; {WRITE_URL}"]
    elif url != "memory:" and not (kind == "sqlite" and name):
        return [f"store.url: {kind + ':'!r} is not known; {WRITE_URL}"]
    return []


def _secret_problems(name: str, secret: str) -> list[str]:
    if secret and len(secret) < 32:
        return [f"{name}: is too short to be a secret; write 32 or more random characters"]
    if secret and "changeme" in secret.lower().replace("-", ""):
        return [f"{name}: can be guessed; write 32 or more random characters"]
    return []


def _site_problems(sites: tuple[Site, ...]) -> list[str]:
    found = []
    for index, site in enumerate(sites):
        at = f"site[{index}]"
        if site.policy.unknown is Choice.BLOCK:
            found.append(f'{at}.policy.unknown: "block" {_UNKNOWN_BLOCKED}')
        if not site.site_key.startswith("pk_"):
            found.append(f"{at}.site_key: must begin with pk_; `gate keys new` makes a pair")
        digest = site.secret_hash.removeprefix("sha256:")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            found.append(
                f"{at}.secret_hash: must be the SHA-256 of the secret key, 64 hex digits; "
                "`gate keys new` prints it"
            )
        if digest in _GUESSED:
            found.append(f"{at}.secret_hash: the key can be guessed; `gate keys new` makes a pair")
        for number, webhook in enumerate(site.webhook):
            found += [f"{at}.webhook[{number}].{text}" for text in webhook_problems(webhook)]
        urls = [webhook.url for webhook in site.webhook]
        if len(set(urls)) != len(urls):
            found.append(f"{at}.webhook.url: two are the same; one is told everything already")
        for origin in site.origins:
            scheme, _, rest = origin.partition("://")
            if (
                scheme not in ("http", "https")
                or not rest
                or "/" in rest
                or origin != origin.lower()
            ):
                found.append(f'{at}.origins: {origin!r}; write "https://www.example.com", no path')
    for key in ("name", "site_key", "secret_hash"):
        values = [getattr(site, key) for site in sites]
        if len(set(values)) != len(values):
            found.append(f"site.{key}: two sites have the same; each needs its own")
    return found


def server_of(text: str) -> tuple[str, int]:
    """`"ip:port"`, `"[v6]:port"` or a bare address as (address, port). Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or (":" in host and not host.startswith("[")):
        host, port = text, "53"
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(text)
    return str(ip_address(host.strip("[]"))), number


def _is_host_name(name: str) -> bool:
    labels = name.split(".")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    return (
        len(name) <= 253
        and len(labels) >= 2
        and all(0 < len(label) <= 63 and not set(label) - allowed for label in labels)
        and not any(label.startswith("-") or label.endswith("-") for label in labels)
    )


def _is_plain(local: str) -> bool:
    return 0 < len(local) <= 64 and all("!" <= c <= "~" and c not in '<>()[],;:\\"@' for c in local)
