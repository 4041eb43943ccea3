"""F: what a page may learn, from where, and how often."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gate import widget
from gate.api.guard import NETWORK_CLIENTS
from gate.api.requests import Request
from gate.cli import main as cli
from gate.testing import HostRules, MailHost
from tests.api.ground import (
    BEARER,
    ORIGIN,
    OTHER_ORIGIN,
    SITEKEY,
    Gate,
    gate,
    settings,
    site,
)
from tests.lateworld import Place
from tests.security.ground import gated
from tests.security.process import port_said
from tests.security.timing import answers_cannot_be_told_apart
from tests.test_server import HOST

DOMAINS: Final = 100
PAIRS: Final = 200
MANY: Final = {"client_per_minute": 1_000_000, "site_per_minute": 1_000_000}


@asynccontextmanager
async def town(**tables: Any) -> AsyncIterator[tuple[Gate, MailHost]]:
    """A hundred domains, each with its own address, on one mail server; `user…` exist there."""
    rules = HostRules(users=[f"user{n}" for n in range(2 * PAIRS)])
    async with MailHost(rules) as host, gated({}, limits=MANY, **tables) as (running, here):
        settle(here, host)
        yield running, host


def settle(here: Place, host: MailHost) -> None:
    for number in range(DOMAINS):
        here.zones[f"d{number}.test"] = f"MX 0 m.d{number}.test"
        here.zones[f"m.d{number}.test"] = f"A 9.{number}.1.1"
        here.seam.add(f"9.{number}.1.1", host.address)


HIDING: Final = [site(reveal="domain")]


def bare(answer: httpx.Response) -> tuple[int, dict[str, str], dict[str, Any], int]:
    """Status, headers, body without what is new in each answer, and length."""
    body = answer.json()
    for name in ("token", "id"):
        body.pop(name, None)
    return answer.status_code, dict(answer.headers), body, len(answer.content)


def test_F1__with_reveal_domain_two_hundred_pairs_are_answered_alike() -> None:
    """A mailbox that exists and one that does not, of the same name length, asked twice each."""

    async def main() -> None:
        async with town(sites=HIDING) as (running, host):
            for number in range(PAIRS):
                domain = f"d{number % DOMAINS}.test"
                one = await running.page(f"user{number}@{domain}", timeout_ms="3000")
                other = await running.page(f"none{number}@{domain}", timeout_ms="3000")
                assert bare(one) == bare(other), number
                assert one.json()["reason"] == "unconfirmed"
            asked = [line for c in host.connections for line in c.lines if "RCPT" in line]
            assert len([line for line in asked if "<none" in line]) > PAIRS // 2

    asyncio.run(main())


def test_F1__with_reveal_domain_the_time_does_not_tell_either() -> None:
    """Of remembered verdicts, where nothing else takes time; and of those found just now."""

    async def main() -> None:
        async with town(sites=HIDING) as (running, _):
            await running.page("user1@d1.test", timeout_ms="3000")
            await running.page("none1@d1.test", timeout_ms="3000")
            await answers_cannot_be_told_apart(
                lambda _: running.page("user1@d1.test"),
                lambda _: running.page("none1@d1.test"),
                times=500,
            )

            async def fresh(who: str, number: int) -> None:
                await running.page(f"{who}{number}@d{number % DOMAINS}.test", timeout_ms="3000")

            await answers_cannot_be_told_apart(
                lambda n: fresh("user", n), lambda n: fresh("none", n), times=100, by=0.08
            )

    asyncio.run(main())


def test_F1__with_reveal_mailbox_the_budgets_end_a_run_of_a_thousand() -> None:
    async def main() -> None:
        async with (
            MailHost(HostRules(users=["jane"])) as host,
            gated({}) as (running, here),
        ):
            settle(here, host)
            reasons: Counter[str] = Counter()
            for number in range(1000):
                told = await running.page(f"m{number}@d{number % DOMAINS}.test", timeout_ms="3000")
                assert told.status_code == 200
                reasons[told.json()["reason"]] += 1
                if number == 60:
                    asked = sum("RCPT" in line for c in host.connections for line in c.lines)
            assert reasons["rejected_email"] <= 60
            assert reasons["throttled"] >= 940
            after = sum("RCPT" in line for c in host.connections for line in c.lines)
            assert after == asked

    asyncio.run(main())


def test_F2__asked_twice_a_page_is_told_the_same() -> None:
    async def main() -> None:
        async with gate() as running:
            for email in ("jane@inbox.test", "nobody@inbox.test", "a@nxdomain.test"):
                first, second = await running.page(email), await running.page(email)
                assert bare(first) == bare(second)

    asyncio.run(main())


# -- F3, F4 ----------------------------------------------------------------------------------------


def test_F3__the_site_key_on_another_page_is_refused_and_unreadable_there() -> None:
    async def main() -> None:
        async with gate() as running:
            for origin in ("https://evil.test", OTHER_ORIGIN, "null"):
                answer = await running.page("jane@inbox.test", origin=origin)
                assert answer.status_code == 403
                assert not [name for name in answer.headers if name.startswith("access-control")]

    asyncio.run(main())


def test_F3__without_an_origin_it_has_the_lowest_quota() -> None:
    async def main() -> None:
        async with gate(settings(limits={"client_per_minute": 8})) as running:
            reasons = [
                (await running.page("jane@inbox.test", origin=origin)).json()["reason"]
                for origin in [None] * 4 + [ORIGIN]
            ]
            assert reasons == ["accepted_email"] * 2 + ["throttled"] * 2 + ["accepted_email"]

    asyncio.run(main())


GOOD: Final = "https://good.test"
EXPECTED: Final = [
    (GOOD, True),
    ("null", False),
    ("https://good.test.evil.test", False),
    ("https://evil.test/https://good.test", False),
    ("https://evilgood.test", False),
    ("https://good.test:8443", False),
    ("https://good.test:443", False),
    ("HTTPS://GOOD.TEST", False),
    ("https://GOOD.test", False),
    ("http://good.test", False),
    ("https://www.good.test", False),
    ("https://good.test/", False),
    ("https://good.test.", False),
    ("https://user@good.test", False),
    ("https://xn--good-test-9zb", False),
    ("https://xn--gd-ija.test", False),
    ("https://good.test, https://evil.test", False),
    ("", False),
]


def test_F4__an_origin_matches_exactly_or_not_at_all() -> None:
    async def main() -> None:
        sites = [site(origins=(GOOD,))]
        closed = settings(sites, sandbox={"enabled": False}, probe={"enabled": False})
        async with gate(closed) as running:
            for origin, allowed in EXPECTED:
                asked = {"origin": origin, "access-control-request-method": "POST"}
                for answer in (
                    await running.page("a", origin=origin),
                    await running.client.options("/v1/check", headers=asked),
                ):
                    headers = answer.headers
                    assert "origin" in headers["vary"].lower()
                    assert "access-control-allow-credentials" not in headers
                    readable = headers.get("access-control-allow-origin")
                    assert readable == (origin if allowed else None), origin
                    assert (answer.status_code < 300) is allowed
                    if answer.status_code == 204:
                        assert headers["access-control-max-age"] == "600"

    asyncio.run(main())


# -- F5, F6, F7 ------------------------------------------------------------------------------------

REAL: Final = "198.51.100.9"
PROXY: Final = "10.0.0.1"
# name: other end of the socket, X-Forwarded-For lines, whom it counts as
FORWARDED: Final[dict[str, tuple[str, list[str], str]]] = {
    "a stranger who writes it himself": (REAL, ["1.2.3.4"], REAL),
    "none at all": (PROXY, [], PROXY),
    "one hop": (PROXY, [REAL], REAL),
    "the client wrote one, too": (PROXY, [f"6.6.6.6, {REAL}"], REAL),
    "three lines": (PROXY, ["6.6.6.6", "7.7.7.7", REAL], REAL),
    "two trusted hops": (PROXY, [f"{REAL}, 10.0.0.9"], REAL),
    "with a port": (PROXY, ["1.2.3.4:99"], "1.2.3.4"),
    "in brackets": (PROXY, ["[2001:db8::1]:99"], "2001:db8::/64"),
    "IPv4 in IPv6": (PROXY, ["::ffff:1.2.3.4"], "1.2.3.4"),
    "loopback in brackets": (PROXY, ["[::1]"], "::/64"),
    "unknown": (PROXY, ["unknown"], PROXY),
    "behind unknown": (PROXY, [f"unknown, {REAL}"], REAL),
    "hidden": (PROXY, ["_hidden"], PROXY),
    "nothing": (PROXY, [""], PROXY),
    "commas": (PROXY, [",,,,"], PROXY),
    "10 kB of the client's": (PROXY, ["6.6.6.6, " * 1100 + REAL], REAL),
    "10 kB of trusted hops": (PROXY, ["10.0.0.2, " * 1000], PROXY),
    "a name": (PROXY, ["localhost"], PROXY),
    "a zone": (PROXY, ["fe80::1%eth0"], "fe80::/64"),
    "beyond ASCII": (PROXY, ["\xb9.2.3.4"], PROXY),
}


@pytest.mark.parametrize("name", FORWARDED)
def test_F5__only_what_a_trusted_hop_wrote_is_believed(name: str) -> None:
    peer, lines, counted = FORWARDED[name]

    async def main() -> None:
        async with gate(settings(server={"trusted_proxies": ["10.0.0.0/8"]})) as running:
            raw = [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]
            raw += [(b"forwarded", b"for=9.9.9.9")]
            guard = running.app._guard(running.engine)
            begun = time.perf_counter()
            assert guard.client(Request(raw, peer, 0.0)) == counted
            assert time.perf_counter() - begun < 0.05

    asyncio.run(main())


@pytest.mark.parametrize("network", ["*", "0.0.0.0/0", "::/0"])
def test_F5__to_trust_everybody_is_refused_at_start(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(f'[server]\ntrusted_proxies = ["{network}"]\n')
    assert cli(["serve", "--config", str(path)]) == 2
    assert "server.trusted_proxies" in capsys.readouterr().err


async def passed(running: Gate, clients: list[str]) -> int:
    """How many of these clients' requests, all at once, were looked into."""
    answers = await asyncio.gather(
        *(running.page("jane@inbox.test", headers={"x-forwarded-for": ip}) for ip in clients)
    )
    return sum(answer.json()["reason"] != "throttled" for answer in answers)


def behind_a_proxy(most: int) -> Any:
    tables = settings(
        limits={"client_per_minute": most}, server={"trusted_proxies": ["10.0.0.0/8"]}
    )
    return gate(tables, client=(PROXY, 1))


def test_F6__a_thousand_addresses_of_one_64_are_one_client() -> None:
    async def main() -> None:
        async with behind_a_proxy(10) as running:
            clients = [f"2001:db8:7:1:{n:x}::{n:x}" for n in range(1000)]
            assert await passed(running, clients) == 10
            assert await passed(running, ["2001:db8:7:2::1"]) == 1

    asyncio.run(main())


def test_F6__a_thousand_64s_of_one_48_are_sixteen_clients() -> None:
    async def main() -> None:
        async with behind_a_proxy(10) as running:
            clients = [f"2001:db8:7:{n:x}::1" for n in range(1000)]
            assert await passed(running, clients) == NETWORK_CLIENTS * 10
            assert await passed(running, ["2001:db8:8:1::1"]) == 1
            assert await passed(running, ["198.51.100.77"]) == 1

    asyncio.run(main())


def test_F6__of_two_hundred_at_once_on_a_bucket_of_ten_exactly_ten_pass() -> None:
    async def main() -> None:
        async with behind_a_proxy(10) as running:
            assert await passed(running, [REAL] * 200) == 10

    asyncio.run(main())


FLOODED: Final = """
import sys
from gate.server import serve
from gate.settings.read import parse
serve(parse({
    "store": {"url": "memory:"},
    "sandbox": {"enabled": True},
    "dns": {"servers": ["127.0.0.1:9"]},
    "server": {"port": 0, "admin_port": 0},
    "limits": {"client_per_minute": 60, "site_per_minute": 60},
    "site": [{"name": "main", "site_key": sys.argv[1], "secret_hash": sys.argv[2],
              "origins": ["https://www.example.com"]}],
}))
"""


@asynccontextmanager
async def small_gate() -> AsyncIterator[httpx.AsyncClient]:
    """A gate in a process of its own, with a site that has sixty public checks a minute."""
    digest = site()["secret_hash"]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FLOODED, SITEKEY, digest, stderr=subprocess.PIPE
    )
    assert child.stderr is not None
    try:
        async with asyncio.timeout(15):
            port = None
            while port is None:
                port = port_said((await child.stderr.readline()).decode())
        drain = asyncio.create_task(child.stderr.read())
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client:
            yield client
    finally:
        child.kill()
        await drain
        await child.wait()


async def servers_calls(client: httpx.AsyncClient, number: int) -> list[float]:
    """How long so many calls of the site's server took, at an even pace."""
    took = []
    for _ in range(number):
        begun = time.perf_counter()
        answer = await client.post("/v1/check", json={"email": "jane@inbox.test"}, headers=BEARER)
        took.append(time.perf_counter() - begun)
        assert (answer.status_code, answer.json()["reason"]) == (200, "accepted_email")
        await asyncio.sleep(0.01)
    return sorted(took)


def test_F7__a_flood_of_the_public_key_is_not_felt_by_the_sites_server() -> None:
    """Ten times the site's allowance: the pages are told so softly, the server has its own."""

    async def main() -> None:
        async with small_gate() as client:
            idle = await servers_calls(client, 60)
            data = {"sitekey": SITEKEY, "email": "jane@inbox.test"}

            async def flood() -> Counter[str]:
                reasons: Counter[str] = Counter()
                for _ in range(300):
                    answer = await client.post("/v1/check", data=data, headers={"origin": ORIGIN})
                    assert answer.status_code == 200
                    reasons[answer.json()["reason"]] += 1
                return reasons

            flooding = asyncio.create_task(flood())
            beside = await servers_calls(client, 60)
            reasons = await flooding
            assert reasons["throttled"] >= 200
            assert beside[58] < max(1.2 * idle[58], 0.1)

    asyncio.run(main())


# -- F8 --------------------------------------------------------------------------------------------

ROUTES: Final = [
    ("POST", "/v1/check"),
    ("POST", "/v1/prefetch"),
    ("POST", "/v1/siteverify"),
    ("OPTIONS", "/v1/check"),
    ("GET", "/v1/check"),
    ("GET", "/v1/checks/chk_0"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/gate.js"),
    ("GET", "/v1/gate.json"),
    ("GET", "/"),
    ("POST", "/try"),
    ("POST", "/v1/hooks/okta"),
    ("DELETE", "/v1/subject"),
    ("GET", "/nowhere"),
    ("BREW", "/"),
]


def test_F8__every_route_tells_browsers_to_be_strict() -> None:
    async def main() -> None:
        async with gate() as running:
            for method, path in ROUTES:
                answer = await running.client.request(method, path, headers=BEARER)
                assert answer.headers["x-content-type-options"] == "nosniff", path
                policy = answer.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'"), path
                assert "unsafe-eval" not in policy and "unsafe-inline" not in policy
                if not path.startswith("/v1/gate.js"):  # the script and its hash are public
                    assert "no-store" in answer.headers["cache-control"], path
                assert "server" not in answer.headers

    asyncio.run(main())


def test_F8__the_bundle_runs_no_text_and_has_the_hash_that_is_documented() -> None:
    text = widget.script().body.decode()
    words = ("innerHTML", "outerHTML", "eval(", "document.write", "insertAdjacentHTML")
    for word in (*words, "new Function", "setTimeout('", "javascript:", "__proto__"):
        assert word not in text

    async def main() -> None:
        async with gate() as running:
            said = (await running.client.get("/v1/gate.json")).json()
            assert json.dumps(said).count("sha384-") >= 1

    asyncio.run(main())
