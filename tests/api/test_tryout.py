"""The page's own server: what siteverify says of the form, for the page and nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.ground import ORIGIN, SITEKEY, Gate, gate, settings

PAGE = "http://gate.example.com"
NO_PAGE: dict[str, Any] = {"sandbox": {"enabled": False}, "probe": {"enabled": False}}


async def sent(running: Gate, origin: str | None = PAGE, **form: str) -> httpx.Response:
    headers = {"origin": origin} if origin else {}
    return await running.client.post("/try", data=form, headers=headers)


def test_a_form_with_a_token_gets_what_siteverify_says_of_it() -> None:
    async def main() -> None:
        async with gate() as running:
            told = (await running.page("nobody@inbox.test", action="signup")).json()
            form = {"email": "nobody@inbox.test", "signup-gate-response": told["token"]}
            first = (await sent(running, **form)).json()
            assert first["token"] is True
            assert first["siteverify"]["reason"] == "rejected_email"
            assert first["siteverify"]["error-codes"] == ["email-rejected"]
            assert first["siteverify"]["action"] == "signup"
            assert first["milliseconds"] >= 0
            again = (await sent(running, **form)).json()
            assert again["siteverify"]["error-codes"] == ["timeout-or-duplicate"]

    asyncio.run(main())


def test_a_form_without_a_token_is_checked_now() -> None:
    async def main() -> None:
        async with gate() as running:
            told = (await sent(running, email="jane@inbox.test", name="Jane")).json()
            assert told["token"] is False
            assert told["siteverify"]["reason"] == "accepted_email"
            empty = (await sent(running)).json()
            assert empty["siteverify"]["error-codes"] == ["missing-input-response"]

    asyncio.run(main())


@pytest.mark.parametrize("origin", [None, "null", ORIGIN, "http://evil.test", PAGE + ":81"])
def test_only_the_page_itself_may_ask(origin: str | None) -> None:
    async def main() -> None:
        async with gate() as running:
            response = await sent(running, origin, email="jane@inbox.test")
            assert response.status_code == 403
            assert "jane" not in response.text

    asyncio.run(main())


def test_without_a_page_there_is_nothing() -> None:
    async def main() -> None:
        async with gate(settings(**NO_PAGE)) as running:
            assert (await sent(running, email="jane@inbox.test")).status_code == 404
        async with gate() as running:
            assert (await running.client.get("/try")).status_code == 405

    asyncio.run(main())


def test_one_client_may_not_ask_without_end() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 3})) as running:
            seen = [(await sent(running, email="a@inbox.test")).status_code for _ in range(5)]
            assert seen == [200, 200, 200, 429, 429]
            assert (await running.page("jane@inbox.test")).json()["decision"] == "allow"
            assert SITEKEY not in (await sent(running, email="a")).text

    asyncio.run(main())
