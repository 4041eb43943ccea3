"""The middleware in front of real Starlette and FastAPI applications, asking a real engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import fastapi
import httpx
import pydantic
import pytest
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gate.client import AsyncGate, CheckAnswer
from gate.middleware import BODY_MOST, LocalGate, SignupGate
from gate.middleware.body import values_of
from gate.reason import Choice, GateError, Reason
from gate.server import Bound
from tests.api.ground import OTHER, SECRET, settings, site
from tests.badgate import HANG_UP, SILENT, bad_gate
from tests.test_server import OUTLIVED, config, serving

GOOD, BAD, SLIP = "jane@inbox.test", "nobody@inbox.test", "jane@gmial.com"
BOUNDARY = "----a"


# -- the applications -----------------------------------------------------------------------------


async def signup(request: Request) -> JSONResponse:
    """A route that says what it was sent, and by what the gate was sure."""
    body = await request.body()
    answer = getattr(request.state, "signup_gate", None)
    form: dict[str, Any] = {}
    if "form" in request.headers.get("content-type", ""):
        async with request.form() as fields:
            for name, value in fields.multi_items():
                form[name] = value.size if isinstance(value, UploadFile) else value
    return JSONResponse(
        {
            "digest": hashlib.sha256(body).hexdigest(),
            "form": form,
            "gate": answer and [answer.decision, answer.reason, answer.did_you_mean],
        }
    )


ROUTES = [Route("/signup", signup, methods=["GET", "POST", "PUT"]), Route("/other", signup)]


def starlette_app(**options: Any) -> Starlette:
    options = {"gate": local(), "path": "/signup", **options}
    return Starlette(routes=ROUTES, middleware=[Middleware(SignupGate, **options)])


class Person(pydantic.BaseModel):
    email: str
    name: str = ""


def fastapi_app(**options: Any) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    options = {"gate": local(), "path": ["/json", "/form"], **options}
    app.add_middleware(SignupGate, **options)

    @app.post("/json")
    async def take_json(person: Person) -> dict[str, str]:
        return {"made": person.email}

    @app.post("/form")
    async def take_form(
        email: Annotated[str, fastapi.Form()], photo: fastapi.UploadFile | None = None
    ) -> dict[str, Any]:
        return {"made": email, "photo": photo.size if photo else None}

    return app


def local(**tables: Any) -> LocalGate:
    return LocalGate(settings([site()], **tables))


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """The application between its lifespan's start and end, and a client for it."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def live() -> None:
        await app(scope, to_app.get, from_app.put)

    task = asyncio.create_task(live())
    await to_app.put({"type": "lifespan.startup"})
    started = await from_app.get()
    if started["type"] != "lifespan.startup.complete":
        await task
        raise GateError(started["message"])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://shop.example.com"
    ) as client:
        yield client
    await to_app.put({"type": "lifespan.shutdown"})
    stopped = await from_app.get()
    assert stopped["type"] == "lifespan.shutdown.complete"
    await task


def posted(app: ASGIApp, path: str = "/signup", **request: Any) -> httpx.Response:
    """One POST to an application of its own."""

    async def main() -> httpx.Response:
        async with running(app) as client:
            return await client.post(path, **request)

    return asyncio.run(main())


# -- who is let in --------------------------------------------------------------------------------

BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "json": lambda email: {"json": {"name": "Jane", "email": email}},
    "json in UTF-16": lambda email: {
        "content": json.dumps({"email": email}).encode("utf-16"),
        "headers": {"content-type": "application/json"},
    },
    "json as text": lambda email: {
        "content": json.dumps({"email": email}),
        "headers": {"content-type": "text/plain"},
    },
    "json as a form": lambda email: {
        "content": json.dumps({"email": email}),
        "headers": {"content-type": "application/x-www-form-urlencoded"},
    },
    "json without type": lambda email: {"content": json.dumps({"email": email})},
    "form": lambda email: {"data": {"name": "Jane Doe", "email": email, "a": "ü&=+%"}},
    "form, escaped name": lambda email: {
        "content": f"%65mail={email}".encode(),
        "headers": {"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
    },
    "form, twice": lambda email: {
        "content": f"email={GOOD}&email={email}&email={GOOD}".encode(),
        "headers": {"content-type": "application/x-www-form-urlencoded"},
    },
    "multipart": lambda email: {
        "data": {"name": "Jane", "email": email},
        "files": {"photo": ("p.png", bytes(range(256)) * 50)},
    },
    "multipart, file first": lambda email: {
        "files": [("photo", ("p.png", b"x\r\n" * 9000)), ("email", (None, email))]
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_starlette_sees_good_addresses_only(body: Callable[[str], dict[str, Any]]) -> None:
    async def main() -> None:
        async with running(starlette_app()) as client:
            let_in = await client.post("/signup", **body(GOOD))
            refused = await client.post("/signup", **body(BAD))
            assert let_in.status_code == 200
            assert let_in.json()["gate"] == ["allow", "accepted_email", None]
            assert let_in.json()["digest"] == hashlib.sha256(let_in.request.read()).hexdigest()
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["cache-control"] == "no-store"
        assert refused.json() == {
            "type": "urn:signup-gate:problem:address_refused",
            "title": "The e-mail address cannot be used",
            "status": 422,
            "detail": "This mailbox does not exist. Is it spelled right?",
            "reason": "rejected_email",
            "did_you_mean": None,
        }

    asyncio.run(main())


def test_fastapi_reads_what_was_sent() -> None:
    async def main() -> None:
        photo = {"photo": ("p.png", b"\r\n--" * 5000)}
        async with running(fastapi_app()) as client:
            requests: list[tuple[str, dict[str, Any]]] = [
                ("/json", {"json": {"email": GOOD}}),
                ("/form", {"data": {"email": GOOD}}),
                ("/form", {"data": {"email": GOOD}, "files": photo}),
            ]
            for path, request in requests:
                let_in = await client.post(path, **request)
                assert (let_in.status_code, let_in.json()["made"]) == (200, GOOD)
            assert let_in.json()["photo"] == 20_000
            refused = await client.post("/json", json={"email": "jane@null-mx.test"})
            assert refused.json()["detail"].startswith("The part after the @ cannot receive")
            refused = await client.post("/form", data={"email": BAD}, files=photo)
            assert refused.status_code == 422
            # What has no address is the application's to complain of.
            own = await client.post("/json", json={"name": "Jane"})
            assert own.json()["detail"][0]["loc"] == ["body", "email"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "path", "looked_at"),
    [
        ("POST", "/signup", True),
        ("POST", "/other", False),
        ("POST", "/signup/", False),
        ("PUT", "/signup", False),
        ("GET", "/signup", False),
    ],
)
def test_only_the_named_route_is_looked_at(method: str, path: str, looked_at: bool) -> None:
    async def main() -> None:
        async with running(starlette_app()) as client:
            response = await client.request(method, path, json={"email": BAD})
            assert (response.status_code == 422) == looked_at

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"path": ["/join", "/signup"]}, "/signup"),
        ({"path": re.compile("/(?:de/)?signup")}, "/signup"),
        ({"methods": ["PUT", "POST"]}, "/signup"),
        ({"field": ["mail", "email"]}, "/signup"),
    ],
)
def test_paths_methods_and_fields_can_be_several(options: dict[str, Any], path: str) -> None:
    assert posted(starlette_app(**options), path, json={"email": BAD}).status_code == 422


def test_a_field_inside_another_is_found() -> None:
    app = starlette_app(field=["user.email", "user[email]"])
    assert posted(app, json={"user": {"email": BAD}}).status_code == 422
    app = starlette_app(field=["user.email", "user[email]"])
    assert posted(app, data={"user[email]": BAD}).status_code == 422


def test_a_mounted_application_names_its_own_path() -> None:
    app = Starlette(routes=[Mount("/shop", app=starlette_app(gate=Fixed(Choice.BLOCK)))])
    assert posted(app, "/shop/signup", json={"email": GOOD}).status_code == 422


# -- what becomes of the others -------------------------------------------------------------------


class Fixed:
    """A gate whose answer is known beforehand, or which has a fault."""

    def __init__(self, decision: Choice | None, because: str = "") -> None:
        self.decision = decision
        self.because = because
        self.asked: list[tuple[str, str | None]] = []

    async def __aenter__(self) -> Fixed:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def check(self, email: str, *, remoteip: str | None = None) -> CheckAnswer:
        self.asked.append((email, remoteip))
        if self.decision is None:
            raise RuntimeError(email)
        return CheckAnswer(decision=self.decision, reason=self.because, because=self.because)


def test_a_warning_reaches_the_application() -> None:
    let_in = posted(starlette_app(), json={"email": SLIP})
    assert let_in.json()["gate"] == ["warn", "probe_off", "jane@gmail.com"]
    refused = posted(starlette_app(block_warned=True), json={"email": SLIP})
    assert (refused.status_code, refused.json()["did_you_mean"]) == (422, "jane@gmail.com")
    assert refused.json()["detail"] == "Is this address spelled right?"


def test_a_form_is_sent_back_or_shown_again() -> None:
    def back(scope: Scope, answer: CheckAnswer) -> ASGIApp:
        return RedirectResponse(f"/signup?refused={answer.because}", 303)

    response = posted(starlette_app(on_block=back), data={"email": BAD})
    assert (response.status_code, response.headers["location"]) == (
        303,
        "/signup?refused=rejected_email",
    )

    async def page(scope: Scope, answer: CheckAnswer) -> ASGIApp:
        return HTMLResponse("<form>", 422)

    assert posted(starlette_app(on_block=page), data={"email": BAD}).text == "<form>"
    shown = posted(starlette_app(on_block=lambda scope, answer: None), data={"email": BAD})
    assert shown.json()["gate"] == ["block", "rejected_email", None]
    assert shown.json()["form"] == {"email": BAD}


def test_an_unknown_reason_has_words_too() -> None:
    refused = posted(starlette_app(gate=Fixed(Choice.BLOCK, "moon")), json={"email": GOOD})
    assert refused.json()["detail"].startswith("We could not confirm this address")


def test_the_persons_address_is_told_when_asked_for() -> None:
    for client, told in ((None, None), (lambda scope: scope["client"][0], "127.0.0.1")):
        gate = Fixed(Choice.ALLOW)
        posted(starlette_app(gate=gate, client=client), json={"email": f" {GOOD} "})
        assert gate.asked == [(GOOD, told)]


def test_of_many_values_a_few_are_asked_and_the_strictest_counts() -> None:
    gate = Fixed(Choice.ALLOW)
    data = {"email": [f"{name}@inbox.test" for name in ("a", "b", "a", "c", "d", "e")]}
    assert posted(starlette_app(gate=gate), data=data).status_code == 200
    assert [email[0] for email, _ in gate.asked] == ["a", "b", "c"]


# -- bad weather ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bound() -> Iterator[Bound]:
    with serving(config(limits=OUTLIVED)) as running_gate:
        yield running_gate


def remote(url: str, **options: Any) -> AsyncGate:
    return AsyncGate(url, SECRET, **options)


def test_a_remote_gate_is_asked(bound: Bound) -> None:
    url = f"http://127.0.0.1:{bound.port}"
    assert posted(starlette_app(gate=remote(url)), json={"email": BAD}).status_code == 422
    let_in = posted(starlette_app(gate=remote(url)), json={"email": GOOD})
    assert let_in.json()["gate"] == ["allow", "accepted_email", None]


@pytest.mark.parametrize(("answer", "reason"), [(SILENT, "timeout"), (HANG_UP, "unexpected_error")])
@pytest.mark.parametrize("on_failure", ["allow", "raise"])
def test_a_remote_gate_that_fails_lets_in(answer: Any, reason: str, on_failure: Any) -> None:
    with bad_gate(answer) as bad:
        gate = remote(bad.url, timeout=0.3, on_failure=on_failure)
        let_in = posted(starlette_app(gate=gate), json={"email": BAD})
    assert let_in.status_code == 200
    told = ["allow", reason, None] if on_failure == "allow" else None
    assert let_in.json()["gate"] == told


def test_a_fault_lets_in_and_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    let_in = posted(starlette_app(gate=Fixed(None)), json={"email": BAD})
    assert (let_in.status_code, let_in.json()["gate"]) == (200, None)
    assert "unexpected RuntimeError" in caplog.text and "nobody" not in caplog.text


def test_a_mail_server_that_hangs_does_not_hold_the_form_up() -> None:
    gate = local(probe={"budget_ms": 100})
    let_in = posted(starlette_app(gate=gate), json={"email": "jane@silent.test"})
    assert let_in.json()["gate"] == ["allow", "timeout", None]


def test_a_gate_that_was_never_opened_lets_in() -> None:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(starlette_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.post("/signup", json={"email": BAD})

    assert asyncio.run(main()).json()["gate"] == ["allow", "unexpected_error", None]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"email": 3}',
        b'{"email": null}',
        b'{"email": ""}',
        b"[1]",
        b"\xff\xfe\x00",
        b'{"email": 1' + b"0" * 5000 + b"}",
        b"--x--",
    ],
)
@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    + ["multipart/form-data", "\xff;;=", ""],
)
def test_a_body_without_an_address_is_the_applications(content: bytes, kind: str) -> None:
    assert values_of(content, kind, ["email"]) == []


def drive(
    wrap: Callable[[ASGIApp], ASGIApp], messages: Sequence[Message]
) -> tuple[list[Message], list[Message]]:
    """What the application under a middleware receives of a POST, and what is sent."""
    received: list[Message] = []
    sent: list[Message] = []

    async def main() -> None:
        waiting = list(messages)

        async def receive() -> Message:
            return waiting.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        async def sink(scope: Scope, receive: Receive, send: Send) -> None:
            while True:
                received.append(await receive())
                if not received[-1].get("more_body"):
                    return

        scope = {"type": "http", "method": "POST", "path": "/signup", "headers": []}
        await wrap(sink)(scope, receive, send)

    asyncio.run(main())
    return received, sent


def gated(gate: Fixed) -> Callable[[ASGIApp], ASGIApp]:
    return partial(SignupGate, gate=gate, path="/signup")


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces_is_one_body() -> None:
    gate = Fixed(Choice.ALLOW)
    pieces = [part(b'{"em'), part(b""), part(b'ail": "a@'), part(b'b.test"}', more=False)]
    received, _ = drive(gated(gate), pieces)
    assert received == [part(b'{"email": "a@b.test"}', more=False)]
    assert gate.asked == [("a@b.test", None)]


def test_a_long_body_is_held_in_part_and_passed_on_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pieces = [part(b'{"email": "a@b.test", "x": "')] + [part(b"x" * 65_536)] * 20
    pieces.append(part(b'"}', more=False))
    gate = Fixed(Choice.BLOCK)
    received, _ = drive(gated(gate), pieces)
    assert b"".join(message["body"] for message in received) == b"".join(
        message["body"] for message in pieces
    )
    assert len(received[0]["body"]) <= BODY_MOST + 65_536 and len(received) > 10
    assert not gate.asked and "passes unchecked" in caplog.text


def test_the_fields_before_a_long_file_are_checked() -> None:
    head = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=email\r\n\r\na@b.test\r\n"
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name=f; filename="f"\r\n\r\n'
    ).encode()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    assert values_of(head + b"x" * 99, kind, ["email"], whole=False) == ["a@b.test"]
    form = "application/x-www-form-urlencoded"
    assert values_of(b"email=a%40b.test&f=x", form, ["email"], whole=False) == ["a@b.test"]
    assert values_of(b"f=x&email=a%40b.te", form, ["email"], whole=False) == []


def test_a_field_whose_name_is_written_otherwise_is_found() -> None:
    body = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name*=utf-8''%65mail\r\n\r\n"
        f"a@b.test\r\n--{BOUNDARY}--\r\n"
    ).encode()
    assert values_of(body, f'multipart/form-data; boundary="{BOUNDARY}"', ["email"]) == ["a@b.test"]


def test_a_person_who_hangs_up_is_the_applications_to_notice() -> None:
    gate = Fixed(Choice.BLOCK)
    received, sent = drive(gated(gate), [part(b'{"email'), {"type": "http.disconnect"}])
    assert received == [part(b'{"email'), {"type": "http.disconnect"}]
    assert not gate.asked and not sent


# -- lifespan -------------------------------------------------------------------------------------


def test_an_application_without_a_lifespan_is_served_all_the_same() -> None:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("only HTTP")
        await JSONResponse({})(scope, receive, send)

    app = SignupGate(plain, gate=local(), path="/signup")
    assert posted(app, json={"email": BAD}).status_code == 422


def test_an_application_that_fails_to_start_is_heard() -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        if app.routes == []:
            raise RuntimeError("no database")
        yield

    inner = Starlette(lifespan=broken)

    async def main() -> None:
        async with running(SignupGate(inner, gate=local(), path="/signup")):
            raise AssertionError

    with pytest.raises((GateError, RuntimeError), match="no database"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (LocalGate(settings([site(), OTHER])), "name the one whose policy decides"),
        (LocalGate(settings([site()]), site="nowhere"), "is none of main"),
        (LocalGate(settings(store={"url": "sqlite:/nonexistent/gate.db"})), "nonexistent"),
    ],
)
def test_what_cannot_start_says_why(gate: LocalGate, said: str) -> None:
    with pytest.raises(GateError, match=said):
        posted(starlette_app(gate=gate), json={"email": BAD})


def test_the_named_sites_policy_decides() -> None:
    lenient = {**OTHER, "policy": {"undeliverable": "warn"}}
    gate = LocalGate(settings([site(), lenient]), site="other")
    assert posted(starlette_app(gate=gate), json={"email": BAD}).json()["gate"][0] == "warn"


def test_one_local_gate_is_opened_once() -> None:
    async def main() -> None:
        gate = local()
        async with gate:
            with pytest.raises(GateError, match="open already"):
                await gate.__aenter__()
            assert (await gate.check(BAD)).reason == Reason.REJECTED_EMAIL

    asyncio.run(main())


def test_no_log_line_holds_an_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="gate")
    posted(starlette_app(), json={"email": "secretive@inbox.test"})
    assert "secretive" not in caplog.text
