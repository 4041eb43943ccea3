"""SOCKS5 egress: by real servers of Debian's, and by ones that fail in every way."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from gate.budget import Deadline
from gate.egress import Dialer, IPAddress, NoConnect, ProxyFailed, Source, Unroutable
from gate.proxy import parse
from gate.smtp.finding import Question
from gate.testing import HostRules, MailHost, Seam
from tests.socksworld import (
    FORBIDDEN,
    PASSWORD,
    SEEN_FROM,
    USER,
    Script,
    dante,
    microsocks,
    playing,
)

GOOD, OTHER = ip_address("8.8.8.8"), ip_address("8.8.4.4")
GOOD6 = ip_address("2606:4700:4700::1111")
LOGIN = f"{USER}:{PASSWORD}@"


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with microsocks() as where:
        yield where


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dante(tmp_path_factory.mktemp("dante")) as where:
        yield where


def source(where: str, ip: str | None = None) -> Source:
    """A source address by way of `[user:password@]ip:port`."""
    seen = ip_address(ip) if ip else None
    return Source(seen, "out.example.com", None, parse(f"socks5://{where}"))


async def dial(
    dialer: Dialer, *addresses: IPAddress, seconds: float = 2.0
) -> tuple[IPAddress, bytes]:
    """Dial, read what the host sends first, and hang up."""
    sock, ip = await dialer.reach(
        addresses,
        source=dialer.sources[0],
        deadline=Deadline.after(seconds, time.monotonic),
    )
    with sock:
        return ip, await asyncio.get_running_loop().sock_recv(sock, 100)


def failure(dialer: Dialer, *addresses: IPAddress, seconds: float = 2.0) -> NoConnect:
    """How dialling fails; a password is in no text of it."""
    with pytest.raises(NoConnect) as caught:
        asyncio.run(dial(dialer, *addresses, seconds=seconds))
    assert PASSWORD not in f"{caught.value!r} {caught.value.__cause__!r}"
    return caught.value


@contextmanager
def closed() -> Iterator[tuple[str, int]]:
    """A port that refuses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
Loop = Callable[[], asyncio.AbstractEventLoop]


# Real servers.


@LOOPS
def test_a_host_is_reached_from_the_proxys_address(locked: str, loop: Loop) -> None:
    async def scene() -> None:
        async with MailHost(HostRules()) as host:
            seam = Seam({str(GOOD): host.address})
            dialer = Dialer(sources=[source(LOGIN + locked)], seam=seam)
            ip, greeting = await dial(dialer, GOOD)
            assert ip == GOOD
            assert greeting.startswith(b"220 ")
            assert host.connections[0].peer[0] == SEEN_FROM

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())


def test_one_without_a_password_is_asked_as_nobody(ruled: str) -> None:
    async def scene() -> None:
        async with MailHost(HostRules()) as host:
            dialer = Dialer(sources=[source(ruled)], seam=Seam({str(GOOD): host.address}))
            assert (await dial(dialer, GOOD))[1].startswith(b"220 ")

    asyncio.run(scene())


def test_an_address_that_refuses_the_proxy_is_followed_by_the_next(locked: str) -> None:
    async def scene() -> None:
        async with MailHost(HostRules()) as host:
            with closed() as nobody:
                seam = Seam({str(GOOD): nobody, str(OTHER): host.address})
                dialer = Dialer(sources=[source(LOGIN + locked)], seam=seam)
                assert (await dial(dialer, GOOD, OTHER))[0] == OTHER

    asyncio.run(scene())


def test_a_host_that_is_down_is_told_from_a_proxy_that_fails(locked: str, ruled: str) -> None:
    with closed() as nobody:
        for where in (LOGIN + locked, ruled):
            dialer = Dialer(sources=[source(where)], seam=Seam({str(GOOD): nobody}))
            said = failure(dialer, GOOD)
            assert str(said) == "connection refused, says the proxy"
            assert not isinstance(said, ProxyFailed)


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (f"{USER}:wrong-word@", "username and password authentication failure"),
        (f"nobody:{PASSWORD}@", "username and password authentication failure"),
        ("", "no acceptable authentication methods were offered"),
    ],
    ids=["wrong password", "wrong user", "none"],
)
def test_a_proxy_that_does_not_know_us_is_at_fault(locked: str, login: str, said: str) -> None:
    dialer = Dialer(sources=[source(login + locked)], seam=Seam({str(GOOD): ("127.0.0.1", 9)}))
    error = failure(dialer, GOOD)
    assert isinstance(error, ProxyFailed)
    assert str(error) == f"the proxy: {said}"


def test_a_target_that_the_proxys_rules_forbid_is_the_proxys_fault(ruled: str) -> None:
    dialer = Dialer(sources=[source(ruled)], seam=Seam({str(GOOD): (FORBIDDEN, 25)}))
    error = failure(dialer, GOOD)
    assert isinstance(error, ProxyFailed)
    assert str(error) == "the proxy: connection not allowed by ruleset"


# What the proxy is told.


async def hear_and_grant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Grants anything, and greets as a mail host would."""
    await reader.read(1000)
    writer.write(b"\x05\x00")
    await reader.read(1000)
    writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"220 mx.example.net\r\n")
    await reader.read()


@pytest.mark.parametrize(
    ("ip", "told"),
    [
        (GOOD, b"\x05\x01\x00\x01" + GOOD.packed + b"\x00\x19"),
        (GOOD6, b"\x05\x01\x00\x04" + GOOD6.packed + b"\x00\x19"),
    ],
    ids=str,
)
def test_the_proxy_is_told_the_very_address_that_was_vetted_and_port_25(
    ip: IPAddress, told: bytes
) -> None:
    async def scene() -> None:
        async with playing(hear_and_grant) as (where, ears):
            dialer = Dialer(sources=[source(where)])
            assert await dial(dialer, ip) == (ip, b"220 mx.example.net\r\n")
        assert [ear.heard for ear in ears] == [b"\x05\x01\x00" + told]

    asyncio.run(scene())


@pytest.mark.parametrize("text", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1"])
def test_a_denied_address_is_never_told_to_the_proxy_however_private_that_is(text: str) -> None:
    async def scene() -> None:
        async with playing(hear_and_grant) as (where, ears):
            with pytest.raises(Unroutable):
                await dial(Dialer(sources=[source(where)]), ip_address(text))
            assert ears == []

    asyncio.run(scene())


@pytest.mark.parametrize(("seen", "other"), [("192.0.2.1", GOOD6), ("2001:db8::1", GOOD)])
def test_an_address_of_one_family_asks_its_proxy_for_that_family_only(
    seen: str, other: IPAddress
) -> None:
    async def scene() -> None:
        async with playing(hear_and_grant) as (where, ears):
            with pytest.raises(NoConnect, match="family"):
                await dial(Dialer(sources=[source(where, seen)]), other)
            assert ears == []

    asyncio.run(scene())


def test_the_sandbox_is_reached_without_the_proxy() -> None:
    async def scene() -> None:
        persona = ip_address("192.0.2.25")
        async with MailHost(HostRules()) as host, playing(hear_and_grant) as (where, ears):
            seam = Seam({str(persona): host.address})
            dialer = Dialer(sources=[source(where)], seam=seam, seam_addresses=seam.addresses)
            assert (await dial(dialer, persona))[1].startswith(b"220 ")
            assert ears == []

    asyncio.run(scene())


def test_the_address_that_the_host_sees_is_what_its_reply_may_repeat() -> None:
    question = Question(
        destination="mx.example.net",
        recipient="jane@example.net",
        control=None,
        mail_from="probe@example.com",
        smtputf8=False,
        source=source("10.0.0.5:1080", "192.0.2.1"),
        provider=None,
        tls="never",
    )
    assert question.echo("jane@example.net", "10.0.0.2").ip == "192.0.2.1"
    direct = replace(question, source=Source(None, "out.example.com"))
    assert direct.echo("jane@example.net", "10.0.0.2").ip == "10.0.0.2"


# Proxies that fail.


def saying(*pieces: bytes, then: float = 0.0) -> Script:
    """Answers each thing that is said with the next piece; then hangs so long, and hangs up."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            if not await reader.read(1000):
                return
            writer.write(piece)
        await asyncio.sleep(then)

    return script


NEVER = 60.0
METHOD, KNOWN = b"\x05\x02", b"\x01\x00"
FAILURES = {
    "hangs up at once": (saying(), "the proxy: connection "),
    "says nothing": (saying(then=NEVER), "the proxy: timed out"),
    "hangs after the method": (saying(METHOD, then=NEVER), "the proxy: timed out"),
    "hangs after the password": (saying(METHOD, KNOWN, then=NEVER), "the proxy: timed out"),
    "hangs within its answer": (
        saying(METHOD, KNOWN, b"\x05\x00\x00\x01\x7f", then=NEVER),
        "the proxy: timed out",
    ),
    "hangs up after the password": (
        saying(METHOD, KNOWN),
        "the proxy: connection closed unexpectedly",
    ),
    "is a web server": (
        saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "the proxy: unexpected socks version number: 72",
    ),
    "wants another method": (saying(b"\x05\x01"), "the proxy: unexpected socks authentication"),
    "answers with noise": (
        saying(METHOD, KNOWN, b"\x05\x00\x00\x03\x02\xff\xfe\x00\x19"),
        "the proxy: no SOCKS5",
    ),
    "has a code of its own": (
        saying(METHOD, KNOWN, b"\x05\x63\x00\x01\x00\x00\x00\x00\x00\x00"),
        "the proxy: invalid reply code",
    ),
    "does no connecting": (
        saying(METHOD, KNOWN, b"\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"),
        "the proxy: command not supported",
    ),
    "finds no way": (
        saying(METHOD, KNOWN, b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"),
        "network unreachable, says the proxy",
    ),
}


@pytest.mark.parametrize(("script", "word"), FAILURES.values(), ids=FAILURES)
def test_a_proxy_that_fails_is_no_connect_in_time_with_a_word(script: Script, word: str) -> None:
    async def scene() -> tuple[str, float]:
        async with playing(script) as (where, _):
            dialer = Dialer(sources=[source(LOGIN + where)])
            begun = time.monotonic()
            with pytest.raises(NoConnect) as caught:
                await dial(dialer, GOOD, seconds=0.4)
            assert PASSWORD not in repr(caught.value)
            return str(caught.value), time.monotonic() - begun

    said, seconds = asyncio.run(scene())
    assert said.startswith(word)
    assert seconds < 0.4 + 0.1


def test_a_proxy_that_is_down_is_not_asked_for_every_address() -> None:
    with closed() as nobody:
        dialer = Dialer(sources=[source("{}:{}".format(*nobody))])
        error = failure(dialer, GOOD, OTHER)
    assert isinstance(error, ProxyFailed)
    assert str(error) == "the proxy: connection refused"


def test_a_proxy_whose_machine_is_gone_takes_no_longer_than_there_is_time() -> None:
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        begun = time.monotonic()
        error = failure(
            Dialer(sources=[source("{}:{}".format(*listener.getsockname()))]), GOOD, seconds=0.3
        )
    assert str(error) == "the proxy: connection timed out"
    assert time.monotonic() - begun < 0.3 + 0.1


@LOOPS
def test_who_is_cancelled_in_the_middle_leaves_no_connection(loop: Loop) -> None:
    async def scene() -> None:
        told = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(METHOD)
            assert PASSWORD.encode() in await reader.read(1000)
            told.set()
            assert await reader.read() == b"", "and then hung up"

        async with playing(script) as (where, _):
            dialing = asyncio.create_task(dial(Dialer(sources=[source(LOGIN + where)]), GOOD))
            await told.wait()
            dialing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialing

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())


def test_nothing_of_a_login_is_written_to_a_log(
    locked: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(0)
    dialer = Dialer(sources=[source(f"{USER}:wrong-word@{locked}")], seam=Seam())
    failure(dialer, GOOD)
    assert "wrong-word" not in caplog.text
