"""What is particular to a platform: rotation, other events, calls without address, languages."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.hooks.ground import (
    ACCEPTS,
    BY_PLATFORM,
    EVERY,
    OTHER_WEBHOOK_SECRET,
    REFUSES,
    WEBHOOK_SECRET,
    Case,
    fusionauth_headers,
    hooked,
    resigned,
    webhook_headers,
)

SUPABASE = BY_PLATFORM["supabase"]


def edited(case: Case, change: Callable[[Any], object]) -> bytes:
    """The case's body after a change."""
    document = json.loads(case.body)
    change(document)
    return json.dumps(document, ensure_ascii=False).encode()


async def sent(case: Case, body: bytes, **hook: Any) -> httpx.Response:
    """The answer of a gate whose mail server refuses everybody, to the case with another body."""
    async with hooked({**case.hook, **hook}, mail=REFUSES) as running:
        return await running.send(case, body=body, headers=resigned(case, body))


def answer(case: Case, body: bytes, **hook: Any) -> httpx.Response:
    return asyncio.run(sent(case, body, **hook))


def denied(response: httpx.Response) -> bool:
    """Whether any of the platforms would turn the person away."""
    text = response.text.lower()
    words = ("deny", '"error', "block", '"is_allowed":false', "validationerror", "forwardedstatus")
    return response.status_code >= 300 or any(word in text for word in words)


# -- calls without an address, and other events ----------------------------------------------------

WITHOUT: dict[str, tuple[str, Callable[[Any], object]]] = {
    "supabase, anonymous": ("supabase", lambda d: d["user"].update(email="", is_anonymous=True)),
    "supabase, by phone": ("supabase", lambda d: d["user"].update(email="", phone="49123")),
    "supabase, no user": ("supabase", lambda d: d.pop("user")),
    "supabase, no text": ("supabase", lambda d: d["user"].update(email=["jane@example.com"])),
    "kratos": ("kratos", lambda d: d["identity"]["traits"].clear()),
    "zitadel, other method": ("zitadel", lambda d: d.update(request={"email": "a@b.example"})),
    "zitadel, machine user": ("zitadel", lambda d: d["request"].pop("human")),
    "workos": ("workos", lambda d: d["user_data"].pop("email")),
    "authgear, other event": ("authgear", lambda d: d.update(type="user.pre_schedule_deletion")),
    "authgear, anonymous": (
        "authgear",
        lambda d: d["payload"].update(identities=[{"type": "anonymous", "claims": {}}], user={}),
    ),
    "fusionauth, other event": ("fusionauth", lambda d: d["event"].update(type="user.update")),
    "fusionauth, by name": ("fusionauth", lambda d: d["event"]["user"].pop("email")),
    "okta, no profile": ("okta", lambda d: d["data"].pop("userProfile")),
    "entra, by phone": (
        "entra",
        lambda d: d["data"]["userSignUpInfo"]["identities"][0].update(signInType="phone"),
    ),
    "azure-b2c": ("azure-b2c", lambda d: d.pop("email")),
    "parse, unchanged": (
        "parse",
        lambda d: d.update(original={"className": "_User", "email": "jane@example.com"}),
    ),
    "parse, other class": ("parse", lambda d: d["object"].update(className="Order")),
    "parse, other trigger": ("parse", lambda d: d.update(triggerName="afterSave")),
    "parse, by name": ("parse", lambda d: d["object"].pop("email")),
    "generic": ("generic", lambda d: d["data"].update(email=None)),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_without_an_address_the_person_is_let_in(name: str) -> None:
    platform, change = WITHOUT[name]
    case = BY_PLATFORM[platform]
    response = answer(case, edited(case, change))
    assert response.status_code in (200, 204), response.text
    assert not denied(response)


@pytest.mark.parametrize("name", ["supabase, anonymous", "kratos", "okta, no profile"])
def test_a_site_may_insist_on_an_address(name: str) -> None:
    platform, change = WITHOUT[name]
    case = BY_PLATFORM[platform]
    assert denied(answer(case, edited(case, change), without_email="block"))


@pytest.mark.parametrize("case", EVERY, ids=[case.platform for case in EVERY])
@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 30_000, b'{"a":' * 9000])
def test_a_proved_body_that_cannot_be_read_is_let_in(case: Case, body: bytes) -> None:
    if case.platform.startswith("truemail"):
        return
    response = answer(case, body)
    assert response.status_code in (200, 204), response.text
    assert not denied(response)


ALSO: dict[str, tuple[str, Callable[[Any], object]]] = {
    "kratos, a smaller template": (
        "kratos",
        lambda d: (d.clear(), d.update(email="0.g5vv0qpoxl@ory.sh", flow_id="1")),
    ),
    "zitadel, AddHumanUser": (
        "zitadel",
        lambda d: d.update(
            fullMethod="/zitadel.user.v2.UserService/AddHumanUser",
            request={"email": {"email": "mini+test@mouse.com"}},
        ),
    ),
    "authgear, without identities": ("authgear", lambda d: d["payload"].update(identities=[])),
    "authgear, the second identity": (
        "authgear",
        lambda d: d["payload"]["identities"].insert(0, {"type": "oauth", "claims": {}}),
    ),
    "fusionauth, unwrapped registration": (
        "fusionauth",
        lambda d: d.update(d.pop("event"), type="user.registration.create"),
    ),
    "okta, only a login": ("okta", lambda d: d["data"]["userProfile"].pop("email")),
    "entra, as an attribute": (
        "entra",
        lambda d: d["data"].update(
            userSignUpInfo={"attributes": {"email": {"value": "larissa.price@onmicrosoft.com"}}}
        ),
    ),
    "azure-b2c, local account": (
        "azure-b2c",
        lambda d: d.update({"signInNames.emailAddress": d.pop("email")}),
    ),
    "parse, changed": (
        "parse",
        lambda d: d.update(original={"className": "_User", "email": "old@example.com"}),
    ),
    "generic, at the top": ("generic", lambda d: d.update(email="jane@example.com", data={})),
}


@pytest.mark.parametrize("name", ALSO)
def test_other_places_of_the_address(name: str) -> None:
    platform, change = ALSO[name]
    case = BY_PLATFORM[platform]
    assert denied(answer(case, edited(case, change)))


def test_a_trait_of_another_name() -> None:
    case = BY_PLATFORM["kratos"]
    body = edited(case, lambda d: d["identity"].update(traits={"contact": {"mail": "x@ory.sh"}}))
    response = answer(case, body, email_at=["identity.traits.contact.mail"])
    (message,) = response.json()["messages"]
    assert message["instance_ptr"] == "#/traits/contact/mail"
    assert isinstance(message["messages"][0]["id"], int)
    assert message["messages"][0]["type"] == "error"


# -- rotation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secrets",
    [
        [f"v1,{OTHER_WEBHOOK_SECRET}|v1,{WEBHOOK_SECRET}"],
        [f"v1,{WEBHOOK_SECRET}|v1,{OTHER_WEBHOOK_SECRET}"],
        [f"v1,{OTHER_WEBHOOK_SECRET}", f"v1,{WEBHOOK_SECRET}"],
    ],
    ids=["joined, ours last", "joined, ours first", "two"],
)
def test_supabase_secrets_as_supabase_writes_them(secrets: list[str]) -> None:
    async def main() -> None:
        async with hooked({**SUPABASE.hook, "secrets": secrets}) as running:
            assert (await running.send(SUPABASE)).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize("joined", [" ", ", "], ids=["standard", "supabase"])
def test_supabase_signs_with_all_its_secrets(joined: str) -> None:
    keys = [OTHER_WEBHOOK_SECRET, WEBHOOK_SECRET]
    headers = {**SUPABASE.headers, **webhook_headers(SUPABASE.body, keys=keys, joined=joined)}

    async def main() -> None:
        async with hooked(SUPABASE.hook) as running:
            assert (await running.send(SUPABASE, headers=headers)).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize("platform", ["zitadel", "workos", "authgear", "fusionauth", "parse"])
def test_several_secrets_at_once(platform: str) -> None:
    case = BY_PLATFORM[platform]
    secrets = ["the next secret", *case.hook["secrets"]]

    async def main() -> None:
        async with hooked({**case.hook, "secrets": secrets}, mail=REFUSES) as running:
            assert denied(await running.send(case))

    asyncio.run(main())


def test_workos_is_answered_with_the_secret_it_used() -> None:
    case = BY_PLATFORM["workos"]
    hook = {**case.hook, "secrets": ["the next secret", *case.hook["secrets"]]}

    async def main() -> None:
        async with hooked(hook) as running:
            assert (await running.send(case)).json() == case.allow["body"]

    asyncio.run(main())


def test_fusionauth_with_a_header_instead_of_a_signature() -> None:
    case = BY_PLATFORM["fusionauth"]
    basic = "Basic " + b64encode(b"gate:secret").decode()

    async def main() -> None:
        hook = {**case.hook, "secrets": ["gate:secret"], "secret_header": "Authorization"}
        async with hooked(hook, mail=REFUSES) as running:
            assert (await running.send(case, headers={"Authorization": basic})).status_code == 400
            assert (await running.send(case)).status_code == 401

    asyncio.run(main())


def test_fusionauth_seals_that_are_over() -> None:
    case = BY_PLATFORM["fusionauth"]
    secret = case.hook["secrets"][0]

    async def main() -> None:
        async with hooked(case.hook) as running:
            for claims, status in (
                ({"exp": 1767225601}, 200),
                ({"exp": 1767225600 - 301}, 401),
                ({"nbf": 1767225600 + 301}, 401),
            ):
                headers = fusionauth_headers(case.body, secret, **claims)
                assert (await running.send(case, headers=headers)).status_code == status

    asyncio.run(main())


# -- shapes that depend on a setting or on the call ------------------------------------------------


def test_supabase_before_it_read_errors() -> None:
    response = answer(SUPABASE, SUPABASE.body, legacy=True)
    assert response.status_code == 400
    assert response.json()["error"]["http_code"] == 400


def test_azure_b2c_custom_policies() -> None:
    case = BY_PLATFORM["azure-b2c"]
    response = answer(case, case.body, legacy=True)
    assert response.status_code == 409
    assert set(response.json()) == {"version", "status", "userMessage"}
    assert response.json()["status"] == 409


def test_okta_progressive_profiling() -> None:
    case = BY_PLATFORM["okta"]

    def change(document: Any) -> None:
        document["requestType"] = "progressive.profile"
        document["data"]["userProfileUpdate"] = {"email": "john.doe@example.com"}

    refused = answer(case, edited(case, change)).json()
    assert set(refused) == {"error"}
    assert refused["error"]["errorCauses"][0]["location"] == "data.userProfileUpdate.email"

    async def main() -> None:
        async with hooked(case.hook) as running:
            response = await running.send(case, body=edited(case, change))
            assert (response.status_code, response.content) == (204, b"")

    asyncio.run(main())


def test_generic_answers_in_the_operators_shape() -> None:
    case = BY_PLATFORM["generic"]
    shapes = {
        "allow_status": 202,
        "allow_body": '{"ok": true, "decision": "{decision}"}',
        "block_status": 422,
        "block_body": '{"ok": false, "lang": "{language}", "n": 1, '
        '"errors": [{"text": "{title}: {message}", "code": "{reason}"}]}',
    }
    response = answer(case, case.body, answer=shapes, messages={"en": 'No "{reason}" \\'})
    assert response.status_code == 422
    assert response.json() == {
        "ok": False,
        "errors": [
            {"text": 'Email address not accepted: No "rejected_email" \\', "code": "rejected_email"}
        ],
        "lang": "en",
        "n": 1,
    }

    async def main() -> None:
        async with hooked({**case.hook, "answer": shapes}) as running:
            response = await running.send(case)
            assert (response.status_code, response.json()) == (
                202,
                {"ok": True, "decision": "allow"},
            )

    asyncio.run(main())


# -- languages -------------------------------------------------------------------------------------

SPOKEN: dict[str, tuple[str, Callable[[Any], object]]] = {
    "supabase": ("supabase", lambda d: d["user"].update(user_metadata={"locale": "de-AT"})),
    "kratos": (
        "kratos",
        lambda d: d["request_headers"].update({"Accept-Language": ["de-CH,de;q=0.9,en;q=0.5"]}),
    ),
    "kratos, trait": ("kratos", lambda d: d["identity"]["traits"].update(locale="de")),
    "zitadel": (
        "zitadel",
        lambda d: d["request"]["human"]["profile"].update(preferredLanguage="de"),
    ),
    "authgear": (
        "authgear",
        lambda d: d["context"].update(language="de-DE", preferred_languages=["en"]),
    ),
    "okta": ("okta", lambda d: d["data"]["userProfile"].update(locale="de_DE")),
    "entra": (
        "entra",
        lambda d: d["data"]["authenticationContext"]["client"].update(locale="de-de"),
    ),
    "azure-b2c": ("azure-b2c", lambda d: d.update(ui_locales="de-DE")),
    "parse": (
        "parse",
        lambda d: d["headers"].update({"accept-language": "xx, de;q=0.8, en;q=0.7"}),
    ),
    "generic": ("generic", lambda d: d["data"].update(locale="de")),
}


@pytest.mark.parametrize("name", SPOKEN)
def test_the_text_is_in_the_persons_language(name: str) -> None:
    platform, change = SPOKEN[name]
    case = BY_PLATFORM[platform]
    text = answer(case, edited(case, change)).content.decode()
    assert "Dieses Postfach gibt es nicht. Bitte prüfen Sie die E-Mail-Adresse." in text


def test_workos_texts_stay_ascii_and_are_never_empty() -> None:
    case = BY_PLATFORM["workos"]
    response = answer(case, case.body, language="ja")
    assert response.content.isascii()
    assert response.json()["payload"]["error_message"].startswith("This mailbox does not exist")


# -- addresses beyond ASCII ------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["supabase", "workos", "zitadel", "authgear", "generic"])
def test_a_signature_over_octets_beyond_ascii(platform: str) -> None:
    case = BY_PLATFORM[platform]
    body = case.body
    for local in ("valid.email@", "jane@", "mini+test@", "user@"):
        body = body.replace(local.encode(), "josé@".encode())
    assert body != case.body

    async def main() -> None:
        async with hooked(case.hook, mail=ACCEPTS) as running:
            response = await running.send(case, body=body, headers=resigned(case, body))
            assert response.status_code == 200
            assert not denied(response)
        assert running.gate.lines()[0]["reason"] == "accepted_email"

    asyncio.run(main())
