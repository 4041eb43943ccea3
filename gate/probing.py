"""May the mail servers of a domain be asked? Pure: no clock, no socket.

What it promises: one answer, in microseconds and before anything is dialled: None, or the first of
WHY that stands against it. From the general to the particular: the setting, the operator's switch,
a name to probe under, the operator's lists, the wish of the domain's owner.

Stops that the gate lays upon itself are the throttle's, which also lets the one through that tries
whether they may end; here they are only known, so that `state` tells the whole.

Bugs: the switch belongs to one process and its store; gates that run side by side have one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

ON: Final = "on"
SETTINGS: Final = "settings"
SWITCH: Final = "switch"

WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        SETTINGS: "probe.enabled is false",
        SWITCH: "switched off with `gate probing off`",
        "identity": "no name to probe under: set probe.helo and probe.mail_from",
        "deny_domains": "the domain is on the operator's list",
        "deny_mx": "the mail server is on the operator's list",
        "opted_out": "the domain's owner asks not to be probed",
    }
)
"""Why a domain is left alone. All end as `probe_off`; the trace and the metrics tell them apart."""

STOPS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "blocked": "too many mail servers refuse us; probing stopped by itself",
        "shut": "nobody can be connected to at port 25; probing stopped by itself",
    }
)
"""Why the throttle asks nobody."""

STATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ON: "mail servers are asked",
        SETTINGS: WHY[SETTINGS],
        SWITCH: WHY[SWITCH],
        **STOPS,
    }
)
"""What `state` says: `on`, or why nobody at all is asked."""


class Route(Protocol):
    """What is looked at of a domain's mail route (`gate.dns.MailRoute`)."""

    @property
    def domain(self) -> str: ...
    @property
    def mx_names(self) -> tuple[str, ...]: ...
    @property
    def opted_out(self) -> bool: ...


class Probing:
    """The decision, and all it rests on that can change while the gate runs."""

    def __init__(
        self,
        *,
        enabled: bool = True,
        known_to: Callable[[str], bool] = lambda domain: True,
        deny_domains: Iterable[str] = (),
        deny_mx: Iterable[str] = (),
    ) -> None:
        """`known_to`: whether there is a name to ask this domain's mail servers under.
        `deny_domains`, `deny_mx`: canonical names, which stand for all names below them as well.
        """
        self._enabled = enabled
        self._known_to = known_to
        self._deny_domains = frozenset(deny_domains)
        self._deny_mx = frozenset(deny_mx)
        self._stops: dict[str, None] = {}
        self.switched_on = True
        self.refusals = dict.fromkeys(WHY, 0)
        """How often a domain was left alone, by why."""

    def refusal(self, route: Route) -> str | None:
        """Why the mail servers of a route may not be asked now; None: they may."""
        why = self.halted or self._against(route)
        if why is not None:
            self.refusals[why] += 1
        return why

    @property
    def halted(self) -> str | None:
        """Why nobody at all may be asked, by the operator's will.

        For whoever is about to dial as well: what was allowed before a wait may be so no more.
        """
        if not self._enabled:
            return SETTINGS
        return None if self.switched_on else SWITCH

    @property
    def state(self) -> str:
        """One of STATES."""
        return self.halted or next(iter(self._stops), ON)

    def stop(self, why: str) -> None:
        """The throttle asks nobody from now on, for one of STOPS."""
        self._stops[why] = None

    def resume(self, why: str) -> None:
        """That stop is over."""
        self._stops.pop(why, None)

    def _against(self, route: Route) -> str | None:
        if not self._known_to(route.domain):
            return "identity"
        if self._deny_domains and _below(route.domain, self._deny_domains):
            return "deny_domains"
        if self._deny_mx and any(_below(name, self._deny_mx) for name in route.mx_names):
            return "deny_mx"
        return "opted_out" if route.opted_out else None


def _below(name: str, names: frozenset[str]) -> bool:
    """Whether `name` is one of `names` or below one."""
    while name:
        if name in names:
            return True
        name = name.partition(".")[2]
    return False
