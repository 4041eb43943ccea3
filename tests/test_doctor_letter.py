"""`gate doctor --send-test`: one message, by whatever a mail server may do to it."""

from __future__ import annotations

import asyncio
import email
import email.policy
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gate.cli import main
from gate.doctor.finding import Finding
from gate.doctor.letter import send_test
from gate.reason import GateError
from gate.testing import NXDOMAIN, HostRules, MailHost, ScriptedMta, SmtpListener, transcript
from tests.doctorworld import DOMAIN, HELO, ground

YOU = f"you@{DOMAIN}"
RULES = HostRules(name="mx.acme.shop", users=("you",))


class Mailbox:
    """A mail server that takes messages, and what it was told. `answer` is its word on each."""

    def __init__(self, answer: str = "250 2.0.0 queued as 77") -> None:
        self.answer = answer
        self.messages: list[bytes] = []
        self.peers: list[str] = []
        self.commands: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[str, int]]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()
        finally:
            server.close()
            await server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info("peername")[0])
        writer.write(b"220 mx.acme.shop ESMTP\r\n")
        while line := await reader.readline():
            verb = line.split()[0].upper().decode()
            self.commands.append(line.decode().strip())
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                self.messages.append(await reader.readuntil(b"\r\n.\r\n"))
                writer.write(f"{self.answer}\r\n".encode())
            else:
                writer.write(b"221 bye\r\n" if verb == "QUIT" else b"250 ok\r\n")
            if verb == "QUIT":
                break
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def sent(
    own: SmtpListener | None = None,
    box: Mailbox | None = None,
    *,
    zones: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    to: str = YOU,
    every_address: bool = False,
) -> Sequence[Finding]:
    async def run() -> Sequence[Finding]:
        async with (box or Mailbox()).open() as listener:
            more = {"8.8.4.10": listener} if box else {}
            async with ground(zones, tables, own=own, more=more) as (engine, _):
                report = await send_test(engine, to, every_address=every_address)
                return report.findings

    return asyncio.run(run())


def test_an_honest_letter_goes_out_once() -> None:
    box = Mailbox()
    (finding,) = sent(box=box)
    assert finding.state == "ok"
    assert finding.found == "mx.acme.shop took it, in clear: 250 2.0.0 queued as 77"
    assert [command.split()[0] for command in box.commands] == [
        "EHLO",
        "MAIL",
        "RCPT",
        "DATA",
        "QUIT",
    ]
    assert box.commands[0] == f"EHLO {HELO}"
    assert box.commands[1].startswith(f"MAIL FROM:<probe@{DOMAIN}>")
    assert box.commands[2] == f"RCPT TO:<{YOU}>"
    assert box.peers == ["127.0.0.5"]
    (message,) = box.messages
    letter = email.message_from_bytes(message.removesuffix(b".\r\n"), policy=email.policy.default)
    assert letter["From"] == f"probe@{DOMAIN}" and letter["To"] == YOU
    assert letter["Auto-Submitted"] == "auto-generated" and letter["Date"] and letter["Subject"]
    assert letter["Message-ID"].endswith(f"@{HELO}>")
    assert all(len(line) <= 78 for line in message.decode("ascii").splitlines())


def test_each_egress_address_sends_its_own() -> None:
    addresses = [{"ip": "127.0.0.5", "helo": HELO}, {"ip": "127.0.0.6", "helo": "two.acme.shop"}]
    tables = {"egress": {"address": addresses}}
    box = Mailbox()
    told = sent(box=box, tables=tables, every_address=True)
    assert [finding.about for finding in told] == ["127.0.0.5", "127.0.0.6"]
    assert box.peers == ["127.0.0.5", "127.0.0.6"]
    assert [c for c in box.commands if c.startswith("EHLO")] == [
        f"EHLO {HELO}",
        "EHLO two.acme.shop",
    ]
    box = Mailbox()
    assert len(sent(box=box, tables=tables)) == len(box.peers) == 1


def test_starttls_is_used_where_it_is_offered() -> None:
    """The kit's host takes no DATA, and so shows how far it went: to the end, encrypted."""
    host = MailHost(
        HostRules(name="mx.acme.shop", users=("you",), starttls="required"), strict=False
    )
    (finding,) = sent(host)
    assert "refused at DATA: 502" in finding.found
    verbs = [line.split()[0] for line in host.connections[0].lines]
    assert verbs[:5] == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT"]


def host_that(**answers: str) -> Callable[[], SmtpListener]:
    return lambda: MailHost(HostRules(name="mx.acme.shop", answers=answers), strict=False)


REFUSALS: list[tuple[str, Callable[[], SmtpListener], str, str]] = [
    (
        "at the greeting",
        host_that(greeting="554 5.7.1 your address is listed"),
        "refused at greeting: 554",
        "probe_blocked",
    ),
    (
        "at MAIL",
        host_that(mail="550 5.1.8 sender domain does not exist"),
        "refused at MAIL: 550",
        "probe_blocked",
    ),
    (
        "of us",
        host_that(rcpt="550 5.7.1 client host blocked using zen.spamhaus.org"),
        "refused at RCPT: 550",
        "probe_blocked",
    ),
    (
        "nobody there",
        host_that(rcpt="550 5.1.1 no such user here"),
        "refused at RCPT: 550",
        "rejected_email",
    ),
    (
        "later",
        host_that(rcpt="451 4.7.1 greylisted, try again later"),
        "refused at RCPT: 451",
        "greylisted",
    ),
    ("nobody listens", lambda: ScriptedMta(transcript("refused")), "no answer at connect", ""),
    ("a web server", lambda: ScriptedMta(transcript("http")), "no answer at greeting", ""),
]


@pytest.mark.parametrize(
    ("name", "make", "words", "reason"), REFUSALS, ids=[r[0] for r in REFUSALS]
)
def test_a_refusal_says_where_and_what_it_means(
    name: str, make: Callable[[], SmtpListener], words: str, reason: str
) -> None:
    (finding,) = sent(make())
    assert finding.state == "problem" and words in finding.found and finding.mend
    assert f"that means {reason}: " in finding.found or not reason


def test_a_refusal_of_the_text_is_told_from_one_of_the_mailbox() -> None:
    (finding,) = sent(box=Mailbox("554 5.7.1 message rejected as spam"))
    assert "refused at DATA: 554" in finding.found and "probe_blocked" in finding.found


def test_a_reply_that_repeats_the_address_does_not_spread_it() -> None:
    (finding,) = sent(box=Mailbox(f"250 2.0.0 delivered to {YOU}"))
    assert finding.found.endswith("delivered to <address>")


MISUSE = [
    ("no identity", {"tables": {"probe": {}, "egress": {}}}, "there is no identity to send with"),
    ("no address", {"to": "me"}, "write one plain address of yours"),
    ("not plain", {"to": "jürgen@acme.shop"}, "write one plain address of yours"),
    (
        "no mail host",
        {"to": "you@gone.shop", "zones": {"gone.shop": NXDOMAIN}},
        "has no mail host: invalid_domain",
    ),
]


@pytest.mark.parametrize(("name", "call", "words"), MISUSE, ids=[m[0] for m in MISUSE])
def test_it_refuses_to_send_without_a_name_or_an_address(
    name: str, call: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    host = MailHost(RULES)
    with pytest.raises(GateError, match=words):
        sent(host, **call)
    assert not host.connections


def test_nothing_of_it_is_loaded_for_anything_else() -> None:
    import subprocess
    import sys

    script = "import sys, gate.server, gate.cli.doctor; print('aiosmtplib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout == "False\n"


def test_the_command_says_why_it_cannot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATE_SANDBOX__ENABLED", "true")
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert main(["doctor", "--send-test", YOU]) == 2
    assert "set probe.helo and probe.mail_from" in capsys.readouterr().err
    logging.getLogger().handlers.clear()
