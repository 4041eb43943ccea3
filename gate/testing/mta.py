"""`ScriptedMta`: a real SMTP server on loopback whose behaviour is a transcript anyone can read.

    S: 220 mx.test ESMTP          what it sends (CRLF is added)
    C: EHLO *                     what it expects; `*` stands for anything
    *pause 2                      a directive, see DIRECTIVES

Blank lines and lines that begin with `#` are comments. A line from the client that the script does
not expect is a *complaint*, and leaving the `async with` block raises them all; QUIT is always
allowed and is answered 221, and so is leaving at any moment. `*connection` begins the script of
the next connection; the last one serves all that follow. Faults that have a name are files in
`transcripts/`: `ScriptedMta(transcript("banner_blocked"))`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gate.reason import GateError
from gate.testing.tls import server_context
from gate.testing.wire import Connection, SmtpListener

TRANSCRIPTS: Final = Path(__file__).parent / "transcripts"
CRLF: Final = b"\r\n"
NOISE_SEED: Final = 7
"""Noise is the same in every run."""
FLOOD_PIECE: Final = 64 * 1024
"""A flood is written in pieces of about this many octets."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a transcript. `verb` is "S", "C" or a directive's name."""

    verb: str
    text: str
    number: int


def transcript(name: str) -> str:
    """The text of `transcripts/<name>.smtp`. GateError, with the names there are, for any other."""
    path = TRANSCRIPTS / f"{name}.smtp"
    if not path.is_file():
        raise GateError(f"there is no transcript {name!r}; there is {', '.join(transcripts())}")
    return path.read_text("utf-8")


def transcripts() -> list[str]:
    """The names of all transcripts that are shipped, sorted."""
    return sorted(path.stem for path in TRANSCRIPTS.glob("*.smtp"))


def parse_transcript(text: str) -> list[list[Step]]:
    """A transcript's steps, one list per connection. GateError names the line that is wrong."""
    scripts: list[list[Step]] = [[]]
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.lstrip()
        if not line.strip() or line.startswith("#"):
            continue
        step = _step(line, number)
        if step.verb == "connection":
            scripts.append([])
        else:
            scripts[-1].append(step)
    return scripts


class ScriptedMta(SmtpListener):
    """Plays a transcript to every client that connects.

    `pace` multiplies every pause, so that a test may play a slow script faster. `host` and `port`
    as in `SmtpListener`: loopback only, an ephemeral port unless one is named.
    """

    def __init__(
        self,
        script: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pace: float = 1.0,
        history: int = 10_000,
        strict: bool = True,
    ) -> None:
        self._scripts = parse_transcript(script)
        refuse = [step.verb for step in self._scripts[0]] == ["refuse"]
        super().__init__(host=host, port=port, history=history, strict=strict, refuse=refuse)
        self._pace = pace

    async def talk(self, connection: Connection) -> None:
        """Play the script of this connection's number, or the last there is."""
        steps = self._scripts[min(connection.number, len(self._scripts)) - 1]
        await _Player(connection, steps, self._pace).play()


class _Stop(Exception):
    """The script has come to its end before its last line."""


class _Player:
    """One connection's way through its steps."""

    def __init__(self, connection: Connection, steps: list[Step], pace: float) -> None:
        self._connection = connection
        self._steps = steps
        self._pace = pace
        self._split = False
        self._corked: list[bytes] | None = None

    async def play(self) -> None:
        try:
            for at, step in enumerate(self._steps):
                await DIRECTIVES[step.verb](self, step.text)
                if step.verb == "C" and self._tls_is_next(at):
                    # The ClientHello belongs to TLS; it must not be read as a command line.
                    self._connection.hold_reading()
            await self._uncork("")
            await self._after_the_end()
        except _Stop:
            pass

    def _tls_is_next(self, at: int) -> bool:
        for step in self._steps[at + 1 :]:
            if step.verb == "C":
                return False
            if step.verb == "starttls":
                return True
        return False

    async def _after_the_end(self) -> None:
        line = await self._connection.line()
        if line is None:
            return
        if line.upper() != "QUIT":
            self._connection.complain(f"{line!r} after the script's end")
        await self._polite_end()

    async def _polite_end(self) -> None:
        await self._send(b"221 2.0.0 bye" + CRLF)
        raise _Stop

    async def _send(self, data: bytes) -> None:
        if self._corked is not None:
            self._corked.append(data)
        elif self._split:
            await self._drip(data, 0.0)
        else:
            await self._connection.send(data)

    async def _drip(self, data: bytes, pause: float) -> None:
        """One octet a segment: the loop must turn between two writes, or they are joined."""
        for octet in data:
            await self._connection.send(bytes((octet,)))
            await asyncio.sleep(pause)

    # -- the directives ----------------------------------------------------------------------------

    async def _reply(self, text: str) -> None:
        await self._send(text.encode("utf-8") + CRLF)

    async def _expect(self, pattern: str) -> None:
        line = await self._connection.line()
        if line is None:
            raise _Stop
        if _matches(pattern, line):
            return
        if line.upper() != "QUIT":
            self._connection.complain(f"said {line!r} where the script expects {pattern!r}")
        await self._polite_end()

    async def _raw(self, text: str) -> None:
        await self._send(_unescape(text))

    async def _pause(self, seconds: str) -> None:
        await asyncio.sleep(float(seconds) * self._pace)

    async def _silence(self, seconds: str) -> None:
        """As pause, and a client that speaks in this time has broken the rules."""
        before = len(self._connection.received)
        await self._pause(seconds)
        if said := bytes(self._connection.received[before:]):
            self._connection.complain(f"said {said[:80]!r} before it was its turn")

    async def _dribble(self, text: str) -> None:
        seconds, _, line = text.partition(" ")
        await self._drip(line.encode("utf-8") + CRLF, float(seconds) * self._pace)

    async def _noise(self, count: str) -> None:
        await self._send(random.Random(NOISE_SEED).randbytes(int(count)))  # noqa: S311 - not a secret

    async def _flood(self, text: str) -> None:
        count, _, line = text.partition(" ")
        one = line.encode("utf-8") + CRLF
        piece = max(1, FLOOD_PIECE // len(one))
        left = int(count)
        while left > 0:
            await self._send(one * min(piece, left))
            left -= piece
            await asyncio.sleep(0)  # whoever reads must get its turn, and news of its leaving

    async def _stream(self, text: str) -> None:
        """As flood, without a line end anywhere."""
        count, _, octets = text.partition(" ")
        left = int(count)
        piece = (octets.encode("utf-8") * FLOOD_PIECE)[:FLOOD_PIECE]
        while left > 0:
            await self._send(piece[:left])
            left -= FLOOD_PIECE
            await asyncio.sleep(0)

    async def _split_from_here(self, _: str) -> None:
        self._split = True

    async def _cork(self, _: str) -> None:
        self._corked = []

    async def _uncork(self, _: str) -> None:
        held, self._corked = self._corked, None
        if held:
            await self._send(b"".join(held))

    async def _starttls(self, kind: str) -> None:
        await self._connection.start_tls(server_context(kind))

    async def _half_close(self, _: str) -> None:
        self._connection.half_close()

    async def _eof(self, _: str) -> None:
        self._connection.close()
        raise _Stop

    async def _reset(self, _: str) -> None:
        self._connection.reset()
        raise _Stop

    async def _hang(self, _: str) -> None:
        await self._connection.ended.wait()
        raise _Stop

    async def _deaf(self, _: str) -> None:
        """Stop reading, so that the client's window fills, until it drops the connection."""
        self._connection.hold_reading()
        await self._connection.lost.wait()
        raise _Stop

    async def _rest(self, reply: str) -> None:
        """A well-behaved host from here on, whose answer to every RCPT is `reply`."""
        while (line := await self._connection.line()) is not None:
            verb = line.partition(" ")[0].upper()
            if verb == "QUIT":
                await self._polite_end()
            if verb == "EHLO":
                await self._reply("250-mx.test\r\n250-PIPELINING\r\n250 8BITMIME")
            else:
                await self._reply(reply if verb == "RCPT" else "250 2.0.0 ok")
        raise _Stop

    async def _refuse(self, _: str) -> None:
        raise _Stop


DIRECTIVES: Final[Mapping[str, Callable[[_Player, str], Awaitable[None]]]] = MappingProxyType(
    {
        "S": _Player._reply,  # S: 250 ok
        "C": _Player._expect,  # C: RCPT TO:<*>
        "raw": _Player._raw,  # *raw 250 \x82\xa0\r\n — octets as they are, no CRLF added
        "pause": _Player._pause,  # *pause 2 — seconds
        "silence": _Player._silence,  # *silence 2 — a pause in which the client must not speak
        "dribble": _Player._dribble,  # *dribble 0.5 250 ok — seconds between two octets
        "noise": _Player._noise,  # *noise 65536 — octets at random, the same in every run
        "flood": _Player._flood,  # *flood 1000000 250-x — the line so many times
        "stream": _Player._stream,  # *stream 1000000 x — so many octets and no line end
        "split": _Player._split_from_here,  # every octet in a segment of its own from here on
        "cork": _Player._cork,  # hold back what S: sends …
        "uncork": _Player._uncork,  # … and send it in one write
        "starttls": _Player._starttls,  # *starttls [expired|old|huge] — the handshake, here
        "half-close": _Player._half_close,  # FIN, and go on reading
        "eof": _Player._eof,  # close
        "reset": _Player._reset,  # close with RST
        "hang": _Player._hang,  # read and say nothing until the client leaves
        "deaf": _Player._deaf,  # not even read
        "rest": _Player._rest,  # *rest 550 5.1.1 unknown — a polite host, this for every RCPT
        "refuse": _Player._refuse,  # alone in the script: connections are refused
    }
)
"""Every directive, with an example."""

_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_WITH_SECONDS: Final = frozenset(("pause", "silence", "dribble"))
_WITH_COUNT: Final = frozenset(("noise", "flood", "stream"))
_WITH_TEXT: Final = frozenset(("S", "C", "raw", "starttls", "rest")) | _WITH_SECONDS | _WITH_COUNT


def _step(line: str, number: int) -> Step:
    if line[:2] in ("S:", "C:"):
        return Step(line[0], line[2:].removeprefix(" "), number)
    verb, _, text = line.removeprefix("*").rstrip().partition(" ")
    at = f"transcript, line {number}"
    if not line.startswith("*") or (verb not in DIRECTIVES and verb != "connection"):
        known = ", ".join(name for name in DIRECTIVES if len(name) > 1)
        raise GateError(f"{at}: {line!r}; write S:, C: or one of *{known}, *connection")
    argument = text.partition(" ")[0]
    if verb in _WITH_SECONDS and not _NUMBER.fullmatch(argument):
        raise GateError(f"{at}: *{verb} needs seconds, not {argument!r}")
    if verb in _WITH_COUNT and not argument.isdecimal():
        raise GateError(f"{at}: *{verb} needs a count, not {argument!r}")
    if text and verb not in _WITH_TEXT:
        raise GateError(f"{at}: *{verb} takes nothing, not {text!r}")
    return Step(verb, text, number)


def _matches(pattern: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), line, re.DOTALL) is not None


def _unescape(text: str) -> bytes:
    r"""`\xNN`, `\r`, `\n`, `\0` and `\\` as the octets they name; all else as UTF-8."""
    known = {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"\\": b"\\"}

    def octets(match: re.Match[bytes]) -> bytes:
        return bytes((int(match[2], 16),)) if match[2] else known[match[1]]

    return re.sub(rb"\\(x([0-9a-fA-F]{2})|[rn0\\])", octets, text.encode("utf-8"))
