"""One HTTP connection: uvicorn's protocol with the deadlines and caps that it has not.

What it knows: a stranger may be slow, silent, endless or out of step. What it promises: a head
arrives within `HTTP_HEADERS`, a body within `HTTP_BODY`, an answer is taken within `HTTP_WRITE`, a
quiet connection goes after `HTTP_IDLE`; a head is at most 16 KiB and a URL 2 KiB; a message whose
length could be read in two ways is refused. There are no timers: one look over all connections,
twice a second, finds whoever is late.

When the house is full, the connection that has waited longest without a whole request makes room:
thousands of half-open ones cannot lock anybody out.

Bugs: the cap per client is by address of the socket's other end, so it is not applied to
loopback and to trusted proxies, behind which everybody has the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gate import metrics
from gate.api.peer import counted_as
from gate.api.problems import KINDS, Problem
from gate.budget import HTTP_BODY, HTTP_HEADERS, HTTP_IDLE, HTTP_WRITE

HEAD_MOST: Final = 16 * 1024
URL_MOST: Final = 2 * 1024
CONNECTIONS_PER_CLIENT: Final = 64


class Phase(Enum):
    """What the reading side of a connection is waiting for."""

    FRESH = auto()
    IDLE = auto()
    HEAD = auto()
    BODY = auto()


_LIMITS: Final = {
    Phase.FRESH: HTTP_HEADERS,
    Phase.HEAD: HTTP_HEADERS,
    Phase.BODY: HTTP_BODY,
    Phase.IDLE: HTTP_IDLE,
}
_WHY: Final = {Phase.FRESH: "head", Phase.HEAD: "head", Phase.BODY: "body", Phase.IDLE: "idle"}


class House(ServerState):
    """All connections of one listener.

    `waiting` holds, longest first, those that have no whole request under way. `exempt` says whose
    connections are not counted per client.
    """

    def __init__(self, *, most: int, exempt: Callable[[str], bool]) -> None:
        super().__init__()
        self.most = most
        self.waiting: OrderedDict[Connection, None] = OrderedDict()
        self._exempt = exempt
        self._clients: Counter[str] = Counter()

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, at the cost of the one that waited longest if need be."""
        client = connection.client[0] if connection.client else ""
        if not self._exempt(client):
            key = counted_as(client)
            if self._clients[key] >= CONNECTIONS_PER_CLIENT:
                metrics.CUT.labels("peer").inc()
                return False
            connection.counted = key
            self._clients[key] += 1
        if len(self.connections) > self.most:
            metrics.CUT.labels("crowded").inc()
            if not self.waiting:
                return False
            oldest, _ = self.waiting.popitem(last=False)
            oldest.transport.abort()
        self.waiting[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        """Let a closed connection go."""
        self.waiting.pop(connection, None)
        if connection.counted is not None:
            self._clients[connection.counted] -= 1
            if not self._clients[connection.counted]:
                del self._clients[connection.counted]
            connection.counted = None

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
        self._chunk = 0
        self._refusal = ""
        self._deaf = False
        self._encoded = False

    # -- a connection comes and goes -----------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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
            self.transport.abort()
        else:
            super().shutdown()

    # -- reading -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._chunk = len(data)
        super().data_received(data)
        if self._phase is Phase.HEAD:
            self._head_bytes += self._chunk
            if self._head_bytes > HEAD_MOST and not self._deaf:
                self._refusal = "headers_too_large"
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase, self._since = Phase.HEAD, self.loop.time()
        self._head_bytes = 0
        self._encoded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(name) == 17 and name.lower() == b"transfer-encoding":
            self._encoded = True
            if value.strip().lower() != b"chunked":
                self._refuse("invalid_request")

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
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._phase, self._since = Phase.IDLE, self.loop.time()
        if self.cycle is not None and not self.cycle.response_complete:
            self.house.waiting.pop(self, None)

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
        if (
            self.cycle is not None
            and not self.cycle.response_complete
            and self._phase is not (Phase.BODY)
        ):
            self.cycle.keep_alive = False
            return
        self._say(self._refusal or "invalid_request")

    def _say(self, problem: str) -> None:
        """Write a problem document past the application, and close."""
        metrics.PROBLEMS.labels(problem).inc()
        reply = Problem(problem).reply()
        kind = KINDS[problem]
        lines = [b"HTTP/1.1 %d %s" % (kind.status, kind.title.encode())]
        lines += [name + b": " + value for name, value in reply.headers]
        lines += [b"content-length: %d" % len(reply.body), b"connection: close", b"", reply.body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()

    # -- answering -----------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.house.waiting[self] = None
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
                self.transport.abort()
            return
        serving = self.cycle is not None and not self.cycle.response_complete
        if self._phase is Phase.IDLE and serving:
            return
        if now - self._since <= _LIMITS[self._phase]:
            return
        metrics.CUT.labels(_WHY[self._phase]).inc()
        if self._phase is Phase.BODY and serving and not self.cycle.response_started:
            self._say("body_timeout")
        else:
            self.transport.close()
