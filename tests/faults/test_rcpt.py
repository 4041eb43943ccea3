"""R01 to R40: what is said of the mailbox, or seems to be."""

from __future__ import annotations

import pytest

from gate.testing import HostRules
from tests.faults.cases import Again, case, row
from tests.faults.ground import Case, Ground, Played, Row, ground
from tests.faults.test_connect import next_one

pytestmark = pytest.mark.timeout(180)

GREYLISTED = """
S: 220 mx.test ESMTP
C: EHLO *
S: 250-mx.test
S: 250 PIPELINING
*rest 451 4.7.1 Greylisted, try again in """


def is_there(says: str, script: str) -> Case:
    return case(says, script, expect="accepted_email", again="kept", calls=(1,))


def is_not(says: str, script: str) -> Case:
    """Refused for good, by this host for all others."""
    return case(says, script, "accepted", expect="rejected_email", again="kept", calls=(1, 0))


def refuses_us(says: str, script: str) -> Case:
    return case(says, script, "accepted", expect="probe_blocked", again="rests", calls=(1, 0))


def settles_nothing(
    says: str, script: str, expect: str, again: Again = "asked", takes: float = 0.0
) -> Case:
    return case(says, script, "accepted", expect=expect, again=again, takes=takes, calls=(1, 0))


def full(reply: str) -> Case:
    """The mailbox is there; that is not remembered, for tomorrow it may have room."""
    rules = HostRules(mailboxes={"jane": reply})
    return case(reply, rules, "accepted", expect="mailbox_full", again="asked", calls=(1, 0))


def was_accepted(here: Ground) -> None:
    """R03, R04: that much is told."""
    answer = here.answers[0]
    assert answer.smtp is None or answer.smtp[:2] == ("rcpt", 250)


def nothing_of_the_text(here: Ground) -> None:
    """R35: neither what the host repeats nor what it would do to a terminal is in the answer."""
    assert "\x1b" not in repr(here.answers[0]) and "script" not in repr(here.answers[0])


def waits(named: str, seconds: int) -> Case:
    """R18: the delay that the reply names, if it can be believed."""

    async def scene(budget: float) -> Ground:
        async with ground(GREYLISTED + named) as here:
            answer = await here.check(budget)
            assert answer.verdict.reason == "greylisted"
            assert answer.verdict.retry_after == seconds
            assert await here.later(seconds * 0.79) == 0
            assert await here.later(seconds * 0.43) == 1
            assert here.hosts[0].accepted == 2
        return here

    return Case(named, scene)


async def let_in(budget: float) -> Ground:
    """R19: asked again by itself, and the check knows."""
    async with ground("greylist_clears") as here:
        answer = await here.check(budget)
        assert answer.verdict.reason == "greylisted"
        assert await here.later(75) == 1
        late = await here.latest(answer.id)
        assert late.final and late.reason == "accepted_email"
        assert await here.promised() == 0
        assert await here.found(budget) == ("accepted_email", "accepted_email")
        assert here.hosts[0].accepted == 2
    return here


async def never_let_in(budget: float) -> Ground:
    """R20: three more times, and then it stays unknown."""
    async with ground("greylisted") as here:
        answer = await here.check(budget)
        assert [await here.later(150) for _ in range(5)] == [1, 1, 1, 0, 0]
        late = await here.latest(answer.id)
        assert late.final and late.reason == "deferred"
        assert here.hosts[0].accepted == 4
    return here


async def fickle(budget: float) -> Ground:
    """R39: the first word stands while it lasts; two that contradict each other settle nothing."""
    async with ground("fickle") as here:
        assert await here.reason(budget) == "accepted_email"
        assert await here.reason(budget) == "accepted_email"
        assert here.hosts[0].accepted == 1
        here.advance(60)
        again = await here.check(budget, max_age=30)
        assert again.verdict.reason == "unconfirmed"
    return here


ROWS = [
    row("R01", "accepted, and the random recipient is not", is_there("250 2.1.5", "accepted")),
    row(
        "R02",
        "accepted, as the random recipient is",
        case("everybody", "accept_all", expect="accept_all", again="kept for all"),
    ),
    row(
        "R03",
        "accepted, and the random recipient is put off",
        case("451", "control_deferred", expect="unconfirmed", again="asked", look=was_accepted),
    ),
    row(
        "R04",
        "accepted, and no answer for the random recipient",
        case(
            "silence", "control_none", expect="unconfirmed", again="asked", takes=6,
            look=was_accepted,
        ),
    ),
    row("R05", "251: will forward", is_there("251", "rcpt_251")),
    row("R06", "252: confirms nothing", settles_nothing("252", "rcpt_252", "unconfirmed")),
    row("R07", "550 5.1.1", is_not("user unknown", "rejected")),
    # The row of the catalogue wants another reply for the random recipient even of words for an
    # unknown user. Exim says just that and no enhanced code, to everybody: no domain of its would
    # ever have a verdict. Without words it needs the contrast.
    row(
        "R08",
        "550 without an enhanced code: by its words, or by contrast",
        is_not("words, said of the random recipient too", "rejected_unknown"),
        is_not("words, another reply for the random recipient", "rejected_bare"),
        is_not("no words, another reply for the random recipient", "rejected_wordless"),
    ),
    row(
        "R09",
        "550 without words, the same for everybody: it refuses us",
        settles_nothing("words of no meaning", "refused_same", "probe_blocked", again="rests"),
        case(
            "not a word, and the random recipient is asked once a day", "refused_wordless",
            expect="probe_blocked", again="asked", then="unconfirmed",
        ),
    ),
    row(
        "R10",
        "550 5.7.1 about us",
        refuses_us("block list", "rcpt_blocked"),
        refuses_us("reputation", "reputation"),
    ),
    row(
        "R11",
        "relaying is denied: the host does not serve the domain",
        *next_one("554", "relay_denied", "relay_denied", "asked"),
        *next_one("454", "relay_454", "relay_denied", "asked"),
    ),
    row("R12", "Microsoft's block", refuses_us("5.7.606", "microsoft_block")),
    row(
        "R13",
        "550 5.2.1, gets too much mail: the mailbox is there",
        settles_nothing("Gmail's", "rate_of_mailbox", "deferred"),
    ),
    row(
        "R14",
        "the same, 450 4.2.1",
        settles_nothing("Gmail's", "rate_of_mailbox_450", "deferred"),
    ),
    row(
        "R15",
        "550 5.2.1, switched off",
        case("disabled", "disabled", expect="mailbox_disabled", again="kept"),
        case("not accepting", "disabled_5xx", expect="mailbox_disabled", again="kept"),
    ),
    row(
        "R16",
        "over quota",
        full("552 5.2.2 mailbox full: over quota"),
        full("452 4.2.2 The email account that you tried to reach is over quota"),
    ),
    row(
        "R17",
        "450 4.1.1: Postfix is not sure itself",
        settles_nothing("unverified", "unverified_450", "greylisted"),
    ),
    row(
        "R18",
        "greylisting that names a delay",
        settles_nothing("and never clears", "greylisted", "greylisted"),
        waits("120 seconds", 120),
        waits("20 minutes", 1200),
        waits("5 seconds", 300),
        waits("5 hours", 300),
    ),
    row("R19", "greylisting that clears", Case("a minute later", let_in)),
    row("R20", "greylisting that never does", Case("given up", never_let_in)),
    row(
        "R21",
        "postscreen's deep tests send everybody away once",
        settles_nothing("450 4.3.2", "postscreen_deep", "greylisted"),
    ),
    row("R22", "trouble of their own", settles_nothing("451 4.3.0", "local_error", "deferred")),
    row(
        "R23",
        "too many recipients, says the host to the random one",
        settles_nothing("452 4.5.3", "control_too_many", "unconfirmed"),
    ),
    row(
        "R24",
        "421 to RCPT",
        settles_nothing("4.7.0", "rcpt_421", "deferred", again="throttled"),
    ),
    row(
        "R25",
        "the host does not like the address",
        is_not("553 5.1.3", "rcpt_syntax"),
        settles_nothing("501", "syntax_bare", "protocol_error"),
    ),
    row(
        "R26",
        "no such destination; if every host of the domain says so, nobody gets its mail",
        case("5.1.2, both", *["bad_destination"] * 2, expect="no_mx", again="asked", calls=(1, 1)),
        case(
            "5.1.2, then a good one", "bad_destination", "accepted", expect="accepted_email",
            again="kept",
        ),
        case(
            "5.1.2, then nobody", "bad_destination", "refused", expect="relay_denied",
            again="asked",
        ),
        case(
            "5.1.2, and a third that was not asked", *["bad_destination"] * 3,
            expect="relay_denied", again="asked", calls=(1, 1, 0),
        ),
        *next_one("5.4.4", "bad_destination_541", "relay_denied", "asked"),
        *next_one("5.1.10", "null_mx_sender", "relay_denied", "asked"),
    ),
    row("R27", "moved, or not local", is_not("5.1.6", "moved"), is_not("551", "not_local")),
    # The row wants a provider's row and a contrast. Exchange Online says this of unknown users
    # only, and to everybody who is unknown; its blocks have codes of their own (R12).
    row(
        "R28",
        "550 5.4.1, Exchange Online's word for an unknown recipient",
        is_not("another reply for the random one", "exchange_edge"),
        is_not("the same", "exchange_everybody"),
    ),
    row("R29", "its callout to our sender failed", refuses_us("5.7.1", "callout_failed")),
    row(
        "R30",
        "out of step",
        settles_nothing("503", "rcpt_503", "protocol_error"),
        settles_nothing("500", "rcpt_500", "protocol_error"),
        settles_nothing("502", "rcpt_502", "protocol_error"),
    ),
    row("R31", "354: go ahead with the message", settles_nothing("", "rcpt_354", "protocol_error")),
    row(
        "R32",
        "code and enhanced code disagree",
        settles_nothing(
            "550 2.1.5, the same for all", "code_disagrees_550", "probe_blocked", again="rests"
        ),
        settles_nothing("250 5.1.1", "code_disagrees_250", "protocol_error"),
    ),
    row("R33", "two codes in a reply", settles_nothing("", "rcpt_mixed_codes", "protocol_error")),
    row("R34", "two replies", settles_nothing("", "rcpt_two_replies", "protocol_error")),
    row(
        "R35",
        "text of any length and shape: bounded, and never kept",
        settles_nothing("a megabyte", "rcpt_megabyte", "protocol_error"),
        case(
            "ANSI", "rcpt_ansi", expect="rejected_email", again="kept", look=nothing_of_the_text
        ),
        is_not("our address", "rcpt_echo"),
    ),
    row(
        "R36",
        "the connection ends instead",
        *next_one("FIN", "rcpt_close", "no_connect", "asked"),
        *next_one("RST", "rcpt_reset", "no_connect", "asked"),
    ),
    row(
        "R37",
        "silence, or half a minute for those it does not know: says nothing of the mailbox",
        settles_nothing("silence", "rcpt_silence", "timeout", takes=6),
        settles_nothing("30 s", "rcpt_slow", "timeout", takes=6),
    ),
    row(
        "R38",
        "everybody is accepted, and told later",
        case("accept, then bounce", "accept_all", expect="accept_all", again="kept for all"),
    ),
    row("R39", "one answer now, another one then", Case("250, then 550", fickle)),
    row("R40", "text in Shift-JIS: digits decide", is_not("550 5.1.1", "rcpt_shift_jis")),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_recipient(row: Row, played: Played) -> None:
    played.passed(row)
