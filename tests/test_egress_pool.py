"""Several source addresses, seen from the mail hosts: who came from where, with which name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gate.budget import SOURCE_DAY, SOURCE_REST
from gate.reason import GateError
from gate.settings import Settings
from gate.testing import HostRules, MailHost
from gate.testing.wire import Connection
from tests.lateworld import NOW, Late, Place, place, settings, until
from tests.ports import free_port
from tests.socksworld import PASSWORD, SEEN_FROM, USER, microsocks

TWO, THREE = "127.0.0.2", "127.0.0.3"
HELO = {TWO: "two.example.com", THREE: "three.example.com"}
PAIR = [{"ip": ip, "helo": helo} for ip, helo in HELO.items()]
TODAY = datetime.fromtimestamp(NOW, UTC).date()
REFUSAL = "554 5.7.1 Service unavailable; client host [203.0.113.9] blocked using zen.spamhaus.org"
KIND = HostRules(users=["jane", "joe"])


def config(
    *addresses: dict[str, Any],
    store: str = "memory:",
    limits: dict[str, int] | None = None,
    **probe: Any,
) -> Settings:
    identity = {"helo": "gate.test", "mail_from": "probe@gate.test"}
    return settings(
        store,
        webhooks=[],
        egress={"address": list(addresses)},
        probe=identity | probe,
        limits=limits or {},
    )


def settle(here: Place, host: MailHost, *names: str, ip: str = "") -> None:
    """Let domains be served by a host, each from an address in a network of its own, or from `ip`.

    More than one domain at an address is more than one destination on one machine.
    """
    for name in names:
        where = ip or f"9.{len(here.seam.addresses)}.4.1"
        here.zones[name], here.zones[f"mx.{name}"] = f"MX 10 mx.{name}", f"A {where}"
        here.seam.add(where, host.address)


@asynccontextmanager
async def pool(*addresses: dict[str, Any], **probe: Any) -> AsyncIterator[tuple[Place, Late]]:
    """One life of a gate with these source addresses; `mx.kind.test` serves all domains."""
    async with place({"kind.test": KIND}) as here:
        here.stubs = {**here.stubs, "net": [here.zones.server]}
        async with here.engine(config(*addresses, **probe)) as gate:
            yield here, gate


def helo_of(connection: Connection) -> str:
    return next(line[5:] for line in connection.lines if line.startswith("EHLO "))


def domain_of(connection: Connection) -> str:
    recipient = next((line for line in connection.lines if line.startswith("RCPT TO:")), "@")
    return recipient.rpartition("@")[2].partition(">")[0]


DOMAINS = [f"d{number}.test" for number in range(24)]


def test_a_destination_always_meets_the_same_address_with_that_addresss_name() -> None:
    async def scene() -> None:
        async with pool(*PAIR) as (here, gate):
            host = gate.hosts["kind.test"]
            assert isinstance(host, MailHost)
            settle(here, host, *DOMAINS)
            for user in ("jane", "joe", "nobody"):
                for domain in DOMAINS:
                    await gate.check(f"{user}@{domain}")
            met: dict[str, set[str]] = {}
            for connection in host.connections:
                assert helo_of(connection) == HELO[connection.peer[0]]
                met.setdefault(domain_of(connection), set()).add(connection.peer[0])
            assert sorted(met) == sorted(DOMAINS)
            assert all(len(addresses) == 1 for addresses in met.values())
            assert set.union(*met.values()) == {TWO, THREE}

    asyncio.run(scene())


def test_who_was_greylisted_is_asked_again_from_the_same_address_after_a_restart(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        rules = HostRules(users=["jane"], greylist=300.0)
        store = f"sqlite:{tmp_path / 'gate.db'}"
        async with place({"grey.test": rules}) as here:
            host = here.hosts["grey.test"]
            assert isinstance(host, MailHost)
            settle(here, host, *DOMAINS[:6])
            async with here.engine(config(*PAIR, store=store)) as gate:
                for domain in DOMAINS[:6]:
                    assert await gate.reason(f"jane@{domain}") == "greylisted"
            # The addresses are listed in another order, and the gate is another process.
            async with here.engine(config(*reversed(PAIR), store=store)) as gate:
                here.clock.advance(400)
                while await gate.engine.rechecks.round():
                    here.clock.advance(10)
            met: dict[str, list[str]] = {}
            for connection in host.connections:
                met.setdefault(domain_of(connection), []).append(connection.peer[0])
            assert sorted(met) == DOMAINS[:6]
            assert all(len(came) >= 2 and len(set(came)) == 1 for came in met.values())

    asyncio.run(scene())


class Busy(MailHost):
    """Takes a while over each connection, and knows how many there were at a time."""

    now = most = 0

    async def talk(self, connection: Connection) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.05)
            await super().talk(connection)
        finally:
            self.now -= 1


def test_the_limits_of_one_machine_hold_over_all_our_addresses() -> None:
    async def scene() -> None:
        async with pool(*PAIR) as (here, gate), Busy(KIND) as host:
            settle(here, host, *DOMAINS, ip="9.200.4.1")
            await asyncio.gather(*(gate.check(f"jane@{name}", 2.0) for name in DOMAINS))
            assert {connection.peer[0] for connection in host.connections} == {TWO, THREE}
            assert host.most == 2

    asyncio.run(scene())


def test_an_address_of_each_family_meets_the_hosts_it_can_reach() -> None:
    six = {"ip": "::1", "helo": "six.example.com"}

    async def scene() -> None:
        async with (
            pool(PAIR[0], six) as (here, gate),
            MailHost(KIND) as four_host,
            MailHost(KIND, host="::1") as six_host,
        ):
            for number, domain in enumerate(DOMAINS[:8]):
                kind, where, host = (
                    ("A", f"9.{number}.4.1", four_host)
                    if number % 2
                    else ("AAAA", f"2a00:1450:{number}::1", six_host)
                )
                here.zones[domain] = f"MX 10 mx.{domain}"
                here.zones[f"mx.{domain}"] = f"{kind} {where}"
                here.seam.add(where, host.address)
                assert await gate.reason(f"jane@{domain}") == "accepted_email"
            assert {(c.peer[0], helo_of(c)) for c in four_host.connections} == {(TWO, HELO[TWO])}
            assert {(c.peer[0], helo_of(c)) for c in six_host.connections} == {
                ("::1", "six.example.com")
            }

    asyncio.run(scene())


def test_a_host_of_another_family_than_all_our_addresses_is_no_connect() -> None:
    async def scene() -> None:
        async with pool(*PAIR) as (here, gate):
            here.zones["six.test"], here.zones["mx.six.test"] = "MX 10 mx.six.test", "AAAA 2a00::1"
            assert await gate.reason("jane@six.test") == "no_connect"

    asyncio.run(scene())


def test_a_new_address_does_its_day_and_no_more_through_a_restart_until_midnight(
    tmp_path: Path,
) -> None:
    new = {"ip": TWO, "helo": HELO[TWO], "since": TODAY.isoformat()}
    cfg = config(new, store=f"sqlite:{tmp_path / 'gate.db'}")

    async def scene() -> None:
        async with place({"kind.test": KIND}) as here:
            host = here.hosts["kind.test"]
            assert isinstance(host, MailHost)
            domains = [f"new{number}.test" for number in range(53)]
            settle(here, host, *domains)
            async with here.engine(cfg) as gate:
                reasons = [await gate.reason(f"jane@{name}") for name in domains[:30]]
            async with here.engine(cfg) as gate:
                reasons += [await gate.reason(f"jane@{name}") for name in domains[30:]]
                assert reasons == ["accepted_email"] * 50 + ["throttled"] * 3
                assert host.accepted == 50
            here.clock.advance(SOURCE_DAY)
            async with here.engine(cfg) as gate:
                assert await gate.reason(f"jane@{domains[-1]}") == "accepted_email"

    asyncio.run(scene())


def test_an_address_that_several_destinations_refuse_rests_and_others_do_its_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with pool(*PAIR) as (here, gate), MailHost(KIND) as host:
            settle(here, host, *DOMAINS)
            for domain in DOMAINS:
                await gate.check(f"jane@{domain}")
            met = {domain_of(connection): connection.peer[0] for connection in host.connections}
            host.rules = HostRules(answers={"mail": REFUSAL})
            for name in [name for name in DOMAINS if met[name] == TWO][:3]:
                assert await gate.reason(f"joe@{name}") == "probe_blocked"
            host.rules = KIND
            for name in [name for name in DOMAINS if met[name] == TWO][3:]:
                assert await gate.reason(f"joe@{name}") == "throttled"
            newcomers = [f"newcomer{number}.test" for number in range(12)]
            settle(here, host, *newcomers)
            for name in newcomers:
                assert await gate.reason(f"jane@{name}") == "accepted_email"
            met |= {domain_of(connection): connection.peer[0] for connection in host.connections}
            assert {met[name] for name in newcomers} == {THREE}
            assert f"source address {TWO} is refused by several destinations" in caplog.text
            here.clock.advance(SOURCE_REST)
            last = [name for name in DOMAINS if met[name] == TWO][-1]
            assert await gate.reason(f"joe@{last}") == "accepted_email"

    caplog.set_level(logging.WARNING)
    asyncio.run(scene())


# Providers.


def test_a_provider_whose_acceptance_means_nothing_is_answered_without_a_place_or_a_dial() -> None:
    async def scene() -> None:
        async with pool(PAIR[0], limits={"dialogues": 1}) as (here, gate), Busy(KIND) as host:
            here.zones["yahoo.test"] = "MX 10 mta5.am0.yahoodns.net"
            here.zones["mta5.am0.yahoodns.net"] = "A 9.9.9.9"
            here.seam.add("9.9.9.9", host.address)
            slow = gate.hosts["kind.test"]
            the_only_place = asyncio.create_task(gate.reason("slow-1500@kind.test"))
            await until(lambda: any(line.startswith("RCPT") for line in slow.lines))
            for number in range(50):
                assert await gate.reason(f"jane{number}@yahoo.test") == "provider_opaque"
            assert not the_only_place.done()
            await the_only_place
            assert host.accepted == 0
            assert not [ip for ip in here.seam.dialled if str(ip) == "9.9.9.9"]

    asyncio.run(scene())


def test_an_operators_rows_decide_who_is_asked_and_how(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(
        """
        [[provider]]
        name = "Own filter"
        suffixes = ["filter.test"]
        accepts = "opaque_if_accepted"
        control = "never"

        [[provider]]
        name = "Left alone"
        suffixes = ["alone.test"]
        accepts = "trust"
        probe = "never"
        """
    )

    async def scene() -> None:
        async with pool(PAIR[0], providers=str(file)) as (here, gate), MailHost(KIND) as host:
            settle(here, host, "in.filter.test", "in.alone.test")
            here.zones["a.test"], here.zones["b.test"] = "MX 1 in.filter.test", "MX 1 in.alone.test"
            here.zones["in.filter.test"], here.zones["in.alone.test"] = "A 9.1.1.1", "A 9.2.1.1"
            here.seam.add("9.1.1.1", host.address)
            answer = await gate.check("jane@a.test")
            assert answer.verdict.reason == "provider_opaque"
            assert answer.provider == "Own filter"
            assert await gate.reason("nobody@a.test") == "rejected_email"
            assert [line for line in host.lines if line.startswith("RCPT")] == [
                "RCPT TO:<jane@a.test>",
                "RCPT TO:<nobody@a.test>",
            ]
            answer = await gate.check("jane@b.test")
            assert (answer.verdict.reason, answer.provider) == ("probe_off", "Left alone")

    asyncio.run(scene())


# Through a proxy.


def test_a_check_goes_by_way_of_the_proxy_and_a_proxy_that_is_down_is_no_connect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(where: str) -> None:
        far = {"ip": "192.0.2.25", "helo": "far.example.com", "proxy": f"socks5://{where}"}
        async with pool(far) as (here, gate), MailHost(KIND) as host:
            settle(here, host, "d1.test")
            assert await gate.reason("jane@d1.test") == "accepted_email"
            assert await gate.reason("nobody@d1.test") == "rejected_email"
            assert {(c.peer[0], helo_of(c)) for c in host.connections} == {
                (SEEN_FROM, "far.example.com")
            }

    async def without() -> None:
        login = f"{USER}:{PASSWORD}@127.0.0.1:{free_port()}"
        down = {"ip": "192.0.2.25", "helo": "far.example.com", "proxy": f"socks5://{login}"}
        async with pool(down) as (here, gate), MailHost(KIND) as host:
            settle(here, host, "d2.test")
            assert await gate.reason("jane@d2.test") == "no_connect"
            assert host.accepted == 0

    caplog.set_level(0)
    with microsocks() as where:
        asyncio.run(scene(f"{USER}:{PASSWORD}@{where}"))
    asyncio.run(without())
    assert PASSWORD not in caplog.text


# What is refused at start.


@pytest.mark.parametrize(
    ("address", "probe", "message"),
    [
        ({"ip": "192.0.2.9"}, {}, r"egress\.address\.ip: 192\.0\.2\.9 is no address of this mach"),
        ({"ip": "2001:db8::9"}, {}, r"egress\.address\.ip: 2001:db8::9 is no address of this mac"),
        (
            {"since": (TODAY + timedelta(1)).isoformat()},
            {},
            r"egress\.address\.since: 2027-01-16 has not come yet \(in UTC it is 2027-01-15\)",
        ),
        ({}, {"providers": "nowhere.toml"}, r"probe\.providers: nowhere\.toml cannot be read"),
        ({}, {"providers": "{wrong}"}, r"wrong\.toml, row 'Google': dialoges: there is no such"),
    ],
)
def test_refused_at_start_with_what_to_write(
    address: dict[str, Any], probe: dict[str, str], message: str, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[[provider]]\nname = "Google"\ndialoges = 3\n')
    given = {key: value.format(wrong=wrong) for key, value in probe.items()}

    async def scene() -> None:
        async with pool(address, **given):
            raise AssertionError("it started")

    with pytest.raises(GateError, match=message):
        asyncio.run(scene())
