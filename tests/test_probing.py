"""Who may be asked: every reason against it, in order, and what it looks like from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from gate.dns import MailRoute, MxHost
from gate.probing import STATES, STOPS, WHY, Probing
from gate.settings.read import parse
from gate.testing import HostRules
from gate.testing.zones import Late
from gate.trace import Trace
from tests.mailworld import mail_world


def route(domain: str, mx: Sequence[str] = (), opted_out: bool = False) -> MailRoute:
    hosts = tuple(MxHost(name, 10, ()) for name in mx)
    return MailRoute(domain, hosts, False, False, None, "", 0.0, 60.0, (), opted_out)


DENIED = route("denied.test")
LISTS: dict[str, Any] = {
    "deny_domains": ["denied.test", "deep.denied.org"],
    "deny_mx": ["protection.outlook.com"],
}


@pytest.mark.parametrize(
    ("domain", "mx", "opted_out", "why"),
    [
        pytest.param("mail.test", ["mx.mail.test"], False, None, id="nothing against it"),
        pytest.param("denied.test", [], False, "deny_domains", id="a listed domain"),
        pytest.param("a.b.denied.test", [], False, "deny_domains", id="a name below it"),
        pytest.param("notdenied.test", [], False, None, id="a name that ends the same"),
        pytest.param("denied.org", [], False, None, id="a name above a listed one"),
        pytest.param("denied.test.org", [], False, None, id="the name further left"),
        pytest.param("test", [], False, None, id="the top"),
        pytest.param(
            "shop.test",
            ["a.test", "shop-test.mail.protection.outlook.com"],
            False,
            "deny_mx",
            id="one listed mail server among others",
        ),
        pytest.param("shop.test", ["protection.outlook.com"], False, "deny_mx", id="itself"),
        pytest.param("protection.outlook.com", ["a.test"], False, None, id="MX names only"),
        pytest.param("mail.test", ["mx.mail.test"], True, "opted_out", id="the owner's wish"),
        pytest.param("denied.test", [], True, "deny_domains", id="list and wish"),
    ],
)
def test_lists_and_wishes(domain: str, mx: list[str], opted_out: bool, why: str | None) -> None:
    probing = Probing(**LISTS)
    assert probing.refusal(route(domain, mx, opted_out)) == why
    assert sum(probing.refusals.values()) == (why is not None)


def test_the_general_comes_before_the_particular() -> None:
    def nobody(domain: str) -> bool:
        return False

    off = Probing(enabled=False, known_to=nobody, **LISTS)
    off.switched_on = False
    assert (off.refusal(DENIED), off.state) == ("settings", "settings")
    probing = Probing(known_to=nobody, **LISTS)
    probing.switched_on = False
    assert (probing.refusal(DENIED), probing.state) == ("switch", "switch")
    probing.switched_on = True
    assert (probing.refusal(DENIED), probing.state) == ("identity", "on")
    assert probing.refusals == dict.fromkeys(WHY, 0) | {"switch": 1, "identity": 1}


def test_a_stop_of_the_throttle_is_known_and_left_to_it() -> None:
    probing = Probing()
    for why in STOPS:
        probing.stop(why)
    assert (probing.state, probing.refusal(route("mail.test"))) == ("blocked", None)
    probing.resume("blocked")
    probing.resume("blocked")
    assert probing.state == "shut"
    probing.switched_on = False
    assert probing.state == "switch"
    probing.switched_on = True
    probing.resume("shut")
    assert probing.state == "on"
    assert set(STATES) >= {"on", "settings", "switch", *STOPS}


def test_it_decides_in_microseconds() -> None:
    long = Probing(
        deny_domains=[f"d{n}.test" for n in range(10_000)],
        deny_mx=[f"mx{n}.test" for n in range(10_000)],
    )
    name = ".".join(["a"] * 120) + ".test"
    found = route(name, [name] * 16)
    begun = time.thread_time()
    for _ in range(100):
        long.refusal(found)
    assert (time.thread_time() - begun) / 100 < 0.005


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        ({"deny_domains": ["*.example.com"]}, r"probe\.deny_domains: '\*\.example\.com'"),
        ({"deny_domains": [".example.com"]}, r"without a star or a dot"),
        ({"deny_domains": ["bücher.example"]}, r"in ASCII"),
        ({"deny_mx": ["mx:outlook.com"]}, r"probe\.deny_mx"),
        ({"deny_mx": [""]}, r"probe\.deny_mx"),
    ],
)
def test_a_list_that_would_not_do_what_it_says_is_refused(
    probe: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Exception, match=problem):
        parse({"probe": probe})


def test_who_opted_out_is_not_connected_to_and_the_trace_says_why() -> None:
    late = Late(0.1, "A 8.8.4.1")  # so that the wish is heard first
    wish = {"_signup-gate.mail.test": 'TXT "v=sg1; probe=no"', "mx.mail.test": late}

    async def main() -> None:
        async with mail_world({"mail.test": HostRules(users=("jane",))}, wish) as world:
            trace = Trace(time.monotonic)
            answer = await world.check("jane@mail.test", trace=trace)
            assert answer.verdict.reason.value == "probe_off"
            assert ("probe", "not asked: opted_out") in [(s.name, s.detail) for s in trace.steps]
            assert not world.hosts["mail.test"].connections

    asyncio.run(main())
