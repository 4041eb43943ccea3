"""The lab itself: every server gives the reply that its row in world.py says."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from gate.reason import Reason
from tests.lab.lab import Lab
from tests.lab.reference import Heard, ask, ask_all
from tests.lab.rounds import came_of
from tests.lab.world import DOMAINS, OK, UNDER_WAY, Ask, Domain, Who

Replies = dict[tuple[str, str], Heard]

TALKS = [
    pytest.param(domain, row, id=f"{row.local}@{domain.full}-{row.who.value}")
    for domain in DOMAINS
    for row in domain.asks
    if domain.server
]
STRANGER = {
    Reason.ACCEPTED_EMAIL: "5",
    Reason.ACCEPT_ALL: "2",
    Reason.UNCONFIRMED: "4",
}
"""What a server that gives a mailbox this verdict answers to a name that nobody has."""


def _ask_everything(lab: Lab, folder: Path) -> dict[Who, Replies]:
    """Every question of the world, asked by the good client and by the stray one."""

    async def everything() -> dict[Who, Replies]:
        found = {}
        for who, client in ((Who.GOOD, "reference"), (Who.STRAY, "stray-reference")):
            found[who] = await ask_all(
                lab, client, [(d, a) for d in DOMAINS for a in d.asks if _asked(d, a, who)]
            )
        return found

    return asyncio.run(everything())


ROUNDS = {"replies": _ask_everything}


replies = came_of("replies")


def _asked(domain: Domain, row: Ask, who: Who) -> bool:
    # A server that speaks no SMTPUTF8 is not asked for a name that needs it.
    return bool(domain.server) and row.who is who and row.stage not in ("tls", "smtputf8")


@pytest.mark.parametrize(("domain", "row"), TALKS)
def test_reply(domain: Domain, row: Ask, replies: dict[Who, Replies], lab: Lab) -> None:
    heard = replies[row.who][domain.name, row.local]
    assert re.match(row.reply, str(heard)), heard
    assert heard.stage == row.stage


@pytest.mark.parametrize(
    ("domain", "refused"),
    [
        pytest.param(domain, STRANGER[row.reason], id=domain.full)
        for domain in DOMAINS
        for row in domain.asks[:1]
        if domain.server and row.reason in STRANGER and row.reply.startswith("250")
    ],
)
def test_a_name_that_nobody_has(domain: Domain, refused: str, lab: Lab) -> None:
    heard = asyncio.run(ask(lab, "reference", domain, "q7x2mzk4vw9n1cbt8dfg"))
    assert str(heard).startswith(refused), heard


@pytest.mark.parametrize(
    ("name", "record", "code", "count"),
    [
        ("local.test.", "MX", dns.rcode.NOERROR, 1),
        ("missing.test.", "MX", dns.rcode.NXDOMAIN, 0),
        ("example.com.", "A", dns.rcode.NXDOMAIN, 0),
        ("nomx.test.", "MX", dns.rcode.NOERROR, 0),
        ("nomx.test.", "A", dns.rcode.NOERROR, 0),
        ("nullmx.test.", "MX", dns.rcode.NOERROR, 1),
        ("implicit.test.", "MX", dns.rcode.NOERROR, 0),
        ("implicit.test.", "A", dns.rcode.NOERROR, 1),
        ("lame.test.", "MX", dns.rcode.SERVFAIL, 0),
        ("mx.renamed.test.", "A", dns.rcode.NOERROR, 2),
        ("crowd.test.", "MX", dns.rcode.NOERROR, 60),
    ],
)
def test_names(name: str, record: str, code: dns.rcode.Rcode, count: int, lab: Lab) -> None:
    query = dns.message.make_query(name, record, use_edns=True, payload=1232)
    answer, over_tcp = dns.query.udp_with_fallback(query, lab.resolver, timeout=10)
    assert answer.rcode() == code
    assert sum(len(rrset) for rrset in answer.answer) == count
    assert over_tcp == (count > 40), "the large set, and only that, is too large for UDP"


def test_greylist_lets_the_second_visit_pass(lab: Lab) -> None:
    grey = next(domain for domain in DOMAINS if domain.name == "grey-first")

    async def until_passed() -> list[int]:
        codes: list[int] = []
        while not codes or codes[-1] == 450:
            codes.append((await ask(lab, "rude", grey, "alice")).code)
            await asyncio.sleep(0.5)
        return codes

    codes = asyncio.run(until_passed())
    assert codes[0] == 450
    assert codes[-1] == 250


def test_verification_takes_a_visit_by_itself(lab: Lab) -> None:
    soft = next(domain for domain in DOMAINS if domain.name == "verify-soft")

    async def until_verified() -> list[Heard]:
        heard: list[Heard] = []
        while not heard or heard[-1].code == 450:
            heard.append(await ask(lab, "reference", soft, "alice+world"))
            await asyncio.sleep(0.2)
        return heard

    first, *_, last = asyncio.run(until_verified())
    assert re.match(UNDER_WAY, str(first)), first
    assert re.match(OK, str(last)), last


@pytest.mark.parametrize(
    ("name", "early", "answer"),
    [
        pytest.param(
            "pregreet", b"EHLO rude.lab.test\r\n", b"550 5.5.1 Protocol error", id="postscreen"
        ),
        pytest.param(
            "exim-sync", b"EHLO rude.lab.test\r\n", b"554 SMTP synchronization error", id="exim"
        ),
    ],
)
def test_who_speaks_before_the_greeting_is_put_out(
    name: str, early: bytes, answer: bytes, lab: Lab
) -> None:
    domain = next(domain for domain in DOMAINS if domain.name == name)
    rest = b"MAIL FROM:<probe@lab.test>\r\nRCPT TO:<alice@%s>\r\nQUIT\r\n" % domain.full.encode()
    with socket.create_connection(
        (lab.server_ip(domain), 25), timeout=10, source_address=(lab.client_ip("rude"), 0)
    ) as talk:
        talk.sendall(early)
        heard = talk.recv(4096)
        if answer not in heard:
            talk.sendall(rest)
        while answer not in heard and (more := talk.recv(4096)):
            heard += more
    assert answer in heard
