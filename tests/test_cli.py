"""The command line, as a program and through `main`, over the real engine and the sandbox."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gate import __version__
from gate.cli import main
from gate.cli.printing import printable
from gate.settings.read import parse

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-c", "import sys; from gate.cli import main; sys.exit(main())"]


@pytest.fixture(autouse=True)
def sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every command runs in an empty folder, with the sandbox on."""
    for name in [name for name in os.environ if name.startswith("GATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GATE_SANDBOX__ENABLED", "true")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)


def program(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=15,
        check=False,
    )


def test_version_and_help_import_nothing_heavy() -> None:
    assert program("--version").stdout.decode() == f"gate {__version__}\n"
    script = "import sys, gate.cli; gate.cli._parser(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    ).stdout.split()
    assert not {"asyncio", "dns", "msgspec", "starlette", "httpx", "ssl"} & set(loaded)


STATUS = [
    ("deliverable", ["jane@inbox.test"], 0),
    ("risky", ["full@inbox.test"], 0),
    ("unknown", ["maybe@inbox.test"], 0),
    ("undeliverable", ["nobody@inbox.test"], 1),
    ("no address", ["what is this"], 1),
    ("one of several", ["jane@inbox.test", "nobody@inbox.test", "full@inbox.test"], 1),
]


@pytest.mark.parametrize(("name", "addresses", "status"), STATUS, ids=[s[0] for s in STATUS])
def test_the_status_says_whether_an_address_is_undeliverable(
    name: str, addresses: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *addresses]) == status
    assert len(capsys.readouterr().out.splitlines()) == len(addresses)


LINES = [
    ("deliverable", "jane@inbox.test", r"deliverable +jane@inbox\.test +accepted_email: the mailb"),
    ("suggestion", "jane@gmial.com", r"probe_off: .*; did you mean jane@gmail\.com\? \("),
    ("flag", "info@inbox.test", r"; role \([0-9]+ ms\)$"),
    ("fault", "jane@@inbox.test", r"invalid_email: the part .+ \(at character [0-9]+\) \("),
    ("control characters", "a\x1b[2Jb@inbox.test", r"a\\x1b\[2Jb@inbox\.test"),
]


@pytest.mark.parametrize(("name", "address", "pattern"), LINES, ids=[line[0] for line in LINES])
def test_a_line_for_people(
    name: str, address: str, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", address])
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(pattern, line), line
    assert "\x1b" not in line


def test_json_is_the_answer_of_the_api(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["check", "--json", "nobody@inbox.test"]) == 1
    answer = json.loads(capfdbinary.readouterr().out)
    assert answer["email"] == "nobody@inbox.test"
    assert (answer["result"], answer["reason"]) == ("undeliverable", "rejected_email")
    assert (answer["decision"], answer["smtp"]["code"]) == ("block", 550)
    assert answer["token"] is None
    assert "trace" not in answer


def test_explain_shows_the_dialogue_without_the_mailbox(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    main(["check", "--explain", "nobody@inbox.test"])
    text = capfdbinary.readouterr().out.decode()
    assert "C: EHLO " in text
    assert "RCPT TO:<***@inbox.test>" in text
    assert "nobody@" not in text.partition("\n")[2]
    main(["check", "--explain", "--json", "nobody@inbox.test"])
    answer = json.loads(capfdbinary.readouterr().out)
    assert [step["step"] for step in answer["trace"]][0] == "syntax"
    assert any(line.startswith("C: RCPT") for line in answer["transcript"])


def test_answers_come_in_the_order_of_the_input() -> None:
    addresses = [f"slow-{300 - 20 * n}@inbox.test" for n in range(4)] + ["jane@nxdomain.test"]
    result = program("check", "--json", "-", stdin="\n".join(addresses).encode())
    assert [json.loads(line)["email"] for line in result.stdout.splitlines()] == addresses


def test_standard_input_with_blank_lines_crlf_bom_and_foreign_bytes() -> None:
    text = b"\xef\xbb\xbfjane@inbox.test\r\n\r\n   \n caf\xe9@inbox.test \n" + b"x" * 70_000
    result = program("check", "--json", "-", stdin=text)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["reason"] for answer in answers] == [
        "accepted_email",
        "invalid_email",
        "invalid_email",
    ]
    assert answers[1]["email"] == "caf\\xe9@inbox.test"
    assert result.returncode == 1


def test_arguments_and_standard_input_together() -> None:
    result = program("check", "--json", "a@no-mx.test", "-", "c@no-mx.test", stdin=b"b@no-mx.test")
    found = [json.loads(line)["email"] for line in result.stdout.splitlines()]
    assert found == ["a@no-mx.test", "b@no-mx.test", "c@no-mx.test"]


def test_it_answers_while_standard_input_is_still_open() -> None:
    with subprocess.Popen(
        [*PROGRAM, "check", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write(b"jane@inbox.test\n")
        running.stdin.flush()
        assert running.stdout.readline().startswith(b"deliverable")
        running.stdin.close()
        assert running.wait(10) == 0


def test_ctrl_c_ends_it_quietly_while_it_waits_for_input() -> None:
    with subprocess.Popen(
        [*PROGRAM, "check", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Who runs the tests in the background has it ignored, and so would the program.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stdin and running.stdout and running.stderr
        running.stdin.write(b"jane@no-mx.test\n")
        running.stdin.flush()
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 130
        assert b"Traceback" not in running.stderr.read()


def test_a_pipe_that_closes_ends_it_quietly() -> None:
    with subprocess.Popen(
        [*PROGRAM, "check", "--json", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin and running.stdout and running.stderr
        running.stdout.close()
        running.stdin.write(b"jane@no-mx.test\n" * 20)
        running.stdin.close()
        assert running.wait(10) == 141
        said = running.stderr.read()
        assert b"Traceback" not in said and b"BrokenPipe" not in said


MISUSE = [
    ("unknown command", ["frobnicate"], "invalid choice"),
    ("no command", [], "required"),
    ("no address", ["check"], "required"),
    ("no such file", ["check", "--config", "missing.toml", "a@b.test"], "missing.toml"),
    ("no jobs", ["check", "--jobs", "0", "a@b.test"], "--jobs: 0 is out of range; write 1 to"),
    ("hurry", ["check", "--timeout-ms", "1", "a@b.test"], "--timeout-ms: 1 is out of range"),
    ("nameless site", ["keys", "new", "--name", " "], "--name"),
    ("no such stage", ["explain-reply", "--stage", "lunch", "250 ok"], "rcpt"),
    ("no reply", ["explain-reply", "hello"], "write a reply, as in 550"),
    ("no such provider", ["explain-reply", "--provider", "x", "250 ok"], "--provider: x is none"),
    ("port of a demo", ["demo", "--port", "99999"], "server.port"),
]


@pytest.mark.parametrize(("name", "arguments", "said"), MISUSE, ids=[m[0] for m in MISUSE])
def test_misuse_ends_with_2_and_says_what_to_do(name: str, arguments: list[str], said: str) -> None:
    result = program(*arguments)
    assert result.returncode == 2
    assert said in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()
    assert result.stdout == b""


REPLIES = [
    (
        "raw",
        ["550 5.1.1 No such user here"],
        r"rejected_email +recipient +not_found +\S+ +550 5.1.1",
    ),
    ("two lines", ["550-5.1.1 The account\n550 5.1.1 does not exist"], r"^rejected_email "),
    ("stage", ["--stage", "mail", "550 5.1.1 No such user here"], r"^probe_blocked +us "),
    ("bare", ["550"], r"\(rejected_email, if a random recipient is answered otherwise\)$"),
    ("control characters", ["550 5.1.1 \x1b[2Jno such user"], r"\\x1b\[2J"),
]


@pytest.mark.parametrize(("name", "arguments", "pattern"), REPLIES, ids=[r[0] for r in REPLIES])
def test_a_reply_is_explained_in_one_line(
    name: str, arguments: list[str], pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain-reply", *arguments]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(pattern, line), line


def test_replies_as_json_are_explained_as_json() -> None:
    rows = [
        {"stage": "rcpt", "code": 550, "enhanced": "5.1.1", "text": "User unknown"},
        {"stage": "rcpt", "code": 250, "text": "ok", "provider": None},
        {"stage": "lunch", "code": 250, "text": "ok"},
    ]
    result = program("explain-reply", stdin="\n".join(map(json.dumps, rows)).encode())
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer.get("three_way") for answer in answers] == ["not_found", "exists", None]
    assert answers[0]["reason"] == "rejected_email"
    assert answers[0]["result"] == "undeliverable"
    assert answers[0]["rule"]
    assert "lunch" in answers[2]["error"]
    assert result.returncode == 2
    raw = program("explain-reply", "--json", stdin=b"S: 452 4.2.2 mailbox full\n")
    assert json.loads(raw.stdout)["reason"] == "mailbox_full"


def test_a_closed_standard_input_is_misuse() -> None:
    command = f'exec {PROGRAM[0]} -c "{PROGRAM[2]}" check - <&-'
    result = subprocess.run(["sh", "-c", command], capture_output=True, timeout=15, check=False)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"standard input is closed" in result.stderr


def test_colour_is_for_terminals(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    main(["check", "jane@inbox.test"])
    assert b"\x1b" not in capfdbinary.readouterr().out
    leader, follower = os.openpty()
    try:
        command = [*PROGRAM, "check", "jane@inbox.test"]
        environment = {**os.environ, "TERM": "xterm"}
        environment.pop("NO_COLOR", None)
        subprocess.run(command, stdout=follower, env=environment, timeout=15, check=True)
        assert os.read(leader, 4096).startswith(b"\x1b[32mdeliverable")
    finally:
        os.close(leader)
        os.close(follower)


def test_a_new_pair_fits_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--name", 'Jane\'s "shop"']) == 0
    text = capsys.readouterr().out
    settings = parse(tomllib.loads(text))
    (site,) = settings.site
    assert site.name == 'Jane\'s "shop"'
    (secret,) = re.findall(r"\bsk_[0-9a-f]{64}\b", text)
    assert hashlib.sha256(secret.encode()).hexdigest() == site.secret_hash
    assert text.count(site.site_key) == 2
    main(["keys", "new"])
    assert secret not in capsys.readouterr().out


def test_every_setting_is_listed_with_default_and_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["settings"]) == 0
    text = capsys.readouterr().out
    for name in ("server.port ", "egress.address[].helo ", "site[].policy.unknown "):
        assert f"\n{name}" in text
    rows = [line for line in text.splitlines() if not line.startswith(" ")]
    assert all(len(re.split(r" {2,}", row)) >= 3 for row in rows)
    assert max(map(len, text.splitlines())) <= 120


def test_providers_are_listed_with_what_the_operator_changed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = '[[provider]]\nname = "Microsoft 365"\nprobe = "never"\n[[provider]]\nname = "Ours"\n'
    (tmp_path / "own.toml").write_text(f'{rows}suffixes = ["mx.example"]\naccepts = "trust"\n')
    monkeypatch.setenv("GATE_PROBE__PROVIDERS", "own.toml")
    assert main(["providers"]) == 0
    lines = {line[:16].rstrip(): line[17:] for line in capsys.readouterr().out.splitlines()}
    assert lines["Google"] == "trust               4 at once, 60 a minute"
    assert lines["Microsoft 365"] == "trust               never asked  (yours: probe)"
    assert lines["Ours"].endswith("a minute  (yours: suffixes, accepts)")
    assert lines["Yahoo"] == "opaque              never asked"
    assert main(["providers", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == len(lines)
    assert next(row for row in found if row["name"] == "GMX")["control"] == "same-session"
    (tmp_path / "own.toml").write_text('[[provider]]\nname = "Google"\ncolour = 3\n')
    assert main(["providers"]) == 2
    assert "own.toml, row 'Google': colour: there is no such key" in capsys.readouterr().err


def test_printable_leaves_letters_and_escapes_the_rest() -> None:
    assert printable("žluťoučký@例え.テスト") == "žluťoučký@例え.テスト"
    assert printable("a\x1b\n\u202e\u2028") == "a\\x1b\\n\\u202e\\u2028"


@pytest.fixture
def demo() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `gate demo`, and what it said."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*PROGRAM, "demo", "--port", str(port)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        said = ""
        while "email=" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        yield running, said
        if running.poll() is None:
            running.kill()


def test_demo_says_how_to_try_it_and_it_works(demo: tuple[subprocess.Popen[str], str]) -> None:
    running, said = demo
    (url,) = re.findall(r"page +(http://\S+/)", said)
    (site_key,) = re.findall(r"site key +(pk_\w+)", said)
    with urllib.request.urlopen(url, timeout=5) as page:
        assert site_key in page.read().decode()
    (command,) = re.findall(r"curl .+", said)
    found = re.search(r"-H '(Authorization: Bearer sk_\w+)' -d (\S+)", command)
    assert found is not None
    name, _, value = found[1].partition(": ")
    request = urllib.request.Request(f"{url}v1/check", found[2].encode(), {name: value})
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert json.load(reply)["reason"] == "rejected_email"
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    assert running.wait(10) == 0
    assert time.monotonic() - began < 5
