"""The I/O shell of one connection: a socket, a `Dialog`, and the time they may take.

What it promises: whatever the peer does, `run` ends by the deadline, and the connection is gone at
most QUIT_LINGER later. Every stage has its own limit inside the one deadline, counted from the
moment the question was written, so a peer that trickles gains nothing. Nobody waits for the answer
to QUIT; the first bytes that come after it close the connection.

A session that may `stay` is at rest when its dialogue is finished and clean: whoever owns it lets
it `leave`, or may `ask` again. Whatever arrives while it rests closes it, a 421 included, and so
does the end of the stream; `usable` also sees what the event loop has not told yet.

It decides nothing about mail: what was learnt is in `dialog`, how it ended is what `run` returns.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

from gate.budget import COMMAND, GREETING, QUIT_LINGER, TLS_HANDSHAKE, Deadline
from gate.reason import RemoteProtocolError
from gate.smtp.dialog import Dialog, Stage


class Ending(Enum):
    """How a session ended. The answers that `dialog` has stand after all of them but BROKEN."""

    FINISHED = "nothing more is to be learnt"
    LOST = "the peer closed"
    TIMED_OUT = "the time was up"
    BROKEN = "the peer broke the protocol"
    LOOP = "the peer greets with our own name"
    TLS_FAILED = "the handshake failed"
    TLS_TIMED_OUT = "the handshake hung"
    LIMITED = "to say it all again behind TLS is more than our limits allow"


_GROUPS = {
    Stage.GREETING: "greeting",
    Stage.EHLO: "hello",
    Stage.HELO: "hello",
    Stage.STARTTLS: "tls",
    Stage.TLS: "tls",
}
"""Stages that are timed together; all others are of the envelope."""


class Watch:
    """Who counts what connections do. This one does not."""

    def took(self, stage: str, seconds: float) -> None:
        """A stage is over: connect, greeting, hello, tls, envelope."""

    def ended(self, ending: Ending) -> None:
        """A dialogue is over, whether or not its connection is kept."""


def tls_context() -> ssl.SSLContext:
    """The one TLS context of all sessions: making one costs as much as hundreds of dialogues.

    Certificates are not verified, for a mail server's rarely can be (RFC 7435) and no secret is
    sent. OpenSSL bounds the length of a chain by itself.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class Register(Protocol):
    """What is told of a session: that its connection exists, and that it does no longer."""

    def add(self, session: Session, /) -> None: ...
    def discard(self, session: Session, /) -> None: ...


class Session(asyncio.Protocol):
    """One connection. The dialler makes it the connection's protocol; then `await run()`."""

    __slots__ = (
        "_alive",
        "_command",
        "_context",
        "_end",
        "_ending",
        "_exists",
        "_gone",
        "_greeting",
        "_group",
        "_helo",
        "_loop",
        "_poll",
        "_resting",
        "_shaking_hands",
        "_since",
        "_stay",
        "_timer",
        "_transport",
        "_until",
        "_wake",
        "_watch",
        "again",
        "dialog",
        "our_ip",
    )

    def __init__(
        self,
        dialog: Dialog,
        *,
        helo: str,
        deadline: Deadline,
        context: ssl.SSLContext,
        alive: Register,
        stage: float | None = None,
        stay: bool = False,
        watch: Watch | None = None,
    ) -> None:
        """`alive` holds the session for as long as its connection exists. `stage`: seconds for
        the greeting and for each command, instead of GREETING and COMMAND. `stay`: do not take
        leave of a host that may be asked again.
        """
        self.dialog = dialog
        self.our_ip = ""
        self.again: Callable[[], bool] = lambda: True
        """Whether the question may be put once more, behind TLS that the host demands."""
        self._watch = watch or Watch()
        self._group = "greeting"
        self._helo = helo
        self._context = context
        self._greeting, self._command = stage or GREETING, stage or COMMAND
        self._alive = alive
        self._exists = False
        self._stay = stay
        self._resting = False
        self._poll: select.poll | None = None
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + deadline.left()
        self._until = self._end
        self._since = self._end
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._ending: Ending | None = None
        self._shaking_hands = False
        self._wake: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] | None = None

    async def run(self, server_name: str) -> Ending:
        """Talk until there is nothing more to learn. `server_name`: the host's, for TLS (SNI)."""
        try:
            while self._ending is None:
                await self._wake
                if self._ending is None:
                    await self._upgrade(server_name)
        except BaseException:
            self.abort()
            raise
        self._watch.ended(self._ending)
        return self._ending

    def ask(
        self,
        recipient: str,
        control: str | None,
        *,
        smtputf8: bool,
        deadline: Deadline,
        stage: float | None = None,
    ) -> None:
        """Begin with another mailbox, on a session at rest; then `await run()` again."""
        self.dialog.ask(recipient, control, smtputf8=smtputf8)
        if self.dialog.finished:
            return
        self._resting = False
        self._ending = None
        self._command = stage or COMMAND
        self._end = self._loop.time() + deadline.left()
        self._wake = self._loop.create_future()
        self._group, self._since = "envelope", self._loop.time()
        self._write()
        self._timer = self._loop.call_at(self._until, self._look)

    @property
    def resting(self) -> bool:
        """Finished, clean and not told QUIT: it waits for `ask` or `leave`."""
        return self._resting

    def usable(self) -> bool:
        """At rest, and its peer has neither spoken nor left: the socket itself is looked at."""
        if not self._resting or self._transport is None or self._transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            socket = self._transport.get_extra_info("socket")
            self._poll.register(socket.fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def leave(self) -> None:
        """Say QUIT on a session at rest, and let it close."""
        if self._resting:
            self._say_quit()

    def drop(self) -> None:
        """Abort a connection that the dialler did not hand over.

        A loop that is cancelled between making a connection and saying so need not tell the
        protocol that it closed it again.
        """
        self.abort()
        self.connection_lost(None)

    async def gone(self) -> None:
        """Wait until the connection no longer exists; `abort` is what makes that soon."""
        if self._exists:
            if self._gone is None:
                self._gone = self._loop.create_future()
            await asyncio.shield(self._gone)

    def abort(self, ending: Ending = Ending.LOST) -> None:
        """Drop the connection now, whatever is still to be written."""
        self._finish(ending)
        self._resting = False
        if self._transport is not None:
            self._transport.abort()

    # -- what asyncio calls ----------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._exists = True
        self._alive.add(self)
        self.our_ip = transport.get_extra_info("sockname")[0]
        self._since = self._loop.time()
        # Set once, for the shortest limit; when it goes off it looks which stage it is by then.
        # Most dialogues are over before, and a timer for each stage would cost more than the stage.
        self._limit(self._command)
        self._timer = self._loop.call_at(self._until, self._look)
        self._limit(self._greeting)

    def data_received(self, data: bytes) -> None:
        if self._ending is not None:
            self.abort()
            return
        try:
            self.dialog.receive(data)
        except RemoteProtocolError:
            self.abort(Ending.BROKEN)
            return
        self._clock_in()
        if self.dialog.stage is Stage.EHLO and self._is_our_own_greeting():
            self.abort(Ending.LOOP)
        elif self.dialog.finished:
            self._take_leave()
        elif self.dialog.wants_tls:
            self._wake_up()
        else:
            self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shaking_hands:
            self._finish(Ending.LOST)
        self._exists = self._resting = False
        self._alive.discard(self)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _clock_in(self) -> None:
        """Tell how long a group of stages took, if it is over."""
        group = "" if self.dialog.finished else _GROUPS.get(self.dialog.stage, "envelope")
        if group != self._group:
            now = self._loop.time()
            self._watch.took(self._group, now - self._since)
            self._group, self._since = group, now

    # -- writing and waiting ---------------------------------------------------------------------
    def _write(self) -> None:
        data = self.dialog.outgoing()
        if data and self._transport is not None:
            self._transport.write(data)
            self._limit(self._command)

    def _limit(self, seconds: float) -> None:
        """The stage that begins now may take so long."""
        self._until = min(self._end, self._loop.time() + seconds)

    def _look(self) -> None:
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self.abort(Ending.TIMED_OUT)

    def _is_our_own_greeting(self) -> bool:
        greeting = self.dialog.reply_to(Stage.GREETING)
        name = greeting.text.partition(" ")[0] if greeting else ""
        return name.lower() == self._helo.lower()

    async def _upgrade(self, server_name: str) -> None:
        """STARTTLS was answered 220: the handshake, which has a timer of its own."""
        asked = any(said.stage is Stage.MAIL for said in self.dialog.exchanges)
        if asked and not self.again():
            self.abort(Ending.LIMITED)
            return
        self._stop_timer()
        self._limit(TLS_HANDSHAKE)
        self._wake = self._loop.create_future()
        self._shaking_hands = True
        try:
            self._transport = await self._loop.start_tls(
                self._transport,  # type: ignore[arg-type]  # there is one: it has been read from
                self,
                self._context,
                server_hostname=server_name,
                ssl_handshake_timeout=self._until - self._loop.time(),
            )
        except (OSError, ValueError):  # ValueError: no time is left, or the name fits no SNI
            hung = self._loop.time() >= self._until
            self.abort(Ending.TLS_TIMED_OUT if hung else Ending.TLS_FAILED)
        finally:
            self._shaking_hands = False
            if self._transport is None or self._transport.is_closing():
                self.connection_lost(None)  # a loop may not tell when a handshake fails
        if self._ending is None:
            self.dialog.tls_started()
            self._write()
            self._look()

    # -- the end ---------------------------------------------------------------------------------
    def _take_leave(self) -> None:
        self._resting = self._stay and self.dialog.reusable
        self._finish(Ending.FINISHED)
        if not self._resting:
            self._say_quit()

    def _say_quit(self) -> None:
        self._resting = False
        farewell = self.dialog.quit()
        if farewell and self._transport is not None:
            self._transport.write(farewell)
            self._timer = self._loop.call_later(QUIT_LINGER, self.abort)
        else:
            self.abort()

    def _finish(self, ending: Ending) -> None:
        """Note how it ended, once, and wake `run`."""
        self._stop_timer()
        if self._ending is None:
            self._ending = ending
            self._wake_up()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wake_up(self) -> None:
        if not self._wake.done():
            self._wake.set_result(None)
