"""One connection: how it ends, and that it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from queue import SimpleQueue
from typing import Literal

import pytest
import uvloop

from gate.budget import QUIT_LINGER, Deadline
from gate.egress import Dialer, Source
from gate.smtp import session as module
from gate.smtp.dialog import Dialog, Stage
from gate.smtp.session import Ending, Session, tls_context
from gate.testing import HostRules, MailHost, ScriptedMta, Seam, transcript

MX = ip_address("8.8.8.8")
SOURCE = Source(None, "gate.test")
CONTEXT = tls_context()


@dataclass
class Run:
    """A session that is over: how, what it knows, how long `run` took."""

    ending: Ending
    session: Session
    seconds: float


async def talk(
    server: tuple[str, int],
    *,
    seconds: float = 5.0,
    server_name: str = "mx.test",
    until: Callable[[Run, set[Session]], None] = lambda run, alive: None,
) -> Run:
    """One dialogue with `server`. `until` looks at the moment the session has just ended."""
    dialog = Dialog(
        helo=SOURCE.helo,
        mail_from="probe@gate.test",
        recipient="jane@a.test",
        control="x4f7k2@a.test",
        tls="when-required",
        smtputf8=False,
    )
    alive: set[Session] = set()
    deadline = Deadline.after(seconds, time.monotonic)
    session = Session(dialog, helo=SOURCE.helo, deadline=deadline, context=CONTEXT, alive=alive)
    dialer = Dialer(sources=[SOURCE], seam=Seam({str(MX): server}))
    await dialer.dial(lambda: session, [MX], source=SOURCE, deadline=deadline)
    started = time.monotonic()
    ending = await session.run(server_name)
    run = Run(ending, session, time.monotonic() - started)
    until(run, alive)
    for _ in range(100):
        if alive:
            await asyncio.sleep(2 * QUIT_LINGER / 100)
    assert not alive, "the connection is gone soon after"
    return run


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def served(name: str) -> AbstractContextManager[tuple[str, int]]:
    """A server that plays a transcript; see `served_script`."""
    return served_script(transcript(name))


@contextmanager
def served_script(script: str) -> Iterator[tuple[str, int]]:
    """A scripted server on a loop of its own, whatever loop the session runs on."""
    ready: SimpleQueue[tuple[tuple[str, int], Callable[[], object]]] = SimpleQueue()

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with ScriptedMta(script) as server:
            ready.put((server.address, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(asyncio.run, serve())
        address, stop = ready.get(timeout=5.0)
        try:
            yield address
        finally:
            stop()
            serving.result()


def play(
    name: str,
    *,
    seconds: float = 5.0,
    loop: str = "asyncio",
    server_name: str = "mx.test",
    until: Callable[[Run, set[Session]], None] = lambda run, alive: None,
) -> Run:
    """One dialogue with a server that plays a transcript."""
    with served(name) as address, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(talk(address, seconds=seconds, server_name=server_name, until=until))


# (transcript, ending, stage awaited or at fault, code of the real recipient's answer)
ENDINGS: list[tuple[str, Ending, Stage, int | None]] = [
    ("accepted", Ending.FINISHED, Stage.RSET, 250),
    ("rejected", Ending.FINISHED, Stage.RSET, 550),
    ("no_pipelining", Ending.FINISHED, Stage.RSET, 250),
    ("ehlo_refused", Ending.FINISHED, Stage.RSET, 250),
    ("split", Ending.FINISHED, Stage.RSET, 250),
    ("corked", Ending.FINISHED, Stage.RSET, 250),
    ("tls_required", Ending.FINISHED, Stage.RSET, 250),
    ("tls_expired", Ending.FINISHED, Stage.RSET, 250),
    ("banner_554", Ending.FINISHED, Stage.GREETING, None),
    ("accept_close", Ending.LOST, Stage.GREETING, None),
    ("reset_after_one_byte", Ending.LOST, Stage.GREETING, None),
    ("ehlo_close", Ending.LOST, Stage.EHLO, None),
    ("rcpt_close", Ending.LOST, Stage.RCPT, None),
    ("rcpt_reset", Ending.LOST, Stage.RCPT, None),
    ("http", Ending.BROKEN, Stage.GREETING, None),
    ("tls_first", Ending.BROKEN, Stage.GREETING, None),
    ("banner_endless", Ending.BROKEN, Stage.GREETING, None),
    ("banner_no_line_end", Ending.BROKEN, Stage.GREETING, None),
    ("prestaged_replies", Ending.BROKEN, Stage.GREETING, None),
    ("rcpt_two_replies", Ending.BROKEN, Stage.RCPT, None),
    ("tls_injection", Ending.BROKEN, Stage.STARTTLS, None),
    ("own_banner", Ending.LOOP, Stage.EHLO, None),
    ("tls_noise", Ending.TLS_FAILED, Stage.TLS, None),
    ("tls_reset", Ending.TLS_FAILED, Stage.TLS, None),
    ("tls_old", Ending.TLS_FAILED, Stage.TLS, None),
    ("tls_huge_chain", Ending.TLS_FAILED, Stage.TLS, None),
    ("tls_close_after", Ending.LOST, Stage.EHLO, None),
]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("name", "ending", "stage", "code"), ENDINGS)
def test_how_a_session_ends(
    name: str, ending: Ending, stage: Stage, code: int | None, loop: str
) -> None:
    run = play(name, loop=loop)
    reply = run.session.dialog.reply_to(Stage.RCPT)
    assert run.ending is ending
    if ending is not Ending.BROKEN:  # where a breach shows depends on what came together
        assert run.session.dialog.stage is stage
    assert (reply.code if reply else None) == code
    assert run.seconds < 1.0


# (transcript, stage in which the time was up)
TARPITS: list[tuple[str, Stage]] = [
    ("silent", Stage.GREETING),
    ("slow_greeting", Stage.GREETING),
    ("ehlo_trickle", Stage.EHLO),
    ("mail_silence", Stage.MAIL),
    ("rcpt_silence", Stage.RCPT),
    ("deaf", Stage.EHLO),
    ("half_a_code", Stage.RCPT),
]


@pytest.mark.parametrize(("name", "stage"), TARPITS)
def test_the_deadline_ends_every_tarpit_and_drops_the_socket(name: str, stage: Stage) -> None:
    run = play(name, seconds=0.3)
    assert run.ending is Ending.TIMED_OUT
    assert run.session.dialog.stage is stage
    assert 0.25 <= run.seconds <= 0.6


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_that_hangs_is_told_from_one_that_fails(loop: str) -> None:
    run = play("tls_hang", seconds=0.3, loop=loop)
    assert run.ending is Ending.TLS_TIMED_OUT
    assert 0.25 <= run.seconds <= 0.6


@pytest.mark.parametrize("name", ["silent", "ehlo_trickle", "rcpt_silence"])
def test_each_stage_has_a_limit_inside_the_deadline(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GREETING", 0.2)
    monkeypatch.setattr(module, "COMMAND", 0.2)
    run = play(name, seconds=60.0)
    assert run.ending is Ending.TIMED_OUT
    assert 0.15 <= run.seconds <= 0.6


def test_a_greeting_may_take_longer_than_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING", 0.4)
    monkeypatch.setattr(module, "COMMAND", 0.1)
    run = play("silent", seconds=60.0)
    assert 0.35 <= run.seconds <= 0.8


def test_an_answer_stands_though_the_next_one_never_came() -> None:
    run = play("half_close")
    reply = run.session.dialog.reply_to(Stage.RCPT)
    assert reply is not None and reply.code == 250


@pytest.mark.parametrize("loop", LOOPS)
def test_nobody_waits_for_the_answer_to_quit(loop: str) -> None:
    def it_is_still_open(run: Run, alive: set[Session]) -> None:
        assert alive == {run.session}

    run = play("quit_ignored", loop=loop, until=it_is_still_open)
    assert run.ending is Ending.FINISHED
    assert run.seconds < QUIT_LINGER


def test_the_answer_to_quit_closes_the_connection_before_the_linger_is_over() -> None:
    async def scene() -> None:
        async with ScriptedMta(transcript("accepted")) as server:
            started = time.monotonic()
            await talk(server.address)
            assert time.monotonic() - started < QUIT_LINGER
            assert server.lines[-1] == "QUIT"

    asyncio.run(scene())


def test_a_flood_behind_the_answers_is_not_read() -> None:
    async def scene() -> None:
        async with ScriptedMta(transcript("keeps_sending"), strict=False) as server:
            run = await talk(server.address)
            assert run.ending in (Ending.FINISHED, Ending.BROKEN)
            await server.connections[0].lost.wait()
            assert server.connections[0].bytes_sent < 10_000_000

    asyncio.run(scene())


@pytest.mark.parametrize("name", ["silent", "rcpt_silence", "tls_hang"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancelled_session_drops_its_connection(name: str, loop: str) -> None:
    async def scene(address: tuple[str, int]) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await talk(address)

    with served(name) as address, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scene(address))


def test_a_host_name_that_tls_cannot_carry_is_a_failed_handshake() -> None:
    assert play("tls_required", server_name="mx..test").ending is Ending.TLS_FAILED


def test_the_address_we_are_seen_with_is_known() -> None:
    assert play("accepted").session.our_ip == "127.0.0.1"


# -- more than one question ------------------------------------------------------------------------


async def at_rest(server: tuple[str, int], alive: set[Session]) -> Session:
    """A session that has asked about jane, and waits for the next question."""
    deadline = Deadline.after(5.0, time.monotonic)
    dialog = Dialog(
        helo=SOURCE.helo,
        mail_from="probe@gate.test",
        recipient="jane@a.test",
        control=None,
        tls="when-required",
        smtputf8=False,
    )
    session = Session(
        dialog, helo=SOURCE.helo, deadline=deadline, context=CONTEXT, alive=alive, stay=True
    )
    dialer = Dialer(sources=[SOURCE], seam=Seam({str(MX): server}))
    await dialer.dial(lambda: session, [MX], source=SOURCE, deadline=deadline)
    assert await session.run("mx.test") is Ending.FINISHED
    return session


async def ask(session: Session, recipient: str, seconds: float = 5.0) -> Ending:
    deadline = Deadline.after(seconds, time.monotonic)
    session.ask(recipient, None, smtputf8=not recipient.isascii(), deadline=deadline)
    return await session.run("mx.test")


def on(loop: str, scene: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scene())


@pytest.mark.parametrize("starttls", ["none", "required"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_session_at_rest_is_asked_again_in_one_round_trip(
    loop: str, starttls: Literal["none", "required"]
) -> None:
    async def scene() -> None:
        alive: set[Session] = set()
        rules = HostRules(users=["jane", "joe"], smtputf8=False, starttls=starttls)
        async with MailHost(rules) as host:
            session = await at_rest(host.address, alive)
            trips = host.connections[0].round_trips
            for number, (to, code) in enumerate((("joe", 250), ("ann", 550), ("jané", None)), 1):
                assert session.resting and session.usable()
                assert await ask(session, f"{to}@a.test") is Ending.FINISHED
                reply = session.dialog.reply_to(Stage.RCPT)
                assert (reply.code if reply else None) == code
                assert host.connections[0].round_trips == trips + min(number, 2)
            session.leave()
            assert not session.resting
            await session.gone()
            assert host.connections[0].lines[-1] == "QUIT"
            assert not alive and host.accepted == 1

    on(loop, scene)


AT_REST = """
S: 220 mx.test ESMTP
C: EHLO *
S: 250-mx.test
S: 250 PIPELINING
C: MAIL FROM:<*>
S: 250 ok
C: RCPT TO:<*>
S: 250 2.1.5 ok
C: RSET
S: 250 ok
"""
SURPRISES = ["S: 421 4.4.2 idle for too long\n*eof", "S: 250 ok", "*raw 4", "*eof", "*reset"]


@pytest.mark.parametrize("surprise", SURPRISES)
@pytest.mark.parametrize("loop", LOOPS)
def test_whatever_happens_to_a_session_at_rest_closes_it(loop: str, surprise: str) -> None:
    async def scene() -> None:
        alive: set[Session] = set()
        async with ScriptedMta(f"{AT_REST}*pause 0.05\n{surprise}") as server:
            session = await at_rest(server.address, alive)
            assert session.usable()
            await asyncio.wait_for(session.gone(), 1.0)
            session.leave()  # nothing is said any more
            assert not session.usable()
            assert not alive

    on(loop, scene)


@pytest.mark.parametrize("surprise", SURPRISES)
@pytest.mark.parametrize("loop", LOOPS)
def test_what_the_loop_has_not_told_yet_is_seen_when_a_session_is_taken(
    loop: str, surprise: str
) -> None:
    async def scene(address: tuple[str, int]) -> None:
        alive: set[Session] = set()
        session = await at_rest(address, alive)
        end = time.monotonic() + 2.0
        while session.usable():  # no turn of the loop is given away
            assert time.monotonic() < end
        assert session.resting
        session.abort()
        await session.gone()

    with served_script(f"{AT_REST}*pause 0.05\n{surprise}") as address:
        on(loop, lambda: scene(address))


def test_a_second_question_has_a_time_limit_of_its_own() -> None:
    async def scene() -> None:
        alive: set[Session] = set()
        async with ScriptedMta(f"{AT_REST}C: MAIL FROM:<*>\n*hang") as server:
            session = await at_rest(server.address, alive)
            started = time.monotonic()
            assert await ask(session, "joe@a.test", 0.2) is Ending.TIMED_OUT
            assert 0.15 <= time.monotonic() - started <= 0.5
            assert session.dialog.reply_to(Stage.RCPT) is None
            await session.gone()

    asyncio.run(scene())


TOO_MUCH = r"250 ok\r\n"
# What the server does with the second question; how it ends; whether anything was heard.
SECOND: dict[str, tuple[str, Ending, bool]] = {
    "closes": ("*eof", Ending.LOST, False),
    "resets": ("*reset", Ending.LOST, False),
    "says 421": ("S: 421 4.3.2 shutting down\n*eof", Ending.FINISHED, False),
    "answers MAIL and closes": ("S: 250 ok\n*eof", Ending.LOST, True),
    "answers out of step": ("S: 220 hello", Ending.BROKEN, True),
    "says too much": (f"*raw {4 * TOO_MUCH}", Ending.BROKEN, True),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_connection_that_dies_under_a_question_is_told_from_one_that_answers(name: str) -> None:
    end, ending, heard = SECOND[name]

    async def scene() -> None:
        alive: set[Session] = set()
        script = f"{AT_REST}C: MAIL FROM:<*>\n{end}"
        async with ScriptedMta(script, strict=False) as server:
            session = await at_rest(server.address, alive)
            assert await ask(session, "joe@a.test") is ending
            if ending is not Ending.BROKEN:
                assert session.dialog.unheard is not heard
            assert not session.resting
            await session.gone()

    asyncio.run(scene())


def test_a_session_whose_user_is_cancelled_is_dropped() -> None:
    async def scene() -> None:
        alive: set[Session] = set()
        async with ScriptedMta(f"{AT_REST}C: MAIL FROM:<*>\n*hang") as server:
            session = await at_rest(server.address, alive)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ask(session, "joe@a.test")
            await asyncio.wait_for(session.gone(), 1.0)
            assert not alive

    asyncio.run(scene())
