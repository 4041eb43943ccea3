"""Whatever stands in a request: an answer that was promised, no 5xx, and a bounded cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, target
from hypothesis import strategies as st

from tests.api.ground import BEARER, SECRET, SITEKEY, Gate, gate, site
from tests.api.ground import settings as configured
from tests.hooks.ground import BY_PLATFORM

CORPUS = Path(__file__).parent / "corpus" / "body"
SUITE, LONG = 200, 20_000
MOST = 0.03
"""Seconds of CPU; the address itself may take five milliseconds (tests/test_address.py)."""
HOOKS = [f"/v1/hooks/{case.platform.partition('?')[0]}" for case in BY_PLATFORM.values()]
ROUTES = ["/v1/check", "/v1/prefetch", "/v1/siteverify", "/try", *HOOKS]
KINDS = [b"application/json", b"application/x-www-form-urlencoded", b"application/json; charset=x"]
_WORDS = [
    *(b'{"email":', b'"a@b.test"', b'"\\ud800@x"', b"NaN", b"1e999", b"9" * 400, b"[", b"]", b"}"),
    *(b"{", b",", b":", b"null", b"true", b'"sitekey":', b'"timeout_ms":', b'"secret":', b"\x00"),
    *(b"email=", b"a%40b.test", b"&", b"=", b"%", b"%zz", b"+", b"%ff%fe", b"email=a@b.c&" * 60),
    *(
        SITEKEY.encode(),
        SECRET.encode(),
        b'"user":{"email":"x@y.z"}',
        b'"' + b"\\u0301" * 99 + b'"',
    ),
]
BODIES = st.one_of(
    st.lists(st.sampled_from(_WORDS) | st.binary(max_size=8), max_size=30).map(b"".join),
    st.sampled_from([case.body for case in BY_PLATFORM.values()]),
    st.binary(max_size=9000),
)
_VALUE = st.binary(max_size=300) | st.sampled_from(
    [b"Bearer " + SECRET.encode(), b"Bearer", b"Basic \xff", b"https://www.example.com", b"null"]
)
_NAME = st.sampled_from(
    [b"authorization", b"origin", b"x-forwarded-for", b"cookie", b"content-encoding", b"accept"]
    + [b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"zitadel-signature"]
    + [b"workos-signature", b"x-authgear-body-signature", b"x-fusionauth-signature-jwt"]
)
HEADERS = st.lists(st.tuples(_NAME, _VALUE), max_size=5)


@dataclass(slots=True)
class Front:
    """The application without a socket or a client library before it."""

    runner: asyncio.Runner
    gate: Gate

    def cost(self, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> float:
        """Send a request, insist on a decent answer; its seconds of CPU, the least of three if it
        is over the bound.
        """
        least = float("inf")
        for _ in range(3):
            started = time.thread_time()
            status = self.runner.run(self._send(path, headers, body))
            least = min(least, time.thread_time() - started)
            assert 200 <= status < 500 or status in PROMISED.get(path, ()), status
            if least <= MOST:
                break
        return least

    async def _send(self, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"email=a%40b.test",
            "root_path": "",
            "headers": [(b"host", b"gate.example.com"), *headers],
            "client": ("198.51.100.7", 4711),
            "server": ("gate.example.com", 80),
        }
        await self.gate.app(scope, receive, send)
        status: int = said[0]["status"]
        return status


PROMISED: dict[str, tuple[int, ...]] = {}
"""Statuses beyond 499 that a platform wants as an answer."""


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    hooks = [dict(case.hook) for case in BY_PLATFORM.values()]
    config = configured([site()], hook=hooks, probe={"enabled": False})
    with asyncio.Runner() as runner:
        context = gate(config)
        yield Front(runner, runner.run(context.__aenter__()))
        runner.run(context.__aexit__(None, None, None))


def over(front: Front, examples: int) -> tuple[float, str, bytes]:
    """Try so many requests; the slowest."""
    slowest = (0.0, "", b"")

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(ROUTES), st.sampled_from(KINDS), st.booleans(), HEADERS, BODIES)
    def attempt(
        path: str, kind: bytes, keyed: bool, more: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        nonlocal slowest
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *more]
        if keyed:
            headers.append((b"authorization", BEARER["authorization"].encode()))
        seconds = front.cost(path, headers, body)
        slowest = max(slowest, (seconds, path, body))
        target(seconds)
        assert seconds <= MOST, f"{path}: {len(body)} octets cost {seconds * 1000:.1f} ms of CPU"

    attempt()
    return slowest


@pytest.mark.timeout(60)
def test_every_request_is_answered_as_promised(front: Front) -> None:
    over(front, SUITE)


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_what_was_found_once(front: Front, name: str) -> None:
    body = (CORPUS / name).read_bytes()
    for path in ROUTES:
        for kind in KINDS:
            headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
            headers.append((b"authorization", BEARER["authorization"].encode()))
            assert front.cost(path, headers, body) <= MOST, path


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_every_one_of_twenty_thousand_requests_is_answered(front: Front) -> None:
    seconds, path, body = over(front, LONG)
    print(f"slowest request: {seconds * 1000:.2f} ms of CPU, {path}, {body[:60]!r}")
