"""`gate doctor` over real sockets: one thing is broken at a time, and the doctor names that one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gate.api.openapi import document
from gate.app import App, create_app
from gate.budget import DOCTOR_CONNECT
from gate.cli import main
from gate.cli.doctor import as_json, as_text
from gate.doctor import watch as watches
from gate.doctor.examine import CHECKS
from gate.doctor.finding import Finding, Report, State
from gate.doctor.port25 import TARGETS
from gate.doctor.watch import Watch, watching, why_not_alone
from gate.engine import open_engine
from gate.store.sqlite import SqliteStore
from gate.testing import NXDOMAIN, SERVFAIL, FakeZones, HostRules, MailHost, ScriptedMta, transcript
from gate.testing.zones import SILENT, Late, Value
from tests.doctorworld import (
    DOMAIN,
    HELO,
    IP,
    LISTS,
    OWN_RULES,
    SETTINGS,
    WELL,
    ZONES,
    Ground,
    ground,
    looked_over,
    settings_with,
    states,
)
from tests.redisworld import redis_server

NAMES = [check.name for check in CHECKS]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test has a folder of its own, and no setting of the shell's."""
    for name in [name for name in os.environ if name.startswith("GATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def report(
    zones: Mapping[str, Value] | None = None,
    tables: Mapping[str, Any] | None = None,
    *only: str,
    own: HostRules | str = OWN_RULES,
    big: HostRules | str | None = None,
    seconds: float = 10.0,
    **changes: Any,
) -> Report:
    """What is found when some of the fit gate's world is otherwise."""

    async def run() -> Report:
        hosts = {
            name: ScriptedMta(transcript(rules)) if isinstance(rules, str) else MailHost(rules)
            for name, rules in (("own", own), ("big", big))
            if rules is not None
        }
        async with ground(zones, tables, **hosts) as (engine, _):  # type: ignore[arg-type]
            return await looked_over(engine, *only, seconds=seconds, **changes)

    return asyncio.run(run())


def without_clock(told: Report) -> dict[str, list[str]]:
    found = states(told.findings)
    found.pop("clock", None)
    return found


def test_a_gate_that_is_fit_is_told_so() -> None:
    told = report()
    assert without_clock(told) == WELL
    assert list(states(told.findings)) == NAMES
    assert told.names(State.PROBLEM) == []


def test_hosts_are_greeted_and_left_and_the_own_one_asked_once() -> None:
    async def run() -> None:
        async with ground() as (engine, world):
            await looked_over(engine)
            for greeted in world.big.connections:
                assert greeted.lines == ["QUIT"]
            assert len(world.big.connections) == len(TARGETS)
            verbs = [line.split()[0] for c in world.own.connections for line in c.lines]
            assert verbs in (
                ["EHLO", "MAIL", "RCPT", "RSET", "QUIT"],
                ["EHLO", "MAIL", "RCPT", "RSET"],  # kept for the next question until the end
            )
            assert not world.zones.unplanned

    asyncio.run(run())


LISTED = {f"1.4.9.9.{LISTS[0]}": "A 127.0.0.4"}
SHARED_RESOLVER = {
    f"*.{LISTS[0]}": "A 127.255.255.254",
    f"2.0.0.127.{LISTS[0]}": "A 127.255.255.254",
}
WHAT_IS_BROKEN: list[tuple[str, Mapping[str, Value], Mapping[str, Any], str, list[str], str]] = [
    ("no PTR", {"1.4.9.9.in-addr.arpa": NXDOMAIN}, {}, "names", ["problem"], f"PTR {HELO}."),
    (
        "another PTR",
        {"1.4.9.9.in-addr.arpa": "PTR 9-9-4-1.dsl.isp.net"},
        {},
        "names",
        ["problem"],
        "reverse DNS",
    ),
    (
        "a PTR nobody can look up",
        {"1.4.9.9.in-addr.arpa": SERVFAIL},
        {},
        "names",
        ["skipped"],
        "resolver",
    ),
    ("no name", {HELO: NXDOMAIN}, {}, "names", ["problem"], f"{HELO}. A"),
    ("no name: no lists", {HELO: NXDOMAIN}, {}, "block-lists", ["skipped"], "A record"),
    ("no name: no SPF", {HELO: NXDOMAIN}, {}, "spf", ["skipped"], "A record"),
    ("a name nobody can look up", {HELO: SERVFAIL}, {}, "names", ["skipped"], "resolver"),
    ("no SPF", {DOMAIN: "MX 10 mx.acme.shop"}, {}, "spf", ["problem"], f"ip4:{IP}"),
    (
        "SPF of others",
        {DOMAIN: ["MX 10 mx.acme.shop", 'TXT "v=spf1 -all"']},
        {},
        "spf",
        ["problem"],
        f'"v=spf1 ip4:{IP} -all"',
    ),
    ("SPF nobody can look up", {f"{DOMAIN} TXT": SERVFAIL}, {}, "spf", ["skipped"], "resolver"),
    (
        "no MX",
        {DOMAIN: [f'TXT "v=spf1 ip4:{IP} -all"', "A 8.8.4.10"]},
        {},
        "sender",
        ["warning", "ok"],
        "MX 10",
    ),
    ("no mail at all", {DOMAIN: f'TXT "v=spf1 ip4:{IP} -all"'}, {}, "sender", ["problem"], "MX 10"),
    ("null MX", {DOMAIN: "MX 0 ."}, {}, "sender", ["problem"], "null MX"),
    ("no domain", {DOMAIN: NXDOMAIN}, {}, "sender", ["problem"], "probe.mail_from"),
    ("a domain nobody can look up", {DOMAIN: SERVFAIL}, {}, "sender", ["skipped"], "resolver"),
    (
        "a host inside",
        {"mx.acme.shop": "A 10.0.0.9"},
        {},
        "sender",
        ["ok", "skipped"],
        "from elsewhere",
    ),
    ("on a list", LISTED, {}, "block-lists", ["problem"], "check.spamhaus.org"),
    (
        "a resolver that many share",
        SHARED_RESOLVER,
        {},
        "block-lists",
        ["ok", "warning"],
        "resolver of your own",
    ),
    (
        "silent lists",
        {f"2.0.0.127.{zone}": NXDOMAIN for zone in LISTS},
        {},
        "block-lists",
        ["warning"],
        "resolver of your own",
    ),
    ("invented names", {"*.com": "A 3.64.163.50"}, {}, "resolver", ["problem"], "unbound"),
    ("cut off", {"a.root-servers.net": NXDOMAIN}, {}, "resolver", ["problem"], "unbound"),
    (
        "a name that is the MX's",
        {HELO: ["A 9.9.4.1"], DOMAIN: f"MX 10 {HELO}"},
        {},
        "identity",
        ["ok", "warning"],
        "of its own",
    ),
    (
        "no folder for the store",
        {},
        {"store": {"url": "sqlite:gone/gate.db"}},
        "store",
        ["problem", "ok"],
        "install -d",
    ),
    ("a store in memory", {}, {"store": {"url": "memory:"}}, "store", ["warning"], "sqlite:"),
    (
        "no Redis where the store is",
        {},
        {"store": {"url": "redis://127.0.0.1:9/0"}},
        "store",
        ["problem"],
        "see whether Redis runs there",
    ),
    (
        "too many connections",
        {},
        {"limits": {"connections": 10_000_000}},
        "files",
        ["warning"],
        "LimitNOFILE",
    ),
    (
        "no origins",
        {},
        {"site": [{**SETTINGS["site"][0], "origins": []}]},
        "settings",
        ["warning"],
        "origins",
    ),
    ("no sender", {}, {"probe": {"helo": HELO}}, "identity", ["warning"], "probe.mail_from"),
]


@pytest.mark.parametrize(
    ("name", "zones", "tables", "check", "expected", "mend"),
    WHAT_IS_BROKEN,
    ids=[row[0] for row in WHAT_IS_BROKEN],
)
def test_what_is_broken_is_named(
    name: str,
    zones: Mapping[str, Value],
    tables: Mapping[str, Any],
    check: str,
    expected: list[str],
    mend: str,
) -> None:
    told = report(zones, tables, check)
    assert states(told.findings) == {check: expected}
    assert any(mend in finding.mend for finding in told.findings if finding.state is not State.OK)


def test_a_redis_that_keeps_nothing_is_warned_of_and_one_that_evicts_is_a_problem() -> None:
    with redis_server() as server:
        tables = {"store": {"url": server.url}}
        told = report(None, tables, "store")
        assert states(told.findings) == {"store": ["ok", "warning"]}
        assert "appendonly yes" in told.findings[1].mend
        server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        (told_of,) = report(None, tables, "store").findings
        assert (told_of.state, "noeviction" in told_of.mend) == (State.PROBLEM, True)


OWN_HOSTS = [
    ("not there", replace(OWN_RULES, users=()), ["ok", "problem"]),
    ("greylisted", replace(OWN_RULES, greylist=300.0), ["ok", "warning"]),
    (
        "refused",
        replace(OWN_RULES, answers={"rcpt": "554 5.7.1 client host blocked"}),
        ["ok", "problem"],
    ),
    ("nobody there", "refused", ["ok", "skipped"]),
    ("no mail server", "http", ["ok", "skipped"]),
]


@pytest.mark.parametrize(("name", "rules", "expected"), OWN_HOSTS, ids=[o[0] for o in OWN_HOSTS])
def test_what_the_own_mx_says(name: str, rules: HostRules | str, expected: list[str]) -> None:
    told = report(None, None, "sender", own=rules)
    assert states(told.findings) == {"sender": expected}


BIG_HOSTS = [
    (
        "turned away",
        HostRules(answers={"greeting": "554 5.7.1 go away"}),
        "turns this address away",
    ),
    ("refused", "refused", "something on the way refuses"),
    ("no mail server", "http", "no mail host was reached"),
]


@pytest.mark.parametrize(("name", "rules", "words"), BIG_HOSTS, ids=[b[0] for b in BIG_HOSTS])
def test_what_the_hosts_of_others_say(name: str, rules: HostRules | str, words: str) -> None:
    (told,) = report(None, None, "port-25", big=rules).findings
    assert (told.state, words in told.found) == (State.PROBLEM, True)


def test_a_closed_port_is_told_in_time_and_by_name() -> None:
    """A provider that drops packets looks like a host that never answers a connect."""

    async def run() -> tuple[Report, float]:
        loop = asyncio.get_running_loop()
        with full_backlog() as listener:
            more = {"8.8.4.11": listener}
            async with ground(more=more) as (engine, _):
                began = loop.time()
                told = await looked_over(engine, "port-25", seconds=1.5)
                return told, loop.time() - began

    told, took = asyncio.run(run())
    (finding,) = told.findings
    assert (finding.state, "timed out" in finding.found) == (State.PROBLEM, True)
    assert "SOCKS5" in finding.mend
    assert took < min(1.5, DOCTOR_CONNECT) + 0.5


@contextmanager
def full_backlog() -> Iterator[tuple[str, int]]:
    """A listener whose queue is full: the kernel answers no further SYN."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        try:
            yield listener.getsockname()
        finally:
            for filler in fillers:
                filler.close()


def test_a_gate_that_was_switched_off_asks_nobody_about_itself() -> None:
    async def run() -> tuple[str, str]:
        async with ground() as (engine, _):
            before = why_not_alone(engine)
            await engine.switch.turn(on=False)
            return before, why_not_alone(engine)

    before, after = asyncio.run(run())
    assert before == "" and after.startswith("nobody is asked: ")


def test_a_target_of_ones_own_is_greeted_instead() -> None:
    (told,) = report(None, None, "port-25", targets=("8.8.4.10",)).findings
    assert (told.state, "greeted by 8.8.4.10" in told.found) == (State.OK, True)


def test_each_egress_address_is_looked_at() -> None:
    tables: Mapping[str, Any] = {
        "egress": {
            "address": [
                {"ip": "127.0.0.5", "helo": HELO},
                {"ip": "127.0.0.6", "helo": "two.acme.shop"},
            ]
        }
    }
    zones: Mapping[str, Value] = {"two.acme.shop": "A 9.9.4.2", "2.4.9.9.in-addr.arpa": NXDOMAIN}
    told = report(zones, tables, "port-25", "names", "spf", "block-lists")
    assert states(told.findings) == {
        "port-25": ["ok", "ok"],
        "names": ["ok", "problem"],
        "spf": ["ok", "problem"],
        "block-lists": ["ok", "ok"],
    }


def test_a_world_that_is_silent_ends_in_time_and_blames_the_resolver() -> None:
    told = report({"*": SILENT, **dict.fromkeys(ZONES, SILENT)}, None, seconds=2.0)
    found = without_clock(told)
    assert found["resolver"] == ["problem"]
    assert {
        state
        for name in ("port-25", "names", "sender", "spf", "block-lists")
        for state in found[name]
    } == {"skipped"}
    assert found["store"] == WELL["store"]


def test_a_resolver_that_is_cut_off_proves_nothing() -> None:
    """It denies our own name as well; nobody is told to publish what is there."""
    told = report({"*": NXDOMAIN, **dict.fromkeys(ZONES, NXDOMAIN)})
    found = without_clock(told)
    assert found["resolver"] == ["problem"]
    assert {
        state for name in ("names", "sender", "spf", "block-lists") for state in found[name]
    } == {"skipped"}
    assert told.names(State.PROBLEM) == ["resolver"]


def test_a_slow_resolver_is_named() -> None:
    told = report({"a.root-servers.net": Late(0.35, "A 198.41.0.4")}, None, "resolver")
    assert states(told.findings) == {"resolver": ["warning"]}


def test_a_second_resolver_that_is_dead_or_differs_is_named() -> None:
    async def run(second: Mapping[str, Value]) -> Report:
        async with FakeZones(ZONES) as one, FakeZones({**ZONES, **second}) as other:
            servers = [f"{zones.server[0]}:{zones.server[1]}" for zones in (one, other)]
            async with ground(tables={"dns": {"servers": servers}}) as (engine, _):
                return await looked_over(engine, "resolver", seconds=3.0)

    differs = asyncio.run(run({"gmail.com": "MX 10 mx.portal.net"}))
    assert states(differs.findings) == {"resolver": ["ok", "ok", "warning"]}
    dead = asyncio.run(run({"a.root-servers.net": SERVFAIL}))
    assert states(dead.findings) == {"resolver": ["ok", "warning"]}


def test_a_gate_that_asks_nobody_is_looked_at_inside_only() -> None:
    async def run(tables: Mapping[str, Any]) -> tuple[Report, list[str]]:
        async with ground(tables=tables) as (engine, world):
            told = await looked_over(engine)
            return told, list(world.zones.queries)

    told, queries = asyncio.run(run({"probe": {"enabled": False}}))
    assert queries == []
    found = without_clock(told)
    outside = [check.name for check in CHECKS if check.outside]
    assert {state for name in outside for state in found[name]} == {"skipped"}
    assert found["files"] == ["ok"]


def test_a_target_that_is_no_name_is_a_finding() -> None:
    (told,) = report(None, None, "port-25", targets=("not a name..",)).findings
    assert (told.state, "no domain" in told.found) == (State.PROBLEM, True)


def test_a_running_gates_own_store_is_not_opened_a_second_time(tmp_path: Path) -> None:
    async def run() -> Report:
        store = await SqliteStore.open(tmp_path / "gate.db", wall=lambda: 0.0, capacity=10)
        try:
            async with ground(tables={"store": {"url": "sqlite:gate.db"}}) as (engine, _):
                return await looked_over(engine, "store")
        finally:
            await store.close()

    first, _ = asyncio.run(run()).findings
    assert (first.state, "a gate that runs" in first.found) == (State.OK, True)
    assert (
        "is whole" in report(None, {"store": {"url": "sqlite:gate.db"}}, "store").findings[0].found
    )
    (tmp_path / "gate.db").chmod(0o644)
    assert report(None, None, "store").names(State.WARNING) == ["store"]


# -- in the background -----------------------------------------------------------------------------
def test_a_serving_gate_logs_a_problem_once_and_says_when_it_is_mended(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "DOCTOR_EVERY", 0.0)
    caplog.set_level(logging.INFO, "gate.doctor")

    async def run() -> list[dict[str, object]]:
        watch = Followed()
        said = [watch.summary()]
        async with ground({"1.4.9.9.in-addr.arpa": NXDOMAIN}) as (engine, world):
            async with asyncio.timeout(10.0), watching(engine, watch):
                for _ in range(2):
                    await watch.reports.get()
                said.append(watch.summary())
                world.zones["1.4.9.9.in-addr.arpa"] = f"PTR {HELO}"
                while (await watch.reports.get()).names(State.PROBLEM):
                    pass
                said.append(watch.summary())
        return said

    pending, bad, good = asyncio.run(run())
    assert pending == {"state": "pending", "problems": [], "warnings": []}
    assert (bad["state"], bad["problems"]) == ("problem", ["names"])
    assert good["problems"] == []
    lines = [record.getMessage() for record in caplog.records if record.name == "gate.doctor"]
    assert [line for line in lines if "has no PTR" in line] == lines[:1]
    assert lines[1:] == ["names: mended"]


def test_readyz_names_what_is_to_be_mended_and_stays_200() -> None:
    async def run() -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        async with FakeZones({**ZONES, "1.4.9.9.in-addr.arpa": NXDOMAIN}) as zones:
            async with MailHost(OWN_RULES) as own:
                world = Ground(zones, own, own)
                world.seam.add("8.8.4.10", own.address)
                world.seam.add("8.8.4.11", own.address)
                settings = settings_with(zones, {"store": {"url": "memory:"}})
                opener = partial(open_engine, world=world)
                app = create_app(settings, opener=opener, write=len, doctor=True)
                async with app.open(), _client(app) as client, asyncio.timeout(10.0):
                    for _ in range(1000):
                        response = await client.get("/readyz")
                        assert response.status_code == 200
                        said.append(response.json())
                        if said[-1]["doctor"]["state"] != "pending":
                            break
                        await asyncio.sleep(0.01)
        return said

    said = asyncio.run(run())
    assert said[0]["doctor"] == {"state": "pending", "problems": [], "warnings": []}
    assert said[0]["status"] == said[-1]["status"] == "ready"
    assert said[-1]["doctor"]["state"] == "problem"
    assert said[-1]["doctor"]["problems"] == ["names"]
    assert "store" in said[-1]["doctor"]["warnings"]
    schema = msgspec.json.decode(document())["components"]["schemas"]["Readiness"]
    described = schema["properties"]["doctor"]["properties"]
    assert set(said[-1]["doctor"]) == set(described)
    assert set(said[-1]["doctor"]["warnings"]) <= set(described["warnings"]["items"]["enum"])


def _client(app: App) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gate.shop")


class Followed(Watch):
    """A watch whose reports a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: asyncio.Queue[Report] = asyncio.Queue()

    def note(self, report: Report) -> None:
        super().note(report)
        self.reports.put_nowait(report)


ALONE = [
    ("an identity", {}, False),
    ("probing off", {"probe": {"enabled": False, "helo": HELO}}, True),
    ("a lab", {"egress": {"allow": ["127.0.0.0/8"]}}, True),
]


@pytest.mark.parametrize(("name", "tables", "offline"), ALONE, ids=[a[0] for a in ALONE])
def test_nobody_outside_is_asked_without_a_reason(
    name: str, tables: Mapping[str, Any], offline: bool
) -> None:
    async def run() -> str:
        async with ground(tables=tables) as (engine, _):
            return why_not_alone(engine)

    assert bool(asyncio.run(run())) is offline


# -- the command -----------------------------------------------------------------------------------
@pytest.fixture
def served(tmp_path: Path) -> Iterator[FakeZones]:
    """The fit gate's zones, from another thread, and a settings file that names them."""
    zones = FakeZones(ZONES)
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with zones:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    host, port = zones.server
    (tmp_path / "gate.toml").write_text(
        f'dns.servers = ["{host}:{port}"]\n'
        f'probe = {{ helo = "{HELO}", mail_from = "probe@{DOMAIN}" }}\n'
        'egress.address = [{ ip = "127.0.0.5" }]\n',
        encoding="utf-8",
    )
    (tmp_path / "gate.toml").chmod(0o600)
    yield zones
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


def test_the_command_prints_what_a_person_needs(
    served: FakeZones, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--only", "names", "--only", "spf"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "who we are"
    assert out[1].split()[:2] == ["ok", "names"] and out[2].split()[:2] == ["ok", "spf"]
    assert out[-1] == "2 ok"
    served["1.4.9.9.in-addr.arpa"] = NXDOMAIN
    assert main(["doctor", "--only", "names"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[1].split() == ["problem", "names", IP, "has", "no", "PTR"]
    assert any(line.split()[:1] == ["mend"] for line in out)
    assert "\x1b" not in "".join(out) and all(len(line) <= 110 for line in out)


def test_json_has_the_documented_keys(
    served: FakeZones, capsys: pytest.CaptureFixture[str]
) -> None:
    served["1.4.9.9.in-addr.arpa"] = NXDOMAIN
    assert main(["doctor", "--json", "--only", "names", "--only", "spf"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["version", "state", "counts", "findings"]
    assert told["state"] == "problem"
    assert told["counts"] == {"ok": 1, "warning": 0, "problem": 1, "skipped": 0}
    for finding in told["findings"]:
        assert list(finding) == ["check", "state", "about", "found", "why", "mend"]
        assert all(isinstance(text, str) for text in finding.values())
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    named = {*told, *told["findings"][0], *told["counts"], *NAMES}
    assert not {word for word in named if f"`{word}`" not in readme}


MISUSE = [
    ("an unknown check", ["--only", "weather"], "--only: weather is no check; there is resolver"),
    ("no time", ["--timeout", "0"], "--timeout: 0 is out of range"),
    ("all of nothing", ["--all"], "--all: belongs to --send-test"),
    ("no settings", ["--config", "gone.toml"], "gone.toml: cannot be read"),
]


@pytest.mark.parametrize(("name", "options", "words"), MISUSE, ids=[m[0] for m in MISUSE])
def test_misuse_is_status_two(
    name: str, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *options]) == 2
    assert words in capsys.readouterr().err


def test_a_sandbox_alone_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATE_SANDBOX__ENABLED", "true")
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    found = {f["check"]: f["state"] for f in told["findings"]}
    outside = [check.name for check in CHECKS if check.outside]
    assert {found[name] for name in outside} == {"skipped"}
    assert found["identity"] == "problem"


def test_what_a_stranger_said_moves_no_cursor() -> None:
    finding = Finding("port-25", State.PROBLEM, "", "said \x1b[2J\r\n", "w\x07y", "m\x00end")
    text = as_text(Report((finding,)), 80, colour=False)
    assert text.isascii() and all(char.isprintable() or char == "\n" for char in text)
    assert json.loads(as_json(Report((finding,))))["findings"][0]["mend"] == "m\x00end"
    record = 'acme.shop. TXT "v=spf1 ' + "ip4:9.9.4.1 " * 12 + '-all"'
    to_copy = Finding("spf", State.PROBLEM, "", "no record", "why", f"publish it:\n{record}")
    assert record in [line.strip() for line in as_text(Report((to_copy,)), 80, False).splitlines()]
    assert "\x1b[31mproblem" in as_text(Report((finding,)), 80, colour=True)


def test_examining_is_done_even_if_everything_hangs() -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        async with ground({"*": SILENT, **dict.fromkeys(ZONES, SILENT)}) as (engine, _):
            began = loop.time()
            await looked_over(engine, seconds=0.5)
            return loop.time() - began

    assert asyncio.run(run()) < 1.0
