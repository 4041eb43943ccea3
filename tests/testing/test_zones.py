from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from gate.reason import GateError
from gate.testing.dns_listener import Stream
from gate.testing.zones import (
    NXDOMAIN,
    SERVFAIL,
    SILENT,
    FakeZones,
    Late,
    Packets,
    Rcode,
    Truncated,
    Turns,
    Value,
)


async def ask(
    zones: FakeZones, name: str, rdtype: str, *, tcp: bool = False, edns: bool = True
) -> dns.message.Message:
    """One question by a client that is not ours."""
    query = dns.message.make_query(name, rdtype, use_edns=0 if edns else False, payload=1232)
    host, port = zones.server
    send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await send(query, host, port=port, timeout=2)


def one(
    plan: Mapping[str, Value], name: str, rdtype: str, *, tcp: bool = False
) -> dns.message.Message:
    async def body() -> dns.message.Message:
        async with FakeZones(plan) as zones:
            return await ask(zones, name, rdtype, tcp=tcp)

    return asyncio.run(body())


def shown(answer: dns.message.Message) -> list[str]:
    """Type and data of the records, in the order of the answer."""
    return [
        f"{dns.rdatatype.to_text(rdata.rdtype)} {rdata.to_text()}"
        for rrset in answer.answer
        for rdata in rrset
    ]


PLAN: Mapping[str, Value] = {
    "example.test": ["MX 10 mx.example.test", "MX 20 mx2.example.test."],
    "mx.example.test": "A 203.0.113.7",
    "mx.example.test AAAA": SERVFAIL,
    "www.example.test": "CNAME mx.example.test",
    "out.example.test": "CNAME elsewhere.example",
    "*.example.test": "A 203.0.113.8",
    "*.deep.example.test": NXDOMAIN,
    "bare.test": Rcode("NXDOMAIN", soa=False),
    "own.test": "SOA ns.test hostmaster.test 1 2 3 4 77",
    "many.test": [f"A 10.0.0.{n}" for n in range(200)],
}

MX_BOTH = ["MX 10 mx.example.test.", "MX 20 mx2.example.test."]
ANSWERS = [
    ("example.test", "MX", MX_BOTH),
    ("MX.Example.TEST", "A", ["A 203.0.113.7"]),
    ("mx.example.test", "A", ["A 203.0.113.7"]),
    ("any.example.test", "A", ["A 203.0.113.8"]),
    ("www.example.test", "A", ["CNAME mx.example.test.", "A 203.0.113.7"]),
    ("out.example.test", "A", ["CNAME elsewhere.example."]),
    ("example.test", "A", []),
]


@pytest.mark.parametrize(("name", "rdtype", "records"), ANSWERS)
@pytest.mark.parametrize("tcp", [False, True])
def test_answers_records(name: str, rdtype: str, records: list[str], tcp: bool) -> None:
    answer = one(PLAN, name, rdtype, tcp=tcp)
    assert shown(answer) == records
    assert answer.rcode() == dns.rcode.NOERROR


def test_records_may_have_a_ttl() -> None:
    assert one({"a.test": "60 A 203.0.113.1"}, "a.test", "A").answer[0].ttl == 60


RCODES = [
    ("x.deep.example.test", "A", "NXDOMAIN"),
    ("mx.example.test", "AAAA", "SERVFAIL"),
    ("nobody.planned", "A", "REFUSED"),
]


@pytest.mark.parametrize(("name", "rdtype", "rcode"), RCODES)
def test_answers_errors(name: str, rdtype: str, rcode: str) -> None:
    assert dns.rcode.to_text(one(PLAN, name, rdtype).rcode()) == rcode


def test_absence_comes_with_a_soa_unless_it_is_not_to() -> None:
    assert one(PLAN, "example.test", "A").authority[0].rdtype == dns.rdatatype.SOA
    assert one(PLAN, "x.deep.example.test", "A").authority[0].rdtype == dns.rdatatype.SOA
    assert one(PLAN, "bare.test", "A").authority == []
    assert one(PLAN, "own.test", "A").authority[0][0].minimum == 77


def test_what_is_too_long_for_a_datagram_is_truncated() -> None:
    datagram = one(PLAN, "many.test", "A")
    stream = one(PLAN, "many.test", "A", tcp=True)
    assert (datagram.flags & dns.flags.TC, shown(datagram)) == (dns.flags.TC, [])
    assert (stream.flags & dns.flags.TC, len(shown(stream))) == (0, 200)


def test_every_question_is_logged_and_the_unplanned_apart() -> None:
    async def body() -> tuple[list[str], list[str]]:
        async with FakeZones(PLAN) as zones:
            await ask(zones, "example.test", "MX")
            await ask(zones, "example.test", "MX", tcp=True)
            await ask(zones, "nobody.planned", "A")
            await zones.asked(3)
            return list(zones.queries), list(zones.unplanned)

    queries, unplanned = asyncio.run(body())
    assert queries == ["example.test MX", "example.test MX tcp", "nobody.planned A"]
    assert unplanned == ["nobody.planned A"]


def test_turns_are_taken_and_plans_may_change() -> None:
    async def body() -> list[str]:
        async with FakeZones({"a.test": Turns("A 203.0.113.1", SERVFAIL)}) as zones:
            answers = [await ask(zones, "a.test", "A") for _ in range(3)]
            zones["a.test"] = "A 203.0.113.2"
            changed = shown(await ask(zones, "a.test", "A"))
            return [*(dns.rcode.to_text(answer.rcode()) for answer in answers), *changed]

    assert asyncio.run(body()) == [
        "NOERROR",
        "SERVFAIL",
        "SERVFAIL",
        "A 203.0.113.2",
    ]


def test_late_is_late_and_no_timer_outlives_the_server() -> None:
    plan: Mapping[str, Value] = {"a.test": Late(0.1, "A 203.0.113.1"), "b.test": Late(60, NXDOMAIN)}

    async def body() -> float:
        async with FakeZones(plan) as zones:
            start = time.monotonic()
            await ask(zones, "a.test", "A")
            took = time.monotonic() - start
            waits = asyncio.create_task(ask(zones, "b.test", "A"))
            await zones.asked(2)
            waits.cancel()
            await asyncio.wait({waits})
            return took

    assert asyncio.run(body()) >= 0.1


def test_faults() -> None:
    plan: Mapping[str, Value] = {
        "silent.test": SILENT,
        "tc.test": Truncated("A 203.0.113.1"),
        "cut.test": Stream(b"\0\x40half"),
        "plain.test": Rcode("FORMERR", unless_plain="A 203.0.113.1"),
        "twice.test": Packets(lambda query: [b"junk", query.says("A 203.0.113.1")]),
    }

    async def body() -> None:
        async with FakeZones(plan) as zones:
            assert (await ask(zones, "tc.test", "A")).flags & dns.flags.TC
            assert shown(await ask(zones, "tc.test", "A", tcp=True))
            assert (await ask(zones, "cut.test", "A")).flags & dns.flags.TC
            with pytest.raises(EOFError):
                await ask(zones, "cut.test", "A", tcp=True)
            assert (await ask(zones, "plain.test", "A")).rcode() == dns.rcode.FORMERR
            assert shown(await ask(zones, "plain.test", "A", edns=False))
            waits = asyncio.create_task(ask(zones, "silent.test", "A"))
            await zones.asked(7)
            assert not waits.done()
            waits.cancel()
            await asyncio.wait({waits})

    asyncio.run(body())


def test_without_tcp_the_port_is_closed() -> None:
    async def body() -> None:
        async with FakeZones(PLAN, tcp=False) as zones:
            with pytest.raises(ConnectionRefusedError):
                await ask(zones, "example.test", "MX", tcp=True)

    asyncio.run(body())


@pytest.mark.parametrize("record", ["MX mx.test", "A 300.0.0.1", "NONSENSE 1", "A", ""])
def test_what_is_no_record_is_refused_at_once(record: str) -> None:
    with pytest.raises(GateError, match="is no record"):
        FakeZones({"a.test": record})
