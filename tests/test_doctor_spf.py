"""SPF: the mechanisms, the limits and the faults of RFC 7208, answered from a table."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.dns.records import Records
from gate.dns.wire import AAAA, MX, TXT, A, Kind, encode
from gate.doctor.spf import LOOKUPS_MOST, Outcome, Spf, evaluate

IP, SIX = "9.9.4.1", "2a00:1450:4001:81b::1b"
Zones = Mapping[str, str | list[str]]
"""Records by name: "TXT …", "A …", "AAAA …", "MX …", or "FAIL". What is missing does not exist."""


def ask(zones: Zones, name: str, rdtype: int) -> Records:
    encode(name)
    held = zones.get(name)
    if held is None:
        return Records(Kind.NXDOMAIN)
    kind = {A: "A", AAAA: "AAAA", MX: "MX", TXT: "TXT"}[rdtype]
    rows = [held] if isinstance(held, str) else held
    if "FAIL" in rows:
        return Records(Kind.FAILED, detail="servfail")
    values = [row.partition(" ")[2] for row in rows if row.partition(" ")[0] == kind]
    if not values:
        return Records(Kind.NODATA)
    return Records(
        Kind.FOUND,
        addresses=tuple(ip_address(v) for v in values if kind in ("A", "AAAA")),
        names=tuple(v for v in values if kind == "MX"),
        texts=tuple(v for v in values if kind == "TXT"),
    )


def outcome(zones: Zones, ip: str = IP, asked: list[str] | None = None) -> Outcome:
    async def look(name: str, rdtype: int) -> Records:
        if asked is not None:
            asked.append(name)
        return ask(zones, name, rdtype)

    return asyncio.run(evaluate(ip_address(ip), "probe@acme.shop", "gate.acme.shop", look))


def spf(record: str, **others: str | list[str]) -> Zones:
    """acme.shop with an SPF record, and other names ("_" for a dot)."""
    zones: dict[str, str | list[str]] = {
        "acme.shop": [f"TXT {record}", "A 9.9.9.9", "MX mx.acme.shop"]
    }
    return (
        zones | {"mx.acme.shop": f"A {IP}"} | {k.replace("__", "."): v for k, v in others.items()}
    )


ROWS: list[tuple[str, Zones, str, str]] = [
    ("no record", {"acme.shop": "TXT something else"}, IP, "none"),
    ("no domain", {}, IP, "none"),
    ("a record that only begins alike", spf("v=spf10 -all"), IP, "none"),
    ("in capitals", spf("V=SPF1 IP4:9.9.4.1 -ALL"), IP, "pass"),
    ("the address", spf("v=spf1 ip4:9.9.4.1 -all"), IP, "pass"),
    ("the network", spf("v=spf1 ip4:9.9.4.0/24 -all"), IP, "pass"),
    ("another network", spf("v=spf1 ip4:9.9.5.0/24 -all"), IP, "fail"),
    ("an IPv6 network", spf("v=spf1 ip6:2a00:1450::/32 -all"), SIX, "pass"),
    ("an IPv4 network says nothing of IPv6", spf("v=spf1 ip4:9.9.4.1 -all"), SIX, "fail"),
    ("softly", spf("v=spf1 ~all"), IP, "softfail"),
    ("neither", spf("v=spf1 ?all"), IP, "neutral"),
    ("to the end", spf("v=spf1 ip4:9.9.5.1"), IP, "neutral"),
    ("the first that matches decides", spf("v=spf1 -ip4:9.9.4.1 +all"), IP, "fail"),
    ("its MX", spf("v=spf1 mx -all"), IP, "pass"),
    ("a network around its MX", spf("v=spf1 mx/24 -all"), "9.9.4.200", "pass"),
    ("its own address", spf("v=spf1 a -all"), "9.9.9.9", "pass"),
    ("another's address", spf("v=spf1 a:mx.acme.shop -all"), IP, "pass"),
    ("a network around another's", spf("v=spf1 a:mx.acme.shop/24//64 -all"), "9.9.4.9", "pass"),
    (
        "an IPv6 network around another's",
        spf("v=spf1 a:six.b.net//64 -all", six__b__net=f"AAAA {SIX}"),
        "2a00:1450:4001:81b::99",
        "pass",
    ),
    (
        "included",
        spf("v=spf1 include:_spf.b.net -all", _spf__b__net="TXT v=spf1 ip4:9.9.4.1 -all"),
        IP,
        "pass",
    ),
    (
        "a fail inside is no match",
        spf("v=spf1 include:_spf.b.net ~all", _spf__b__net="TXT v=spf1 -all"),
        IP,
        "softfail",
    ),
    (
        "redirected",
        spf("v=spf1 redirect=_spf.b.net", _spf__b__net="TXT v=spf1 ip4:9.9.4.1 -all"),
        IP,
        "pass",
    ),
    (
        "redirected to a fail",
        spf("v=spf1 redirect=_spf.b.net", _spf__b__net="TXT v=spf1 -all"),
        IP,
        "fail",
    ),
    (
        "redirect comes last",
        spf("v=spf1 redirect=_spf.b.net ip4:9.9.4.1", _spf__b__net="TXT v=spf1 -all"),
        IP,
        "pass",
    ),
    (
        "unknown modifiers are passed over",
        spf("v=spf1 ra=postmaster exp=e.b.net ip4:9.9.4.1"),
        IP,
        "pass",
    ),
    (
        "a macro of the address",
        spf(
            "v=spf1 exists:%{ir}.%{v}.b.net -all", **{"1__4__9__9__in-addr__b__net": "A 127.0.0.2"}
        ),
        IP,
        "pass",
    ),
    (
        "a macro of the sender",
        spf(
            "v=spf1 exists:%{l}.at.%{o2}.b.net -all",
            **{"probe__at__acme__shop__b__net": "A 127.0.0.2"},
        ),
        IP,
        "pass",
    ),
    (
        "a macro of the name",
        spf(
            "v=spf1 exists:%{h}.%{d1}.b.net -all",
            **{"gate__acme__shop__shop__b__net": "A 127.0.0.2"},
        ),
        IP,
        "pass",
    ),
    ("exists, and does not", spf("v=spf1 exists:gone.b.net ~all"), IP, "softfail"),
    ("ptr never matches", spf("v=spf1 ptr -all"), IP, "fail"),
    ("two records", {"acme.shop": ["TXT v=spf1 -all", "TXT v=spf1 +all"]}, IP, "permerror"),
    ("an unknown mechanism", spf("v=spf1 ipv4:9.9.4.1 -all"), IP, "permerror"),
    ("a prefix too long", spf("v=spf1 a/33 -all"), IP, "permerror"),
    ("no network", spf("v=spf1 ip4:9.9.4 -all"), IP, "permerror"),
    ("a network of the other family", spf("v=spf1 ip4:2a00::1 -all"), IP, "permerror"),
    ("include of nothing", spf("v=spf1 include: -all"), IP, "permerror"),
    ("include of no record", spf("v=spf1 include:gone.b.net -all"), IP, "permerror"),
    ("redirect to no record", spf("v=spf1 redirect=gone.b.net"), IP, "permerror"),
    ("two redirects", spf("v=spf1 redirect=a.b.net redirect=c.b.net"), IP, "permerror"),
    ("all with a value", spf("v=spf1 all:b.net"), IP, "permerror"),
    ("a name that is none", spf("v=spf1 a:b..net -all"), IP, "permerror"),
    ("includes itself", spf("v=spf1 include:acme.shop -all"), IP, "permerror"),
    ("eleven look-ups", spf("v=spf1 " + "a:mx.acme.shop " * 11 + "-all"), "9.9.5.5", "permerror"),
    ("ten look-ups", spf("v=spf1 " + "a:mx.acme.shop " * 10 + "-all"), "9.9.5.5", "fail"),
    ("three that find nothing", spf("v=spf1 a:x.b.net a:y.b.net a:z.b.net -all"), IP, "permerror"),
    (
        "eleven mail servers",
        spf("v=spf1 mx:many.b.net -all", many__b__net=[f"MX m{n}.b.net" for n in range(11)]),
        IP,
        "permerror",
    ),
    ("nobody answers", {"acme.shop": "FAIL"}, IP, "temperror"),
    (
        "nobody answers further on",
        spf("v=spf1 include:_spf.b.net -all", _spf__b__net="FAIL"),
        IP,
        "temperror",
    ),
]


@pytest.mark.parametrize(("name", "zones", "ip", "result"), ROWS, ids=[row[0] for row in ROWS])
def test_the_result(name: str, zones: Zones, ip: str, result: str) -> None:
    assert outcome(zones, ip).result == result


def test_the_outcome_says_what_decided_and_shows_the_record() -> None:
    told = outcome(spf("v=spf1 ~ip4:9.9.4.0/24 -all"))
    assert (told.because, told.record) == ("~ip4:9.9.4.0/24", "v=spf1 ~ip4:9.9.4.0/24 -all")
    assert (
        "the one too many is +include:acme.shop" in outcome(spf("v=spf1 include:acme.shop")).because
    )


TERMS = [
    "a",
    "mx",
    "ptr",
    "include:acme.shop",
    "include:b.net",
    "exists:%{ir}.b.net",
    "?all",
    "-all",
]
TERMS += [
    "redirect=b.net",
    "ip4:9.9.4.1",
    "ip6:::/0",
    "a:b.net/24",
    "mx//64",
    "x=y",
    "%{z}",
    "ip4:%",
]


@given(st.lists(st.sampled_from(TERMS), max_size=30), st.lists(st.sampled_from(TERMS), max_size=30))
def test_no_record_costs_more_than_its_share(ours: list[str], theirs: list[str]) -> None:
    zones = {
        "acme.shop": [f"TXT v=spf1 {' '.join(ours)}", "MX b.net", "A 9.9.9.9"],
        "b.net": [f"TXT v=spf1 {' '.join(theirs)}", "A 9.9.9.9"],
    }
    asked: list[str] = []
    assert outcome(zones, IP, asked).result in set(Spf)
    assert len(asked) <= 1 + 2 * LOOKUPS_MOST


@given(st.text(max_size=200))
def test_any_text_has_a_result(text: str) -> None:
    assert outcome({"acme.shop": f"TXT v=spf1 {text}"}).result in set(Spf)
