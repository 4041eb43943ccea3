"""`gate doctor` against Postfix: a message that lies in a mailbox, and refusals explained."""

from __future__ import annotations

import email
import email.policy
import json
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from gate.cli import main
from tests.lab.lab import Lab

ARRIVES: float = 20.0
"""Seconds from the queue to the mailbox; it takes tenths."""


def told(
    lab: Lab, folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> list[dict[str, str]]:
    config = folder / "gate.toml"
    config.write_text(lab.settings("command"), encoding="utf-8")
    config.chmod(0o600)
    status = main(["doctor", "--config", str(config), "--json", *options])
    document = json.loads(capsys.readouterr().out)
    assert status == (1 if document["state"] == "problem" else 0)
    findings: list[dict[str, str]] = document["findings"]
    return findings


@pytest.mark.parametrize(("domain", "how"), [("mailbox", "in clear"), ("tls", "encrypted")])
def test_the_message_lies_in_the_mailbox(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], domain: str, how: str
) -> None:
    mail = lab.ground.root / "srv/mail"
    mail.chmod(0o777)  # Postfix delivers as nobody
    box = mail / "alice@mailbox.test"  # where the table of every domain leads
    size = box.stat().st_size if box.exists() else 0
    (finding,) = told(lab, tmp_path, capsys, "--send-test", f"alice@{domain}.test")
    assert finding["state"] == "ok"
    assert f"took it, {how}: 250 2.0.0 Ok: queued as" in finding["found"]
    queue_id = finding["found"].rpartition(" ")[2]
    waited = time.monotonic() + ARRIVES
    while not (box.exists() and queue_id in box.read_text("utf-8")[size:]):
        assert time.monotonic() < waited, "the message does not arrive"
        time.sleep(0.05)
    _, _, text = box.read_text("utf-8")[size:].partition("\n")  # mbox's own first line
    letter = email.message_from_string(text, policy=email.policy.default)
    assert letter["Return-Path"] == "<probe@lab.test>"
    assert letter["From"] == "probe@lab.test" and letter["To"] == f"alice@{domain}.test"
    assert "from command.lab.test (" in str(letter["Received"])
    assert letter["Message-ID"].endswith("@command.lab.test>")
    assert abs(parsedate_to_datetime(letter["Date"]).timestamp() - time.time()) < 120
    assert "This is the test message of a signup gate" in letter.get_content()


REFUSALS = [
    ("nobody there", "nobody@mailbox.test", "refused at RCPT: 550 5.1.1", "rejected_email"),
    ("full", "full@quota.test", "refused at RCPT: 552 5.2.2", "mailbox_full"),
    ("relay", "alice@elsewhere-hard.test", "refused at RCPT: 554 5.7.1", "relay_denied"),
]


@pytest.mark.parametrize(
    ("name", "address", "said", "reason"), REFUSALS, ids=[r[0] for r in REFUSALS]
)
def test_a_refusal_is_explained(
    lab: Lab,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    address: str,
    said: str,
    reason: str,
) -> None:
    (finding,) = told(lab, tmp_path, capsys, "--send-test", address)
    assert finding["state"] == "problem"
    assert said in finding["found"] and f"that means {reason}: " in finding["found"]
    assert finding["mend"] and address.partition("@")[0] + "@" not in finding["found"]


def test_postfix_is_greeted_and_left(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finding,) = told(lab, tmp_path, capsys, "--only", "port-25", "--target", "mailbox.test")
    assert (finding["state"], finding["found"]) == ("ok", "open: greeted by mailbox.test")
