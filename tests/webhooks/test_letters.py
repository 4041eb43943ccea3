"""`gate webhooks list|replay`: on the file of a gate that is down, and through one that runs."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from gate.api import ops
from gate.api.letters import Letters
from gate.budget import WEBHOOK_EXPIRES
from gate.cli import main
from gate.reason import Reason
from gate.testing import HostRules
from gate.webhooks.outbox import GONE
from tests.lateworld import MASTER, SECRET, URL, Late, Receiver, place, settings, status, trusted
from tests.test_server import serving

__all__ = ["trusted"]
pytestmark = pytest.mark.usefixtures("trusted")

SERVERS = {"mail.test": HostRules(users=("jane",))}
SITE = {
    "name": "shop",
    "site_key": "pk_shop",
    "secret_hash": "0" * 64,
    "webhook": [{"url": URL, "secrets": [SECRET]}],
}


async def letters(late: Late, number: int) -> None:
    """So many messages to an endpoint that says it is gone."""
    answer = await late.check("jane@mail.test")
    for count in range(number):
        jobs = late.engine.outbox.messages(late.site, f"chk_{count}", Reason.TIMEOUT, answer)
        assert await late.engine.store.add(jobs, within=5.0)
    await late.deliver()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A closed store with three dead letters."""
    path = tmp_path / "gate.db"

    async def fill() -> None:
        async with place(SERVERS, Receiver(status(410))) as here:
            async with here.engine(settings(f"sqlite:{path}")) as late:
                await letters(late, 3)

    asyncio.run(fill())
    return path


def config(tmp_path: Path, store: str, **server: Any) -> str:
    """A settings file; `gate` is run with it."""
    path = tmp_path / "gate.toml"
    lines = [f'store.url = "{store}"', *(f"server.{k} = {v}" for k, v in server.items())]
    lines += ["[[site]]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in SITE.items() if key != "webhook"]
    lines += ["[[site.webhook]]", f'url = "{URL}"', f'secrets = ["{SECRET}"]']
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    done = main(["webhooks", *arguments])
    return done, capsys.readouterr().out


def test_letters_in_the_file_are_listed_and_replayed(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = ("--config", config(tmp_path, f"sqlite:{file}"))
    code, out = printed(capsys, "list", *conf)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 3)
    assert all("shop hook.test" in line and GONE in line for line in lines)
    assert {line.partition(" old, ")[2] for line in lines} == {
        f"1 attempts: {GONE} (410)",
        f"0 attempts: {GONE}",  # it had said so meanwhile
    }
    assert "late?site=1" not in out and "@" not in out
    first = lines[0].split()[0]
    assert printed(capsys, "replay", *conf, first) == (0, "1 to be delivered\n")
    assert printed(capsys, "replay", *conf, "msg_unknown") == (1, "0 to be delivered\n")
    assert printed(capsys, "replay", *conf) == (0, "2 to be delivered\n")
    assert printed(capsys, "list", *conf) == (0, "no dead letters\n")

    async def delivered() -> int:
        hook = Receiver()
        async with place(SERVERS, hook) as here:
            here.clock.advance(WEBHOOK_EXPIRES / 2)  # the command read the machine's own clock
            async with here.engine(settings(f"sqlite:{file}")) as late:
                await late.deliver()
        return len({request.id for request in hook.received})

    assert asyncio.run(delivered()) == 3, "the endpoint is believed to be back"


def test_a_running_gate_is_asked(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    conf = ("--config", config(tmp_path, f"sqlite:{file}", admin_port=port))
    running = settings(f"sqlite:{file}", server={"secret": MASTER, "port": 0, "admin_port": port})
    with serving(running):
        code, out = printed(capsys, "list", *conf)
        assert (code, len(out.splitlines())) == (0, 3)
        assert printed(capsys, "replay", *conf) == (0, "3 to be delivered\n")
    # The name of the endpoint could not be looked up there; they wait.
    assert printed(capsys, "list", *conf) == (0, "no dead letters\n")


def test_the_trouble_with_the_file_is_told_where_no_gate_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "nowhere" / "gate.db"
    conf = ("--config", config(tmp_path, f"sqlite:{missing}", admin_port=9))
    assert main(["webhooks", "list", *conf]) == 2
    assert "its directory does not exist" in capsys.readouterr().err


REFUSED = {
    "a page, by rebinding": ("GET", "/webhooks", {"host": "evil.test"}, b"", 421),
    "a form of a page": (
        "POST",
        "/webhooks/replay",
        {"content-type": "application/x-www-form-urlencoded"},
        b"ids=",
        415,
    ),
    "a plain text of a page": (
        "POST",
        "/webhooks/replay",
        {"content-type": "text/plain"},
        b"{}",
        415,
    ),
    "no JSON": ("POST", "/webhooks/replay", {"content-type": "application/json"}, b"{", 400),
    "another key": (
        "POST",
        "/webhooks/replay",
        {"content-type": "application/json"},
        b'{"id":1}',
        400,
    ),
    "another method": ("GET", "/webhooks/replay", {}, b"", 405),
}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "code"), REFUSED.values(), ids=REFUSED
)
def test_what_the_admin_listener_refuses(
    method: str, path: str, headers: dict[str, str], body: bytes, code: int
) -> None:
    async def scene() -> None:
        async with place(SERVERS, Receiver(status(410))) as here:
            async with here.engine(settings()) as late:
                await letters(late, 1)
                transport = httpx.ASGITransport(app=ops.admin(Letters(late.engine.outbox).routes))
                base = "http://127.0.0.1:8081"
                async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                    refused = await client.request(method, path, headers=headers, content=body)
                    assert refused.status_code == code
                    listed = (await client.get("/webhooks")).json()["letters"]
                assert len(listed) == 1

    asyncio.run(scene())
