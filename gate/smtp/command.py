"""Commands: the only place where something to say to a mail server is written.

What it promises: eight verbs, one line each, and no argument that could end its command or begin
another. DATA, BDAT, VRFY, EXPN and AUTH cannot be said: there is no message this client could
send, and no address but the one it was given that it could ask about. The settings go through the
same checks as the address does, the HELO name first of all.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from gate.reason import GateError

LONGEST_COMMAND: Final = 510
"""Octets of a command without its CRLF (RFC 5321 4.5.3.1.4)."""

_BARE: Final = MappingProxyType(
    {verb: f"{verb}\r\n".encode() for verb in ("STARTTLS", "RSET", "NOOP", "QUIT")}
)
_WITH_ARGUMENT: Final = MappingProxyType(
    {
        "EHLO": ("EHLO ", ""),
        "HELO": ("HELO ", ""),
        "MAIL": ("MAIL FROM:<", ">"),
        "RCPT": ("RCPT TO:<", ">"),
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
    if argument is None:
        if verb in _BARE:
            return _BARE[verb]
        raise GateError(f"{verb!r} is not a command that stands alone")
    if verb not in _WITH_ARGUMENT:
        raise GateError(f"{verb!r} is not a command that takes an argument")
    if not argument or _UNWRITABLE.search(argument):
        raise GateError(f"the argument of {verb} is empty or holds a character that ends it")
    if not smtputf8 and not argument.isascii():
        raise GateError(f"the argument of {verb} is not ASCII")
    before, after = _WITH_ARGUMENT[verb]
    extension = " SMTPUTF8" if smtputf8 and verb == "MAIL" else ""
    line = f"{before}{argument}{after}{extension}\r\n".encode()
    if len(line) > LONGEST_COMMAND + 2:
        raise GateError(f"{verb} with its argument exceeds {LONGEST_COMMAND} octets")
    return line
