"""A: where a stranger's DNS, URL or literal may lead. "Nobody came" is what the listener says."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest

from gate.cli import main as cli
from gate.dns import Resolver
from gate.egress import (
    WEB_PORTS,
    Dialer,
    Source,
    Unroutable,
    classify,
    own_addresses,
)
from gate.reason import GateError
from gate.special import special_networks
from gate.testing import FakeZones, HostRules, ScriptedMta, transcript
from gate.testing.zones import Turns, Value
from gate.webhooks.post import Poster, web_context
from tests import test_layers
from tests.lateworld import OK, Receiver, status
from tests.mailworld import mail_world
from tests.security.ground import blocked, blocked_as, catch_all
from tests.test_egress import ALLOWED, BLOCKED, dial_and_close, listening
from tests.webhooks.test_post import post
from tests.webhooks.test_settings import settings as webhook_settings

ROOT: Final = Path(__file__).parents[2]
VECTORS: Final = [text for text in BLOCKED if "%" not in text]
"""Zones cannot stand in a record; they are dialled below."""
JANE: Final = HostRules(users=["jane"])


def record(address: str) -> str:
    return f"{'AAAA' if ':' in address else 'A'} {address}"


def domains(plan: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """A domain for each vector, `v0.test` and on, whose MX has these records."""
    zones: dict[str, Any] = {}
    for number, records in enumerate(plan.values()):
        zones[f"v{number}.test"] = f"MX 0 m.v{number}.test"
        zones[f"m.v{number}.test"] = list(records)
    return zones


async def asked(zones: dict[str, Any], number: int) -> tuple[list[str], float, int]:
    """The reasons, how many addresses the guard refused, and how many connections came."""
    async with catch_all() as seam, mail_world({}, zones, seam=seam) as world:
        before = blocked()
        reasons = [await world.reason(f"jane@v{n}.test") for n in range(number)]
        return reasons, blocked() - before, seam.accepted


# -- A1, A2, A8: what the records say --------------------------------------------------------------


def test_A1__no_vector_is_dialled_from_an_address_record_and_each_is_counted() -> None:
    plan = {text: (record(text),) for text in VECTORS}
    reasons, refused, came = asyncio.run(asked(domains(plan), len(plan)))
    assert [t for t, reason in zip(plan, reasons, strict=True) if reason != "mx_unroutable"] == []
    assert (refused, came) == (len(plan), 0)


def test_A1__no_vector_is_dialled_where_the_domain_is_its_own_mail_host() -> None:
    zones = {f"v{number}.test": record(text) for number, text in enumerate(VECTORS)}
    reasons, refused, came = asyncio.run(asked(zones, len(VECTORS)))
    assert set(reasons) == {"mx_unroutable"}
    assert (refused, came) == (len(VECTORS), 0)


def test_A1__no_vector_is_dialled_as_the_name_of_an_mx() -> None:
    zones = {f"v{number}.test": f"MX 0 {text}." for number, text in enumerate(VECTORS)}
    reasons, _, came = asyncio.run(asked(zones, len(VECTORS)))
    assert set(reasons) == {"dns_error"}
    assert came == 0


def test_A1__an_alias_of_the_mail_host_hides_nothing() -> None:
    zones: dict[str, Any] = {}
    for number, text in enumerate(VECTORS):
        zones[f"v{number}.test"] = f"MX 0 m.v{number}.test"
        zones[f"m.v{number}.test"] = f"CNAME n.v{number}.test"
        zones[f"n.v{number}.test"] = record(text)
    reasons, _, came = asyncio.run(asked(zones, len(VECTORS)))
    assert set(reasons) == {"mx_unroutable"}
    assert came == 0


def test_A1__public_neighbours_are_dialled() -> None:
    plan = {text: (record(text),) for text in ALLOWED}
    reasons, refused, came = asyncio.run(asked(domains(plan), len(plan)))
    assert set(reasons) == {"no_connect"}  # the listener hangs up on everybody
    assert refused == 0 and came >= len(ALLOWED)


def random_special(number: int) -> list[IPv4Address | IPv6Address]:
    """As many addresses of denied networks, every network in turn, and of each its edges first."""
    dice = random.Random(2)
    denied = [row.network for row in special_networks() if not row.egress.allowed]
    found = [network[place] for network in denied if network.prefixlen for place in (0, -1)]
    while len(found) < number:
        network = denied[len(found) % len(denied)]
        ip = network[dice.randrange(network.num_addresses)]
        if not classify(ip).allowed or network.prefixlen:
            found.append(ip)
    return found


def test_A1__fifty_thousand_random_special_addresses_are_none_that_may_be_dialled() -> None:
    dialer = Dialer(sources=[Source(None, "gate.test")])
    let = [ip for ip in random_special(50_000) if dialer.classify(ip).allowed]
    assert let == []


def test_A1__a_thousand_of_them_are_given_to_the_dialler_and_nobody_comes() -> None:
    async def main() -> None:
        async with listening() as (where, accepted):
            dialer = Dialer(sources=[Source(None, "gate.test")], seam=lambda ip, port: where)
            for ip in random_special(50_000)[::50]:
                with pytest.raises(Unroutable):
                    await dial_and_close(dialer, [ip])
            assert accepted == []

    asyncio.run(main())


def test_A1__the_table_and_the_registries_agree() -> None:
    """The copies of the registries are data; where there is a network, --online asks IANA."""
    done = subprocess.run(
        [ROOT / "scripts" / "refresh-special-addresses"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


BEYOND_IANA: Final = """
100.100.100.200/32 168.63.129.16/32 169.254.169.254/32 192.0.0.192/32 224.0.0.0/4 233.252.0.0/24
::/0 ::/96 ::ffff:0:0:0/96 2001:1::/32 3ffe::/16 fd00:ec2::254/128 fd20:ce::254/128 fec0::/10
ff00::/8 192.0.0.170/31
""".split()


def test_A1__what_the_table_has_beyond_the_registries_is_known() -> None:
    """Multicast, old forms, clouds, and what nobody was given: else it is a row too many."""
    registered = set()
    for version in (4, 6):
        path = ROOT / "scripts" / "lock" / f"iana-ipv{version}-special-registry-1.csv"
        for line in path.read_text("utf-8").splitlines()[1:]:
            first = line.strip('"').split(",")[0].split()
            if first and "/" in first[0]:
                registered.add(first[0])
    denied = {str(row.network) for row in special_networks() if not row.egress.allowed}
    assert denied - registered == set(BEYOND_IANA)


# How IPv4 can hide in IPv6, and the class that is counted for it.
EMBEDDED: Final = {
    "::ffff:127.0.0.1": "embedded",
    "64:ff9b::7f00:1": "embedded",
    "64:ff9b:1::7f00:1": "embedded",
    "2002:7f00:1::1": "embedded",
    "2001:0:7f00:1::1": "embedded",
    "::127.0.0.1": "embedded",
    "::ffff:0:127.0.0.1": "embedded",
    "fe80::5efe:127.0.0.1": "link_local",
    "2606:4700::5efe:127.0.0.1": "embedded",
    "::ffff:8.8.8.8": "embedded",
    "64:ff9b::808:808": "embedded",
    "2002:808:808::1": "embedded",
}


@pytest.mark.parametrize("text", EMBEDDED)
def test_A2__ipv4_in_ipv6_is_denied_whatever_it_holds(text: str) -> None:
    before = blocked_as(EMBEDDED[text])
    reasons, refused, came = asyncio.run(asked(domains({text: (record(text),)}), 1))
    assert (reasons, refused, came) == (["mx_unroutable"], 1, 0)
    assert blocked_as(EMBEDDED[text]) == before + 1


# -- A3 --------------------------------------------------------------------------------------------

NUMERIC: Final = {
    "an address": "127.0.0.1.",
    "a number": "2130706433.",
    "a short address": "127.1.",
    "hexadecimal": "0x7f.1.",
    "octal": "0177.0.0.1.",
    "in brackets": "[127.0.0.1].",
    "circled digits": r"\226\145\160\226\145\161.1.",
    "one label": "localhost.",
    "a space": r"mx\032one.v0.test.",
    "a NUL": r"mx\000one.v0.test.",
    "a full stop in a label": r"127\.0\.0\.1.v0.test.",
    "an @": r"jane\@mx.v0.test.",
}


@pytest.mark.parametrize("name", NUMERIC)
def test_A3__what_is_no_host_name_is_not_even_asked_for(name: str) -> None:
    async def main() -> None:
        zones = {"v0.test": f"MX 0 {NUMERIC[name]}", "*": "A 8.8.8.8"}
        async with catch_all() as seam, mail_world({}, zones, seam=seam) as world:
            assert await world.reason("jane@v0.test") == "dns_error"
            assert not [asked for asked in world.zones.queries if asked.endswith((" A", " AAAA"))]
            assert seam.accepted == 0

    asyncio.run(main())


# -- A4, A5: between look-up and connect -----------------------------------------------------------


def test_A4__of_a_name_that_moves_inside_the_address_that_was_vetted_is_dialled() -> None:
    """TTL 0: a public address first, then each vector. The listener of all others stays alone."""

    async def main() -> None:
        plan: dict[str, Any] = {}
        for number, text in enumerate(VECTORS):
            public = "0 AAAA 2606:4700:4700::1111" if ":" in text else "0 A 8.8.8.8"
            plan[f"v{number}.test"] = f"0 MX 0 m.v{number}.test"
            plan[f"m.v{number}.test"] = 'TXT ""'
            plan[f"m.v{number}.test {record(text).split()[0]}"] = Turns(public, f"0 {record(text)}")
        async with (
            ScriptedMta(transcript("accepted"), strict=False) as good,
            catch_all() as seam,
        ):
            seam.add("8.8.8.8", good.address)
            seam.add("2606:4700:4700::1111", good.address)
            async with mail_world({}, plan, seam=seam) as world:
                for number, text in enumerate(VECTORS):
                    assert await world.reason(f"jane@v{number}.test") == "accepted_email", text
                    assert await world.reason(f"joe@v{number}.test") == "mx_unroutable", text
            assert good.accepted == len(VECTORS)
            assert seam.accepted == 0

    asyncio.run(main())


def test_A4__a_peer_that_is_not_the_one_that_was_meant_is_dropped() -> None:
    """Something between us and the network leads a public address to this machine."""

    async def main() -> None:
        mine = next(ip for ip in own_addresses() if ip.version == 4)
        async with listening(str(mine)) as (where, accepted):
            dialer = Dialer(sources=[Source(None, "x")], seam=lambda ip, port: where, own=[mine])
            with pytest.raises(Unroutable):
                await dial_and_close(dialer, [mine])
            assert accepted == []

    asyncio.run(main())


def test_A5__of_a_mixed_set_only_the_public_address_is_dialled() -> None:
    async def main() -> None:
        for private in ("A 10.0.0.5", "A 127.0.0.1", "AAAA ::1", "AAAA 64:ff9b::a00:5"):
            zones = {"v0.test": "MX 0 m.v0.test", "m.v0.test": [private, "A 8.8.8.8"]}
            async with ScriptedMta(transcript("accepted"), strict=False) as good:
                async with catch_all() as seam:
                    seam.add("8.8.8.8", good.address)
                    before = blocked()
                    async with mail_world({}, zones, seam=seam) as world:
                        assert await world.reason("jane@v0.test") == "accepted_email"
                    assert blocked() - before >= 1
                    assert [str(ip) for ip in seam.dialled] == ["8.8.8.8"]
                    assert (good.accepted, seam.accepted) == (1, 0)

    asyncio.run(main())


# -- A6 to A9 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [0, 22, 80, 443, 465, 587, 2525, 6379])
def test_A6__another_port_is_a_value_error_and_no_socket(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a socket was made")

    async def main() -> None:
        from gate.budget import Deadline

        dialer = Dialer(sources=[Source(None, "x")])
        monkeypatch.setattr(socket, "socket", no_socket)
        try:
            await dialer.dial(
                asyncio.Protocol,
                [ip_address("8.8.8.8")],
                source=dialer.sources[0],
                deadline=Deadline.after(1.0, asyncio.get_running_loop().time),
                port=port,
            )
        finally:
            monkeypatch.undo()

    with pytest.raises(ValueError, match="port 25 only"):
        asyncio.run(main())


def test_A7__an_mx_that_is_this_machine_is_not_dialled() -> None:
    async def main() -> None:
        mine = [ip for ip in own_addresses() if ip.version == 4]
        assert mine
        async with listening() as (where, accepted):
            public = ip_address("8.8.8.8")
            dialer = Dialer(
                sources=[Source(None, "x")], seam=lambda ip, port: where, own=[*mine, public]
            )
            for ip in (*mine, public):
                with pytest.raises(Unroutable):
                    await dial_and_close(dialer, [ip])
            assert accepted == []

    asyncio.run(main())


def test_A7__a_banner_with_our_own_name_is_a_loop() -> None:
    script = transcript("own_banner").replace("gate.test", "gate.example.com")

    async def main() -> None:
        async with mail_world({"a.test": ScriptedMta(script, strict=False)}) as world:
            assert await world.reason("jane@a.test") == "mx_unroutable"

    asyncio.run(main())


CLOUDS: Final = (
    "168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd20:ce::254 169.254.169.254"
)


@pytest.mark.parametrize("text", CLOUDS.split())
def test_A8__metadata_services_are_never_reached(text: str) -> None:
    before = blocked_as("metadata")
    reasons, _, came = asyncio.run(asked(domains({text: (record(text),)}), 1))
    assert (reasons, came, blocked_as("metadata") - before) == (["mx_unroutable"], 0, 1)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "0.0.0.0/00", "all", "*", ""])
def test_A9__to_allow_every_address_is_exit_2_and_names_the_key(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(f'[egress]\nallow = ["{network}"]\n')
    assert cli(["serve", "--config", str(path)]) == 2
    assert "egress.allow" in capsys.readouterr().err


def test_A9__what_is_allowed_is_said_at_start_and_nothing_else_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from gate.engine import open_engine
    from tests.api.ground import settings

    async def main() -> None:
        config = settings(
            sandbox={"enabled": False}, egress={"allow": ["10.1.0.0/16"]}, probe={"helo": "a.b"}
        )
        async with open_engine(config):
            pass

    asyncio.run(main())
    assert "10.1.0.0/16" in caplog.text
    allow = [ip_network("10.1.0.0/16")]
    assert classify(ip_address("10.1.2.3"), allow=allow).allowed
    assert not classify(ip_address("10.2.0.1"), allow=allow).allowed
    assert not classify(ip_address("fe80::1%eth0"), allow=[ip_network("fe80::/10")]).allowed


# -- A10 to A12 ------------------------------------------------------------------------------------


def test_A10__a_hundred_mx_names_cost_ten_questions_and_two_hosts() -> None:
    async def main() -> None:
        zones: dict[str, Any] = {"a.test": [f"MX 10 ns{n}.victim.test" for n in range(100)]}
        zones["*.victim.test"] = "A 8.8.8.8"
        async with catch_all() as seam, mail_world({}, zones, seam=seam) as world:
            answer = await world.check("jane@a.test", 2.0)
            await world.landed()
            assert answer.verdict.reason == "no_connect"
            assert answer.duration_ms < 2000
            assert len(world.zones.queries) <= 10
            assert seam.accepted <= 2

    asyncio.run(main())


URLS: Final = """
https://127.0.0.1/ https://[::1]/ https://[::ffff:169.254.169.254]/ https://2130706433/ https://0x7f.1/
https://a.test:6379/ http://a.test/ https://user@a.test/ https://user:pass@a.test/ https://localhost/
gopher://a.test/ file:///etc/passwd https://a.test:25/ https:///x //a.test/ https://a.test%00.b.test/
https://a.test\\@127.0.0.1/ https://127.1/
""".split()


@pytest.mark.parametrize("url", URLS)
def test_A11__a_webhook_url_that_leads_astray_is_refused_at_start(url: str) -> None:
    with pytest.raises(GateError, match="url"):
        webhook_settings(url=url)


def test_A11__no_vector_is_posted_to_through_a_name() -> None:
    async def main() -> None:
        async with catch_all() as seam:
            for text in VECTORS:
                found = await post(seam, {"hook.test": record(text)})
                assert found.failure.startswith("blocked: "), text
            assert seam.accepted == 0

    asyncio.run(main())


def test_A11__a_name_that_moves_inside_is_posted_to_once() -> None:
    async def main() -> None:
        async with Receiver(tls=False) as receiver, catch_all() as seam, AsyncExitStack() as stack:
            seam.add("8.8.8.8", receiver.address, 80)
            plan: dict[str, Value] = {
                "hook.test A": Turns("0 A 8.8.8.8", "0 A 127.0.0.1"),
                "hook.test": 'TXT ""',
            }
            zones = await stack.enter_async_context(FakeZones(plan))
            clock = asyncio.get_running_loop().time
            resolver = Resolver(
                [zones.server], private_names=True, clock=clock, random=random.Random(1)
            )
            stack.push_async_callback(resolver.close)
            dialer = Dialer(sources=[Source(None, "")], seam=seam, ports=WEB_PORTS)
            poster = Poster(resolver=resolver, dialer=dialer, context=web_context(), clock=clock)
            first = await poster.post("http://hook.test/", {}, b"{}", 3.0)
            second = await poster.post("http://hook.test/", {}, b"{}", 3.0)
            assert first.status == 200
            assert second.failure.startswith("blocked: ")
            assert (receiver.connections, seam.accepted) == (1, 0)

    asyncio.run(main())


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_A11__a_redirect_to_the_metadata_service_is_an_answer_and_no_way(code: int) -> None:
    async def main() -> None:
        where = "location: http://169.254.169.254/latest/meta-data/\r\n"
        async with Receiver(status(code, where), OK, tls=False) as receiver, catch_all() as seam:
            seam.add("8.8.8.8", receiver.address, 80)
            found = await post(seam, {"hook.test": "A 8.8.8.8"}, "http://hook.test/")
            assert (found.status, receiver.connections, seam.accepted) == (code, 1, 0)

    asyncio.run(main())


def test_A12__nothing_but_the_mail_host_is_ever_asked() -> None:
    async def main() -> None:
        zones = {
            "_mta-sts.a.test": 'TXT "v=STSv1; id=1;"',
            "mta-sts.a.test": "A 8.8.8.8",
            "_smtp._tls.a.test": 'TXT "v=TLSRPTv1; rua=https://a.test/"',
            "default._bimi.a.test": 'TXT "v=BIMI1; l=https://a.test/logo.svg"',
            "autodiscover.a.test": "A 8.8.8.8",
        }
        async with catch_all() as seam, mail_world({"a.test": JANE}, zones, seam=seam) as world:
            assert await world.reason("jane@a.test") == "accepted_email"
            assert seam.accepted == 0
            asked = {name.split()[0] for name in world.zones.queries}
            assert not {n for n in asked if n.startswith(("mta-sts", "_mta", "default", "auto"))}
            assert seam.ports == [25]

    asyncio.run(main())


def test_A12__no_module_but_one_opens_connections() -> None:
    for name in test_layers.MODULES:
        if not name.startswith("testing") and name != "gate":
            test_layers.test_one_module_opens_outbound_connections(name)
