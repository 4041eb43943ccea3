"""What a reply means: the fault table, the order of decision, and what no text may ever do."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate import budget
from gate.reason import Reason, Scope
from gate.smtp import classify as module
from gate.smtp.classify import Echo, Outcome, classify, same_answer
from gate.smtp.dialog import Stage
from gate.smtp.explain import read, three_way
from gate.smtp.reply import Reply
from gate.smtp.rules import RULES

R = Reason
MAILBOX = {R.ACCEPTED_EMAIL, R.REJECTED_EMAIL, R.MAILBOX_DISABLED, R.MAILBOX_FULL}
NOBODY = Echo()
REPLIES = Path(__file__).parent.parent / "replies"


def rcpt(line: str, echo: Echo = NOBODY, provider: str | None = None) -> Outcome:
    return classify(Stage.RCPT, Reply(int(line[:3]), (line[4:],)), echo=echo, provider=provider)


@pytest.mark.parametrize(
    ("line", "reason", "scope"),
    [
        ("250 2.1.5 OK", R.ACCEPTED_EMAIL, Scope.RECIPIENT),
        ("251 User not local; will forward", R.ACCEPTED_EMAIL, Scope.RECIPIENT),
        ("252 2.0.0 Cannot VRFY user", R.UNCONFIRMED, Scope.RECIPIENT),
        ("250 5.1.1 ok", R.PROTOCOL_ERROR, Scope.HOST),
        ("354 go ahead", R.PROTOCOL_ERROR, Scope.HOST),
        ("550 5.1.1 user unknown", R.REJECTED_EMAIL, Scope.RECIPIENT),
        ("550 User unknown", R.REJECTED_EMAIL, Scope.RECIPIENT),
        ("550 5.7.1 Access denied", R.PROBE_BLOCKED, Scope.US),
        ("550 5.7.1 Relaying denied", R.RELAY_DENIED, Scope.HOST),
        ("454 4.7.1 Relay access denied", R.RELAY_DENIED, Scope.HOST),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.7]", R.PROBE_BLOCKED, Scope.US),
        (
            "550 5.2.1 The user you try to contact is receiving mail at a rate that prevents",
            R.DEFERRED,
            Scope.RECIPIENT,
        ),
        (
            "450 4.2.1 The user you try to contact is receiving mail at a rate that prevents",
            R.DEFERRED,
            Scope.RECIPIENT,
        ),
        ("550 5.2.1 mailbox inactive", R.MAILBOX_DISABLED, Scope.RECIPIENT),
        ("552 5.2.2 mailbox full", R.MAILBOX_FULL, Scope.RECIPIENT),
        ("452 4.2.2 over quota", R.MAILBOX_FULL, Scope.RECIPIENT),
        ("450 4.1.1 unverified address", R.GREYLISTED, Scope.RECIPIENT),
        ("450 4.1.1 user unknown", R.GREYLISTED, Scope.RECIPIENT),
        ("451 4.7.1 Greylisted", R.GREYLISTED, Scope.RECIPIENT),
        ("450 4.3.2 Service currently unavailable", R.GREYLISTED, Scope.RECIPIENT),
        ("451 4.3.0 Local error", R.DEFERRED, Scope.HOST),
        ("452 4.5.3 Too many recipients", R.DEFERRED, Scope.US),
        ("421 4.7.0 Too many connections", R.DEFERRED, Scope.US),
        ("421 4.7.0 Try again later, closing connection", R.DEFERRED, Scope.HOST),
        ("553 5.1.3 Bad recipient address syntax", R.REJECTED_EMAIL, Scope.RECIPIENT),
        ("501 Bad address syntax", R.PROTOCOL_ERROR, Scope.HOST),
        ("550 5.1.2 Bad destination system", R.RELAY_DENIED, Scope.HOST),
        ("550 5.1.10 Null MX", R.RELAY_DENIED, None),
        ("551 5.1.6 The recipient has moved", R.REJECTED_EMAIL, Scope.RECIPIENT),
        ("551 User not local; please try <user@example.org>", R.REJECTED_EMAIL, Scope.RECIPIENT),
        ("550 5.4.1 Recipient address rejected: Access denied", R.REJECTED_EMAIL, Scope.RECIPIENT),
        ("554 5.7.0 callout verification failed", R.PROBE_BLOCKED, Scope.US),
        ("503 5.5.1 Need MAIL before RCPT", R.PROTOCOL_ERROR, Scope.HOST),
        ("502 Command not implemented", R.PROTOCOL_ERROR, Scope.HOST),
        ("555 RCPT TO parameters not recognized", R.PROTOCOL_ERROR, Scope.HOST),
        ("550 2.1.5 ok", R.UNCONFIRMED, Scope.RECIPIENT),
        ("530 5.7.0 Must issue a STARTTLS command first", R.TLS_FAILED, Scope.HOST),
        ("552 5.3.4 Message size exceeds fixed limit", R.UNCONFIRMED, Scope.RECIPIENT),
        ("452 4.3.1 Insufficient system storage", R.DEFERRED, Scope.HOST),
        ("554 Mailbox unavailable or access denied", R.UNCONFIRMED, Scope.RECIPIENT),
    ],
)
def test_replies_of_the_fault_table(line: str, reason: Reason, scope: Scope | None) -> None:
    outcome = rcpt(line)
    assert outcome.reason is reason
    assert scope is None or outcome.scope is scope


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        # the subject before the predicate
        ("550 5.1.0 <me@here.example>: Sender address rejected: User unknown", R.PROBE_BLOCKED),
        ("550 Sender verify failed: no such user here", R.PROBE_BLOCKED),
        ("550 Your mailbox does not exist", R.PROBE_BLOCKED),
        ("550 5.7.1 Client host rejected: cannot find your hostname", R.PROBE_BLOCKED),
        ("550 <helo.example>: Helo command rejected: Host not found", R.PROBE_BLOCKED),
        # words of blocking before words of absence, and their exceptions
        ("550 Blocked: too many unknown users", R.PROBE_BLOCKED),
        ("550 mailbox unavailable, reject due to policy restrictions", R.PROBE_BLOCKED),
        ("550 5.2.1 This mailbox has been blocked due to inactivity", R.MAILBOX_DISABLED),
        ("550 Account blocked", R.MAILBOX_DISABLED),
        # a grey block list is greylisting
        ("450 4.7.1 Greylisted, see blacklist.example/grey", R.GREYLISTED),
        # the mailbox and the server's disk
        ("552 5.3.1 mailbox full", R.MAILBOX_FULL),
        ("452 4.2.2 Disk full", R.DEFERRED),
        # a permanent code around temporary words
        ("550 Mailbox unavailable. Try again later", R.DEFERRED),
        # the enhanced code only breaks ties
        ("550 5.1.1 blocked by spamhaus", R.PROBE_BLOCKED),
        ("550 5.7.1 user unknown", R.REJECTED_EMAIL),
        ("550 5.1.1 gsmtp", R.REJECTED_EMAIL),
        ("550 5.7.1 gsmtp", R.UNCONFIRMED),
        ("550 5.1.8 x", R.PROBE_BLOCKED),
        ("550 5.7.25 x", R.PROBE_BLOCKED),
        ("521 does not like you", R.PROBE_BLOCKED),
        # the codes of a login, and accounts that send
        ("535 5.7.8 unknown user", R.PROBE_BLOCKED),
        ("550 message sending for this account is disabled", R.PROBE_BLOCKED),
        # a domain or a machine as the subject
        ("511 can't find a valid MX for rcpt domain (#5.1.1)", R.RELAY_DENIED),
        ("550 Mailbox server not found", R.DEFERRED),
        ("550 5.4.6 user: mail for example.com loops back to myself", R.UNCONFIRMED),
        # what an address book says, and what is said of one
        ("550 usuario no se encuentra en el Directorio de Domino", R.REJECTED_EMAIL),
        ("550 You are not in the recipient's contact list", R.UNCONFIRMED),
    ],
)
def test_the_order_of_decision(line: str, reason: Reason) -> None:
    assert rcpt(line).reason is reason


@pytest.mark.parametrize("code", [550, 551, 553])
@pytest.mark.parametrize("text", ["", "4ca7-88", "<user@example.com>", "..."])
def test_a_refusal_without_words_waits_for_the_contrast(code: int, text: str) -> None:
    outcome = rcpt(f"{code} {text}")
    assert outcome.reason is R.UNCONFIRMED
    assert outcome.contrast is R.REJECTED_EMAIL


@pytest.mark.parametrize("line", ["554 ", "550 5.7.1", "550 Something else", "450 ", "550 blocked"])
def test_other_refusals_have_no_contrast(line: str) -> None:
    assert rcpt(line).contrast is None


def test_a_text_of_one_provider_means_nothing_at_another() -> None:
    line = "550 5.4.1 Recipient address rejected: Access denied"
    assert rcpt(line, provider="Microsoft 365").reason is R.REJECTED_EMAIL
    assert rcpt(line, provider="Outlook.com").reason is R.REJECTED_EMAIL
    assert rcpt(line, provider="Mimecast").reason is R.PROBE_BLOCKED


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("450 4.2.0 Greylisted for 300 seconds", 300),
        ("450 4.2.0 Greylisted for 5 minutes", 300),
        ("451 4.7.1 Greylisting in effect, try again in 00:04:31", 271),
        ("451 Greylisted, please come back in 1 hour", 3600),
        ("450 Greylisted: retry = 120s", 120),
        ("450 Greylisted for 5 seconds", 300),
        ("450 Greylisted for 99999 minutes", 300),
        ("451 4.7.1 Try again later", 300),
        ("450 4.1.1 user unknown", 300),
        ("450 4.2.1 mailbox receives too many messages to this user, try again in 600 s", 600),
        ("452 4.5.3 Too many recipients", None),
        ("550 User unknown, try again in 300 seconds", None),
        ("250 ok", None),
    ],
)
def test_when_to_come_back(line: str, seconds: int | None) -> None:
    outcome = rcpt(line)
    assert outcome.retry_after == seconds
    if seconds is not None:
        assert budget.GREYLIST_RETRY_LEAST <= seconds <= budget.GREYLIST_RETRY_MOST


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.MAIL])
def test_before_rcpt_words_for_a_mailbox_are_about_us(stage: Stage) -> None:
    for text in ("5.1.1 User unknown", "5.2.1 Mailbox disabled", "Relay access denied", ""):
        outcome = classify(stage, Reply(550, (text,)))
        assert (outcome.reason, outcome.scope) == (R.PROBE_BLOCKED, Scope.US)
        assert classify(stage, Reply(450, (text,))).reason is R.DEFERRED


def test_before_rcpt_other_words_mean_what_they_say() -> None:
    assert classify(Stage.MAIL, Reply(451, ("Greylisted",))).reason is R.GREYLISTED
    assert classify(Stage.GREETING, Reply(421, ("Too many connections",))).scope is Scope.US
    assert classify(Stage.MAIL, Reply(503, ("Bad sequence",))).reason is R.PROTOCOL_ERROR
    assert classify(Stage.STARTTLS, Reply(454, ("TLS not available",))).reason is R.TLS_FAILED


def test_our_own_words_are_no_words_of_theirs() -> None:
    echo = Echo("spam.blocked@greylist-agency.example", "verify@spf.example", "helo.example", "")
    said = "550 5.1.1 <spam.blocked@greylist-agency.example>: no such user"
    assert rcpt(said, echo).reason is R.REJECTED_EMAIL
    assert rcpt('550 User "spam.blocked" unknown', echo).reason is R.REJECTED_EMAIL
    assert rcpt("550 No such user at greylist-agency.example", echo).reason is R.REJECTED_EMAIL


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("550 <{}>: rejected id 4ca7", "550 <{}>: rejected id 9b1f", True),
        ("550 <{}>: rejected at 12:00:01", "550 <{}>: rejected at 12:00:02", True),
        ("550 {} rejected", "551 {} rejected", False),
        ("550 5.1.1 {} rejected", "550 5.7.1 {} rejected", False),
        ("550 {} rejected", "550 {} refused", False),
        ("250 ok", "250 ok", True),
    ],
)
def test_the_same_answer_to_two_recipients(one: str, other: str, same: bool) -> None:
    a, b = Echo("user@example.com"), Echo("xk2f9qv7@example.com")
    first, second = one.format(a.recipient), other.format(b.recipient)
    replies = [Reply(int(line[:3]), (line[4:],)) for line in (first, second)]
    assert same_answer(replies[0], replies[1], a, b) is same


def test_the_collected_replies_are_read_as_their_sources_read_them() -> None:
    """The bar of the promise, on what the rows were written against; the holdout is for
    `python -m benchmarks.classifier` alone."""
    lines = (REPLIES / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) >= 600
    right = found = false = 0
    absent = [row for row in rows if row["three_way"] == "not_found"]
    for row, (stage, reply, provider, error) in zip(rows, read(lines), strict=True):
        assert error is None and reply is not None
        said = three_way(classify(stage, reply, provider=provider))
        right += said == row["three_way"]
        found += said == row["three_way"] == "not_found"
        false += said == "not_found" != row["three_way"]
    assert right / len(rows) >= 0.97
    assert false / len(rows) <= 0.003
    assert found / len(absent) >= 0.92


# -- what holds for every text --------------------------------------------------------------------

PHRASES = [rule.example[4:] for rule in RULES.rows]
WORDS = sorted({word for words in RULES.words.values() for word, _ in words})
TEXTS = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")),
    st.lists(st.sampled_from(PHRASES + WORDS), max_size=8).map(" ".join),
)
CODES = st.integers(200, 599)
STAGES = st.sampled_from(list(Stage))
LOCALS = st.one_of(
    st.sampled_from(["spam", "user", "unknown", "blocked", "greylist", "quota", "no-such-user"]),
    st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,20}[a-z0-9]", fullmatch=True),
)
DOMAINS = st.sampled_from(
    ["example.com", "spam.example", "greylist.example", "full.example.org", "spf.example.net"]
)
NAMING = [
    "550 5.1.1 <{}>: Recipient address rejected: User unknown",
    "550 No such user: {}",
    "550 user {} does not exist",
    "552 5.2.2 <{}>... mailbox full",
    "450 4.2.0 <{}>: Recipient address rejected: Greylisted",
    "554 5.7.1 <{}>: Relay access denied",
    "550 5.2.1 {} disabled",
    "550 {}",
    "550 <{}> rejected",
    "550 5.7.1 <{}>: Recipient address rejected: blocked by policy",
    "250 2.1.5 <{}> ok",
]


@given(STAGES, CODES, st.lists(TEXTS, max_size=4))
def test_no_text_raises_and_every_answer_is_whole(
    stage: Stage, code: int, texts: list[str]
) -> None:
    outcome = classify(stage, Reply(code, tuple(texts)), echo=Echo("u@a.example", "", "h.example"))
    assert outcome.rule and outcome.reply is not None
    assert same_answer(outcome.reply, outcome.reply, Echo(), Echo())


@given(st.sampled_from(sorted(set(Stage) - {Stage.RCPT, Stage.CONTROL})), CODES, TEXTS)
def test_nothing_before_rcpt_is_about_the_mailbox(stage: Stage, code: int, text: str) -> None:
    assert classify(stage, Reply(code, (text,))).reason not in MAILBOX


@given(st.integers(400, 499), TEXTS)
def test_no_4xx_is_final(code: int, text: str) -> None:
    outcome = classify(Stage.RCPT, Reply(code, (text,)))
    assert outcome.reason not in {R.REJECTED_EMAIL, R.MAILBOX_DISABLED, R.ACCEPTED_EMAIL}


@given(st.sampled_from([550, 551, 553, 554, 571]), st.integers(0, 2**32))
def test_words_of_no_known_meaning_are_never_not_found(code: int, seed: int) -> None:
    dice = random.Random(seed)
    words = ["".join(dice.choices("bcdfghjklmnpqrstvwxz", k=7)) for _ in range(dice.randint(1, 9))]
    outcome = classify(Stage.RCPT, Reply(code, (" ".join(words),)))
    assert outcome.reason is R.UNCONFIRMED
    assert outcome.contrast is None


@given(st.sampled_from(NAMING), LOCALS, DOMAINS)
def test_another_address_is_no_other_reason(said: str, local: str, domain: str) -> None:
    plain = said.format("user@example.com")
    named = said.format(f"{local}@{domain}")
    expected = rcpt(plain, Echo("user@example.com"))
    outcome = rcpt(named, Echo(f"{local}@{domain}"))
    assert (outcome.reason, outcome.contrast) == (expected.reason, expected.contrast)


@given(st.sampled_from(NAMING), LOCALS, DOMAINS)
def test_nor_without_knowing_it(said: str, local: str, domain: str) -> None:
    expected = rcpt(said.format("user@example.com"))
    assert rcpt(said.format(f"{local}@{domain}")).reason is expected.reason


@given(st.sampled_from(PHRASES), st.integers(1, 6), CODES)
def test_a_reply_cut_into_lines_means_the_same(phrase: str, lines: int, code: int) -> None:
    words = phrase.split()
    size = -(-len(words) // lines)
    cut = tuple(" ".join(words[at : at + size]) for at in range(0, len(words), size))
    whole = classify(Stage.RCPT, Reply(code, (phrase,)))
    parts = classify(Stage.RCPT, Reply(code, cut))
    assert (whole.reason, whole.rule) == (parts.reason, parts.rule)


@given(st.permutations(["Service status follows.", "User unknown", "Have a nice day.", "ID 8f2"]))
def test_the_order_of_the_lines_loses_nothing(lines: list[str]) -> None:
    assert classify(Stage.RCPT, Reply(550, tuple(lines))).reason is R.REJECTED_EMAIL


def test_what_is_remembered_of_other_readings_changes_no_reading() -> None:
    lines = (REPLIES / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    echoes = [NOBODY, Echo("jane@a.test", "probe@gate.test", "gate.test", "192.0.2.44")]
    asked = [
        (found.stage, found.reply, found.provider, echo)
        for found in read(lines[::3])
        if found.reply is not None
        for echo in echoes
    ]

    def outcome(at: int) -> Outcome:
        stage, reply, provider, echo = asked[at]
        return classify(stage, reply, provider=provider, echo=echo)

    fresh = []
    for at in range(len(asked)):
        module._unquoted.cache_clear()
        module._first.cache_clear()
        fresh.append(outcome(at))
    order = list(range(len(asked)))
    random.Random(1).shuffle(order)
    for at in order + order:
        assert outcome(at) == fresh[at]
