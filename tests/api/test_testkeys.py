"""The documented test keys: what each answers, and that none of them opens a real door."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from gate.api.testkeys import PAIRS
from gate.reason import GateError
from tests.api.ground import SECRET, Gate, gate, settings, site

EVERY = ("always_allow", "always_block", "always_warn", "always_unknown", "token_spent")
ADDRESSES = ("jane@inbox.test", "nobody@inbox.test", "jane@nowhere.invalid", "nonsense", "")


async def ask(running: Gate, name: str, email: str = "jane@inbox.test") -> dict[str, Any]:
    response: httpx.Response = await running.page(
        email, sitekey=f"pk_test_{name}", origin="https://staging.example.net"
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://staging.example.net"
    answer: dict[str, Any] = response.json()
    return answer


def test_the_documented_pairs() -> None:
    assert tuple(pair.name for pair in PAIRS) == EVERY
    assert [pair.secret for pair in PAIRS] == [f"sk_test_{name}" for name in EVERY]


@pytest.mark.parametrize("email", ADDRESSES)
@pytest.mark.parametrize(
    ("name", "decision", "reason"),
    [
        ("always_allow", "allow", "accepted_email"),
        ("always_block", "block", "rejected_email"),
        ("always_warn", "warn", "possible_typo"),
        ("token_spent", "allow", "accepted_email"),
    ],
)
def test_the_answer_is_always_the_same(name: str, decision: str, reason: str, email: str) -> None:
    async def main() -> None:
        async with gate() as running:
            answer = await ask(running, name, email)
        assert (answer["decision"], answer["reason"]) == (decision, reason)
        assert bool(answer["did_you_mean"]) == (name == "always_warn")
        assert answer["token"]

    asyncio.run(main())


def test_the_suggestion_keeps_the_local_part() -> None:
    async def main() -> None:
        async with gate() as running:
            answer = await ask(running, "always_warn", "jane.doe@exmaple.com")
        assert answer["did_you_mean"] == "jane.doe@example.com"

    asyncio.run(main())


@pytest.mark.parametrize(("timeout_ms", "least"), [("", 0.75), ("100", 0.08)])
def test_unknown_comes_after_800_ms_or_the_budget(timeout_ms: str, least: float) -> None:
    async def main() -> None:
        async with gate() as running:
            before = time.monotonic()
            response = await running.page(
                "jane@inbox.test", sitekey="pk_test_always_unknown", timeout_ms=timeout_ms
            )
            took = time.monotonic() - before
        answer = response.json()
        assert (answer["decision"], answer["reason"], answer["final"]) == (
            "allow",
            "timeout",
            False,
        )
        assert least < took < least + 0.3

    asyncio.run(main())


def test_a_test_secret_gets_the_whole_answer() -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.post(
                "/v1/check",
                json={"email": "jane@inbox.test"},
                headers={"authorization": "Bearer sk_test_always_block"},
            )
        answer = response.json()
        assert (answer["result"], answer["decision"]) == ("undeliverable", "block")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "success", "codes"),
    [
        ("always_allow", True, []),
        ("always_block", False, ["email-rejected"]),
        ("always_warn", True, []),
        ("always_unknown", True, []),
        ("token_spent", False, ["timeout-or-duplicate"]),
    ],
)
def test_siteverify_of_a_pair(name: str, success: bool, codes: list[str]) -> None:
    async def main() -> None:
        async with gate() as running:
            token = (await ask(running, name))["token"]
            answer = await running.siteverify(secret=f"sk_test_{name}", response=token)
        assert (answer["success"], answer["error-codes"]) == (success, codes)

    asyncio.run(main())


def test_inline_siteverify_of_a_pair() -> None:
    async def main() -> None:
        async with gate() as running:
            answer = await running.siteverify(
                secret="sk_test_always_block", email="jane@inbox.test"
            )
        assert answer["error-codes"] == ["email-rejected"]

    asyncio.run(main())


@pytest.mark.parametrize("name", EVERY)
def test_a_real_secret_refuses_test_tokens_and_the_reverse(name: str) -> None:
    async def main() -> None:
        async with gate() as running:
            test_token = (await ask(running, name))["token"]
            real_token = (await running.page("jane@inbox.test")).json()["token"]
            for secret, token in ((SECRET, test_token), (f"sk_test_{name}", real_token)):
                answer = await running.siteverify(secret=secret, response=token)
                assert answer["error-codes"] == ["invalid-input-response"]

    asyncio.run(main())


def test_a_pairs_token_is_no_use_to_another_pair() -> None:
    async def main() -> None:
        async with gate() as running:
            token = (await ask(running, "always_block"))["token"]
            answer = await running.siteverify(secret="sk_test_always_allow", response=token)
        assert answer["error-codes"] == ["invalid-input-response"]

    asyncio.run(main())


def test_a_real_site_cannot_take_a_test_key() -> None:
    async def main() -> None:
        async with gate(settings([site(key="pk_test_mine")])):
            raise AssertionError("it opened")

    with pytest.raises(GateError, match="pk_test_"):
        asyncio.run(main())
