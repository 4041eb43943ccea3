"""Eight verbs, and no argument that is more than an argument."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gate.reason import GateError
from gate.smtp.command import command

WRITTEN = {
    "EHLO": (("EHLO", "gate.here.test"), b"EHLO gate.here.test\r\n"),
    "EHLO with an address literal": (
        ("EHLO", "[IPv6:2001:db8::1]"),
        b"EHLO [IPv6:2001:db8::1]\r\n",
    ),
    "HELO": (("HELO", "gate.here.test"), b"HELO gate.here.test\r\n"),
    "STARTTLS": (("STARTTLS",), b"STARTTLS\r\n"),
    "MAIL": (("MAIL", "probe@here.test"), b"MAIL FROM:<probe@here.test>\r\n"),
    "RCPT": (("RCPT", "!#$%&'*+-/=?^_`{|}~@x.test"), b"RCPT TO:<!#$%&'*+-/=?^_`{|}~@x.test>\r\n"),
    "RSET": (("RSET",), b"RSET\r\n"),
    "NOOP": (("NOOP",), b"NOOP\r\n"),
    "QUIT": (("QUIT",), b"QUIT\r\n"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_eight_verbs(name: str) -> None:
    arguments, line = WRITTEN[name]
    assert command(*arguments) == line


def test_smtputf8_is_said_by_mail_and_used_by_rcpt() -> None:
    assert command("MAIL", "a@b.test", smtputf8=True) == b"MAIL FROM:<a@b.test> SMTPUTF8\r\n"
    assert command("RCPT", "jürgen@b.test", smtputf8=True) == "RCPT TO:<jürgen@b.test>\r\n".encode()


@pytest.mark.parametrize(
    "verb",
    [
        "DATA",
        "BDAT",
        "VRFY",
        "EXPN",
        "ETRN",
        "AUTH",
        "HELP",
        "rset",
        "",
        "RSET\r\nDATA",
        "MAIL FROM",
    ],
)
def test_no_other_verb_can_be_said(verb: str) -> None:
    for argument in (None, "a@b.test"):
        with pytest.raises(GateError):
            command(verb, argument)


@pytest.mark.parametrize("verb", ["EHLO", "HELO", "MAIL", "RCPT"])
def test_an_argument_must_be_there(verb: str) -> None:
    for argument in (None, ""):
        with pytest.raises(GateError):
            command(verb, argument)


@pytest.mark.parametrize("verb", ["STARTTLS", "RSET", "NOOP", "QUIT"])
def test_an_argument_must_not_be_there(verb: str) -> None:
    with pytest.raises(GateError):
        command(verb, "a@b.test")


INJECTIONS = {
    "a second command": "a@b.test\r\nDATA",
    "a second command behind a bare LF": "a@b.test\nDATA",
    "a second command behind a bare CR": "a@b.test\rDATA",
    "the path closed early": "a@b.test>\r\nRSET",
    "a parameter": "a@b.test> SIZE=1",
    "a path in the path": "<a@b.test",
    "a quoted line end": '"a\r\n"@b.test',
    "a blank": "a b@b.test",
    "a trailing LF": "a@b.test\n",
    "NUL": "a\0@b.test",
    "DEL": "a\x7f@b.test",
    "NEL": "a\x85@b.test",
    "a no-break space": "a\xa0@b.test",
    "a line separator": "a\u2028@b.test",
    "a paragraph separator": "a\u2029@b.test",
    "a lone surrogate": "a\ud800@b.test",
}


@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize("verb", ["EHLO", "HELO", "MAIL", "RCPT"])
@pytest.mark.parametrize("name", INJECTIONS)
def test_nothing_can_be_smuggled_into_an_argument(name: str, verb: str, smtputf8: bool) -> None:
    with pytest.raises(GateError) as caught:
        command(verb, INJECTIONS[name], smtputf8=smtputf8)
    assert "@" not in str(caught.value)


def test_non_ascii_needs_smtputf8() -> None:
    with pytest.raises(GateError):
        command("RCPT", "jürgen@b.test")


def test_a_line_has_510_octets_at_most_without_its_end() -> None:
    room = 510 - len("RCPT TO:<@b.test>")
    assert len(command("RCPT", "a" * room + "@b.test")) == 512
    with pytest.raises(GateError):
        command("RCPT", "a" * (room + 1) + "@b.test")
    with pytest.raises(GateError):  # octets, not characters
        command("RCPT", "ü" * (room // 2 + 1) + "@b.test", smtputf8=True)


@given(
    verb=st.sampled_from(["EHLO", "HELO", "MAIL", "RCPT"]), argument=st.text(), utf8=st.booleans()
)
@example(verb="RCPT", argument="ı\u0307@b.test", utf8=True)
def test_any_text_is_refused_or_is_one_argument(verb: str, argument: str, utf8: bool) -> None:
    try:
        line = command(verb, argument, smtputf8=utf8)
    except GateError:
        return
    before, after = {
        "EHLO": (b"EHLO ", b""),
        "HELO": (b"HELO ", b""),
        "MAIL": (b"MAIL FROM:<", b"> SMTPUTF8" if utf8 else b">"),
        "RCPT": (b"RCPT TO:<", b">"),
    }[verb]
    assert line == before + argument.encode() + after + b"\r\n"
    assert not set(argument.encode()) & {*range(0x21), 0x7F, *b"<>"}
