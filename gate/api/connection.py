"""One HTTP connection: uvicorn's protocol with the deadlines and caps that it has not.

What it knows: a stranger may be slow, silent, endless or out of step. What it promises: a head
arrives within `HTTP_HEADERS`, a body within `HTTP_BODY`, an answer is taken within `HTTP_WRITE`, a
quiet connection goes after `HTTP_IDLE`; a head is at most 16 KiB and a URL 2 KiB, and so is what
frames a body: chunk heads and trailers, which are never taken for headers (RFC 9110 6.5.1); a
message whose length could be read in two ways is refused. There are no timers: one look over all
connections, twice a second, finds whoever is late.

A hot route is not handed to the application when its head arrives but when it is whole: what can
be answered without waiting (a remembered check) is then answered in the very callback that read
it, with no task and no ASGI messages in between. That is worth half of its cost.

When the house is full, the connection that has waited longest without a whole request makes room,
one that was never answered before all others: thousands of half-open ones lock nobody out, and cost
no site's server the connection it keeps.

Bugs: the cap per client is by address of the socket's other end, so it is not applied to
loopback and to trusted proxies, behind which everybody has the same. An `Upgrade` in a pipelined
request is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from httptools import HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from gate import metrics
from gate.api.front import BEGUN, Front, Head, Later
from gate.api.peer import counted_as
from gate.api.problems import Problem
from gate.api.reply import Reply, lines
from gate.api.requests import BODY_MOST
from gate.budget import HTTP_BODY, HTTP_HEADERS, HTTP_IDLE, HTTP_WRITE

HEAD_MOST: Final = 16 * 1024
URL_MOST: Final = 2 * 1024
PER_CLIENT: Final = 64
PER_CLIENT_SHARE: Final = 8
"""One client may have 64 connections, or an eighth of all: a site's server is one client too."""
DRAINED_MOST: Final = 256 * 1024
"""Octets of a body that are taken and thrown away behind its answer, so that the answer arrives."""
PIPELINED_MOST: Final = 32
"""Requests sent ahead of their answers: a chunk of thousands would hold up the event loop."""
CHUNKS_MOST: Final = 512
"""Chunks of one body: tens of thousands of one octet each would hold up the event loop."""
HOT: Final = frozenset({b"/v1/check", b"/v1/prefetch", b"/v1/siteverify"})


_UPGRADE = re.compile(rb"\r\n(?:upgrade|http2-settings):[^\r\n]*", re.IGNORECASE)


class Phase(Enum):
    """What the reading side of a connection is waiting for."""

    FRESH = auto()
    IDLE = auto()
    HEAD = auto()
    BODY = auto()


_BETWEEN: Final = (Phase.IDLE, Phase.FRESH)
_HEAD_END: Final = b"\r\n\r\n"
_LIMITS: Final = {
    Phase.FRESH: HTTP_HEADERS,
    Phase.HEAD: HTTP_HEADERS,
    Phase.BODY: HTTP_BODY,
    Phase.IDLE: HTTP_IDLE,
}
_WHY: Final = {Phase.FRESH: "head", Phase.HEAD: "head", Phase.BODY: "body", Phase.IDLE: "idle"}


class House(ServerState):
    """All connections of one listener.

    `waiting` holds, longest first, those that have no whole request under way, `strangers` those
    of them that were never answered. `exempt` says whose connections are not counted per client.
    `front` answers the hot routes; None if there are none.
    """

    def __init__(
        self, *, most: int, exempt: Callable[[str], bool], front: Front | None = None
    ) -> None:
        super().__init__()
        self.most = most
        self._per_client = max(PER_CLIENT, most // PER_CLIENT_SHARE)
        self.front = front
        self.waiting: OrderedDict[Connection, None] = OrderedDict()
        self.strangers: OrderedDict[Connection, None] = OrderedDict()
        self._exempt = exempt
        self._clients: Counter[str] = Counter()
        self._openings: dict[int, bytes] = {}
        self._opened_with = self.default_headers

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, at the cost of the one that waited longest if need be."""
        client = connection.client[0] if connection.client else ""
        if not self._exempt(client):
            key = counted_as(client)
            if self._clients[key] >= self._per_client:
                metrics.CUT.labels("peer").inc()
                return False
            connection.counted = key
            self._clients[key] += 1
        if len(self.connections) > self.most:
            metrics.CUT.labels("crowded").inc()
            if not self.waiting:
                return False
            oldest = next(iter(self.strangers or self.waiting))
            self.engaged(oldest)
            oldest.cut()
        self.waiting[connection] = self.strangers[connection] = None
        return True

    def engaged(self, connection: Connection) -> None:
        """It has a whole request under way, or is about to go: it is not cut to make room."""
        self.waiting.pop(connection, None)
        self.strangers.pop(connection, None)

    def answered(self, connection: Connection) -> None:
        """It has its answer, and waits for its next request."""
        self.strangers.pop(connection, None)
        self.waiting[connection] = None
        self.waiting.move_to_end(connection)

    def forget(self, connection: Connection) -> None:
        """Let a closed connection go."""
        self.engaged(connection)
        if connection.counted is not None:
            self._clients[connection.counted] -= 1
            if not self._clients[connection.counted]:
                del self._clients[connection.counted]
            connection.counted = None

    def opening(self, status: int) -> bytes:
        """How an answer begins: the status line and uvicorn's headers, new once a second."""
        if self._opened_with is not self.default_headers:
            self._opened_with = self.default_headers
            self._openings.clear()
        made = self._openings.get(status)
        if made is None:
            made = STATUS_LINE[status][:-2] + lines(self.default_headers)
            self._openings[status] = made
        return made

    def sweep(self, now: float) -> None:
        """End every connection that is late."""
        for connection in list(self.connections):
            if isinstance(connection, Connection):
                connection.look(now)
        metrics.CONNECTIONS.set(len(self.connections))


class Connection(HttpToolsProtocol):
    """The protocol of one connection; uvicorn makes one for each."""

    server_state: House

    def __init__(
        self,
        config: Config,
        server_state: House,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.house = server_state
        self.counted: str | None = None
        self._phase = Phase.FRESH
        self._since = 0.0
        self._stuck_since: float | None = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._chunk = 0
        self._chunks = self._framing = self._bodies = 0
        self._refusal = ""
        self._deaf = False
        self._encoded = False
        self._held: bytes | None = None
        self._begun: Later | None = None
        self._upgrading = False
        self._host = ""
        self._begun_here = 0
        self._head_parts: list[bytes] = []
        self._between = b""

    # -- a connection comes and goes -----------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._host = self.client[0] if self.client else ""
        self._since = self.loop.time()
        if not self.house.admit(self):
            self._deaf = True
            self._say("unavailable")

    def connection_lost(self, exc: Exception | None) -> None:
        self.house.forget(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Called when the server stops: who has no whole request under way is let go at once."""
        if self._phase is Phase.BODY:
            self.cut()
        else:
            super().shutdown()

    def cut(self) -> None:
        """End the connection now; whoever still answers a request of it is told."""
        self._forsake()
        self.transport.abort()

    def _forsake(self) -> None:
        if self._busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    # -- reading -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf or self._answered_again(data):
            return
        self._chunk = len(data)
        self._begun_here = 0
        self._between = data if self._phase in _BETWEEN else b""
        inside, bodies = self._phase is Phase.BODY, self._bodies
        if not inside:
            self._head_parts.append(data)
        super().data_received(data)
        if self._upgrading:
            self._go_on_without_upgrade()
        if self._phase is not Phase.HEAD:
            self._head_parts.clear()
            if inside and not self._begun_here:
                self._look_at_framing(len(data) - (self._bodies - bodies))
            return
        if self._begun_here + inside < 2:
            # A head that began behind another message is counted from the next chunk on.
            self._head_bytes += self._chunk
        if self._head_bytes > HEAD_MOST and not self._deaf:
            self._refusal = "headers_too_large"
            self.send_400_response("")

    def _look_at_framing(self, octets: int) -> None:
        """Count what came behind the head and is no body; refuse what has no end."""
        self._framing += octets
        if self._framing > HEAD_MOST and self._phase is Phase.BODY and not self._deaf:
            self._refusal = "body_too_large"
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase, self._since = Phase.HEAD, self.loop.time()
        self._head_bytes = self._chunks = self._framing = 0
        self._begun_here += 1
        self._body_bytes = 0
        self._encoded = False
        if self._begun_here > PIPELINED_MOST or len(self.pipeline) >= PIPELINED_MOST:
            self._refuse("invalid_request")

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > CHUNKS_MOST:
            self._refuse("body_too_large")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.BODY:
            self._framing += len(name) + len(value) + 4
            if self._framing > HEAD_MOST:
                self._refuse("headers_too_large")
            return
        name = name.lower()
        if name == b"transfer-encoding":
            self._encoded = True
            if value.strip().lower() != b"chunked":
                self._refuse("invalid_request")
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if len(self.url) > URL_MOST:
            self._refuse("uri_too_long")
        if self._head_bytes + self._chunk > HEAD_MOST:
            size = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > HEAD_MOST:
                self._refuse("headers_too_large")
        if self._encoded and any(name == b"content-length" for name, _ in self.headers):
            self._refuse("invalid_request")
        self._phase = Phase.BODY
        if self.parser.should_upgrade():
            self._upgrading = True
        elif self._can_hold():
            self._held = b""
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bodies += len(body)
        if self._held is None:
            super().on_body(body)
            self._body_bytes += len(body)
            if self._body_bytes > DRAINED_MOST and not self._busy:
                self._deaf = True
                self.transport.close()
            return
        self._held += body
        if len(self._held) > BODY_MOST:
            self._hand_over()

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._phase, self._since = Phase.IDLE, self.loop.time()
        if self._held is not None:
            reply = self._begin(self._held)
            if isinstance(reply, Reply):
                self._held = None
                self._answer(reply, close=not self.parser.should_keep_alive())
                return
            if reply is not None:
                self.scope[BEGUN] = reply  # type: ignore[typeddict-unknown-key]
            self._hand_over()
        super().on_message_complete()
        if self.cycle is not None and not self.cycle.response_complete:
            self.house.engaged(self)

    def _answered_again(self, data: bytes) -> bool:
        """Answer a whole request whose head came before; False: it has to be parsed.

        The parser is between two messages here and stays there. Equal octets would make it say
        what it said before; and nothing follows behind the body.
        """
        front = self.house.front
        if front is None or self._phase not in _BETWEEN or self._busy or self.flow.write_paused:
            return False
        end = data.find(_HEAD_END) + 4
        head = front.known(data[:end])
        if head is None or head.length != len(data) - end:
            return False
        reply = front.begin_again(head, data[end:], self._host)
        if not isinstance(reply, Reply):
            self._begun = reply
            return False
        self._phase, self._since = Phase.IDLE, self.loop.time()
        self._unset_keepalive_if_required()
        self._answer(reply, close=False)
        return True

    def _begin(self, body: bytes) -> Reply | Later | None:
        """The answer to a request that was held; None: it is the application's to give."""
        if self._begun is not None:
            begun, self._begun = self._begun, None
            return begun
        front = self.house.front
        assert front is not None
        head = front.read(self.url.decode("ascii"), self.headers, self._host, len(body))
        if not isinstance(head, Head):
            return head
        reply = front.begin(head, body)
        if not self._encoded and self.parser.should_keep_alive():
            self._learn(front, head, len(body))
        return reply

    def _learn(self, front: Front, head: Head, length: int) -> None:
        """Know the head again, if it stood alone: this chunk is the one message, from its first
        octet to its last, and the parser was between two messages when it came.

        Octets that only look like a head, being the end of one whose beginning (with its key) came
        before, would let everybody in who sends the same.
        """
        octets = self._between
        end = octets.find(_HEAD_END) + len(_HEAD_END)
        if self._begun_here == 1 and octets.startswith(b"POST /") and len(octets) - end == length:
            front.learn(octets[:end], head)

    def _can_hold(self) -> bool:
        """Whether the request may be answered before the application has heard of it."""
        return (
            self.url in HOT
            and self.house.front is not None
            and self.parser.get_method() == b"POST"
            and not self._busy
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.parser.get_http_version() == "1.1"
        )

    def _hand_over(self) -> None:
        """Let the application have what was held back."""
        held, self._held = self._held, None
        super().on_headers_complete()
        if held:
            super().on_body(held)

    def _go_on_without_upgrade(self) -> None:
        """Read the message again as if it did not ask for another protocol (RFC 9110 7.8).

        Java's client offers HTTP/2 with every first request. The parser stops at such a head.
        """
        self._upgrading = False
        head, _, rest = b"".join(self._head_parts).lstrip(b"\r\n").partition(b"\r\n\r\n")
        head, offers = _UPGRADE.subn(b"", head)
        if self._begun_here > 1 or not offers:
            self.send_400_response("")
            return
        self._head_parts.clear()
        self._phase = Phase.IDLE
        self.parser = HttpRequestParser(self)
        self.data_received(head + b"\r\n\r\n" + rest)

    @property
    def _busy(self) -> bool:
        """Whether an earlier request of this connection is still being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: an upgrade may always be declined."""

    def _refuse(self, problem: str) -> None:
        """Stop the parser, from inside one of its callbacks."""
        self._refusal = problem
        raise Problem(problem)

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, and close; uvicorn calls it for whatever the parser refuses.

        While an earlier request of the connection is still being served, its answer goes first,
        and is the last one.
        """
        self._deaf = True
        if self._busy and self._phase is not Phase.BODY:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        self._say(self._refusal or "invalid_request")

    def _say(self, problem: str) -> None:
        """Write a problem document past the application, and close."""
        metrics.PROBLEMS.labels(problem).inc()
        self._forsake()
        self._write(Problem(problem).reply(), close=True)
        self.transport.close()

    def _answer(self, reply: Reply, *, close: bool) -> None:
        """Write the answer to a request that the application never saw."""
        self.house.total_requests += 1
        self._write(reply, close=close)
        if close:
            self.transport.close()
        else:
            self.house.answered(self)

    def _write(self, reply: Reply, *, close: bool) -> None:
        head = self.house.opening(reply.status) + reply.ready
        if reply.headers:
            head += lines(reply.headers)
        if close:
            head += b"\r\nconnection: close"
        if reply.status != 204:
            body = reply.body
            self.transport.write(b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        else:
            self.transport.write(head + b"\r\n\r\n")

    # -- answering -----------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.house.answered(self)
            if self._phase is Phase.IDLE:
                self._since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck_since = None

    # -- deadlines -----------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """End this connection if it is late."""
        if self.transport.is_closing() and self._stuck_since is None:
            self._stuck_since = now
        if self._stuck_since is not None:
            if now - self._stuck_since > HTTP_WRITE:
                metrics.CUT.labels("write").inc()
                self.cut()
            return
        if self._phase is Phase.IDLE and self._busy:
            return
        if now - self._since <= _LIMITS[self._phase]:
            return
        metrics.CUT.labels(_WHY[self._phase]).inc()
        unanswered = self._held is not None or (self._busy and not self.cycle.response_started)
        if self._phase is Phase.BODY and unanswered:
            self._say("body_timeout")
        else:
            self.transport.close()
