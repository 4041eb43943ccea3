"""E01 to E20: EHLO, and TLS."""

from __future__ import annotations

import pytest

from tests.faults.cases import case, row
from tests.faults.ground import Case, Ground, Played, Row
from tests.faults.test_connect import broken, next_one

pytestmark = pytest.mark.timeout(180)

JANE_8 = "jané@good.test"


def good(says: str, script: str, email: str = "jane@good.test", takes: float = 0.0) -> Case:
    """Goes on as if nothing had been."""
    return case(says, script, expect="accepted_email", again="kept", email=email, takes=takes)


def no_tls(says: str, script: str, takes: float = 0.0) -> Case:
    return case(says, script, expect="tls_failed", again="asked", takes=takes)


def plain_only(here: Ground) -> None:
    assert not any(line.startswith("STARTTLS") for line in here.hosts[0].lines)


def encrypted(here: Ground) -> None:
    """E12, E17: EHLO again behind the handshake."""
    lines = here.hosts[0].lines
    assert [line.split(" ")[0] for line in lines if line[0] in "ES"] == ["EHLO", "STARTTLS", "EHLO"]


def not_even_mail(here: Ground) -> None:
    assert not any(line.startswith("MAIL") for line in here.hosts[0].lines)


def with_utf8(here: Ground) -> None:
    said = "\n".join(here.hosts[0].lines)
    assert "MAIL FROM:<probe@gate.test> SMTPUTF8" in said
    assert "RCPT TO:<jané@good.test>" in said


ROWS = [
    row("E01", "one line, no extension", good("ASCII only", "ehlo_bare")),
    row(
        "E02",
        "EHLO is not known: HELO; refused too, it refuses us",
        good("HELO is", "ehlo_refused"),
        case("nor is HELO", "helo_refused", expect="probe_blocked", again="rests", calls=(1,)),
    ),
    row(
        "E03",
        "our name is refused",
        case("550", "helo_blocked", expect="probe_blocked", again="rests", calls=(1,)),
    ),
    row("E04", "421 to EHLO", *next_one("421", "ehlo_421", "deferred", "throttled")),
    row("E05", "two codes in one reply", broken("250 and 550", "ehlo_mixed_codes")),
    row("E06", "two hundred lines", broken("17 KB", "ehlo_many_lines")),
    row(
        "E07",
        "one octet every half second",
        case("250 mx.test", "ehlo_trickle", expect="timeout", again="asked", takes=6),
    ),
    row("E08", "closes after EHLO", *next_one("FIN", "ehlo_close", "no_connect", "asked")),
    row("E09", "a reply nobody asked for", broken("behind EHLO's", "ehlo_extra_reply")),
    row("E10", "a line without a code", broken("in EHLO's reply", "ehlo_garbage_line")),
    row(
        "E11",
        "codes that are none",
        *(
            broken(name, f"code_{name}")
            for name in (
                "underscore", "plus", "fullwidth", "leading_space", "two_digits", "four_digits",
                "six",
            )
        ),
    ),
    row(
        "E12",
        "TLS, and what is offered differs behind it: the second list counts",
        case("STARTTLS", "tls_required", expect="accepted_email", again="kept", look=encrypted),
    ),
    row(
        "E13",
        "454 to STARTTLS: plain, unless the host insists",
        no_tls("insists", "tls_454"),
    ),
    row("E14", "bytes in clear behind the 220", broken("EHLO's reply", "tls_injection")),
    row(
        "E15",
        "handshakes",
        good("expired certificate", "tls_expired"),
        no_tls("TLS 1.0", "tls_old"),
        no_tls("RST", "tls_reset"),
        no_tls("noise", "tls_noise"),
        no_tls("hangs", "tls_hang", takes=4),
    ),
    row(
        "E16",
        "STARTTLS is offered and not needed: said in plain, nothing is promised",
        case(
            "not asked for", "tls_offered", expect="accepted_email", again="kept", look=plain_only
        ),
    ),
    row(
        "E17",
        "530 to MAIL: TLS, once",
        case("offered", "tls_required", expect="accepted_email", again="kept", look=encrypted),
        no_tls("not offered", "tls_not_offered"),
    ),
    row(
        "E18",
        "a mailbox beyond ASCII, and no SMTPUTF8: nothing is asked (RFC 6531 section 3.5)",
        case(
            "é", "no_smtputf8", expect="unconfirmed", again="kept", email=JANE_8,
            look=not_even_mail,
        ),
    ),
    row(
        "E19",
        "SMTPUTF8 is offered",
        case(
            "é", "smtputf8", expect="accepted_email", again="kept", email=JANE_8, look=with_utf8
        ),
    ),
    row(
        "E20",
        "PIPELINING not offered: one by one; offered, and replies do not add up: out of step",
        good("not offered", "no_pipelining", takes=0.15),
        case(
            "too many replies", "pipelining_extra_reply", expect="protocol_error", again="asked"
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_greeting(row: Row, played: Played) -> None:
    played.passed(row)
