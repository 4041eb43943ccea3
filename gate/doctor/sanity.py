"""The settings: what is allowed and still unwise on the internet. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from gate.doctor.finding import Finding, Topic, listed
from gate.settings import Settings, Site

IDENTITY: Final = "identity"
IDENTITY_WHY: Final = (
    "the gate tells every mail host who it is; with nobody's name it is off, with a careless one "
    "it is refused"
)
SETTINGS: Final = "settings"
SETTINGS_WHY: Final = "what is convenient in development is an open door, or a quiet gap, in public"

SECRET_BITS_LEAST: Final = 100.0
PROXIES_MOST: Final = 1 << 16
"""Addresses of a trusted network: more than a /16 is hardly somebody's proxies."""
_EXAMPLES: Final = frozenset({"example.com", "example.net", "example.org", "your-domain"})


def identity(settings: Settings, helo: str, note: str) -> list[Finding]:
    """HELO name and envelope sender. `helo` is empty if there is none; `note`: how it came by."""
    topic = Topic(IDENTITY, IDENTITY_WHY)
    if not settings.probe.enabled:
        return [topic.skipped("probing is switched off (probe.enabled)")]
    if not helo:
        return [
            topic.problem(
                "probe.helo is not set: no mail server outside the sandbox is asked",
                "write in gate.toml, with names of yours:\n[probe]\n"
                'helo = "gate.your-domain"\nmail_from = "postmaster@your-domain"',
            )
        ]
    findings = []
    if note:
        findings.append(topic.warning(note, f'set probe.helo = "{helo}", or a better name'))
    sender = settings.probe.mail_from.rpartition("@")[2].lower()
    if not sender:
        findings.append(
            topic.warning(
                f"probe.mail_from is not set: the postmaster of {helo} is used",
                "set probe.mail_from to a mailbox of yours that takes mail",
            )
        )
    for key, name in (("probe.helo", helo.lower()), ("probe.mail_from", sender)):
        if _is_example(name):
            findings.append(
                topic.problem(f"{key}: {name} stands in documents only", f"set {key} to your own")
            )
    return findings or [topic.ok(f"greets as {helo}, with a sender of {sender}")]


def helo_is_own_mx(helo: str, mx_names: Sequence[str], domain: str) -> list[Finding]:
    """A warning if the gate greets with the name of the mail server that serves its sender."""
    if helo.lower() not in mx_names:
        return []
    return [
        Topic(IDENTITY, IDENTITY_WHY).warning(
            f"the HELO name {helo} is the MX of {domain} as well: a block that probing earns hits "
            "your own mail",
            "give the gate an address and a name of its own, as in gate.your-domain",
        )
    ]


def settings_of(settings: Settings) -> list[Finding]:
    """Everything else; one finding if all is well."""
    topic = Topic(SETTINGS, SETTINGS_WHY)
    checks: tuple[Callable[[Settings, Topic], list[Finding]], ...] = (
        _sites,
        _secret,
        _lab,
        _proxies,
    )
    found = [finding for one in checks for finding in one(settings, topic)]
    return found or [topic.ok("nothing left over from development")]


def _sites(settings: Settings, topic: Topic) -> list[Finding]:
    if not settings.site:
        return [
            topic.warning(
                "no [[site]]: the development site is in use, whose keys are printed at start",
                "put into gate.toml what this prints:\ngate keys new --name shop",
            )
        ]
    return [finding for site in settings.site for finding in _site(site, topic)]


def _site(site: Site, topic: Topic) -> list[Finding]:
    found = []
    if not site.origins:
        found.append(
            topic.warning(
                f"site {site.name!r} has no origins: no page may use the widget with its key",
                'set origins = ["https://www.your-domain"]; if only your server asks, leave it so',
            )
        )
    plain = [o for o in site.origins if o.startswith("http://") and not _is_local(o)]
    if plain:
        found.append(
            topic.warning(
                f"site {site.name!r}: {listed(plain)} is not https, so anybody on the way can read "
                "and change the page",
                "serve the page over https and write https:// in origins",
            )
        )
    return found


def _secret(settings: Settings, topic: Topic) -> list[Finding]:
    secret = settings.server.secret
    if not secret or bits(secret) >= SECRET_BITS_LEAST:
        return []
    return [
        topic.problem(
            "server.secret can be guessed: it repeats itself",
            "write one from a generator (openssl rand -hex 32), or leave it empty and the store "
            "makes one",
        )
    ]


def _lab(settings: Settings, topic: Topic) -> list[Finding]:
    found = []
    if settings.egress.allow:
        found.append(
            topic.warning(
                f"egress.allow lets the gate dial {listed(settings.egress.allow)}: whoever signs "
                "up can point an MX there",
                "remove egress.allow outside a lab",
            )
        )
    if settings.sandbox.enabled and settings.probe.helo:
        found.append(
            topic.warning(
                "the sandbox is on beside real probing: addresses under .test are answered by "
                "practice servers, and / is a page for everybody",
                "set sandbox.enabled = false in public",
            )
        )
    return found


def _proxies(settings: Settings, topic: Topic) -> list[Finding]:
    found = [
        topic.warning(
            f"server.trusted_proxies: {text} is wide; whoever is in there can name any visitor",
            "name the addresses of your proxies",
        )
        for text in settings.server.trusted_proxies
        if _is_wide(text)
    ]
    if _is_loopback(settings.server.host) and settings.site and not settings.server.trusted_proxies:
        found.append(
            topic.warning(
                "the gate listens on loopback and trusts no proxy: behind one, all visitors look "
                "like one and share client_per_minute",
                "if your proxy runs on this machine, write in gate.toml:\n[server]\n"
                'trusted_proxies = ["127.0.0.1/32"]',
            )
        )
    return found


def bits(secret: str) -> float:
    """An estimate of how much chance is in a secret: its length times what a character carries."""
    counts = Counter(secret)
    length = len(secret)
    each = -sum(n / length * math.log2(n / length) for n in counts.values())
    halves = secret[: length // 2] == secret[length // 2 : length // 2 * 2]
    return each * (length // 2 if halves else length)


def _is_example(name: str) -> bool:
    return any(name == e or name.endswith(f".{e}") for e in _EXAMPLES)


def _is_local(origin: str) -> bool:
    host = origin.partition("://")[2].rpartition(":")[0] or origin.partition("://")[2]
    return host in ("localhost", "127.0.0.1", "[::1]")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_wide(text: str) -> bool:
    network = ip_network(text)
    return (
        network.num_addresses > PROXIES_MOST
        and network.version == 4
        or (network.version == 6 and network.prefixlen < 48)
    )
