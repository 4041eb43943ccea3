"""The surface of signup hooks: what never happens, whatever fails, and what comes again."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Scope

from gate import metrics
from gate.app import create_app
from gate.engine import Engine, open_engine
from gate.hooks.adapter import Adapter
from gate.hooks.registry import ADAPTERS
from gate.settings import Settings
from gate.testing import FakeClock
from tests.api.ground import Gate, gate, site
from tests.hooks.ground import (
    ACCEPTS,
    BY_PLATFORM,
    EVERY,
    NOW,
    PROXY,
    REFUSES,
    SHARED,
    Case,
    Mail,
    configured,
    hooked,
    resigned,
    webhook_headers,
)

GENERIC, SUPABASE, OKTA = (BY_PLATFORM[name] for name in ("generic", "supabase", "okta"))
CANARY = "canary-7f3a"
NAMES = [case.platform.partition("?")[0] for case in EVERY]


def allowed(case: Case, response: httpx.Response) -> bool:
    """Whether the platform goes on."""
    if response.status_code != case.allow["status"]:
        return False
    wanted = case.allow["body"]
    if not response.content:
        return bool(wanted == "")
    body = response.json()
    if "signature" in body:
        return str(body["payload"]["verdict"]) == "Allow"
    if case.platform.startswith("truemail"):
        return bool(body["success"])
    same: bool = body == wanted
    return same


# -- who may ask what ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "problem"),
    [
        ("POST", "/v1/hooks/okta", "not_found"),
        ("POST", "/v1/hooks/", "not_found"),
        ("POST", "/v1/hooks/generic/x", "not_found"),
        ("POST", "/v1/hooks/generic/", None),
        ("GET", "/v1/hooks/generic", "method_not_allowed"),
        ("OPTIONS", "/v1/hooks/generic", "method_not_allowed"),
        ("POST", "/v1/hooks/generic?email=a@b.example", "secret_in_url"),
        ("POST", "/v1/hooks/generic?secret=x", "secret_in_url"),
        ("POST", "/v1/hooks/generic?x=1", None),
    ],
)
def test_paths_and_methods(method: str, path: str, problem: str | None) -> None:
    async def main() -> None:
        async with hooked(GENERIC.hook) as running:
            response = await running.gate.client.request(
                method, path, headers=dict(GENERIC.headers), content=GENERIC.body
            )
        if problem is None:
            assert response.status_code == 200
        else:
            assert response.json()["type"].endswith(f":{problem}")
            assert response.status_code in (400, 404, 405)

    asyncio.run(main())


def test_a_body_is_bounded_and_a_large_one_is_read() -> None:
    def padded(size: int) -> bytes:
        body = b'{"email":"jane@example.com","x":""}'
        return body.replace(b'""', b'"' + b"x" * (size - len(body)) + b'"')

    async def main() -> None:
        async with hooked(GENERIC.hook) as running:
            for size, status in ((65_537, 413), (65_536, 200)):
                body = padded(size)
                headers = resigned(GENERIC, body)
                response = await running.send(GENERIC, body=body, headers=headers)
                assert response.status_code == status

    asyncio.run(main())


def test_what_is_compressed_is_not_believed() -> None:
    async def main() -> None:
        for case in (GENERIC, OKTA):
            async with hooked(case.hook) as running:
                headers = {**case.headers, "content-encoding": "gzip"}
                assert (await running.send(case, headers=headers)).status_code == 401
                headers = {**case.headers, "content-encoding": "identity"}
                assert (await running.send(case, headers=headers)).status_code == 200

    asyncio.run(main())


def test_two_hooks_of_one_platform_have_their_own_sites_and_secrets() -> None:
    strict = site("strict", "pk_strict", "sk_strict" + "x" * 40, policy={"deny": ["example.com"]})
    hooks = [
        {**OKTA.hook, "site": "main"},
        {**OKTA.hook, "name": "strict", "site": "strict", "secrets": ["another secret"]},
    ]

    async def main() -> None:
        config = configured(*hooks, sites=[site(), strict])
        async with hooked(config=config) as running:
            client = running.gate.client
            headers = dict(OKTA.headers)
            response = await client.post("/v1/hooks/okta", content=OKTA.body, headers=headers)
            assert "ALLOW" in response.text
            path = "/v1/hooks/okta/strict"
            response = await client.post(path, content=OKTA.body, headers=headers)
            assert response.status_code == 401
            headers["Authorization"] = "another secret"
            response = await client.post(path, content=OKTA.body, headers=headers)
            assert "DENY" in response.text

    asyncio.run(main())


@pytest.mark.parametrize(
    ("policy", "mode", "blocks"),
    [
        ({}, "enforce", True),
        ({"undeliverable": "warn"}, "enforce", False),
        ({"undeliverable": "allow"}, "enforce", False),
        ({}, "observe", False),
        ({"allow": ["example.com"]}, "enforce", False),
    ],
)
def test_only_a_block_of_the_sites_policy_is_a_refusal(
    policy: dict[str, Any], mode: str, blocks: bool
) -> None:
    async def main() -> None:
        config = configured(OKTA.hook, sites=[site(policy=policy, mode=mode)])
        async with hooked(config=config, mail=REFUSES) as running:
            response = await running.send(OKTA)
            assert allowed(OKTA, response) is not blocks
        (line,) = running.gate.lines()
        assert line["reason"] == "rejected_email"
        assert (line["decision"] == "block") is blocks

    asyncio.run(main())


def test_a_site_that_hides_mailboxes_hides_them_here() -> None:
    async def main() -> None:
        config = configured(OKTA.hook, sites=[site(reveal="domain")])
        async with hooked(config=config, mail=REFUSES) as running:
            response = await running.send(OKTA)
            assert "mailbox does not exist" not in response.text
            assert "cannot be used to sign up" in response.text

    asyncio.run(main())


# -- never a 5xx, never a 429 ----------------------------------------------------------------------


def opener_with(world: Mail, spoil: Callable[[Engine], Engine]) -> Any:
    @asynccontextmanager
    async def opener(settings: Settings) -> AsyncIterator[Engine]:
        async with open_engine(settings, world=world, wall=FakeClock(NOW)) as engine:
            yield spoil(engine)

    return opener


class Broken(Exception):
    """A fault of ours."""

    def __init__(self) -> None:
        super().__init__(f"{CANARY}@example.com")


class Spoilt:
    """Stands for a part of the engine; every call of it does the same wrong thing."""

    def __init__(self, real: Any, names: tuple[str, ...], fault: Callable[[], Awaitable[Any]]):
        self._real, self._names, self._fault = real, names, fault

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            return getattr(self._real, name)
        return lambda *_args, **_more: self._fault()


async def fails() -> None:
    raise Broken


async def hangs() -> None:
    await asyncio.sleep(60)


FAULTS: dict[str, tuple[str, tuple[str, ...], Callable[[], Awaitable[Any]]]] = {
    "the checker fails": ("checker", ("check",), fails),
    "the checker hangs": ("checker", ("check",), hangs),
    "the store fails": ("store", ("get", "claim", "put"), fails),
    "the store hangs": ("store", ("get", "claim"), hangs),
    "the claim hangs": ("store", ("claim",), hangs),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", EVERY, ids=NAMES)
def test_a_fault_of_ours_lets_the_person_in_and_in_time(case: Case, fault: str) -> None:
    part, names, does = FAULTS[fault]

    def spoil(engine: Engine) -> Engine:
        changes: dict[str, Any] = {part: Spoilt(getattr(engine, part), names, does)}
        return replace(engine, **changes)

    async def main() -> None:
        async with Mail(ACCEPTS) as world:
            config = configured({**case.hook, "deadline_ms": 200})
            opener = opener_with(world, spoil)
            async with gate(config, client=PROXY, opener=opener) as running:
                begun = time.monotonic()
                response = await running.client.request(
                    case.method,
                    f"/v1/hooks/{case.platform}",
                    content=case.body,
                    headers=dict(case.headers),
                )
                took = time.monotonic() - begun
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    if "hangs" in repr(task):
                        task.cancel()
            assert allowed(case, response), response.text
            assert took < 0.45
            assert CANARY not in running.written.decode()

    asyncio.run(main())


@pytest.mark.parametrize("method", ["prove", "read", "deny"])
def test_a_fault_in_an_adapter_lets_the_person_in(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Adapter, *_args: object) -> Any:
        raise Broken

    async def main() -> None:
        async with hooked(GENERIC.hook, mail=REFUSES) as running:
            monkeypatch.setattr(ADAPTERS["generic"], method, broken)
            response = await running.send(GENERIC)
            if method == "prove":
                # Nothing was proved, and nothing was asked in vain: it is checked all the same.
                assert response.json()["decision"] == "block"
            else:
                assert allowed(GENERIC, response)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    assert "Broken" in caplog.text
    assert CANARY not in caplog.text


def test_over_the_limit_people_are_let_in_unasked() -> None:
    async def main() -> None:
        config = configured(OKTA.hook, limits={"secret_per_minute": 3})
        async with hooked(config=config, mail=REFUSES) as running:
            answers = [await running.send(OKTA) for _ in range(6)]
        assert [response.status_code for response in answers] == [200] * 6
        assert ["DENY" in response.text for response in answers] == [True] * 3 + [False] * 3
        assert [line["because"] for line in running.gate.lines()][3:] == ["throttled"] * 3

    asyncio.run(main())


def test_a_body_that_takes_its_time_counts_into_the_deadline() -> None:
    """The platform's clock began with the call, not with our reading."""

    async def main() -> None:
        async with Mail("silent") as world:
            config = configured({**OKTA.hook, "deadline_ms": 200})
            app = create_app(config, opener=partial(open_engine, world=world), write=len)
            async with app.open():
                sent: list[Message] = []

                async def receive() -> Message:
                    await asyncio.sleep(0.15)
                    return {"type": "http.request", "body": OKTA.body, "more_body": False}

                async def send(message: Message) -> None:
                    sent.append(message)

                scope: Scope = {
                    "type": "http",
                    "http_version": "1.1",
                    "method": "POST",
                    "path": "/v1/hooks/okta",
                    "query_string": b"",
                    "headers": [(b"host", b"gate"), (b"authorization", b"my-shared-key")],
                    "client": PROXY,
                }
                begun = time.monotonic()
                await app(scope, receive, send)
                assert time.monotonic() - begun < 0.35
                assert sent[0]["status"] == 200
                assert b"ALLOW" in sent[1]["body"]

    asyncio.run(main())


# -- messages that come again ----------------------------------------------------------------------


def test_the_same_message_again_gets_the_same_answer() -> None:
    """And a new message an answer of its own."""

    async def main() -> None:
        async with hooked(GENERIC.hook, mail=REFUSES) as running:
            first = await running.send(GENERIC)
            assert first.json()["decision"] == "block"
            again = await running.send(GENERIC)
            assert again.json() == first.json()
            other = await running.send(GENERIC, headers=webhook_headers(GENERIC.body, message="2"))
            assert other.json() == first.json()
        outcomes = [line["outcome"] for line in running.gate.lines()]
        assert outcomes == ["generic: deny", "generic: repeated", "generic: deny"]

    asyncio.run(main())


@pytest.mark.parametrize("case", EVERY, ids=NAMES)
def test_a_repetition_is_never_an_error(case: Case) -> None:
    async def main() -> None:
        async with hooked(case.hook, mail=REFUSES) as running:
            first = await running.send(case)
            for _ in range(3):
                again = await running.send(case)
                assert (again.status_code, again.content) == (first.status_code, first.content)

    asyncio.run(main())


@pytest.mark.parametrize("stamped", [0.0, 300.0], ids=["now", "as late as may be"])
def test_the_first_answer_outlives_a_restart_and_its_tolerance(
    stamped: float, tmp_path: Path
) -> None:
    """In between the operator lets the domain in: that counts for new messages."""
    store = {"url": f"sqlite:{tmp_path / 'gate.db'}"}
    headers = {**GENERIC.headers, **webhook_headers(GENERIC.body, at=NOW + stamped)}

    async def ask(at: float, sent: dict[str, str], **policy: Any) -> str:
        config = configured(GENERIC.hook, sites=[site(policy=policy)], store=store)
        async with hooked(config=config, mail=REFUSES, wall=FakeClock(at)) as running:
            response = await running.send(GENERIC, headers=sent)
            assert response.status_code == 200, response.text
            return str(response.json()["decision"])

    async def main() -> None:
        assert await ask(NOW, headers) == "block"
        late = NOW + 299 + stamped
        assert await ask(late, headers, allow=["example.com"]) == "block"
        fresh = {**headers, **webhook_headers(GENERIC.body, at=late, message="msg_2")}
        assert await ask(late, fresh, allow=["example.com"]) == "allow"

    asyncio.run(main())


def test_a_hundred_at_once_are_one_answer() -> None:
    """Twins that race: whichever is claimed first is what all of them say."""

    async def main() -> None:
        async with hooked(GENERIC.hook, mail=REFUSES) as running:
            answers = await asyncio.gather(*(running.send(GENERIC) for _ in range(100)))
            assert {response.status_code for response in answers} == {200}
            assert len({response.content for response in answers}) == 1
        outcomes = Counter(line["outcome"] for line in running.gate.lines())
        assert outcomes["generic: deny"] == 1
        assert outcomes["generic: repeated"] == 99

    asyncio.run(main())


def test_one_platforms_message_is_not_anothers() -> None:
    """The same octets and id at two hooks: two answers."""
    hooks = [GENERIC.hook, {**GENERIC.hook, "name": "two", "without_email": "block"}]
    body = b"{}"
    headers = webhook_headers(body)

    async def main() -> None:
        async with hooked(*hooks) as running:
            decisions = [
                (await running.gate.client.post(path, content=body, headers=headers)).json()
                for path in ("/v1/hooks/generic", "/v1/hooks/generic/two")
            ]
        assert [answer["decision"] for answer in decisions] == ["allow", "block"]

    asyncio.run(main())


def test_supabase_asks_anew_with_each_attempt() -> None:
    """A new id is a new message: the second attempt is told what is known by then."""

    async def main() -> None:
        hook = {**SUPABASE.hook, "deadline_ms": 120}
        case = BY_PLATFORM["supabase"]
        body = case.body.replace(b"valid.email@supabase.com", b"slow-400@supabase.com")
        rules = replace(REFUSES, users=("slow",))
        async with hooked(hook, mail=rules) as running:
            first = await running.send(case, body=body, headers=resigned(case, body))
            assert first.json() == {}
            await asyncio.sleep(0.6)
            again = resigned(case, body) | {"webhook-id": "second"}
            again |= webhook_headers(body, message="second")
            second = await running.send(case, body=body, headers=again)
            assert second.status_code == 200
        reasons = [line["reason"] for line in running.gate.lines()]
        assert reasons[0] == "timeout"
        assert reasons[1] != "timeout"

    asyncio.run(main())


# -- logs and metrics ------------------------------------------------------------------------------


def test_nothing_of_a_body_or_a_url_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """Addresses, passwords, names and secrets of every call, and of calls that go wrong."""
    secrets = ("hunter22", "Minnie", "Larissa", "Jane Doe", SHARED, "my-shared-key")

    async def main() -> Gate:
        async with hooked(*(case.hook for case in EVERY), mail=REFUSES) as running:
            for case in EVERY:
                for body in (case.body, case.body[:-1], b""):
                    await running.send(case, body=body)
                    await running.send(case, body=body, headers={})
            for path in ("truemail", "forward", "okta", "nowhere"):
                await running.gate.client.post(
                    f"/v1/hooks/{path}?email={CANARY}@example.com",
                    content=f'{{"email": "{CANARY}@example.com", "password": "hunter22"}}',
                    headers={"authorization": SHARED, "content-type": "application/json"},
                )
        return running.gate

    with caplog.at_level(logging.DEBUG):
        running = asyncio.run(main())
    logged = "".join(r.getMessage() + str(r.exc_info) for r in caplog.records if r.name != "httpx")
    written = running.written.decode() + logged + metrics.render().decode()
    assert running.written.count(b"\n") > 40
    for word in (*secrets, CANARY):
        assert word not in written
    assert not re.search(r"[^\s<>@\"]{1,64}@(?:example|supabase|mouse|ory|foocorp)\.", written)
    for line in running.written.splitlines():
        assert all(0x20 <= octet < 0x7F for octet in line)
        json.loads(line)


def test_each_call_has_its_line() -> None:
    async def main() -> None:
        async with hooked(OKTA.hook, GENERIC.hook, mail=REFUSES) as running:
            await running.send(OKTA)
            await running.send(OKTA, headers={"Authorization": "wrong"})
            await running.send(OKTA, body=b"{}")
            headers = webhook_headers(GENERIC.body, at=NOW - 400)
            await running.send(GENERIC, headers=headers)
        lines = running.gate.lines()
        assert [line["outcome"] for line in lines] == [
            "okta: deny",
            "okta: refused, wrong",
            "okta: no_address",
            "generic: refused, stale",
        ]
        assert {line["key"] for line in lines} == {"hook"}
        assert lines[0]["domain"] == "example.com"
        assert lines[0]["budget_ms"] == 1500

    asyncio.run(main())


def test_metrics_count_by_platform_and_outcome() -> None:
    def count(outcome: str) -> float:
        sample = metrics.REGISTRY.get_sample_value(
            "gate_hooks_total", {"platform": "okta", "outcome": outcome}
        )
        return sample or 0.0

    before = {outcome: count(outcome) for outcome in ("allow", "refused", "no_address")}

    async def main() -> None:
        async with hooked(OKTA.hook) as running:
            await running.send(OKTA)
            await running.send(OKTA, headers={})
            await running.send(OKTA, body=b"[]")

    asyncio.run(main())
    assert {outcome: count(outcome) - had for outcome, had in before.items()} == {
        "allow": 1,
        "refused": 1,
        "no_address": 1,
    }


def test_an_answer_is_for_nobody_else() -> None:
    async def main() -> None:
        async with hooked(OKTA.hook) as running:
            response = await running.send(OKTA)
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in response.headers

    asyncio.run(main())
