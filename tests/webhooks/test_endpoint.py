"""When an endpoint may be tried: a machine fed by hand."""

from __future__ import annotations

from gate.budget import WEBHOOK_REST, WEBHOOK_REST_MOST, WEBHOOK_SLOW_MOST, WEBHOOK_SPACING
from gate.webhooks.endpoint import CONCURRENCY, TRIES, Endpoint
from gate.webhooks.message import Outcome

NOW = 1000.0
DELIVERED, FAILED, SLOW, GONE = Outcome.DELIVERED, Outcome.FAILED, Outcome.SLOW, Outcome.GONE


def after(*outcomes: Outcome, now: float = NOW) -> Endpoint:
    endpoint = Endpoint()
    for outcome in outcomes:
        endpoint.begun(now)
        endpoint.ended(now, outcome)
    return endpoint


def test_two_at_once() -> None:
    endpoint = Endpoint()
    assert (endpoint.room(NOW), endpoint.reopens(NOW)) == (CONCURRENCY, None)


def test_a_good_one_is_sent_two_hundred_a_second_at_most() -> None:
    """I3: also when ten thousand wait for it to come back."""
    endpoint, now, sent = Endpoint(), NOW, 0
    while now < NOW + 1:
        if endpoint.room(now):
            endpoint.begun(now)
            endpoint.ended(now, DELIVERED)
            sent += 1
        now += WEBHOOK_SPACING / 10
    assert 150 <= sent <= 201


def test_after_five_failures_in_a_row_it_rests() -> None:
    endpoint = after(*[FAILED] * (TRIES - 1))
    assert endpoint.room(NOW + 1) == CONCURRENCY
    endpoint.ended(NOW + 1, FAILED)
    assert endpoint.room(NOW + 1) == 0
    assert endpoint.reopens(NOW + 1) == NOW + 1 + WEBHOOK_REST
    assert endpoint.room(NOW + 1 + WEBHOOK_REST) == 1, "one tries it"


def test_a_success_between_failures_counts() -> None:
    endpoint = after(*[FAILED] * (TRIES - 1), DELIVERED, *[FAILED] * (TRIES - 1))
    assert endpoint.room(NOW + 1) == CONCURRENCY


def test_rests_double_up_to_ten_minutes() -> None:
    endpoint, now = after(*[FAILED] * TRIES), NOW
    rests = []
    for _ in range(10):
        reopens = endpoint.reopens(now)
        assert reopens is not None
        rests.append(round(reopens - now))
        now = reopens
        endpoint.ended(now, FAILED)
    assert rests[:3] == [WEBHOOK_REST, 2 * WEBHOOK_REST, 4 * WEBHOOK_REST]
    assert rests[-1] == WEBHOOK_REST_MOST


def test_two_that_fail_together_are_one_rest() -> None:
    endpoint = after(*[FAILED] * TRIES)
    endpoint.ended(NOW + 0.1, FAILED)
    assert endpoint.reopens(NOW + 0.1) == NOW + WEBHOOK_REST


def test_a_success_after_a_rest_opens_it_again() -> None:
    endpoint = after(*[FAILED] * TRIES)
    now = NOW + WEBHOOK_REST
    endpoint.begun(now)
    endpoint.ended(now, DELIVERED)
    assert endpoint.room(now + 1) == CONCURRENCY


def test_one_that_asks_for_patience_is_sent_less_and_less() -> None:
    endpoint, now, gaps = Endpoint(), NOW, []
    for _ in range(9):
        endpoint.ended(now, SLOW)
        reopens = endpoint.reopens(now)
        assert reopens is not None
        gaps.append(round(reopens - now))
        now = reopens
        assert endpoint.room(now) == 1
    assert gaps[:4] == [1, 2, 4, 8]
    assert gaps[-1] == WEBHOOK_SLOW_MOST
    for _ in range(7):
        endpoint.ended(now, DELIVERED)
    assert endpoint.room(now + 1) == CONCURRENCY


def test_patience_is_no_failure() -> None:
    endpoint = Endpoint()
    for _ in range(2 * TRIES):
        endpoint.ended(NOW, SLOW)
    assert endpoint.reopens(NOW) == NOW + WEBHOOK_SLOW_MOST


def test_one_that_is_gone_takes_what_is_to_be_given_up() -> None:
    endpoint = after(GONE)
    assert endpoint.gone and endpoint.room(NOW) > CONCURRENCY
    assert endpoint.reopens(NOW) is None


def test_what_it_says_of_itself() -> None:
    assert repr(after(FAILED)) == "<Endpoint 1 failures, every 0.005 s>"
    assert repr(after(GONE)) == "<Endpoint gone>"
