"""The one line of each decision: when, what it holds, and what it never holds."""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Any

import pytest

from gate import metrics
from gate.api.journal import FIELDS
from tests.api.ground import BEARER, OTHER_BEARER, SITEKEY, Gate, gate, settings, site

CANARY = "canary-7f3a"
EVIL = 'evil\n{"level":"x"}\x1b[31m\u2028@c.test'


async def lines_of(*asked: Any, config: Any = None) -> list[dict[str, Any]]:
    """What is written for these calls, in order."""
    async with gate(config) as running:
        for ask in asked:
            await ask(running)
    return running.lines()


def test_the_fields() -> None:
    (line,) = asyncio.run(lines_of(lambda gate: gate.check("jane@inbox.test")))
    assert tuple(line) == FIELDS
    varying = ("ts", "request", "check", "address", "duration_ms")
    assert {name: value for name, value in line.items() if name not in varying} == {
        "site": "main",
        "key": "secret",
        "domain": "inbox.test",
        "result": "deliverable",
        "reason": "accepted_email",
        "decision": "allow",
        "because": "accepted_email",
        "would_be": "allow",
        "final": True,
        "remembered": False,
        "outcome": None,
        "budget_ms": 800,
        "event": "decision",
    }
    assert len(line["address"]) == 32
    assert 0 < line["duration_ms"] < 800


def test_the_line_can_be_found_from_the_answer() -> None:
    answers: list[Any] = []

    async def ask(running: Gate) -> None:
        response = await running.check("jane@inbox.test")
        answers.append((response.json()["id"], response.headers["x-request-id"]))

    (line,) = asyncio.run(lines_of(ask))
    assert answers == [(line["check"], line["request"])]


def test_every_path_writes_exactly_one() -> None:
    async def asks(running: Gate) -> None:
        await running.check("jane@inbox.test")
        await running.check("jane@inbox.test")
        await running.check("nonsense")
        await running.check("slow-900@inbox.test", timeout_ms=60)
        page = await running.page("nobody@inbox.test")
        await running.page("jane@inbox.test")
        await running.page("jane@inbox.test")
        await running.page("jane@inbox.test", sitekey="pk_test_always_allow")
        await running.siteverify(response=page.json()["token"])
        await running.siteverify(response="forged")
        await running.siteverify(email="jane@inbox.test")
        # no decisions
        await running.check("x", unknown=1)
        await running.client.get("/healthz")
        await running.siteverify(secret="sk_unknown", response="x")
        await running.client.post("/v1/prefetch", json={"domain": "x.test"}, headers=BEARER)

    lines = asyncio.run(lines_of(asks, config=settings(limits={"client_per_minute": 2})))
    assert [
        (line["key"], line["reason"], line["remembered"], line["outcome"]) for line in lines
    ] == [
        ("secret", "accepted_email", False, None),
        ("secret", "accepted_email", True, None),
        ("secret", "invalid_email", False, None),
        ("secret", "timeout", False, None),
        ("public", "rejected_email", False, None),
        ("public", "accepted_email", True, None),
        ("public", "throttled", False, None),
        ("public", "throttled", False, None),
        ("siteverify", "rejected_email", False, "email-rejected"),
        ("siteverify", None, None, "invalid-input-response"),
        ("siteverify", "accepted_email", True, "success"),
    ]
    assert len({line["request"] for line in lines}) == len(lines)


def test_what_a_page_was_told_and_what_the_policy_says() -> None:
    (hidden,) = asyncio.run(
        lines_of(
            lambda gate: gate.page("nobody@inbox.test"), config=settings([site(reveal="domain")])
        )
    )
    assert (hidden["reason"], hidden["decision"], hidden["would_be"]) == (
        "rejected_email",
        "allow",
        "block",
    )
    (observed,) = asyncio.run(
        lines_of(
            lambda gate: gate.check("nobody@inbox.test"), config=settings([site(mode="observe")])
        )
    )
    assert (observed["decision"], observed["would_be"]) == ("allow", "block")


def test_the_hash_is_the_sites_own() -> None:
    async def asks(running: Gate) -> None:
        await running.check("jane@inbox.test")
        await running.check("Jane@inbox.test")
        await running.check("jane@INBOX.TEST")
        await running.client.post(
            "/v1/check", json={"email": "jane@inbox.test"}, headers=OTHER_BEARER
        )

    one, case, same, other = (line["address"] for line in asyncio.run(lines_of(asks)))
    assert one == same
    assert len({one, case, other}) == 3


@pytest.mark.parametrize("name", ["main", "Müller & Söhne", 'a"b\\c\x7f\u2028'])
def test_lines_are_printable_ascii_whatever_is_typed(name: str) -> None:
    async def main() -> bytes:
        async with gate(settings([site(name)])) as running:
            for email in (EVIL, f"{EVIL}@inbox.test", "jé@exämple.test", f"{CANARY}@inbox.test"):
                await running.check(email)
                await running.page(email)
                await running.siteverify(email=email)
                headers = {"user-agent": EVIL.encode(), "referer": EVIL.encode()}
                await running.client.post(
                    "/v1/check",
                    json={"email": email, "sitekey": SITEKEY, "cdata": EVIL[:32]},
                    headers=[(k.encode(), v.replace(b"\n", b" ")) for k, v in headers.items()],
                )
        return bytes(running.written)

    written = asyncio.run(main())
    lines = written.splitlines()
    assert len(lines) == 16
    assert all(0x20 <= octet <= 0x7E or octet == 0x0A for octet in written)
    assert {json.loads(line)["site"] for line in lines} == {name}
    assert b"evil" not in written
    assert CANARY.encode() not in written


def test_nothing_else_says_an_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    async def main() -> None:
        async with gate() as running:
            for local in (CANARY, f"slow-100-{CANARY}"):
                for domain in ("inbox.test", "garbage.test", "nxdomain.test", "closed.test"):
                    await running.check(f"{local}@{domain}", explain=True)

    asyncio.run(main())
    ours = [record for record in caplog.records if record.name.startswith("gate")]
    assert CANARY not in "".join(record.getMessage() for record in ours)
    assert CANARY not in metrics.render().decode()


def test_decisions_are_counted() -> None:
    def counted() -> float:
        labels = {
            "result": "undeliverable",
            "reason": "rejected_email",
            "decision": "block",
            "key": "public",
        }
        return metrics.REGISTRY.get_sample_value("gate_decisions_total", labels) or 0.0

    before = counted()
    asyncio.run(lines_of(lambda gate: gate.page("nobody@inbox.test")))
    assert counted() == before + 1


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    def lost() -> float:
        return metrics.REGISTRY.get_sample_value("gate_log_lines_lost_total") or 0.0

    before = lost()

    def full(text: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        async with gate(write=full) as running:
            assert (await running.check("jane@inbox.test")).status_code == 200

    asyncio.run(main())
    assert lost() == before + 1
