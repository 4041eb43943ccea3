"""I: receivers of our webhooks that are slow, endless, gone, or should not see an address."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Final

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from gate.budget import WEBHOOK_SPACING
from gate.webhooks.message import Told, sign
from gate.webhooks.settings import key_of
from tests.lateworld import (
    OK,
    OLD_SECRET,
    SECRET,
    URL,
    Late,
    Receiver,
    in_world,
    place,
    settings,
    status,
    trusted,
    until,
)
from tests.webhooks.test_outbox import GREY, NO_GREY, _delays, message, messages
from tests.webhooks.test_post import for_ever, raw, told

__all__ = ["trusted"]
pytestmark = pytest.mark.usefixtures("trusted")

MEGABYTE: Final = 1024 * 1024


def test_I1__a_receiver_that_hangs_delays_no_other() -> None:
    async def main() -> tuple[list[float], list[float]]:
        alone = await _delays(Receiver(tls=False), 30, [])
        return alone, await _delays(Receiver(tls=False), 30, [7, 19])

    alone, beside = asyncio.run(main())
    assert (len(alone), len(beside)) == (120, 112)
    assert max(beside) - max(alone) < 2.0


ENDLESS: Final = {
    "a body of a gigabyte": b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n",
    "a body without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "a gzip bomb": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_I2__of_an_endless_answer_little_is_read(name: str) -> None:
    sent: list[int] = []
    begun = time.monotonic()
    answer = for_ever(ENDLESS[name], b"\x1f\x8b" * 32_768, sent)
    assert told(Receiver(answer), within=10) == Told(200)
    assert time.monotonic() - begun < 2.0
    assert sum(sent) < 16 * MEGABYTE  # what the system's own buffers took


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: " + b"y" * MEGABYTE, b"x" * MEGABYTE])
def test_I2__of_an_endless_head_nothing_is_believed(head: bytes) -> None:
    assert told(Receiver(raw(head))).failure == "not HTTP"


def test_I3__what_became_due_in_an_outage_is_sent_at_a_receivers_pace() -> None:
    """Four hundred at once to one endpoint that is back: two under way, 200 a second."""
    number = 400

    async def main() -> None:
        async with place(NO_GREY, Receiver(status(503), OK)) as here:
            async with here.engine(settings(), queue_clock=time.monotonic) as late:
                late.engine.start()
                here.hook.answer(OK)
                await messages(late, number)
                late.engine.outbox.wake()
                await until(lambda: len(here.hook.received) >= number)
                times = [request.at for request in here.hook.received]
                assert here.hook.most_at_once <= 2
                assert times[-1] - times[0] >= 0.9 * (number - 2) * WEBHOOK_SPACING
                assert len({request.id for request in here.hook.received}) == number

    asyncio.run(main())


def test_I3__who_asks_for_patience_gets_it() -> None:
    async def test(late: Late) -> None:
        await messages(late, 20)
        assert await late.engine.outbox.round() >= 1
        assert len(late.hook.received) <= 2
        late.clock.advance(3 * WEBHOOK_SPACING)
        await late.engine.outbox.round()
        assert len(late.hook.received) <= 2  # a second has to go by first

    in_world(test, NO_GREY, Receiver(status(429, "retry-after: 60\r\n")))


def test_I4__both_secrets_of_a_change_are_signed_with() -> None:
    body, at = b'{"a":1}', int(time.time())
    signature = sign([key_of(SECRET), key_of(OLD_SECRET)], "msg_1", at, body)
    assert signature.count(" ") == 1
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(body, headers) == {"a": 1}
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)


def test_I5__the_usual_payload_has_no_address() -> None:
    async def test(late: Late) -> None:
        await message(late)
        await late.deliver()
        (request,) = late.hook.received
        whole = request.body + json.dumps(request.headers).encode() + request.target.encode()
        assert b"@" not in whole and b"jane" not in whole

    in_world(test, GREY)


def test_I5__it_has_one_where_that_was_asked_for() -> None:
    async def test(late: Late) -> None:
        await message(late)
        await late.deliver()
        assert b"jane@grey.test" in late.hook.received[0].body

    full = [{"url": URL, "secrets": [SECRET], "include_address": True}]
    in_world(test, GREY, config=settings(webhooks=full))
