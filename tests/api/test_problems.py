"""Every problem document there is: what brings it about, and that it repeats nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gate.answer import Answer
from gate.api.problems import KINDS, URN
from gate.checker import Checker
from gate.engine import Engine, open_engine
from gate.settings import Settings
from tests.api.ground import (
    BEARER,
    ORIGIN,
    OTHER_ORIGIN,
    OTHER_SITEKEY,
    SITEKEY,
    Gate,
    gate,
    settings,
)

CANARY = "canary-7f3a"
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Row:
    """A request, and the problem it is answered with."""

    name: str
    problem: str
    path: str = "/v1/check"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    said: str = ""


def check(name: str, problem: str, body: bytes, said: str = "", **headers: str) -> Row:
    sent = {**JSON, **BEARER, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return Row(name, problem, headers=sent, body=body, said=said)


def page(name: str, problem: str, body: str, said: str = "", **headers: str) -> Row:
    sent = {**FORM, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return Row(name, problem, headers=sent, body=body.encode(), said=said)


EMAIL = f'"email":"{CANARY}@x.test"'.encode()

ROWS = [
    # bodies
    check("no body", "invalid_request", b""),
    check("not JSON", "invalid_request", CANARY.encode()),
    check("lone surrogate", "invalid_request", rb'{"email":"canary-7f3a\ud800@x"}'),
    check("doubled key", "invalid_request", b"{" + EMAIL + b"," + EMAIL + b"}", "twice"),
    check("unknown key", "invalid_request", b"{" + EMAIL + b',"e_mail":1}', "e_mail"),
    check("unknown odd key", "invalid_request", b"{" + EMAIL + b',"<canary-7f3a>":1}'),
    check("no address", "invalid_request", b"{}", "email"),
    check("bad remoteip", "invalid_request", b"{" + EMAIL + b',"remoteip":"canary-7f3a"}'),
    check("budget too small", "invalid_request", b"{" + EMAIL + b',"timeout_ms":1}', "timeout_ms"),
    check("depth bomb", "invalid_request", b"[" * 8000),
    check("too large", "body_too_large", b'{"email":"' + CANARY.encode() * 1000 + b'"}'),
    check("just too large", "body_too_large", b" " * 8193),
    check("compressed", "unsupported_media_type", b"{}", content_encoding="gzip"),
    check("multipart", "unsupported_media_type", b"--x", content_type="multipart/form-data"),
    check("text", "unsupported_media_type", b"{}", content_type="text/plain"),
    check("no type", "unsupported_media_type", b"{}", content_type=""),
    page("form twice", "invalid_request", f"sitekey={SITEKEY}&email=a&email=b"),
    page("JSON sent as a form", "invalid_request", '{"email":"a"}', "Content-Type"),
    page("explain from a page", "invalid_request", f"sitekey={SITEKEY}&email=a&explain=true"),
    page("max_age from a page", "invalid_request", f"sitekey={SITEKEY}&email=a&max_age=0"),
    page("remoteip from a page", "invalid_request", f"sitekey={SITEKEY}&email=a&remoteip=::1"),
    # keys
    page("no key", "missing_key", f"email={CANARY}", "gate keys new"),
    page("empty site key", "missing_key", f"email={CANARY}&sitekey="),
    page("unknown site key", "invalid_key", f"email=a&sitekey=pk_{CANARY}"),
    page("secret key in the body", "invalid_key", f"email=a&sitekey=sk_{CANARY}", "Authorization"),
    page("site key in capitals", "invalid_key", f"email=a&sitekey={SITEKEY.upper()}"),
    check("unknown secret", "invalid_key", b"{}", authorization=f"Bearer sk_{CANARY}"),
    check("wrong scheme", "invalid_key", b"{}", authorization=f"Basic {CANARY}"),
    check("scheme alone", "invalid_key", b"{}", authorization="Bearer"),
    check("key alone", "invalid_key", b"{}", authorization=CANARY),
    Row("no key for a check's id", "missing_key", "/v1/checks/chk_1", "GET"),
    Row(
        "site key for a check's id",
        "secret_key_needed",
        "/v1/checks/chk_1",
        "GET",
        {"authorization": f"Bearer {SITEKEY}"},
    ),
    Row("prefetch without a key", "missing_key", "/v1/prefetch", "POST", FORM, b"domain=x.test"),
    # URLs
    Row("secret in the URL", "secret_in_url", f"/v1/check?secret={CANARY}", headers=BEARER),
    Row("address in the URL", "secret_in_url", f"/v1/check?email={CANARY}", headers=BEARER),
    Row("site key in the URL", "secret_in_url", "/v1/prefetch?sitekey=pk_x"),
    Row("token in the URL", "secret_in_url", "/v1/siteverify?a=1&response=x"),
    Row("encoded name", "secret_in_url", f"/v1/check?%65mail={CANARY}"),
    Row("capitals", "secret_in_url", f"/v1/check?EMAIL={CANARY}"),
    Row("on a quiet route", "secret_in_url", f"/healthz?email={CANARY}", "GET"),
    Row("where there is nothing", "secret_in_url", f"/nowhere?secret={CANARY}", "GET"),
    # origins
    page(
        "page of another site",
        "origin_not_allowed",
        f"sitekey={SITEKEY}&email=a",
        origin=OTHER_ORIGIN,
    ),
    page("evil page", "origin_not_allowed", f"sitekey={SITEKEY}&email=a", origin="https://e.test"),
    Row(
        "preflight of a stranger",
        "origin_not_allowed",
        method="OPTIONS",
        headers={"origin": "https://evil.test", "access-control-request-method": "POST"},
    ),
    Row("preflight without an origin", "origin_not_allowed", method="OPTIONS"),
    # routes and methods
    Row("GET of a hot route", "method_not_allowed", "/v1/check", "GET"),
    Row("PUT of a hot route", "method_not_allowed", "/v1/siteverify", "PUT"),
    Row("POST of a quiet route", "method_not_allowed", "/healthz"),
    Row("nowhere", "not_found", f"/{CANARY}", "GET"),
    Row("metrics on the public port", "not_found", "/metrics", "GET"),
    Row("hot route with a slash", "not_found", "/v1/check/"),
    Row("address in the path", "not_found", f"/v1/check/{CANARY}@x.test", "GET"),
    Row("unknown id", "not_found", "/v1/checks/chk_" + "0" * 32, "GET", BEARER),
    Row("odd id", "not_found", f"/v1/checks/{CANARY}", "GET", BEARER),
    # hosts
    Row("host with a path", "invalid_request", headers={"host": "a/b"}),
    Row("host with a user", "invalid_request", headers={"host": "a@b"}),
    Row("empty host", "invalid_request", "/healthz", "GET", {"host": ""}),
    Row("host with a space", "invalid_request", "/healthz", "GET", {"host": "a b"}),
]


async def ask(client: httpx.AsyncClient, row: Row) -> httpx.Response:
    return await client.request(row.method, row.path, headers=row.headers, content=row.body)


def assert_problem(response: httpx.Response, name: str, said: str = "") -> None:
    document = response.json()
    assert (response.status_code, document["type"]) == (KINDS[name].status, URN + name)
    assert document["status"] == response.status_code
    assert document["title"] == KINDS[name].title
    assert set(document) == {"type", "title", "status", "detail"}
    assert said in document["detail"]
    assert response.headers["content-type"] == "application/problem+json"
    assert CANARY not in response.text


@pytest.fixture(scope="module")
def runner() -> Any:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def opened(runner: asyncio.Runner) -> Any:
    context = gate()
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_problem(runner: asyncio.Runner, opened: Gate, row: Row) -> None:
    assert_problem(runner.run(ask(opened.client, row)), row.problem, row.said)


def test_401_says_which_scheme() -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.post("/v1/check", data={"email": "a"})
            assert response.headers["www-authenticate"] == 'Bearer realm="signup-gate"'

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/check", "POST, OPTIONS"), ("/healthz", "GET, HEAD"), ("/v1/checks/chk_1", "GET, HEAD")],
)
def test_405_says_what_is_allowed(path: str, allowed: str) -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.delete(path)
            assert response.status_code == 405
            assert sorted(response.headers["allow"].split(", ")) == sorted(allowed.split(", "))

    asyncio.run(main())


@asynccontextmanager
async def broken_engine(config: Settings) -> AsyncIterator[Engine]:
    """An engine whose checker fails in a way nobody thought of."""

    class Broken(Checker):
        async def check(self, email: str, **named: Any) -> Answer:
            raise RuntimeError(email)

    async with open_engine(config) as engine:
        engine.checker.__class__ = Broken
        yield engine


def test_a_fault_of_our_own_is_one_bland_document(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with gate(opener=broken_engine) as running:
            assert_problem(await running.check(f"{CANARY}@inbox.test"), "internal_error")

    asyncio.run(main())
    assert "RuntimeError in check" in caplog.text
    assert CANARY not in caplog.text


def test_before_and_after_it_is_open_it_says_so() -> None:
    async def main() -> None:
        async with gate() as running:
            client = running.client
            assert (await client.get("/healthz")).status_code == 200
            app = running.app
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as later:
            assert_problem(await later.get("/healthz"), "unavailable")
            assert_problem(await later.post("/v1/check"), "unavailable")

    asyncio.run(main())


def test_over_the_limit_a_server_is_told_when_to_come_back() -> None:
    async def main() -> None:
        async with gate(settings(limits={"secret_per_minute": 2})) as running:
            for _ in range(2):
                assert (await running.check("jane@inbox")).status_code == 200
            response = await running.check("jane@inbox")
            assert_problem(response, "too_many_requests")
            assert 1 <= int(response.headers["retry-after"]) <= 120

    asyncio.run(main())


def test_every_problem_has_a_row() -> None:
    """The rest needs a real connection (tests/test_server.py) or a state (above, test_guard.py)."""
    elsewhere = {
        "body_timeout",
        "headers_too_large",
        "internal_error",
        "too_many_requests",
        "unavailable",
        "uri_too_long",
        "wrong_host",
    }
    assert {row.problem for row in ROWS} | elsewhere == set(KINDS)


def test_a_problem_can_be_read_by_the_page_that_caused_it() -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.page("a", nonsense="1")
            assert_problem(response, "invalid_request")
            assert response.headers["access-control-allow-origin"] == ORIGIN

    asyncio.run(main())


def test_the_other_sites_key_is_no_help() -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.page("a@inbox.test", sitekey=OTHER_SITEKEY)
            assert_problem(response, "origin_not_allowed")
            assert "access-control-allow-origin" not in response.headers

    asyncio.run(main())
