"""Late verdicts to endpoints: signed, paced, kept until somebody has them, or given up."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from gate.answer import Answer
from gate.budget import (
    WEBHOOK_FORGOTTEN,
    WEBHOOK_JITTER,
    WEBHOOK_REST,
    WEBHOOK_REST_MOST,
    WEBHOOK_SLOW,
    WEBHOOK_WAITS,
)
from gate.reason import Reason
from gate.testing import HostRules
from gate.webhooks.message import ATTEMPTS
from gate.webhooks.outbox import GAVE_UP, GONE, KIND
from gate.webhooks.settings import endpoint_id
from tests.lateworld import (
    OK,
    OLD_SECRET,
    SECRET,
    URL,
    Answering,
    Late,
    Received,
    Receiver,
    in_world,
    place,
    settings,
    status,
    trusted,
    until,
)

__all__ = ["trusted"]
pytestmark = pytest.mark.usefixtures("trusted")

GREY = {"grey.test": HostRules(users=("jane", "joe"), greylist=60.0)}
NO_GREY = {"mail.test": HostRules(users=("jane",))}
HOUR = 3600.0
NEW_SECRET = "whsec_" + base64.b64encode(b"n" * 24).decode()


async def message(late: Late) -> Answer:
    """One check whose late verdict is due to be told; nothing of it was sent yet."""
    answer = await late.check("jane@grey.test")
    late.clock.advance(72)
    assert await late.engine.rechecks.round() == 1
    return answer


async def messages(late: Late, number: int) -> None:
    """So many late verdicts at once, as if they had just been settled."""
    answer = await late.check("jane@mail.test")
    jobs = [
        job
        for count in range(number)
        for job in late.engine.outbox.messages(late.site, f"chk_{count}", Reason.GREYLISTED, answer)
    ]
    assert await late.engine.store.add(jobs, within=5.0)


def verified(request: Received, secret: str) -> Any:
    """The body as the reference library reads it."""
    return Webhook(secret).verify(request.body, request.headers)


async def dead(late: Late) -> list[tuple[str, str]]:
    return [(letter.why, letter.told) for letter in await late.engine.outbox.letters(100)]


# -- what is sent


def test_the_reference_library_believes_it_under_both_secrets() -> None:
    """I4: old and new, while they are being changed."""
    webhooks = [{"url": URL, "secrets": [NEW_SECRET, OLD_SECRET]}]

    async def main() -> None:
        async with place(GREY) as here:
            config = settings(webhooks=webhooks)
            async with here.engine(config) as late:
                check = await late.check("jane@grey.test")
            # The library reads the clock of the machine.
            async with here.engine(config, wall=time.time) as late:
                check = await late.check("joe@grey.test")
                await late.later(72)
            (request,) = here.hook.received
            for secret in (NEW_SECRET, OLD_SECRET):
                assert verified(request, secret)["data"]["check"] == check.id
            with pytest.raises(WebhookVerificationError):
                verified(request, SECRET)
            changed = dataclasses.replace(request, body=request.body.replace(b"chk_", b"chk-"))
            with pytest.raises(WebhookVerificationError):
                verified(changed, NEW_SECRET)

    asyncio.run(main())


def test_a_thin_body_without_the_address() -> None:
    """I5."""

    async def test(late: Late) -> None:
        check = await message(late)
        await late.deliver()
        (request,) = late.hook.received
        assert check.address is not None
        mark = late.engine.keys.address_hash("shop", check.address.exact).hex()
        assert json.loads(request.body) == {
            "type": "check.completed",
            "timestamp": "2027-01-15T08:01:12.000Z",
            "data": {
                "check": check.id,
                "site": "shop",
                "address": mark,
                "result": "deliverable",
                "reason": "accepted_email",
                "decision": "allow",
                "because": "accepted_email",
                "first": {"result": "unknown", "reason": "greylisted"},
                "found_at": "2027-01-15T08:01:12.000Z",
            },
        }
        assert b"@" not in request.body and b"jane" not in request.body
        assert len(request.body) < 20_000
        assert re.fullmatch(r"msg_[0-9a-f]{32}", request.id)
        assert request.headers["webhook-timestamp"] == str(int(late.clock()))

    in_world(test, GREY)


def test_the_address_only_where_it_is_asked_for() -> None:
    async def test(late: Late) -> None:
        await message(late)
        await late.deliver()
        assert late.hook.received[0].data["email"] == "jane@grey.test"

    full = [{"url": URL, "secrets": [SECRET], "include_address": True}]
    in_world(test, GREY, config=settings(webhooks=full))


def test_nothing_is_sent_when_nothing_is_new() -> None:
    """`deferred` was said, and `deferred` it stays."""

    async def test(late: Late) -> None:
        assert await late.reason("jane@grey.test") == "deferred"
        for _ in range(3):
            await late.later(HOUR)
        assert late.dialogues("grey.test") == 4
        assert late.hook.received == []

    in_world(test, {"grey.test": HostRules(answers={"rcpt": "451 4.3.0 local error"})})


def test_a_first_answer_that_was_final_is_told_to_nobody() -> None:
    async def test(late: Late) -> None:
        assert await late.reason("jane@mail.test") == "accepted_email"
        assert await late.reason("nobody@mail.test") == "rejected_email"
        assert await late.later(HOUR) == (0, 0)

    in_world(test, NO_GREY)


def test_each_endpoint_of_a_site_gets_it_in_its_own_way() -> None:
    other = "https://hook.test/other"
    webhooks: list[dict[str, Any]] = [
        {"url": URL, "secrets": [SECRET]},
        {"url": other, "secrets": [NEW_SECRET], "include_address": True},
    ]

    async def test(late: Late) -> None:
        await message(late)
        assert await late.deliver() == 2
        told = {request.target: request for request in late.hook.received}
        assert set(told) == {"/late?site=1", "/other"}
        assert "email" in told["/other"].data and "email" not in told["/late?site=1"].data
        assert len({request.id for request in late.hook.received}) == 1

    in_world(test, GREY, config=settings(webhooks=webhooks))


# -- when it is not taken


def test_twelve_attempts_over_five_days_then_a_dead_letter_and_one_command() -> None:
    """R12, with the id the same each time and the signature new."""
    hook = Receiver(status(500))

    async def test(late: Late) -> None:
        await message(late)
        assert await late.deliver() == 1
        for number, seconds in enumerate(WEBHOOK_WAITS, 1):
            earliest = seconds * (1 - WEBHOOK_JITTER)
            late.clock.advance(earliest - 1)
            assert await late.engine.outbox.round() == 0, "early"
            late.clock.advance(2 * WEBHOOK_JITTER * seconds + 1 + WEBHOOK_REST_MOST)
            assert await late.engine.outbox.round() == 1
            assert len(hook.received) == number + 1
        assert len(hook.received) == ATTEMPTS
        assert await dead(late) == [(GAVE_UP, "500")]
        late.clock.advance(24 * HOUR)
        assert await late.engine.outbox.round() == 0
        hook.answer(OK)
        assert await late.engine.outbox.replay() == 1
        assert await late.deliver() == 1
        assert await dead(late) == []
        assert len({request.id for request in hook.received}) == 1
        assert len({request.headers["webhook-signature"] for request in hook.received}) > 1

    in_world(test, GREY, hook)


def test_a_dead_letter_is_forgotten_after_a_week() -> None:
    """J4."""
    hook = Receiver(status(410))

    async def test(late: Late) -> None:
        await message(late)
        await late.deliver()
        assert len(await dead(late)) == 1
        late.clock.advance(WEBHOOK_FORGOTTEN)
        endpoints = [endpoint_id("shop", URL)]
        await late.engine.store.tidy(KIND, endpoints, now=late.clock())
        assert await dead(late) == []
        assert await late.engine.outbox.replay() == 0

    in_world(test, GREY, hook)


REPLIES: dict[str, tuple[Answering, float]] = {
    "a fault of theirs": (status(500), 5.0),
    "a redirect": (status(301, "location: https://169.254.169.254/\r\n"), 5.0),
    "not theirs": (status(404), 5.0),
    "a number of seconds": (status(503, "retry-after: 900\r\n"), 900.0),
    "too many": (status(429, "retry-after: 60\r\n"), 60.0),
    "a day at most": (status(503, "retry-after: 999999\r\n"), 86_400.0),
}


@pytest.mark.parametrize(("answer", "seconds"), REPLIES.values(), ids=REPLIES)
def test_when_it_is_tried_again(answer: Answering, seconds: float) -> None:
    hook = Receiver(answer, OK)

    async def test(late: Late) -> None:
        await message(late)
        assert await late.deliver() == 1
        late.clock.advance(seconds * (1 - WEBHOOK_JITTER) - 1)
        assert await late.engine.outbox.round() == 0
        late.clock.advance(2 * WEBHOOK_JITTER * seconds + 2)
        assert await late.engine.outbox.round() == 1
        assert [request.id for request in hook.received] == [hook.received[0].id] * 2
        assert await late.engine.store.depth() == {}

    in_world(test, GREY, hook)


def test_410_switches_the_endpoint_off_until_its_letters_are_replayed(tmp_path: Path) -> None:
    """Also after a restart."""
    hook = Receiver(status(410))
    config = settings(f"sqlite:{tmp_path / 'gate.db'}")

    async def main() -> None:
        async with place(GREY | NO_GREY, hook) as here:
            async with here.engine(config) as late:
                await message(late)
                await late.deliver()
                assert await dead(late) == [(GONE, "410")]
            async with here.engine(config) as late:
                await messages(late, 3)
                await late.deliver()
                assert len(hook.received) == 1, "it is told nothing more"
                assert [why for why, _ in await dead(late)] == [GONE] * 4
                hook.answer(OK)
                assert await late.engine.outbox.replay() == 4
                assert await late.deliver() == 4
                assert await dead(late) == []
            async with here.engine(config) as late:
                await messages(late, 5)
                assert await late.deliver() == 5, "and it stays switched on"

    asyncio.run(main())


def test_one_letter_can_be_replayed_by_its_id() -> None:
    hook = Receiver(status(410))

    async def test(late: Late) -> None:
        await messages(late, 3)
        await late.deliver()
        chosen = (await late.engine.outbox.letters(10))[0]
        assert (chosen.site, chosen.host) == ("shop", "hook.test")
        hook.answer(OK)
        assert await late.engine.outbox.replay([chosen.id, "msg_unknown"]) == 1
        await late.deliver()
        assert chosen.id.startswith(hook.received[-1].id)
        assert len(await dead(late)) == 2

    in_world(test, NO_GREY, hook)


def test_a_dead_endpoint_is_left_alone_and_its_messages_lose_no_attempt() -> None:
    """I3: of fifty messages five are tried, then one in each rest."""
    hook = Receiver(status(500))

    async def test(late: Late) -> None:
        await messages(late, 50)
        await late.deliver()
        tried = len(hook.received)
        assert tried <= 6
        late.clock.advance(WEBHOOK_REST)
        assert await late.engine.outbox.round() == 1
        late.clock.advance(1)
        assert await late.engine.outbox.round() == 0
        hook.answer(OK)
        late.clock.advance(HOUR)
        await late.deliver()
        assert len({request.id for request in hook.received}) == 50
        assert await late.engine.store.depth() == {}

    in_world(test, NO_GREY, hook)


def test_one_that_asks_for_patience_is_sent_one_at_a_time() -> None:
    hook = Receiver(status(429), status(429), OK)

    async def test(late: Late) -> None:
        await messages(late, 10)
        assert await late.engine.outbox.round() == 2
        late.clock.advance(WEBHOOK_SLOW)
        assert await late.engine.outbox.round() == 0, "they said it twice"
        late.clock.advance(2 * WEBHOOK_SLOW)
        assert await late.engine.outbox.round() == 1

    in_world(test, NO_GREY, hook)


def test_never_more_than_two_at_once() -> None:
    """I1."""

    async def slowly(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        await OK(request, writer)

    hook = Receiver(slowly)

    async def main() -> None:
        async with place(NO_GREY, hook) as here:
            async with here.engine(settings(), queue_clock=time.monotonic) as late:
                late.engine.start()
                await messages(late, 20)
                late.engine.outbox.wake()
                await until(lambda: len(hook.received) == 20)
        assert len({request.id for request in hook.received}) == 20
        assert hook.most_at_once == 2

    asyncio.run(main())


# -- many endpoints


def many(number: int) -> list[dict[str, Any]]:
    """Endpoints of one site, each a host of its own."""
    return [
        {"url": f"http://h{n}.hooks.test/", "secrets": [SECRET], "allow_http": True}
        for n in range(number)
    ]


async def _delays(hook: Receiver, number: int, black: Sequence[int]) -> list[float]:
    """How long after it was made each message arrived, except at the endpoints in `black`."""
    zones = {f"h{n}.hooks.test": "A 8.8.8.8" for n in range(number)}
    zones |= {f"h{n}.hooks.test": "A 8.8.9.9" for n in black}

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    hole = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        async with place(NO_GREY, hook, zones, port=80) as here:
            here.seam.add("8.8.9.9", hole.sockets[0].getsockname()[:2], 80)
            config = settings(webhooks=many(number))
            async with here.engine(config, queue_clock=time.monotonic) as late:
                late.engine.start()
                started = time.monotonic()
                await messages(late, 4)
                late.engine.outbox.wake()
                expected = 4 * (number - len(black))
                await until(lambda: len(hook.received) == expected)
                return [request.at - started for request in hook.received]
    finally:
        hole.close()
        for writer in held:
            writer.transport.abort()


def test_a_blackhole_among_a_hundred_endpoints_delays_nobody() -> None:
    """R12, I1: what it adds to the slowest hundredth of the others is less than a second."""

    async def main() -> tuple[list[float], list[float]]:
        alone = await _delays(Receiver(tls=False), 100, [])
        return alone, await _delays(Receiver(tls=False), 100, [50])

    alone, beside = asyncio.run(main())
    p99 = [sorted(delays)[int(len(delays) * 0.99)] for delays in (alone, beside)]
    assert p99[1] - p99[0] < 1.0
    assert len(alone) == 400 and len(beside) == 396
