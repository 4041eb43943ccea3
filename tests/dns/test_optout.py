"""The wish of a domain's owner: how its record is read, when it is asked for, how long it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from gate.budget import DNS_FAILURE, DNS_TTL_LEAST
from gate.dns import Resolver
from gate.dns.ask import QUESTIONS
from gate.dns.optout import declines
from gate.testing import FakeClock
from gate.testing.zones import NXDOMAIN, SERVFAIL, SILENT, FakeZones, Late, Truncated, Turns, Value
from tests.dns.ground import MAIL, SLACK, serve, soon

WISH = "_signup-gate.good.test"
NO = '300 TXT "v=sg1; probe=no"'


@pytest.mark.parametrize(
    ("records", "declined"),
    [
        pytest.param([b"v=sg1; probe=no"], True, id="as documented"),
        pytest.param([b"v=sg1;probe=no"], True, id="no blanks"),
        pytest.param([b" \tv = sg1 ;\tprobe = no ; "], True, id="blanks everywhere"),
        pytest.param([b"V=SG1; Probe=NO;"], True, id="letter case, final semicolon"),
        pytest.param([b"v=sg1; note=hello!; probe=no"], True, id="a tag of later days"),
        pytest.param([b"v=spf1 -all", b"v=sg1; probe=no"], True, id="beside another record"),
        pytest.param([b"v=sg1; probe=yes", b"v=sg1; probe=no"], True, id="one of two says no"),
        pytest.param([], False, id="no record"),
        pytest.param([b""], False, id="an empty record"),
        pytest.param([b"v=sg1"], False, id="says nothing"),
        pytest.param([b"v=sg1; probe=yes"], False, id="yes"),
        pytest.param([b"v=sg1; probe="], False, id="empty value"),
        pytest.param([b"v=sg1; probe=none"], False, id="another word"),
        pytest.param([b"probe=no; v=sg1"], False, id="the version is not first"),
        pytest.param([b"probe=no"], False, id="no version"),
        pytest.param([b"v=sg2; probe=no"], False, id="another version"),
        pytest.param([b"v=sg1; probe=yes; probe=no"], False, id="a tag twice"),
        pytest.param([b"v=sg1; probe"], False, id="no value"),
        pytest.param([b"v=sg1; probe=no; and more"], False, id="no list of tags"),
        pytest.param([b"v=sg1;; probe=no"], False, id="an empty tag"),
        pytest.param([b"v=sg1 probe=no"], False, id="no semicolon"),
        pytest.param([b"v=sg1; probe=no\r\n"], False, id="a line end"),
        pytest.param([b"v=sg1; probe=no\xff"], False, id="no ASCII"),
        pytest.param([b";" * 4000], False, id="semicolons only"),
        pytest.param([b"v=spf1 include:_spf.good.test ~all"], False, id="a wildcard's SPF"),
    ],
)
def test_reading_the_record(records: list[bytes], declined: bool) -> None:
    assert declines(records) is declined


def opted_out(plan: Mapping[str, Value]) -> tuple[bool, list[str], float]:
    """Whether good.test is marked at once, the questions, the seconds."""

    async def body(ours: Resolver, zones: FakeZones) -> tuple[bool, list[str], float]:
        start = time.monotonic()
        route = await ours.route("good.test", soon())
        assert route.failure is None
        return route.opted_out, list(zones.queries), time.monotonic() - start

    return serve(body, {**MAIL, **plan})


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        pytest.param(NO, True, id="one string"),
        pytest.param('TXT "v=sg1; pro" "be=no"', True, id="several strings"),
        pytest.param(['TXT "v=spf1 -all"', NO], True, id="several records"),
        pytest.param(["CNAME wish.test"], True, id="an alias that the resolver follows"),
        pytest.param('TXT "v=spf1 -all"', False, id="something else"),
        pytest.param("A 203.0.113.9", False, id="no TXT"),
        pytest.param(NXDOMAIN, False, id="absent"),
        pytest.param(SERVFAIL, False, id="failed"),
        pytest.param(Truncated(NO), False, id="too long for a datagram"),
    ],
)
def test_the_wish_is_heard_beside_the_route(answer: Value, marked: bool) -> None:
    # The addresses are a little late, so that the route takes longer than the wish.
    late = Late(0.1, "A 203.0.113.7")
    found, asked, _ = opted_out({WISH: answer, "wish.test": NO, "mx.good.test": late})
    assert found is marked
    assert [query for query in asked if WISH in query][0] == f"{WISH} TXT"
    assert asked.index("good.test MX") < asked.index(f"{WISH} TXT") < asked.index("mx.good.test A")


@pytest.mark.parametrize("slow", [SILENT, Late(1.0, NO)], ids=["silent", "late"])
def test_nobody_waits_for_it(slow: Value) -> None:
    found, _, took = opted_out({WISH: slow})
    assert (found, took < SLACK) == (False, True)


def test_what_comes_late_marks_the_remembered_route() -> None:
    async def body(ours: Resolver, zones: FakeZones) -> list[bool]:
        first = await ours.route("good.test", soon())
        await asyncio.gather(*ours._opt_outs._asking.values())
        return [first.opted_out, (await ours.route("good.test", soon())).opted_out]

    assert serve(body, {**MAIL, WISH: Late(0.1, NO)}) == [False, True]


async def settled(ours: Resolver, zones: FakeZones, count: int) -> bool:
    """Whether the route is marked after a look at it, and what that made be asked, came in."""
    await ours.route("good.test", soon())
    await asyncio.gather(*ours._opt_outs._asking.values())
    assert zones.queries.count(f"{WISH} TXT") == count
    return (await ours.route("good.test", soon())).opted_out


def test_it_is_remembered_for_its_ttl_and_holds_while_it_is_asked_for_again() -> None:
    clock = FakeClock()
    answers = Turns('60 TXT "v=sg1; probe=no"', SERVFAIL, NXDOMAIN)

    async def body(ours: Resolver, zones: FakeZones) -> list[bool]:
        marks = [await settled(ours, zones, 1)]
        clock.advance(DNS_TTL_LEAST - 1)
        marks.append(await settled(ours, zones, 1))
        clock.advance(1)
        marks.append((await ours.route("good.test", soon())).opted_out)
        marks.append(await settled(ours, zones, 2))  # nobody answered: it holds
        clock.advance(DNS_FAILURE)
        marks.append(await settled(ours, zones, 3))  # withdrawn
        return marks

    assert serve(body, {**MAIL, WISH: answers}, clock=clock) == [True, True, True, True, False]


@pytest.mark.parametrize("plan", [NXDOMAIN, "MX 0 .", SERVFAIL], ids=["nxdomain", "null", "fails"])
def test_a_domain_that_leads_nowhere_leaves_no_question_behind(plan: Value) -> None:
    async def body(ours: Resolver, zones: FakeZones) -> int:
        await ours.route("good.test", soon())
        return len(ours._opt_outs._asking)

    assert serve(body, {"good.test": plan, WISH: SILENT}) == 0


def test_ten_questions_with_everything_that_can_be_asked() -> None:
    many: dict[str, Value] = {f"mx{n}.good.test": ["A 203.0.113.7"] for n in range(100)}
    plan: dict[str, Value] = {
        **many,
        "good.test": [f"MX 10 {name}" for name in many],
        WISH: Truncated(NO),
    }

    async def body(ours: Resolver, zones: FakeZones) -> int:
        route = await ours.route("good.test", soon())
        assert route.hosts[0].addresses
        return len(zones.queries)

    assert serve(body, plan) == QUESTIONS


def test_a_name_that_is_too_long_to_ask_about() -> None:
    domain = ".".join(["a" * 60] * 4) + ".test"

    async def body(ours: Resolver, zones: FakeZones) -> list[str]:
        route = await ours.route(domain, soon())
        assert not route.opted_out
        return list(zones.queries)

    assert serve(body, {domain: "MX 0 mx.good.test", **MAIL})[0] == f"{domain} MX"
