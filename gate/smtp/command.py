"""Commands: the only place where something to say to a mail server is written.

What it promises: eight verbs, one line each, and no argument that could end its command or begin
another. DATA, BDAT, VRFY, EXPN and AUTH cannot be said: there is no message this client could
send, and no address but the one it was given that it could ask about. The settings go through the
same checks as the address does, the HELO name first of all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gate.reason import GateError

LONGEST_COMMAND: Final = 510
"""Octets of a command without its CRLF (RFC 5321 4.5.3.1.4)."""

_FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "EHLO": "EHLO %s",
        "HELO": "HELO %s",
        "STARTTLS": "STARTTLS",
        "MAIL": "MAIL FROM:<%s>",
        "RCPT": "RCPT TO:<%s>",
        "RSET": "RSET",
        "NOOP": "NOOP",
        "QUIT": "QUIT",
    }
)
_UNWRITABLE: Final = re.compile("[\x00-\x20<>\x7f-\xa0\u2028\u2029\ud800-\udfff]")
"""Controls (C0, DEL, C1), blanks, Unicode's own line ends, what closes an argument, and lone
surrogates, which have no bytes."""


def command(verb: str, argument: str | None = None, *, smtputf8: bool = False) -> bytes:
    """Write one command, with its CRLF.

    Args:
        verb: one of the eight.
        argument: the name (EHLO, HELO) or the mailbox without its angle brackets (MAIL, RCPT).
        smtputf8: the argument may hold non-ASCII letters; a MAIL says so (RFC 6531 3.4).

    Raises:
        GateError: another verb, an argument missing or too much, or one that could end the command
            or begin another. The message never holds the argument.
    """
    form = _FORMS.get(verb)
    if form is None:
        raise GateError(f"{verb!r} is not a command this client may send")
    if (argument is None) == ("%s" in form):
        raise GateError(f"{verb} takes {'one' if '%s' in form else 'no'} argument")
    text = form
    if argument is not None:
        if not argument or _UNWRITABLE.search(argument):
            raise GateError(f"the argument of {verb} is empty or holds a character that ends it")
        if not smtputf8 and not argument.isascii():
            raise GateError(f"the argument of {verb} is not ASCII")
        text = form % argument
        if smtputf8 and verb == "MAIL":
            text += " SMTPUTF8"
    line = text.encode()
    if len(line) > LONGEST_COMMAND:
        raise GateError(f"{verb} with its argument exceeds {LONGEST_COMMAND} octets")
    return line + b"\r\n"
