"""The Truemail API, read as Misskey and the Truemail clients read it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.ground import gate, settings, site
from tests.hooks.ground import SHARED, hooked

HOOK = {"platform": "truemail", "secrets": [SHARED]}
KEY = {"Authorization": SHARED, "Content-Type": "application/json"}


def misskey(body: Any) -> str | None:
    """What Misskey makes of an answer, by its EmailService: None for an available address."""
    errors = body.get("errors") or {}
    if body.get("email") is None or errors.get("regex"):
        return "format"
    for layer in ("smtp", "mx"):
        if errors.get(layer):
            return layer
    if not body.get("success"):
        known = {"disposable", "blacklist", "network"}
        reason = errors.get("list_match") or "blacklist"
        return reason if reason in known else "null"
    return None


SANDBOX = settings([site()], hook=[HOOK])

ADDRESSES = [
    ("jane@inbox.test", None),
    ("jane+news@inbox.test", None),
    ("nobody@inbox.test", "smtp"),
    ("disabled@inbox.test", "smtp"),
    ("jane@nxdomain.test", "mx"),
    ("jane@no-mx.test", "mx"),
    ("jane@null-mx.test", "mx"),
    ("jane..doe@inbox.test", "format"),
    ("jane", "format"),
    ("jane@throwaway.test", "disposable"),
    ("jane@blocked.test", None),
    ("jane@catchall.test", None),
]


@pytest.mark.parametrize(("email", "reason"), ADDRESSES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_misskey_makes_of_it(email: str, reason: str | None, method: str) -> None:
    async def sandboxed() -> httpx.Response:
        async with gate(SANDBOX) as running:
            return await running.client.request(
                method, f"/v1/hooks/truemail?email={email}", headers=KEY
            )

    response = asyncio.run(sandboxed())
    assert response.status_code == 200
    body = response.json()
    assert misskey(body) == reason
    assert set(body) == {
        "date",
        "email",
        "validation_type",
        "success",
        "errors",
        "smtp_debug",
        "configuration",
    }
    assert body["email"] == email
    assert body["success"] is (reason is None)
    assert (body["errors"] is None) is (reason is None)


@pytest.mark.parametrize(
    ("query", "email"),
    [
        ("email=jane@example.com", "jane@example.com"),
        ("email=jane%40example.com", "jane@example.com"),
        ("email=jane+news@example.com", "jane+news@example.com"),
        ("email=jane%2Bnews%40example.com", "jane+news@example.com"),
        ("email=jane&doe@example.com", "jane&doe@example.com"),
        ("x=1&email=jane@example.com", "jane@example.com"),
        ("email=jos%C3%A9@example.com", "josé@example.com"),
        ("email=%FF@example.com", "\ufffd@example.com"),
    ],
)
def test_an_address_that_may_or_may_not_be_encoded(query: str, email: str) -> None:
    async def main() -> None:
        async with hooked(HOOK) as running:
            response = await running.gate.client.post(f"/v1/hooks/truemail?{query}", headers=KEY)
            assert response.json()["email"] == email

    asyncio.run(main())


@pytest.mark.parametrize("query", ["", "email=", "mail=jane@example.com"])
def test_no_address_is_said(query: str) -> None:
    async def main() -> None:
        async with hooked(HOOK) as running:
            response = await running.gate.client.post(f"/v1/hooks/truemail?{query}", headers=KEY)
            assert response.status_code == 422
            assert response.json() == {"error": "email is required parameter"}

    asyncio.run(main())


def test_the_key_is_needed() -> None:
    async def main() -> None:
        async with hooked(HOOK) as running:
            for headers in ({}, {"Authorization": "other"}):
                response = await running.gate.client.get(
                    "/v1/hooks/truemail?email=jane@example.com", headers=headers
                )
                assert response.status_code == 401
                assert response.json() == {"error": "invalid truemail access token"}
            response = await running.gate.client.put("/v1/hooks/truemail?email=a", headers=KEY)
            assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")

    asyncio.run(main())
