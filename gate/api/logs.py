"""Log records as lines: JSON in printable ASCII, or plain text on a terminal.

What it promises: no line holds an address; of an exception it holds the kind and the place, never
the text, which could quote what somebody typed.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback

from gate.trace import redact


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": round(record.created, 3),
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["place"] = place(record.exc_info[1])
        return json.dumps(line, separators=(",", ":"))


class PlainLines(logging.Formatter):
    """For the eye."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = f"gate: {level}{redact(record.getMessage())}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__} in {place(record.exc_info[1])})"
        return text


def place(error: BaseException | None) -> str:
    """Where an exception came from: the innermost functions and their lines."""
    frames = traceback.extract_tb(error.__traceback__)[-6:] if error else []
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))


def to_stderr() -> None:
    """Send everything that is logged to standard error, in the form that suits it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainLines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("gate").setLevel(logging.INFO)
    # uvicorn says "invalid request" once for each: strangers would fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
