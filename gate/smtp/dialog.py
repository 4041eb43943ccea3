"""The dialogue: a pure machine that asks one server about one mailbox, and about a random one.

What it promises: bytes of the server go in (`receive`), bytes to write come out (`outgoing`). It
opens nothing, waits for nothing and reads no clock. Whatever the server sends, `receive` returns
or raises `RemoteProtocolError`, and an answer counts as the mailbox's only if it can be no other
command's.

Rules:

1. `_MOVES` holds every reply that is in order, by the stage it answers. What is not in it ends the
   dialogue: a 3xx, a second greeting, a farewell nobody asked for.
2. As many replies as commands. A reply that comes before its command was handed out, one reply too
   many, or half a reply behind the last one is a breach, and is found before any reply that came
   with it is believed.
3. The RSET that closes a transaction is its fence: it is answered 2xx, else replies and commands
   are out of step, and the answer before it belongs to something else. `finished` waits for it.
4. MAIL, RCPT and RSET go in one write if the server offers PIPELINING (RFC 2920), else one by one.
   The real address always goes first, the random one in a transaction of its own.
5. If MAIL is refused, the replies to the RCPT and RSET behind it are noise, whatever they say.
6. STARTTLS is the last command of its write, nothing may follow its 220 in clear (RFC 3207 6), and
   what the server said before the handshake is forgotten.
7. The writer has eight verbs. A message cannot be sent, because there is no way to say so.

Bugs: two or more unasked replies that arrive in writes of their own, each after the next command
left, cannot be told from answers. The server that does so could as well lie outright.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

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
    """One command as it was written (empty for the greeting) and its reply. Not redacted."""

    stage: Stage
    command: str
    reply: Reply


class _Step(NamedTuple):
    """A command and the stage that its reply answers."""

    stage: Stage
    line: bytes


_GREETING: Final = _Step(Stage.GREETING, b"")
_STARTTLS: Final = _Step(Stage.STARTTLS, command("STARTTLS"))
_RSET: Final = _Step(Stage.RSET, command("RSET"))
_QUIT: Final = _Step(Stage.QUIT, command("QUIT"))
_PIPELINED: Final = frozenset({Stage.MAIL, Stage.RCPT, Stage.CONTROL, Stage.RSET})
"""Stages behind which another command may be written before their reply has come (RFC 2920 3.1)."""


class Dialog:
    """One dialogue, from the greeting on. See the rules above.

    The shell's loop: `receive` what arrives, write what `outgoing` gives, upgrade when `wants_tls`,
    stop when `finished`. When the connection ends or the time is up before that, the answers that
    `reply_to` already has still stand. After a breach there are none.
    """

    def __init__(
        self,
        *,
        helo: str,
        mail_from: str,
        recipient: str,
        control: str | None,
        tls: Tls,
        smtputf8: bool,
    ) -> None:
        """Prepare every command, so that what cannot be written is known before the connection.

        Args:
            helo: our name.
            mail_from: our envelope sender.
            recipient: the address asked about, as it goes on the wire.
            control: a random address of the same domain, or None if it is not to be asked.
            tls: when to upgrade; "always" gives up on a server that does not offer STARTTLS.
            smtputf8: an address is not ASCII, and needs the extension (RFC 6531).

        Raises:
            GateError: an argument cannot be written.
        """
        self._ehlo = _Step(Stage.EHLO, command("EHLO", helo))
        self._helo = _Step(Stage.HELO, command("HELO", helo))
        mail = _Step(Stage.MAIL, command("MAIL", mail_from, smtputf8=smtputf8))
        real = _Step(Stage.RCPT, command("RCPT", recipient, smtputf8=smtputf8))
        self._script = [mail, real, _RSET]
        if control is not None:
            random = _Step(Stage.CONTROL, command("RCPT", control, smtputf8=smtputf8))
            self._script += [mail, random, _RSET]
        self._tls = tls
        self._smtputf8 = smtputf8
        self._reader = ReplyReader()
        self._capabilities: frozenset[str] = frozenset()
        self._unsent: list[_Step] = []  # decided, not handed out yet
        self._awaited = [_GREETING]  # handed out, not answered yet
        self._plan: list[_Step] = []  # of the script, not decided yet: one command at a time
        self._said: list[tuple[_Step, Reply]] = []
        self._answers: dict[Stage, Reply] = {}
        self._stage = Stage.GREETING
        self._mail_taken = False  # the MAIL of the running transaction was accepted
        self._control_turn = False  # the running transaction is the random address's
        self._tls_next = False  # STARTTLS follows as soon as nothing is awaited
        self._wants_tls = False
        self._encrypted = False
        self._over = False
        self._ended = False  # nothing may be written any more
        self._broken = False
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
        return waiting[0].stage if waiting and not self._over else self._stage

    @property
    def finished(self) -> bool:
        """Nothing more is to be learnt: every question is answered and fenced, or was refused."""
        return self._over

    @property
    def reusable(self) -> bool:
        """In step, outside of any transaction and welcome: the connection may serve again."""
        clean = self.smtputf8_missing or (self._stage is Stage.RSET and self._mail_taken)
        return clean and self._over and not (self._ended or self._awaited or self.tls_required)

    @property
    def wants_tls(self) -> bool:
        """The server awaits the handshake: call `tls_started` or `tls_failed` after it."""
        return self._wants_tls

    @property
    def exchanges(self) -> list[Exchange]:
        """Everything that was said, in order; kept after a breach."""
        return [
            Exchange(step.stage, step.line.decode().rstrip(), reply) for step, reply in self._said
        ]

    def reply_to(self, stage: Stage) -> Reply | None:
        """The answer of a stage, None as long as there is none.

        MAIL and RCPT are the real address's. An RCPT behind a refused MAIL has no answer, a
        dialogue that was broken has no answers at all, and those from before TLS are forgotten.
        """
        return self._answers.get(stage)

    # -- what the shell does ----------------------------------------------------------------------
    def outgoing(self) -> bytes:
        """Hand out what is to be written now; b"" if nothing is. From here on it is awaited."""
        if not self._unsent:
            return b""
        self._awaited += self._unsent
        data = b"".join([step.line for step in self._unsent])
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
        """The handshake is done: begin again with EHLO (RFC 3207 4.2).

        Raises:
            GateError: no handshake was asked for.
        """
        if not self._wants_tls:
            raise GateError("tls_started() without wants_tls")
        for stage in (Stage.EHLO, Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.CONTROL, Stage.RSET):
            self._answers.pop(stage, None)
        self._capabilities = frozenset()
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
        in_group = "PIPELINING" in self._capabilities and all(
            step.stage in _PIPELINED for step in self._awaited
        )
        allowed = not (self._ended or self._wants_tls) and (in_group or not self._awaited)
        self._stage = self.stage
        self._end()
        if not allowed:
            return b""
        self._awaited.append(_QUIT)
        return _QUIT.line

    # -- one reply after the other ----------------------------------------------------------------
    def _take(self, replies: list[Reply]) -> None:
        """Give each reply to the command it answers."""
        if len(replies) > len(self._awaited):
            raise RemoteProtocolError("more replies than commands")
        for reply in replies:
            step = self._awaited.pop(0)
            stage = step.stage
            self._said.append((step, reply))
            code = reply.code
            move = _MOVES.get((stage, code)) or _MOVES.get((stage, code // 100))
            if move is None:
                raise RemoteProtocolError(f"{code} in reply to {stage}")
            if not self._over:
                self._stage = stage
            move(self, stage, reply)
        if not self._awaited and self._reader.pending:
            raise RemoteProtocolError("bytes behind the last reply")

    def _end(self) -> None:
        """Write nothing any more."""
        self._over = self._ended = True
        self._wants_tls = False
        self._unsent = []
        self._plan = []

    def _note(self, stage: Stage, reply: Reply) -> None:
        """Keep a reply as the answer of its stage, unless it is noise or the random address's."""
        if stage in (Stage.RCPT, Stage.CONTROL):
            wanted = self._mail_taken
        else:
            wanted = stage is not Stage.MAIL or not self._control_turn
        if wanted:
            self._answers[stage] = reply

    def _out_of_step(self, stage: Stage, reply: Reply) -> None:
        raise RemoteProtocolError(f"{reply.code} in reply to {stage}")

    def _closing(self, stage: Stage, reply: Reply) -> None:
        """421: the server closes, whatever was asked (RFC 5321 3.8)."""
        self._note(stage, reply)
        self._end()

    def _refused(self, stage: Stage, reply: Reply) -> None:
        """Before any transaction: the end."""
        self._answers[stage] = reply
        self._over = True

    def _left(self, stage: Stage, reply: Reply) -> None:
        self._answers[stage] = reply

    # -- getting acquainted -----------------------------------------------------------------------
    def _greeted(self, stage: Stage, reply: Reply) -> None:
        self._answers[stage] = reply
        self._unsent.append(self._ehlo)

    def _fall_back(self, stage: Stage, reply: Reply) -> None:
        """EHLO is not known there: HELO on the same connection (RFC 5321 3.2)."""
        self._answers[stage] = reply
        self._unsent.append(self._helo)

    def _introduced(self, stage: Stage, reply: Reply) -> None:
        """EHLO or HELO was accepted: learn the extensions, then upgrade, give up, or ask."""
        self._answers[stage] = reply
        if stage is Stage.EHLO:
            self._capabilities = frozenset(
                [line.partition(" ")[0].upper() for line in reply.lines[1:]]
            )
        if self._tls == "always" and not self._encrypted:
            self._require_tls()
        elif self._smtputf8 and "SMTPUTF8" not in self._capabilities:
            # RFC 6531 3.5: such an address must not be sent to a server that does not offer it.
            self.smtputf8_missing = self._over = True
        elif "PIPELINING" in self._capabilities:
            self._control_turn = False
            self._unsent += self._script
        else:
            self._control_turn = False
            self._plan = self._script.copy()
            self._go_on()

    def _upgrade(self, stage: Stage, reply: Reply) -> None:
        self._answers[stage] = reply
        self._wants_tls = True

    def _require_tls(self) -> None:
        """TLS is needed: upgrade once all replies are in, or give up if that cannot be."""
        self.tls_required = True
        if self._tls == "never" or "STARTTLS" not in self._capabilities:
            self._over = True
            self._plan = []
        else:
            self._tls_next = True
            self._go_on()

    # -- transactions -----------------------------------------------------------------------------
    def _go_on(self) -> None:
        """What follows a reply: the next command of the plan, an upgrade that waits, or the end."""
        if self._plan:
            self._unsent.append(self._plan.pop(0))
        elif not self._awaited and self._tls_next:
            self._tls_next = False
            self._unsent.append(_STARTTLS)

    def _sender_taken(self, stage: Stage, reply: Reply) -> None:
        self._mail_taken = True
        self._note(stage, reply)
        self._go_on()

    def _sender_refused(self, stage: Stage, reply: Reply) -> None:
        """No transaction: there is nothing to ask in it, and nothing to reset."""
        self._mail_taken = False
        self._note(stage, reply)
        self._plan = []
        if self._demands_tls(reply):
            self._require_tls()
        elif not self._tls_next:
            self._over = True

    def _mailbox_answered(self, stage: Stage, reply: Reply) -> None:
        """The reply to an RCPT; noise if its MAIL was refused."""
        if self._mail_taken:
            if reply.code < 300 and reply.contradicts:
                raise RemoteProtocolError("an acceptance whose enhanced code is a refusal")
            self._note(stage, reply)
            if self._demands_tls(reply):
                self._plan = self._plan[:1]
                self._require_tls()
                return
            if 400 <= reply.code < 500:
                self._plan = self._plan[:1]  # the random address would be put off as well
        self._go_on()

    def _fenced(self, stage: Stage, reply: Reply) -> None:
        """RSET was answered: the transaction before it is over, and so may be the dialogue."""
        if self._mail_taken and reply.code >= 300:
            raise RemoteProtocolError(f"{reply.code} in reply to {stage}: out of step")
        self._note(stage, reply)
        self._control_turn = True
        if not (self._plan or self._awaited or self._tls_next):
            self._over = True
        self._go_on()

    def _demands_tls(self, reply: Reply) -> bool:
        """A refusal that TLS may cure: 530 that is not about AUTH (RFC 3207 4), or in words."""
        if reply.code < 400 or self._encrypted:
            return False
        words = reply.text.lower()
        return "starttls" in words or (reply.code == 530 and "auth" not in words)


_Move = Callable[[Dialog, Stage, Reply], None]

_MOVES: Final[Mapping[tuple[Stage, int], _Move]] = MappingProxyType(
    {
        **{(stage, 220): Dialog._out_of_step for stage in Stage},
        **{(stage, 221): Dialog._out_of_step for stage in Stage},
        **{(stage, 421): Dialog._closing for stage in Stage},
        (Stage.GREETING, 220): Dialog._greeted,
        (Stage.GREETING, 4): Dialog._refused,
        (Stage.GREETING, 5): Dialog._refused,
        (Stage.EHLO, 2): Dialog._introduced,
        (Stage.EHLO, 4): Dialog._refused,
        (Stage.EHLO, 500): Dialog._fall_back,
        (Stage.EHLO, 502): Dialog._fall_back,
        (Stage.EHLO, 504): Dialog._fall_back,
        (Stage.EHLO, 5): Dialog._refused,
        (Stage.HELO, 2): Dialog._introduced,
        (Stage.HELO, 4): Dialog._refused,
        (Stage.HELO, 5): Dialog._refused,
        (Stage.STARTTLS, 220): Dialog._upgrade,
        (Stage.STARTTLS, 4): Dialog._refused,
        (Stage.STARTTLS, 5): Dialog._refused,
        (Stage.MAIL, 2): Dialog._sender_taken,
        (Stage.MAIL, 4): Dialog._sender_refused,
        (Stage.MAIL, 5): Dialog._sender_refused,
        (Stage.RCPT, 2): Dialog._mailbox_answered,
        (Stage.RCPT, 4): Dialog._mailbox_answered,
        (Stage.RCPT, 5): Dialog._mailbox_answered,
        (Stage.CONTROL, 2): Dialog._mailbox_answered,
        (Stage.CONTROL, 4): Dialog._mailbox_answered,
        (Stage.CONTROL, 5): Dialog._mailbox_answered,
        (Stage.RSET, 2): Dialog._fenced,
        (Stage.RSET, 4): Dialog._fenced,
        (Stage.RSET, 5): Dialog._fenced,
        (Stage.QUIT, 221): Dialog._left,
        (Stage.QUIT, 2): Dialog._left,
        (Stage.QUIT, 4): Dialog._left,
        (Stage.QUIT, 5): Dialog._left,
    }
)
"""(stage, code) or (stage, first digit of the code): what the reply leads to."""
