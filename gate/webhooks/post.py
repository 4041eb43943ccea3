"""`Poster`: one POST to a host that a site named, through the one door.

What it promises: `post` never raises for what the host, its name servers or its network do; it ends
by the deadline; the name is looked up by our own resolver, every address is classified and dialled
as it is, and TLS proves the name. No redirect is followed, no proxy is asked, nothing is sent but
what is given here, and of the answer no more is read than its head and RESPONSE_MOST of its body.

Bugs: a connection serves one message. The system hands over what has arrived in pieces of up to
256 KiB, so that so much of a longer answer is received, and thrown away.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import h11

from gate.budget import Clock, Deadline
from gate.dns import Resolver
from gate.egress import Dialer, IPAddress, NoConnect, Source, Unroutable
from gate.webhooks.message import Told

RESPONSE_MOST: Final = 4096
"""Octets of a body that are read, so that a receiver can finish what it writes."""
HEAD_MOST: Final = 16 * 1024
ANSWER_MOST: Final = 32 * 1024
"""Octets read in all: interim answers could go on for ever."""
PIECE: Final = 4096
USER_AGENT: Final = "signup-gate"
_SYSTEM = Source(None, "")


def web_context() -> ssl.SSLContext:
    """TLS to web servers: certificates are proved, by the system's authorities or those that
    OpenSSL's own variable SSL_CERT_FILE names, and nothing older than TLS 1.2 is spoken.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Ended(Exception):
    """The attempt is over without a status; the text says why."""


class Poster:
    """Sends. Holds nothing between two requests."""

    def __init__(
        self, *, resolver: Resolver, dialer: Dialer, context: ssl.SSLContext, clock: Clock
    ) -> None:
        """`dialer`: one for web ports. `context`: one for all, since making one is dear."""
        self._resolver = resolver
        self._dialer = dialer
        self._context = context
        self._clock = clock

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, within: float) -> Told:
        """Send `body`; what was answered, or why nothing was. `within` seconds in all."""
        deadline = Deadline.after(within, self._clock)
        heard: list[Told] = []
        try:
            async with asyncio.timeout(within):
                await self._post(url, headers, body, deadline, heard)
        except TimeoutError:
            failure = "timed out"
        except _Ended as ended:
            failure = str(ended)
        except (h11.RemoteProtocolError, UnicodeError):
            failure = "not HTTP"
        except OSError:
            failure = "connection lost"
        else:
            failure = "no answer"
        # A status that was heard stands, whatever became of the body behind it.
        return heard[0] if heard else Told(failure=failure)

    async def _post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: Deadline,
        heard: list[Told],
    ) -> None:
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        addresses = await self._addresses(host, deadline)
        reader = asyncio.StreamReader(limit=PIECE)
        try:
            transport, _, _ = await self._dialer.dial(
                lambda: asyncio.StreamReaderProtocol(reader),
                addresses,
                source=_SYSTEM,
                deadline=deadline,
                port=443 if secure else 80,
                tls=(self._context, host) if secure else None,
            )
        except Unroutable as error:
            raise _Ended(f"blocked: {error.blocked[0][1].label}") from None
        except NoConnect as error:
            raise _Ended(f"no connection: {error}") from None
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            request = h11.Request(
                method="POST",
                target=path,
                headers=[
                    ("host", host),
                    ("user-agent", USER_AGENT),
                    ("content-type", "application/json"),
                    ("content-length", str(len(body))),
                    ("accept-encoding", "identity"),
                    ("connection", "close"),
                    *headers.items(),
                ],
            )
            await _exchange(reader, transport, request, body, heard)
        finally:
            transport.abort()

    async def _addresses(self, host: str, deadline: Deadline) -> tuple[IPAddress, ...]:
        found = await self._resolver.addresses(host, deadline)
        if found is None:
            raise _Ended("the name could not be looked up")
        if not found:
            raise _Ended("the name has no address")
        return found


async def _exchange(
    reader: asyncio.StreamReader,
    transport: asyncio.Transport,
    request: h11.Request,
    body: bytes,
    heard: list[Told],
) -> None:
    """Write the request; read until the answer is over, or long enough. The status is `heard`."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MOST)
    written = (http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage()))
    transport.write(b"".join(part for part in written if part))
    read = body_read = 0
    while body_read < RESPONSE_MOST:
        event = http.next_event()
        if event is h11.NEED_DATA:
            piece = await reader.read(PIECE)
            read += len(piece)
            if read > ANSWER_MOST:
                raise _Ended("the answer is too long")
            if not piece and not heard:
                raise _Ended("closed without an answer")
            http.receive_data(piece)
        elif isinstance(event, h11.Response):
            names = dict(event.headers)
            retry_after = names.get(b"retry-after", b"").decode("ascii", "replace")
            heard.append(Told(event.status_code, retry_after=retry_after[:64]))
        elif isinstance(event, h11.Data):
            body_read += len(event.data)
        elif not isinstance(event, h11.InformationalResponse):
            return  # the end; or another protocol, which nobody asked for
