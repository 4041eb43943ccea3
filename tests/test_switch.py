"""The operator's switch: in one gate, in a real process and its successors, by hand and by HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gate.api import ops
from gate.api.switch import Switching
from gate.budget import RECHECK_WAITS, Deadline
from gate.cli import main
from gate.engine import open_engine
from gate.probing import STOPS
from gate.smtp.breaker import BLOCKED_MOST
from gate.store import open_store
from gate.switch import KEY, Position, position
from gate.testing import HostRules, MailHost
from gate.testing.zones import FakeZones
from gate.trace import Trace
from tests.api.ground import BEARER, site
from tests.lateworld import Late, in_world, place, settings, until

JANE = "jane@mail.test"
SERVERS = {"mail.test": HostRules(users=("jane", "john", "mary"))}


def test_off_is_off_and_on_is_on() -> None:
    async def test(late: Late) -> None:
        assert await late.reason(JANE) == "accepted_email"
        host = late.hosts["mail.test"]
        assert late.engine.prober.connections == {"open": 1, "parked": 1}
        assert await late.engine.switch.turn(False, "an abuse report")
        await until(lambda: host.lines[-1] == "QUIT")
        begun = time.monotonic()
        assert await late.reason("john@mail.test") == "probe_off"
        assert time.monotonic() - begun < 0.5
        assert await late.reason(JANE) == "accepted_email", "what is remembered is still said"
        assert await late.reason("jane@nowhere.test") != "probe_off", "and so is what DNS says"
        assert late.dialogues("mail.test") == 1
        assert await late.engine.switch.turn(True)
        assert await late.reason("john@mail.test") == "accepted_email"

    in_world(test, SERVERS)


def test_who_waits_for_a_place_begins_no_dialogue_and_who_has_one_ends_it() -> None:
    async def test(late: Late) -> None:
        host = late.hosts["slow.test"]
        checks = [asyncio.create_task(late.reason(f"slow-40{i}@slow.test")) for i in range(4)]
        await until(lambda: "3 waiting" in repr(late.engine.prober) and "RCPT" in str(host.lines))
        await late.engine.switch.turn(False)
        found = await asyncio.gather(*checks)
        assert sorted(found) == ["accepted_email", "probe_off", "probe_off", "probe_off"]
        assert sum("slow-40" in line for line in host.lines) == 1
        assert host.accepted == 1
        await until(lambda: host.lines[-1] == "QUIT")  # not kept for a next question

    one = settings(limits={"destination_dialogues": 1})
    in_world(test, {"slow.test": HostRules(users=())}, config=one)


def test_a_recheck_that_falls_into_it_is_done_later() -> None:
    async def test(late: Late) -> None:
        answer = await late.check("grey@grey.test")
        assert answer.verdict.reason.value == "greylisted"
        await late.engine.switch.turn(False)
        assert await late.later(RECHECK_WAITS[0] * 1.3) == (1, 0)
        await late.engine.switch.turn(True)
        assert await late.latest(answer.id) == "greylisted"
        assert await late.later(RECHECK_WAITS[1] * 1.3) == (1, 1)
        assert await late.latest(answer.id) == "accepted_email!"

    in_world(test, {"grey.test": HostRules(users=("grey",), greylist=60.0)})


@pytest.mark.parametrize("why", ["a\nb\x1b[2J", "for jane@mail.test", "x" * 5000, "ümlaut"])
def test_the_operators_words_are_kept_short_plain_and_without_addresses(why: str) -> None:
    async def test(late: Late) -> None:
        await late.engine.switch.turn(False, why)
        kept = late.engine.switch.position.why
        assert kept.isascii() and kept.isprintable()
        assert "jane" not in kept
        assert 0 < len(kept) <= 200

    in_world(test, SERVERS)


def test_a_record_that_cannot_be_read_leaves_it_off(tmp_path: Path) -> None:
    async def run() -> tuple[Position, str]:
        config = settings(f"sqlite:{tmp_path / 'gate.db'}")
        store = await open_store(config.store.url, wall=time.time, capacity=10)
        assert await position(store) == Position()
        await store.put(KEY, b"\x93\x01", expires=time.time() + 60)
        await store.close()
        async with open_engine(config) as engine:
            return engine.switch.position, engine.probing.state

    found, state = asyncio.run(run())
    assert (found.on, state) == (False, "switch")


def test_a_store_that_cannot_be_written_does_not_hold_the_switch_up(tmp_path: Path) -> None:
    async def run() -> tuple[bool, str, str]:
        async with place(SERVERS) as here, here.engine(settings("memory:")) as late:

            async def full(*_: object, **__: object) -> bool:
                return False

            late.engine.switch._store.add = full  # type: ignore[method-assign]
            kept = await late.engine.switch.turn(False)
            return kept, late.engine.probing.state, await late.reason(JANE)

    assert asyncio.run(run()) == (False, "switch", "probe_off")


def test_a_stop_that_the_gate_lays_upon_itself_is_told_everywhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuses = {"rcpt": "550 5.7.1 client host blocked using zen.spamhaus.org"}
    domains = [f"no{number}.test" for number in range(BLOCKED_MOST + 1)]
    servers = {domain: HostRules(answers=refuses) for domain in domains}

    async def test(late: Late) -> None:
        for domain in domains:
            assert await late.reason(f"jane@{domain}") == "probe_blocked"
        assert late.engine.probing.state == "blocked"
        trace = Trace(time.monotonic)
        deadline = Deadline.after(5.0, time.monotonic)
        checker = late.engine.checker
        answer = await checker.check(JANE, site=late.site, deadline=deadline, trace=trace)
        assert answer.verdict.reason.value == "probe_off"
        assert "not asked: probe_off: blocked" in [step.detail for step in trace.steps]
        assert late.dialogues("mail.test") == 0

    in_world(test, {**servers, **SERVERS})
    assert STOPS["blocked"] in caplog.text


# -- over HTTP, on the admin listener --------------------------------------------------------------

REFUSED = {
    "a page, by rebinding": ("POST", {"host": "evil.test"}, {"on": False}, 421),
    "a page that only looks": ("GET", {"host": "evil.test"}, None, 421),
    "a form of a page": ("POST", {"content-type": "text/plain"}, {"on": False}, 415),
    "no JSON": ("POST", {}, "{", 400),
    "no position": ("POST", {}, {"why": "x"}, 400),
    "a word for a position": ("POST", {}, {"on": "off"}, 400),
    "an unknown key": ("POST", {}, {"on": False, "for": 5}, 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_may_turn_it_with(name: str) -> None:
    method, headers, body, status = REFUSED[name]

    async def test(late: Late) -> None:
        app = ops.admin(Switching(late.engine.probing, late.engine.switch, "memory:").routes)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as http:
            sent = {"content-type": "application/json", **headers}
            content = body if isinstance(body, str) else json.dumps(body)
            answer = await http.request(method, "/probing", headers=sent, content=content)
            assert answer.status_code == status
        assert late.engine.probing.state == "on"

    in_world(test, SERVERS)


# -- the command, and a real process ---------------------------------------------------------------


@dataclass(slots=True)
class Running:
    """A gate in its process."""

    url: str
    config: str

    async def reason(self, email: str) -> str:
        async with httpx.AsyncClient(base_url=self.url, headers=BEARER) as http:
            return str((await http.post("/v1/check", json={"email": email})).json()["reason"])

    async def ready(self) -> tuple[str, str | None]:
        async with httpx.AsyncClient(base_url=self.url) as http:
            found = (await http.get("/readyz")).json()
            return found["probing"], found["probing_why"]


@asynccontextmanager
async def process(
    config: str, zones: FakeZones, hosts: Mapping[str, MailHost]
) -> AsyncIterator[Running]:
    plan = {
        "config": config,
        "dns": zones.server,
        "hosts": {ip: host.address for ip, host in hosts.items()},
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.switched",
        json.dumps(plan),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(15):
            port = int(await child.stdout.readline())
        yield Running(f"http://127.0.0.1:{port}", config)
    finally:
        child.terminate()
        await child.wait()


async def turn(*arguments: str) -> tuple[int, str]:
    """`gate probing …` as its own process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from gate.cli import main; sys.exit(main())",
        "probing",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode()


def written(tmp_path: Path, **tables: Any) -> str:
    """A settings file of a gate with one site, and of the command beside it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tree: dict[str, Any] = {
        "server": {"port": 0, "admin_port": port},
        "store": {"url": f"sqlite:{tmp_path / 'gate.db'}"},
        "probe": {"helo": "gate.example.com", "mail_from": "probe@example.com"},
        "dns": {"servers": ["127.0.0.1:9"]},
        **tables,
    }
    lines = []
    for table, keys in tree.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    lines += ["[[site]]", *(f"{key} = {json.dumps(value)}" for key, value in site().items())]
    path = tmp_path / "gate.toml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.timeout(60)
def test_a_running_gate_stops_within_a_second_and_stays_off_until_it_is_told(
    tmp_path: Path,
) -> None:
    config = written(tmp_path)

    async def run() -> None:
        plan = {"mail.test": "MX 10 mx.mail.test", "mx.mail.test": "A 8.8.4.1"}
        async with FakeZones(plan) as zones, MailHost(SERVERS["mail.test"]) as host:
            hosts = {"8.8.4.1": host}
            async with process(config, zones, hosts) as gate:
                assert await gate.ready() == ("on", None)
                assert await gate.reason(JANE) == "accepted_email"
                begun = time.monotonic()
                code, said = await turn("off", "--why", "an abuse report", "--config", config)
                turned = time.monotonic()
                assert (code, "probing is off" in said) == (0, True)
                assert await gate.reason("john@mail.test") == "probe_off"
                assert time.monotonic() - turned < 1.0
                assert turned - begun < 5.0, "an interpreter's start included"
                assert await gate.ready() == ("off", "switch")
                code, said = await turn("status", "--config", config)
                assert (code, "an abuse report" in said) == (1, True)
            async with process(config, zones, hosts) as gate:
                assert await gate.ready() == ("off", "switch")
                assert await gate.reason("john@mail.test") == "probe_off"
                assert host.accepted == 1, "not one connection since"
                assert (await turn("on", "--config", config))[0] == 0
                assert await gate.reason("john@mail.test") == "accepted_email"
                assert (await turn("status", "--config", config))[0] == 0
            assert host.accepted == 2

    asyncio.run(run())


def test_the_file_of_a_gate_that_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path)

    def told(*arguments: str) -> tuple[int, str]:
        done = main(["probing", *arguments, "--config", config])
        return done, capsys.readouterr().out

    assert told("status") == (0, "probing is on: mail servers are asked\n")
    code, said = told("off", "--why", "moving house")
    assert code == 0 and said.startswith("probing is off: switched off with `gate probing off`\n")
    assert told("status") == (1, said)
    assert "UTC: moving house\n" in said
    assert told("on")[1].startswith("probing is on")


def test_the_setting_wins_over_the_switch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path, probe={"enabled": False})
    assert main(["probing", "on", "--config", config]) == 0
    assert capsys.readouterr().out.startswith("probing is off: probe.enabled is false\n")


def test_a_gate_with_another_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ours, other = Path(written(tmp_path)), tmp_path / "other" / "gate.toml"
    other.write_text(ours.read_text().replace(str(tmp_path), str(other.parent)))

    async def run() -> tuple[str, str | None]:
        plan = {"mail.test": "MX 10 mx.mail.test"}
        async with FakeZones(plan) as zones, process(str(ours), zones, {}) as gate:
            assert (await turn("off", "--config", str(other)))[0] == 0
            return await gate.ready()

    assert asyncio.run(run()) == ("on", None)
    assert main(["probing", "status", "--config", str(other)]) == 1


def test_nobody_to_ask_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, store={"url": "memory:"})
    assert main(["probing", "off", "--config", config]) == 2
    assert "gate: " in capsys.readouterr().err
