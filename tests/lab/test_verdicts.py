"""The gate's verdicts about every address of the lab, through the command line and in process.

The expected reason of a row follows from what its server is configured to do, never from what the
gate was seen to say.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from gate.budget import CLI_CHECK, Deadline
from gate.engine import Engine, open_engine
from gate.reason import VERDICT_OF, Reason
from gate.settings.read import parse
from tests.lab.lab import Lab
from tests.lab.rounds import came_of
from tests.lab.world import AGAIN, DOMAINS, Ask, Domain, Who

Verdicts = dict[str, tuple[str, str]]
"""Address to (result, reason)."""
AT_ONCE = 8
HANGS_UP = "exim-drop"
TRIES = 5
PROGRAM = "import sys; from gate.cli import main; sys.exit(main())"
"""What the installed `gate` command does."""

ROWS = [(domain, row) for domain in DOMAINS for row in domain.asks]
TABLE = [
    pytest.param(domain, row, id=f"{row.local}@{domain.full}-{row.who.value}")
    for domain, row in ROWS
]
SECOND = [
    pytest.param(domain, row, id=f"{row.local}@{domain.full}") for domain, row in ROWS if row.later
]


def _email(domain: Domain, row: Ask) -> str:
    return f"{row.local}@{domain.full}"


def _asked_by(who: Who, *, again: bool = False) -> list[str]:
    return [_email(d, row) for d, row in ROWS if row.who is who and (row.later or not again)]


def _hung_up_on(found: Verdicts) -> list[str]:
    """Who has to be asked once more: a server that hangs up may take its last reply with it (what
    the client has sent meanwhile makes a reset of the close), so that nothing was settled.
    """
    names = {_email(d, row) for d, row in ROWS if d.server == HANGS_UP}
    return [email for email in names if found[email] == _said(Reason.UNCONFIRMED)]


class Commands:
    """`gate check`, run as a program for one client of the world."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder

    def start(self, client: str) -> subprocess.Popen[str]:
        config = self._folder / f"{client}.toml"
        config.write_text(self._lab.settings(client), encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "check", "--json", "--config", str(config), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=Path(__file__).parents[2],
        )

    def finish(self, program: subprocess.Popen[str], emails: Iterable[str]) -> Verdicts:
        out, err = program.communicate("".join(f"{email}\n" for email in emails))
        assert program.returncode in (0, 1), err
        answers = map(json.loads, out.splitlines())
        return {answer["email"]: (answer["result"], answer["reason"]) for answer in answers}


async def _in_process(engine: Engine, emails: Iterable[str]) -> Verdicts:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(email: str) -> tuple[str, tuple[str, str]]:
        async with turn:
            deadline = Deadline.after(CLI_CHECK, engine.clock)
            answer = await engine.checker.check(email, site=engine.sites[0], deadline=deadline)
            return email, (answer.verdict.result, answer.verdict.reason)

    return dict(await asyncio.gather(*map(one, emails)))


@pytest.fixture(scope="module")
def commands(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(lab, tmp_path_factory.mktemp("gate"))


def _ask_by_command(lab: Lab, folder: Path) -> Mapping[str, Verdicts]:
    """What the program says of everybody; of some a second time, once their server has time to."""
    commands = Commands(lab, folder)
    good, stray = commands.start("command"), commands.start("stray-command")
    found = {"stray": commands.finish(stray, _asked_by(Who.STRAY))}
    found["good"] = commands.finish(good, _asked_by(Who.GOOD))
    for _ in range(TRIES):
        if hung_up := _hung_up_on(found["good"]):
            found["good"].update(commands.finish(commands.start("command"), hung_up))
    time.sleep(AGAIN)
    found["again"] = commands.finish(commands.start("command"), _asked_by(Who.GOOD, again=True))
    return found


def _ask_by_engine(lab: Lab, folder: Path) -> Mapping[str, Verdicts]:
    """The same from engines inside this process, one for each client."""

    async def everything() -> Mapping[str, Verdicts]:
        async with open_engine(parse(tomllib.loads(lab.settings("stray-engine")))) as engine:
            found = {"stray": await _in_process(engine, _asked_by(Who.STRAY))}
        async with open_engine(parse(tomllib.loads(lab.settings("engine")))) as engine:
            found["good"] = await _in_process(engine, _asked_by(Who.GOOD))
            for _ in range(TRIES):
                found["good"].update(await _in_process(engine, _hung_up_on(found["good"])))
            await asyncio.sleep(AGAIN)
            found["again"] = await _in_process(engine, _asked_by(Who.GOOD, again=True))
        return found

    return asyncio.run(everything())


ROUNDS = {"by_command": _ask_by_command, "by_engine": _ask_by_engine}


by_command = came_of("by_command")
by_engine = came_of("by_engine")


def _said(reason: Reason) -> tuple[str, str]:
    return VERDICT_OF[reason], reason


@pytest.mark.parametrize(("domain", "row"), TABLE)
def test_command(domain: Domain, row: Ask, by_command: Mapping[str, Verdicts]) -> None:
    assert by_command[row.who.value][_email(domain, row)] == _said(row.reason)


@pytest.mark.parametrize(("domain", "row"), TABLE)
def test_engine(domain: Domain, row: Ask, by_engine: Mapping[str, Verdicts]) -> None:
    assert by_engine[row.who.value][_email(domain, row)] == _said(row.reason)


@pytest.mark.parametrize(("domain", "row"), SECOND)
def test_second_visit(
    domain: Domain,
    row: Ask,
    by_command: Mapping[str, Verdicts],
    by_engine: Mapping[str, Verdicts],
) -> None:
    assert row.later is not None
    assert by_command["again"][_email(domain, row)] == _said(row.later)
    assert by_engine["again"][_email(domain, row)] == _said(row.later)


def test_verification_under_way(lab: Lab) -> None:
    async def twice() -> list[tuple[str, str]]:
        settings = parse(tomllib.loads(lab.settings("engine")))
        said: list[tuple[str, str]] = []
        async with open_engine(settings) as engine:
            for _visit in range(2):
                said += (await _in_process(engine, ["alice+verdict@verify-soft.test"])).values()
                await asyncio.sleep(1)
        return said

    # The host refuses nobody for good, so that an accepted mailbox proves nothing.
    assert asyncio.run(twice()) == [_said(Reason.GREYLISTED), _said(Reason.UNCONFIRMED)]


def test_an_idn_is_found_by_the_name_that_people_type(commands: Commands) -> None:
    typed = "alice@bücher.test"
    answers = commands.finish(commands.start("command"), [typed])
    assert answers[typed] == _said(Reason.ACCEPTED_EMAIL)


def test_no_server_saw_us_speak_out_of_turn(
    by_command: Mapping[str, Verdicts], by_engine: Mapping[str, Verdicts], lab: Lab
) -> None:
    """Postscreen and Exim log whoever speaks early, or in a group that nobody allowed."""
    ours = [lab.client_ip(name) for name in ("command", "engine", "stray-command", "stray-engine")]
    faults = ("PREGREET", "COMMAND PIPELINING", "synchronization error", "improper command")
    logs = lab.log("postfix-mail.log") + lab.log("exim-mainlog")
    seen = [line for line in logs.splitlines() if any(fault in line for fault in faults)]
    assert [line for line in seen if any(f"[{ip}]" in line for ip in ours)] == []
    assert any(f"[{ip}]" in logs for ip in ours)
