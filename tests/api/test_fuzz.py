"""Whatever is sent, the answer is one that was promised: never a 5xx, never an echo in an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate.api.problems import KINDS, URN
from tests.api.ground import BEARER, ORIGIN, SECRET, SITEKEY, Gate, gate
from tests.api.ground import settings as configured

PATHS = ("/v1/check", "/v1/prefetch", "/v1/siteverify", "/v1/checks/chk_1", "/readyz", "/x")
TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "application/json;charset=utf-7",
    "multipart/form-data; boundary=x",
    "",
)
FIELDS = (
    "email sitekey timeout_ms max_age action cdata remoteip explain domain secret response "
    "idempotency_key nonsense"
).split()
TEXTS = st.sampled_from(["jane@inbox.test", SITEKEY, SECRET, "v1.a.b.c", "800", "true", "::1"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
BODIES = st.one_of(
    st.binary(max_size=9000),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6).map(
        lambda record: json.dumps(record).encode()
    ),
    st.lists(st.tuples(st.sampled_from(FIELDS), TEXTS | st.text(max_size=40)), max_size=6).map(
        lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode(
            "utf-8", "surrogatepass"
        )
    ),
)
HEADER_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60)
HEADERS = st.dictionaries(
    st.sampled_from(["origin", "authorization", "x-forwarded-for", "content-encoding", "host"]),
    HEADER_VALUES | st.sampled_from([ORIGIN, f"Bearer {SECRET}", f"Bearer {SITEKEY}"]),
    max_size=3,
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def opened(runner: asyncio.Runner) -> Iterator[Gate]:
    config = configured(server={"trusted_proxies": ["198.51.100.0/24"]}, probe={"enabled": False})
    context = gate(config)
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))


@given(
    path=st.sampled_from(PATHS),
    method=st.sampled_from(["POST", "POST", "POST", "GET", "OPTIONS", "PUT", "HEAD"]),
    kind=st.sampled_from(TYPES),
    headers=HEADERS,
    body=BODIES,
    keyed=st.booleans(),
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_answer_is_one_that_was_promised(
    runner: asyncio.Runner,
    opened: Gate,
    path: str,
    method: str,
    kind: str,
    headers: dict[str, str],
    body: bytes,
    keyed: bool,
) -> None:
    sent: dict[str, Any] = {"content-type": kind, **(BEARER if keyed else {}), **headers}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
    response = runner.run(opened.client.request(method, path, headers=raw, content=body))
    assert response.status_code < 500
    assert response.headers["cache-control"] == "no-store"
    if response.headers.get("content-type") == "application/problem+json" and method != "HEAD":
        document = response.json()
        name = document["type"].removeprefix(URN)
        assert KINDS[name].status == response.status_code
        assert SECRET not in response.text
        assert "jane@" not in response.text
