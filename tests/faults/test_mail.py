"""M01 to M10: the envelope's sender. Nothing said here is about the mailbox."""

from __future__ import annotations

import pytest

from gate.budget import RATE_REST
from tests.faults.cases import case, row
from tests.faults.ground import Case, Ground, Played, Row, ground
from tests.faults.test_connect import next_one

pytestmark = pytest.mark.timeout(180)


def refuses_us(says: str, script: str) -> Case:
    return case(says, script, "accepted", expect="probe_blocked", again="rests", calls=(1, 0))


async def for_two_hours(budget: float) -> Ground:
    """M03: longer than other complaints about our rate."""
    async with ground("mail_rate_limited") as here:
        assert await here.found(budget) == ("deferred", "deferred")
        here.advance(RATE_REST + 60)
        assert await here.found(budget) == ("throttled", "throttled")
        here.advance(7200 - RATE_REST)
        assert await here.found(budget) == ("deferred", "deferred")
        assert here.hosts[0].accepted == 2
    return here


ROWS = [
    row("M01", "250", case("goes on", "accepted", expect="accepted_email", again="kept")),
    row(
        "M02",
        "greylisting at MAIL",
        case("451", "mail_greylisted", expect="greylisted", again="asked", calls=(1,)),
    ),
    row("M03", "421 [TSS04]: left alone for two hours", Case("Yahoo's", for_two_hours)),
    row(
        "M04",
        "it refuses us",
        refuses_us("no reverse DNS", "mail_blocked"),
        refuses_us("block list", "mail_listed"),
        refuses_us("SPF", "mail_spf"),
    ),
    row("M05", "our sender's domain is not found", refuses_us("5.1.8", "mail_sender_unknown")),
    row("M06", "our sender is refused", refuses_us("553", "mail_sender_refused")),
    row(
        "M07",
        "no space",
        case("452", "mail_no_space", expect="deferred", again="asked", calls=(1,)),
        case("552", "mail_too_big", expect="deferred", again="asked", calls=(1,)),
    ),
    row(
        "M08",
        "out of step",
        case("503", "mail_bad_sequence", expect="protocol_error", again="asked", calls=(1,)),
    ),
    row(
        "M09",
        "another 2xx than 250",
        case("252", "mail_252", expect="accepted_email", again="kept"),
    ),
    row(
        "M10",
        "silence, or the end",
        case("silence", "mail_silence", expect="timeout", again="asked", takes=6),
        *next_one("FIN", "mail_close", "no_connect", "asked"),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_sender(row: Row, played: Played) -> None:
    played.passed(row)
