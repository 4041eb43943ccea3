"""Entra's bearer token, made by a library with keys of a tenant that exists only here."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from gate.hooks.entra import CALLER
from gate.hooks.registry import Registry
from gate.reason import GateError
from tests.hooks.ground import BY_PLATFORM, NOW, REFUSES, SHARED, configured, hooked
from tests.hooks.test_jwt import key_set, private

CASE = BY_PLATFORM["entra"]
AUDIENCE = "2c1c2f6e-0000-4000-8000-3f2a1b0c9d8e"
ISSUER = "https://contoso.ciamlogin.com/aaaabbbb-0000-cccc-1111-dddd2222eeee/v2.0"
CLAIMS = {
    "aud": AUDIENCE,
    "iss": ISSUER,
    "azp": CALLER,
    "iat": int(NOW),
    "nbf": int(NOW),
    "exp": int(NOW) + 3600,
    "tid": "aaaabbbb-0000-cccc-1111-dddd2222eeee",
}


def hook_for(file: Path, **token: str) -> dict[str, Any]:
    named = {"jwks": str(file), "audience": AUDIENCE, "issuer": ISSUER}
    return {"platform": "entra", "token": {**named, **token}}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.json"
    file.write_bytes(key_set(one=private()))
    return file


async def with_token(running: Any, token: str) -> httpx.Response:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    response: httpx.Response = await running.send(CASE, headers=headers)
    return response


def minted(key: Any = None, kid: str | None = "one", **changes: Any) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode(claims, key or private(), "RS256", headers={"kid": kid} if kid else {})


def test_a_tenants_token_is_believed(keys: Path) -> None:
    async def main() -> None:
        async with hooked(hook_for(keys), mail=REFUSES) as running:
            response = await with_token(running, minted())
            assert response.status_code == 200
            (action,) = response.json()["data"]["actions"]
            assert action["@odata.type"].endswith("showBlockPage")
            older = await with_token(running, minted(azp=None, appid=CALLER))
            assert older.status_code == 200

    asyncio.run(main())


WRONG: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "other"},
    "several audiences": {"aud": [AUDIENCE, "other"]},
    "another tenant": {"iss": ISSUER.replace("contoso", "evil")},
    "another caller": {"azp": "00000000-0000-0000-0000-000000000000"},
    "no caller": {"azp": None},
    "over": {"exp": int(NOW) - 301},
    "not yet": {"nbf": int(NOW) + 301},
    "without an end": {"exp": None},
    "without a key's name": {"kid": None},
    "an unknown key": {"kid": "nine"},
}


@pytest.mark.parametrize("name", WRONG)
def test_any_other_token_is_refused(name: str, keys: Path) -> None:
    async def main() -> None:
        async with hooked(hook_for(keys)) as running:
            assert (await with_token(running, minted(**WRONG[name]))).status_code == 401

    asyncio.run(main())


def test_what_is_no_token_is_refused(keys: Path) -> None:
    stranger = private(number=7)
    tokens = {
        "signed by a stranger": minted(stranger),
        "sealed with the public key": jwt.encode(CLAIMS, "x" * 32, "HS256", headers={"kid": "one"}),
        "unsigned": jwt.encode(CLAIMS, "", "none", headers={"kid": "one"}),
        "nothing": "",
        "junk": "@.@.@",
    }

    async def main() -> None:
        async with hooked(hook_for(keys)) as running:
            for name, token in tokens.items():
                assert (await with_token(running, token)).status_code == 401, name
            bare = await running.send(CASE, headers={"Authorization": "Basic abcd"})
            assert bare.status_code == 401
            assert (await running.send(CASE, headers={})).status_code == 401

    asyncio.run(main())


def test_the_file_is_read_again_for_a_key_that_is_new(keys: Path) -> None:
    def replace(octets: bytes, changed: int) -> None:
        keys.write_bytes(octets)
        os.utime(keys, ns=(changed, changed))

    async def main() -> None:
        async with hooked(hook_for(keys)) as running:
            later = minted(private(number=1), "two")
            assert (await with_token(running, later)).status_code == 401
            # Half written by the job that fetches it: the keys that were read still hold.
            replace(key_set(one=private())[:100], 1)
            assert (await with_token(running, later)).status_code == 401
            assert (await with_token(running, minted())).status_code == 200
            replace(key_set(two=private(number=1)), 2)
            assert (await with_token(running, later)).status_code == 200
            assert (await with_token(running, minted())).status_code == 401
            os.unlink(keys)
            assert (await with_token(running, later)).status_code == 200
            assert (await with_token(running, minted())).status_code == 401

    asyncio.run(main())


def test_a_proxy_may_vouch_instead() -> None:
    hook = {"platform": "entra", "secrets": [SHARED], "secret_header": "x-proxy-secret"}

    async def main() -> None:
        async with hooked(hook) as running:
            assert (await running.send(CASE)).status_code == 200
            wrong = {**CASE.headers, "x-proxy-secret": SHARED + "!"}
            assert (await running.send(CASE, headers=wrong)).status_code == 401

    asyncio.run(main())


def test_a_missing_or_broken_file_is_said_at_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    for file in (tmp_path / "absent.json", broken):
        with pytest.raises(GateError, match=r"hook entra: token\.jwks: .*holds no key set"):
            Registry(configured(hook_for(file)).hook)
