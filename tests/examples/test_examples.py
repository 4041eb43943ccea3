"""Every file of examples/, run with what it is written for against a running gate, and without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badgate import HANG_UP, SILENT, bad_gate, http
from tests.examples.ground import (
    EXAMPLES,
    PACKAGES,
    RUNNERS,
    Running,
    demo,
    environment,
    need,
)
from tests.ports import closed_url

REFUSED = "block: This address cannot be used. Is it spelled right?"
LONG = f"{'x' * 300}@inbox.test"

COMMANDS: dict[str, list[str]] = {
    "signup.py": [sys.executable, "signup.py"],
    "signup.php": ["php", "signup.php"],
    "signup.mjs": ["node", "signup.mjs"],
    "signup.go": ["./signup"],
    "signup.rb": ["ruby", "-w", "signup.rb"],
    "Signup.cs": ["mono", "Signup.exe"],
    "django_form.py": [sys.executable, f"{RUNNERS}/django_form.py", "FOLDER"],
    "rails_validator.rb": ["ruby", f"{RUNNERS}/rails_validator.rb", "FOLDER"],
    "express_form.mjs": ["node", f"{RUNNERS}/express_form.mjs", "FOLDER"],
    "auth0_action.js": ["node", f"{RUNNERS}/auth0_action.mjs", "FOLDER"],
    "cognito_trigger.mjs": ["node", f"{RUNNERS}/cognito_trigger.mjs", "FOLDER"],
    "firebase_function.js": ["node", f"{RUNNERS}/firebase_function.mjs", "FOLDER"],
}
BUILD = {
    "signup.go": ["go", "build", "-o", "signup", "signup.go"],
    "Signup.cs": [
        "mcs",
        "-warnaserror",
        "-r:System.Net.Http.dll",
        "-r:System.Runtime.Serialization.dll",
        "Signup.cs",
    ],
}
WEATHER = {
    "a fault": http(500, b'{"decision":"block"}'),
    "wrong key": http(401, b'{"decision":"block"}'),
    "over a limit": http(429, b'{"decision":"block"}'),
    "a page": http(200, b"<html>", "text/html"),
    "nothing": http(200, b""),
    "null": http(200, b"null"),
    "a list": http(200, b"[1]"),
    "no decision": http(200, b"{}"),
    "an unheard-of decision": http(200, b'{"decision":"ponder","because":"moon"}'),
    "half an answer": b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"decision":',
    "no HTTP": b"220 mx.example.test\r\n",
    "it hangs up": HANG_UP,
}
SUGGESTION = http(
    200,
    json.dumps(
        {"decision": "block", "because": "invalid_domain", "did_you_mean": "jane@inbox.test"}
    ).encode(),
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def gate() -> Iterator[Running]:
    with demo() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, and what they are built to, beside the npm packages."""
    need("php", "node", "go", "ruby", "mono", "mcs")
    made = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, made, dirs_exist_ok=True)
    (made / "node_modules").symlink_to(PACKAGES / "node_modules")
    building = [subprocess.Popen(line, cwd=made, env=environment()) for line in BUILD.values()]
    assert [process.wait(100) for process in building] == [0] * len(BUILD)
    return made


def command(name: str, folder: Path) -> list[str]:
    return [str(folder) if word == "FOLDER" else word for word in COMMANDS[name]]


def asked(name: str, folder: Path, gate: Running, *emails: str) -> list[str]:
    """What an example answers to these addresses."""
    done = subprocess.run(
        command(name, folder),
        cwd=folder,
        env=environment(GATE_URL=gate.url, GATE_SECRET=gate.secret),
        input="".join(f"{email}\n" for email in emails),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What goes into a log names nobody.
    assert not any(email.partition("@")[0] in done.stderr for email in emails), done.stderr
    return done.stdout.splitlines()


def test_there_is_no_example_that_is_not_run() -> None:
    there = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert there == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_lets_in_and_refuses(name: str, folder: Path, gate: Running) -> None:
    emails = ("jane@inbox.test", "nobody@inbox.test", "jane@servfail.test", LONG, "jane@no-mx.test")
    told = asked(name, folder, gate, *emails)
    assert [line.partition(":")[0] for line in told] == [
        "allow",
        "block",
        "allow",
        "block",
        "block",
    ]
    assert told[1] == REFUSED


@pytest.mark.parametrize("name", COMMANDS)
def test_it_lets_in_when_the_answer_is_none(name: str, folder: Path) -> None:
    with bad_gate(*WEATHER.values()) as bad:
        emails = [f"nobody{number}@inbox.test" for number in range(len(WEATHER))]
        told = asked(name, folder, Running(bad.url, "sk_x"), *emails)
    assert dict(zip(WEATHER, told, strict=True)) == dict.fromkeys(WEATHER, "allow")
    heads = [request.partition(b"\r\n\r\n")[0] for request in bad.requests]
    assert all(b"Bearer sk_x" in head and b"nobody" not in head for head in heads)
    assert all(head.startswith(b"POST /v1/check ") for head in heads)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"django_form.py"}))
def test_it_passes_a_suggestion_on(name: str, folder: Path) -> None:
    with bad_gate(SUGGESTION) as bad:
        told = asked(name, folder, Running(bad.url, "sk_x"), "jane@imbox.test")
    assert told == ["block: This address cannot be used. Did you mean jane@inbox.test?"]


@pytest.mark.parametrize("weather", ["down", "silent"])
def test_every_example_lets_in_without_a_gate(weather: str, folder: Path) -> None:
    """All at once: each of them waits out its own timeout."""
    with bad_gate(SILENT) as bad:
        url = bad.url if weather == "silent" else closed_url()
        before = time.monotonic()
        (folder / "emails").write_text("nobody@inbox.test\n")
        running = {}
        for name in COMMANDS:
            with (folder / "emails").open() as emails:
                running[name] = subprocess.Popen(
                    command(name, folder),
                    cwd=folder,
                    env=environment(GATE_URL=url, GATE_SECRET="sk_x"),
                    stdin=emails,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
        told = {name: process.communicate(timeout=60)[0] for name, process in running.items()}
        took = time.monotonic() - before
    assert told == dict.fromkeys(COMMANDS, "allow\n")
    assert took < 15
