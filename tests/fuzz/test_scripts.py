"""C1: over servers that nobody thought of, `undeliverable` needs one of the four proofs.

Bad syntax is not generated here (tests/test_address.py), and the operator's list is no verdict; so
either the zone proves that the domain takes no mail, or the transcript holds a permanent refusal of
this very mailbox, at RCPT, behind an accepted sender, with replies and commands in step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate.reason import Reason, Result
from gate.testing.zones import NXDOMAIN, SERVFAIL, Rcode, Value
from tests.fuzz.scripts import SCRIPTS, Playing, Script, proved
from tests.mailworld import World, mail_world

NO_MAIL = {Reason.INVALID_DOMAIN, Reason.NO_MX, Reason.NULL_MX}
ZONES = st.sampled_from(["mx"] * 12 + ["none", "null", "absent", "servfail", "refused", "implicit"])
"""What the domain's zone says."""
PROVING = {"none": Reason.NO_MX, "null": Reason.NULL_MX, "absent": Reason.INVALID_DOMAIN}
SHOWN = NO_MAIL | {
    Reason.REJECTED_EMAIL,
    Reason.ACCEPTED_EMAIL,
    Reason.ACCEPT_ALL,
    Reason.PROBE_BLOCKED,
    Reason.DEFERRED,
    Reason.GREYLISTED,
    Reason.UNCONFIRMED,
    Reason.PROTOCOL_ERROR,
    Reason.NO_CONNECT,
    Reason.DNS_ERROR,
}
SELDOM = NO_MAIL | {Reason.ACCEPTED_EMAIL, Reason.GREYLISTED, Reason.ACCEPT_ALL}
"""Not among every few hundred."""
SUITE, LONG = 300, 20_000


@dataclass(slots=True)
class Ground:
    """A world for many examples, each with a domain, a host and an address of its own."""

    server: Playing
    stack: AsyncExitStack
    world: World | None = None
    number: int = 0
    seen: Counter[Reason] = field(default_factory=Counter)

    async def ask(self, script: Script, zone: str, people: int) -> None:
        """Play it, and hold each verdict against the transcript."""
        self.number += 1
        if not await self._asked(script, zone, people):
            # So many hosts refused us that nobody is asked any more: another gate takes over.
            await self.stack.aclose()
            self.world = None
            assert await self._asked(script, zone, people)

    async def _asked(self, script: Script, zone: str, people: int) -> bool:
        world = self.world
        if world is None:
            world = self.world = await self.stack.enter_async_context(mail_world({}))
        domain, ip = f"x{self.number}.test", f"8.{self.number // 250}.{self.number % 250}.1"
        world.seam.add(ip, self.server.address)
        for name, value in _plan(domain, ip, zone).items():
            world.zones[name] = value
        self.server.begin(script)
        for person in range(people):
            address = f"u{person}@{domain}"
            verdict = (await world.check(address, 3.0)).verdict
            if verdict.reason is Reason.PROBE_OFF:
                return False
            self.seen[verdict.reason] += 1
            if verdict.result is not Result.UNDELIVERABLE:
                continue
            if verdict.reason in NO_MAIL and PROVING.get(zone) is verdict.reason:
                continue
            why = proved(self.server.turns, address)
            assert not why, f"{verdict.reason}: {why}\n{self.server.turns}"
        return True


def _plan(domain: str, ip: str, zone: str) -> dict[str, Value]:
    values: dict[str, Value] = {
        "mx": f"MX 10 mx.{domain}",
        "none": f"TXT {domain}",
        "null": "MX 0 .",
        "absent": NXDOMAIN,
        "servfail": SERVFAIL,
        "refused": Rcode("REFUSED"),
        "implicit": f"A {ip}",
    }
    return {domain: values[zone], f"mx.{domain}": f"A {ip}"}


def over(examples: int) -> Ground:
    """Ask so many made-up servers."""
    with asyncio.Runner() as runner:
        ground = Ground(Playing(), AsyncExitStack())

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=examples == SUITE,
            suppress_health_check=list(HealthCheck),
        )
        @given(SCRIPTS, ZONES, st.integers(1, 2))
        def ask(script: Script, zone: str, people: int) -> None:
            runner.run(ground.ask(script, zone, people))

        runner.run(ground.server.__aenter__())
        try:
            ask()
        finally:
            runner.run(ground.stack.aclose())
            runner.run(ground.server.__aexit__(None, None, None))
    # A judge who is shown nothing finds nothing.
    wanted = SHOWN if examples == LONG else SHOWN - SELDOM
    assert ground.number >= examples and set(ground.seen) >= wanted, ground.seen
    return ground


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_undeliverable_is_proved() -> None:
    over(SUITE)


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_undeliverable_is_proved_over_twenty_thousand() -> None:
    ground = over(LONG)
    print(f"{ground.number} scripts: {dict(ground.seen.most_common())}")
