"""POST /v1/siteverify: tokens, their single use, today's verdict, and what never happens."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gate.answer import Answer
from gate.checker import Checker
from gate.engine import Engine, open_engine
from gate.settings import Settings, Site
from gate.testing.clock import FakeClock
from tests.api.ground import (
    BEARER,
    ORIGIN,
    OTHER_ORIGIN,
    OTHER_SECRET,
    OTHER_SITEKEY,
    SECRET,
    SITEKEY,
    Gate,
    gate,
    settings,
    site,
)

SHAPE = (
    "success challenge_ts hostname error-codes action cdata email result reason decision".split()
)
NOTHING = dict.fromkeys(SHAPE)


def refused(code: str) -> dict[str, Any]:
    return {**NOTHING, "success": False, "error-codes": [code]}


async def token_for(running: Gate, email: str = "jane@inbox.test", **fields: Any) -> str:
    token: str = (await running.page(email, **fields)).json()["token"]
    return token


def test_a_good_token() -> None:
    async def main() -> None:
        async with gate(wall=FakeClock(1_795_348_800.5)) as running:
            token = await token_for(running, action="signup", cdata="cart 7")
            answer = await running.siteverify(response=token, email="jane@inbox.test")
        assert list(answer) == SHAPE
        assert answer == {
            "success": True,
            "challenge_ts": "2026-11-22T12:00:00.500Z",
            "hostname": "www.example.com",
            "error-codes": [],
            "action": "signup",
            "cdata": "cart 7",
            "email": "jane@inbox.test",
            "result": "deliverable",
            "reason": "accepted_email",
            "decision": "allow",
        }

    asyncio.run(main())


def test_the_address_is_told_even_if_it_was_not_sent_along() -> None:
    async def main() -> None:
        async with gate() as running:
            answer = await running.siteverify(response=await token_for(running, "Jane@INBOX.test"))
        assert answer["email"] == "Jane@inbox.test"

    asyncio.run(main())


@pytest.mark.parametrize("where", ["body", "header", "json"])
def test_where_the_secret_may_stand(where: str) -> None:
    async def main() -> None:
        async with gate() as running:
            fields = {"response": await token_for(running)}
            post = running.client.post
            if where == "body":
                response = await post("/v1/siteverify", data={**fields, "secret": SECRET})
            elif where == "json":
                response = await post("/v1/siteverify", json={**fields, "secret": SECRET})
            else:
                response = await post("/v1/siteverify", data=fields, headers=BEARER)
        assert response.json()["success"] is True

    asyncio.run(main())


ROWS: list[tuple[str, dict[str, str], str]] = [
    ("no secret", {"secret": "", "response": "x"}, "missing-input-secret"),
    ("unknown secret", {"secret": "sk_nobody", "response": "x"}, "invalid-input-secret"),
    ("site key as secret", {"secret": SITEKEY, "response": "x"}, "invalid-input-secret"),
    ("nothing to verify", {}, "missing-input-response"),
    ("not a token", {"response": "x"}, "invalid-input-response"),
    ("a JWT", {"response": "eyJhbGciOiJub25lIn0.e30."}, "invalid-input-response"),
    ("a long token", {"response": "v1." + "x" * 6000}, "invalid-input-response"),
    ("not ASCII", {"response": "v1.é.é.é"}, "invalid-input-response"),
    ("long key", {"response": "x", "idempotency_key": "k" * 129}, "bad-request"),
]


@pytest.mark.parametrize(("name", "fields", "code"), ROWS, ids=[row[0] for row in ROWS])
def test_refusals(name: str, fields: dict[str, str], code: str) -> None:
    async def main() -> None:
        async with gate() as running:
            assert await running.siteverify(**fields) == refused(code)

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"secret":1}', b'{"secret":"\\ud800"}'])
def test_a_body_that_cannot_be_read(body: bytes) -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.post(
                "/v1/siteverify", content=body, headers={"content-type": "application/json"}
            )
        assert response.status_code == 200
        assert response.json() == refused("bad-request")

    asyncio.run(main())


def test_a_wrong_header_is_a_wrong_secret() -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.post(
                "/v1/siteverify", data={"response": "x"}, headers={"authorization": "Basic x"}
            )
        assert response.json() == refused("invalid-input-secret")

    asyncio.run(main())


# -- whose token, which address --------------------------------------------------------------------


def test_every_bit_of_a_token_counts() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_for(running)
            for position in range(0, len(token), 3):
                changed = chr(ord(token[position]) ^ 1)
                forged = token[:position] + changed + token[position + 1 :]
                answer = await running.siteverify(response=forged)
                assert answer == refused("invalid-input-response"), position
            assert (await running.siteverify(response=token))["success"]

    asyncio.run(main())


def test_another_sites_token() -> None:
    async def main() -> None:
        async with gate() as running:
            theirs = await token_for(running, sitekey=OTHER_SITEKEY, origin=OTHER_ORIGIN)
            assert await running.siteverify(response=theirs) == refused("invalid-input-response")
            answer = await running.siteverify(response=theirs, secret=OTHER_SECRET)
            assert answer["success"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("email", "matches"),
    [
        ("jane.doe@inbox.test", True),
        ("jane.doe@INBOX.test", True),
        ("john@inbox.test", False),
        ("Jane.doe@inbox.test", False),
        ("janedoe@inbox.test", False),
        ("jane.doe+x@inbox.test", False),
        ("jane.doe@inbox.test ", False),
        ("nonsense", False),
    ],
)
def test_a_token_is_for_one_exact_address(email: str, matches: bool) -> None:
    async def main() -> None:
        async with gate(settings([site(policy={"undeliverable": "allow"})])) as running:
            token = await token_for(running, "jane.doe@inbox.test")
            answer = await running.siteverify(response=token, email=email)
            assert answer["success"] is matches
            if not matches:
                assert answer == refused("email-mismatch")
                # A mismatch does not spend it: the person may have two tabs open.
                assert (await running.siteverify(response=token))["success"] is True

    asyncio.run(main())


def test_a_rejected_address() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_for(running, "nobody@inbox.test")
            answer = await running.siteverify(response=token)
        assert (answer["success"], answer["error-codes"]) == (False, ["email-rejected"])
        assert (answer["reason"], answer["decision"]) == ("rejected_email", "block")

    asyncio.run(main())


# -- once ------------------------------------------------------------------------------------------


def test_a_token_is_spent_once() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_for(running)
            assert (await running.siteverify(response=token))["success"] is True
            assert await running.siteverify(response=token) == refused("timeout-or-duplicate")

    asyncio.run(main())


def test_of_a_hundred_at_once_one_succeeds() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_for(running)
            answers = await asyncio.gather(
                *(running.siteverify(response=token) for _ in range(100))
            )
        assert Counter(answer["success"] for answer in answers) == {True: 1, False: 99}

    asyncio.run(main())


def test_a_retry_with_the_same_key_gets_the_first_answer() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_for(running)
            first = await running.siteverify(response=token, idempotency_key="order 7")
            for _ in range(4):
                again = await running.siteverify(response=token, idempotency_key="order 7")
                assert again == first
            other = await running.siteverify(response=token, idempotency_key="order 8")
            assert other == refused("timeout-or-duplicate")

    asyncio.run(main())


def test_retries_at_once_all_succeed() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_for(running)
            answers = await asyncio.gather(
                *(running.siteverify(response=token, idempotency_key="k") for _ in range(20))
            )
        assert {answer["success"] for answer in answers} == {True}

    asyncio.run(main())


def test_a_retry_outlives_the_token_for_ten_minutes() -> None:
    async def main() -> None:
        wall = FakeClock()
        async with gate(wall=wall) as running:
            token = await token_for(running)
            first = await running.siteverify(response=token, idempotency_key="k")
            wall.advance(599)
            assert await running.siteverify(response=token, idempotency_key="k") == first
            wall.advance(2)
            again = await running.siteverify(response=token, idempotency_key="k")
            assert again == refused("timeout-or-duplicate")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("after", "code"),
    [
        (299.9, None),
        (304.9, None),
        (305.1, "timeout-or-duplicate"),
        (-4.9, None),
        (-5.1, "invalid-input-response"),
    ],
)
def test_a_token_lives_five_minutes_and_the_skew_of_two_clocks(
    after: float, code: str | None
) -> None:
    async def main() -> None:
        wall = FakeClock()
        async with gate(wall=wall) as running:
            token = await token_for(running)
            wall.advance(after)
            answer = await running.siteverify(response=token)
            if code is None:
                assert answer["success"] is True
            else:
                assert answer == refused(code)

    asyncio.run(main())


def test_a_clock_set_back_revives_no_spent_token() -> None:
    async def main() -> None:
        wall = FakeClock()
        async with gate(wall=wall) as running:
            token = await token_for(running)
            assert (await running.siteverify(response=token))["success"]
            wall.advance(-3)
            assert await running.siteverify(response=token) == refused("timeout-or-duplicate")

    asyncio.run(main())


def test_a_restart_revives_no_spent_token(tmp_path: Any) -> None:
    config = settings(store={"url": f"sqlite:{tmp_path}/gate.db"})

    async def first() -> tuple[str, str, dict[str, Any]]:
        async with gate(config) as running:
            spent, kept = await token_for(running), await token_for(running)
            answer = await running.siteverify(response=spent, idempotency_key="k")
            assert answer["success"]
            return spent, kept, answer

    async def second(spent: str, kept: str, answer: dict[str, Any]) -> None:
        async with gate(config) as running:
            assert await running.siteverify(response=spent) == refused("timeout-or-duplicate")
            again = await running.siteverify(response=spent, idempotency_key="k")
            assert again == {**answer, "email": None}
            assert (await running.siteverify(response=kept))["success"] is True

    asyncio.run(second(*asyncio.run(first())))


# -- today's verdict -------------------------------------------------------------------------------


def test_a_flight_about_to_land_is_waited_for() -> None:
    async def main() -> None:
        async with gate(settings(probe={"budget_ms": 60})) as running:
            page = (await running.page("slow-400@inbox.test")).json()
            assert page["reason"] == "timeout"
            answer = await running.siteverify(response=page["token"])
        assert (answer["success"], answer["reason"]) == (True, "accepted_email")

    asyncio.run(main())


def test_an_unknown_that_stays_unknown_is_let_in() -> None:
    async def main() -> None:
        async with gate() as running:
            token = await token_for(running, "deferred@inbox.test")
            answer = await running.siteverify(response=token)
        assert (answer["success"], answer["result"], answer["reason"]) == (
            True,
            "unknown",
            "deferred",
        )

    asyncio.run(main())


def test_with_an_address_and_no_token_it_is_checked_now() -> None:
    async def main() -> None:
        async with gate() as running:
            good = await running.siteverify(email="jane@inbox.test")
            bad = await running.siteverify(email="nobody@inbox.test")
            odd = await running.siteverify(email="nobody")
        assert (good["success"], good["reason"], good["hostname"]) == (True, "accepted_email", "")
        assert (bad["success"], bad["error-codes"]) == (False, ["email-rejected"])
        assert (odd["reason"], odd["email"]) == ("invalid_email", "nobody")

    asyncio.run(main())


# -- never a 5xx -----------------------------------------------------------------------------------


def test_a_fault_of_our_own_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Checker):
        async def latest(self, check_id: str, site: Site, *, wait: float) -> Answer | None:
            raise RuntimeError("jane@inbox.test")

    @asynccontextmanager
    async def opener(config: Settings) -> AsyncIterator[Engine]:
        async with open_engine(config) as engine:
            engine.checker.__class__ = Broken
            yield engine

    async def main() -> None:
        async with gate(opener=opener) as running:
            token = await token_for(running)
            assert await running.siteverify(response=token) == refused("internal-error")

    asyncio.run(main())
    assert "unexpected RuntimeError in latest" in caplog.text
    assert "jane" not in caplog.text


def test_at_rest_there_is_no_address(tmp_path: Any) -> None:
    path = tmp_path / "gate.db"

    async def main() -> None:
        async with gate(settings(store={"url": f"sqlite:{path}"})) as running:
            token = await token_for(running, "canary-7f3a@inbox.test")
            await running.siteverify(
                response=token, email="canary-7f3a@inbox.test", idempotency_key="k"
            )

    asyncio.run(main())
    found = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert found
    assert b"canary" not in found
    assert hashlib.sha256(b"canary-7f3a@inbox.test").digest() not in found


def test_over_the_limit() -> None:
    async def main() -> None:
        async with gate(settings(limits={"secret_per_minute": 1})) as running:
            assert await running.siteverify(response="x") == refused("invalid-input-response")
            response = await running.client.post("/v1/siteverify", data={"secret": SECRET})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1

    asyncio.run(main())


def test_no_page_may_read_it() -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.post(
                "/v1/siteverify", data={"secret": SECRET}, headers={"origin": ORIGIN}
            )
        assert "access-control-allow-origin" not in response.headers

    asyncio.run(main())
