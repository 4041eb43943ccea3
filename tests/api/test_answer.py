"""What an answer looks like: whole for a server, trimmed for a browser."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import msgspec
import pytest

from gate.api.answer import COARSE, MESSAGES
from gate.reason import VERDICT_OF, Reason
from gate.sandbox import EXAMPLES
from gate.token import Claims
from tests.api.ground import SECRET, SITEKEY, Gate, gate, settings, site

FULL = (
    "id email normalized user domain result reason final decision because did_you_mean disposable "
    "relay role free subaddress accept_all mailbox_full mx_record smtp_provider checks smtp cached "
    "retry_after duration_ms budget_ms token token_expires_in"
).split()
TRIMMED = "decision reason did_you_mean message final token token_expires_in".split()


def without(answer: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in names}


def claims_in(token: str) -> Claims:
    """What anybody can read in a token."""
    payload = token.split(".")[2]
    return msgspec.msgpack.decode(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Claims
    )


def test_the_whole_answer() -> None:
    async def main() -> None:
        async with gate() as running:
            answer = (await running.check("Jane+News@INBOX.test", timeout_ms=900)).json()
        assert list(answer) == FULL
        assert answer["id"].startswith("chk_")
        assert answer["token"].startswith("v1.")
        assert 0 <= answer["duration_ms"] <= 900
        assert without(answer, "id", "token", "duration_ms", "smtp") == {
            "email": "Jane+News@INBOX.test",
            "normalized": "Jane+News@inbox.test",
            "user": "Jane+News",
            "domain": "inbox.test",
            "result": "deliverable",
            "reason": "accepted_email",
            "final": True,
            "decision": "allow",
            "because": "accepted_email",
            "did_you_mean": None,
            "disposable": False,
            "relay": False,
            "role": False,
            "free": None,
            "subaddress": True,
            "accept_all": False,
            "mailbox_full": False,
            "mx_record": "mx.inbox.test",
            "smtp_provider": None,
            "checks": {
                "syntax": "pass",
                "domain": "pass",
                "mx": "pass",
                "smtp": "pass",
                "accept_all": "pass",
            },
            "cached": {"mx": None, "accept_all": None, "mailbox": None},
            "retry_after": None,
            "budget_ms": 900,
            "token_expires_in": 300,
        }
        assert (answer["smtp"]["stage"], answer["smtp"]["code"]) == ("rcpt", 250)

    asyncio.run(main())


def test_a_remembered_answer_says_how_old_it_is() -> None:
    async def main() -> None:
        async with gate() as running:
            first = (await running.check("jane@inbox.test")).json()
            again = (await running.check("jane@inbox.test")).json()
        assert again["cached"] == {"mx": 0, "accept_all": 0, "mailbox": 0}
        assert first["id"] != again["id"]
        assert first["token"] != again["token"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("email", "detail", "position"),
    [("", "empty", 0), ("jane", "no_at", 4), ("jane doe@inbox.test", "local_part", 4)],
)
def test_a_bad_address_is_a_verdict_with_a_place(email: str, detail: str, position: int) -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.check(email)
        answer = response.json()
        assert response.status_code == 200
        assert list(answer) == [*FULL, "detail", "position"]
        assert (answer["detail"], answer["position"]) == (detail, position)
        assert (answer["result"], answer["reason"]) == ("undeliverable", "invalid_email")
        unknown = "normalized user domain disposable relay role free subaddress token".split()
        assert {answer[name] for name in unknown} == {None}

    asyncio.run(main())


def test_explain_adds_trace_and_transcript_and_no_address() -> None:
    async def main() -> None:
        async with gate() as running:
            answer = (await running.check("jane@inbox.test", explain=True)).json()
        assert list(answer) == [*FULL, "trace", "transcript"]
        assert [set(step) for step in answer["trace"]] == [{"at_ms", "step", "detail"}] * len(
            answer["trace"]
        )
        assert any(line.startswith("C: RCPT TO:") for line in answer["transcript"])
        assert "jane" not in str(answer["trace"]) + str(answer["transcript"])

    asyncio.run(main())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.address)
def test_a_browser_learns_little(example: Any) -> None:
    async def main() -> None:
        async with gate(settings(probe={"budget_ms": 60})) as running:
            response = await running.page(example.address)
        answer = response.json()
        assert list(answer) == TRIMMED
        assert answer["reason"] in COARSE
        assert (answer["message"] is None) == (answer["decision"] == "allow")
        assert "x-request-id" not in response.headers
        assert "server-timing" not in response.headers
        if answer["token"]:
            seen = claims_in(answer["token"])
            assert (seen.reason, seen.decision) == (answer["reason"], answer["decision"])

    asyncio.run(main())


@pytest.mark.parametrize("name", COARSE)
def test_what_a_browser_may_be_told_has_a_text_or_is_no_trouble(name: str) -> None:
    harmless = {"accepted_email", "unconfirmed", "timeout", "throttled"}
    assert (name in MESSAGES) != (name in harmless)


@pytest.mark.parametrize(
    ("email", "coarse", "decision"),
    [
        ("jane@inbox.test", "accepted_email", "allow"),
        ("anyone@catchall.test", "accepted_email", "allow"),
        ("nobody@inbox.test", "rejected_email", "block"),
        ("disabled@inbox.test", "rejected_email", "block"),
        ("full@inbox.test", "mailbox_full", "warn"),
        ("jane@nxdomain.test", "invalid_domain", "block"),
        ("jane@null-mx.test", "invalid_domain", "block"),
        ("jane@no-mx.test", "invalid_domain", "block"),
        ("jane@blocked.test", "unconfirmed", "allow"),
        ("greylisted@grey.test", "unconfirmed", "allow"),
        ("jane@throwaway.test", "disposable", "block"),
        ("jane@gmial.com", "possible_typo", "warn"),
        ("info@inbox.test", "accepted_email", "allow"),
    ],
)
def test_coarse_reasons(email: str, coarse: str, decision: str) -> None:
    async def main() -> None:
        async with gate() as running:
            answer = (await running.page(email)).json()
        assert (answer["reason"], answer["decision"]) == (coarse, decision)

    asyncio.run(main())


def test_a_flag_speaks_where_the_policy_lets_it() -> None:
    async def main() -> None:
        strict = site(policy={"role": "warn", "deny": ["john@inbox.test"]})
        async with gate(settings([strict])) as running:
            role = (await running.page("info@inbox.test")).json()
            denied = (await running.page("john@inbox.test")).json()
        assert (role["reason"], role["decision"]) == ("role", "warn")
        assert (denied["reason"], denied["decision"]) == ("blocked_by_rule", "block")

    asyncio.run(main())


def test_observe_lets_everybody_in() -> None:
    async def main() -> None:
        async with gate(settings([site(mode="observe")])) as running:
            answer = (await running.page("nobody@inbox.test")).json()
            whole = (await running.check("nobody@inbox.test")).json()
        assert (answer["decision"], answer["message"]) == ("allow", None)
        assert (whole["decision"], whole["reason"]) == ("allow", "rejected_email")

    asyncio.run(main())


# -- reveal = "domain" -----------------------------------------------------------------------------

HIDDEN = ("jane", "nobody", "disabled", "full", "deferred", "maybe", "slow-500")


async def seen_by_a_page(running: Gate, email: str) -> tuple[Any, ...]:
    """All that a script can compare, but for what differs from call to call by design."""
    response: httpx.Response = await running.page(email)
    answer = response.json()
    token = answer.pop("token")
    said = claims_in(token)
    return (
        response.status_code,
        response.headers.multi_items(),
        answer,
        len(token),
        (said.result, said.reason, said.decision, said.hostname, said.env),
    )


def test_with_reveal_domain_a_missing_mailbox_looks_like_any_other() -> None:
    async def main() -> None:
        config = settings([site(reveal="domain")], probe={"budget_ms": 250})
        async with gate(config) as running:
            seen = [await seen_by_a_page(running, f"{local}@inbox.test") for local in HIDDEN]
            again = [await seen_by_a_page(running, f"{local}@inbox.test") for local in HIDDEN]
        assert all(other == seen[0] for other in seen + again)
        assert seen[0][2] == {
            "decision": "allow",
            "reason": "unconfirmed",
            "did_you_mean": None,
            "message": None,
            "final": True,
            "token_expires_in": 300,
        }

    asyncio.run(main())


def test_with_reveal_domain_siteverify_knows_better() -> None:
    async def main() -> None:
        async with gate(settings([site(reveal="domain")])) as running:
            token = (await running.page("nobody@inbox.test")).json()["token"]
            answer = await running.siteverify(response=token)
        assert (answer["success"], answer["reason"]) == (False, "rejected_email")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("email", "reason", "decision"),
    [
        ("jane@nxdomain.test", "invalid_domain", "block"),
        ("jane@null-mx.test", "invalid_domain", "block"),
        ("jane@@inbox.test", "invalid_email", "block"),
        ("jane@gmial.com", "possible_typo", "warn"),
        ("jane@throwaway.test", "disposable", "block"),
        ("john@inbox.test", "blocked_by_rule", "block"),
        ("anyone@catchall.test", "unconfirmed", "allow"),
    ],
)
def test_with_reveal_domain_a_page_still_learns_what_is_public(
    email: str, reason: str, decision: str
) -> None:
    async def main() -> None:
        config = settings([site(reveal="domain", policy={"deny": ["john@inbox.test"]})])
        async with gate(config) as running:
            answer = (await running.page(email)).json()
        assert (answer["reason"], answer["decision"]) == (reason, decision)

    asyncio.run(main())


def test_coarse_reasons_are_few_and_known() -> None:
    assert len(COARSE) < len(Reason) / 1.5
    assert set(COARSE) & set(VERDICT_OF) >= {"accepted_email", "rejected_email", "invalid_domain"}


def test_keys_are_never_in_an_answer() -> None:
    async def main() -> None:
        async with gate() as running:
            for response in (
                await running.check("jane@inbox.test"),
                await running.page("jane@inbox.test"),
            ):
                assert SECRET not in response.text
                assert SITEKEY not in response.text

    asyncio.run(main())
