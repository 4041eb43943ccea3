"""Every recorded call, replayed over HTTP through the whole gate, with mail servers that answer,
refuse or hang; and each with one octet changed, too late, too early, and too often."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from gate.budget import HOOKS
from tests.hooks.ground import (
    EVERY,
    NOW,
    REFUSES,
    SIGNED,
    Case,
    hooked,
    resigned,
)

BY_NAME = pytest.mark.parametrize("case", EVERY, ids=[c.platform.partition("?")[0] for c in EVERY])
TIMED = [case for case in EVERY if case.platform in ("supabase", "generic", "zitadel", "workos")]
TEXTS = ("message", "text", "title", "reason", "error", "errorSummary", "userMessage")
TEXTS_ALSO = ("forwardedErrorMessage", "error_message")
GRACE = 0.25


def shape(body: Any) -> Any:
    """A body with its texts and signature left out: what has to be the same whatever is said."""
    if isinstance(body, dict):
        return {
            key: "…"
            if isinstance(value, str) and key in (*TEXTS, *TEXTS_ALSO, "signature")
            else shape(value)
            for key, value in body.items()
        }
    return [shape(one) for one in body] if isinstance(body, list) else body


def body_of(response: httpx.Response) -> Any:
    return json.loads(response.content) if response.content else ""


def texts(body: Any) -> list[str]:
    """Every text that a person could be shown."""
    if isinstance(body, dict):
        found = [value for key, value in body.items() if key in (*TEXTS, *TEXTS_ALSO)]
        inner = [texts(value) for value in body.values()]
        return [text for text in found if isinstance(text, str)] + sum(inner, [])
    return sum(map(texts, body), []) if isinstance(body, list) else []


@BY_NAME
def test_an_accepted_mailbox_is_allowed(case: Case) -> None:
    async def main() -> None:
        async with hooked(case.hook) as running:
            response = await running.send(case)
            assert response.status_code == case.allow["status"], response.text
            wanted, body = case.allow["body"], body_of(response)
            if case.platform.startswith("truemail"):
                body = {key: body[key] for key in wanted}
            assert body == wanted
            if body:
                assert response.headers["content-type"] == "application/json"
        (line,) = running.gate.lines()
        assert (line["key"], line["reason"], line["decision"]) == (
            "hook",
            "accepted_email",
            "allow",
        )

    asyncio.run(main())


@BY_NAME
def test_a_refused_mailbox_is_turned_away_in_the_platforms_own_shape(case: Case) -> None:
    async def main() -> None:
        async with hooked(case.hook, mail=REFUSES) as running:
            response = await running.send(case)
        wanted, body = dict(case.reject["body"]), body_of(response)
        status = 403 if case.platform == "forward" else case.reject["status"]
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/json"
        if case.platform.startswith("truemail"):
            body = {key: body[key] for key in wanted}
        if case.platform == "forward":
            wanted["reason"] = "…"
        assert shape(body) == shape(wanted)
        said = texts(body)
        assert (said and all(text.strip() for text in said)) or not texts(wanted)
        (line,) = running.gate.lines()
        assert (line["reason"], line["decision"]) == ("rejected_email", "block")

    asyncio.run(main())


@BY_NAME
def test_one_octet_changed_is_not_believed(case: Case) -> None:
    """Where the body is signed, any octet of it; where a header is the proof, any of that."""

    async def main() -> None:
        async with hooked(case.hook) as running:
            if case.platform in (*SIGNED, "generic"):
                for at in range(0, len(case.body), max(1, len(case.body) // 40)):
                    changed = bytearray(case.body)
                    changed[at] ^= 1
                    response = await running.send(case, body=bytes(changed))
                    assert response.status_code == 401, at
                assert (await running.send(case, body=case.body + b" ")).status_code == 401
            elif case.hook.get("secrets"):
                name = case.hook.get("secret_header", "authorization").lower()
                for step in range(6):
                    headers = {key.lower(): value for key, value in case.headers.items()}
                    value = headers[name]
                    at = len(value) - 3 - step if len(value) > 9 else step % len(value)
                    other = "A" if value[at] != "A" else "B"
                    headers[name] = value[:at] + other + value[at + 1 :]
                    assert (await running.send(case, headers=headers)).status_code == 401
            assert (await running.send(case)).status_code == case.allow["status"]

    asyncio.run(main())


@BY_NAME
def test_without_its_proof_a_call_is_refused(case: Case) -> None:
    proofs = {
        "authorization",
        "x-parse-webhook-key",
        "x-authorize-request",
        "x-proxy-secret",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "zitadel-signature",
        "workos-signature",
        "x-authgear-body-signature",
        "x-fusionauth-signature-jwt",
    }

    async def main() -> None:
        stranger = ("198.51.100.200", 9)
        async with hooked(case.hook, client=stranger) as running:
            bare = {k: v for k, v in case.headers.items() if k.lower() not in proofs}
            response = await running.send(case, headers=bare)
            assert response.status_code == 401, response.text
            for name in (k for k in case.headers if k.lower() in proofs - {"authorization"}):
                doubled = [*case.headers.items(), (name, case.headers[name])]
                response = await running.gate.client.request(
                    case.method,
                    f"/v1/hooks/{case.platform}",
                    content=case.body,
                    headers=doubled,
                )
                assert response.status_code == 401, name

    asyncio.run(main())


@pytest.mark.parametrize("case", TIMED, ids=[case.platform for case in TIMED])
def test_stale_and_future_calls_are_refused(case: Case) -> None:
    tolerance = 30 if case.platform == "workos" else 300

    async def main() -> None:
        async with hooked(case.hook) as running:
            for offset, status in (
                (0, 200),
                (-tolerance, 200),
                (tolerance, 200),
                (-tolerance - 1, 401),
                (tolerance + 1, 401),
                (-86_400, 401),
                (86_400, 401),
            ):
                headers = resigned(case, case.body, NOW + offset)
                response = await running.send(case, headers=headers)
                assert response.status_code == status, offset

    asyncio.run(main())


@BY_NAME
def test_a_hanging_mail_server_means_allow_inside_the_deadline(case: Case) -> None:
    ours = HOOKS[case.platform.partition("?")[0]].ours

    async def main() -> None:
        async with hooked({**case.hook, "deadline_ms": 300}, mail="silent") as running:
            begun = time.monotonic()
            response = await running.send(case)
            took = time.monotonic() - begun
        assert response.status_code == case.allow["status"]
        wanted, body = case.allow["body"], body_of(response)
        if case.platform.startswith("truemail"):
            body = {key: body[key] for key in wanted}
        assert body == wanted
        assert 0.1 < took < 0.3 + GRACE
        (line,) = running.gate.lines()
        assert (line["reason"], line["decision"]) == ("timeout", "allow")

    asyncio.run(main())
    assert ours < (HOOKS[case.platform.partition("?")[0]].theirs or 5.0)


def test_all_platforms_keep_their_own_deadline_at_the_same_time() -> None:
    """With the deadlines as they ship."""

    async def timed(running: Any, case: Case) -> tuple[str, float, int]:
        begun = time.monotonic()
        response = await running.send(case)
        return case.platform.partition("?")[0], time.monotonic() - begun, response.status_code

    async def main() -> None:
        async with hooked(*(case.hook for case in EVERY), mail="silent") as running:
            answers = await asyncio.gather(*(timed(running, case) for case in EVERY))
        for platform, took, status in answers:
            assert status == 200, platform
            assert took < HOOKS[platform].ours + GRACE, platform

    asyncio.run(main())


@BY_NAME
def test_nothing_said_in_any_language_breaks_the_answer(case: Case) -> None:
    own = {"ja": '別のアドレスを入力してください。「"\\」', "en": 'Another address, please. "\\'}
    if case.platform == "workos":
        own = {"en": 'Another "address", please. \\'}

    async def main() -> None:
        hook = {**case.hook, "messages": own, "language": "ja"}
        async with hooked(hook, mail=REFUSES) as running:
            response = await running.send(case)
        assert response.status_code < 500
        body = body_of(response)
        if texts(body) and not case.platform.startswith("truemail"):
            assert set(own.values()) & set(texts(body))
        if case.platform == "workos":
            assert response.content.isascii()

    asyncio.run(main())
