"""May the mail servers of a domain be asked? Pure; the clock is passed in.

What it promises: one answer, in microseconds and before anything is dialled: None, or the first of
`WHY` that stands against it. From the most general to the most particular: the setting, the
operator's switch, a stop that the gate laid upon itself, a name to probe under, the operator's
lists, the wish of the domain's owner.

A stop ends by trial: when its time is up, one dialogue in PROBING_TRIAL is let through until
somebody says that one went well (`resume`) or that it did not (`stop`).

Bugs: the switch belongs to one process and its store; gates that run side by side have one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from gate.budget import PROBING_TRIAL, Clock

WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "settings": "probe.enabled is false",
        "switch": "switched off with `gate probing off`",
        "blocked": "too many mail servers refuse us; probing stopped by itself",
        "port_25": "no connection to port 25 comes about; probing stopped by itself",
        "identity": "no name to probe under: set probe.helo and probe.mail_from",
        "deny_domains": "the domain is on the operator's list",
        "deny_mx": "the mail server is on the operator's list",
        "opted_out": "the domain's owner asks not to be probed",
    }
)
"""Why nobody is asked. All end as `probe_off`; the trace and the metrics tell them apart."""
STOPS: Final = ("blocked", "port_25")
"""What `stop` may be called with."""


class Probing:
    """The decision, and all it rests on that can change while the gate runs."""

    def __init__(
        self,
        *,
        clock: Clock,
        enabled: bool = True,
        known_to: Callable[[str], bool] = lambda domain: True,
        deny_domains: Iterable[str] = (),
        deny_mx: Iterable[str] = (),
    ) -> None:
        """`known_to`: whether there is a name to ask this domain's mail servers under.
        `deny_domains`, `deny_mx`: names that stand for all below them as well.
        """
        self._clock = clock
        self._enabled = enabled
        self._known_to = known_to
        self._deny_domains = frozenset(deny_domains)
        self._deny_mx = frozenset(deny_mx)
        self._stops: dict[str, float] = {}
        """When the trials of each stop begin."""
        self._trial_at = float("-inf")
        self.switched_on = True
        self.unasked = dict.fromkeys(WHY, 0)
        """How many routes were left alone, by why."""

    def refusal(
        self, domain: str, mx_names: Iterable[str] = (), *, opted_out: bool = False
    ) -> str | None:
        """Why the mail servers of a domain may not be asked now; None: they may."""
        why = self._refusal(domain, mx_names, opted_out)
        if why is not None:
            self.unasked[why] += 1
        return why

    @property
    def halted(self) -> str | None:
        """Why nobody at all may be asked now; None while it depends on the domain.

        For whoever is about to dial: what was allowed before a wait may be so no more.
        """
        if not self._enabled:
            return "settings"
        if not self.switched_on:
            return "switch"
        now = self._clock()
        return next((why for why, until in self._stops.items() if now < until), None)

    @property
    def state(self) -> str:
        """`on`; the word of WHY for which all probing is off; or `trial`, after a stop."""
        return self.halted or ("trial" if self._stops else "on")

    def stop(self, why: str, seconds: float) -> None:
        """Ask nobody for so long, for one of STOPS. A stop that stands is only made longer."""
        if why not in STOPS:
            raise ValueError(why)
        self._stops[why] = max(self._stops.get(why, 0.0), self._clock() + seconds)

    def resume(self) -> None:
        """A dialogue went well: stops whose time is up are over."""
        now = self._clock()
        self._stops = {why: until for why, until in self._stops.items() if now < until}

    def _refusal(self, domain: str, mx_names: Iterable[str], opted_out: bool) -> str | None:
        why = self.halted
        if why is not None:
            return why
        if not self._known_to(domain):
            return "identity"
        if self._deny_domains and _below(domain, self._deny_domains):
            return "deny_domains"
        if self._deny_mx and any(_below(name, self._deny_mx) for name in mx_names):
            return "deny_mx"
        if opted_out:
            return "opted_out"
        return self._not_yet() if self._stops else None

    def _not_yet(self) -> str | None:
        """After a stop: whether this one is a trial. Asked last, so that a trial is one."""
        now = self._clock()
        if now < self._trial_at:
            return next(iter(self._stops))
        self._trial_at = now + PROBING_TRIAL
        return None


def _below(name: str, names: frozenset[str]) -> bool:
    """Whether `name` is one of `names` or below one."""
    while name:
        if name in names:
            return True
        name = name.partition(".")[2]
    return False
