"""The score card of strict postmasters: what mail servers could hold against whoever probes them.

What it promises: it trusts nobody's limits but counts by itself, at the moment things arrive; what
it would complain about is in `violations`, by its name. The figures are those of the gate's promise
to mail operators (README), written down a second time on purpose.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Final

from gate.budget import (
    CONNECT,
    CONTROL_EVERY,
    COOL_DOWN,
    DOWN_TRY,
    DOWN_WINDOW,
    GREYLIST_RETRY,
    HARVEST_WINDOW,
    RATE_REST,
    RECHECK_JITTER,
)
from gate.egress import Source
from gate.smtp.provider import Provider

DAY: Final = 86_400.0
MINUTE: Final = 60.0


@dataclass(slots=True, eq=False)
class Host:
    """A mail server, or many behind one name. `trip`: seconds there and back; `think`: an answer.

    The rest is its memory of us.
    """

    destination: str
    ips: tuple[IPv4Address, ...]
    kind: str
    trip: float
    think: float
    provider: Provider | None = None
    lately: deque[float] = field(default_factory=deque)
    seen: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    """Recipient → first asked, last put off, from which source."""


@dataclass(slots=True, eq=False)
class Signup:
    """One address to be checked, and how far that has come."""

    host: Host
    domain: str
    address: str
    exists: bool
    at: float
    wanted: bool = True
    """Somebody's, not an attacker's."""
    rounds: int = 0
    source: Source | None = None
    begun: float = 0.0


class Score:
    """What postmasters count. `violations` names what they would complain about."""

    def __init__(self) -> None:
        self.violations: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.dialogues = 0
        self.recipients = 0
        self._minutes: dict[tuple[str, Any], deque[float]] = defaultdict(deque)
        self._open: Counter[tuple[str, Any]] = Counter()
        self._sorry: dict[str, float] = {}
        self._blocked: dict[tuple[str, str], float] = {}
        self._controls: dict[str, float] = {}
        self._refusals: dict[str, deque[float]] = defaultdict(deque)
        self._dials: dict[str, deque[float]] = defaultdict(deque)

    def keys(self, signup: Signup) -> list[tuple[str, Any, int, int | None]]:
        """Kind, name, dialogues, recipients a minute: what is counted for this signup's host."""
        row, host = signup.host.provider, signup.host
        free = row is not None and not signup.domain.endswith(".example")
        domain = [] if free else [("domain", signup.domain, 1, 10)]
        if row is not None:
            return [
                (f"provider {row.name}", row.name, row.dialogues or 2, row.recipients_per_minute),
                *domain,
            ]
        networks = {int(ip) >> 8 for ip in host.ips}
        return [
            ("destination", host.destination, 2, 30),
            *[("address", ip, 2, 30) for ip in host.ips],
            *[("network", network, 2, 30) for network in networks],
            *domain,
        ]

    def begins(self, signup: Signup, now: float) -> None:
        """A dialogue begins."""
        self.dialogues += 1
        for kind, name, most, _ in [*self.keys(signup), ("all", "", 256, None)]:
            self._open[kind, name] += 1
            self.most[f"at once, {kind}"] = max(
                self.most[f"at once, {kind}"], self._open[kind, name]
            )
            if self._open[kind, name] > most:
                self.violations[f"too many at once: {kind}"] += 1
        host = signup.host
        if now - self._sorry.get(host.destination, -DAY) < RATE_REST:
            self.violations["came back while it was to rest after 421"] += 1
        who = (host.destination, str(signup.source))
        if now - self._blocked.get(who, -DAY) < COOL_DOWN:
            self.violations["came back while it was blocked"] += 1

    def ends(self, signup: Signup) -> None:
        """It is over."""
        for kind, name, _, _ in [*self.keys(signup), ("all", "", 256, None)]:
            self._open[kind, name] -= 1

    def asked(self, signup: Signup, count: int, now: float) -> None:
        """So many recipients were named."""
        self.recipients += count
        for kind, name, _, most in self.keys(signup):
            times = self._minutes[kind, name]
            times.extend([now] * count)
            while now - times[0] >= MINUTE:
                times.popleft()
            self.most[f"a minute, {kind}"] = max(self.most[f"a minute, {kind}"], len(times))
            if len(times) > (most or 30):
                self.violations[f"too many recipients a minute: {kind}"] += 1

    def control(self, domain: str, now: float) -> None:
        """The random recipient was asked, and not put off."""
        if now - self._controls.get(domain, -DAY) < CONTROL_EVERY:
            self.violations["a second random recipient in a day"] += 1
        self._controls[domain] = now

    def refused(self, signup: Signup, now: float) -> None:
        """A mailbox does not exist."""
        if signup.host.provider is not None:
            return
        times = self._refusals[signup.domain]
        times.append(now)
        while now - times[0] >= HARVEST_WINDOW:
            times.popleft()
        if len(times) > 5:
            self.violations["searched a domain for users"] += 1

    def put_off(self, signup: Signup, before: tuple[float, float, str] | None, now: float) -> None:
        """The same recipient again: too early, or as somebody else?"""
        if before is None:
            return
        if now - before[1] < GREYLIST_RETRY * (1 - RECHECK_JITTER):
            self.violations["came back too early after greylisting"] += 1
        if before[2] != str(signup.source):
            self.violations["came back from another address after greylisting"] += 1

    def sorry(self, signup: Signup, now: float) -> None:
        """421 was said."""
        self._sorry[signup.host.destination] = now

    def block(self, signup: Signup, now: float) -> None:
        """We were refused."""
        self._blocked[signup.host.destination, str(signup.source)] = now

    def dialled_dead(self, signup: Signup, now: float) -> None:
        """Nobody is there: the third time within ten minutes is too early unless spaced."""
        dials = self._dials[signup.host.destination]
        dials.append(now)
        while now - dials[0] >= DOWN_WINDOW:
            dials.popleft()
        # A connect that is under way when the first two failed cannot be known to be the third.
        if len(dials) > 3 and dials[-1] - dials[-2] < DOWN_TRY - CONNECT:
            self.violations["dialled a dead host again and again"] += 1
