"""A gate that is fit for the internet, on loopback: its zones, mail hosts and settings.

Each test of the doctor breaks one thing of it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from gate.budget import Deadline
from gate.doctor.examine import Patient, examine, why_offline
from gate.doctor.finding import Finding, Report
from gate.doctor.port25 import TARGETS
from gate.egress import IPAddress
from gate.engine import Engine, open_engine
from gate.settings import Settings
from gate.settings.read import parse
from gate.testing import NXDOMAIN, FakeZones, HostRules, MailHost, Seam, SmtpListener
from gate.testing.zones import Value

DOMAIN, HELO, IP = "acme.shop", "gate.acme.shop", "9.9.4.1"
OWN_RULES = HostRules(name="mx.acme.shop", users=("probe",))
BIG_RULES = HostRules(name="mx.big.net")
LISTS = (
    "zen.spamhaus.org",
    "bl.spamcop.net",
    "b.barracudacentral.org",
    "psbl.surriel.com",
    "bl.mailspike.net",
    "dnsbl-1.uceprotect.net",
)
ZONES: Mapping[str, Value] = {
    "a.root-servers.net": "A 198.41.0.4",
    "*.com": NXDOMAIN,
    "*.net": NXDOMAIN,
    "*.org": NXDOMAIN,
    **{f"2.0.0.127.{zone}": "A 127.0.0.2" for zone in LISTS},
    **dict.fromkeys(TARGETS, "MX 10 mx.big.net"),
    "mx.big.net": "A 8.8.4.11",
    DOMAIN: ["MX 10 mx.acme.shop", f'TXT "v=spf1 ip4:{IP} -all"'],
    "mx.acme.shop": "A 8.8.4.10",
    f"_signup-gate.{DOMAIN}": NXDOMAIN,
    HELO: f"A {IP}",
    "1.4.9.9.in-addr.arpa": f"PTR {HELO}",
}
SETTINGS: Mapping[str, Any] = {
    "probe": {"helo": HELO, "mail_from": f"probe@{DOMAIN}"},
    # A private source address: mail hosts see another, which the HELO name gives away.
    "egress": {"address": [{"ip": "127.0.0.5"}]},
    "server": {"trusted_proxies": ["127.0.0.1/32"]},
    "store": {"url": "sqlite:gate.db"},
    "site": [
        {
            "name": "shop",
            "site_key": "pk_shop",
            "secret_hash": "0" * 64,
            "origins": ["https://www.acme.shop"],
        }
    ],
}
WELL = {
    "resolver": ["ok"],
    "port-25": ["ok"],
    "identity": ["ok"],
    "names": ["ok"],
    "sender": ["ok", "ok"],
    "spf": ["ok"],
    "block-lists": ["ok"],
    "files": ["ok"],
    "store": ["ok", "ok"],
    "settings": ["ok"],
}
"""What every check but the clock's says of it; the clock is the machine's own."""


@dataclass(slots=True)
class Ground:
    """What `open_engine` takes for a mail world, and the servers behind it."""

    zones: FakeZones
    own: SmtpListener
    big: SmtpListener
    seam: Seam = field(default_factory=Seam)
    stubs: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    seam_addresses: Collection[IPAddress] = ()


@asynccontextmanager
async def ground(
    zones: Mapping[str, Value] | None = None,
    tables: Mapping[str, Any] | None = None,
    *,
    own: SmtpListener | None = None,
    big: SmtpListener | None = None,
    more: Mapping[str, tuple[str, int]] | None = None,
) -> AsyncIterator[tuple[Engine, Ground]]:
    """The fit gate but for what is given. `more`: addresses and the listeners they lead to."""
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeZones({**ZONES, **(zones or {})}))
        ours = await stack.enter_async_context(own or MailHost(OWN_RULES))
        theirs = await stack.enter_async_context(big or MailHost(BIG_RULES))
        world = Ground(fake, ours, theirs)
        world.seam.add("8.8.4.10", ours.address)
        world.seam.add("8.8.4.11", theirs.address)
        for ip, listener in (more or {}).items():
            world.seam.add(ip, listener)
        settings = settings_with(fake, tables)
        engine = await stack.enter_async_context(
            open_engine(settings, store_url="memory:", world=world)
        )
        yield engine, world


def settings_with(zones: FakeZones, tables: Mapping[str, Any] | None = None) -> Settings:
    """The settings of the fit gate, with other tables in the place of some."""
    host, port = zones.server
    return parse({**SETTINGS, "dns": {"servers": [f"{host}:{port}"]}, **(tables or {})})


async def looked_over(engine: Engine, *only: str, seconds: float = 10.0, **changes: Any) -> Report:
    """What the doctor finds, as the command line asks for it."""
    patient = replace(Patient(engine, apart=True, offline=why_offline(engine)), **changes)
    return await examine(patient, Deadline.after(seconds, time.monotonic), only)


def states(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """The states by check."""
    told: dict[str, list[str]] = {}
    for finding in findings:
        told.setdefault(finding.check, []).append(str(finding.state))
    return told
