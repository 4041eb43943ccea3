"""The DNS rows of the fault catalogue (N01 to N46) that are one plan and one route.

Rows that need a clock, two resolvers or two look-ups are in test_route. Rows of other modules: N38
to N40 (addresses that are refused: egress), N44 and N45 (what is a domain: address).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from gate.budget import (
    DNS_FAILURE,
    DNS_NEGATIVE_DEFAULT,
    DNS_NEGATIVE_MOST,
    DNS_TTL_LEAST,
    DNS_TTL_MOST,
)
from gate.dns.ask import QUESTIONS
from gate.testing.dns_listener import Stream
from gate.testing.forgery import (
    MX_GOOD,
    MX_HEAD,
    alone,
    bad_version,
    chain_of_aliases,
    deep_owners,
    long_rdata,
    only,
    other_case,
    other_class,
    other_flags,
    other_id,
    other_name,
    records,
    referral,
    stranger,
    then_right,
)
from gate.testing.zones import NXDOMAIN, SERVFAIL, SILENT, Rcode, Truncated, Turns, Value
from tests.dns.ground import HOST, MAIL, find

SOA_30 = "SOA ns.test hostmaster.test 1 3600 600 86400 30"
SOA_DAY = "86400 SOA ns.test hostmaster.test 1 3600 600 86400 86400"


@dataclass(frozen=True)
class Row:
    """One behaviour of resolvers or zones, and what must come of it."""

    id: str
    plan: Mapping[str, Value]
    expect: str
    """"reason/detail", or the names of the hosts."""
    lasts: float | None = None
    """Seconds the route is remembered, where that is the point."""
    asked: int = QUESTIONS
    """At most as many questions, those repeated over TCP included."""
    tcp: bool = True


def row(id: str, value: Value, expect: str, lasts: float | None = None, **more: Value) -> Row:
    """good.test answers `value`, its mail host is there, and `more` names are."""
    plan = {**MAIL, "good.test": value, **{key.replace("__", "."): v for key, v in more.items()}}
    return Row(id, plan, expect, lasts)


FOUND = "mx.good.test"

ROWS = [
    Row(
        "N01_nxdomain",
        {"good.test": NXDOMAIN, "test": SOA_30},
        "invalid_domain/nxdomain",
        lasts=30,
        asked=2,
    ),
    Row(
        "N01_nxdomain_for_a_day",
        {"good.test": NXDOMAIN, "test": SOA_DAY},
        "invalid_domain/nxdomain",
        lasts=DNS_NEGATIVE_MOST,
    ),
    row(
        "N02_nxdomain_without_soa",
        Rcode("NXDOMAIN", soa=False),
        "invalid_domain/nxdomain",
        DNS_NEGATIVE_DEFAULT,
    ),
    Row(
        "N03_nxdomain_but_there_is_an_a",
        {"good.test MX": NXDOMAIN, "good.test": "A 203.0.113.1"},
        "dns_error/contradiction",
        lasts=DNS_FAILURE,
        asked=2,
    ),
    Row(
        "N03_nxdomain_but_a_is_empty",
        {"good.test MX": NXDOMAIN, "good.test": "TXT here"},
        "dns_error/contradiction",
        asked=2,
    ),
    Row(
        "N03_nxdomain_but_a_fails",
        {"good.test MX": NXDOMAIN, "good.test": SERVFAIL},
        "dns_error/servfail",
        asked=2,
    ),
    row("N03_nxdomain_with_mx", alone(MX_GOOD, rcode="NXDOMAIN"), "dns_error/contradiction"),
    row("N04_no_mx_but_a", "A 203.0.113.1", "good.test"),
    row("N05_no_mx_but_aaaa", "AAAA 2001:db8::1", "good.test"),
    row("N06_neither_mx_nor_address", ["TXT here", SOA_30], "no_mx/no_address", 30),
    Row(
        "N07_a_is_empty_and_aaaa_fails",
        {"good.test": "TXT here", "good.test AAAA": SERVFAIL},
        "dns_error/servfail",
        lasts=DNS_FAILURE,
        asked=3,
    ),
    row("N08_null_mx", "MX 0 .", "null_mx/", 300),
    row("N09_null_mx_of_preference_10", "MX 10 .", "null_mx/nonzero_pref", 300),
    row("N10_null_mx_beside_a_real_one", ["MX 0 .", MX_GOOD], FOUND),
    Row(
        "N11_no_target_exists_and_the_domain_has_an_a",
        {
            "good.test": [MX_GOOD, "MX 20 b.test", "A 203.0.113.1"],
            "mx.good.test": NXDOMAIN,
            "b.test": "TXT here",
        },
        "no_mx/mx_without_address",
        lasts=300,
        asked=5,
    ),
    Row(
        "N11_a_fifth_target_is_never_asked_for",
        {"good.test": [f"MX 10 mx{n}.test" for n in range(5)], "*.test": NXDOMAIN},
        "dns_error/unproven",
        lasts=DNS_FAILURE,
        asked=9,
    ),
    row(
        "N12_one_target_gone_one_failing",
        ["MX 10 gone.test", "MX 20 b.test"],
        "dns_error/servfail",
        DNS_FAILURE,
        gone__test=NXDOMAIN,
        b__test=SERVFAIL,
    ),
    row("N13_target_is_an_alias", "MX 10 a.test", "a.test", a__test="CNAME mx.good.test"),
    row(
        "N13_target_is_an_alias_that_nobody_follows",
        "MX 10 a.test",
        "a.test",
        a__test=alone("CNAME mx.good.test"),
    ),
    row(
        "N13_target_is_an_alias_of_an_alias_and_so_on",
        "MX 10 a.test",
        "dns_error/cname_chain",
        a__test="CNAME b.test",
        b__test="CNAME c.test",
        c__test="CNAME d.test",
        d__test="CNAME e.test",
        e__test="CNAME mx.good.test",
    ),
    row("N14_domain_is_an_alias", "CNAME a.test", FOUND, a__test=MX_GOOD),
    row("N14_domain_is_an_alias_without_mx", "CNAME mx.good.test", "good.test"),
    row(
        "N14_domain_is_an_alias_of_nothing",
        "CNAME a.test",
        "invalid_domain/nxdomain",
        a__test=NXDOMAIN,
    ),
    Row(
        "N14_domain_is_an_alias_at_the_end_of_nine",
        {
            "good.test": "CNAME a0.test",
            **{f"a{n}.test": f"CNAME a{n + 1}.test" for n in range(8)},
            "a8.test": MX_GOOD,
        },
        "dns_error/cname_chain",
    ),
    row(
        "N15_aliases_in_a_circle", "CNAME a.test", "dns_error/cname_loop", a__test="CNAME good.test"
    ),
    row("N15_alias_of_itself", "CNAME good.test", "dns_error/cname_loop", DNS_FAILURE),
    row(
        "N15_aliases_in_a_circle_that_nobody_follows",
        alone("CNAME a.test"),
        "dns_error/cname_loop",
        a__test=alone("CNAME good.test"),
    ),
    row("N16_chain_of_1500_aliases", chain_of_aliases(), "dns_error/tcp"),
    row("N17_servfail", SERVFAIL, "dns_error/servfail", DNS_FAILURE),
    row("N18_formerr_to_edns", Rcode("FORMERR", unless_plain=MX_GOOD), FOUND),
    row("N18_notimp_to_edns", Rcode("NOTIMP", unless_plain=MX_GOOD), FOUND),
    row("N18_refused_to_edns", Rcode("REFUSED", unless_plain=MX_GOOD), FOUND),
    row("N18_badvers_to_edns", bad_version(MX_GOOD), FOUND),
    Row("N18_refused", {"good.test": Rcode("REFUSED")}, "dns_error/refused", asked=2),
    row("N18_another_error", Rcode("YXDOMAIN"), "dns_error/rcode", DNS_FAILURE),
    row("N20_first_packet_lost", Turns(SILENT, MX_GOOD), FOUND),
    row("N22_wrong_id_50_times", then_right(other_id, times=50), FOUND),
    row("N23_wrong_question", then_right(other_name), FOUND),
    row("N23_wrong_letter_case", then_right(other_case), FOUND),
    row("N24_one_byte_then_right", then_right(lambda wire: wire[:1]), FOUND),
    row("N24_record_cut_off_then_right", then_right(lambda wire: wire[:-1]), FOUND),
    row("N24_rdlength_past_the_end_then_right", then_right(long_rdata), FOUND),
    row("N24_malformed_alone", only(lambda wire: wire[:-1]), "dns_error/malformed", DNS_FAILURE),
    row("N24_rdlength_past_the_end_alone", only(long_rdata), "dns_error/malformed"),
    row("N25_not_a_response", then_right(other_flags(0x8000)), FOUND),
    row("N25_opcode_2", then_right(other_flags(0x1000)), FOUND),
    row("N25_class_chaos", then_right(other_class), FOUND),
    row("N26_truncated", Truncated(MX_GOOD), FOUND),
    row("N27_tcp_hangs", Truncated(SILENT), "dns_error/tcp"),
    row("N27_tcp_closes_mid_frame", Stream(b"\0\x40" + b"x" * 20), "dns_error/tcp"),
    row("N27_tcp_answers_another_question", Truncated(only(other_id)), "dns_error/tcp"),
    Row("N27_tcp_refused", {"good.test": Truncated(MX_GOOD)}, "dns_error/tcp", tcp=False),
    row("N28_tcp_of_64_KB", Stream(b"\xff\xff" + b"\1x" * 32_767, close=False), "dns_error/tcp"),
    row("N29_62_mx_of_100_labels", deep_owners(), "dns_error/unrelated"),
    row("N30_pointer_to_itself", records(b"\xc0\x1b" + MX_HEAD + b"\0\0"), "dns_error/malformed"),
    row("N30_forward_pointer", records(b"\xcf\xff" + MX_HEAD + b"\0\0"), "dns_error/malformed"),
    row("N30_label_type_0x40", records(b"\x41x\0" + MX_HEAD + b"\0\0"), "dns_error/malformed"),
    row("N33_ttl_0", "0 MX 10 mx.good.test", FOUND, 0),
    row("N33_ttl_0_of_the_host", "MX 10 a.test", "a.test", 0, a__test="0 A 203.0.113.7"),
    row(
        "N34_ttl_of_68_years",
        "2147483647 MX 10 a.test",
        "a.test",
        DNS_TTL_MOST,
        a__test=["2147483647 A 203.0.113.7", "2147483647 AAAA 2001:db8::7"],
    ),
    row("N34_ttl_of_a_second", "1 MX 10 mx.good.test", FOUND, DNS_TTL_LEAST),
    row("N36_target_is_an_address", "MX 10 127.0.0.1", "dns_error/unusable_mx", DNS_FAILURE),
    row("N36_target_is_a_number", "MX 10 2130706433", "dns_error/unusable_mx"),
    row("N36_target_is_short_for_an_address", "MX 10 127.1", "dns_error/unusable_mx"),
    row("N36_target_is_hexadecimal", "MX 10 0x7f.1", "dns_error/unusable_mx"),
    row("N36_target_is_bracketed", "MX 10 [127.0.0.1]", "dns_error/unusable_mx"),
    row("N36_target_is_one_label", "MX 10 localhost", "dns_error/unusable_mx"),
    row("N36_address_beside_a_host", ["MX 5 127.0.0.1", MX_GOOD], FOUND),
    row(
        "N36_address_beside_a_host_that_is_gone",
        ["MX 5 127.0.0.1", "MX 10 gone.test"],
        "dns_error/unproven",
        gone__test=NXDOMAIN,
    ),
    row("N37_underscore", "MX 10 _mx.a.test", "_mx.a.test", _mx__a__test="A 203.0.113.7"),
    row("N37_space", "MX 10 m\\032x.good.test", "dns_error/unusable_mx"),
    row("N37_nul", "MX 10 m\\000x.good.test", "dns_error/unusable_mx"),
    row("N37_at", "MX 10 m\\064x.good.test", "dns_error/unusable_mx"),
    row("N37_8_bit", "MX 10 \\226\\145\\160.good.test", "dns_error/unusable_mx"),
    row("N37_dot_inside_a_label", "MX 10 m\\.x.good.test", "dns_error/unusable_mx"),
    row("N42_bogus_signatures", SERVFAIL, "dns_error/servfail", DNS_FAILURE),
    row("two_records_for_one_host", ["MX 30 mx.good.test", "MX 10 MX.good.test"], FOUND),
    row(
        "hosts_in_order_of_preference",
        ["MX 300 c.test", "MX 9 a.test", "MX 20 b.test"],
        "a.test b.test c.test",
        a__test=HOST,
        b__test=HOST,
        c__test=HOST,
    ),
    row("referral_is_no_proof_of_absence", referral(), "dns_error/referral"),
    row("records_of_another_name", stranger(), "dns_error/unrelated"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_fault_catalogue(row: Row) -> None:
    route, asked = find(row.plan, tcp=row.tcp)
    names = " ".join(host.name for host in route.hosts)
    assert (f"{route.failure}/{route.detail}" if route.failure else names) == row.expect
    if row.lasts is not None:
        assert route.expires - route.found_at == pytest.approx(row.lasts, abs=1)
    assert len(asked) <= row.asked, asked
