"""Mail servers that hypothesis makes up, and a judge that reads what they said, not our verdict.

A `Script` says what is answered at each stage, in what pieces, and what goes wrong meanwhile. Each
text is of a known kind, so that the judge need not understand it. `proved` is promise C1 in the
words of the transcript.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hypothesis import strategies as st

from gate.testing import Connection, SmtpListener

Kind = Literal["mailbox", "bare", "random", "policy", "full", "busy", "domain", "good"]
Trouble = Literal["none", "extra", "close", "reset", "garbage"]

TEXTS: Final[dict[Kind, tuple[str, ...]]] = {
    "good": ("2.1.5 Recipient OK", "OK", "2.0.0 accepted for delivery"),
    "mailbox": (
        "5.1.1 User unknown",
        "No such user here",
        "5.1.1 The email account that you tried to reach does not exist",
        "5.1.10 Recipient not found",
        "5.2.1 This mailbox is disabled",
        "mailbox unavailable: user unknown",
    ),
    "policy": (
        "5.7.1 Service unavailable; client host blocked using zen.spamhaus.org",
        "5.7.1 user unknown (blocked, see spamhaus)",
        "Your IP address is blacklisted",
        "5.7.25 The IP address sending this message does not have a PTR record",
        "5.7.23 SPF validation failed",
        "5.7.1 Relay access denied",
        "5.7.606 Access denied, banned sending IP",
        "5.2.1 The user you are trying to contact is receiving mail at a rate that prevents "
        "additional messages from being delivered",
        "5.7.1 sender callout verification failed",
    ),
    "full": ("5.2.2 mailbox full", "4.2.2 The user is over quota"),
    "busy": ("4.7.1 Greylisted, try again in 300 seconds", "4.3.2 too busy", "try again later"),
    "domain": ("5.1.2 Bad destination system address",),
    "bare": ("",),
    "random": (),
}
STAGES: Final = ("greeting", "ehlo", "mail", "rcpt", "rset")
STAGE_OF: Final = {
    "": "greeting",
    "EHLO": "ehlo",
    "HELO": "ehlo",
    "MAIL": "mail",
    "RCPT": "rcpt",
    "RSET": "rset",
    "QUIT": "quit",
}
USUAL: Final = (220, 221, 250, 251, 252, 354, 421, 450, 451, 452, 500, 503, 550, 551, 552, 553, 554)


@dataclass(frozen=True, slots=True)
class Said:
    """A reply."""

    code: int
    text: str
    kind: Kind
    lines: int = 1

    def octets(self) -> bytes:
        """As it goes on the wire."""
        head = f"{self.code}-{self.text}\r\n" * (self.lines - 1)
        return f"{head}{self.code} {self.text}\r\n".encode()


BYE: Final = Said(221, "bye", "good")


@dataclass(frozen=True, slots=True)
class Script:
    """How a server behaves. `rcpts`: what the first recipient it sees is told, the second, …, and
    then the last for ever. `at`: the stage at which there is trouble.
    """

    greeting: Said
    ehlo: Said
    pipelining: bool
    mail: Said
    rcpts: tuple[Said, ...]
    rset: Said
    trouble: Trouble
    at: str
    split: int


@dataclass(slots=True)
class Turn:
    """A command and what was said to it; `clean`: as many replies as commands up to here."""

    stage: str
    command: str
    said: Said | None
    clean: bool


class Playing(SmtpListener):
    """Plays `script`, which a test changes between checks, and notes every turn."""

    def __init__(self) -> None:
        super().__init__(history=10, strict=False)
        self.script: Script
        self.turns: list[list[Turn]] = []
        self._seen: list[str] = []

    def begin(self, script: Script) -> None:
        """From now on play this one; it has heard of nobody yet."""
        self.script, self.turns, self._seen = script, [], []

    async def talk(self, connection: Connection) -> None:
        script, turns, out, clean = self.script, list[Turn](), bytearray(), True
        self.turns.append(turns)
        line: str | None = ""
        while line is not None:
            stage = STAGE_OF.get(line[:4].upper(), "")
            said = self._reply(stage, line)
            hit = script.trouble if script.at == stage else "none"
            if hit in ("close", "reset"):
                turns.append(Turn(stage, line, None, clean))
                await self._flush(connection, out)
                if hit == "reset":
                    connection.reset()
                return
            clean = clean and hit == "none"
            turns.append(Turn(stage, line, said, clean))
            out += self._octets(line, said)
            if hit == "extra":
                out += said.octets()
            elif hit == "garbage":
                out += b"what is this\r\n"
            if stage == "quit" or not connection.more:
                await self._flush(connection, out)
            if stage == "quit":
                return
            line = await connection.line()

    async def _flush(self, connection: Connection, out: bytearray) -> None:
        octets, size = bytes(out), self.script.split or len(out) or 1
        out.clear()
        for start in range(0, len(octets), size):
            await connection.send(octets[start : start + size])

    def _octets(self, line: str, said: Said) -> bytes:
        if line.startswith("EHLO") and 200 <= said.code < 300:
            offer = b"PIPELINING" if self.script.pipelining else b"HELP"
            return b"%d-mx\r\n%d %s\r\n" % (said.code, said.code, offer)
        return said.octets()

    def _reply(self, stage: str, line: str) -> Said:
        script = self.script
        if stage == "rcpt":
            recipient = line.partition("<")[2].partition(">")[0]
            if recipient not in self._seen:
                self._seen.append(recipient)
            return script.rcpts[min(self._seen.index(recipient), len(script.rcpts) - 1)]
        known = {"greeting": script.greeting, "ehlo": script.ehlo, "mail": script.mail}
        return known.get(stage) or (script.rset if stage == "rset" else BYE)


# -- the judge -------------------------------------------------------------------------------------


def proved(turns: Sequence[Sequence[Turn]], address: str) -> str:
    """Why these connections are no proof that the mailbox is refused; empty if one of them is."""
    why = "nobody was asked"
    for connection in turns:
        why = _unproved(connection, address, turns)
        if not why:
            break
    return why


def _unproved(connection: Sequence[Turn], address: str, every: Sequence[Sequence[Turn]]) -> str:
    asked = [n for n, turn in enumerate(connection) if f"<{address}>" in turn.command]
    asked = [n for n in asked if connection[n].stage == "rcpt"]
    if not asked:
        return "it was not asked about"
    before, turn = connection[: asked[0]], connection[asked[0]]
    if turn.said is None or not turn.clean:
        return "the replies are out of step"
    if not 500 <= turn.said.code < 600:
        return f"{turn.said.code} is no permanent refusal"
    if not any(t.stage == "mail" and t.said and 200 <= t.said.code < 300 for t in before):
        return "the sender was not accepted"
    if turn.said.kind == "bare":
        others = [t for one in every for t in one if t.stage == "rcpt" and t.said]
        answers = {(t.said.code, t.said.text) for t in others if t.said}
        return "" if len(answers) > 1 else "everybody is told the same, without a word"
    return "" if turn.said.kind in ("mailbox", "random", "domain") else f"it is {turn.said.kind}"


# -- strategies ------------------------------------------------------------------------------------

_CODES: Final = st.one_of(st.sampled_from(USUAL), st.sampled_from(USUAL), st.integers(200, 599))
_ANY: Final = st.text(
    st.characters(
        exclude_characters="\r\n\0", categories=("L", "M", "N", "P", "S", "Z", "Cc", "Cf", "Co")
    ),
    max_size=60,
)


def _said(*codes: int) -> st.SearchStrategy[Said]:
    """A reply of some kind: one of these codes, or any."""
    kinds: list[Kind] = [*TEXTS, "mailbox", "mailbox", "random"]
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.builds(
            Said,
            code=st.one_of(*[st.sampled_from(codes)] * 4, _CODES),
            text=st.sampled_from(TEXTS[kind]) if TEXTS[kind] else _ANY,
            kind=st.just(kind),
            lines=st.sampled_from((1, 1, 1, 2, 5)),
        )
    )


def _fine(code: int) -> st.SearchStrategy[Said]:
    """Mostly what leads on."""
    fine = st.just(Said(code, "mx.test fine", "good"))
    return st.one_of(*[fine] * 15, _said(code))


SCRIPTS: Final = st.builds(
    Script,
    greeting=_fine(220),
    ehlo=_fine(250),
    pipelining=st.booleans(),
    mail=_fine(250),
    rcpts=st.lists(_said(250, 550, 550, 554), min_size=1, max_size=3).map(tuple),
    rset=_fine(250),
    trouble=st.sampled_from((*["none"] * 12, "extra", "close", "reset", "garbage")),
    at=st.sampled_from(STAGES),
    split=st.sampled_from((0, 0, 0, 1, 7, 100)),
)
