"""N01 to N46: what resolvers and zones do."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Mapping
from typing import Final

import pytest

from gate.budget import (
    DNS_FAILURE,
    DNS_NEGATIVE_DEFAULT,
    DNS_SERVER_REST,
    DNS_TTL_MOST,
    Deadline,
)
from gate.dns import Resolver
from gate.dns.answers import ESTATE_MOST
from gate.dns.ask import QUESTIONS
from gate.doctor import resolving
from gate.doctor.finding import State
from gate.egress import own_addresses
from gate.testing import HostRules
from gate.testing.dns_listener import Stream
from gate.testing.forgery import (
    MX_GOOD,
    MX_HEAD,
    bogus,
    chain_of_aliases,
    crowd,
    deep_owners,
    long_rdata,
    only,
    other_case,
    other_class,
    other_flags,
    other_id,
    other_name,
    records,
    then_right,
)
from gate.testing.zones import (
    NXDOMAIN,
    SERVFAIL,
    SILENT,
    FakeZones,
    Late,
    Rcode,
    Truncated,
    Turns,
    Value,
)
from gate.trace import Trace
from tests.dns.ground import closed_port
from tests.faults.cases import case, row
from tests.faults.ground import JOE, Case, Ground, Played, Row, ground
from tests.lateworld import settings

pytestmark = pytest.mark.timeout(180)

HERE: Final = "A 8.1.4.4"
"""Where the first mail host of good.test listens."""


def absent(says: str, expect: str, dns: dict[str, Value], lasts: float | None = None) -> Case:
    """Nobody can be dialled; a mail host that nothing leads to stands by and must not be."""

    def look(here: Ground) -> None:
        assert not here.seam.dialled
        assert len(here.questions) <= QUESTIONS
        if lasts is not None:
            route = here.engine.resolver.cached("good.test")
            assert route is not None and abs(route.expires - route.found_at - lasts) < 1

    return case(says, "accepted", expect=expect, again="kept", dns=dns, look=look)


def found(
    says: str, value: Value, takes: float = 0.0, more: Mapping[str, Value] | None = None
) -> Case:
    """good.test answers `value`, and the mail host that this leads to is asked."""
    dns = {"good.test": value, **(more or {})}
    return case(says, "accepted", expect="accepted_email", again="kept", dns=dns, takes=takes)


def failed(
    says: str,
    value: Value,
    takes: float = 0.0,
    more: Mapping[str, Value] | None = None,
    *,
    tcp: bool = True,
) -> Case:
    """The look-up of good.test fails; that is remembered for seconds."""
    dns = {"good.test": value, **(more or {})}
    return case(says, "accepted", expect="dns_error", again="kept", dns=dns, takes=takes, tcp=tcp)


def denied(*ips: str) -> Case:
    """The mail host has these addresses and no other."""
    addresses = [f"AAAA {ip}" if ":" in ip else f"A {ip}" for ip in ips]

    def look(here: Ground) -> None:
        assert not here.seam.dialled

    dns: dict[str, Value] = {"good.test": MX_GOOD, "mx.good.test": addresses}
    return case(" ".join(ips), expect="mx_unroutable", again="kept", dns=dns, look=look)


# -- rows that are more than one check -------------------------------------------------------------


async def another_resolver(budget: float) -> Ground:
    """N17: the first resolver fails, the second one answers."""
    async with FakeZones({"*": SERVFAIL}) as broken:
        async with ground("accepted", resolvers=[broken.server]) as here:
            assert await here.found(budget) == ("accepted_email", "accepted_email")
            assert 0 < len(broken.queries) <= QUESTIONS
    return here


class Ear(asyncio.DatagramProtocol):
    """Hears, and says nothing."""

    def __init__(self) -> None:
        self.heard = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard += 1


async def nobody_listens(budget: float) -> Ground:
    """N46: no resolver; nothing is remembered, and the gate knows that it is not well."""
    host, port = closed_port()
    config = settings(webhooks=[], dns={"servers": [f"{host}:{port}"]})
    async with ground("accepted", config=config) as here:
        resolver = here.engine.resolver
        healthy = [resolver.healthy]
        assert await here.found(budget, "jane@good.com") == ("dns_error", "dns_error")
        healthy.append(resolver.healthy)
        assert healthy == [True, False]
        assert resolver.cached("good.com") is None
        assert await here.found(budget, "jane@good.com") == ("dns_error", "dns_error")
        loop = asyncio.get_running_loop()
        back, ear = await loop.create_datagram_endpoint(Ear, (host, port))
        here.advance(DNS_SERVER_REST)
        await here.check(0.05, "joe@good.com")
        assert ear.heard, "it is tried again"
        back.close()
    return here


async def too_late(budget: float) -> Ground:
    """N21: the answer comes when nobody waits any more."""
    plan: dict[str, Value] = {"good.test": Late(4.5, MX_GOOD)}
    async with ground("accepted", zones=plan) as here:
        assert await here.found(budget) == ("dns_error" if budget > 4.3 else "timeout", "dns_error")
        await asyncio.sleep(0.8)
        route = here.engine.resolver.cached("good.test")
        assert route is not None and route.detail == "timeout"
        assert not here.seam.dialled
    return here


async def no_lifetime(budget: float) -> Ground:
    """N33: the verdict is remembered, the route is not."""
    plan: dict[str, Value] = {"good.test": "0 MX 10 mx.good.test", "mx.good.test": f"0 {HERE}"}
    async with ground(HostRules(users=["jane", "joe"]), zones=plan) as here:
        assert await here.reason(budget) == "accepted_email"
        assert here.engine.resolver.cached("good.test") is None
        asked = len(here.questions)
        assert await here.reason(budget) == "accepted_email"
        assert len(here.questions) == asked
        assert await here.reason(budget, JOE) == "accepted_email"
        assert len(here.questions) > asked
    return here


async def rebinding(budget: float) -> Ground:
    """N35: another address each time; the one that was looked at is the one that is dialled."""
    turns = Turns(f"0 {HERE}", "0 A 127.0.0.1")
    plan: dict[str, Value] = {"mx.good.test A": turns, "mx.good.test": "TXT x"}
    async with ground("accepted", zones=plan) as here:
        assert await here.reason(budget) == "accepted_email"
        assert {str(ip) for ip in here.seam.dialled} == {"8.1.4.4"}
        assert here.questions.count("mx.good.test A") == 1
    return here


async def long_lifetime(budget: float) -> Ground:
    """N34: no longer than the bound, whatever is claimed."""
    years = 2**31 - 1
    plan: dict[str, Value] = {
        "good.test": f"{years} MX 10 mx.good.test",
        "mx.good.test": [f"{years} {HERE}", f"{years} AAAA 2001:4860:4860::8844"],
    }
    async with ground("accepted", zones=plan) as here:
        assert await here.reason(budget) == "accepted_email"
        route = here.engine.resolver.cached("good.test")
        assert route is not None and route.expires - route.found_at <= DNS_TTL_MOST + 1
    return here


async def negative_lifetime(budget: float) -> Ground:
    """N34: a TTL with the highest bit set is none at all (RFC 2181 section 8)."""
    body = b"\xc0\x0c" + struct.pack("!HHI", 15, 1, 2**32 - 1) + b"\0\x07\0\x0a\2mx\xc0\x0c"
    async with ground("accepted", zones={"good.test": records(body)}) as here:
        assert await here.reason(budget) == "accepted_email"
        assert here.engine.resolver.cached("good.test") is None
    return here


async def wildcard(budget: float) -> Ground:
    """N41: one name of it is like any other; of very many it is seen, and few are remembered."""
    zones = {"*.wild.test": MX_GOOD}
    async with ground("accepted", zones=zones) as here:
        assert await here.found(budget, "jane@x.wild.test") == ("accepted_email", "accepted_email")
        resolver = here.engine.resolver
        names = [f"x{number}.wild.test" for number in range(2 * ESTATE_MOST)]
        routes = [await resolver.route(name, Deadline.after(5, here.time)) for name in names]
        assert [route.detail for route in (routes[0], routes[-1])] == ["", "wildcard_dns"]
        assert sum(resolver.cached(name) is not None for name in names) == ESTATE_MOST
        trace = Trace(here.time)
        await here.check(budget, f"jane@{names[-1]}", trace=trace)
        assert "wildcard_dns" in str(trace.steps)
    return here


async def invented(budget: float) -> Ground:
    """N43: a resolver that gives an address to every name. It is found out, and refuses nobody."""
    lies: dict[str, Value] = {f"*.{zone}": "A 9.9.9.9" for zone in ("com", "net", "org")}
    async with FakeZones({**lies, "*.com MX": NXDOMAIN}) as liar:
        config = settings(webhooks=[], dns={"servers": [f"127.0.0.1:{liar.server[1]}"]})
        async with ground("accepted", config=config) as here:
            resolver = here.engine.resolver
            assert await resolver.invents_names(Deadline.after(5, here.time)) is True
            for domain in ("mistyped.com", "mistyped.net"):
                said, found = await here.found(budget, f"jane@{domain}")
                assert {said, found} <= {"dns_error", "no_connect"}, f"{said}, {found}"
            (told,) = await resolving.check(
                [liar.server], lambda _: _resolver(liar), here.time, Deadline.after(5, here.time)
            )
            assert told.state is State.PROBLEM and "names that nobody has" in told.found
    return here


def _resolver(zones: FakeZones) -> Resolver:
    """As the doctor asks one resolver by itself."""
    return Resolver([zones.server], clock=time.monotonic, random=random.Random(1), ipv6=False)


def typed(email: str) -> Case:
    """N44: what is no domain is said to be none, and nobody is asked."""

    async def scene(budget: float) -> Ground:
        async with ground("accepted") as here:
            answer = await here.check(budget, email)
            assert answer.verdict.reason == "invalid_email"
            assert answer.fault is not None
            assert not here.questions
        return here

    return Case(email, scene)


def four_looked_up(here: Ground) -> None:
    """N31."""
    hosts = {question.partition(" ")[0] for question in here.questions} - {"good.test"}
    assert len(hosts) <= 4
    assert len(here.questions) <= QUESTIONS


def four_dialled(here: Ground) -> None:
    """N32."""
    assert sorted(ip.version for ip in here.seam.dialled) == [4, 4, 6, 6]


ROWS = [
    row(
        "N01",
        "NXDOMAIN with SOA: the domain is not there, for as long as the SOA says",
        absent(
            "for half a minute",
            "invalid_domain",
            {"good.test": NXDOMAIN, "test": "SOA ns.test h.test 1 3600 600 86400 30"},
            30,
        ),
        absent(
            "for a day",
            "invalid_domain",
            {"good.test": NXDOMAIN, "test": "86400 SOA ns.test h.test 1 3600 600 86400 86400"},
            300,
        ),
    ),
    row(
        "N02",
        "NXDOMAIN without SOA: the same, for a minute",
        absent(
            "no SOA",
            "invalid_domain",
            {"good.test": Rcode("NXDOMAIN", soa=False)},
            DNS_NEGATIVE_DEFAULT,
        ),
    ),
    row(
        "N03",
        "NXDOMAIN for MX where there is an A: a lie, which proves nothing",
        absent("A exists", "dns_error", {"good.test MX": NXDOMAIN, "good.test": HERE}, DNS_FAILURE),
        absent("other records", "dns_error", {"good.test MX": NXDOMAIN, "good.test": "TXT x"}),
        absent("A fails", "dns_error", {"good.test MX": NXDOMAIN, "good.test": SERVFAIL}),
    ),
    row(
        "N04",
        "no MX but an A: the domain is its own mail host (RFC 5321 section 5.1)",
        found("which accepts", HERE),
        case(
            "which refuses",
            "rejected",
            expect="rejected_email",
            again="kept",
            dns={"good.test": HERE},
        ),
        case(
            "which is no mail host",
            "refused",
            expect="no_connect",
            again="asked",
            dns={"good.test": HERE},
        ),
    ),
    row(
        "N05",
        "no MX but an AAAA, and no way there: nobody could be talked to",
        case(
            "AAAA alone",
            expect="no_connect",
            again="asked",
            dns={"good.test": "AAAA 2001:4860:4860::8844"},
        ),
    ),
    row(
        "N06",
        "neither MX nor address, both proven: it receives no mail",
        absent("empty", "no_mx", {"good.test": ["TXT x", "SOA ns.test h.test 1 1 1 1 30"]}, 30),
    ),
    row(
        "N07",
        "no MX, no A, and AAAA cannot be looked up: not proven",
        absent("AAAA fails", "dns_error", {"good.test": "TXT x", "good.test AAAA": SERVFAIL}),
    ),
    row("N08", "null MX (RFC 7505)", absent("0 .", "null_mx", {"good.test": "MX 0 ."})),
    row(
        "N09", "null MX of another preference", absent("10 .", "null_mx", {"good.test": "MX 10 ."})
    ),
    row("N10", "null MX beside a real one: the real one", found("both", ["MX 0 .", MX_GOOD])),
    row(
        "N11",
        "no MX target exists: no mail, and the domain's own address is no way out",
        absent(
            "all absent",
            "no_mx",
            {
                "good.test": ["MX 10 a.test", "MX 20 b.test", HERE],
                "a.test": NXDOMAIN,
                "b.test": "TXT x",
            },
        ),
        absent(
            "a fifth that nobody asked for",
            "dns_error",
            {"good.test": [f"MX 10 mx{n}.test" for n in range(5)], "*.test": NXDOMAIN},
        ),
    ),  # fmt: skip
    row(
        "N12",
        "one target is absent, one cannot be looked up: not proven",
        absent(
            "both",
            "dns_error",
            {"good.test": ["MX 10 a.test", "MX 20 b.test"], "a.test": NXDOMAIN, "b.test": SERVFAIL},
        ),
    ),
    row(
        "N13",
        "the target is an alias: followed, four times at most",
        found("of a host", "MX 10 a.test", more={"a.test": "CNAME mx.good.test"}),
        failed(
            "of an alias of an alias …",
            "MX 10 a.test",
            more={
                "a.test": "CNAME b.test",
                "b.test": "CNAME c.test",
                "c.test": "CNAME d.test",
                "d.test": "CNAME e.test",
                "e.test": "CNAME mx.good.test",
            },
        ),
    ),
    row(
        "N14",
        "the domain is an alias: followed, eight times at most",
        found("of a domain with MX", "CNAME a.test", more={"a.test": MX_GOOD}),
        failed(
            "at the end of nine",
            "CNAME a0.test",
            more={
                **{f"a{n}.test": f"CNAME a{n + 1}.test" for n in range(8)},
                "a8.test": MX_GOOD,
            },
        ),
    ),
    row(
        "N15",
        "aliases in a circle",
        failed("two", "CNAME a.test", more={"a.test": "CNAME good.test"}),
        failed("of itself", "CNAME good.test"),
    ),
    row("N16", "1,500 aliases in one answer of 51 KB", failed("refused", chain_of_aliases())),
    row(
        "N17",
        "SERVFAIL: once more at another resolver, then an error that lasts seconds",
        failed("from the only one", SERVFAIL),
        Case("from the first of two", another_resolver),
    ),
    row(
        "N18",
        "REFUSED, NOTIMP or FORMERR to EDNS: once more without",
        *(
            found(f"{name} to EDNS", Rcode(name, unless_plain=MX_GOOD))
            for name in ("REFUSED", "NOTIMP", "FORMERR")
        ),
        *(
            failed(f"{name} to everything", Rcode(name))
            for name in ("REFUSED", "NOTIMP", "FORMERR")
        ),
    ),
    row("N19", "silence: given up after a part of the flight", failed("silent", SILENT, 4.0)),
    row("N20", "the first datagram is lost", found("sent again", Turns(SILENT, MX_GOOD), 0.4)),
    row(
        "N21",
        "an answer after the deadline is not heard",
        Case("half a second later", too_late, takes=5.4),
    ),
    row("N22", "wrong ids, then the right one", found("fifty", then_right(other_id, times=50))),
    row(
        "N23",
        "another question or letter case, then the right one",
        found("question", then_right(other_name)),
        found("letter case", then_right(other_case)),
    ),
    row(
        "N24",
        "malformed messages, alone or with the right one behind",
        found("one octet", then_right(lambda wire: wire[:1])),
        found("a record cut off", then_right(lambda wire: wire[:-1])),
        found("rdlength past the end", then_right(long_rdata)),
        failed("cut off, alone", only(lambda wire: wire[:-1]), 0.15),
        failed("rdlength past the end, alone", only(long_rdata), 0.15),
    ),
    row(
        "N25",
        "no response, another opcode, another class: not heard",
        found("QR", then_right(other_flags(0x8000))),
        found("opcode", then_right(other_flags(0x1000))),
        found("class", then_right(other_class)),
    ),
    row("N26", "truncated: over TCP", found("TC", Truncated(MX_GOOD))),
    row(
        "N27",
        "truncated, and TCP fails",
        failed("refused", Truncated(MX_GOOD), tcp=False),
        failed("hangs", Truncated(SILENT), 2.0),
        failed("closes in the middle", Stream(b"\0\x40" + b"x" * 20)),
    ),
    row(
        "N28",
        "64 KB over TCP: refused by its length",
        failed("of short labels", Stream(b"\xff\xff" + b"\1x" * 32_767, close=False)),
    ),
    row("N29", "62 MX of a hundred labels in one datagram", failed("refused", deep_owners())),
    row(
        "N30",
        "names that lead nowhere",
        failed("a pointer to itself", records(b"\xc0\x1b" + MX_HEAD + b"\0\0"), 0.15),
        failed("a pointer forward", records(b"\xcf\xff" + MX_HEAD + b"\0\0"), 0.15),
        failed("label type 0x40", records(b"\x41x\0" + MX_HEAD + b"\0\0"), 0.15),
    ),
    row(
        "N31",
        "a hundred MX of one preference: any four are looked up, two dialled",
        case(
            "none answers",
            "accept_close",
            expect="no_connect",
            again="asked",
            dns={
                "good.test": [f"MX 10 mx{n}.good.test" for n in range(100)],
                "*.good.test": HERE,
            },
            calls=(2,),
            look=four_looked_up,
        ),
    ),
    row(
        "N32",
        "a host with 2,048 addresses: four are tried, both families alike",
        case(
            "none answers",
            expect="no_connect",
            again="asked",
            dns={
                "good.test": MX_GOOD,
                "mx.good.test A": crowd(2048),
                "mx.good.test": [f"AAAA 2001:4860:4860::{n}" for n in range(1, 4)],
            },
            look=four_dialled,
        ),
    ),
    row("N33", "TTL 0: for this check only", Case("of MX and A", no_lifetime)),
    row(
        "N34",
        "TTL of 68 years, or negative: an hour, or none",
        Case("68 years", long_lifetime),
        Case("negative", negative_lifetime),
    ),
    row("N35", "the answer changes meanwhile: the first one counts", Case("A", rebinding)),
    row(
        "N36",
        "the target is an address: ignored",
        failed("alone", "MX 10 127.0.0.1"),
        failed("as a number", "MX 10 2130706433"),
        found("beside a host", ["MX 5 127.0.0.1", MX_GOOD]),
    ),
    row(
        "N37",
        "the target is no host name: ignored, but for an underscore",
        found("underscore", "MX 10 _mx.a.test", more={"_mx.a.test": HERE}),
        *(
            failed(name, f"MX 10 {label}.good.test")
            for name, label in (
                ("space", "m\\032x"),
                ("NUL", "m\\000x"),
                ("@", "m\\064x"),
                ("8 bit", "\\226\\145\\160"),
            )
        ),
        found("beside a host", ["MX 5 m\\064x.good.test", MX_GOOD]),
    ),
    row(
        "N38",
        "addresses that are nobody's: not dialled",
        denied("127.0.0.1"),
        denied("0.0.0.0", "::", "::1"),
        denied("192.0.2.1", "2001:db8::1"),
    ),
    row(
        "N39",
        "private addresses: not dialled",
        denied("10.0.0.1", "172.16.0.1", "192.168.0.1"),
        denied("100.64.0.1"),
        denied("fd00::1"),
    ),
    row(
        "N40",
        "our own addresses: not dialled",
        denied(*(str(ip) for ip in own_addresses())),
    ),
    row("N41", "every name below a domain leads somewhere", Case("a hundred", wildcard)),
    row(
        "N42",
        "signatures that are wrong: SERVFAIL, says the resolver that looked",
        failed("extended error 6", bogus()),
    ),
    row("N43", "a resolver that invents names", Case("for .com, .net and .org", invented)),
    row(
        "N44",
        "domains in other scripts: as A-labels, strictly",
        case(
            "bücher.test", "accepted", expect="accepted_email", again="kept",
            email="jane@bücher.test", dns={"xn--bcher-kva.test": MX_GOOD},
        ),
        typed("jane@xn--\\-\\-.test"),
        typed("jane@xn--a.test"),
        typed("jane@💩.test"),
    ),
    # The row wants status 422. The API answers 200 for every verdict, and a bad address is one.
    row(
        "N45",
        "the domain is a public suffix: what its records say, as of any other",
        case(
            "no records", "accepted", expect="no_mx", again="kept", email="jane@test",
            dns={"test": "TXT x"},
        ),
        case(
            "an MX, as ai has one", "accepted", expect="accepted_email", again="kept",
            email="jane@test", dns={"test": MX_GOOD},
        ),
    ),
    row("N46", "nobody listens where the resolver should be", Case("refused", nobody_listens)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_name_servers(row: Row, played: Played) -> None:
    played.passed(row)
