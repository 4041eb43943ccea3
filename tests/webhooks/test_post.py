"""One request to receivers that are slow, dead, huge, redirecting and lying."""

from __future__ import annotations

import asyncio
import random
import resource
import ssl
import time
from collections.abc import Callable, Mapping

import pytest
import trustme

from gate.dns import Resolver
from gate.egress import WEB_PORTS, Dialer, Source
from gate.testing import FakeZones, Seam
from gate.testing.zones import NXDOMAIN, SERVFAIL, Value
from gate.webhooks.message import Told
from gate.webhooks.post import ANSWER_MOST, RESPONSE_MOST, Poster, web_context
from tests.lateworld import OK, Answering, Received, Receiver, status, trusted
from tests.test_egress import BLOCKED

__all__ = ["trusted"]
pytestmark = pytest.mark.usefixtures("trusted")

URL = "https://hook.test/late?site=1"
MEGABYTE = 1024 * 1024


def raw(*pieces: bytes, pause: float = 0.0) -> Answering:
    """Answer with these octets, whatever they are."""

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


def for_ever(before: bytes, piece: bytes, counted: list[int], pause: float = 0.0) -> Answering:
    """Answer without end; how many octets the system took is counted."""

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        while True:
            writer.write(piece)
            await writer.drain()
            counted.append(len(piece))
            await asyncio.sleep(pause)

    return answer


async def post(
    seam: Seam, plan: Mapping[str, Value], url: str = URL, *, within: float = 3.0
) -> Told:
    async with FakeZones(plan) as zones:
        resolver = Resolver(
            [zones.server], private_names=True, clock=time.monotonic, random=random.Random(1)
        )
        poster = Poster(
            resolver=resolver,
            dialer=Dialer(sources=[Source(None, "")], seam=seam, ports=WEB_PORTS),
            context=web_context(),
            clock=time.monotonic,
        )
        try:
            return await poster.post(url, {"webhook-id": "msg_1"}, b'{"a":1}', within)
        finally:
            await resolver.close()


def told(
    receiver: Receiver,
    url: str = URL,
    *,
    within: float = 3.0,
    port: int = 443,
    after: Callable[[Receiver, Seam], None] | None = None,
) -> Told:
    """What one POST to a receiver comes to."""

    async def main() -> Told:
        async with receiver:
            seam = Seam()
            seam.add("8.8.8.8", receiver.address, port)
            found = await post(seam, {"hook.test": "A 8.8.8.8"}, url, within=within)
            if after:
                after(receiver, seam)
            return found

    return asyncio.run(main())


def test_a_request_says_no_more_than_it_must() -> None:
    receiver = Receiver()
    assert told(receiver) == Told(200)
    (request,) = receiver.received
    assert request.target == "/late?site=1"
    assert request.body == b'{"a":1}'
    assert request.headers == {
        "host": "hook.test",
        "user-agent": "signup-gate",
        "content-type": "application/json",
        "content-length": "7",
        "accept-encoding": "identity",
        "connection": "close",
        "webhook-id": "msg_1",
    }


def test_the_path_of_a_bare_url_is_the_root() -> None:
    receiver = Receiver()
    assert told(receiver, "https://hook.test") == Told(200)
    assert receiver.received[0].target == "/"


def test_plain_http_where_it_was_chosen() -> None:
    assert told(Receiver(tls=False), "http://hook.test/", port=80) == Told(200)


HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = HEAD + b"content-length: 2\r\n\r\nok"
ANSWERS = {
    "an ordinary one": (raw(BODY), Told(200)),
    "octet by octet": (raw(*(BODY[n : n + 1] for n in range(len(BODY)))), Told(200)),
    "no content": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), Told(204)),
    "HTTP/1.0 until the end": (raw(b"HTTP/1.0 200 OK\r\n\r\nok"), Told(200)),
    "an interim answer first": (raw(b"HTTP/1.1 100 Continue\r\n\r\n" + BODY), Told(200)),
    "a redirect": (status(302, "location: http://169.254.169.254/\r\n"), Told(302)),
    "a permanent redirect": (status(308, "location: https://other.test/\r\n"), Told(308)),
    "patience": (status(503, "retry-after: 120\r\n"), Told(503, retry_after="120")),
    "two kinds of patience": (
        status(429, "retry-after: 120\r\nretry-after: 7\r\n"),
        Told(429, retry_after="7"),
    ),
    "more than it promised": (raw(HEAD + b"content-length: 1\r\n\r\nokokok"), Told(200)),
    "less than it promised": (raw(HEAD + b"content-length: 99\r\n\r\nok"), Told(200)),
    "broken chunks": (raw(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), Told(200)),
    "compressed, it says": (
        raw(HEAD + b"content-encoding: gzip\r\ncontent-length: 9\r\n\r\nnot gzip!"),
        Told(200),
    ),
    "nothing": (raw(), Told(failure="closed without an answer")),
    "half a head": (raw(b"HTTP/1.1 200 OK\r\ncontent"), Told(failure="closed without an answer")),
    "SMTP": (raw(b"220 mx.test ESMTP\r\n\r\n"), Told(failure="not HTTP")),
    "noise": (raw(random.Random(1).randbytes(50_000)), Told(failure="not HTTP")),
    "no number": (raw(b"HTTP/1.1 abc OK\r\n\r\n"), Told(failure="not HTTP")),
    "two lengths": (
        raw(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nok"),
        Told(failure="not HTTP"),
    ),
    "another protocol": (
        raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        Told(failure="not HTTP"),
    ),
    "a header bomb": (raw(HEAD + b"x: " + b"y" * MEGABYTE), Told(failure="not HTTP")),
    "a heap of headers": (raw(HEAD + b"x: y\r\n" * 50_000), Told(failure="not HTTP")),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_what_is_made_of_an_answer(answer: Answering, expected: Told) -> None:
    started = time.monotonic()
    found = told(Receiver(answer))
    if expected.failure == "closed without an answer":
        assert found.status is None
    else:
        assert found == expected
    assert time.monotonic() - started < 2.0


def test_interim_answers_do_not_go_on_for_ever() -> None:
    sent: list[int] = []
    answer = for_ever(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100, sent)
    assert told(Receiver(answer)).failure == "the answer is too long"


def test_of_a_body_without_end_little_is_read() -> None:
    """I2: what the system took beyond that is thrown away, and is bounded too."""
    sent: list[int] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    assert told(Receiver(for_ever(HEAD + b"\r\n", b"x" * 65536, sent)), within=10) == Told(200)
    assert time.monotonic() - started < 2.0
    assert sum(sent) < 16 * MEGABYTE, "a gigabyte was on its way"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    assert RESPONSE_MOST <= 8192 <= ANSWER_MOST


SLOW = {
    "never answers": (raw(b"", pause=60), Told(failure="timed out")),
    "one octet at a time": (for_ever(b"", b"H", [], pause=0.05), None),
    "a status, then one octet at a time": (for_ever(HEAD + b"\r\n", b"x", [], 0.05), Told(200)),
}


@pytest.mark.parametrize(("answer", "expected"), SLOW.values(), ids=SLOW)
def test_a_slow_receiver_has_its_time_and_no_more(answer: Answering, expected: Told | None) -> None:
    started = time.monotonic()
    found = told(Receiver(answer), within=0.5)
    assert 0.0 < time.monotonic() - started < 1.5
    assert found == expected if expected else found.status is None


def test_a_receiver_that_takes_nothing() -> None:
    """It accepts, and that was that."""

    async def main() -> Told:
        async with _Deaf() as deaf:
            seam = Seam()
            seam.add("8.8.8.8", deaf.address, 443)
            return await post(seam, {"hook.test": "A 8.8.8.8"}, within=0.5)

    started = time.monotonic()
    assert asyncio.run(main()).status is None
    assert time.monotonic() - started < 1.5


class _Deaf:
    """Accepts connections and reads nothing, not even a handshake."""

    async def __aenter__(self) -> _Deaf:
        self._writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


UNPROVED = {
    "a certificate that nobody knows": Receiver(ca=trustme.CA()),
    "a certificate for another name": Receiver(name="other.test"),
    "no TLS": Receiver(tls=False),
}


@pytest.mark.parametrize("receiver", UNPROVED.values(), ids=UNPROVED)
def test_who_cannot_prove_the_name_is_told_nothing(receiver: Receiver) -> None:
    found = told(receiver, within=0.5)
    assert found.failure.startswith(("no connection", "timed out"))
    assert receiver.received == []


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A11."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert told(Receiver()) == Told(200)


def test_tls_below_1_2_is_not_spoken() -> None:
    assert web_context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert web_context().verify_mode == ssl.CERT_REQUIRED
    assert web_context().check_hostname


# -- where a name may lead


@pytest.mark.parametrize("address", [text for text in BLOCKED if "%" not in text])
def test_a_name_that_leads_to_our_own_network_is_not_dialled(address: str) -> None:
    """A1, A2, A8, A11, R3: every vector, as an address record of the endpoint's name."""

    async def main() -> tuple[Told, list[object]]:
        seam = Seam(open_world=True)
        kind = "AAAA" if ":" in address else "A"
        return await post(seam, {"hook.test": f"{kind} {address}"}), list(seam.dialled)

    found, dialled = asyncio.run(main())
    assert found.failure.startswith("blocked: ")
    assert dialled == []


LOOK_UPS: Mapping[str, tuple[Value, str]] = {
    "no such name": (NXDOMAIN, "the name has no address"),
    "no address": ('TXT "x"', "the name has no address"),
    "a broken zone": (SERVFAIL, "the name could not be looked up"),
}


@pytest.mark.parametrize(("value", "failure"), LOOK_UPS.values(), ids=LOOK_UPS)
def test_a_name_that_leads_nowhere(value: Value, failure: str) -> None:
    assert asyncio.run(post(Seam(), {"hook.test": value})) == Told(failure=failure)


def test_of_two_addresses_only_the_public_one_is_dialled() -> None:
    """A5."""

    async def main() -> tuple[Told, list[str]]:
        async with Receiver() as receiver:
            seam = Seam()
            seam.add("8.8.8.8", receiver.address, 443)
            found = await post(seam, {"hook.test": ["A 10.0.0.5", "A 8.8.8.8"]})
            return found, [str(ip) for ip in seam.dialled]

    assert asyncio.run(main()) == (Told(200), ["8.8.8.8"])


def test_a_redirect_into_our_network_is_not_followed() -> None:
    """A11: the second receiver is where it would lead."""

    def checked(receiver: Receiver, seam: Seam) -> None:
        assert [str(ip) for ip in seam.dialled] == ["8.8.8.8"]
        assert receiver.connections == 1

    moved = status(307, "location: https://hook.test/again\r\n")
    assert told(Receiver(moved, OK), after=checked) == Told(307)


def test_nothing_listens() -> None:
    found = asyncio.run(post(Seam(), {"hook.test": "A 8.8.8.8"}))
    assert found == Told(failure="no connection: nothing answers there")
