"""The addresses of mail hosts: all asked for at once, and waited for no longer than useful.

What it knows: when what has come in is enough to begin with (`Hosts`). A host that can be dialled
gives the other address family and the hosts after it DNS_FAMILY_DELAY, and hosts that are to be
preferred to it DNS_PREFERRED. As long as no host can be dialled every answer is waited for: that
none has an address must be proven.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from msgspec import Struct

from gate.budget import DNS_FAILURE, DNS_FAMILY_DELAY, DNS_PREFERRED, Clock
from gate.dns.answers import Answer, Answers
from gate.dns.ask import Allowance
from gate.dns.wire import AAAA, A, IPAddress, Kind

ADDRESSES_MOST: Final = 4
"""Addresses of one host, both families together (faults.md N32)."""

Key = tuple[str, int]
"""Host name and record type."""


class MxHost(Struct, frozen=True, gc=False):
    """A mail host. `failed`: its addresses could not be looked up, so absence is not proven."""

    name: str
    preference: int
    addresses: tuple[IPAddress, ...]
    """IPv6 and IPv4 in turns."""
    failed: bool = False


class Hosts:
    """The mail hosts of one route while they are looked up."""

    def __init__(self, targets: Sequence[tuple[int, str]], families: Sequence[int]) -> None:
        """`targets`: (preference, name), best first. `families`: record types worth waiting for
        once there is an address; both are asked for in any case.
        """
        self._targets = targets
        self._families = families
        self._known: dict[Key, Answer] = {}
        self._expires = float("inf")

    async def look_up(self, answers: Answers, allowance: Allowance, clock: Clock) -> None:
        """Ask for A and AAAA of all hosts; ends when what is known is enough."""
        running: dict[asyncio.Task[Answer], Key] = {}
        for _, name in self._targets:
            for rdtype in (A, AAAA):
                known = answers.remembered(name, rdtype)
                if known is None:
                    running[answers.begin(name, rdtype, allowance)] = name, rdtype
                else:
                    self._known[name, rdtype] = known
        begun = dict(running)
        try:
            await self._gather(running, answers, clock)
        finally:
            if running:
                self._expires = clock() + DNS_FAILURE
            for task, key in begun.items():
                answers.end(*key, task)

    async def _gather(
        self, running: dict[asyncio.Task[Answer], Key], answers: Answers, clock: Clock
    ) -> None:
        """Move answers from `running` to what is known, until that is enough."""
        ends_at = float("inf")
        while running:
            patience = self._patience()
            if patience is not None:
                ends_at = min(ends_at, clock() + patience)
                if not any(rdtype in self._families for _, rdtype in running.values()):
                    return
            left = ends_at - clock()
            if left <= 0:
                return
            done, _ = await asyncio.wait(
                running,
                timeout=left if patience is not None else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                self._known[running.pop(task)] = answers.outcome(task)

    def _patience(self) -> float | None:
        """Seconds the answers still missing are worth; None: as long as it takes."""
        usable = [preference for preference, name in self._targets if self._can_dial(name)]
        if not usable:
            return None
        preferred = [name for preference, name in self._targets if preference < min(usable)]
        return DNS_FAMILY_DELAY if all(map(self._settled, preferred)) else DNS_PREFERRED

    def _can_dial(self, name: str) -> bool:
        return any(
            (name, rdtype) in self._known and self._known[name, rdtype].addresses
            for rdtype in self._families
        )

    def _settled(self, name: str) -> bool:
        return (name, A) in self._known and (name, AAAA) in self._known

    @property
    def expires(self) -> float:
        """Until when the addresses may be used; a short time if some are missing."""
        return min([self._expires, *(answer.expires for answer in self._known.values())])

    @property
    def any_addresses(self) -> bool:
        """At least one host has one."""
        return any(answer.addresses for answer in self._known.values())

    @property
    def trouble(self) -> str:
        """Why it is not proven that no host has an address; empty if it is."""
        failed = [known.detail for known in self._known.values() if known.kind is Kind.FAILED]
        if failed:
            return failed[0]
        return "" if all(self._settled(name) for _, name in self._targets) else "timeout"

    def found(self) -> tuple[MxHost, ...]:
        """The hosts, best first, with what is known of each."""
        return tuple(self._host(preference, name) for preference, name in self._targets)

    def _host(self, preference: int, name: str) -> MxHost:
        both = [self._known.get((name, rdtype)) for rdtype in (AAAA, A)]
        six, four = ([] if answer is None else answer.addresses for answer in both)
        turns = [ip for pair in zip_longest(six, four) for ip in pair if ip is not None]
        failed = not turns and any(a is None or a.kind is Kind.FAILED for a in both)
        return MxHost(name, preference, tuple(turns[:ADDRESSES_MOST]), failed)
