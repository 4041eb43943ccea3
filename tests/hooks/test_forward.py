"""Forward-auth: where the address is found, what passes unasked, and what nobody can smuggle in."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from tests.hooks.ground import ACCEPTS, PROXY, REFUSES, hooked

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
POSTED = {"x-forwarded-method": "POST"}
JANE = "jane@example.com"
ENCODED = "jane%40example.com"


async def ask(
    hook: dict[str, Any],
    *,
    method: str = "POST",
    path: str = "forward",
    headers: dict[str, str] | None = None,
    content: bytes = b"",
    mail: Any = REFUSES,
    client: tuple[str, int] = PROXY,
) -> httpx.Response:
    async with hooked({"platform": "forward", **hook}, mail=mail, client=client) as running:
        return await running.gate.client.request(
            method, f"/v1/hooks/{path}", headers=headers or {}, content=content
        )


FOUND: dict[str, dict[str, Any]] = {
    "Traefik, GET with a body": {
        "method": "GET",
        "headers": {**FORM, **POSTED},
        "content": b"email=jane%40example.com&password=hunter22",
    },
    "Traefik, method kept": {
        "headers": {**FORM, **POSTED},
        "content": b"a=1&email=" + ENCODED.encode(),
    },
    "Traefik, JSON": {"headers": {**JSON, **POSTED}, "content": b'{"email": "jane@example.com"}'},
    "Envoy, the client's path below the prefix": {
        "path": "forward/api/signup?next=%2F",
        "headers": JSON,
        "content": b'{"user": {"email": "jane@example.com"}}',
    },
    "Envoy, PUT": {
        "method": "PUT",
        "path": "forward/x",
        "headers": FORM,
        "content": b"email=" + ENCODED.encode(),
    },
    "Envoy, a form that was cut": {
        "headers": {**FORM, "x-envoy-auth-partial-body": "true"},
        "content": b"email=jane%40example.com&about=Lorem+ip",
    },
    "nginx, in the query": {"method": "GET", "path": f"forward?email={ENCODED}"},
    "in the query, of a post": {"path": f"forward?email={ENCODED}", "headers": POSTED},
    "Rails": {"headers": FORM, "content": b"user%5Bemail%5D=" + ENCODED.encode()},
    "JSON without a type": {"content": b'{"email": "jane@example.com"}'},
    "a form without a type": {"content": b"email=jane%40example.com"},
    "JSON of a dialect": {
        "headers": {"content-type": "application/vnd.api+json; charset=utf-8"},
        "content": b'{"email": "jane@example.com"}',
    },
    "twice the same": {
        "headers": FORM,
        "content": b"email=jane%40example.com&email=jane%40example.com",
    },
}


@pytest.mark.parametrize("name", FOUND)
def test_the_address_is_found(name: str) -> None:
    response = asyncio.run(ask({}, **FOUND[name]))
    assert response.status_code == 403
    assert response.json()["reason"] == "rejected_email"
    assert asyncio.run(ask({}, mail=ACCEPTS, **FOUND[name])).status_code == 200


PASSES: dict[str, dict[str, Any]] = {
    "a page is fetched": {
        "method": "GET",
        "path": f"forward?email={ENCODED}",
        "headers": {"x-forwarded-method": "GET"},
    },
    "a preflight": {"method": "OPTIONS", "headers": {"x-forwarded-method": "OPTIONS"}},
    "no address": {"headers": FORM, "content": b"name=Jane"},
    "an empty one": {"headers": FORM, "content": b"email="},
    "no body": {"headers": POSTED},
    "multipart": {
        "headers": {"content-type": "multipart/form-data; boundary=x"},
        "content": b'--x\r\nContent-Disposition: form-data; name="email"\r\n\r\njane@example.com',
    },
    "broken JSON": {"headers": JSON, "content": b'{"email": "jane@exa'},
    "cut JSON": {
        "headers": {**JSON, "x-envoy-auth-partial-body": "true"},
        "content": b'{"email": "jane@example.com"}',
    },
    "cut within the address": {
        "headers": {**FORM, "x-envoy-auth-partial-body": "true"},
        "content": b"name=Jane&email=jane%40exam",
    },
    "deep JSON": {"headers": JSON, "content": b"[" * 60_000},
    "octets": {"headers": FORM, "content": b"\xff\xfe=\xff&email=\xff"},
    "a header that was not configured": {"headers": {**POSTED, "x-signup-email": JANE}},
}


@pytest.mark.parametrize("name", PASSES)
def test_it_passes_unasked(name: str) -> None:
    response = asyncio.run(ask({}, **PASSES[name]))
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["x-gate-decision"] == "allow"


SMUGGLED: dict[str, dict[str, Any]] = {
    "two fields": {
        "headers": FORM,
        "content": b"email=jane%40example.com&email=x%40mailinator.com",
    },
    "two keys": {
        "headers": JSON,
        "content": b'{"email": "x@mailinator.com", "email": "jane@example.com"}',
    },
    "two names": {
        "headers": FORM,
        "content": b"email=jane%40example.com&user[email]=x%40evil.example",
    },
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_two_addresses_are_no_address(name: str) -> None:
    response = asyncio.run(ask({}, mail=ACCEPTS, **SMUGGLED[name]))
    assert response.status_code == 403
    assert response.json()["reason"] == "invalid_email"


def test_the_body_counts_before_the_query() -> None:
    asked: dict[str, Any] = {
        "path": f"forward?email={ENCODED}",
        "headers": FORM,
        "content": b"email=nobody%40example.com",
    }
    assert asyncio.run(ask({}, mail=ACCEPTS, **asked)).status_code == 403


def test_a_configured_header_counts_alone() -> None:
    hook = {"email_header": "X-Signup-Email"}

    async def main() -> None:
        async with hooked({"platform": "forward", **hook}, mail=ACCEPTS) as running:
            for headers, content, status in (
                ({"x-signup-email": JANE, "x-forwarded-method": "GET"}, b"", 200),
                ({"x-signup-email": "nobody@example.com", "x-forwarded-method": "GET"}, b"", 403),
                ({"x-signup-email": "jane%40example.com"}, b"", 200),
                ({"x-signup-email": "nobody%40example.com"}, b"", 403),
                ({"x-signup-email": JANE, **FORM}, b"email=nobody%40example.com", 200),
                (FORM, b"email=nobody%40example.com", 200),
            ):
                response = await running.gate.client.post(
                    "/v1/hooks/forward", headers=headers, content=content
                )
                assert response.status_code == status, headers

    asyncio.run(main())


def test_who_is_listened_to() -> None:
    asked = FOUND["Traefik, JSON"]
    for client, status in (
        (PROXY, 403),
        (("127.0.0.1", 1), 403),
        (("::1", 1), 403),
        (("198.51.100.7", 1), 401),
    ):
        assert asyncio.run(ask({}, client=client, **asked)).status_code == status, client


def test_a_secret_instead_of_a_place() -> None:
    secret = {"secrets": ["one", "two"], "secret_header": "X-Proxy"}
    stranger = ("198.51.100.7", 1)
    asked = FOUND["Traefik, JSON"]
    for sent, status in ((None, 401), ("three", 401), ("two", 403)):
        headers = asked["headers"] | ({"x-proxy": sent} if sent else {})
        response = asyncio.run(
            ask(secret, client=stranger, headers=headers, content=asked["content"])
        )
        assert response.status_code == status
    headers = asked["headers"] | {"x-gate-secret": "one"}
    hook = {"secrets": ["one"]}
    response = asyncio.run(ask(hook, client=stranger, headers=headers, content=asked["content"]))
    assert response.status_code == 403


def test_the_answer_is_the_operators_and_its_text_stands_in_headers_too() -> None:
    shape = {"block_status": 422, "block_body": '{"error": "{message}"}', "allow_status": 204}
    hook = {"answer": shape, "language": "de"}
    response = asyncio.run(ask(hook, **FOUND["Traefik, JSON"]))
    assert response.status_code == 422
    text = response.json()["error"]
    assert text.startswith("Dieses Postfach gibt es nicht")
    assert response.headers["x-gate-reason"] == "rejected_email"
    assert response.headers["x-gate-message"].isascii()
    assert unquote(response.headers["x-gate-message"]) == text
    assert asyncio.run(ask(hook, mail=ACCEPTS, **FOUND["Traefik, JSON"])).status_code == 204


def test_the_persons_language() -> None:
    asked = FOUND["Traefik, JSON"]
    headers = asked["headers"] | {"accept-language": "fr-CH, fr;q=0.9, en;q=0.8"}
    response = asyncio.run(ask({}, headers=headers, content=asked["content"]))
    assert response.json()["error"].startswith("Cette boîte aux lettres n'existe pas")
