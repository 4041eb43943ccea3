"""What the tests of signup hooks stand on: a gate with a hook for each platform, and mail servers.

The recorded calls in cases.json are about addresses of real domains. Here those domains have one
mail server, on loopback, which accepts, refuses or hangs as the test wants; the address guard stays
on, and nothing else is reachable.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt

from gate.budget import Clock
from gate.egress import IPAddress
from gate.engine import open_engine
from gate.settings import Settings
from gate.testing import FakeClock, HostRules, MailHost, ScriptedMta, Seam, transcript
from gate.testing.zones import FakeZones
from tests.api.ground import Gate, gate, settings, site

NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z: the moment the recorded calls were signed at."""
PROXY = ("192.0.2.1", 4711)
MX_IP = "203.0.113.77"
DOMAINS = (
    "supabase.com",
    "ory.sh",
    "foocorp.com",
    "mouse.com",
    "example.com",
    "fusionauth.io",
    "onmicrosoft.com",
    "fabrikam.com",
)
USERS = (
    "valid.email",
    "0.g5vv0qpoxl",
    "jane",
    "mini",
    "user",
    "example",
    "john.doe",
    "larissa.price",
    "josé",
)
ACCEPTS = HostRules(users=USERS)
REFUSES = HostRules()
PLATFORM = {
    "supabase-auth": "supabase",
    "ory-kratos": "kratos",
    "workos-actions": "workos",
    "zitadel-actions-v2": "zitadel",
    "authgear": "authgear",
    "fusionauth": "fusionauth",
    "okta": "okta",
    "entra-external-id": "entra",
    "parse-server": "parse",
    "traefik": "forward",
}
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_WEBHOOK_SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
SHARED = "a shared secret of some length"
ENTRA_SECRET = {"secrets": [SHARED], "secret_header": "x-proxy-secret"}


@dataclass(frozen=True, slots=True)
class Case:
    """One recorded call: what it carries, and the secret it was made with."""

    platform: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    hook: Mapping[str, Any]
    allow: Mapping[str, Any]
    reject: Mapping[str, Any]

    @property
    def signed(self) -> bool:
        """Whether the proof covers the body."""
        return self.platform in SIGNED


SIGNED = ("supabase", "workos", "zitadel", "authgear", "fusionauth")


def _case(entry: Mapping[str, Any]) -> Case:
    platform = PLATFORM[entry["platform"].partition("/")[0]]
    request, secret = entry["request"], entry["secret"]
    headers = dict(request["headers"])
    hook: dict[str, Any] = {"platform": platform}
    if platform == "entra":
        # The recorded token is a description of one; tests/hooks/test_entra.py makes real ones.
        hook |= ENTRA_SECRET
        headers["x-proxy-secret"] = SHARED
    elif isinstance(secret, str):
        hook["secrets"] = [secret]
    elif secret is not None:
        hook |= {"secrets": [secret["value"]], "secret_header": secret["header"]}
    body = request["raw_body"].encode()
    allow, reject = entry["allow_response"], entry["reject_response"]
    return Case(platform, request["method"], headers, body, hook, allow, reject)


RECORDED = [
    _case(entry) for entry in json.loads(Path(__file__).with_name("cases.json").read_text())
]


def _b2c() -> Case:
    """Azure AD B2C has no recorded call; this one follows its reference."""
    body = {
        "email": "john.doe@fabrikam.com",
        "identities": [{"signInType": "federated", "issuer": "x", "issuerAssignedId": "0"}],
        "displayName": "John Doe",
        "step": "PostAttributeCollection",
        "client_id": "93fd07aa-333c-409d-955d-96008fd08dd9",
        "ui_locales": "en-US",
    }
    secret = "gate:correct horse battery staple"
    version = {"version": "1.0.0"}
    return Case(
        "azure-b2c",
        "POST",
        {
            "Content-Type": "application/json",
            "Authorization": "Basic " + b64encode(secret.encode()).decode(),
        },
        json.dumps(body).encode(),
        {"platform": "azure-b2c", "secrets": [secret]},
        {"status": 200, "body": {**version, "action": "Continue"}},
        {
            "status": 400,
            "body": {**version, "status": 400, "action": "ValidationError", "userMessage": "…"},
        },
    )


def _generic() -> Case:
    body = b'{"type":"user.creating","data":{"email":"jane@example.com"}}'
    return Case(
        "generic",
        "POST",
        {"Content-Type": "application/json", **webhook_headers(body)},
        body,
        {"platform": "generic", "secrets": [WEBHOOK_SECRET]},
        {"status": 200, "body": {"decision": "allow", "reason": None, "message": None}},
        {"status": 200, "body": {"decision": "block", "reason": "…", "message": "…"}},
    )


def _truemail() -> Case:
    return Case(
        "truemail?email=jane@example.com",
        "POST",
        {"Content-Type": "application/json", "Authorization": SHARED},
        b"",
        {"platform": "truemail", "secrets": [SHARED]},
        {"status": 200, "body": {"success": True, "errors": None}},
        {"status": 200, "body": {"success": False, "errors": {"smtp": "smtp error"}}},
    )


# -- signing, written again from the specifications: the gate is not to be compared with itself ----


def webhook_headers(
    body: bytes,
    *,
    message: str = "msg_1",
    at: float = NOW,
    keys: Sequence[str] = (WEBHOOK_SECRET,),
    joined: str = " ",
) -> dict[str, str]:
    """The three headers of Standard Webhooks."""
    signed = f"{message}.{int(at)}.".encode() + body
    signatures = []
    for key in keys:
        octets = b64decode(key.removeprefix("whsec_"))
        seal = hmac.new(octets, signed, hashlib.sha256).digest()
        signatures.append("v1," + b64encode(seal).decode())
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": joined.join(signatures),
    }


def hex_seal(secret: str, octets: bytes) -> str:
    return hmac.new(secret.encode(), octets, hashlib.sha256).hexdigest()


def zitadel_headers(body: bytes, secret: str, at: float = NOW) -> dict[str, str]:
    seal = hex_seal(secret, f"{int(at)}.".encode() + body)
    return {"ZITADEL-Signature": f"t={int(at)},v1={seal}"}


def workos_headers(body: bytes, secret: str, at: float = NOW) -> dict[str, str]:
    seal = hex_seal(secret, f"{int(at * 1000)}.".encode() + body)
    return {"WorkOS-Signature": f"t={int(at * 1000)}, v1={seal}"}


def authgear_headers(body: bytes, secret: str) -> dict[str, str]:
    return {"x-authgear-body-signature": hex_seal(secret, body)}


def fusionauth_headers(body: bytes, secret: str, **claims: Any) -> dict[str, str]:
    digest = b64encode(hashlib.sha256(body).digest()).decode()
    token = jwt.encode({"request_body_sha256": digest, **claims}, secret, "HS256")
    return {"X-FusionAuth-Signature-JWT": token}


def resigned(case: Case, body: bytes, at: float = NOW) -> dict[str, str]:
    """The headers of a case for another body, made with the case's own secret."""
    secret = (case.hook.get("secrets") or [""])[0]
    make: dict[str, Callable[[], dict[str, str]]] = {
        "supabase": lambda: webhook_headers(
            body, message="b6b4a2c8", at=at, keys=[secret.removeprefix("v1,")]
        ),
        "generic": lambda: webhook_headers(body, at=at),
        "zitadel": lambda: zitadel_headers(body, secret, at),
        "workos": lambda: workos_headers(body, secret, at),
        "authgear": lambda: authgear_headers(body, secret),
        "fusionauth": lambda: fusionauth_headers(body, secret),
    }
    return {**case.headers, **make.get(case.platform, dict)()}


EVERY = [*RECORDED, _b2c(), _generic(), _truemail()]
BY_PLATFORM = {case.platform.partition("?")[0]: case for case in EVERY}


# -- the running gate ------------------------------------------------------------------------------


class Mail:
    """A mail world in which every domain of the cases has the same mail server."""

    def __init__(self, server: HostRules | str, domains: Collection[str] = DOMAINS) -> None:
        self._server = server
        self._domains = domains
        self._stack = AsyncExitStack()
        self.seam = Seam()
        self.stubs: dict[str, list[tuple[str, int]]] = {}

    @property
    def seam_addresses(self) -> frozenset[IPAddress]:
        return self.seam.addresses

    async def __aenter__(self) -> Mail:
        rules = self._server
        listener = (
            ScriptedMta(transcript(rules), strict=False)
            if isinstance(rules, str)
            else MailHost(rules, strict=False)
        )
        await self._stack.enter_async_context(listener)
        self.seam.add(MX_IP, listener.address)
        plan = {f"*.{domain}": f"MX 1 mx.{domain}" for domain in self._domains}
        plan |= {domain: f"MX 1 mx.{domain}" for domain in self._domains}
        plan |= {f"mx.{domain}": f"A {MX_IP}" for domain in self._domains}
        zones = await self._stack.enter_async_context(FakeZones(plan))
        self.stubs = {domain: [zones.server] for domain in self._domains}
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()


@dataclass(slots=True)
class Hooked:
    """A running gate with hooks."""

    gate: Gate
    wall: FakeClock

    async def send(
        self, case: Case, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Replay a call, as it is or with another body or other headers."""
        return await self.gate.client.request(
            case.method,
            f"/v1/hooks/{case.platform}",
            content=case.body if body is None else body,
            headers=dict(case.headers if headers is None else headers),
        )


def configured(*hooks: Mapping[str, Any], sites: Any = None, **tables: Any) -> Settings:
    """Settings of a gate with these hooks, for one site."""
    return settings(
        [site()] if sites is None else sites,
        hook=list(hooks),
        probe={"helo": "gate.example.net", "mail_from": "probe@example.net"},
        server={"trusted_proxies": [f"{PROXY[0]}/32"]},
        sandbox={"enabled": False},
        **tables,
    )


@asynccontextmanager
async def hooked(
    *hooks: Mapping[str, Any],
    mail: HostRules | str = ACCEPTS,
    config: Settings | None = None,
    wall: Clock | None = None,
    client: tuple[str, int] = PROXY,
) -> AsyncIterator[Hooked]:
    """A gate before one mail server. The clock stands at the moment the calls were signed."""
    clock = FakeClock(NOW)
    async with Mail(mail) as world:
        opener = partial(open_engine, world=world, wall=wall or clock)
        async with gate(config or configured(*hooks), client=client, opener=opener) as running:
            yield Hooked(running, clock)
