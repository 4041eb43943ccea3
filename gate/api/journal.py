"""The one log line of each decision, and the metrics that go with it.

What it promises: every decision writes exactly one line, with the fields of `Line`, on whatever
path it was reached; a line holds a keyed hash and the domain, never an address; it is JSON in
printable ASCII, so nothing a stranger typed can end it or colour a terminal.

Lines are gathered for `LOG_FLUSH` seconds and written together: that takes them off the time of
the answer. What a killed process loses is that much.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Final

import msgspec
from msgspec import Struct

from gate import metrics
from gate.answer import Answer, copied
from gate.budget import LOG_FLUSH
from gate.reason import Choice, Reason

_MOULDS_MOST: Final = 1024
_counted = attrgetter("result", "reason", "decision", "key", "would_be")
_encode_lines = msgspec.json.Encoder().encode_lines


class Line(Struct, gc=False):
    """The fields of a decision line, in the order they are written.

    `key`: public, secret, siteverify or hook. `decision` is what the caller was told, `would_be`
    what the site's policy says; they differ in observe mode and where a browser may not know.
    `outcome` is siteverify's: success, or an error code; and a hook's: its path, and what came of
    the call.
    """

    ts: float
    request: str
    site: str
    key: str
    check: str | None
    address: str | None
    domain: str | None
    result: str | None
    reason: str | None
    decision: str | None
    because: str | None
    would_be: str | None
    final: bool | None
    remembered: bool | None
    outcome: str | None
    duration_ms: float
    budget_ms: int
    event: str = "decision"


class Note(Struct, frozen=True, gc=False):
    """A decision of /v1/check as it is set down while the caller waits.

    `at` is Unix time, `address` the keyed hash, `told` what was answered.
    """

    answer: Answer
    at: float
    request: str
    site: str
    key: str
    told: Choice
    address: bytes | None
    seconds: float
    budget_ms: int


class Journal:
    """Gathers decisions. `write` takes whole lines; it must not block for long."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._waiting: list[Note | Line] = []
        self._timer: asyncio.TimerHandle | None = None
        self._moulds: dict[tuple[object, str, str, Choice], Line] = {}

    def wrote(self, entry: Note | Line) -> None:
        """Set a decision down; it is written within `LOG_FLUSH`."""
        self._waiting.append(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOG_FLUSH, self.flush)

    def flush(self) -> None:
        """Write what has been gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        lines = [self._line(entry) if isinstance(entry, Note) else entry for entry in waiting]
        self._count(lines)
        try:
            self._write(_plain(lines))
        except OSError:
            metrics.LINES_LOST.inc(len(waiting))

    def _count(self, lines: list[Line]) -> None:
        decided = [line for line in lines if line.result is not None]
        found = Counter(map(_counted, decided))
        for (result, reason, decision, key, would_be), number in found.items():
            metrics.DECISIONS.labels(result, reason, decision, key).inc(number)
            if would_be == Choice.BLOCK and decision != Choice.BLOCK:
                metrics.WOULD_BLOCK.inc(number)
        for line in decided:
            metrics.CHECK_SECONDS.observe(line.duration_ms / 1000)

    def _line(self, note: Note) -> Line:
        answer = note.answer
        line: Line = copied(self._mould(note))
        # `round` to so many places works on decimal digits: 0.25 µs, twice a line.
        line.ts = int(note.at * 1000 + 0.5) / 1000
        line.duration_ms = int(note.seconds * 100_000 + 0.5) / 100
        line.budget_ms = note.budget_ms
        line.request, line.check = note.request, answer.id
        if note.address is not None:
            line.address = note.address.hex()
        if answer.address is not None:
            line.domain = answer.address.domain
        return line

    def _mould(self, note: Note) -> Line:
        """What the lines of one kind of answer have in common, made once."""
        if note.answer.kind is None:
            return _common(note)
        of = (note.answer.kind, note.site, note.key, note.told)
        mould = self._moulds.get(of)
        if mould is None:
            if len(self._moulds) >= _MOULDS_MOST:
                self._moulds.clear()
            mould = self._moulds[of] = _common(note)
        return mould


def _common(note: Note) -> Line:
    answer = note.answer
    verdict, decision = answer.verdict, answer.decision
    return Line(
        ts=0.0,
        request="",
        site=note.site,
        key=note.key,
        check=None,
        address=None,
        domain=None,
        result=verdict.result,
        reason=verdict.reason,
        decision=note.told,
        because=decision.because,
        would_be=decision.would_be,
        final=verdict.final,
        remembered=remembered(answer),
        outcome=None,
        duration_ms=0.0,
        budget_ms=0,
    )


def remembered(answer: Answer) -> bool:
    """Whether the verdict was remembered, and nobody asked for this answer."""
    cached = answer.cached
    if answer.verdict.reason is Reason.ACCEPT_ALL:
        return cached.accept_all is not None
    return cached.mailbox is not None


FIELDS: Final = Line.__struct_encode_fields__
"""Names of the fields of a decision line; they do not change between versions."""


def _plain(lines: list[Line]) -> bytes:
    """The lines in printable ASCII; only an operator's own site name can need escapes."""
    text = _encode_lines(lines)
    # JSON escapes everything below a space but not DEL. Looking for both in this way is nothing; a
    # regular expression took 2 µs a line.
    if text.isascii() and b"\x7f" not in text:
        return text
    escaped = [json.dumps(msgspec.to_builtins(line), separators=(",", ":")) for line in lines]
    return "".join(line.replace("\x7f", "\\u007f") + "\n" for line in escaped).encode()
