"""Health, readiness, the try-out page, metrics on their own listener, the API's description."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gate.api import ops
from gate.api.answer import COARSE
from gate.api.problems import KINDS, URN
from gate.api.sites import refuse_open_development
from gate.reason import GateError, Reason
from gate.settings.read import parse
from tests.api.ground import BEARER, Gate, gate, settings

NO_SANDBOX: dict[str, Any] = {"sandbox": {"enabled": False}, "probe": {"enabled": False}}


def test_healthz() -> None:
    async def main() -> None:
        async with gate() as running:
            assert (await running.client.get("/healthz")).json() == {"status": "ok"}
            assert (await running.client.head("/healthz")).content == b""

    asyncio.run(main())


@pytest.mark.parametrize(
    ("tables", "probing", "why"),
    [
        pytest.param({}, "sandbox", "identity", id="sandbox, no identity"),
        pytest.param(NO_SANDBOX, "off", "settings", id="switched off"),
        pytest.param({"sandbox": {"enabled": False}}, "off", "identity", id="no identity"),
        pytest.param({"probe": {"helo": "gate.example.com"}}, "on", None, id="identity"),
    ],
)
def test_readyz_says_what_works(
    tables: dict[str, Any], probing: str, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box")

    async def main() -> None:
        async with gate(settings(**tables)) as running:
            response = await running.client.get("/readyz")
        assert response.status_code == 200
        assert response.json() == {
            "status": "ready",
            "store": "ok",
            "probing": probing,
            "probing_why": why,
            "resolver": "ok",
        }

    asyncio.run(main())


def test_the_page_is_there_to_try_it_and_nowhere_else() -> None:
    async def main() -> None:
        async with gate() as running:
            page = await running.client.get("/")
            assert page.status_code == 200
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert running.engine.sites[0].site_key in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
        async with gate(settings(**NO_SANDBOX)) as running:
            assert (await running.client.get("/")).status_code == 404
        async with gate(settings([], **NO_SANDBOX), base="http://localhost") as running:
            assert (await running.client.get("/")).status_code == 200
            secret = running.engine.development_secret
            assert secret and secret not in (await running.client.get("/")).text

    asyncio.run(main())


def test_metrics_are_on_the_admin_listener_only() -> None:
    async def main() -> None:
        async with gate() as running:
            assert (await running.client.get("/metrics")).status_code == 404
            transport = httpx.ASGITransport(app=ops.admin())
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as admin:
                response = await admin.get("/metrics")
                assert response.headers["content-type"].startswith("text/plain")
                for name in ("gate_decisions", "gate_flights", "gate_store_healthy 1.0"):
                    assert name in response.text
                assert (await admin.get("/")).status_code == 404

    asyncio.run(main())


def test_the_number_of_series_does_not_grow_with_domains() -> None:
    async def main() -> None:
        async with gate() as running:
            transport = httpx.ASGITransport(app=ops.admin())
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as admin:
                sizes = []
                for start in (0, 100):
                    for number in range(start, start + 100):
                        await running.page(f"jane@d{number}.test", origin=None)
                    await asyncio.sleep(0.1)
                    sizes.append(len((await admin.get("/metrics")).text.splitlines()))
        assert sizes[0] == sizes[1]

    asyncio.run(main())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gate.example.com"])
def test_a_development_site_is_not_opened_to_the_world(host: str) -> None:
    with pytest.raises(GateError, match=r"server\.host: .*`gate keys new`"):
        refuse_open_development(parse({"server": {"host": host}}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_a_development_site_on_loopback(host: str) -> None:
    refuse_open_development(parse({"server": {"host": host}}))


# -- the description -------------------------------------------------------------------------------


async def described(running: Gate) -> dict[str, Any]:
    response = await running.client.get("/openapi.json")
    document: dict[str, Any] = response.json()
    return document


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"]} if "$ref" in node else set()
        return found.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def resolve(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def conforms(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits a schema, for the few keywords that the document uses."""
    if "$ref" in schema:
        return conforms(document, resolve(document, schema["$ref"]), value)
    if "anyOf" in schema:
        return any(conforms(document, option, value) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if "const" in schema:
        return bool(value == schema["const"])
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if schema["type"] == "array":
        return all(conforms(document, schema["items"], item) for item in value)
    if schema["type"] == "object" and "properties" in schema:
        properties = schema["properties"]
        return (set(schema.get("required", ())) <= set(value) <= set(properties)) and all(
            conforms(document, properties[name], item) for name, item in value.items()
        )
    return True


def test_the_description_is_whole() -> None:
    async def main() -> None:
        async with gate() as running:
            document = await described(running)
        assert document["openapi"] == "3.1.0"
        for reference in references(document):
            assert resolve(document, reference)
        schemas = document["components"]["schemas"]
        assert set(schemas["Reason"]["enum"]) == set(Reason)
        assert schemas["BrowserAnswer"]["properties"]["reason"]["enum"] == list(COARSE)
        types = set(schemas["Problem"]["properties"]["type"]["enum"])
        assert types == {URN + name for name in KINDS}

    asyncio.run(main())


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    async def main() -> None:
        async with gate() as running:
            document = await described(running)
            for path, operations in document["paths"].items():
                for method in operations:
                    url = path.replace("{id}", "chk_1").replace("{path}", "x")
                    response = await running.client.request(method, url, headers=BEARER)
                    problem = response.headers["content-type"] == "application/problem+json"
                    assert response.status_code != 405
                    if problem:
                        assert str(response.status_code) in operations[method]["responses"], path

    asyncio.run(main())


@pytest.mark.parametrize(
    "email",
    ["jane@inbox.test", "nobody@inbox.test", "nonsense", "anyone@catchall.test", "jane@gmial.com"],
)
def test_answers_are_as_described(email: str) -> None:
    async def main() -> None:
        async with gate() as running:
            document = await described(running)
            schemas = document["components"]["schemas"]
            page = await running.page(email)
            answers = {
                "FullAnswer": (await running.check(email, explain=True)).json(),
                "BrowserAnswer": page.json(),
                "SiteverifyAnswer": await running.siteverify(email=email),
            }
            for name, answer in answers.items():
                assert conforms(document, schemas[name], answer), name
            refused = await running.siteverify(response="x")
            assert conforms(document, schemas["SiteverifyAnswer"], refused)
            again = await running.client.get(
                f"/v1/checks/{answers['FullAnswer']['id']}", headers=BEARER
            )
            assert conforms(document, schemas["FullAnswer"], again.json())
            problem = (await running.client.post("/v1/check")).json()
            described_as = document["components"]["responses"]["unsupported_media_type"]
            schema = described_as["content"]["application/problem+json"]["schema"]
            assert conforms(document, schema, problem)

    asyncio.run(main())


def test_requests_are_as_described() -> None:
    async def main() -> None:
        async with gate() as running:
            document = await described(running)
        body = document["components"]["schemas"]["CheckBody"]
        assert body["required"] == ["email"]
        assert body["additionalProperties"] is False

    asyncio.run(main())
