"""The resolvers: does each answer, soon, alike, and no more than the truth?

A resolver that invents addresses makes every mistyped domain look like one with a mail host; one
that is cut off denies them all (faults.md N43).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gate.budget import DOCTOR_DNS_SLOW, Clock, Deadline
from gate.dns import Resolver
from gate.dns.records import Records
from gate.dns.wire import MX, A, Kind
from gate.doctor.finding import Finding, Topic, listed
from gate.egress import IPAddress

NAME: Final = "resolver"
WHY: Final = (
    "every check begins with the DNS: a resolver that is slow costs the person before the form, "
    "one that is wrong makes wrong verdicts"
)
SURELY_THERE: Final = "a.root-servers.net"
"""It has had the same address since the nineties."""
WELL_KNOWN: Final = "gmail.com"
"""Its MX records are the same wherever one asks."""

ServerAddress = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one resolver said. `invents`: None if that could not be found out."""

    server: ServerAddress
    known: Records
    seconds: float
    exchanges: Records
    invents: bool | None

    @property
    def label(self) -> str:
        """Its address, with the port if that is another one than 53."""
        host, port = self.server
        return host if port == 53 else f"{host}:{port}"

    @property
    def dead(self) -> bool:
        """It did not answer."""
        return self.known.kind is Kind.FAILED


async def check(
    servers: Sequence[ServerAddress],
    resolver_of: Callable[[ServerAddress], Resolver],
    clock: Clock,
    deadline: Deadline,
) -> list[Finding]:
    """Ask each resolver by itself."""
    heard = await asyncio.gather(*(_hear(s, resolver_of, clock, deadline) for s in servers))
    return judge(heard)


async def _hear(
    server: ServerAddress,
    resolver_of: Callable[[ServerAddress], Resolver],
    clock: Clock,
    deadline: Deadline,
) -> Heard:
    resolver = resolver_of(server)
    try:
        await resolver.records(SURELY_THERE, A, deadline)  # the second time it is in its memory
        began = clock()
        known = await resolver.records(SURELY_THERE, A, deadline)
        seconds = clock() - began
        if known.kind is Kind.FAILED:
            return Heard(server, known, seconds, known, None)
        exchanges = await resolver.records(WELL_KNOWN, MX, deadline)
        return Heard(server, known, seconds, exchanges, await resolver.invents_names(deadline))
    finally:
        await resolver.close()


def judge(heard: Sequence[Heard]) -> list[Finding]:
    """What each resolver's answers mean, and whether they agree. Pure."""
    if all(one.dead for one in heard):
        return [_none_answers(heard)]
    findings = [_judge_one(one) for one in heard]
    alive = [one for one in heard if not one.dead]
    if len(alive) > 1 and not _agree(alive):
        findings.append(
            Topic(NAME, WHY).warning(
                f"the resolvers {listed(one.label for one in alive)} answer differently",
                "leave only those in dns.servers that you trust",
            )
        )
    return findings


def _none_answers(heard: Sequence[Heard]) -> Finding:
    labels = listed(one.label for one in heard)
    return Topic(NAME, WHY).problem(
        f"no resolver answers ({labels}: {heard[0].known.detail})",
        "see that this machine is on the network; if it is, install a resolver on it (apt install "
        'unbound) and write in gate.toml:\n[dns]\nservers = ["127.0.0.1:53"]',
    )


def _judge_one(one: Heard) -> Finding:
    topic = Topic(NAME, WHY, one.label)
    elsewhere = (
        "use another resolver: install unbound on this machine and write in gate.toml:\n"
        '[dns]\nservers = ["127.0.0.1:53"]'
    )
    if one.dead:
        return topic.warning(
            f"{one.label} does not answer ({one.known.detail})", "take it out of dns.servers"
        )
    if one.known.absent:
        return topic.problem(
            f"{one.label} says that {SURELY_THERE} does not exist: it is cut off from the world",
            elsewhere,
        )
    if one.invents:
        return topic.problem(f"{one.label} gives an address to names that nobody has", elsewhere)
    took = f"{one.seconds * 1000:.0f} ms"
    if one.seconds > DOCTOR_DNS_SLOW:
        return topic.warning(f"{one.label} takes {took} for what it has in memory", elsewhere)
    if one.invents is None:
        return topic.skipped(
            f"{one.label} answers in {took}; whether it invents names is not known"
        )
    return topic.ok(f"{one.label} answers in {took} and invents no names")


def _agree(alive: Sequence[Heard]) -> bool:
    def view(one: Heard) -> tuple[frozenset[IPAddress], frozenset[str]]:
        return frozenset(one.known.addresses), frozenset(one.exchanges.names)

    return len({view(one) for one in alive}) == 1
