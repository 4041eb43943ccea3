"""What is wrong with settings that no type can say. Pure.

What it promises: a choice that would turn people away by accident, a key that can be guessed and a
name that nobody could use are found before the gate opens. What is wrong with a `[[hook]]` or a
`[[site.webhook]]` is said where these are described.
"""

from __future__ import annotations

import hashlib
from ipaddress import ip_address, ip_network

from gate import proxy
from gate.hooks.settings import problems as hook_problems
from gate.reason import Choice
from gate.redis_url import SCHEMES, WRITE_URL
from gate.redis_url import parse as parse_redis
from gate.settings import EgressAddress, Settings, Site, server_of
from gate.webhooks.settings import problems as webhook_problems

_UNKNOWN_BLOCKED = (
    "would refuse people whenever a check fails for a technical reason; "
    'write unknown = "allow" (or "warn") and look at siteverify for the late verdict'
)
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


def problems(settings: Settings) -> list[str]:
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
