"""A real Parse Server on a real PostgreSQL, with its `_User` trigger pointed at the gate.

It settles what its sources only suggest: `{}` leaves the user as it was sent, password included.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from gate.settings.read import parse
from tests.hooks.packages import installed, lacking
from tests.ports import free_port
from tests.test_server import serving

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.timeout(300),  # the first run installs
    pytest.mark.may_leak,  # Parse Server keeps its connection to the gate between the tests
]

PACKAGES_OF = "parse"
KEY = "hunter's key"
HEADERS = {"X-Parse-Application-Id": "app"}


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A database of its own; PostgreSQL refuses to be root."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not homes:
        lacking("PostgreSQL")
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    data, port = str(folder / "data"), free_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run(f"{homes[-1]}/initdb", "-D", data, "-A", "trust", "-U", "parse", "--no-sync")
    control = f"{homes[-1]}/pg_ctl"
    run(control, "-D", data, "-o", f"{options} -c fsync=off", "-l", f"{folder}/log", "-w", "start")
    try:
        yield f"postgres://parse@127.0.0.1:{port}/postgres"
    finally:
        run(control, "-D", data, "-m", "immediate", "-w", "stop")


@contextmanager
def parse_server(database: str) -> Iterator[str]:
    """A running Parse Server's URL."""
    home, node = installed(PACKAGES_OF)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE": database,
        "PORT": str(port),
        "WEBHOOK_KEY": KEY,
    }
    with subprocess.Popen(
        [node, "server.mjs"],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout
            lines = iter(process.stdout)
            assert any(line.strip() == "ready" for line in lines), "Parse Server did not start"
            yield f"http://127.0.0.1:{port}/parse"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A Parse Server that asks the gate about its users."""
    settings = parse(
        {
            "server": {"port": 0, "admin_port": 0},
            "store": {"url": "memory:"},
            "sandbox": {"enabled": True},
            "hook": [{"platform": "parse", "secrets": [KEY]}],
        }
    )
    with ExitStack() as stack:
        # Not pytest's own folder: another run beside this one would shut PostgreSQL out of it.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="gate-postgres-")))
        database = stack.enter_context(postgres(folder))
        url = stack.enter_context(parse_server(database))
        gate = stack.enter_context(serving(settings))
        trigger = {
            "className": "_User",
            "triggerName": "beforeSave",
            "url": f"http://127.0.0.1:{gate.port}/v1/hooks/parse",
        }
        master = {**HEADERS, "X-Parse-Master-Key": "master"}
        httpx.post(f"{url}/hooks/triggers", json=trigger, headers=master).raise_for_status()
        yield url


def sign_up(url: str, name: str, email: str | None, **headers: str) -> dict[str, Any]:
    user = {"username": name, "password": "correct horse"} | ({"email": email} if email else {})
    response = httpx.post(f"{url}/users", json=user, headers={**HEADERS, **headers})
    answer: dict[str, Any] = response.json()
    return answer


def test_a_good_address_signs_up_and_the_user_is_whole(url: str) -> None:
    assert "objectId" in sign_up(url, "jane", "jane@inbox.test")
    named = {"username": "jane", "password": "correct horse"}
    found = httpx.get(f"{url}/login", params=named, headers=HEADERS).json()
    assert found["email"] == "jane@inbox.test"


@pytest.mark.parametrize(
    ("email", "language", "text"),
    [
        ("nobody@inbox.test", "en", "This mailbox does not exist."),
        ("nobody@inbox.test", "de-AT,de;q=0.9", "Dieses Postfach gibt es nicht."),
        ("joe@nxdomain.test", "ja", "このメールアドレスのドメインは"),
    ],
)
def test_a_bad_one_is_turned_away_with_our_text(
    url: str, email: str, language: str, text: str
) -> None:
    answer = sign_up(url, "bob", email, **{"Accept-Language": language})
    assert answer["code"] == 141
    assert answer["error"].startswith(text)


def test_one_that_nobody_knows_about_signs_up(url: str) -> None:
    assert "objectId" in sign_up(url, "kim", "jane@blocked.test")


def test_without_an_address_one_signs_up_and_a_bad_one_cannot_be_set_later(url: str) -> None:
    user = sign_up(url, "anon", None)
    session = {**HEADERS, "X-Parse-Session-Token": user["sessionToken"]}
    place = f"{url}/users/{user['objectId']}"
    refused = httpx.put(place, json={"email": "nobody@inbox.test"}, headers=session).json()
    assert refused["code"] == 141
    kept = httpx.put(place, json={"email": "john@inbox.test"}, headers=session).json()
    assert "updatedAt" in kept
    other = httpx.put(place, json={"nickname": "a"}, headers=session).json()
    assert "updatedAt" in other
