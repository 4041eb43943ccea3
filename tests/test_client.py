"""The Python client against a real gate, and against everything that can stand in its place."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gate.api.answer import FullAnswer
from gate.api.siteverify import SiteverifyAnswer as ServedSiteverify
from gate.client import AsyncGate, CheckAnswer, Gate, GateUnavailable, SiteverifyAnswer
from gate.reason import Choice, GateError, Reason, Result
from gate.sandbox import EXAMPLES
from gate.server import Bound
from tests.api.ground import SECRET
from tests.badgate import HANG_UP, SILENT, bad_gate, http
from tests.ports import closed_url
from tests.test_server import OUTLIVED, config, serving

JANE = "jane.private@inbox.test"
SLOW = itertools.count(300)
WHOLE = {"decision": "block", "result": "undeliverable", "reason": "rejected_email", "id": "chk_1"}


@pytest.fixture(scope="module")
def bound() -> Iterator[Bound]:
    with serving(config(limits={"client_per_minute": 3, **OUTLIVED})) as running:
        yield running


@pytest.fixture(scope="module")
def url(bound: Bound) -> str:
    return f"http://127.0.0.1:{bound.port}"


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call one method of a fresh client of either kind: `ask(url, "check", email, …)`."""

    def sync(url: str, method: str, *args: Any, **more: Any) -> Any:
        options = {key: more.pop(key) for key in ("secret", "on_failure") if key in more}
        with Gate(url, options.pop("secret", SECRET), **options) as gate:
            return getattr(gate, method)(*args, **more)

    def through_asyncio(url: str, method: str, *args: Any, **more: Any) -> Any:
        options = {key: more.pop(key) for key in ("secret", "on_failure") if key in more}

        async def main() -> Any:
            async with AsyncGate(url, options.pop("secret", SECRET), **options) as gate:
                return await getattr(gate, method)(*args, **more)

        return asyncio.run(main())

    return sync if request.param == "sync" else through_asyncio


Ask = Callable[..., Any]


# -- a gate that works ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accepted_email", "rejected_email", "mailbox_full", "no_mx"])
def test_a_check_tells_what_the_gate_found(ask: Ask, url: str, name: str) -> None:
    example = next(example for example in EXAMPLES if example.reason == name)
    answer = ask(url, "check", example.address)
    assert answer.reason == Reason(name)
    assert answer.email == example.address
    assert not answer.failed_open and answer.final
    assert answer.id.startswith("chk_") and answer.token.startswith("v1.")
    assert answer.allowed == (answer.decision is not Choice.BLOCK)


def test_facts_are_true_false_or_none(ask: Ask, url: str) -> None:
    answer = ask(url, "check", "info+news@catchall.test")
    assert (answer.role, answer.accept_all, answer.free) == (True, True, None)
    assert answer.mx_record == "mx.catchall.test"
    assert answer.checks["syntax"] == "pass"


def test_a_slip_is_suggested(ask: Ask, url: str) -> None:
    answer = ask(url, "check", "jane@gmial.com")
    assert (answer.decision, answer.did_you_mean) == (Choice.WARN, "jane@gmail.com")


@pytest.mark.may_leak  # the gate goes on asking, in a thread of this process
def test_the_gate_answers_within_the_callers_timeout(ask: Ask, url: str) -> None:
    before = time.monotonic()
    answer = ask(url, "check", "slow-900@secure.test", timeout=0.4)
    assert time.monotonic() - before < 0.6
    assert (answer.reason, answer.failed_open) == (Reason.TIMEOUT, False)
    assert not answer.final and answer.id


@pytest.mark.may_leak
def test_a_late_verdict_is_found_by_its_id(ask: Ask, url: str) -> None:
    first = ask(url, "check", f"slow-{next(SLOW)}@inbox.test", timeout=0.2)
    assert first.reason == Reason.TIMEOUT
    until = time.monotonic() + 5
    while (found := ask(url, "find", first.id)).reason == Reason.TIMEOUT:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert found.reason == Reason.ACCEPTED_EMAIL


@pytest.mark.parametrize("name", ["", "chk_" + "0" * 32, "../check", "jane@inbox.test", "a?b=c"])
def test_what_is_no_check_is_not_found(ask: Ask, url: str, name: str) -> None:
    assert ask(url, "find", name) is None


def test_a_token_is_verified_once(ask: Ask, url: str) -> None:
    checked = ask(url, "check", "jane@inbox.test")
    first = ask(url, "siteverify", checked.token, email="jane@inbox.test")
    assert (first.success, first.reason) == (True, Reason.ACCEPTED_EMAIL)
    assert first.decision is Choice.ALLOW and first.result is Result.DELIVERABLE
    second = ask(url, "siteverify", checked.token)
    assert (second.success, second.error_codes) == (False, ("timeout-or-duplicate",))


def test_without_a_token_the_address_is_checked(ask: Ask, url: str) -> None:
    answer = ask(url, "siteverify", "", email="nobody@inbox.test")
    assert (answer.success, answer.error_codes) == (False, ("email-rejected",))
    assert answer.decision is Choice.BLOCK


@pytest.mark.parametrize("token", ["v1.a.b.c", "no token", "ü", "x" * 100_000])
def test_a_forged_token_fails_and_opens_nothing(ask: Ask, url: str, token: str) -> None:
    answer = ask(url, "siteverify", token)
    assert (answer.success, answer.error_codes) == (False, ("invalid-input-response",))
    assert not answer.failed_open


@pytest.mark.parametrize(
    "email",
    ["", "jane", "x" * 100_000, "ü" * 50_000 + "@inbox.test", "a\ud800b@inbox.test", "a\0@b.test"],
    ids=["empty", "no at", "long", "long beyond ASCII", "surrogate", "control"],
)
def test_what_is_no_address_is_blocked_and_opens_nothing(ask: Ask, url: str, email: str) -> None:
    answer = ask(url, "check", email)
    assert (answer.reason, answer.decision) == (Reason.INVALID_EMAIL, Choice.BLOCK)
    assert answer.email == email
    verified = ask(url, "siteverify", "", email=email) if email else None
    assert verified is None or not verified.success


@pytest.mark.parametrize("remoteip", ["nonsense", "fe80::1%eth0", "1.2.3.4, 5.6.7.8", ""])
def test_an_odd_client_address_is_left_out(ask: Ask, url: str, remoteip: str) -> None:
    answer = ask(url, "check", "nobody@inbox.test", remoteip=remoteip)
    assert answer.decision is Choice.BLOCK


def test_over_a_limit_the_person_is_let_in(ask: Ask, url: str, request: Any) -> None:
    remoteip = "192.0.2.1" if "async" in request.node.name else "192.0.2.2"
    answers = [ask(url, "check", "nobody@inbox.test", remoteip=remoteip) for _ in range(4)]
    assert [answer.decision for answer in answers] == ["block"] * 3 + ["allow"]
    assert (answers[3].reason, answers[3].failed_open) == (Reason.THROTTLED, True)


def test_a_wrong_key_lets_in_and_is_logged(
    ask: Ask, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(url, "check", JANE, secret="sk_wrong")
    assert answer.failed_open and answer.allowed
    verified = ask(url, "siteverify", "", email=JANE, secret="sk_wrong")
    assert verified.failed_open and verified.success
    assert "status 401: The key is not known" in caplog.text
    assert "siteverify answered invalid-input-secret" in caplog.text


def test_the_connection_is_kept(url: str) -> None:
    ports = []

    class Noting(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            stream = response.extensions["network_stream"]
            ports.append(stream.get_extra_info("client_addr"))
            return response

    with httpx.Client(transport=Noting()) as http, Gate(url, SECRET, http=http) as gate:
        for _ in range(5):
            assert gate.check("jane@inbox.test").allowed
        gate.close()
        assert gate.check("jane@inbox.test").reason == Reason.ACCEPTED_EMAIL
    assert len(ports) == 6 and len(set(ports)) == 1


def test_many_tasks_share_one_client(url: str) -> None:
    async def main() -> list[CheckAnswer]:
        async with AsyncGate(url, SECRET) as gate:
            return await asyncio.gather(*(gate.check("nobody@inbox.test") for _ in range(50)))

    assert {answer.decision for answer in asyncio.run(main())} == {Choice.BLOCK}


# -- no gate at all -------------------------------------------------------------------------------

BAD: dict[str, tuple[Any, Reason]] = {
    "silent": (SILENT, Reason.TIMEOUT),
    "hangs up": (HANG_UP, Reason.UNEXPECTED_ERROR),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", Reason.UNEXPECTED_ERROR),
    "half a body": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        Reason.UNEXPECTED_ERROR,
    ),
    "drips a body": (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", *[b" "] * 500),
        Reason.TIMEOUT,
    ),
    "endless": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b" " * 900_000,
        Reason.UNEXPECTED_ERROR,
    ),
    "no HTTP": (b"220 mx.example.test ESMTP\r\n", Reason.UNEXPECTED_ERROR),
    "a page": (http(200, b"<html>", "text/html"), Reason.UNEXPECTED_ERROR),
    "empty": (http(200, b""), Reason.UNEXPECTED_ERROR),
    "a list": (http(200, b"[]"), Reason.UNEXPECTED_ERROR),
    "deep": (http(200, b"[" * 100_000), Reason.UNEXPECTED_ERROR),
    "not UTF-8": (http(200, b'{"decision":"\xff"}'), Reason.UNEXPECTED_ERROR),
    "no decision": (http(200, b'{"result":"undeliverable"}'), Reason.UNEXPECTED_ERROR),
    "odd fact": (http(200, b'{"decision":"block","role":3}'), Reason.UNEXPECTED_ERROR),
    "fault": (http(500, b'{"decision":"block"}'), Reason.UNEXPECTED_ERROR),
    "redirect": (
        http(307, b"").replace(b"\r\n\r\n", b"\r\nLocation: http://127.0.0.1:9/\r\n\r\n"),
        Reason.UNEXPECTED_ERROR,
    ),
    "full": (http(429, b"{}"), Reason.THROTTLED),
}


# asyncio ends the generators of an answer that was not read to its end a moment later.
LEAVES = {"endless": pytest.mark.may_leak}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [pytest.param(*row, marks=LEAVES.get(name, ()), id=name) for name, row in BAD.items()],
)
def test_what_is_no_answer_lets_the_person_in(ask: Ask, answer: Any, reason: Reason) -> None:
    with bad_gate(answer) as bad:
        before = time.monotonic()
        told = ask(bad.url, "check", JANE, timeout=0.3)
        assert time.monotonic() - before < 0.9
    assert (told.decision, told.result, told.reason) == (Choice.ALLOW, Result.UNKNOWN, reason)
    assert told.failed_open and told.allowed and not told.final
    assert told.email == JANE


def test_asyncio_ends_on_time_however_slowly_the_head_comes() -> None:
    async def main(url: str) -> CheckAnswer:
        async with AsyncGate(url, SECRET) as gate:
            return await gate.check(JANE, timeout=0.3)

    with bad_gate((b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 500)) as bad:
        before = time.monotonic()
        assert asyncio.run(main(bad.url)).reason == Reason.TIMEOUT
        assert time.monotonic() - before < 0.6


@pytest.mark.parametrize("name", ["silent", "hangs up", "a page", "fault", "full"])
def test_siteverify_lets_in_as_well(ask: Ask, name: str) -> None:
    with bad_gate(BAD[name][0]) as bad:
        told = ask(bad.url, "siteverify", "v1.a.b.c", email=JANE, timeout=0.3)
    assert told == SiteverifyAnswer(
        success=True,
        decision=Choice.ALLOW,
        result=Result.UNKNOWN,
        reason=BAD[name][1].value,
        failed_open=True,
    )


def test_a_fault_of_the_gate_itself_is_not_the_persons(ask: Ask) -> None:
    with bad_gate(http(200, b'{"success":false,"error-codes":["internal-error"]}')) as bad:
        assert ask(bad.url, "siteverify", "v1.a.b.c").failed_open


def test_a_gate_that_is_down_lets_in(ask: Ask) -> None:
    told = ask(closed_url(), "check", JANE)
    assert (told.reason, told.failed_open) == (Reason.UNEXPECTED_ERROR, True)
    found = ask(closed_url(), "find", "chk_1")
    assert found.failed_open


@pytest.mark.parametrize("name", ["silent", "hangs up", "fault", "full", "a page"])
@pytest.mark.parametrize("method", ["check", "siteverify"])
def test_it_raises_when_told_to(ask: Ask, name: str, method: str) -> None:
    with bad_gate(BAD[name][0]) as bad, pytest.raises(GateUnavailable) as raised:
        args = (JANE,) if method == "check" else ("v1.token",)
        ask(bad.url, method, *args, timeout=0.3, on_failure="raise")
    assert raised.value.reason == BAD[name][1]
    assert isinstance(raised.value, GateError)
    # Nothing that is reported with the exception holds the call: no cause, no context, no text.
    assert raised.value.__cause__ is None and raised.value.__context__ is None
    assert "private" not in str(raised.value) and SECRET not in str(raised.value)


def test_no_log_line_or_repr_or_url_holds_an_address(
    ask: Ask, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    checked = ask(url, "check", JANE)
    shown = [repr(checked), str(checked)]
    shown.append(repr(ask(url, "siteverify", "", email=JANE)))
    echo = http(400, json.dumps({"title": f"what is {JANE}?"}).encode())
    with bad_gate(echo) as bad:
        shown.append(repr(ask(bad.url, "check", JANE)))
        assert JANE.encode() not in bad.requests[0].partition(b"\r\n")[0]
    assert "private" not in caplog.text.replace("\\", "") + " ".join(shown)
    assert SECRET not in caplog.text


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(ask: Ask) -> None:
    with bad_gate(HANG_UP, http(200, json.dumps(WHOLE).encode())) as bad:
        told = ask(bad.url, "check", JANE)
        assert told.decision is Choice.BLOCK and len(bad.requests) == 2


def test_a_verification_made_again_carries_the_same_key(ask: Ask) -> None:
    with bad_gate(HANG_UP, http(200, b'{"success":true}')) as bad:
        assert not ask(bad.url, "siteverify", "v1.a").failed_open
        keys = [json.loads(sent.rpartition(b"\r\n\r\n")[2]) for sent in bad.requests]
    assert keys[0]["idempotency_key"] == keys[1]["idempotency_key"]


# -- newer gates, and misuse ----------------------------------------------------------------------


def test_what_a_newer_gate_says_is_borne(ask: Ask) -> None:
    newer = WHOLE | {"result": "quarantined", "reason": "moon_phase", "horoscope": {"a": [1]}}
    with bad_gate(http(200, json.dumps(newer).encode())) as bad:
        told = ask(bad.url, "check", JANE)
    assert (told.result, told.reason, told.decision) == (Result.UNKNOWN, "moon_phase", Choice.BLOCK)
    assert not told.failed_open
    with bad_gate(http(200, json.dumps(WHOLE | {"decision": "ponder"}).encode())) as bad:
        assert ask(bad.url, "check", JANE).decision is Choice.ALLOW


@pytest.mark.parametrize("decision", ["unheard-of", 3, None])
def test_what_a_newer_siteverify_says_is_borne(ask: Ask, decision: object) -> None:
    body = {"success": True, "error-codes": ["new"], "decision": decision, "more": 1}
    with bad_gate(http(200, json.dumps(body).encode())) as bad:
        told = ask(bad.url, "siteverify", "v1.a")
    assert told.success and told.error_codes == ("new",)
    assert told.decision is (None if decision is None else Choice.ALLOW)


def test_the_types_know_every_field_of_the_api() -> None:
    served = set(FullAnswer.__struct_encode_fields__)
    explained = {"smtp", "cached", "budget_ms", "detail", "position", "trace", "transcript"}
    assert served - explained == set(CheckAnswer.__struct_encode_fields__) - {"failed_open"}
    own = set(SiteverifyAnswer.__struct_encode_fields__) - {"failed_open"}
    assert set(ServedSiteverify.__struct_encode_fields__) == own


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("gate.example.com", SECRET),
        ("ftp://gate.example.com", SECRET),
        ("https://gate.example.com/?secret=1", SECRET),
        ("https://gate.example.com", ""),
        ("https://gate.example.com", "pk_test_always_allow"),
        ("https://gate.example.com", "sk_ü"),
    ],
)
@pytest.mark.parametrize("kind", [Gate, AsyncGate])
def test_what_cannot_be_a_gate_or_a_key_is_refused(
    kind: type[Gate | AsyncGate], url: str, secret: str
) -> None:
    with pytest.raises(GateError):
        kind(url, secret)


def test_a_closed_client_lets_in(url: str) -> None:
    gate = Gate(url, SECRET)
    gate.close()
    assert gate.check(JANE).failed_open
