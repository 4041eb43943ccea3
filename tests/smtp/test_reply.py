"""Replies: every case is read whole, octet by octet, cut anywhere, and with more behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.reason import RemoteProtocolError
from gate.smtp.reply import (
    MAX_LINE,
    MAX_LINES,
    MAX_QUESTION,
    MAX_REPLY,
    Reply,
    ReplyReader,
    parse,
)

GOOD: dict[str, tuple[bytes, list[Reply]]] = {
    "one line": (b"250 ok\r\n", [Reply(250, ("ok",))]),
    "no text": (b"250 \r\n", [Reply(250, ("",))]),
    "no mark either": (b"250\r\n", [Reply(250, ("",))]),
    "a bare LF": (b"250 ok\n", [Reply(250, ("ok",))]),
    "a bare LF and no mark": (b"354\n", [Reply(354, ("",))]),
    "three lines": (b"250-a\r\n250-b c\r\n250 d\r\n", [Reply(250, ("a", "b c", "d"))]),
    "three lines, mixed ends": (b"250-a\n250-\r\n250\n", [Reply(250, ("a", "", ""))]),
    "two replies": (b"250 a\r\n550 b\r\n", [Reply(250, ("a",)), Reply(550, ("b",))]),
    "two replies of two lines": (
        b"220-a\r\n220 b\r\n554-c\r\n554 d\r\n",
        [Reply(220, ("a", "b")), Reply(554, ("c", "d"))],
    ),
    "the least code": (b"200 ok\r\n", [Reply(200, ("ok",))]),
    "the greatest code": (b"599 no\r\n", [Reply(599, ("no",))]),
    "a blank kept": (b"250  ok \r\n", [Reply(250, (" ok ",))]),
    "a hyphen behind the blank": (b"250 -ok\r\n", [Reply(250, ("-ok",))]),
    "a tab, an escape and other controls": (
        b"550 \x1b[2J\t\x07\r\n",
        [Reply(550, ("\x1b[2J\t\x07",))],
    ),
    "UTF-8": ("550 gibt’s nicht\r\n".encode(), [Reply(550, ("gibt’s nicht",))]),
    "Latin-1": ("550 größer\r\n".encode("latin-1"), [Reply(550, ("größer",))]),
    "UTF-8 and Latin-1 lines": (
        "550-ü\r\n".encode() + "550 ü\r\n".encode("latin-1"),
        [Reply(550, ("ü", "ü"))],
    ),
    "a non-ASCII line before an ASCII one": (
        "550-ü\r\n550 x\r\n".encode(),
        [Reply(550, ("ü", "x"))],
    ),
    "Unicode's line ends are text": (
        "250 a\u2028b\x85\r\n".encode(),
        [Reply(250, ("a\u2028b\x85",))],
    ),
    "other ends of ASCII are text": (b"250 a\x0b\x0c\x1cb\r\n", [Reply(250, ("a\x0b\x0c\x1cb",))]),
    "bytes of a surrogate": (b"550 \xed\xa0\x80\r\n", [Reply(550, ("\xed\xa0\x80",))]),
    "Shift-JIS": (b"550 \x83\x86\r\n", [Reply(550, ("\x83\x86",))]),
    "a line as long as may be": (
        b"250 " + b"x" * (MAX_LINE - 6) + b"\r\n",
        [Reply(250, ("x" * (MAX_LINE - 6),))],
    ),
    "as many lines as may be": (
        b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n",
        [Reply(250, ("x",) * MAX_LINES)],
    ),
    "as many octets as may be": (
        (b"250-" + b"x" * 1018 + b"\r\n") * 15 + b"250 " + b"x" * 1018 + b"\r\n",
        [Reply(250, ("x" * 1018,) * 16)],
    ),
}

BAD: dict[str, bytes] = {
    "no digit": b"ok\r\n",
    "an empty line": b"\r\n",
    "a bare LF alone": b"\n",
    "two digits": b"25\r\n",
    "two digits and text": b"25 ok\r\n",
    "four digits": b"2500\r\n",
    "a letter": b"2_5 ok\r\n",
    "a sign": b"+25 ok\r\n",
    "a blank first": b" 250 ok\r\n",
    "full-width digits": "２５０ ok\r\n".encode(),
    "Arabic digits": "٢٥٠ ok\r\n".encode(),
    "superscript digits": "2⁵0 ok\r\n".encode(),
    "1xx": b"199 ok\r\n",
    "6xx": b"600 ok\r\n",
    "000": b"000 ok\r\n",
    "a tab as mark": b"250\tok\r\n",
    "another mark": b"250_ok\r\n",
    "text without mark": b"250ok\r\n",
    "two codes in a reply": b"250-a\r\n550 b\r\n",
    "two codes in a reply, both continued": b"250-a\r\n251-b\r\n",
    "a line without code": b"250-a\r\nb\r\n250 c\r\n",
    "a blank line": b"250-a\r\n\r\n250 c\r\n",
    "a CR amid a line": b"250 a\rb\r\n",
    "a CR amid a line before another reply": b"250 a\r550 b\r\n",
    "a doubled CR": b"250 ok\r\r\n",
    "a CR behind the code": b"250\rok\r\n",
    "NUL": b"250 a\0b\r\n",
    "NUL in the code": b"2\x0050 ok\r\n",
    "NUL behind the code": b"250\0\r\n",
    "a web server": b"HTTP/1.1 400 Bad Request\r\n",
    "an SSH server": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a POP3 server": b"+OK ready\r\n",
    "an IMAP server": b"* OK ready\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x0a",
    "one octet too many in a line": b"250 " + b"x" * (MAX_LINE - 5) + b"\r\n",
    "one octet too many before the line end": b"250 " + b"x" * (MAX_LINE - 5),
    "one line too many": b"250-x\r\n" * MAX_LINES + b"250 x\r\n",
    "a line too many has begun": b"250-x\r\n" * MAX_LINES + b"2",
    "one octet too many in a reply": (b"250-" + b"x" * 1018 + b"\r\n") * 15
    + b"250 "
    + b"x" * 1019
    + b"\r\n",
    "one octet too many in a reply, no line end": (b"250-" + b"x" * 1018 + b"\r\n") * 15
    + b"250 "
    + b"x" * 1019,
}

UNFINISHED = {
    b"2": b"50 end\r\n",
    b"25": b"0 end\r\n",
    b"250": b" end\r\n",
    b"250\r": b"\n",
    b"250 ": b"end\r\n",
    b"250-": b"\r\n250 end\r\n",
    b"250 en": b"d\r\n",
    b"250 end\r": b"\n",
    b"250-a\r\n": b"250 end\n",
}


def octets(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def read(pieces: Iterator[bytes] | list[bytes]) -> list[Reply]:
    reader = ReplyReader()
    return [reply for piece in pieces for reply in reader.feed(piece)]


@pytest.mark.parametrize("name", GOOD)
def test_good_replies(name: str) -> None:
    data, replies = GOOD[name]
    assert read([data]) == replies
    assert read(octets(data)) == replies


@pytest.mark.parametrize("behind", UNFINISHED)
@pytest.mark.parametrize("name", GOOD)
def test_good_replies_with_more_behind_them(name: str, behind: bytes) -> None:
    data, replies = GOOD[name]
    for pieces in ([data + behind], octets(data + behind)):
        reader = ReplyReader()
        assert [reply for piece in pieces for reply in reader.feed(piece)] == replies
        assert reader.pending
        assert reader.beginning == "250"[: len(behind)]
        (last,) = reader.feed(UNFINISHED[behind])
        assert last.code == 250
        assert last.lines[-1] in ("", "end")
        assert not reader.pending


@pytest.mark.parametrize("behind", [b"", b"250 ok\r\n", b"x"])
@pytest.mark.parametrize("before", [b"", b"220 hello\r\n"])
@pytest.mark.parametrize("name", BAD)
def test_bad_replies_are_refused_wherever_they_stand(
    name: str, before: bytes, behind: bytes
) -> None:
    data = before + BAD[name] + behind
    for pieces in ([data], list(octets(data))):
        with pytest.raises(RemoteProtocolError):
            read(pieces)


@pytest.mark.parametrize("name", BAD)
def test_a_breach_is_for_ever(name: str) -> None:
    reader = ReplyReader()
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            reader.feed(BAD[name])
    with pytest.raises(RemoteProtocolError):
        reader.feed(b"250 ok\r\n")
    assert not reader.pending


def test_nothing_is_pending_between_replies() -> None:
    reader = ReplyReader()
    assert not reader.pending
    assert reader.feed(b"250 ok\r\n")
    assert not reader.pending
    assert reader.beginning == ""


@pytest.mark.parametrize(
    "first", [b"H", b"\x16", b"1", b"6", b" ", b"2x", b"25x", b"2501", b"250\0"]
)
def test_what_cannot_become_a_reply_is_refused_before_its_line_ends(first: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(octets(first))


BOMBS = {
    "a line without end": (b"220 ", b"x", MAX_LINE),
    "continued for ever": (b"", b"250-x\r\n", MAX_LINES * 7),
    "long lines, continued for ever": (b"", b"250-" + b"x" * 1018 + b"\r\n", MAX_REPLY),
    "replies for ever": (b"", b"250 " + b"x" * 1018 + b"\r\n", MAX_QUESTION),
}


@pytest.mark.parametrize("size", [1, 1000, 65536])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_its_bound(name: str, size: int) -> None:
    """Of the gigabyte to come, no more is taken than the bound and the piece that crosses it."""
    first, endless, bound = BOMBS[name]
    stream = first + endless * (bound // len(endless) + 1 + size // len(endless) + 1)
    reader, taken = ReplyReader(), 0
    with pytest.raises(RemoteProtocolError):
        for start in range(0, len(stream), size):
            taken = start
            reader.feed(stream[start : start + size])
    assert bound - size - len(b"\r\n") <= taken <= bound


def test_an_honest_session_may_be_as_long_as_the_bound() -> None:
    reader, line = ReplyReader(), b"250 " + b"x" * 1018 + b"\r\n"
    for _ in range(MAX_QUESTION // len(line)):
        assert len(reader.feed(line)) == 1
    with pytest.raises(RemoteProtocolError):
        reader.feed(b"2")


PARSED = {
    "CRLF": (b"550-a\r\n550 b\r\n", Reply(550, ("a", "b"))),
    "LF": (b"550-a\n550 b\n", Reply(550, ("a", "b"))),
    "the last line end is missing": (b"550 b", Reply(550, ("b",))),
    "only the LF is missing": (b"550 b\r", Reply(550, ("b",))),
}


@pytest.mark.parametrize("name", PARSED)
def test_parse_takes_one_whole_reply(name: str) -> None:
    raw, reply = PARSED[name]
    assert parse(raw) == reply


@pytest.mark.parametrize("raw", [b"", b"250-a\r\n", b"250 a\r\n250 b\r\n", b"250 a\r\n2", b"hello"])
def test_parse_takes_nothing_else(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(raw)


ENHANCED = {
    "usual": (b"550 5.1.1 unknown", "5.1.1", False),
    "alone": (b"250 2.0.0", "2.0.0", False),
    "the first code of a class": (b"500 5.5.2 what", "5.5.2", False),
    "long": (b"550 5.7.606 blocked", "5.7.606", False),
    "on the first of two lines": (b"550-5.1.1 un\n550 5.7.1 known", "5.1.1", False),
    "only on the second line": (b"550-un\n550 5.1.1 known", None, False),
    "behind an empty line": (b"550-\n550 5.1.1 unknown", None, False),
    "not first": (b"550 unknown 5.1.1", None, False),
    "qmail's": (b"550 sorry (#5.1.1)", None, False),
    "an address": (b"452 4.2.2.1 sent too much", None, False),
    "four digits": (b"550 5.1.1000 no", None, False),
    "a comma behind": (b"550 5.1.1, no", None, False),
    "two numbers": (b"550 5.1 no", None, False),
    "of class 3": (b"550 3.1.1 no", None, False),
    "2 in 550": (b"550 2.1.5 ok", None, True),
    "5 in 400": (b"400 5.5.2 what", None, True),
    "4 in 550": (b"550 4.2.2 full", None, True),
    "5 in 250": (b"250 5.1.1 unknown", None, True),
    "none": (b"250", None, False),
}


@pytest.mark.parametrize("name", ENHANCED)
def test_an_enhanced_code_counts_first_and_in_its_own_class(name: str) -> None:
    raw, enhanced, contradicts = ENHANCED[name]
    reply = parse(raw)
    assert reply.enhanced == enhanced
    assert reply.contradicts is contradicts


def test_text_is_all_lines() -> None:
    assert parse(b"550-5.1.1 no\n550-\n550 such user").text == "5.1.1 no  such user"


@given(
    stream=st.sampled_from(sorted(GOOD))
    .map(lambda name: GOOD[name][0])
    .filter(lambda d: len(d) < 99),
    more=st.sampled_from([data for data, _ in GOOD.values() if len(data) < 99]),
    cuts=st.lists(st.integers(1, 20), max_size=20),
)
def test_how_a_stream_is_cut_changes_nothing(stream: bytes, more: bytes, cuts: list[int]) -> None:
    data, pieces, start = stream + more, [], 0
    for length in [*cuts, len(stream + more)]:
        pieces.append(data[start : start + length])
        start += length
    assert read(pieces) == read([data])


LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\r\n\0]*))?\r?\n")


def model(data: bytes) -> list[tuple[int, int]] | None:
    """Codes and numbers of lines of the whole replies, by another way; None for a breach."""
    replies, code, count, position = [], b"", 0, 0
    while b"\n" in data[position:]:
        line = LINE.match(data, position)
        if line is None or (code and line[1] != code):
            return None
        code, count, position = line[1], count + 1, line.end()
        if line[2] != b"-":
            replies.append((int(code), count))
            code, count = b"", 0
    return replies


fragments = st.sampled_from(
    [
        b"250",
        b"550",
        b"2",
        b"5",
        b"0",
        b"-",
        b" ",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"ok",
        b"\xff",
        b"x",
    ]
)


@given(st.lists(fragments, max_size=24).map(b"".join))
def test_anything_is_replies_or_a_breach_and_agrees_with_a_plain_model(data: bytes) -> None:
    try:
        found = [(reply.code, len(reply.lines)) for reply in read([data])]
    except RemoteProtocolError:
        # What is refused early could never have ended well: no end makes the model take it.
        for end in (b"\n", b" \n", b"0\n", b"50\n"):
            assert model(data + end) is None
    else:
        assert model(data) == found


@given(st.binary(max_size=200))
def test_octets_of_any_kind_raise_nothing_else(data: bytes) -> None:
    for pieces in ([data], octets(data)):
        try:
            read(pieces)
        except RemoteProtocolError:
            continue
