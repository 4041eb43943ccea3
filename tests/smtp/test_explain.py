"""Replies from files and terminals: both forms, mixed, and lines that are neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.smtp.classify import classify
from gate.smtp.dialog import Stage
from gate.smtp.explain import Reading, read, three_way
from gate.smtp.reply import Reply


def one(line: str, stage: Stage = Stage.RCPT) -> Reading:
    (reading,) = read([line], stage)
    return reading


@pytest.mark.parametrize(
    ("line", "stage", "reply", "provider"),
    [
        (
            '{"stage": "rcpt", "code": 550, "enhanced": "5.1.1", "text": "no", "provider": "x"}',
            *(Stage.RCPT, Reply(550, ("5.1.1 no",)), "x"),
        ),
        (
            '{"stage": "mail", "code": "450", "enhanced": null, "text": "4.2.0 no"}',
            *(Stage.MAIL, Reply(450, ("4.2.0 no",)), None),
        ),
        (
            '{"code": 550, "enhanced": "5.1.1", "text": "5.1.1 no"}',
            *(Stage.RCPT, Reply(550, ("5.1.1 no",)), None),
        ),
        ('{"text": "550 no"}', Stage.RCPT, Reply(550, ("no",)), None),
        ('{"text": "550-one\\n550 two"}', Stage.RCPT, Reply(550, ("one", "two")), None),
        ('{"code": 550, "text": "550-one 550 two"}', Stage.RCPT, Reply(550, ("one", "two")), None),
        ('{"code": 550, "text": "at 550 one"}', Stage.RCPT, Reply(550, ("at 550 one",)), None),
        ("550-one 550-two 550 three", Stage.RCPT, Reply(550, ("one", "two", "three")), None),
        ('{"code": 550, "text": ["one", "two"]}', Stage.RCPT, Reply(550, ("one", "two")), None),
        ('{"code": 550}', Stage.RCPT, Reply(550, ("",)), None),
        ('{"code": 421, "stage": "banner"}', Stage.GREETING, Reply(421, ("",)), None),
        ('{"code": 421, "stage": "connect"}', Stage.CONNECT, Reply(421, ("",)), None),
        ('{"code": 550, "stage": "RCPT TO"}', Stage.RCPT, Reply(550, ("",)), None),
        ('{"code": 550, "stage": "MAIL FROM"}', Stage.MAIL, Reply(550, ("",)), None),
        ("550 5.1.1 no", Stage.RCPT, Reply(550, ("5.1.1 no",)), None),
        ("550", Stage.RCPT, Reply(550, ("",)), None),
        ("mail: 550 no", Stage.MAIL, Reply(550, ("no",)), None),
        ("<<< 550 no", Stage.RCPT, Reply(550, ("no",)), None),
        ("S: 550 no", Stage.RCPT, Reply(550, ("no",)), None),
    ],
)
def test_both_forms(line: str, stage: Stage, reply: Reply, provider: str | None) -> None:
    assert one(line) == Reading(stage, reply, provider, None)


@pytest.mark.parametrize("name", ["connect", "banner", "greeting", "ehlo", "helo", "starttls"])
def test_every_stage_before_rcpt_is_known_by_its_names(name: str) -> None:
    reading = one(f'{{"stage": "{name}", "code": 550, "text": "User unknown"}}')
    assert reading.reply is not None
    assert three_way(classify(reading.stage, reading.reply)) == "undetermined"


def test_a_bare_reply_of_several_lines_is_one_reading() -> None:
    lines = ["550-5.1.1 The account", "550 5.1.1 does not exist", "", "250 ok"]
    assert [reading.reply for reading in read(lines)] == [
        Reply(550, ("5.1.1 The account", "5.1.1 does not exist")),
        Reply(250, ("ok",)),
    ]


def test_a_reply_that_is_cut_short_is_still_read() -> None:
    assert [reading.reply for reading in read(["550-one", '{"code": 250}', "450-two"])] == [
        Reply(550, ("one",)),
        Reply(250, ("",)),
        Reply(450, ("two",)),
    ]


def test_the_default_stage_is_meant_where_none_is_named() -> None:
    assert one("421 busy", Stage.GREETING).stage is Stage.GREETING
    assert one('{"code": 421}', Stage.GREETING).stage is Stage.GREETING
    assert one("rcpt: 421 busy", Stage.GREETING).stage is Stage.RCPT


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("hello", "neither a JSON object nor an SMTP reply"),
        ("[1, 2]", "not a JSON object"),
        ("{", "neither a JSON object nor an SMTP reply"),
        ("[" * 100_000, "neither a JSON object nor an SMTP reply"),
        ('{"code": 550, "stage": "quit me"}', "unknown stage 'quit me'"),
        ('{"text": "no code"}', "no reply code from 200 to 599"),
        ('{"code": 99}', "no reply code from 200 to 599"),
        ('{"code": "five"}', "no reply code from 200 to 599"),
        ('{"code": true}', "no reply code from 200 to 599"),
    ],
)
def test_a_line_that_is_neither_says_so(line: str, error: str) -> None:
    reading = one(line)
    assert reading.reply is None
    assert reading.error == error


def test_the_three_ways() -> None:
    ways = {
        "250 ok": "exists",
        "552 5.2.2 mailbox full": "exists",
        "550 5.1.1 user unknown": "not_found",
        "550 5.2.1 mailbox disabled": "not_found",
        "550 5.7.1 blocked": "undetermined",
        "450 4.2.0 greylisted": "undetermined",
        "550 5.2.1 receiving mail at a rate that prevents": "undetermined",
    }
    for line, way in ways.items():
        reply = one(line).reply
        assert reply is not None
        assert three_way(classify(Stage.RCPT, reply)) == way


@given(st.lists(st.text(max_size=60), max_size=6))
def test_whatever_is_read_nothing_is_raised(lines: list[str]) -> None:
    for reading in read(lines):
        assert (reading.reply is None) == (reading.error is not None)
