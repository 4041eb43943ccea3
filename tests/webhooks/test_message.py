"""What is sent and when, as tables."""

from __future__ import annotations

import base64

import pytest

from gate.budget import WEBHOOK_JITTER, WEBHOOK_WAITS
from gate.reason import Reason
from gate.webhooks.message import (
    ATTEMPTS,
    Outcome,
    Told,
    iso,
    message_id,
    outcome_of,
    sign,
    wait,
)

NOW = 1_800_000_000.0
DAY = 86_400.0


def test_the_vector_of_the_reference_library() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_secrets_are_two_signatures_with_a_space_between() -> None:
    one, other = sign([b"a"], "m", 1, b"x"), sign([b"b"], "m", 1, b"x")
    assert sign([b"a", b"b"], "m", 1, b"x") == f"{one} {other}"


def test_one_verdict_of_one_check_is_one_message() -> None:
    first = message_id("chk_1", Reason.ACCEPTED_EMAIL)
    assert first == message_id("chk_1", Reason.ACCEPTED_EMAIL)
    others = {message_id("chk_2", Reason.ACCEPTED_EMAIL), message_id("chk_1", Reason.DEFERRED)}
    assert first not in others and len(others) == 2
    assert first.startswith("msg_") and "." not in first


def test_twelve_attempts_over_five_days() -> None:
    """R12."""
    waits = [wait(done, Told(500), chance=0.5, now=NOW) for done in range(1, ATTEMPTS + 1)]
    assert waits[:9] == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert waits[-1] is None and ATTEMPTS == 12
    assert 5 * DAY < sum(filter(None, waits)) < 5.5 * DAY


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_each_wait_is_a_little_longer_or_shorter(chance: float) -> None:
    """I3: what failed at one moment does not come back at one moment."""
    factor = 1 + WEBHOOK_JITTER * (2 * chance - 1)
    assert wait(3, Told(500), chance=chance, now=NOW) == WEBHOOK_WAITS[2] * factor


RETRY_AFTER = {
    "none": ("", 5),
    "seconds": ("120", 120),
    "less than planned": ("1", 5),
    "zero": ("0", 5),
    "spaces": (" 60 ", 60),
    "a day and a second": ("86401", DAY),
    "for ever": ("9" * 60, DAY),
    "a date": ("Fri, 15 Jan 2027 08:10:00 GMT", 600),
    "a date that is over": ("Fri, 15 Jan 2027 07:00:00 GMT", 5),
    "a date far away": ("Fri, 15 Jan 2032 08:10:00 GMT", DAY),
    "a date of another zone": ("Fri, 15 Jan 2027 09:10:00 +0100", 600),
    "a date of no zone": ("Fri, 15 Jan 2027 08:10:00 -0000", 600),
    "negative": ("-5", 5),
    "a fraction": ("1.5", 5),
    "other digits": ("１２０", 5),
    "words": ("soon", 5),
    "nonsense": ("\x00;", 5),
}


@pytest.mark.parametrize(("text", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
def test_retry_after_puts_off_and_never_brings_forward(text: str, seconds: float) -> None:
    assert wait(1, Told(503, retry_after=text), chance=0.5, now=NOW) == seconds


def test_retry_after_gives_no_thirteenth_attempt() -> None:
    assert wait(ATTEMPTS, Told(503, retry_after="60"), chance=0.5, now=NOW) is None


OUTCOMES = {
    **dict.fromkeys((200, 201, 202, 204, 299), Outcome.DELIVERED),
    **dict.fromkeys((300, 301, 302, 303, 307, 308), Outcome.FAILED),
    **dict.fromkeys((400, 401, 403, 404, 409, 418, 500, 501, 503), Outcome.FAILED),
    **dict.fromkeys((429, 502, 504), Outcome.SLOW),
    410: Outcome.GONE,
}


@pytest.mark.parametrize(("status", "outcome"), OUTCOMES.items())
def test_what_a_status_means(status: int, outcome: Outcome) -> None:
    assert outcome_of(Told(status)) is outcome


def test_no_status_is_a_failure() -> None:
    assert outcome_of(Told(failure="timed out")) is Outcome.FAILED


def test_times_are_utc() -> None:
    assert iso(1_795_348_800.5) == "2026-11-22T12:00:00.500Z"
