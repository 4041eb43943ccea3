"""The dialogue, played from the transcripts in transcripts/*.txt and against servers that err.

A transcript is what goes over the wire, one line each, and what came of it:

    == NAME             its name; the fault's number if it is one of the catalogue
    options ...         what differs from the usual: tls=, control=, recipient=, smtputf8, lf
    ASK real [random]   the next question on this connection
    S line              the server says this line; S+ the same without a line end
    C line              we must write this line; a bare C: we must write nothing
    TLS started|failed  the handshake that we must want now
    Q QUIT              taking leave must write this; a bare Q: nothing
    = words             the state afterwards, in full

Consecutive S lines arrive at once, and are played again octet by octet; consecutive C lines are
one write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.reason import GateError, RemoteProtocolError
from gate.smtp.dialog import Dialog, Exchange, Stage, Tls
from gate.smtp.reply import Reply

HELO, SENDER, REAL, RANDOM = (
    "gate.here.test",
    "probe@here.test",
    "jane@there.test",
    "x7q@there.test",
)
WRITABLE = (b"EHLO ", b"HELO ", b"STARTTLS\r", b"MAIL FROM:<", b"RCPT TO:<", b"RSET\r", b"QUIT\r")
Cut = Literal["whole", "octets"]


def make_dialog(
    *,
    recipient: str | None = REAL,
    control: str | None = RANDOM,
    tls: Tls = "when-required",
    smtputf8: bool = False,
) -> Dialog:
    return Dialog(
        helo=HELO,
        mail_from=SENDER,
        recipient=recipient,
        control=control,
        tls=tls,
        smtputf8=smtputf8,
    )


def state(dialog: Dialog, *, broken: bool) -> set[str]:
    """The whole public state in words."""
    flags = ("finished", "reusable", "tls_required", "smtputf8_missing", "wants_tls")
    words = {flag for flag in flags if getattr(dialog, flag)} | {f"at={dialog.stage}"}
    for stage in (Stage.MAIL, Stage.RCPT, Stage.CONTROL):
        reply = dialog.reply_to(stage)
        words |= {f"{stage}={reply.code}"} if reply else set()
    return words | ({"broken"} if broken else set())


# -- transcripts ----------------------------------------------------------------------------------
@dataclass
class Transcript:
    name: str
    options: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[str, str]] = field(default_factory=list)

    def dialog(self) -> Dialog:
        control = self.options.get("control", RANDOM)
        recipient = self.options.get("recipient", REAL)
        return make_dialog(
            recipient=None if recipient == "none" else recipient,
            control=None if control == "none" else control,
            tls=cast(Tls, self.options.get("tls", "when-required")),
            smtputf8="smtputf8" in self.options,
        )

    def blocks(self) -> Iterator[tuple[str, list[str]]]:
        """The steps, consecutive ones of a kind taken together, with their line ends."""
        end = "\n" if "lf" in self.options else "\r\n"
        ends = {"S": end, "C": "\r\n", "Q": "\r\n"}
        for kind, steps in groupby(self.steps, key=lambda step: step[0].rstrip("+")):
            yield kind, [line + ends.get(mark, "") if line else "" for mark, line in steps]


def read_transcripts() -> Iterator[Transcript]:
    for path in sorted(Path(__file__).with_name("transcripts").glob("*.txt")):
        for text in re.split(r"^== ", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
            name, *lines = text.strip().split("\n")
            steps = [(kind, rest) for kind, _, rest in (line.partition(" ") for line in lines)]
            transcript = Transcript(name, steps=[step for step in steps if step[0] != "options"])
            for words in (rest.split() for kind, rest in steps if kind == "options"):
                transcript.options = {
                    key: value for key, _, value in (w.partition("=") for w in words)
                }
            yield transcript


TRANSCRIPTS = {transcript.name: transcript for transcript in read_transcripts()}


def feed(dialog: Dialog, data: bytes, cut: Cut) -> bool:
    """Let the server's bytes arrive; tell whether they broke the protocol."""
    pieces = [data] if cut == "whole" else [data[i : i + 1] for i in range(len(data))]
    try:
        for piece in pieces:
            dialog.receive(piece)
    except RemoteProtocolError:
        return True
    return False


def play(transcript: Transcript, cut: Cut) -> tuple[Dialog, bool]:
    """Play a transcript to its end, comparing what we write, and the state that it names."""
    dialog, broken = transcript.dialog(), False
    for kind, lines in transcript.blocks():
        if kind == "S":
            assert not broken
            broken = feed(dialog, "".join(lines).encode(), cut)
        elif kind == "C":
            written = dialog.outgoing()
            assert written == "".join(lines).encode()
            assert all(line.startswith(WRITABLE) for line in written.splitlines(keepends=True))
        elif kind == "Q":
            assert [dialog.quit() for _ in lines] == [line.encode() for line in lines]
        elif kind == "ASK":
            real, _, random = lines[0].partition(" ")
            dialog.ask(real, random or None, smtputf8=not real.isascii())
        elif lines == ["started"]:
            dialog.tls_started()
        elif lines == ["failed"]:
            dialog.tls_failed()
        else:
            assert kind == "="
            expected, found = set(lines[0].split()), state(dialog, broken=broken)
            if broken and cut == "octets":  # how far it came before depends on the cut
                expected, found = ({w for w in s if w[:3] != "at="} for s in (expected, found))
            assert found == expected
    return dialog, broken


@pytest.mark.parametrize("cut", ["whole", "octets"])
@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript_is_played_to_its_end(name: str, cut: Cut) -> None:
    assert "=" in dict(TRANSCRIPTS[name].steps)
    play(TRANSCRIPTS[name], cut)


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_replies_that_follow_a_transcript_break_it_and_withdraw_its_answers(name: str) -> None:
    dialog, broken = play(TRANSCRIPTS[name], "whole")
    said = dialog.exchanges
    if not broken:
        with pytest.raises(RemoteProtocolError):
            dialog.receive(b"250 and again\r\n" * 10)
    assert dialog.exchanges == said
    assert state(dialog, broken=False) <= {
        "finished", "tls_required", "smtputf8_missing", f"at={dialog.stage}",
    }  # fmt: skip
    assert dialog.outgoing() == b""
    assert dialog.quit() == b""
    assert all(dialog.reply_to(stage) is None for stage in Stage)
    for more in (b"250 ok\r\n", b"421 bye\r\n", b""):
        with pytest.raises(RemoteProtocolError):
            dialog.receive(more)


# -- the next question ----------------------------------------------------------------------------
def test_what_was_said_of_the_last_mailbox_is_forgotten_and_the_counts_go_on() -> None:
    transcript = TRANSCRIPTS[
        "the second question on a connection is one write, and says nothing of the first"
    ]
    dialog, _ = play(transcript, "whole")
    assert [said.command for said in dialog.exchanges][1] == "RCPT TO:<ann@elsewhere.test>"
    assert (dialog.transactions, dialog.refusals) == (5, 2)
    assert dialog.reply_to(Stage.EHLO) is not None


# What came before the question that must not be asked.
NOT_REUSABLE: dict[str, list[bytes]] = {
    "before the greeting": [],
    "turned away at the greeting": [b"554 not you\r\n"],
    "EHLO not answered yet": [b"220 mx\r\n"],
    "in the middle of a transaction": [b"220 mx\r\n", b"250 mx\r\n", b"250 ok\r\n"],
    "behind a 421": [b"220 mx\r\n", b"421 mx\r\n"],
    "behind a refused MAIL": [b"220 mx\r\n", b"250 mx\r\n", b"550 ok\r\n"],
}


@pytest.mark.parametrize("name", NOT_REUSABLE)
def test_only_a_connection_that_is_clean_is_asked_again(name: str) -> None:
    dialog = make_dialog(control=None)
    for said in NOT_REUSABLE[name]:
        dialog.outgoing()
        dialog.receive(said)
    with pytest.raises(GateError):
        dialog.ask(REAL, None, smtputf8=False)


@pytest.mark.parametrize("arrived", [b"421 4.4.2 timeout\r\n", b"250 ok\r\n", b"4", b"\r\n"])
def test_what_arrives_between_two_questions_ends_the_connection(arrived: bytes) -> None:
    dialog = make_dialog()
    assert not converse(dialog, true_answers, {}, "whole")
    assert dialog.reusable
    feed(dialog, arrived, "whole")
    assert not dialog.reusable


def test_a_long_session_is_bounded_by_each_question_and_not_as_a_whole() -> None:
    dialog = make_dialog(control=None)
    long_answers = dict(SAID)
    long_answers[b"RCPT"] = b"550-" + b"x" * 1000 + b"\r\n550 no\r\n"

    def truth(line: bytes) -> bytes:
        return long_answers[line[:4]]

    assert not converse(dialog, truth, {}, "whole")
    for _ in range(100):
        assert not ask_again(dialog, truth)
        assert dialog.reusable
    assert dialog.refusals == 101


def ask_again(
    dialog: Dialog, truth: Truth, change: Mutation = bytes, control: str | None = None
) -> bool:
    """The next question, about joe; the server's answer to its first write is changed. Tells
    whether the dialogue was broken."""
    dialog.ask("joe@there.test", control, smtputf8=False)
    while written := dialog.outgoing():
        said = change(b"".join(truth(line) for line in written.splitlines()))
        change = bytes
        try:
            dialog.receive(said)
        except RemoteProtocolError:
            return True
    return False


# -- rules ----------------------------------------------------------------------------------------
EARLY = {
    "behind the greeting": [b"220 mx\r\n"],
    "behind the reply to EHLO": [b"220 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n"],
    "behind the reply to MAIL": [b"220 mx\r\n", b"250 mx\r\n", b"250 ok\r\n"],
}


@pytest.mark.parametrize("early", [b"250 ok\r\n", b"250-ok\r\n", b"2", b"45", b"\r\n"])
@pytest.mark.parametrize("name", EARLY)
def test_what_arrives_before_its_command_was_handed_out_is_a_breach(
    name: str, early: bytes
) -> None:
    dialog = make_dialog()
    for reply in EARLY[name]:
        assert dialog.outgoing() or dialog.stage is Stage.GREETING
        dialog.receive(reply)
    with pytest.raises(RemoteProtocolError):
        dialog.receive(early)
    assert dialog.outgoing() == b""


def test_everything_that_was_said_is_kept_in_order() -> None:
    dialog, _ = play(TRANSCRIPTS["E02 HELO is refused too"], "whole")
    assert dialog.exchanges == [
        Exchange(Stage.GREETING, "", Reply(220, ("mx.there.test",))),
        Exchange(Stage.EHLO, "EHLO gate.here.test", Reply(500, ("what?",))),
        Exchange(Stage.HELO, "HELO gate.here.test", Reply(554, ("5.7.1 not you",))),
    ]


def test_what_was_said_before_tls_is_forgotten_but_for_the_greeting_and_the_220() -> None:
    dialog = make_dialog(tls="always")
    for said in (b"220 mx\r\n", b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n", b"220 go\r\n"):
        dialog.receive(said)
        dialog.outgoing()
    dialog.tls_started()
    kept = [stage for stage in Stage if dialog.reply_to(stage)]
    assert kept == [Stage.GREETING, Stage.STARTTLS]


def test_the_handshake_is_the_shells_only_when_it_is_wanted() -> None:
    dialog = make_dialog()
    with pytest.raises(GateError):
        dialog.tls_started()
    with pytest.raises(GateError):
        dialog.tls_failed()


@pytest.mark.parametrize(
    ("code", "asked"), [(250, True), (299, True), (400, False), (499, False), (500, True)]
)
def test_one_by_one_only_a_temporary_refusal_spares_the_random_address(
    code: int, asked: bool
) -> None:
    dialog = make_dialog()
    for said in (b"220 mx", b"250 mx", b"250 ok", b"%d so be it" % code, b"250 ok"):
        dialog.receive(said + b"\r\n")
        written = dialog.outgoing()
    assert dialog.finished is not asked
    assert written.startswith(b"MAIL FROM:") is asked


@pytest.mark.parametrize("part", ["helo", "mail_from", "recipient", "control"])
def test_an_argument_that_cannot_be_written_is_refused_before_the_connection(part: str) -> None:
    arguments = {"helo": HELO, "mail_from": SENDER, "recipient": REAL, "control": RANDOM}
    arguments[part] += ">\r\nRSET"
    with pytest.raises(GateError):
        Dialog(tls="never", smtputf8=False, **arguments)


# -- servers that err -----------------------------------------------------------------------------
Mutation = Callable[[bytes], bytes]

Truth = Callable[[bytes], bytes]

SAID = {
    b"EHLO": b"250-mx.there.test hello\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n",
    b"STAR": b"220 2.0.0 go\r\n",
    b"MAIL": b"250 2.1.0 sender ok\r\n",
    b"RCPT": b"550-5.1.1 no such mailbox\r\n550 5.1.1 here\r\n",
    b"RSET": b"250 2.0.0 reset\r\n",
}


def true_answers(line: bytes) -> bytes:
    return SAID[line[:4]]


def true_answers_one_by_one(line: bytes) -> bytes:
    return SAID[line[:4]].replace(b"250-PIPELINING\r\n", b"")


def converse(dialog: Dialog, truth: Truth, mutations: Mapping[int, Mutation], cut: Cut) -> bool:
    """Talk to a server that answers each command truly, but for the mutations of its n-th write.

    Tells whether the dialogue was broken. The shell's part is played as a shell would: it writes
    as soon as it may, and stops reading once the dialogue is finished.
    """
    writes, arriving = 1, mutations.get(0, bytes)(b"220 mx.there.test ESMTP\r\n")
    while arriving and not dialog.finished:
        size = 1 if cut == "octets" else len(arriving)
        piece, arriving = arriving[:size], arriving[size:]
        try:
            dialog.receive(piece)
        except RemoteProtocolError:
            return True
        if dialog.wants_tls:
            dialog.tls_started()
        written = dialog.outgoing()
        assert all(line.startswith(WRITABLE) for line in written.splitlines(keepends=True))
        if written:
            said = b"".join(truth(line) for line in written.splitlines())
            arriving += mutations.get(writes, bytes)(said)
            writes += 1
    return False


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    """Flip, insert, delete or double some bytes."""
    start = draw(st.floats(0, 1))
    length = draw(st.integers(1, 40))
    what = draw(
        st.sampled_from([b"", b"\r\n", b"\n", b"250 ok\r\n", b"550 no\r\n", b"220 mx\r\n", b"250-"])
        | st.binary(min_size=1, max_size=8)
    )
    kind = draw(st.sampled_from(["flip", "insert", "delete", "double"]))

    def mutate(data: bytes) -> bytes:
        at = round(start * len(data))
        if kind == "flip":
            return data[:at] + what + data[at + len(what) :]
        if kind == "insert":
            return data[:at] + what + data[at:]
        if kind == "delete":
            return data[:at] + data[at + length :]
        return data[: at + length] + data[at:]

    return mutate


@given(
    changes=st.dictionaries(st.integers(0, 6), mutations(), max_size=4),
    cut=st.sampled_from(["whole", "octets"]),
    control=st.sampled_from([None, RANDOM]),
    tls=st.sampled_from(["when-required", "always", "never"]),
    truth=st.sampled_from([true_answers, true_answers_one_by_one]),
)
@settings(max_examples=400, deadline=None)
def test_a_transcript_changed_anyhow_is_a_result_or_a_breach(
    changes: dict[int, Mutation],
    cut: Cut,
    control: str | None,
    tls: Tls,
    truth: Truth,
) -> None:
    dialog = make_dialog(control=control, tls=tls)
    broken = converse(dialog, truth, changes, cut)
    words = state(dialog, broken=broken)
    assert dialog.finished or not broken
    assert not broken or not any("=2" in word or "=5" in word for word in words)
    assert dialog.quit() in (b"", b"QUIT\r\n")


@given(
    where=st.integers(0, 6),
    change=mutations(),
    cut=st.sampled_from(["whole", "octets"]),
    control=st.sampled_from([None, RANDOM]),
    truth=st.sampled_from([true_answers, true_answers_one_by_one]),
)
@settings(max_examples=600, deadline=None)
def test_no_single_change_makes_a_refused_mailbox_accepted(
    where: int, change: Mutation, cut: Cut, control: str | None, truth: Truth
) -> None:
    dialog = make_dialog(control=control)
    broken = converse(dialog, truth, {where: change}, cut)
    answer = dialog.reply_to(Stage.RCPT)
    assert broken or not dialog.finished or answer is None or answer.code >= 300


@given(
    change=mutations(),
    control=st.sampled_from([None, RANDOM]),
    truth=st.sampled_from([true_answers, true_answers_one_by_one]),
)
@settings(max_examples=400, deadline=None)
def test_no_change_makes_a_refused_mailbox_accepted_on_a_used_connection(
    change: Mutation, control: str | None, truth: Truth
) -> None:
    dialog = make_dialog()
    assert not converse(dialog, truth, {}, "whole")
    broken = ask_again(dialog, truth, change, control)
    answer = dialog.reply_to(Stage.RCPT)
    assert broken or not dialog.finished or answer is None or answer.code >= 300
    assert not (broken and dialog.reusable)


@pytest.mark.parametrize("extra", [1, 2, 5])
@pytest.mark.parametrize("where", ["behind the greeting", "behind EHLO's", "behind the next ones"])
@pytest.mark.parametrize(
    "truth", [true_answers, true_answers_one_by_one], ids=["group", "one by one"]
)
def test_replies_staged_ahead_break_the_dialogue(truth: Truth, where: str, extra: int) -> None:
    write = ["behind the greeting", "behind EHLO's", "behind the next ones"].index(where)
    dialog = make_dialog()
    assert converse(dialog, truth, {write: lambda said: said + b"250 ok\r\n" * extra}, "whole")
    assert dialog.reply_to(Stage.RCPT) is None


codes = st.sampled_from(
    [200, 220, 221, 250, 251, 252, 334, 354, 400, 421, 450, 451, 500, 503, 530, 550]
)
a_yes, an_answer = {200, 250, 251, 252}, {200, 250, 251, 252, 400, 450, 451, 500, 503, 550}


@given(mail=codes, real=codes, random=codes, rset=codes, group=st.booleans())
@settings(max_examples=600, deadline=None)
def test_whatever_the_codes_the_mailboxs_answer_is_the_reply_to_its_rcpt(
    mail: int, real: int, random: int, rset: int, group: bool
) -> None:
    said = {b"MAIL": mail, b"RSET": rset, b"RCPT": real, f"RCPT TO:<{RANDOM}>".encode(): random}

    def truth(line: bytes) -> bytes:
        code = said.get(line, said.get(line[:4]))
        return (
            b"%d to %s\r\n" % (code, line)
            if code
            else (true_answers if group else true_answers_one_by_one)(line)
        )

    dialog = make_dialog(tls="never")
    broken = converse(dialog, truth, {}, "whole")
    answer, control = dialog.reply_to(Stage.RCPT), dialog.reply_to(Stage.CONTROL)
    assert dialog.finished
    assert answer is None or (mail in a_yes and answer == Reply(real, (f"to RCPT TO:<{REAL}>",)))
    assert control is None or (answer and control == Reply(random, (f"to RCPT TO:<{RANDOM}>",)))
    if mail in a_yes and rset in a_yes and {real, random} <= an_answer:
        assert not broken
        assert answer is not None
        assert (control is None) == (real in {400, 450, 451} and not group)
