"""`MailHost`: a well-behaved mail server on loopback that follows rules instead of a script.

What it knows: which mailboxes exist, are full or switched off; accept-all; greylisting; refusals at
any stage; slowness; what it offers. It keeps the order of commands as RFC 5321 wants it (503
otherwise) and answers what is pipelined in one write. It is what the sandbox is built of. It
takes no message: DATA is a complaint, as everywhere in this kit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gate.budget import PRACTICE_IDLE, Clock
from gate.testing.tls import server_context
from gate.testing.wire import Connection, SmtpListener

SLOW = "slow-"
"""`slow-1500@…` is a mailbox whose RCPT takes 1500 ms to be answered."""
SLOWEST_MS = 60_000
GREYLISTED_MOST = 10_000
"""Triplets a host remembers; beyond that it forgets the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRules:
    """How a `MailHost` behaves.

    Local parts are compared without their tag (`jane+news` is `jane`) and without case. `domains`
    empty: it serves every domain. `answers`: the reply to `greeting`, `ehlo`, `mail` or `rcpt`
    instead of the usual one; `mailboxes`: the reply to RCPT for that local part. `greylist`:
    seconds for which a new (IP, sender, recipient) is put off; `greylist_unknown`: users that do
    not exist are put off as well. `round_trip`: seconds added to each burst of commands, as a
    distant host would take.
    """

    name: str = "mx.test"
    users: Collection[str] = ()
    full: Collection[str] = ()
    disabled: Collection[str] = ()
    domains: Collection[str] = ()
    accept_all: bool = False
    mailboxes: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    greylist: float = 0.0
    greylist_unknown: bool = False
    round_trip: float = 0.0
    pipelining: bool = True
    smtputf8: bool = True
    starttls: Literal["none", "offered", "required"] = "none"


@dataclass(slots=True)
class _Session:
    """Where one connection stands in the order of commands."""

    connection: Connection
    greeted: bool = False
    sender: str | None = None
    utf8: bool = False
    out: list[str] = field(default_factory=list)


class MailHost(SmtpListener):
    """Serves `rules` on loopback. `clock` times the greylist only, so that a test may move it."""

    def __init__(
        self,
        rules: HostRules,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock = time.monotonic,
        history: int = 10_000,
        strict: bool = True,
    ) -> None:
        super().__init__(host=host, port=port, history=history, strict=strict)
        self.rules = rules
        self._clock = clock
        self._first_seen: dict[tuple[str, str, str], float] = {}

    def __repr__(self) -> str:
        return f"<MailHost {self.rules.name}, {self.accepted} connections>"

    async def talk(self, connection: Connection) -> None:
        """Serve one connection until it ends, is silent too long, or says QUIT."""
        session = _Session(connection)
        greeting = self.rules.answers.get("greeting", f"220 {self.rules.name} ESMTP")
        await self._write(connection, [greeting])
        if not greeting.startswith("2"):
            return
        while True:
            waiting = not connection.more
            try:
                async with asyncio.timeout(PRACTICE_IDLE):
                    line = await connection.line()
            except TimeoutError:
                await self._write(connection, [f"421 4.4.2 {self.rules.name} idle for too long"])
                return
            if line is None:
                return
            if waiting and self.rules.round_trip:
                await asyncio.sleep(self.rules.round_trip)
            if await self._answer(session, line):
                return

    async def _answer(self, session: _Session, line: str) -> bool:
        """Answer one command; True when the connection is over."""
        verb, _, argument = line.partition(" ")
        verb = verb.upper()
        if verb == "RCPT":
            await self._be_slow(session, argument)
        reply = self._reply(session, verb, argument)
        session.out.append(reply)
        over = verb == "QUIT" or reply.startswith("421")
        upgrade = verb == "STARTTLS" and reply.startswith("220")
        if upgrade:
            # The ClientHello belongs to TLS; it must not be read as a command line.
            session.connection.hold_reading()
        if over or upgrade or not session.connection.more:
            await self._write(session.connection, session.out)
            session.out = []
        if upgrade:
            await session.connection.start_tls(server_context())
            session.greeted, session.sender = False, None
        return over

    async def _be_slow(self, session: _Session, argument: str) -> None:
        if milliseconds := _slowness(_local(_path(argument))):
            await self._write(session.connection, session.out)
            session.out = []
            await asyncio.sleep(milliseconds / 1000)

    async def _write(self, connection: Connection, replies: list[str]) -> None:
        if replies:
            await connection.send("".join(f"{reply}\r\n" for reply in replies).encode())

    def _reply(self, session: _Session, verb: str, argument: str) -> str:
        match verb:
            case "EHLO" | "HELO":
                return self._hello(session, extended=verb == "EHLO")
            case "MAIL":
                return self._mail(session, argument)
            case "RCPT":
                return self._rcpt(session, argument)
            case "RSET":
                session.sender = None
                return "250 2.0.0 flushed"
            case "NOOP":
                return "250 2.0.0 ok"
            case "QUIT":
                return f"221 2.0.0 {self.rules.name} closing"
            case "STARTTLS" if self.rules.starttls != "none" and not session.connection.tls:
                return "220 2.0.0 ready to start TLS"
            case _:
                return "502 5.5.1 command not implemented"

    def _hello(self, session: _Session, *, extended: bool) -> str:
        rules = self.rules
        answer = rules.answers.get("ehlo")
        if answer and not answer.startswith("2"):
            return answer
        session.greeted, session.sender = True, None
        if not extended:
            return f"250 {rules.name}"
        offers = [rules.name, "8BITMIME"]
        offers += ["PIPELINING"] if rules.pipelining else []
        offers += ["SMTPUTF8"] if rules.smtputf8 else []
        offers += ["STARTTLS"] if rules.starttls != "none" and not session.connection.tls else []
        offers.append("ENHANCEDSTATUSCODES")
        return answer or "\r\n".join([*(f"250-{o}" for o in offers[:-1]), f"250 {offers[-1]}"])

    def _mail(self, session: _Session, argument: str) -> str:
        if not session.greeted:
            return "503 5.5.1 send EHLO first"
        if self.rules.starttls == "required" and not session.connection.tls:
            return "530 5.7.0 must issue a STARTTLS command first"
        if session.sender is not None:
            return "503 5.5.1 nested MAIL command"
        session.utf8 = argument.upper().endswith(" SMTPUTF8")
        if session.utf8 and not self.rules.smtputf8:
            return "555 5.5.4 SMTPUTF8 is not offered"
        answer = self.rules.answers.get("mail", "250 2.1.0 sender ok")
        if answer.startswith("2"):
            session.sender = _path(argument)
        return answer

    def _rcpt(self, session: _Session, argument: str) -> str:
        rules = self.rules
        if session.sender is None:
            return "503 5.5.1 need MAIL first"
        address = _path(argument)
        if not address.isascii() and not session.utf8:
            return "553 5.6.7 non-ASCII address needs SMTPUTF8"
        local = _local(address)
        if "rcpt" in rules.answers:
            return rules.answers["rcpt"]
        if rules.domains and address.rpartition("@")[2].lower() not in rules.domains:
            return "554 5.7.1 relay access denied"
        known = rules.accept_all or local in rules.users or _slowness(local) > 0
        if rules.greylist and (known or rules.greylist_unknown):
            if left := self._greylist(session, address):
                return f"451 4.7.1 Greylisted, please try again in {left} seconds"
        return self._of_mailbox(local, known=known)

    def _of_mailbox(self, local: str, *, known: bool) -> str:
        rules = self.rules
        if local in rules.mailboxes:
            return rules.mailboxes[local]
        if local in rules.full:
            return "552 5.2.2 mailbox full: the user is over quota"
        if local in rules.disabled:
            return "550 5.2.1 this mailbox is disabled"
        return "250 2.1.5 recipient ok" if known else "550 5.1.1 no such user here"

    def _greylist(self, session: _Session, address: str) -> int:
        """Whole seconds this triplet must still wait; 0 when it may pass."""
        triplet = (session.connection.peer[0], session.sender or "", address.lower())
        now = self._clock()
        if triplet not in self._first_seen and len(self._first_seen) >= GREYLISTED_MOST:
            del self._first_seen[next(iter(self._first_seen))]
        left = self._first_seen.setdefault(triplet, now) + self.rules.greylist - now
        return 0 if left <= 0 else max(1, round(left))


def _path(argument: str) -> str:
    """The address between `<` and `>` of a MAIL or RCPT argument."""
    return argument.partition("<")[2].rpartition(">")[0]


def _local(address: str) -> str:
    """The local part without tag and case, as this host names its mailboxes."""
    return address.rpartition("@")[0].partition("+")[0].lower()


def _slowness(local: str) -> int:
    """Milliseconds that `slow-1500` takes to be answered; 0 for every other local part."""
    count = local.removeprefix(SLOW)
    if count == local or not (count.isascii() and count.isdecimal() and len(count) <= 5):
        return 0
    return min(int(count), SLOWEST_MS)
