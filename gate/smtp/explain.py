"""Replies from files and terminals, for `gate explain-reply`: JSON lines and replies as logged.

Two forms, mixed as one likes, one after the other:

    {"stage": "rcpt", "code": 550, "enhanced": "5.1.1", "text": "User unknown", "provider": null}
    550-5.1.1 The email account that you tried to reach
    550 5.1.1 does not exist

Only `code` or a code in front of `text` is needed; `text` may be a list of lines. An enhanced code
that stands beside the text is put in front of it, where servers write it. `rcpt: 550 ...` names the
stage of a bare reply, and the marks of transcripts (`S:`, `<`, `<<<`) are passed over.

What it promises: one reading per JSON line and per reply, in order; never raises for what it reads:
a line that is neither is a reading with `error`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from gate.reason import Reason
from gate.smtp.classify import Outcome
from gate.smtp.dialog import Stage
from gate.smtp.reply import Reply


class Reading(NamedTuple):
    """One reply that was read, or why there is none."""

    stage: Stage
    reply: Reply | None
    provider: str | None
    error: str | None


_STAGES: Final = {
    **{str(stage): stage for stage in Stage},
    "banner": Stage.GREETING,
    "greet": Stage.GREETING,
    "connection": Stage.CONNECT,
    "helo/ehlo": Stage.EHLO,
    "ehlo/helo": Stage.EHLO,
    "tls-handshake": Stage.TLS,
    "mail from": Stage.MAIL,
    "mailfrom": Stage.MAIL,
    "mail_from": Stage.MAIL,
    "sender": Stage.MAIL,
    "rcpt to": Stage.RCPT,
    "rcptto": Stage.RCPT,
    "rcpt_to": Stage.RCPT,
    "recipient": Stage.RCPT,
}
"""What a stage is called, here and elsewhere."""

_BARE: Final = re.compile(
    r"(?:(?:S:|<{1,3}|<-+)\s*)?"
    r"(?:(?P<stage>[a-z]+(?:[ _/](?:from|to|helo|ehlo))?)\s*:?\s+)?"
    r"(?P<code>[2-5]\d\d)(?:(?P<mark>[ -])(?P<text>.*))?$",
    re.IGNORECASE | re.DOTALL,
)
_CODE: Final = re.compile(r"\s*([2-5]\d\d)(?:[ -]|$)")
_ENHANCED: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")

_THREE_WAY: Final = {
    Reason.ACCEPTED_EMAIL: "exists",
    Reason.MAILBOX_FULL: "exists",
    Reason.REJECTED_EMAIL: "not_found",
    Reason.MAILBOX_DISABLED: "not_found",
}


def three_way(outcome: Outcome) -> str:
    """The coarsest reading of an outcome: "exists", "not_found" or "undetermined"."""
    return _THREE_WAY.get(outcome.reason, "undetermined")


def read(lines: Iterable[str], default_stage: Stage = Stage.RCPT) -> Iterator[Reading]:
    """The replies in `lines`; `default_stage` is meant where none is named."""
    held: list[str] = []
    code, stage = 0, default_stage
    for line in lines:
        line = line.strip("\r\n")
        found = None if line.lstrip().startswith("{") else _BARE.match(line.strip())
        if held and (found is None or int(found["code"]) != code):
            yield Reading(stage, Reply(code, tuple(held)), None, None)
            held = []
        if found is not None:
            code = int(found["code"])
            if not held:
                named = _STAGES.get((found["stage"] or "").lower())
                stage = named or default_stage
            parts = _joined(code, found["text"] or "")
            held.extend(parts)
            if found["mark"] == "-" and len(parts) == 1:
                continue
            yield Reading(stage, Reply(code, tuple(held)), None, None)
            held = []
        elif line.strip():
            yield _from_json(line, default_stage)
    if held:
        yield Reading(stage, Reply(code, tuple(held)), None, None)


def _from_json(line: str, default_stage: Stage) -> Reading:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return Reading(default_stage, None, None, "neither a JSON object nor an SMTP reply")
    if not isinstance(row, dict):
        return Reading(default_stage, None, None, "not a JSON object")
    name = str(row.get("stage") or default_stage).strip().lower()
    stage = _STAGES.get(name)
    if stage is None:
        return Reading(default_stage, None, None, f"unknown stage {name!r}")
    given = row.get("text") or ""
    text = "\n".join(map(str, given)) if isinstance(given, list) else str(given)
    code = _code(row.get("code"), text)
    if code is None:
        return Reading(stage, None, None, "no reply code from 200 to 599")
    provider = row.get("provider")
    reply = Reply(code, _lines(code, text, str(row.get("enhanced") or "")))
    return Reading(stage, reply, str(provider) if provider else None, None)


def _code(given: object, text: str) -> int | None:
    """The code that is given, or the one the text begins with."""
    if given is None or given == "":
        found = _CODE.match(text)
        return int(found[1]) if found else None
    digits = str(given).strip()
    return int(digits) if re.fullmatch(r"[2-5][0-9]{2}", digits) else None


def _joined(code: int, text: str) -> list[str]:
    """The lines of a reply that a log joined to one: "... no such user 550 5.1.1 see our pages"."""
    return re.split(rf"(?<=\S) {code}[ -](?=\S)", text)


def _lines(code: int, text: str, enhanced: str) -> tuple[str, ...]:
    """The lines of a reply, each without the code in front; the enhanced code where it belongs."""
    mark = re.compile(rf"\s*({code})([ -]|$)")
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        begins = mark.match(line)
        rest = line[begins.end() :] if begins else line
        lines.extend(_joined(code, rest) if begins and begins[2] == "-" else [rest])
    if _ENHANCED.fullmatch(enhanced) and not _ENHANCED.match(lines[0]):
        lines[0] = f"{enhanced} {lines[0]}".rstrip()
    return tuple(lines)
