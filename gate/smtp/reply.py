"""Replies: a mail server's bytes become `Reply` values, strictly and within fixed bounds.

What it promises: whatever the bytes and however they are cut into pieces, `ReplyReader.feed`
returns whole replies or raises `RemoteProtocolError`, holds no more than one unfinished reply
(MAX_REPLY octets), and refuses a breach as soon as the bytes show it, not at the next line end.

Rules:

1. A line is a code `[2-5][0-9][0-9]`, then nothing, or a space or a hyphen and text (RFC 5321
   4.2). Digits are ASCII digits; no sign, no blank before them, no fourth digit.
2. All lines of a reply carry one code. A server that changes it has lost count of its own replies
   (RFC 5321 4.2.1 leaves such a reply without a meaning).
3. Lines end with CRLF, or with a bare LF, which some honest servers send. CR stands nowhere else.
4. NUL never stands in a reply; any other byte may. Text is for people and for word matching, so it
   is decoded leniently: UTF-8 where it is UTF-8, else Latin-1, which never fails.

Bugs: a reply in a legacy multi-byte charset is decoded to nonsense; only its code is of use.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from msgspec import Struct

from gate.reason import RemoteProtocolError

MAX_LINE: Final = 2048
"""Octets of a line with its end: four times what RFC 5321 4.5.3.1.5 allows."""
MAX_LINES: Final = 100
"""Lines of a reply. A long EHLO answer has about twenty."""
MAX_REPLY: Final = 16 * 1024
"""Octets of a reply with its line ends."""
MAX_QUESTION: Final = 64 * 1024
"""Octets of all replies to one question, the greeting included: a whole probe reads about one KiB.
A connection that serves many questions in turn may read so much for each."""

_LONGEST: Final = MAX_LINE - 2  # without the line end, which counts as two octets even if it is one
_TOO_LONG: Final = f"a line over {MAX_LINE}, a reply over {MAX_LINES} lines or {MAX_REPLY} octets"
_NOT_SMTP: Final = "a line is not an SMTP reply"

_HEADS: Final = {
    f"{code}{mark}": (code, mark != "-") for code in range(200, 600) for mark in ("", " ", "-")
}
"""What a line may begin with: its code, and whether the reply ends with this line."""
_BEGINNING: Final = re.compile(r"[2-5](?:[0-9](?:[0-9](?:\r|[ -].?)?)?)?", re.DOTALL)
_ENHANCED: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |\Z)")


class Reply(Struct, frozen=True, gc=False):
    """One reply: its code (200 to 599) and the text of each line behind the code and its mark."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """All lines, joined with a blank."""
        return " ".join(self.lines)

    @property
    def enhanced(self) -> str | None:
        """The enhanced code (RFC 3463), "5.1.1", if the reply begins with one of its own class."""
        found = _ENHANCED.match(self.text)
        return found[0] if found and int(found[0][0]) == self.code // 100 else None

    @property
    def contradicts(self) -> bool:
        """The reply begins with an enhanced code of another class than its own: `250 5.1.1`."""
        found = _ENHANCED.match(self.text)
        return found is not None and int(found[0][0]) != self.code // 100


class ReplyReader:
    """Cuts a stream into replies. One reader serves one connection from its first byte to its last.

    After it has raised once, it raises for ever: a stream that broke the rules is never in step
    again.
    """

    __slots__ = ("_breach", "_code", "_held", "_lines", "_read", "_size")

    def __init__(self) -> None:
        self._held = ""  # a line without its end yet, as Latin-1: one character is one octet
        self._code = 0  # of the reply whose first lines are in _lines
        self._lines: list[str] = []
        self._size = 0  # octets of that reply so far
        self._read = 0
        self._breach = ""

    @property
    def pending(self) -> bool:
        """A reply has begun and not ended."""
        return bool(self._held or self._lines)

    @property
    def beginning(self) -> str:
        """The code of the reply that has begun, as far as it is here; "" if none has."""
        return str(self._code) if self._lines else self._held[:3]

    def next_question(self) -> None:
        """What was read up to now counts no longer."""
        self._read = 0

    def feed(self, data: bytes) -> list[Reply]:
        """Take what arrived and return the replies that it completes, in order.

        Raises:
            RemoteProtocolError: a rule or a bound was broken. No reply of this call is returned.
        """
        if self._breach:
            raise RemoteProtocolError(self._breach)
        self._read += len(data)
        if self._read > MAX_QUESTION:
            self._refuse(f"more than {MAX_QUESTION} octets for one question")
        arrived = (self._held + data.decode("latin-1")).replace("\r\n", "\n")
        if "\r" in arrived[:-1] or "\0" in arrived:
            self._refuse("a CR amid a line, or a NUL")
        lines = arrived.split("\n")
        self._held = lines.pop()
        replies = self._collect(lines, ascii_only=arrived.isascii() and not self._lines)
        if self._held:
            self._look_ahead()
        return replies

    def _collect(self, lines: list[str], *, ascii_only: bool) -> list[Reply]:
        """Put whole lines together to replies. One loop, because every dialogue goes through it."""
        replies: list[Reply] = []
        texts, size, code = self._lines, self._size, self._code
        for line in lines:
            head = _HEADS.get(line[:4])
            if head is None:
                self._refuse(_NOT_SMTP)
            if texts and code != head[0]:
                self._refuse("the lines of a reply differ in their codes")
            code, last = head
            size += len(line) + 2
            if len(line) > _LONGEST or len(texts) >= MAX_LINES or size > MAX_REPLY:
                self._refuse(_TOO_LONG)
            texts.append(line[4:])
            if last:
                replies.append(Reply(code, tuple(texts) if ascii_only else _decoded(texts)))
                texts = []
                size = 0
        self._lines, self._size, self._code = texts, size, code
        return replies

    def _look_ahead(self) -> None:
        """Refuse an unfinished line that cannot end well, so that nobody waits for its end."""
        octets = len(self._held.removesuffix("\r"))
        size = self._size + octets + 2
        if octets > _LONGEST or len(self._lines) >= MAX_LINES or size > MAX_REPLY:
            self._refuse(_TOO_LONG)
        if not _BEGINNING.fullmatch(self._held[:5]):
            self._refuse(_NOT_SMTP)

    def _refuse(self, breach: str) -> NoReturn:
        """End this stream, and let go of what was held."""
        self._breach = breach
        self._held = ""
        self._lines = []
        raise RemoteProtocolError(breach)


def parse(raw: bytes) -> Reply:
    """Parse exactly one reply; the end of its last line may be missing.

    Raises:
        RemoteProtocolError: it is not one whole reply.
    """
    reader = ReplyReader()
    replies = reader.feed(raw if raw.endswith(b"\n") else raw + b"\n")
    if len(replies) != 1 or reader.pending:
        raise RemoteProtocolError("not exactly one whole reply")
    return replies[0]


def _decoded(lines: list[str]) -> tuple[str, ...]:
    """The lines as text: read as UTF-8 where that works, else left as the Latin-1 they are."""
    texts = []
    for line in lines:
        try:
            texts.append(line if line.isascii() else line.encode("latin-1").decode())
        except UnicodeDecodeError:
            texts.append(line)
    return tuple(texts)
