"""The walk over a domain's mail hosts: which one next, and when to stop. Pure.

What it knows: MX hosts are asked one after the other, lowest preference first, equal ones in random
order (RFC 5321, section 5.1), at most two of them. They are never raced and a backup is not asked
for a second opinion: servers that watch for that take it for spam.

Rules
  1. A reply about the recipient or the domain ends the walk: every host would say the same.
  2. No connection, a connection lost, a host that does not serve the domain, or one that turns us
     away before it knows what we want: the next host.
  3. Silence, broken SMTP and failed TLS end the walk. The time is spent, or the host saw enough
     of us to be left alone.
  4. What counts in the end is the last host that said something; a host that was never reached
     takes nothing back from one that spoke.

Bugs: with more than two hosts the third is never asked, though mail might get in there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from gate.budget import CONNECT, CONNECT_SHARE
from gate.reason import Reason
from gate.smtp.classify import Outcome
from gate.smtp.dialog import Stage

HOSTS_MOST: Final = 2
"""Hosts dialled for one check; RFC 5321, section 5.1, asks a sender to try two."""

_BEFORE_THE_ENVELOPE = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.HELO})


class Host(Protocol):
    """What the walk must know of a host."""

    @property
    def preference(self) -> int: ...


H = TypeVar("H", bound=Host)


class Walk(Generic[H]):
    """Call `next` for a host, talk to it, tell what came back, until `next` gives None."""

    def __init__(
        self,
        hosts: Sequence[H],
        *,
        shuffle: Callable[[list[H]], None],
        first: H | None = None,
        most: int = HOSTS_MOST,
    ) -> None:
        """`shuffle` puts hosts of equal preference in random order, in place; `first` is the one
        that goes before its equals, because a connection to it is open.
        """
        mixed = list(hosts)
        shuffle(mixed)
        self._left = sorted(mixed, key=lambda host: (host.preference, host is not first))[:most]
        self._over = False
        self._best: tuple[H, Outcome, Stage] | None = None
        self._unserved = 0
        """Hosts that know no such destination."""

    def __repr__(self) -> str:
        state = "over" if self._over else f"{len(self._left)} to go"
        return f"<Walk {state}, {self._best[1].reason if self._best else 'nothing'} so far>"

    def next(self) -> H | None:
        """The host to talk to now; None when the walk is over."""
        return None if self._over or not self._left else self._left.pop(0)

    def told(self, host: H, outcome: Outcome, stage: Stage) -> None:
        """The talk with `host` ended at `stage` with `outcome`."""
        if self._best is None or self._best[1].reply is None or outcome.reply is not None:
            self._best = host, outcome, stage
        self._over = not asks_another(outcome, stage)
        self._unserved += _knows_no_destination(outcome)

    def unserved_by(self, hosts: int) -> bool:
        """Whether all of a domain's `hosts` were asked, and each says for good that there is no
        such destination: then its mail goes nowhere (faults.md R26).
        """
        return 0 < hosts == self._unserved

    @property
    def result(self) -> tuple[H, Outcome, Stage] | None:
        """The host, outcome and stage that count; None when no host was asked."""
        return self._best


def asks_another(outcome: Outcome, stage: Stage) -> bool:
    """Whether the next host might know better after this (probing.md 1, faults.md 2 to 5)."""
    if outcome.reason in (Reason.NO_CONNECT, Reason.RELAY_DENIED):
        return True
    if outcome.reason is Reason.PROBE_BLOCKED:
        return stage is Stage.GREETING
    temporary = outcome.reason in (Reason.DEFERRED, Reason.GREYLISTED)
    return temporary and stage in _BEFORE_THE_ENVELOPE


def _knows_no_destination(outcome: Outcome) -> bool:
    """5.1.2 (RFC 3463 section 3.2), beside words that speak neither of us nor of a mailbox."""
    reply = outcome.reply
    return outcome.reason is Reason.RELAY_DENIED and reply is not None and reply.enhanced == "5.1.2"


def connect_seconds(left: float) -> float:
    """How much of the `left` seconds one host may take to be connected to (faults.md C02).

    A share, so that a dead host leaves time for the next one and for the dialogue.
    """
    return min(CONNECT, left * CONNECT_SHARE)
