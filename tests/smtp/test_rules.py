"""The table of wordings: every row by its own example, and no pattern for hostile text to use."""

from __future__ import annotations

import re
import time
from importlib.resources import files

import pytest

from gate.reason import GateError, Reason
from gate.smtp.classify import classify
from gate.smtp.dialog import Stage
from gate.smtp.explain import read
from gate.smtp.reply import Reply
from gate.smtp.rules import RULES, STEPS, Rule, load

ROW = """
[[rule]]
id = "full"
step = "full"
words = ["full"]
match = '{match}'
reason = "mailbox_full"
why = "because"
example = "552 mailbox full"
source = "https://example.com"
"""


@pytest.mark.parametrize("rule", RULES.rows, ids=lambda rule: rule.id)
def test_every_row_decides_its_own_example(rule: Rule) -> None:
    (reading,) = read([rule.example])
    assert reading.reply is not None
    outcome = classify(Stage.RCPT, reading.reply)
    assert (outcome.rule, outcome.reason) == (rule.id, rule.reason)


def test_rows_are_told_apart_and_say_where_they_are_from() -> None:
    ids = [rule.id for rule in RULES.rows]
    assert len(set(ids)) == len(ids)
    assert all(rule.why and rule.source for rule in RULES.rows)


def test_steps_decide_in_their_order() -> None:
    order = [STEPS.index(rule.step) for rule in RULES.rows]
    assert order == sorted(order)


def test_only_a_row_of_which_a_word_stands_in_the_text_is_tried() -> None:
    table = load(ROW.format(match="full"))
    assert [rule.id for rule in table.candidates("mailbox full")] == ["full"]
    assert not list(table.candidates("mailbox empty"))
    assert not list(table.candidates(""))


def test_a_word_of_two_letters_is_found_as_well() -> None:
    table = load(ROW.format(match="ip").replace('["full"]', '["ip"]'))
    assert [rule.id for rule in table.candidates("an ip")] == ["full"]
    assert [rule.id for rule in table.candidates("ip")] == ["full"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ('reason = "mailbox_full"', 'reason = "mailbox_overflowing"'),
        ('words = ["full"]', "words = []"),
        ('why = "because"', 'wy = "because"'),
        ("match = 'full'", "match = 'full('"),
        ("match = 'full'", "match = '{nothing}'"),
    ],
)
def test_a_wrong_row_is_named(wrong: str, right: str) -> None:
    text = ROW.format(match="full")
    assert wrong in text
    with pytest.raises(GateError, match=r"rules\.toml, row 'full'"):
        load(text.replace(wrong, right))


def test_no_pattern_repeats_a_repetition_without_bound() -> None:
    unbounded = re.compile(r"[*+]|\{\d+,\}")
    for rule in RULES.rows:
        for pattern in (rule.match, rule.unless):
            assert pattern is None or not unbounded.search(
                re.sub(r"\\[*+]|\[[^\]]*\]|\?", "", pattern.pattern)
            ), rule.id


def test_no_row_speaks_of_the_mailbox_where_the_sender_is_the_subject() -> None:
    mailbox = {Reason.REJECTED_EMAIL, Reason.MAILBOX_DISABLED, Reason.MAILBOX_FULL}
    assert not [rule.id for rule in RULES.rows if rule.step == "fault" and rule.reason in mailbox]


HOSTILE = [
    *("a", " ", "user ", "your address ", "ip 192.0.2.1 ", "a@", "a.", "mailbox over ", "not "),
    *("unknown user ", "<", "http://", "1.", "a:", "recipient address rejected ", "sender "),
    *("no such ", "sender address verify client host reverse blocked ", "не существует ", "é"),
    *("user: (", "mailbox <a@b.example> ", "5.1.1 ", "550-", "host a.example[192.0.2.1] said: "),
    *("quota ", "try again in ", "retry 1 ", "a_", "[", "x" * 127 + "@", "x." * 60 + " "),
]


@pytest.mark.parametrize("part", HOSTILE)
def test_long_hostile_text_costs_milliseconds(part: str) -> None:
    reply = Reply(451, ((part * 16384)[:16384],))
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        classify(Stage.RCPT, reply)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.02  # 5 ms asked; the machine of the tests may be busy


def test_the_table_in_the_package_is_the_one_that_is_loaded() -> None:
    text = files("gate.smtp").joinpath("rules.toml").read_text(encoding="utf-8")
    assert load(text).rows == RULES.rows
