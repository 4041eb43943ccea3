"""The dialogue: a pure machine that asks one server about one mailbox, and about a random one.

What it promises: bytes of the server go in (`receive`), bytes to write come out (`outgoing`). It
opens nothing, waits for nothing and reads no clock. Whatever the server sends, `receive` returns
or raises `RemoteProtocolError`, and once `finished`, the mailbox's answer is the reply to its RCPT
and to nothing else.

Rules:

1. `_ROWS` holds every reply that is in order, by the stage it answers. What is not in it ends the
   dialogue: a 3xx, a second greeting, a farewell nobody asked for.
2. As many replies as commands. A reply that comes before its command was handed out, one reply too
   many, or half a reply behind the last one is a breach, and is found before any reply that came
   with it is believed. Only a 421 may come unasked (RFC 5321 3.8).
3. The RSET that closes a transaction is its fence: it is answered 2xx, else replies and commands
   are out of step, and the answer before it belongs to something else. `finished` waits for it.
4. MAIL, RCPT and RSET go in one write if the server offers PIPELINING (RFC 2920), else one by one.
   The real address always goes first, the random one in a transaction of its own.
5. If MAIL is refused, the replies to the RCPT and RSET behind it are noise, whatever they say.
6. STARTTLS is the last command of its write, nothing may follow its 220 in clear (RFC 3207 6), and
   what the server said before the handshake is forgotten.
7. The writer has eight verbs. A message cannot be sent, because there is no way to say so.
8. A connection may be asked again (`ask`) only if it is in step and outside of any transaction; the
   next question is one write, and every rule above holds for it as it did for the first.

Bugs: two or more unasked replies that arrive in writes of their own, each after the next command
left, cannot be told from answers. The server that does so could as well lie outright. An answer
taken before its fence, because the server closed or the time was up, is not proven by rule 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal

from gate.reason import GateError, RemoteProtocolError
from gate.smtp.command import command
from gate.smtp.reply import Reply, ReplyReader

Tls = Literal["when-required", "always", "never"]


class Stage(StrEnum):
    """What is awaited, or was answered. CONNECT and TLS are the shell's own; CONTROL is the RCPT
    of the random address."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    HELO = "helo"
    STARTTLS = "starttls"
    TLS = "tls"
    MAIL = "mail"
    RCPT = "rcpt"
    CONTROL = "control"
    RSET = "rset"
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command as it was written (empty where none was) and its reply. Nothing is redacted."""

    stage: Stage
    command: str
    reply: Reply


_Step = tuple[Stage, bytes]
"""A command, and the stage that its reply answers."""

_GREETING: Final[_Step] = (Stage.GREETING, b"")
_STARTTLS: Final[_Step] = (Stage.STARTTLS, command("STARTTLS"))
_RSET: Final[_Step] = (Stage.RSET, command("RSET"))
_QUIT: Final[_Step] = (Stage.QUIT, command("QUIT"))
_NONE: Final[frozenset[str]] = frozenset()
_OF_THE_SERVER: Final = frozenset({Stage.GREETING, Stage.EHLO, Stage.HELO, Stage.STARTTLS})
"""Stages that are over once for a connection, whatever is asked on it."""
_OF_A_RECIPIENT: Final = (Stage.RCPT, Stage.CONTROL)
_IN_GROUP: Final = frozenset({Stage.MAIL, Stage.RCPT, Stage.CONTROL, Stage.RSET})
"""Stages behind which another command may be written before their reply has come (RFC 2920 3.1)."""


@lru_cache(maxsize=64)
def _of_ours(stage: Stage, verb: str, argument: str, smtputf8: bool = False) -> _Step:
    """A command about ourselves, which are few names: written once. Never one about a mailbox."""
    return stage, command(verb, argument, smtputf8=smtputf8)


class Dialog:
    """One dialogue, from the greeting on. See the rules above.

    The shell's loop: `receive` what arrives, write what `outgoing` gives, upgrade when `wants_tls`,
    stop when `finished`. When the connection ends or the time is up before that, the answers that
    `reply_to` already has still stand. After a breach there are none. While it is `reusable`, `ask`
    begins with the next mailbox.
    """

    __slots__ = (
        "_answers",
        "_awaited",
        "_broken",
        "_capabilities",
        "_control_turn",
        "_ehlo",
        "_encrypted",
        "_ended",
        "_helo",
        "_mail_from",
        "_mail_taken",
        "_over",
        "_plan",
        "_reader",
        "_said",
        "_script",
        "_smtputf8",
        "_stage",
        "_tls",
        "_tls_next",
        "_unasked",
        "_unsent",
        "_wants_tls",
        "refusals",
        "smtputf8_missing",
        "tls_required",
        "transactions",
    )

    def __init__(
        self,
        *,
        helo: str,
        mail_from: str,
        recipient: str | None,
        control: str | None,
        tls: Tls,
        smtputf8: bool,
    ) -> None:
        """Write every command, so that what cannot be written is known before the connection.

        Args:
            helo: our name.
            mail_from: our envelope sender.
            recipient: the address asked about, as it goes on the wire; None: get acquainted only,
                and have the connection ready for a question.
            control: a random address of the same domain, or None if it is not to be asked.
            tls: when to upgrade; "always" gives up on a server that does not offer STARTTLS.
            smtputf8: an address is not ASCII, and needs the extension (RFC 6531).

        Raises:
            GateError: an argument cannot be written.
        """
        self._helo = helo
        self._ehlo = _of_ours(Stage.EHLO, "EHLO", helo)
        self._mail_from = mail_from
        self._script = self._question(recipient, control, smtputf8)
        self._tls = tls
        self._smtputf8 = smtputf8
        self._reader = ReplyReader()
        self._capabilities = _NONE
        self._plan: list[_Step] = []  # of the script, not decided yet: one command at a time
        self._unsent: list[_Step] = []  # decided, not handed out yet
        self._awaited = [_GREETING]  # handed out, not answered yet
        self._said: list[tuple[_Step, Reply]] = []
        self._answers: dict[Stage, Reply] = {}
        self._stage = Stage.GREETING  # answered last; once over, the stage that ended it
        self._mail_taken = False  # the MAIL of the running transaction was accepted
        self._control_turn = False  # the running transaction is the random address's
        self._tls_next = False  # STARTTLS follows as soon as nothing is awaited
        self._wants_tls = False
        self._encrypted = False
        self._over = False
        self._ended = False  # nothing may be written any more, and nothing that comes counts
        self._broken = False
        self._unasked = False  # acquainted, and nothing was or could be asked
        self.transactions = 0
        """MAIL commands that were answered on this connection."""
        self.refusals = 0
        """Replies of 400 and above on this connection: servers count them as errors of ours."""
        self.tls_required = False
        """TLS is demanded, by the server or by our setting, and is not on."""
        self.smtputf8_missing = False
        """The address needs SMTPUTF8, and the server does not offer it: nothing was asked."""

    # -- what the shell asks ----------------------------------------------------------------------
    @property
    def stage(self) -> Stage:
        """What is awaited; once finished, the stage that ended it: a refusal's, or the last one."""
        if self._wants_tls:
            return Stage.TLS
        waiting = self._awaited or self._unsent
        return waiting[0][0] if waiting and not self._over else self._stage

    @property
    def finished(self) -> bool:
        """Nothing more is to be learnt: every question is answered and fenced, or was refused."""
        return self._over

    @property
    def reusable(self) -> bool:
        """In step, outside of any transaction and welcome: the connection may serve again."""
        fenced = self._stage is Stage.RSET and self._mail_taken
        clean = self._over and not (self._ended or self._awaited or self.tls_required)
        return clean and (fenced or self._unasked) and not self._reader.pending

    @property
    def unheard(self) -> bool:
        """No command since the last question began was answered, unless by a 421: the server was
        closing, and would have said so to anybody (RFC 5321 3.8)."""
        return not self.smtputf8_missing and all(reply.code == 421 for _, reply in self._said)

    @property
    def wants_tls(self) -> bool:
        """The server awaits the handshake: call `tls_started` or `tls_failed` after it."""
        return self._wants_tls

    @property
    def exchanges(self) -> list[Exchange]:
        """Everything that was said since the last question began, in order; kept after a breach."""
        return [
            Exchange(stage, line.decode().removesuffix("\r\n"), reply)
            for (stage, line), reply in self._said
        ]

    def reply_to(self, stage: Stage) -> Reply | None:
        """The answer of a stage, None as long as there is none.

        MAIL and RCPT are the real address's. An RCPT behind a refused MAIL has no answer, a
        dialogue that was broken has no answers at all, and those from before TLS are forgotten.
        """
        return self._answers.get(stage)

    # -- what the shell does ----------------------------------------------------------------------
    def ask(self, recipient: str, control: str | None, *, smtputf8: bool) -> None:
        """Begin with another mailbox, on the same connection. Arguments as for the first.

        What was answered about the last one is forgotten; what the server said of itself is kept.

        Raises:
            GateError: the connection is not `reusable`, or an argument cannot be written.
        """
        if not self.reusable:
            raise GateError("ask() on a connection that is not reusable")
        self._script = self._question(recipient, control, smtputf8)
        self._smtputf8 = smtputf8
        self._answers = {
            stage: reply for stage, reply in self._answers.items() if stage in _OF_THE_SERVER
        }
        self._said = []
        self._reader.next_question()
        self._over = self._unasked = self.smtputf8_missing = False
        self._begin_questions()

    def outgoing(self) -> bytes:
        """Hand out what is to be written now; b"" if nothing is. From here on it is awaited."""
        if not self._unsent:
            return b""
        self._awaited += self._unsent
        data = b"".join([line for _, line in self._unsent])
        self._unsent = []
        return data

    def receive(self, data: bytes) -> None:
        """Take what arrived.

        Raises:
            RemoteProtocolError: the server broke a rule. The dialogue is finished, its answers are
                withdrawn, and it raises for ever.
        """
        if self._broken:
            raise RemoteProtocolError("the dialogue was broken before")
        self._stage = self.stage
        try:
            self._take(self._reader.feed(data))
        except RemoteProtocolError:
            self._end()
            self._broken = True
            self._awaited = []
            self._answers = {}
            raise

    def tls_started(self) -> None:
        """The handshake is done: forget what was said in clear, begin again with EHLO.

        RFC 3207 4.2. The greeting and the reply to STARTTLS are kept: they are not said again.

        Raises:
            GateError: no handshake was asked for.
        """
        if not self._wants_tls:
            raise GateError("tls_started() without wants_tls")
        kept = (Stage.GREETING, Stage.STARTTLS)
        self._answers = {stage: self._answers[stage] for stage in kept}
        self._capabilities = _NONE
        self._encrypted = True
        self._wants_tls = self.tls_required = False
        self._unsent = [self._ehlo]

    def tls_failed(self) -> None:
        """The handshake failed: nothing can be said on this connection any more.

        Raises:
            GateError: no handshake was asked for.
        """
        if not self._wants_tls:
            raise GateError("tls_failed() without wants_tls")
        self._stage = Stage.TLS
        self._end()

    def quit(self) -> bytes:
        """Take leave: the QUIT to write, b"" where none is in order. Nothing is written after it.

        It is in order when nothing is awaited, or behind a group (RFC 2920 3.1); never before the
        greeting, in a handshake, after a 421, a breach, or another QUIT.
        """
        idle = not self._awaited or (
            "PIPELINING" in self._capabilities
            and all(stage in _IN_GROUP for stage, _ in self._awaited)
        )
        in_order = idle and not (self._ended or self._wants_tls)
        self._stage = self.stage
        self._end()
        if not in_order:
            return b""
        self._awaited.append(_QUIT)
        return _QUIT[1]

    # -- one question -----------------------------------------------------------------------------
    def _question(self, recipient: str | None, control: str | None, smtputf8: bool) -> list[_Step]:
        """Every command of a question: a transaction for each recipient, closed by its fence."""
        mail = _of_ours(Stage.MAIL, "MAIL", self._mail_from, smtputf8)
        if recipient is None:
            return []
        script = [mail, (Stage.RCPT, command("RCPT", recipient, smtputf8=smtputf8)), _RSET]
        if control is not None:
            random = (Stage.CONTROL, command("RCPT", control, smtputf8=smtputf8))
            script += [mail, random, _RSET]
        return script

    def _begin_questions(self) -> None:
        """Put the question out, at once or one command at a time, if the server can take it."""
        if self._smtputf8 and "SMTPUTF8" not in self._capabilities:
            # RFC 6531 3.5: such an address must not be sent to a server that does not offer it.
            self.smtputf8_missing = self._unasked = self._over = True
            return
        self._control_turn = self._mail_taken = False
        if not self._script:
            self._unasked = self._over = True
        elif "PIPELINING" in self._capabilities:
            self._unsent += self._script
        else:
            self._plan = self._script.copy()
            self._go_on()

    # -- one reply after the other ----------------------------------------------------------------
    def _take(self, replies: list[Reply]) -> None:
        """Give each reply to the command it answers."""
        unasked = len(replies) - len(self._awaited)
        notice = replies.pop() if unasked == 1 and replies[-1].code == 421 else None
        if len(replies) > len(self._awaited):
            raise RemoteProtocolError("more replies than commands")
        for reply in replies:
            self._answer(self._awaited.pop(0), reply)
        if self._awaited:
            return
        if self._wants_tls and (notice or self._reader.pending):
            raise RemoteProtocolError("bytes in clear behind the 220 to STARTTLS")
        if notice:
            # RFC 5321 3.8: who must shut down may say so unasked. It answers what was to come.
            self._answer((self.stage, b""), notice)
        if not "421".startswith(self._reader.beginning):
            raise RemoteProtocolError("bytes behind the last reply")

    def _answer(self, step: _Step, reply: Reply) -> None:
        """Take the reply to one command: note it, and make the move that the table names."""
        self._said.append((step, reply))
        if reply.code >= 400:
            self.refusals += 1
        if self._ended:
            return
        stage = step[0]
        move = _MOVES[stage][reply.code]
        if move is None:
            raise RemoteProtocolError(f"{reply.code} in reply to {stage}")
        # Neither the noise behind a refused MAIL is an answer, nor the MAIL of the random address.
        if stage is Stage.MAIL:
            self.transactions += 1
            is_answer = not self._control_turn
        else:
            is_answer = self._mail_taken or stage not in _OF_A_RECIPIENT
        if not self._over:
            self._stage = stage
            if is_answer:
                self._answers[stage] = reply
        move(self, reply)

    def _end(self) -> None:
        """Write nothing any more."""
        self._over = self._ended = True
        self._wants_tls = False
        self._unsent = []

    def _go_on(self) -> None:
        """What follows a reply: the next command of the plan, or the upgrade that waits for it."""
        if self._plan:
            self._unsent.append(self._plan.pop(0))
        elif self._tls_next and not self._awaited:
            self._tls_next = False
            self._unsent.append(_STARTTLS)

    # -- moves: getting acquainted ----------------------------------------------------------------
    def _greeted(self, reply: Reply) -> None:
        self._unsent.append(self._ehlo)

    def _not_extended(self, reply: Reply) -> None:
        """EHLO is not known there: HELO on the same connection (RFC 5321 3.2)."""
        self._unsent.append((Stage.HELO, command("HELO", self._helo)))

    def _extended(self, reply: Reply) -> None:
        """The first line is the server's name; each one after it begins with an extension's."""
        names = [line.partition(" ")[0].upper() for line in reply.lines[1:]]
        self._capabilities = frozenset(names)
        self._introduced(reply)

    def _introduced(self, reply: Reply) -> None:
        """EHLO or HELO was accepted: upgrade, give up, or ask."""
        if self._tls == "always" and not self._encrypted:
            self._require_tls()
        else:
            self._begin_questions()

    def _upgrading(self, reply: Reply) -> None:
        self._wants_tls = True

    def _refused(self, reply: Reply) -> None:
        """No transaction was begun, and none will be."""
        self._over = True

    def _closing(self, reply: Reply) -> None:
        """421: the server closes, whatever was asked (RFC 5321 3.8)."""
        self._end()

    # -- moves: transactions ----------------------------------------------------------------------
    def _sender_taken(self, reply: Reply) -> None:
        self._mail_taken = True
        self._go_on()

    def _sender_refused(self, reply: Reply) -> None:
        """No transaction: there is nothing to ask in it, and nothing to reset.

        If it is the random address's, the replies behind it are awaited all the same: only their
        number proves that the mailbox's answer, which was accepted before, is its own.
        """
        self._mail_taken = False
        self._plan = []
        if self._asks_for_tls(reply):
            self._require_tls()
        elif not (self._awaited and (self._control_turn or self._tls_next)):
            self._over = True

    def _mailbox_answered(self, reply: Reply) -> None:
        """The reply to an RCPT; noise if its MAIL was refused."""
        if self._mail_taken:
            if reply.code < 300 and reply.contradicts:
                raise RemoteProtocolError("an acceptance whose enhanced code is a refusal")
            if self._asks_for_tls(reply):
                self._plan = self._plan[:1]
                self._require_tls()
                return
            if 400 <= reply.code < 500:
                self._plan = self._plan[:1]  # the random address would be put off as well
        self._go_on()

    def _fenced(self, reply: Reply) -> None:
        """The transaction is over; so is the dialogue, unless something is left to say."""
        self._control_turn = True
        self._over = self._over or not (self._plan or self._awaited or self._tls_next)
        self._go_on()

    def _not_fenced(self, reply: Reply) -> None:
        """A server that refused the sender may refuse RSET as well; any other is out of step."""
        if self._mail_taken:
            raise RemoteProtocolError(f"{reply.code} in reply to a RSET that had work to do")
        self._fenced(reply)

    # -- TLS on demand ----------------------------------------------------------------------------
    def _asks_for_tls(self, reply: Reply) -> bool:
        """A refusal that TLS may cure: 530 that is not about AUTH (RFC 3207 4), or in words."""
        if reply.code < 400 or self._encrypted or self._control_turn:
            return False
        words = reply.text.lower()
        return "starttls" in words or (reply.code == 530 and "auth" not in words)

    def _require_tls(self) -> None:
        """Upgrade once all replies are in, or give up if that cannot be."""
        self.tls_required = True
        if self._tls == "never" or "STARTTLS" not in self._capabilities:
            self._over = True
            self._plan = []
        else:
            self._tls_next = True
            self._go_on()


# -- the table ------------------------------------------------------------------------------------
_Move = Callable[[Dialog, Reply], None]

_ROWS: Final[tuple[tuple[Stage, tuple[int, ...], _Move], ...]] = (
    (Stage.GREETING, (220,), Dialog._greeted),
    (Stage.GREETING, (4, 5), Dialog._refused),
    (Stage.EHLO, (2,), Dialog._extended),
    (Stage.EHLO, (500, 502, 504), Dialog._not_extended),
    (Stage.EHLO, (4, 5), Dialog._refused),
    (Stage.HELO, (2,), Dialog._introduced),
    (Stage.HELO, (4, 5), Dialog._refused),
    (Stage.STARTTLS, (220,), Dialog._upgrading),
    (Stage.STARTTLS, (4, 5), Dialog._refused),
    (Stage.MAIL, (2,), Dialog._sender_taken),
    (Stage.MAIL, (4, 5), Dialog._sender_refused),
    (Stage.RCPT, (2, 4, 5), Dialog._mailbox_answered),
    (Stage.CONTROL, (2, 4, 5), Dialog._mailbox_answered),
    (Stage.RSET, (2,), Dialog._fenced),
    (Stage.RSET, (4, 5), Dialog._not_fenced),
)
"""The stage answered; codes, or first digits of codes; what such a reply leads to."""


def _moves(stage: Stage) -> dict[int, _Move | None]:
    """What each code leads to at a stage. A code of its own goes before its first digit: 421 closes
    everywhere; 220 and 221 begin and end a session, and are in order only where a row says so.
    """
    named: dict[int, _Move | None] = {220: None, 221: None, 421: Dialog._closing}
    for at, codes, move in _ROWS:
        if at is stage:
            named |= dict.fromkeys(codes, move)
    return {code: named.get(code, named.get(code // 100)) for code in range(200, 600)}


_MOVES: Final[Mapping[Stage, Mapping[int, _Move | None]]] = {
    stage: _moves(stage) for stage in Stage
}
"""The rows, by stage and code; None where a code is not in order."""
