"""The gate's dialogue and aiosmtplib hear the same from every server of the lab.

The gate sends groups of commands, upgrades connections and reads bytes by itself; aiosmtplib, which
is in wide use, does one thing at a time. Whatever the server, the reply that decides must be the
same, word for word.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random

import pytest

from gate.address import Address, parse
from gate.budget import CLI_CHECK, Deadline
from gate.dns import Resolver
from gate.egress import Dialer, Source
from gate.smtp.caps import PLACES_ONLY
from gate.smtp.probe import Prober
from gate.smtp.session import tls_context
from gate.smtp.throttle import Throttle
from gate.trace import Trace
from tests.lab.lab import Lab
from tests.lab.reference import Heard, ask
from tests.lab.rounds import came_of
from tests.lab.world import CLIENTS, DOMAINS, Ask, Domain, Who

AT_ONCE = 8
CONTROL = "q7x2mzk4vw9n1cbt8dfg"
ROWS = [
    (domain, row)
    for domain in DOMAINS
    for row in domain.asks
    if domain.server and domain.name not in ("ascii", "old-tls")
]
"""Not where the gate stops before a reply that it could compare: no SMTPUTF8, no modern TLS."""
CLIENTS_OF = {Who.GOOD: ("prober", "peer"), Who.STRAY: ("stray-prober", "stray-peer")}


def _name(domain: Domain, row: Ask) -> str:
    return f"{row.local}@{domain.full}-{row.who.value}"


async def _ask_as_the_gate(lab: Lab, client: str, email: str) -> Heard:
    words = CLIENTS[client]
    address = parse(email)
    assert isinstance(address, Address)
    resolver = Resolver(
        [(lab.resolver, 53)], private_names=True, clock=time.monotonic, random=Random()
    )
    prober = Prober(
        dialer=Dialer(
            sources=[Source(ip_address(lab.client_ip(client)), words.helo)],
            allow=[ip_network("127.0.0.0/8")],
        ),
        mail_from=words.mail_from,
        tls="when-required",
        throttle=Throttle(caps=replace(PLACES_ONLY, dialogues=2), clock=time.monotonic),
        clock=time.monotonic,
        random=Random(),
        tls_context=tls_context(),
    )
    try:
        deadline = Deadline.after(CLI_CHECK, time.monotonic)
        route = await resolver.route(address.domain, deadline)
        trace = Trace(time.monotonic)
        finding = await prober.probe(
            address, route, control=CONTROL, deadline=deadline, trace=trace
        )
    finally:
        await prober.close()
        await resolver.close()
    assert finding.mailbox, (finding, trace.steps)
    assert finding.mailbox.reply
    return Heard(str(finding.stage), finding.mailbox.reply.code, finding.mailbox.reply.text)


def _without_us(heard: Heard, lab: Lab, client: str) -> Heard:
    """The reply without the client's own address and name, in which the two clients differ."""
    text = heard.text.replace(lab.client_ip(client), "<ip>")
    return Heard(heard.stage, heard.code, text.replace(CLIENTS[client].helo, "<helo>"))


def _hear_both(lab: Lab, folder: Path) -> dict[str, tuple[Heard, Heard]]:
    """What the gate and aiosmtplib are answered, by the row's name."""

    async def everything() -> dict[str, tuple[Heard, Heard]]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def both(domain: Domain, row: Ask) -> tuple[str, tuple[Heard, Heard]]:
            prober, peer = CLIENTS_OF[row.who]
            async with turn:
                gate = await _ask_as_the_gate(lab, prober, f"{row.local}@{domain.full}")
                reference = await ask(lab, peer, domain, row.local)
            return _name(domain, row), (
                _without_us(gate, lab, prober),
                _without_us(reference, lab, peer),
            )

        return dict(await asyncio.gather(*(both(*row) for row in ROWS)))

    return asyncio.run(everything())


ROUNDS = {"heard": _hear_both}


heard = came_of("heard")


@pytest.mark.parametrize("name", [_name(*row) for row in ROWS])
def test_same_reply(name: str, heard: dict[str, tuple[Heard, Heard]]) -> None:
    gate, reference = heard[name]
    assert gate == reference
