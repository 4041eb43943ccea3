"""Any one question, asked afresh: PTR, TXT and the rest, and what is told when nobody answers."""

from __future__ import annotations

import random

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.dns import Resolver
from gate.dns.records import Records
from gate.dns.wire import MX, PTR, TXT, A, Kind, Question, encode, read, tell
from gate.testing.forgery import alone, records
from gate.testing.zones import NXDOMAIN, SERVFAIL, SILENT, FakeZones, Late, Value
from tests.dns.ground import serve, soon

PLAN: dict[str, Value] = {
    "1.4.8.8.in-addr.arpa": "PTR gate.good.test",
    "good.test": ['TXT "v=spf1 " "ip4:8.8.4.1 -all"', 'TXT "other"', "MX 20 b.test", "MX 5 a.test"],
    "alias.test": "CNAME good.test",
    "away.test": alone("CNAME good.test"),
    "none.test": "A 8.8.4.1",
    "gone.test": NXDOMAIN,
    "broken.test": SERVFAIL,
    "long.test": [f'TXT "{n:02} {"x" * 200}"' for n in range(12)],
    "torn.test": records(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x03\x05ab"),
    "odd.in-addr.arpa": r"PTR a\032b.good.test",
}
SPF = "v=spf1 ip4:8.8.4.1 -all"

ROWS = [
    ("who an address is", "1.4.8.8.in-addr.arpa", PTR, Kind.FOUND, ("gate.good.test",)),
    ("strings are joined", "good.test", TXT, Kind.FOUND, (SPF, "other")),
    ("the best exchange first", "good.test", MX, Kind.FOUND, ("a.test", "b.test")),
    ("an alias", "alias.test", TXT, Kind.FOUND, (SPF, "other")),
    ("an alias the server leaves to us", "away.test", TXT, Kind.FOUND, (SPF, "other")),
    ("an address", "none.test", A, Kind.FOUND, ("8.8.4.1",)),
    ("no such record", "none.test", TXT, Kind.NODATA, ()),
    ("no such name", "gone.test", TXT, Kind.NXDOMAIN, ()),
    ("nobody knows", "broken.test", TXT, Kind.FAILED, ()),
    ("a string that is longer than its record", "torn.test", TXT, Kind.FAILED, ()),
    ("a name that is no host's", "odd.in-addr.arpa", PTR, Kind.FOUND, ()),
]


@pytest.mark.parametrize(
    ("name", "asked", "rdtype", "kind", "held"), ROWS, ids=[r[0] for r in ROWS]
)
def test_what_a_name_has(
    name: str, asked: str, rdtype: int, kind: Kind, held: tuple[str, ...]
) -> None:
    found, _ = _ask(asked, rdtype)
    assert found.kind is kind
    addresses = tuple(str(ip) for ip in found.addresses)
    assert sorted((*found.names, *found.texts, *addresses)) == sorted(held)
    assert rdtype != MX or found.names == held
    assert found.absent is (kind in (Kind.NODATA, Kind.NXDOMAIN))


def test_a_long_answer_comes_over_tcp() -> None:
    found, queries = _ask("long.test", TXT)
    assert len(found.texts) == 12
    assert queries == ["long.test TXT", "long.test TXT tcp"]


def test_nothing_is_remembered() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[str]:
        for _ in range(2):
            await ours.records("good.test", TXT, soon())
        return list(zones.queries)

    assert serve(body, PLAN) == ["good.test TXT"] * 2


@pytest.mark.parametrize("plan", [SILENT, Late(5.0, "TXT late")], ids=["silent", "late"])
def test_the_deadline_holds(plan: Value) -> None:
    async def body(ours: Resolver, zones: FakeZones) -> Records:
        return await ours.records("slow.test", TXT, soon(0.1))

    found = serve(body, {"slow.test": plan})
    assert (found.kind, found.detail) == (Kind.FAILED, "timeout")


def test_names_that_are_never_public_are_not_asked_for() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[Records, str, int]:
        public = Resolver([zones.server], clock=soon().clock, random=random.Random(1))
        found = await public.records("gate.internal", A, soon())
        pointer = await public.records("1.4.8.8.in-addr.arpa", PTR, soon())
        await public.close()
        return found, pointer.names[0], len(zones.queries)

    found, name, asked = serve(body, PLAN)
    assert (found.detail, name, asked) == ("not_public", "gate.good.test", 1)


@given(st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=6), min_size=1, max_size=5))
def test_reads_the_texts_that_dnspython_writes(texts: list[list[bytes]]) -> None:
    question = Question.about("good.test", TXT, id=7, case=0)
    answer = dns.message.make_response(dns.message.from_wire(question.message(edns=True)))
    for strings in texts:
        quoted = " ".join('"' + "".join(f"\\{octet:03}" for octet in s) + '"' for s in strings)
        rrset = dns.rrset.from_text(answer.question[0].name, 60, "IN", "TXT", quoted)
        answer.answer.append(rrset)
    reply = read(answer.to_wire(), question)
    assert reply is not None
    told = tell(reply, TXT, [encode("good.test")], hops=4)
    assert [record.text for record in told.records] == [b"".join(strings) for strings in texts]


def _ask(name: str, rdtype: int) -> tuple[Records, list[str]]:
    async def body(ours: Resolver, zones: FakeZones) -> tuple[Records, list[str]]:
        return await ours.records(name, rdtype, soon()), list(zones.queries)

    return serve(body, PLAN)
