"""What the doctor makes of what it was told: every judgement as a table, without a socket."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from gate.dns.records import Records
from gate.dns.wire import Kind
from gate.doctor import (
    blocklists,
    clocks,
    files,
    names,
    permitted,
    port25,
    resolving,
    sanity,
    sender,
    storage,
)
from gate.doctor.face import Face, is_name, seen_from
from gate.doctor.finding import Finding, Report, State, listed
from gate.doctor.spf import Outcome as SpfOutcome
from gate.doctor.spf import Spf
from gate.egress import Source
from gate.proxy import parse as proxy_of
from gate.reason import Reason
from gate.settings.read import parse
from gate.smtp.classify import classify
from gate.smtp.dialog import Stage
from gate.smtp.finding import Finding as Probed
from gate.smtp.reply import Reply
from gate.store.look import Look, look

IP = ip_address("9.9.4.1")
SIX = ip_address("2a00:1450:4001:81b::1b")
HELO = "gate.acme.shop"


def found(*values: str) -> Records:
    """Addresses or names that a look-up gave."""
    names_given = tuple(value for value in values if value[-1].isalpha())
    ips = tuple(ip_address(value) for value in values if value not in names_given)
    return Records(Kind.FOUND, ips, names_given)


NOTHING = Records(Kind.NODATA)
GONE = Records(Kind.NXDOMAIN)
SILENCE = Records(Kind.FAILED, detail="timeout")


def face(helo: str = HELO, *forward: str, ip: str | None = "9.9.4.1") -> Face:
    source = Source(ip_address(ip) if ip else None, helo)
    return Face(source, helo, (IP,), "set", (found(*forward) if forward else GONE,))


# -- which address is ours -------------------------------------------------------------------------
FACES = [
    ("the setting names a public one", "9.9.4.1", None, ["10.0.0.2"], [], ["9.9.4.1"], "set"),
    ("a private one is behind NAT", "10.0.0.2", None, [], ["9.9.4.1"], ["9.9.4.1"], "claimed"),
    ("the machine has a public one", None, None, ["9.9.4.7"], ["9.9.4.1"], ["9.9.4.7"], "local"),
    ("the machine is behind NAT", None, None, ["10.0.0.2"], ["9.9.4.1"], ["9.9.4.1"], "claimed"),
    ("NAT, and no name", None, None, ["10.0.0.2"], [], [], "unknown"),
    ("NAT, and the name is private as well", None, None, ["10.0.0.2"], ["10.0.0.2"], [], "unknown"),
    ("no network at all", None, None, [], [], [], "unknown"),
    (
        "a proxy dials",
        None,
        "socks5://9.9.9.9:1080",
        ["9.9.4.7"],
        ["9.9.4.1"],
        ["9.9.4.1"],
        "claimed",
    ),
    ("both families", None, None, ["9.9.4.7", str(SIX)], [], ["9.9.4.7", str(SIX)], "local"),
]


@pytest.mark.parametrize(
    ("name", "ip", "proxy", "outgoing", "forward", "seen", "how"), FACES, ids=[f[0] for f in FACES]
)
def test_the_address_that_mail_hosts_see(
    name: str,
    ip: str | None,
    proxy: str | None,
    outgoing: Sequence[str],
    forward: Sequence[str],
    seen: Sequence[str],
    how: str,
) -> None:
    source = Source(ip_address(ip) if ip else None, HELO, proxy=proxy_of(proxy) if proxy else None)
    told = seen_from(source, [ip_address(o) for o in outgoing], [ip_address(f) for f in forward])
    assert told == (tuple(ip_address(s) for s in seen), how)


@pytest.mark.parametrize(
    ("helo", "public"),
    [
        ("gate.acme.shop", True),
        ("GATE.Acme.Shop", True),
        ("localhost", False),
        ("gate", False),
        ("gate.local", False),
        ("gate.test", False),
        ("9.9.4.1", False),
        ("[9.9.4.1]", False),
        ("", False),
    ],
)
def test_a_helo_name_is_one_of_the_public_tree(helo: str, public: bool) -> None:
    assert is_name(helo) is public


# -- HELO, address, PTR ----------------------------------------------------------------------------
DYNAMIC = [
    ("gate.acme.shop", "9.9.4.1", False),
    ("mail4.acme.shop", "9.9.4.1", False),
    ("mx1.de.acme.shop", "9.9.4.1", False),
    ("dynamo.acme.shop", "9.9.4.1", False),
    ("static.9-9-4-1.provider.net", "9.9.4.1", True),
    ("1.4.9.9.provider.net", "9.9.4.1", True),
    ("host-009009004001.provider.net", "9.9.4.1", True),
    ("p4fd7a1b2.dip0.t-ipconnect.de", "79.215.161.178", True),
    ("4fd7a1b2.provider.net", "79.215.161.178", True),
    ("ec2-52-1-2-3.compute-1.amazonaws.com", "52.1.2.3", True),
    ("ip-3.2.1.provider.net", "52.1.2.3", True),
    ("cable.provider.net", "52.1.2.3", True),
    ("c-24-1-2-3.hsd1.il.comcast.net", "24.1.2.3", True),
    ("dsl-pool-77.provider.net", "52.1.2.3", True),
    ("v1.gate.acme.shop", str(SIX), False),
    ("4001-081b-0000-0000-0000-001b.provider.net", "2a00::4001:81b:0:0:0:1b", True),
    ("x-0000000000000000001b.provider.net", str(SIX), True),
]


@pytest.mark.parametrize(("name", "ip", "dynamic"), DYNAMIC, ids=[d[0] for d in DYNAMIC])
def test_a_pointer_that_nobody_chose_is_known_by_its_looks(
    name: str, ip: str, dynamic: bool
) -> None:
    assert bool(names.looks_dynamic(name, ip_address(ip))) is dynamic


BACK = [("mail.acme.shop", found("9.9.4.1"))]
POINTERS = [
    ("all agree", face(HELO, "9.9.4.1"), found(HELO), [], "ok", ""),
    ("two pointers, one is ours", face(HELO, "9.9.4.1"), found("a.b.shop", HELO), [], "ok", ""),
    ("case", face("Gate.Acme.Shop", "9.9.4.1"), found(HELO), [], "ok", ""),
    (
        "no pointer",
        face(HELO, "9.9.4.1"),
        GONE,
        [],
        "problem",
        f"1.4.9.9.in-addr.arpa. PTR {HELO}.",
    ),
    (
        "another, that leads back",
        face(HELO, "9.9.4.1"),
        found("mail.acme.shop"),
        BACK,
        "warning",
        "helo",
    ),
    (
        "another, that leads elsewhere",
        face(HELO, "9.9.4.1"),
        found("mail.acme.shop"),
        [("mail.acme.shop", found("9.9.4.2"))],
        "problem",
        "reverse DNS",
    ),
    (
        "a home line's, though it leads back",
        face(HELO, "9.9.4.1"),
        found("9-9-4-1.dsl.isp.net"),
        [("9-9-4-1.dsl.isp.net", found("9.9.4.1"))],
        "problem",
        "reverse DNS",
    ),
    (
        "greets with a home line's name",
        face("9-9-4-1.isp.net", "9.9.4.1"),
        found("9-9-4-1.isp.net"),
        [],
        "warning",
        "probe.helo",
    ),
    (
        "the name is elsewhere",
        face(HELO, "9.9.4.2"),
        found(HELO),
        [],
        "problem",
        f"{HELO}. A 9.9.4.1",
    ),
    ("the name has no address", face(HELO), found(HELO), [], "problem", f"{HELO}. A 9.9.4.1"),
    ("nobody says who the address is", face(HELO, "9.9.4.1"), SILENCE, [], "skipped", "resolver"),
]


@pytest.mark.parametrize(
    ("name", "ours", "pointer", "back", "state", "mend"), POINTERS, ids=[p[0] for p in POINTERS]
)
def test_name_address_and_pointer(
    name: str,
    ours: Face,
    pointer: Records,
    back: Sequence[tuple[str, Records]],
    state: str,
    mend: str,
) -> None:
    told = names.judge(ours, IP, pointer, back)
    assert told.state == state
    assert mend in told.mend and bool(told.mend) is (state != "ok")


def test_a_name_nobody_could_look_up_is_no_missing_name() -> None:
    ours = Face(Source(IP, HELO), HELO, (IP,), "set", (SILENCE, GONE))
    assert names.judge(ours, IP, found(HELO), []).state is State.SKIPPED


BEFORE = [
    ("no name", Face(Source(None, ""), "", (), "unknown"), "problem"),
    ("nobody's name", Face(Source(None, "box.local"), "box.local", (), "unknown"), "problem"),
    (
        "an address for a name",
        Face(Source(None, "[9.9.4.1]"), "[9.9.4.1]", (), "unknown"),
        "problem",
    ),
    ("NAT, and no record", Face(Source(None, HELO), HELO, (), "unknown", (GONE, GONE)), "problem"),
    ("NAT, and silence", Face(Source(None, HELO), HELO, (), "unknown", (SILENCE,)), "skipped"),
    ("to be compared", face(HELO, "9.9.4.1"), None),
]


@pytest.mark.parametrize(("name", "ours", "state"), BEFORE, ids=[b[0] for b in BEFORE])
def test_what_the_name_says_by_itself(name: str, ours: Face, state: str | None) -> None:
    assert [told.state for told in names.before_looking(ours)] == ([state] if state else [])


# -- port 25 ---------------------------------------------------------------------------------------
HELLO = Reply(220, ("mx.gmail.com ESMTP",))
BUSY = Reply(554, ("5.7.1 your address is listed",))


def visit(
    target: str, greeting: Reply | None = None, trouble: str = "", **more: bool
) -> port25.Visit:
    return port25.Visit(target, greeting, trouble, **more)  # type: ignore[arg-type]


TIMED_OUT = "connection timed out"
VISITS = [
    ("greeted", [visit("a.com", HELLO), visit("b.com", None, TIMED_OUT)], "ok", "greeted by a.com"),
    ("all turn us away", [visit("a.com", BUSY)], "problem", "turns this address away"),
    (
        "all time out",
        [visit("a.com", None, TIMED_OUT), visit("b.com", None, "timed out")],
        "problem",
        "closed by your provider",
    ),
    ("all refuse", [visit("a.com", None, "connection refused")], "problem", "firewall"),
    ("no way", [visit("a.com", None, "network is unreachable")], "problem", "no way to"),
    (
        "not ours to send from",
        [visit("a.com", None, "cannot assign requested address")],
        "problem",
        "no address of this machine",
    ),
    (
        "a mixture",
        [visit("a.com", None, TIMED_OUT), visit("b.com", None, "connection refused")],
        "problem",
        "no mail host was reached",
    ),
    (
        "no mail server",
        [visit("a.com", None, "no mail server: a line is not an SMTP reply")],
        "problem",
        "no mail host",
    ),
    ("nothing to try", [visit("a.com", None, "x", looked_up=False)], "skipped", "looked up"),
]


@pytest.mark.parametrize(("name", "visits", "state", "words"), VISITS, ids=[v[0] for v in VISITS])
def test_port_25(name: str, visits: Sequence[port25.Visit], state: str, words: str) -> None:
    told = port25.judge(face(HELO, "9.9.4.1"), visits)
    assert (told.state, words in told.found) == (state, True)
    assert bool(told.mend) is (state != "ok")


# -- the sender ------------------------------------------------------------------------------------
def answered(code: int, text: str) -> Probed:
    outcome = classify(Stage.RCPT, Reply(code, (text,)))
    return Probed(mailbox=outcome, destination="acme.shop", mx_record="mx.acme.shop")


def unasked(reason: Reason) -> Probed:
    return Probed(failure=reason, destination="acme.shop")


MAILBOX = [
    ("there", answered(250, "2.1.5 ok"), "ok"),
    ("taken without proof", answered(252, "2.5.2 cannot verify"), "ok"),
    ("not there", answered(550, "5.1.1 no such user"), "problem"),
    ("switched off", answered(550, "5.2.1 the account is disabled"), "problem"),
    ("full", answered(552, "5.2.2 mailbox full"), "warning"),
    ("greylisted", answered(451, "4.7.1 greylisted, try again later"), "warning"),
    ("it refuses us", answered(554, "5.7.1 client host blocked using zen.spamhaus.org"), "problem"),
    ("a refusal without words", answered(550, "hmm"), "skipped"),
    ("nobody answers", unasked(Reason.NO_CONNECT), "skipped"),
    ("our own machine", unasked(Reason.MX_UNROUTABLE), "skipped"),
    ("our own limits", unasked(Reason.THROTTLED), "skipped"),
    ("switched off by the operator", unasked(Reason.PROBE_OFF), "skipped"),
]


@pytest.mark.parametrize(("name", "probed", "state"), MAILBOX, ids=[m[0] for m in MAILBOX])
def test_the_senders_mailbox(name: str, probed: Probed, state: str) -> None:
    told = sender.judge_mailbox("acme.shop", probed)
    assert told.state == state
    assert bool(told.mend) is (state != "ok")


# -- SPF -------------------------------------------------------------------------------------------
RECORD = "v=spf1 mx -all"
PERMITTED = [
    ("pass", Spf.PASS, "ip4:9.9.4.1", "ok", ""),
    ("no record", Spf.NONE, "", "problem", 'TXT "v=spf1 mx ip4:9.9.4.1 -all"'),
    ("fail", Spf.FAIL, "-all", "problem", 'TXT "v=spf1 ip4:9.9.4.1 mx -all"'),
    ("softfail", Spf.SOFTFAIL, "~all", "problem", 'TXT "v=spf1 ip4:9.9.4.1 mx -all"'),
    ("neutral", Spf.NEUTRAL, "no term matches", "warning", 'TXT "v=spf1 ip4:9.9.4.1 mx -all"'),
    ("broken", Spf.PERMERROR, "a term", "problem", "repair"),
    ("silence", Spf.TEMPERROR, "timeout", "skipped", "resolver"),
]


@pytest.mark.parametrize(
    ("name", "result", "because", "state", "mend"), PERMITTED, ids=[p[0] for p in PERMITTED]
)
def test_what_spf_says_of_our_address(
    name: str, result: Spf, because: str, state: str, mend: str
) -> None:
    told = permitted.judge("acme.shop", IP, SpfOutcome(result, because, RECORD))
    assert told.state == state
    assert mend in told.mend


@pytest.mark.parametrize(
    ("record", "better"),
    [
        ("v=spf1", "v=spf1 ip4:9.9.4.1"),
        ("v=spf1 -all", "v=spf1 ip4:9.9.4.1 -all"),
        ("v=spf1  a redirect=_spf.b.net", "v=spf1 ip4:9.9.4.1 a redirect=_spf.b.net"),
    ],
)
def test_the_record_to_publish_lets_our_address_in_first(record: str, better: str) -> None:
    assert permitted.with_term(record, "ip4:9.9.4.1") == better


# -- block lists -----------------------------------------------------------------------------------
LISTS = {row.name: row for row in blocklists.block_lists()}
ZEN, COP = LISTS["Spamhaus ZEN"], LISTS["SpamCop"]
CANARIES = [
    ("answers", found("127.0.0.2", "127.0.0.4"), GONE, ""),
    ("refuses resolvers that many share", found("127.255.255.254"), GONE, "refuses the resolver"),
    ("has never heard of its own test", GONE, GONE, "does not answer"),
    ("lists everything", found("127.0.0.2"), found("127.0.0.2"), "lists everything"),
    ("an advertisement", found("3.64.163.50"), found("3.64.163.50"), "does not answer"),
    ("silence", SILENCE, SILENCE, "could not be asked"),
]


@pytest.mark.parametrize(
    ("name", "listed_test", "unlisted_test", "trouble"), CANARIES, ids=[c[0] for c in CANARIES]
)
def test_a_list_proves_that_it_answers(
    name: str, listed_test: Records, unlisted_test: Records, trouble: str
) -> None:
    told = blocklists.judge_list(ZEN, listed_test, unlisted_test)
    assert trouble in told and bool(told) is bool(trouble)


ANSWERS = [
    ("on none", [(ZEN, GONE), (COP, GONE)], ["ok"], "none of Spamhaus ZEN, SpamCop"),
    ("on one", [(ZEN, found("127.0.0.4")), (COP, GONE)], ["problem"], "XBL"),
    ("policy", [(ZEN, found("127.0.0.11"))], ["problem"], "PBL"),
    ("a code nobody knows", [(ZEN, found("127.0.0.77"))], ["problem"], "most of them refuse"),
    (
        "a list that few use",
        [(LISTS["UCEPROTECT level 1"], found("127.0.0.2"))],
        ["warning"],
        "few",
    ),
    (
        "too many questions",
        [(ZEN, found("127.255.255.255")), (COP, GONE)],
        ["ok", "warning"],
        "SpamCop",
    ),
    ("silence", [(ZEN, SILENCE)], ["skipped"], "cannot tell"),
    (
        "listed and silent",
        [(ZEN, SILENCE), (COP, found("127.0.0.2"))],
        ["problem", "skipped"],
        "SpamCop",
    ),
    ("an advertisement", [(COP, found("3.64.163.50"))], ["ok"], "none of SpamCop"),
]


@pytest.mark.parametrize(
    ("name", "answers", "states", "words"), ANSWERS, ids=[a[0] for a in ANSWERS]
)
def test_what_the_lists_say_of_an_address(
    name: str,
    answers: Sequence[tuple[blocklists.BlockList, Records]],
    states: Sequence[str],
    words: str,
) -> None:
    said = [blocklists.judge_answer(row, answer) for row, answer in answers]
    told = blocklists.judge(IP, said)
    assert [finding.state for finding in told] == states
    assert words in told[0].found
    assert all(f.mend for f in told if f.state in (State.PROBLEM, State.WARNING))


def test_a_lists_names_are_made_as_the_rfc_says() -> None:
    assert blocklists.zone_name(IP, "bl.test") == "1.4.9.9.bl.test"
    name = blocklists.zone_name(ip_address("2001:db8:1:2:3:4:567:89ab"), "bl.test")
    assert name == "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.test"


# -- resolvers -------------------------------------------------------------------------------------
ROOT, GMAIL = found("198.41.0.4"), found("mx.gmail.com")


def heard(
    server: str = "9.9.9.9",
    known: Records = ROOT,
    seconds: float = 0.01,
    invents: bool | None = False,
    exchanges: Records = GMAIL,
) -> resolving.Heard:
    return resolving.Heard((server, 53), known, seconds, exchanges, invents)


RESOLVERS = [
    ("well", [heard()], ["ok"], "9.9.9.9 answers in 10 ms"),
    ("slow", [heard(seconds=0.5)], ["warning"], "500 ms"),
    ("invents names", [heard(invents=True)], ["problem"], "nobody has"),
    ("cut off", [heard(known=GONE)], ["problem"], "cut off"),
    ("not known whether it invents", [heard(invents=None)], ["skipped"], "not known"),
    ("dead", [heard(known=SILENCE)], ["problem"], "no resolver answers"),
    ("one of two is dead", [heard(), heard("9.9.9.10", SILENCE)], ["ok", "warning"], "9.9.9.9"),
    ("two agree", [heard(), heard("9.9.9.10")], ["ok", "ok"], "9.9.9.9"),
    (
        "two differ",
        [heard(), heard("9.9.9.10", exchanges=found("mx.portal.net"))],
        ["ok", "ok", "warning"],
        "9.9.9.9",
    ),
]


@pytest.mark.parametrize(
    ("name", "said", "states", "words"), RESOLVERS, ids=[r[0] for r in RESOLVERS]
)
def test_resolvers(
    name: str, said: Sequence[resolving.Heard], states: Sequence[str], words: str
) -> None:
    told = resolving.judge(said)
    assert [finding.state for finding in told] == states
    assert words in told[0].found


# -- the machine -----------------------------------------------------------------------------------
NOW = 1_800_000_000.0
CLOCKS = [
    ("kept", clocks.Told(NOW, NOW - 1e6, True, 0.01), "ok"),
    ("kept by somebody who says no error", clocks.Told(NOW, NOW - 1e6, True), "ok"),
    ("kept badly", clocks.Told(NOW, NOW - 1e6, True, 16.0), "warning"),
    ("kept by nobody", clocks.Told(NOW, NOW - 1e6, False), "warning"),
    ("nobody tells", clocks.Told(NOW, NOW - 1e6, None), "skipped"),
    ("behind our own files", clocks.Told(NOW, NOW + 3 * 86_400, True), "problem"),
    ("behind by a time zone", clocks.Told(NOW, NOW + 3 * 3600, True), "ok"),
]


@pytest.mark.parametrize(("name", "said", "state"), CLOCKS, ids=[c[0] for c in CLOCKS])
def test_the_clock(name: str, said: clocks.Told, state: str) -> None:
    assert clocks.judge(said).state == state


FILES = [
    ("no limit", None, "ok", "any number"),
    ("enough", 3281, "ok", "3281"),
    ("one less", 3280, "warning", "only 2048 connections"),
    ("some", 1024, "warning", "only 243 connections"),
    ("too few to start", 256, "problem", "does not start"),
]


@pytest.mark.parametrize(("name", "limit", "state", "words"), FILES, ids=[f[0] for f in FILES])
def test_open_files(name: str, limit: int | None, state: str, words: str) -> None:
    told = files.judge(2048, 256, limit)
    assert (told.state, words in told.found) == (state, True)


MIB = 1024**2
PLACE = Path("gate.db")
LOOKS = [
    ("not there yet", Look(False, free=999 * MIB), ["ok"], "can be made"),
    ("well", Look(True, free=999 * MIB, mode=0o600), ["ok"], "is whole"),
    ("in use", Look(True, free=999 * MIB, mode=0o600, in_use=True), ["ok"], "a gate that runs"),
    ("read by all", Look(True, free=999 * MIB, mode=0o644), ["warning"], "master key"),
    ("no room", Look(False, free=3 * MIB), ["ok", "warning"], "can be made"),
    (
        "no folder",
        Look(False, folder="No such file or directory"),
        ["problem"],
        "cannot be written",
    ),
    ("somebody else's", Look(True, free=999 * MIB, writable=False), ["problem"], "by this user"),
    ("foreign", Look(True, free=999 * MIB, foreign=True), ["problem"], "another program"),
    (
        "damaged",
        Look(True, free=999 * MIB, damage="disk image is malformed"),
        ["problem"],
        "damaged",
    ),
]


@pytest.mark.parametrize(("name", "seen", "states", "words"), LOOKS, ids=[one[0] for one in LOOKS])
def test_the_stores_file(name: str, seen: Look, states: Sequence[str], words: str) -> None:
    told = storage.judge(PLACE, seen)
    assert [finding.state for finding in told] == states
    assert words in told[0].found


def test_what_a_running_gate_says_of_its_store_is_passed_on() -> None:
    assert storage.judge_running(None).state is State.OK
    told = storage.judge_running("gate.db: disk full; make room on the disk")
    assert (told.state, told.mend) == (State.PROBLEM, "make room on the disk")


@pytest.mark.parametrize(
    ("version", "bug"), [("3.6.9", False), ("3.40.1", True), ("3.51.2", True), ("3.51.3", False)]
)
def test_a_version_of_sqlite_with_the_reset_bug_is_named(version: str, bug: bool) -> None:
    told = storage.judge_library(version)
    assert (told.state, "two connections" in told.found) == (State.OK, bug)


# -- identity and settings -------------------------------------------------------------------------
SITE = {
    "name": "shop",
    "site_key": "pk_1",
    "secret_hash": "0" * 64,
    "origins": ["https://www.acme.shop"],
}
GOOD = {
    "server": {"trusted_proxies": ["127.0.0.1/32"]},
    "probe": {"helo": HELO, "mail_from": "probe@acme.shop"},
    "site": [SITE],
}
LONG = "0123456789abcdefghijklmnopqrstuvwxyz"
SETTINGS = [
    ("all is well", {}, ["ok"], "nothing left over"),
    ("no site", {"site": []}, ["warning"], "gate keys new"),
    ("a site without origins", {"site": [SITE | {"origins": []}]}, ["warning"], "origins"),
    ("a plain page", {"site": [SITE | {"origins": ["http://acme.shop"]}]}, ["warning"], "https"),
    (
        "a plain page of this machine",
        {"site": [SITE | {"origins": ["http://localhost:3000"]}]},
        ["ok"],
        "",
    ),
    ("a good secret", {"server": {"secret": LONG, "host": "0.0.0.0"}}, ["ok"], ""),
    (
        "a secret that repeats itself",
        {"server": {"secret": "a" * 39 + "b", "host": "0.0.0.0"}},
        ["problem"],
        "openssl",
    ),
    ("a lab", {"egress": {"allow": ["10.0.0.0/8"]}}, ["warning"], "remove egress.allow"),
    ("a sandbox in public", {"sandbox": {"enabled": True}}, ["warning"], "sandbox.enabled"),
    ("a proxy that is not trusted", {"server": {}}, ["warning"], "trusted_proxies"),
    (
        "whole networks trusted",
        {"server": {"trusted_proxies": ["10.0.0.0/8"]}},
        ["warning"],
        "addresses of your proxies",
    ),
    (
        "IPv6 networks trusted",
        {"server": {"trusted_proxies": ["2a00::/16"]}},
        ["warning"],
        "addresses of your proxies",
    ),
]


@pytest.mark.parametrize(
    ("name", "tables", "states", "mend"), SETTINGS, ids=[s[0] for s in SETTINGS]
)
def test_what_development_left_behind(
    name: str, tables: dict[str, object], states: Sequence[str], mend: str
) -> None:
    told = sanity.settings_of(parse(GOOD | tables))
    assert [finding.state for finding in told] == states
    assert all(mend in finding.mend or finding.state is State.OK for finding in told)


WHO = [
    ("well", {}, HELO, "", ["ok"]),
    ("off", {"probe": {"enabled": False}}, "", "", ["skipped"]),
    ("nobody", {"probe": {}}, "", "", ["problem"]),
    (
        "the machine's name",
        {"probe": {"mail_from": "p@acme.shop"}},
        "box.acme.shop",
        "a note",
        ["warning"],
    ),
    ("no sender", {"probe": {"helo": HELO}}, HELO, "", ["warning"]),
    (
        "from a document",
        {"probe": {"helo": "gate.example.com"}},
        "gate.example.com",
        "",
        ["warning", "problem"],
    ),
    (
        "a sender from a document",
        {"probe": {"helo": HELO, "mail_from": "p@example.org"}},
        HELO,
        "",
        ["problem"],
    ),
]


@pytest.mark.parametrize(("name", "tables", "helo", "note", "states"), WHO, ids=[w[0] for w in WHO])
def test_who_the_gate_says_it_is(
    name: str, tables: dict[str, object], helo: str, note: str, states: Sequence[str]
) -> None:
    told = sanity.identity(parse(GOOD | tables), helo, note)
    assert [finding.state for finding in told] == states


def test_a_gate_that_greets_as_its_own_mail_server_is_warned() -> None:
    (told,) = sanity.helo_is_own_mx("Mail.acme.shop", ["mail.acme.shop"], "acme.shop")
    assert told.state is State.WARNING
    assert sanity.helo_is_own_mx(HELO, ["mail.acme.shop"], "acme.shop") == []


# -- the report ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ([], "ok"),
        (["ok", "skipped"], "ok"),
        (["ok", "warning"], "warning"),
        (["problem", "warning"], "problem"),
    ],
)
def test_the_worst_finding_is_the_reports(states: Sequence[str], worst: str) -> None:
    made = [Finding(f"c{n}", State(state), "", "", "", "") for n, state in enumerate(states)]
    assert Report(tuple(made)).state == worst


def test_long_lists_are_cut_short() -> None:
    assert listed("abcd") == "a, b, c, d"
    assert listed("abcdefgh") == "a, b, c and 5 more"


# -- a look at a file ------------------------------------------------------------------------------
def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    seen = look(tmp_path / "gate.db")
    assert (seen.there, seen.folder, seen.free > 0) == (False, "", True)
    assert list(tmp_path.iterdir()) == []
    assert look(tmp_path / "gone" / "gate.db").folder == "No such file or directory"


def test_a_file_of_another_program_and_one_that_is_no_database(tmp_path: Path) -> None:
    import sqlite3

    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert look(other).foreign
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"not a database at all" * 100)
    assert "not a database" in look(broken).damage
    assert not look(tmp_path).writable
