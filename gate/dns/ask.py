"""One DNS question put to resolvers until one of them answers it: datagrams, retries, TCP.

What it knows: which resolver is asked next and when (`Upstream`), when a datagram is sent again,
and what a useless answer calls for (RFC 1035 section 4.2, RFC 6891 section 6.2.2, RFC 7766).

Rules
  1. Whatever does not match the question is passed over, and listening goes on: a forged packet
     never ends a question. Each question has a socket, and so a random port, of its own.
  2. A server that is silent for DNS_NEXT_SERVER is joined by the next one; the first good answer
     wins, and what comes later finds its socket closed.
  3. SERVFAIL, or a broken answer: once more, at another server. REFUSED, NOTIMP, FORMERR, BADVERS:
     once more without EDNS, then as SERVFAIL. Each such repetition counts as a question; a lost
     datagram that is sent again does not. One over TCP counts, but is not refused to a route.
  4. A resolver where nobody listens is left alone for DNS_SERVER_REST, then tried by one question.

Bugs: a resolver that changes the letter case of questions is asked everything twice, the second
time over TCP and DNS_RETRANSMIT later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from gate.budget import (
    DNS_LOOKUP,
    DNS_NEXT_SERVER,
    DNS_RETRANSMIT,
    DNS_SERVER_REST,
    DNS_SERVER_SLOW,
    DNS_TCP,
    Clock,
    Deadline,
)
from gate.dns.wire import (
    AAAA,
    BADVERS,
    FORMERR,
    MAX_MESSAGE,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    REFUSED,
    TXT,
    A,
    Question,
    Reply,
    folded,
    read,
)
from gate.egress import ResolverSocket, open_resolver_tcp, open_resolver_udp
from gate.reason import GateError, RemoteProtocolError

QUESTIONS: Final = 10
"""Questions of one route, repeated ones included: a domain with a hundred MX is no amplifier."""

_DISLIKES_EDNS = frozenset({FORMERR, NOTIMP, REFUSED, BADVERS})
_RCODE_NAMES = {1: "formerr", 2: "servfail", 4: "notimp", 5: "refused", 16: "badvers"}

ServerAddress = tuple[str, int]


@dataclass(slots=True)
class Allowance:
    """How many questions a route may still ask."""

    left: int = QUESTIONS

    def take(self) -> bool:
        """Take one; False if none is left."""
        self.left -= 1
        return self.left >= 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a question was not answered. `lasting`: worth remembering for DNS_FAILURE."""

    detail: str
    lasting: bool = True


@dataclass(slots=True, eq=False)
class Server:
    """One resolver and what is known of its health."""

    address: ServerAddress
    edns: bool = True
    refusing: bool = False
    rests_until: float = 0.0
    slow_until: float = 0.0


class Upstream:
    """The resolvers of a zone, and in what order to ask them now. Pure: the time is told."""

    def __init__(self, servers: Sequence[ServerAddress]) -> None:
        if not servers:
            raise GateError("no resolver is configured; set dns.servers to one that recurses")
        self._servers = [Server(address) for address in servers]

    @property
    def healthy(self) -> bool:
        """False while nobody listens at any of them."""
        return not all(server.refusing for server in self._servers)

    def candidates(self, now: float) -> list[Server]:
        """Whom to ask, in order: as configured, slow ones last, refusing ones only as a trial."""
        asked = [server for server in self._servers if self._may_ask(server, now)]
        if len(asked) > 1:
            asked.sort(key=lambda server: now < server.slow_until)
        return asked

    def _may_ask(self, server: Server, now: float) -> bool:
        if server.refusing and now < server.rests_until:
            return False
        if server.refusing:
            server.rests_until = now + DNS_SERVER_REST  # half open: this one question is the trial
        return True

    @staticmethod
    def refused(server: Server, now: float) -> None:
        """Nobody listens there."""
        server.refusing = True
        server.rests_until = now + DNS_SERVER_REST

    @staticmethod
    def answered(server: Server, silent: Sequence[Server], now: float) -> None:
        """`server` answered while the `silent` ones, asked before it, had not."""
        server.refusing = False
        server.slow_until = 0.0
        for other in silent:
            other.slow_until = now + DNS_SERVER_SLOW


@dataclass(slots=True, eq=False)
class _Talk:
    """One question in the hands of one server."""

    server: Server
    question: Question
    edns: bool
    socket: ResolverSocket | None = None
    interval: float = DNS_RETRANSMIT
    again_at: float = 0.0
    """When to send once more."""
    ends_at: float | None = None
    """When to give up after a broken answer: a good one may be right behind it."""
    folded: bool = False
    over: bool = False

    def send(self, now: float) -> None:
        if self.socket is not None:
            self.socket.send(self.question.message(edns=self.edns))
        self.again_at = now + self.interval
        self.interval *= 2

    def close(self) -> None:
        self.over = True
        if self.socket is not None:
            self.socket.close()
            self.socket = None  # it knows us: let nothing be left for the garbage collector

    def due(self) -> float:
        return self.again_at if self.ends_at is None else min(self.again_at, self.ends_at)


@dataclass(slots=True, eq=False)
class Lookup:
    """One question and its way through the servers. Made for one `run`."""

    name: str
    rdtype: int
    upstream: Upstream
    allowance: Allowance
    clock: Clock
    random: Random
    _talks: list[_Talk] = field(default_factory=list)
    _heard: list[tuple[_Talk, bytes | Exception]] = field(default_factory=list)
    _wake: asyncio.Future[None] | None = None
    _waiting: list[Server] = field(init=False)
    _next_at: float = 0.0
    _trouble: Failure | None = None

    async def run(self) -> Reply | Failure:
        """A reply with rcode NOERROR or NXDOMAIN, or why there is none, within DNS_LOOKUP."""
        now = self.clock()
        deadline = Deadline(now + DNS_LOOKUP, self.clock)
        self._waiting = self.upstream.candidates(now)
        if not self._waiting:
            return Failure("resolver_down", lasting=False)
        if not self.allowance.take():
            return Failure("too_many_questions", lasting=False)
        self._next_at = now
        try:
            while not deadline.passed:
                reply = await self._turn(deadline)
                if reply is not None:
                    return reply
            return self._trouble or Failure("timeout")
        finally:
            for talk in self._talks:
                talk.close()

    def hear(self, talk: _Talk, what: bytes | Exception) -> None:
        """A datagram or a socket error has come in."""
        self._heard.append((talk, what))
        if self._wake is not None:
            _end(self._wake)

    async def _turn(self, deadline: Deadline) -> Reply | Failure | None:
        """Send what is due, wait for what is next, take what was heard."""
        now = self.clock()
        if self._waiting and now >= self._next_at:
            self._open(self._waiting.pop(0))
        for talk in self._open_talks():
            if talk.ends_at is not None and now >= talk.ends_at:
                self._give_up(talk, Failure("malformed"))
            elif now >= talk.again_at and talk.folded:
                if reply := await self._over_tcp(talk, deadline):
                    return reply
            elif now >= talk.again_at:
                talk.send(now)
        if not (self._waiting or self._open_talks()):
            return self._trouble
        await self._listen(deadline)
        while self._heard:
            reply = await self._take(*self._heard.pop(0), deadline)
            if reply is not None:
                return reply
        return None

    def _open_talks(self) -> list[_Talk]:
        return [talk for talk in self._talks if not talk.over]

    def _open(self, server: Server) -> None:
        talk = _Talk(server, self._question(), server.edns)
        self._talks.append(talk)
        self._next_at = self.clock() + DNS_NEXT_SERVER
        try:
            talk.socket = open_resolver_udp(server.address, lambda what: self.hear(talk, what))
        except OSError as error:
            self.hear(talk, error)
        talk.send(self.clock())

    def _question(self, *, mixed: bool = True) -> Question:
        bits = self.random.getrandbits(16 + 8 * (len(self.name) + 2))  # one draw: it is a syscall
        id, case = bits & 0xFFFF, bits >> 16
        return Question.about(self.name, self.rdtype, id=id, case=case if mixed else 0)

    async def _listen(self, deadline: Deadline) -> None:
        """Wait until something was heard or is due. By hand: `asyncio.timeout` around an event
        took five times as long, and each check asks four questions.
        """
        if self._heard:
            return
        moments = [deadline.at, *[talk.due() for talk in self._open_talks()]]
        if self._waiting:
            moments.append(self._next_at)
        pause = min(moments) - self.clock()
        if pause > 0:
            loop = asyncio.get_running_loop()
            wake = self._wake = loop.create_future()
            timer = loop.call_later(pause, _end, wake)
            try:
                await wake
            finally:
                timer.cancel()

    async def _take(self, talk: _Talk, what: bytes | Exception, deadline: Deadline) -> Reply | None:
        """What one datagram or socket error means for the question."""
        if talk.over:
            return None
        if isinstance(what, Exception):
            self.upstream.refused(talk.server, self.clock())
            self._give_up(talk, Failure("resolver_down", lasting=False), repeat=False)
            return None
        try:
            reply = read(what, talk.question)
        except RemoteProtocolError:
            if talk.ends_at is None:
                talk.ends_at = self.clock() + DNS_NEXT_SERVER
            return None
        if reply is None:
            talk.folded = talk.folded or folded(what, talk.question)
            return None
        if reply.truncated:
            return await self._over_tcp(talk, deadline)
        return self._weigh(talk, reply)

    def _weigh(self, talk: _Talk, reply: Reply) -> Reply | None:
        """The reply, if it is one to build on; else the next step is taken."""
        now = self.clock()
        if reply.rcode in (NOERROR, NXDOMAIN):
            talk.server.edns = talk.edns
            silent = [other.server for other in self._talks if not other.over and other is not talk]
            self.upstream.answered(talk.server, silent, now)
            return reply
        if reply.rcode in _DISLIKES_EDNS and talk.edns and self.allowance.take():
            talk.question, talk.edns, talk.interval = self._question(), False, DNS_RETRANSMIT
            talk.send(now)
            return None
        self._give_up(talk, Failure(_RCODE_NAMES.get(reply.rcode, "rcode")))
        return None

    def _give_up(self, talk: _Talk, failure: Failure, *, repeat: bool = True) -> None:
        """No more from this server. The next one is asked at once, for an answer's sake once."""
        talk.close()
        if repeat and self._waiting:
            again = self._trouble is None or not self._trouble.lasting
            del self._waiting[1 if again and self.allowance.take() else 0 :]
        if self._trouble is None or failure.lasting:
            self._trouble = failure
        self._next_at = self.clock()

    async def _over_tcp(self, talk: _Talk, deadline: Deadline) -> Reply | None:
        """The question again, as a stream; whatever goes wrong there is this server's failure."""
        if not self.allowance.take() and self.rdtype == TXT:  # a route could not be had without it
            self._give_up(talk, Failure("too_many_questions", lasting=False), repeat=False)
            return None
        try:
            async with asyncio.timeout(min(DNS_TCP, deadline.left())):
                reply = await self._exchange(talk)
        except (OSError, TimeoutError, RemoteProtocolError):
            self._give_up(talk, Failure("tcp"))
            return None
        return self._weigh(talk, reply)

    async def _exchange(self, talk: _Talk) -> Reply:
        question = self._question(mixed=not talk.folded)
        prefix = self.rdtype in (A, AAAA)
        transport, stream = await open_resolver_tcp(talk.server.address, lambda: _Stream(prefix))
        try:
            message = question.message(edns=talk.edns)
            transport.write(len(message).to_bytes(2, "big") + message)
            raw, cut = await stream.message
        finally:
            transport.abort()
        reply = read(raw, question, cut=cut)
        if reply is None or reply.truncated:
            raise RemoteProtocolError("a stream that answers another question")
        return reply


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


class _Stream(asyncio.Protocol):
    """Reads one message, and of one that is too long no more than may be looked at.

    `prefix`: the beginning of a long message is of use (any four addresses of a host will do).
    """

    def __init__(self, prefix: bool) -> None:
        self.message: asyncio.Future[tuple[bytes, bool]] = asyncio.Future()
        self._prefix = prefix
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        if self.message.done():
            return
        self._buffer += data
        length = int.from_bytes(self._buffer[:2], "big")
        cut = length > MAX_MESSAGE
        if len(self._buffer) < 2:
            return
        if cut and not self._prefix:
            self.message.set_exception(RemoteProtocolError(f"a DNS answer of {length} octets"))
        elif len(self._buffer) >= 2 + min(length, MAX_MESSAGE):
            self.message.set_result((bytes(self._buffer[2 : 2 + min(length, MAX_MESSAGE)]), cut))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.message.done():
            self.message.set_exception(exc or ConnectionResetError("closed before its answer"))
