"""Keys, origins, hosts, limits: who may ask, from where, how often."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest

from tests.api.ground import (
    BEARER,
    ORIGIN,
    OTHER_BEARER,
    SECRET,
    SITEKEY,
    Gate,
    gate,
    settings,
    site,
)

ORIGINS = [
    ("the site's own", ORIGIN, True),
    ("another scheme", "http://www.example.com", False),
    ("another port", "https://www.example.com:8443", False),
    ("the default port, spelled out", "https://www.example.com:443", False),
    ("capitals", "HTTPS://WWW.EXAMPLE.COM", False),
    ("a subdomain", "https://a.www.example.com", False),
    ("the parent domain", "https://example.com", False),
    ("as a prefix", "https://www.example.com.evil.test", False),
    ("as a suffix", "https://evil-www.example.com", False),
    ("with a slash", ORIGIN + "/", False),
    ("with a path", ORIGIN + "/signup", False),
    ("with a user", "https://www.example.com@evil.test", False),
    ("null", "null", False),
    ("empty", "", False),
    ("a star", "*", False),
    ("punycode", "https://xn--www-example-com-9zb.test", False),
    ("two in one", f"{ORIGIN} https://evil.test", False),
    ("loopback, with no sandbox", "http://localhost:3000", False),
]
NO_SANDBOX = settings(sandbox={"enabled": False}, probe={"enabled": False})


@pytest.mark.parametrize(("name", "origin", "allowed"), ORIGINS, ids=[row[0] for row in ORIGINS])
def test_origins_match_exactly_or_not_at_all(name: str, origin: str, allowed: bool) -> None:
    async def main() -> None:
        async with gate(NO_SANDBOX) as running:
            for response in (
                await running.page("a", origin=origin),
                await preflight(running, origin),
            ):
                assert "origin" in response.headers["vary"].lower()
                assert "access-control-allow-credentials" not in response.headers
                if allowed:
                    assert response.status_code in (200, 204)
                    assert response.headers["access-control-allow-origin"] == origin
                else:
                    assert response.status_code == 403
                    assert not [name for name in response.headers if name.startswith("access-")]

    asyncio.run(main())


async def preflight(running: Gate, origin: str, path: str = "/v1/check") -> httpx.Response:
    headers = {"origin": origin, "access-control-request-method": "POST"}
    return await running.client.options(path, headers=headers)


@pytest.mark.parametrize("path", ["/v1/check", "/v1/prefetch"])
def test_preflight_says_what_a_page_may_do(path: str) -> None:
    async def main() -> None:
        async with gate() as running:
            headers = (await preflight(running, ORIGIN, path)).headers
            assert headers["access-control-allow-methods"] == "POST"
            assert headers["access-control-allow-headers"] == "authorization, content-type"
            assert headers["access-control-max-age"] == "600"

    asyncio.run(main())


def test_a_site_key_counts_in_the_header_too() -> None:
    async def main() -> None:
        async with gate() as running:
            headers = {"authorization": f"bearer  {SITEKEY}", "origin": ORIGIN}
            response = await running.client.post(
                "/v1/check", json={"email": "jane@inbox.test"}, headers=headers
            )
            assert response.json()["decision"] == "allow"
            assert "id" not in response.json()
            prefetch = await running.client.post(
                "/v1/prefetch", json={"domain": "inbox.test"}, headers=headers
            )
            assert prefetch.status_code == 204

    asyncio.run(main())


def test_a_secret_in_the_header_wins_over_a_site_key_in_the_body() -> None:
    async def main() -> None:
        async with gate() as running:
            response = await running.client.post(
                "/v1/check", json={"email": "a@inbox", "sitekey": SITEKEY}, headers=BEARER
            )
            assert response.json()["id"].startswith("chk_")

    asyncio.run(main())


def test_the_loopback_pages_of_a_development_site() -> None:
    async def main() -> None:
        development = settings([], store={"url": "memory:"})
        async with gate(development, base="http://127.0.0.1:8080") as running:
            assert running.engine.development_secret is not None
            key = running.engine.sites[0].site_key
            for origin, status in (
                ("http://localhost:3000", 200),
                ("http://127.0.0.1:8080", 200),
                ("https://[::1]:5173", 200),
                ("http://localhost", 200),
                ("http://localhost.evil.test", 403),
                ("http://127.0.0.1.evil.test", 403),
                ("http://localhost:3000x", 403),
                ("http://192.168.0.1:3000", 403),
            ):
                response = await running.page("a@inbox", origin=origin, sitekey=key)
                assert response.status_code == status, origin

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("localhost.:8080", 200),
        ("evil.test", 421),
        ("localhost.evil.test", 421),
        ("127.0.0.1.evil.test:8080", 421),
    ],
)
def test_the_development_site_answers_to_this_machines_names_only(host: str, status: int) -> None:
    async def main() -> None:
        async with gate(settings([]), base="http://127.0.0.1:8080") as running:
            response = await running.client.get("/healthz", headers={"host": host})
            assert response.status_code == status

    asyncio.run(main())


# -- limits ----------------------------------------------------------------------------------------


async def outcomes(running: Gate, times: int, **more: object) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(times):
        response = await running.page("jane@inbox.test", **more)  # type: ignore[arg-type]
        assert response.status_code == 200
        found[response.json()["reason"]] += 1
    return found


def test_a_browser_over_its_limit_is_let_on_softly() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 4})) as running:
            assert await outcomes(running, 6) == {"accepted_email": 4, "throttled": 2}
            answer = (await running.page("jane@inbox.test")).json()
            assert (answer["decision"], answer["final"]) == ("allow", False)
            assert answer["token"]
            assert (await running.page("jane@@inbox")).json()["reason"] == "invalid_email"

    asyncio.run(main())


def test_a_throttled_token_is_looked_into_by_siteverify() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 1})) as running:
            await running.page("jane@inbox.test")
            token = (await running.page("nobody@inbox.test")).json()["token"]
            answer = await running.siteverify(response=token, email="nobody@inbox.test")
            assert (answer["success"], answer["reason"]) == (False, "rejected_email")
            token = (await running.page("jane@inbox.test")).json()["token"]
            answer = await running.siteverify(response=token)
            assert (answer["success"], answer["reason"]) == (True, "throttled")

    asyncio.run(main())


def test_without_an_origin_a_quarter_of_the_allowance() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 8})) as running:
            found = await outcomes(running, 4, origin=None)
            assert found == {"accepted_email": 2, "throttled": 2}
            assert await outcomes(running, 1) == {"accepted_email": 1}

    asyncio.run(main())


def test_200_at_once_on_a_limit_of_10() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 10})) as running:
            answers = await asyncio.gather(*(running.page("jane@inbox.test") for _ in range(200)))
            reasons = Counter(answer.json()["reason"] for answer in answers)
            assert reasons == {"accepted_email": 10, "throttled": 190}

    asyncio.run(main())


def test_one_64_is_one_client_and_the_next_is_another() -> None:
    async def main() -> None:
        tables = settings(
            limits={"client_per_minute": 3}, server={"trusted_proxies": ["10.0.0.0/8"]}
        )
        async with gate(tables, client=("10.0.0.1", 1)) as running:
            found: Counter[str] = Counter()
            for number in range(10):
                headers = {"x-forwarded-for": f"2001:db8:0:1::{number:x}"}
                found += await outcomes(running, 1, headers=headers)
            assert found == {"accepted_email": 3, "throttled": 7}
            headers = {"x-forwarded-for": "2001:db8:0:2::1"}
            assert await outcomes(running, 1, headers=headers) == {"accepted_email": 1}

    asyncio.run(main())


def test_a_stranger_cannot_choose_what_it_is_counted_as() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 2})) as running:
            found: Counter[str] = Counter()
            for number in range(5):
                found += await outcomes(running, 1, headers={"x-forwarded-for": f"1.1.1.{number}"})
            assert found == {"accepted_email": 2, "throttled": 3}

    asyncio.run(main())


def test_header_lines_of_two_proxies_are_one_list() -> None:
    async def main() -> None:
        tables = settings(
            limits={"client_per_minute": 1}, server={"trusted_proxies": ["10.0.0.0/8"]}
        )
        async with gate(tables, client=("10.0.0.1", 1)) as running:
            reasons = []
            for first in ("6.6.6.6", "7.7.7.7"):
                response = await running.client.post(
                    "/v1/check",
                    data={"sitekey": SITEKEY, "email": "jane@inbox.test"},
                    headers=[
                        ("origin", ORIGIN),
                        ("x-forwarded-for", first),
                        ("x-forwarded-for", "198.51.100.7"),
                    ],
                )
                reasons.append(response.json()["reason"])
            assert reasons == ["accepted_email", "throttled"]

    asyncio.run(main())


def test_a_public_flood_leaves_the_sites_server_and_other_sites_alone() -> None:
    async def main() -> None:
        async with gate(settings(limits={"site_per_minute": 2})) as running:
            assert (await outcomes(running, 5))["throttled"] == 3
            assert (await running.check("jane@inbox.test")).status_code == 200
            other = await running.client.post(
                "/v1/check", json={"email": "jane@inbox.test"}, headers=OTHER_BEARER
            )
            assert other.json()["reason"] == "accepted_email"

    asyncio.run(main())


def test_prefetches_do_not_eat_the_allowance_of_checks() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 2})) as running:
            for _ in range(5):
                response = await running.client.post(
                    "/v1/prefetch",
                    data={"sitekey": SITEKEY, "domain": "inbox.test"},
                    headers={"origin": ORIGIN},
                )
                assert response.status_code == 204
            assert await outcomes(running, 2) == {"accepted_email": 2}

    asyncio.run(main())


def test_remoteip_counts_as_that_client() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 2})) as running:
            statuses = [
                (await running.check("jane@inbox.test", remoteip="198.51.100.9")).status_code
                for _ in range(3)
            ]
            assert statuses == [200, 200, 429]
            other = await running.check("jane@inbox.test", remoteip="198.51.100.10")
            assert other.status_code == 200
            assert (await running.check("jane@inbox.test")).status_code == 200

    asyncio.run(main())


def test_a_site_without_origins_has_no_pages() -> None:
    async def main() -> None:
        async with gate(settings([site(origins=())])) as running:
            assert (await running.page("a@inbox")).status_code == 403
            assert (await running.page("a@inbox", origin=None)).status_code == 200

    asyncio.run(main())


def test_secrets_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    async def main() -> bytes:
        async with gate() as running:
            await running.check("jane@inbox.test")
            await running.siteverify(response="x")
            await running.client.post(f"/v1/check?secret={SECRET}")
        return bytes(running.written)

    assert SECRET.encode() not in asyncio.run(main())
    assert SECRET not in "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("httpx")
    )
