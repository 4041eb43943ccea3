"""The pool: which open connection serves the next question, and which is told QUIT. Pure.

What it promises, for whatever order of calls: a connection has at most one user; it is taken only
for the destination, source and TLS setting that it was opened for, and only where its peer is among
the addresses that the caller names; nothing parked is older than WARM_IDLE once `plan` was asked;
no more than `most` are parked.

It holds names of connections and does nothing with them: the shell (warm.py) dials, asks and says
QUIT, and tells what became of each. All that are open count, in every state: being dialled, asked,
parked, and told QUIT but not closed yet. They count with the neighbours that dialogues count with
(caps.py): a thousand domains on one machine are one.

Rules
  1. The one that was parked last is taken first: the others may age and go.
  2. A connection to a host of another tenant is no MX of this domain (RFC 5321, section 5.1): the
     peer's address must be one of those given.
  3. Idle connections are kept for WARM_IDLE only, because each holds one of the few processes of
     its owner; and worn ones not at all, because servers count refusals and resets against us.
  4. One that is opened ahead of any question is opened where nothing else is open, and not again
     for AHEAD_AGAIN if nobody used it.

Bugs: a server that counts otherwise than Postfix may find eight refusals too many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from msgspec import Struct

from gate.budget import AHEAD_AGAIN, WARM_IDLE
from gate.egress import IPAddress, Source
from gate.smtp.dialog import Tls
from gate.smtp.places import Key

PARKED_MOST: Final = 128
"""Connections parked at the same time, with all destinations together."""
REFUSALS_MOST: Final = 8
"""Replies of 400 and above on one connection. Postfix makes a client wait from its tenth error on
(smtpd_soft_error_limit) and cuts it off at twenty; one question may add two."""
TRANSACTIONS_MOST: Final = 20
"""MAIL commands on one connection. Each has its RSET, and Postfix counts those as junk past 100."""
AHEAD_MOST: Final = 32
"""Connections opened ahead that nobody has used yet."""
AHEAD_REMEMBERED: Final = 1024
"""Neighbours at which one was opened ahead lately; when they are full, no other is opened."""

Limits = Mapping[Key, int]
"""The neighbours that a connection counts with, each with the most that may be open there."""

C = TypeVar("C", bound=Hashable)
K = TypeVar("K", bound=Hashable)


class Line(Struct, frozen=True, gc=False):
    """What a connection is good for: with whom, as whom, and how it was upgraded."""

    destination: str
    source: Source
    tls: Tls


@dataclass(slots=True)
class Counts:
    """How often it paid: questions that found a connection and that did not, connections whose
    peer closed or spoke while they were parked, questions that were asked again because a
    connection died under them, and connections opened ahead."""

    hits: int = 0
    misses: int = 0
    lost: int = 0
    replaced: int = 0
    ahead: int = 0


@dataclass(slots=True, eq=False)
class _Held:
    """An open connection. `since`: when it was parked."""

    line: Line
    places: tuple[Key, ...]
    ahead: bool
    state: Literal["busy", "parked", "leaving"] = "busy"
    ip: IPAddress | None = None
    since: float = 0.0


class Pool(Generic[C]):
    """All connections that are open. See the rules above."""

    def __init__(self, *, most: int = PARKED_MOST) -> None:
        """`most`: parked at the same time; 0 switches parking off."""
        self.counts = Counts()
        self._most = most
        self._open: dict[C, _Held] = {}
        self._of: dict[Line, dict[C, _Held]] = {}
        self._with: dict[Key, dict[C, _Held]] = {}
        self._parked: OrderedDict[C, _Held] = OrderedDict()  # in order of parking
        self._ahead: OrderedDict[Key, float] = OrderedDict()  # in order of opening

    def __repr__(self) -> str:
        return f"<Pool {len(self._parked)} parked of {len(self._open)} open>"

    # -- opening and closing ---------------------------------------------------------------------
    def open(self, connection: C, line: Line, counted: Limits) -> None:
        """`connection` is about to be dialled; it is its caller's."""
        self._hold(connection, _Held(line, tuple(counted), ahead=False))

    def open_ahead(self, connection: C, line: Line, counted: Limits, now: float) -> bool:
        """As `open`, ahead of any question; False if that is not in order (rule 4)."""
        if not self.wanted_ahead(line, counted, now):
            return False
        held = _Held(line, tuple(counted), ahead=True)
        self._hold(connection, held)
        self._ahead.update(dict.fromkeys(held.places, now))
        self.counts.ahead += 1
        return True

    def wanted_ahead(self, line: Line, counted: Collection[Key], now: float) -> bool:
        """Whether a connection may be opened there before there is a question."""
        while self._ahead and now - next(iter(self._ahead.values())) >= AHEAD_AGAIN:
            self._ahead.popitem(last=False)
        unused = sum(held.ahead for held in self._open.values())
        room = len(self._parked) < self._most and len(self._ahead) < AHEAD_REMEMBERED
        known = any(place in self._with or place in self._ahead for place in counted)
        return room and unused < AHEAD_MOST and not known and line not in self._of

    def gone(self, connection: C) -> None:
        """`connection` is closed, by whomever, or was never made. Saying it twice is no harm."""
        held = self._open.pop(connection, None)
        if held is None:
            return
        if held.state == "parked":
            del self._parked[connection]
            self.counts.lost += 1
        _forget(self._of, held.line, connection)
        for place in held.places:
            _forget(self._with, place, connection)

    def make_room(self, counted: Limits) -> tuple[bool, list[C]]:
        """Whether another connection may be opened now; and if not, which are to be told QUIT for
        it, until those that were are gone.

        Connections in use are no reason to wait: whoever lets them run counts them (throttle.py).
        """
        room, spare = True, []
        for place, most in counted.items():
            held = self._with.get(place, {})
            over = len(held) + 1 - most
            if over <= 0 or all(its.state == "busy" for its in held.values()):
                continue
            room = False
            over -= sum(its.state == "leaving" for its in held.values())
            parked = [one for one in self._parked if one in held]
            spare += [self._leave(one) for one in parked[: max(0, over)]]
        return room, spare

    # -- parking ---------------------------------------------------------------------------------
    def take(
        self, line: Line, addresses: Collection[IPAddress], now: float
    ) -> tuple[C, IPAddress] | None:
        """A connection of this line with one of `addresses`, and which; it is its caller's now."""
        held = self._of.get(line, {})
        fits = [
            (its.since, one, its.ip)
            for one, its in held.items()
            if its.state == "parked"
            and its.ip is not None
            and its.ip in addresses
            and now - its.since < WARM_IDLE
        ]
        if not fits:
            self.counts.misses += 1
            return None
        _, connection, ip = max(fits, key=lambda fit: fit[0])
        its = held[connection]
        its.state = "busy"
        if its.ahead:
            its.ahead = False
            for place in its.places:
                self._ahead.pop(place, None)
        del self._parked[connection]
        self.counts.hits += 1
        return connection, ip

    def spoiled(self, connection: C) -> None:
        """What `take` gave was seen to be closed, or spoken on, before it was asked."""
        self.counts.hits -= 1
        self.counts.lost += 1
        self.leaving(connection)

    def park(
        self, connection: C, ip: IPAddress, *, transactions: int, refusals: int, now: float
    ) -> bool:
        """Keep a clean connection with `ip` for the next question; False: it is to be told QUIT.

        `transactions` and `refusals` are all that it has seen. `plan` says which others make room.
        """
        held = self._open.get(connection)
        if held is None or held.state != "busy":
            return False
        if not self._most or transactions >= TRANSACTIONS_MOST or refusals >= REFUSALS_MOST:
            held.state = "leaving"
            return False
        held.state, held.ip, held.since = "parked", ip, now
        self._parked[connection] = held
        return True

    def leaving(self, connection: C) -> None:
        """`connection` was told QUIT by its user."""
        held = self._open.get(connection)
        if held is not None and held.state == "busy":
            held.state = "leaving"

    def plan(self, now: float) -> list[C]:
        """The connections to be told QUIT now: idle for too long, or the oldest of too many."""
        over = len(self._parked) - self._most
        old = []
        for number, (one, held) in enumerate(self._parked.items()):
            if number >= over and now - held.since < WARM_IDLE:
                break
            old.append(one)
        return [self._leave(one) for one in old]

    @property
    def due(self) -> float | None:
        """When `plan` has something to say next; None if nothing is parked."""
        held = next(iter(self._parked.values()), None)
        return None if held is None else held.since + WARM_IDLE

    def drain(self) -> list[C]:
        """All that are parked, to be told QUIT; nothing is parked from here on."""
        self._most = 0
        return [self._leave(one) for one in list(self._parked)]

    # -- inside ----------------------------------------------------------------------------------
    def _hold(self, connection: C, held: _Held) -> None:
        self._open[connection] = held
        self._of.setdefault(held.line, {})[connection] = held
        for place in held.places:
            self._with.setdefault(place, {})[connection] = held

    def _leave(self, connection: C) -> C:
        held = self._parked.pop(connection)
        held.state = "leaving"
        return connection


def _forget(held: dict[K, dict[C, _Held]], key: K, connection: C) -> None:
    """Take a connection out from under its key, and the key with the last one."""
    del held[key][connection]
    if not held[key]:
        del held[key]
