"""The practice mail servers: what a transcript says is what crosses the wire."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from gate.reason import GateError
from gate.testing import (
    FakeClock,
    HostRules,
    MailHost,
    ScriptedMta,
    SmtpListener,
    transcript,
    transcripts,
)

GROUP = b"MAIL FROM:<probe@gate.test>\r\nRCPT TO:<jane@a.test>\r\nRSET\r\n"


class Client:
    """A client that does as it is told: no manners, no checks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def line(self) -> str:
        return (await self.reader.readline()).decode("utf-8", "replace").removesuffix("\r\n")

    async def ask(self, *commands: str) -> list[str]:
        """Send the commands in one write; the last line of each reply."""
        self.writer.write("".join(f"{c}\r\n" for c in commands).encode())
        return [await self.reply() for _ in commands]

    async def reply(self) -> str:
        while (line := await self.line())[3:4] == "-":
            pass
        return line

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def start_tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await self.writer.start_tls(context)


async def talk(
    server: SmtpListener, conversation: Callable[[Client], Awaitable[None]], times: int = 1
) -> None:
    for _ in range(times):
        reader, writer = await asyncio.open_connection(*server.address)
        try:
            await conversation(Client(reader, writer))
        finally:
            writer.close()
            try:
                async with asyncio.timeout(0.1):
                    await writer.wait_closed()
            except OSError:
                # Resets are what some of these servers are for; and asyncio never closes a stream
                # that was reset in the middle of a TLS handshake (the time-out is an OSError too).
                pass


def play(
    server: SmtpListener,
    conversation: Callable[[Client], Awaitable[None]],
    times: int = 1,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    async def main() -> None:
        async with server:
            await talk(server, conversation, times)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_every_transcript_parses_and_says_what_it_is() -> None:
    for name in transcripts():
        ScriptedMta(transcript(name))
        assert transcript(name).startswith("# "), name
    assert len(transcripts()) > 100


def test_a_clean_dialogue_is_logged_by_bursts() -> None:
    mta = ScriptedMta(transcript("accepted"))

    async def conversation(client: Client) -> None:
        assert await client.line() == "220 mx.test ESMTP"
        assert await client.ask("EHLO gate.test") == ["250 ENHANCEDSTATUSCODES"]
        group = ["MAIL FROM:<p@gate.test>", "RCPT TO:<jane@a.test>", "RSET"]
        group += ["MAIL FROM:<p@gate.test>", "RCPT TO:<x1@a.test>", "RSET"]
        answers = await client.ask(*group)
        assert [a[:3] for a in answers] == ["250", "250", "250", "250", "550", "250"]
        assert await client.ask("QUIT") == ["221 2.0.0 bye"]

    play(mta, conversation)
    (connection,) = mta.connections
    assert [len(burst) for burst in connection.bursts] == [1, 6, 1]
    assert connection.round_trips == 4
    assert mta.lines[0] == "EHLO gate.test"
    assert connection.received.endswith(b"RSET\r\nQUIT\r\n")
    moments = [piece.at for piece in connection.log]
    assert moments == sorted(moments)


BREACHES = [
    ("never DATA", b"EHLO a.test\r\nDATA\r\n", "must never say 'DATA'"),
    ("no lower-case DATA", b"EHLO a.test\r\ndata\r\n", "must never say 'data'"),
    ("bare LF", b"EHLO a.test\n", "bare LF"),
    ("long line", b"EHLO " + b"a" * 600 + b"\r\n", "605 octets"),
    ("out of script", b"RSET\r\n", "'RSET' where the script expects 'EHLO *'"),
    ("after the end", b"EHLO a.test\r\nNOOP\r\nNOOP\r\n", "after the script's end"),
    ("before its turn", b"NOOP\r\n", "before it was its turn"),
]


@pytest.mark.parametrize(("name", "said", "complaint"), BREACHES, ids=[b[0] for b in BREACHES])
def test_a_breach_by_the_client_fails_the_test(name: str, said: bytes, complaint: str) -> None:
    silence = "*silence 0.05\n" if name == "before its turn" else ""
    mta = ScriptedMta(f"S: 220 mx.test\n{silence}C: EHLO *\nS: 250 mx.test\nC: NOOP\nS: 250 ok")

    async def conversation(client: Client) -> None:
        client.writer.write(said)
        client.writer.write_eof()
        await client.rest()

    with pytest.raises(AssertionError) as raised:
        play(mta, conversation)
    assert complaint in str(raised.value)


def test_quit_and_leaving_are_always_allowed() -> None:
    async def quits(client: Client) -> None:
        assert await client.line() == "220 mx.test ESMTP"
        assert await client.ask("QUIT") == ["221 2.0.0 bye"]
        assert await client.rest() == b""

    async def leaves(client: Client) -> None:
        await client.line()

    play(ScriptedMta(transcript("accepted")), quits)
    play(ScriptedMta(transcript("accepted")), leaves)


def test_each_connection_has_its_script_and_the_last_serves_the_rest() -> None:
    mta = ScriptedMta("S: 421 first\n*eof\n*connection\nS: 220 later\n*eof")
    greetings: list[str] = []

    async def conversation(client: Client) -> None:
        greetings.append(await client.line())

    play(mta, conversation, times=3)
    assert greetings == ["421 first", "220 later", "220 later"]


DIRECTIVES = [
    ("raw", r"*raw 2\x35\x30 \\ \0\xff\r\n", b"250 \\ \0\xff\r\n"),
    ("flood", "*flood 3 250-x", b"250-x\r\n" * 3),
    ("stream", "*stream 70000 x", b"x" * 70_000),
    ("dribble", "*dribble 0.001 250 ok", b"250 ok\r\n"),
    ("split", "*split\nS: 250 ok", b"250 ok\r\n"),
    ("cork", "*cork\nS: 250 a\nS: 250 b\n*uncork", b"250 a\r\n250 b\r\n"),
    ("pause", "*pause 0.01\nS: 250 ok", b"250 ok\r\n"),
    ("half-close", "S: 250 ok\n*half-close\n*hang", b"250 ok\r\n"),
    ("non-ASCII", "S: 250 žluťoučký", "250 žluťoučký\r\n".encode()),
]


@pytest.mark.parametrize(("name", "script", "expected"), DIRECTIVES, ids=[d[0] for d in DIRECTIVES])
def test_what_the_client_receives(name: str, script: str, expected: bytes) -> None:
    tail = "" if name == "half-close" else "\n*eof"

    async def conversation(client: Client) -> None:
        assert await client.rest() == expected

    play(ScriptedMta(script + tail), conversation)


def test_split_sends_one_octet_a_segment_and_cork_one_write() -> None:
    for script, pieces in (("*split\nS: 250 ok", 8), ("*cork\nS: a\nS: b\n*uncork", 1)):
        mta = ScriptedMta(f"{script}\n*eof")

        async def conversation(client: Client) -> None:
            await client.rest()

        play(mta, conversation)
        assert len(mta.connections[0].log) == pieces


def test_several_replies_in_a_row_leave_at_once() -> None:
    """Nagle's algorithm would keep the second one back for 40 ms."""
    mta = ScriptedMta("S: 220 one\nS: 220 two\nS: 220 three\n*eof")
    took: list[float] = []

    async def conversation(client: Client) -> None:
        began = asyncio.get_running_loop().time()
        await client.rest()
        took.append(asyncio.get_running_loop().time() - began)

    play(mta, conversation, times=5)
    assert min(took) < 0.03


@pytest.mark.parametrize("script", ["*flood 1000000000 250 x", "*stream 1000000000000 x"])
def test_a_flood_ends_when_the_client_leaves(script: str) -> None:
    async def conversation(client: Client) -> None:
        await client.reader.readexactly(100_000)
        client.writer.transport.abort()

    mta = ScriptedMta(script)
    play(mta, conversation)
    assert mta.connections[0].lost.is_set()


def test_noise_is_the_same_in_every_run() -> None:
    heard: list[bytes] = []

    async def conversation(client: Client) -> None:
        heard.append(await client.rest())

    play(ScriptedMta("*noise 500\n*eof"), conversation, times=2)
    assert heard[0] == heard[1]
    assert len(set(heard[0])) > 100


def test_reset_arrives_as_a_reset_and_refuse_as_refused() -> None:
    async def is_reset(client: Client) -> None:
        with pytest.raises(ConnectionResetError):
            await client.reader.readexactly(10)

    async def never(client: Client) -> None:
        raise AssertionError("connected")

    for loop_factory in (None, uvloop.new_event_loop):
        mta = ScriptedMta(transcript("reset_after_one_byte"))
        play(mta, is_reset, loop_factory=loop_factory)
    with pytest.raises(ConnectionRefusedError):
        play(ScriptedMta(transcript("refused")), never)


def test_a_deaf_peer_lets_the_clients_window_fill() -> None:
    async def conversation(client: Client) -> None:
        await client.line()
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.writer.write(b"NOOP\r\n" * 1_000_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.writer.drain()
        client.writer.transport.abort()

    play(ScriptedMta(transcript("deaf"), strict=False), conversation)


def test_a_flood_nobody_reads_is_not_held_in_memory() -> None:
    mta = ScriptedMta(transcript("banner_no_line_end"))

    async def conversation(client: Client) -> None:
        await client.reader.readexactly(1000)

    play(mta, conversation)
    assert mta.connections[0].bytes_sent < 32 * 1024 * 1024
    assert sum(len(piece.data) for piece in mta.connections[0].log) < 64 * 1024


TLS = [("tls_required", None), ("tls_expired", None), ("tls_required", uvloop.new_event_loop)]


@pytest.mark.parametrize(("name", "loop_factory"), TLS, ids=["sound", "expired", "uvloop"])
def test_starttls_and_what_follows_is_logged_decrypted(
    name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    mta = ScriptedMta(transcript(name))

    async def conversation(client: Client) -> None:
        await client.line()
        await client.ask("EHLO gate.test")
        assert (await client.ask("MAIL FROM:<p@gate.test>"))[0].startswith("530")
        assert (await client.ask("STARTTLS"))[0].startswith("220")
        await client.start_tls()
        assert await client.ask("EHLO gate.test") == ["250 SMTPUTF8"]
        answers = await client.ask("MAIL FROM:<p@gate.test>", "RCPT TO:<jane@a.test>")
        assert answers[1] == "250 2.1.5 ok"

    play(mta, conversation, loop_factory=loop_factory)
    assert mta.lines[-1] == "RCPT TO:<jane@a.test>"
    assert mta.connections[0].tls


BROKEN_TLS = ["tls_old", "tls_huge_chain", "tls_reset", "tls_noise"]


@pytest.mark.parametrize("name", BROKEN_TLS)
def test_a_broken_handshake_fails_at_the_client(name: str) -> None:
    async def conversation(client: Client) -> None:
        await client.line()
        await client.ask("EHLO gate.test", "MAIL FROM:<p@gate.test>")
        await client.ask("STARTTLS")
        with pytest.raises(OSError):
            await client.start_tls()

    play(ScriptedMta(transcript(name)), conversation)


def test_plaintext_behind_starttls_is_a_complaint() -> None:
    async def conversation(client: Client) -> None:
        await client.line()
        await client.ask("EHLO gate.test", "MAIL FROM:<p@gate.test>")
        client.writer.write(b"STARTTLS\r\nRSET\r\n")
        await client.reply()

    with pytest.raises(AssertionError, match="plaintext behind STARTTLS"):
        play(ScriptedMta(transcript("tls_required")), conversation)


WRONG = [
    ("unknown directive", "*frobnicate", "line 1"),
    ("no prefix", "220 mx.test", "write S:, C: or one of"),
    ("no seconds", "S: 220 a\n*pause soon", "line 2: \\*pause needs seconds"),
    ("no count", "*flood many x", "needs a count"),
    ("too much", "*reset now", "takes nothing"),
]


@pytest.mark.parametrize(("name", "script", "message"), WRONG, ids=[w[0] for w in WRONG])
def test_a_wrong_transcript_is_refused_by_line(name: str, script: str, message: str) -> None:
    with pytest.raises(GateError, match=message):
        ScriptedMta(script)


def test_misuse_says_what_to_do() -> None:
    with pytest.raises(GateError, match="accept_all, "):
        transcript("no such thing")
    with pytest.raises(GateError, match="loopback"):
        ScriptedMta("*eof", host="0.0.0.0")
    with pytest.raises(GateError, match="async with"):
        _ = ScriptedMta("*eof").address
    with pytest.raises(AssertionError, match="no TLS variant"):
        play(ScriptedMta("*starttls sideways"), Client.rest)  # type: ignore[arg-type]


# -- MailHost --------------------------------------------------------------------------------------

RULES = HostRules(users=("jane", "full", "off"), full=("full",), disabled=("off",))
RECIPIENTS = [
    ("known", RULES, "jane@a.test", "250 2.1.5"),
    ("case and tag", RULES, "Jane+news@a.test", "250 2.1.5"),
    ("unknown", RULES, "nobody@a.test", "550 5.1.1"),
    ("over quota", RULES, "full@a.test", "552 5.2.2"),
    ("switched off", RULES, "off@a.test", "550 5.2.1"),
    ("accept-all", HostRules(accept_all=True), "x7g2@a.test", "250 2.1.5"),
    ("not served", HostRules(users=("jane",), domains=("b.test",)), "jane@a.test", "554 5.7.1"),
    ("served", HostRules(users=("jane",), domains=("a.test",)), "jane@A.test", "250 2.1.5"),
    ("own text", HostRules(mailboxes={"jane": "450 4.2.1 busy"}), "jane@a.test", "450 4.2.1"),
    ("blocked", HostRules(answers={"rcpt": "550 5.7.1 go away"}), "jane@a.test", "550 5.7.1"),
    ("slow", RULES, "slow-20@a.test", "250 2.1.5"),
    ("not slow at all", RULES, "slow-x@a.test", "550 5.1.1"),
]


@pytest.mark.parametrize(
    ("name", "rules", "address", "expected"), RECIPIENTS, ids=[r[0] for r in RECIPIENTS]
)
def test_answers_of_a_mail_host(name: str, rules: HostRules, address: str, expected: str) -> None:
    host = MailHost(rules)

    async def conversation(client: Client) -> None:
        await client.line()
        await client.ask("EHLO gate.test")
        answers = await client.ask("MAIL FROM:<p@gate.test>", f"RCPT TO:<{address}>", "RSET")
        assert answers[1].startswith(expected)
        assert await client.ask("QUIT") == ["221 2.0.0 mx.test closing"]

    play(host, conversation)


ORDER = [
    ("MAIL before EHLO", ["MAIL FROM:<a@b.test>"], "503"),
    ("RCPT before MAIL", ["EHLO a.test", "RCPT TO:<a@b.test>"], "503"),
    ("MAIL twice", ["EHLO a.test", "MAIL FROM:<a@b.test>", "MAIL FROM:<a@b.test>"], "503"),
    ("RCPT after RSET", ["HELO a.test", "MAIL FROM:<a@b.test>", "RSET", "RCPT TO:<x@y.z>"], "503"),
    ("STARTTLS not offered", ["EHLO a.test", "STARTTLS"], "502"),
    ("UTF-8 undeclared", ["EHLO a.test", "MAIL FROM:<a@b.test>", "RCPT TO:<é@b.test>"], "553"),
    ("NOOP", ["NOOP"], "250"),
]


@pytest.mark.parametrize(("name", "commands", "code"), ORDER, ids=[o[0] for o in ORDER])
def test_a_mail_host_keeps_the_order_of_commands(name: str, commands: list[str], code: str) -> None:
    async def conversation(client: Client) -> None:
        await client.line()
        assert (await client.ask(*commands))[-1][:3] == code

    play(MailHost(RULES), conversation)


def test_pipelined_commands_are_answered_in_one_write() -> None:
    host = MailHost(RULES)

    async def conversation(client: Client) -> None:
        await client.line()
        await client.ask("EHLO gate.test")
        client.writer.write(GROUP)
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "250"]

    play(host, conversation)
    (connection,) = host.connections
    assert [piece.sent for piece in connection.log] == [True, False, True, False, True]


def test_greylisting_clears_by_the_clock_and_by_triplet() -> None:
    clock = FakeClock()
    host = MailHost(HostRules(users=("jane",), greylist=300.0), clock=clock)
    answers: list[str] = []

    async def conversation(client: Client) -> None:
        await client.line()
        await client.ask("EHLO gate.test")
        for sender, wait in (("a", 0.0), ("a", 299.0), ("a", 1.0), ("b", 0.0)):
            clock.advance(wait)
            group = [f"MAIL FROM:<{sender}@gate.test>", "RCPT TO:<jane@a.test>", "RSET"]
            answers.append((await client.ask(*group))[1])
        answers.append((await client.ask("MAIL FROM:<a@b.test>", "RCPT TO:<nobody@a.test>"))[1])

    play(host, conversation)
    assert [answer[:3] for answer in answers] == ["451", "451", "250", "451", "550"]
    assert "300 seconds" in answers[0]
    assert "1 seconds" in answers[1]


def test_starttls_required_and_new_greeting_behind_it() -> None:
    host = MailHost(HostRules(users=("jane",), starttls="required"))

    async def conversation(client: Client) -> None:
        await client.line()
        await client.ask("EHLO gate.test")
        assert (await client.ask("MAIL FROM:<p@gate.test>"))[0].startswith("530")
        await client.ask("STARTTLS")
        await client.start_tls()
        assert (await client.ask("MAIL FROM:<p@gate.test>"))[0].startswith("503")
        await client.ask("EHLO gate.test")
        answers = await client.ask("MAIL FROM:<p@gate.test>", "RCPT TO:<jane@a.test>")
        assert answers[1].startswith("250")

    play(host, conversation)


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail"])
def test_a_refusal_at_an_earlier_stage(stage: str) -> None:
    host = MailHost(HostRules(answers={stage: "554 5.7.1 blocked"}))
    asks = {"greeting": [], "ehlo": ["EHLO a.test"], "mail": ["EHLO a.test", "MAIL FROM:<a@b.c>"]}

    async def conversation(client: Client) -> None:
        last = await client.line()
        for command in asks[stage]:
            (last,) = await client.ask(command)
        assert last == "554 5.7.1 blocked"

    play(host, conversation)


def test_a_distant_host_takes_its_time_once_a_burst() -> None:
    host = MailHost(HostRules(users=("jane",), round_trip=0.05))

    async def conversation(client: Client) -> None:
        await client.line()
        began = asyncio.get_running_loop().time()
        await client.ask("EHLO gate.test")
        client.writer.write(GROUP)
        for _ in range(3):
            await client.reply()
        took = asyncio.get_running_loop().time() - began
        assert 0.1 <= took < 0.2

    play(host, conversation)


def test_certificates_are_marked_as_public() -> None:
    folder = Path(__file__).parents[2] / "gate" / "testing" / "certificates"
    for path in folder.glob("*.pem"):
        assert "this key is public and protects nothing" in path.read_text("ascii")
