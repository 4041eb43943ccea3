"""Places: who may talk at once, and how much was asked lately, under any number of limits. Pure.

A dialogue makes *claims*: at a destination, for a domain, for a site, at an address. Each claim
names a key and what may be had there: places at the same time, recipients in any
RECIPIENT_WINDOW, seconds between two starts. All claims of a dialogue are met, or none is.

What it promises: no limit of any key is ever exceeded; a full window refuses at once, a full place
lets wait; whoever waits is served in the order of asking, and holds up nobody whose keys are free.

Recipients count from the moment they are asked for until a window after the dialogue has ended:
when exactly they went out in between need not be known. The clock is passed in.

Bugs: one dialogue counts at every address of its domain, though it dials one or two of them.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gate.budget import RECIPIENT_WINDOW, Clock

WINDOWS_MOST: Final = 60_000
"""Keys whose recipients are counted. Strangers name the keys; when all are taken, nobody is asked
about who would need one more: a count that is forgotten is a limit that is exceeded."""

Key = tuple[str, str | bytes]
"""Kind of the limit, and whose."""


class Claim(NamedTuple):
    """What one dialogue wants of one key. None: there is no such limit. `spacing`: seconds."""

    key: Key
    dialogues: int | None = None
    recipients: int | None = None
    spacing: float = 0.0


@dataclass(slots=True, eq=False)
class Ticket:
    """A place, or a place in a queue. `number` is the order of asking; `held`: recipients."""

    number: int
    claims: Sequence[Claim]
    held: int
    granted: bool = False
    parked: Key | None = None


class Full(NamedTuple):
    """No: the window of a key of this kind is full, or nothing more can be counted."""

    kind: str


@dataclass(slots=True)
class _Window:
    """Recipients of one key: reserved by dialogues under way, and the ends of those that went."""

    held: int = 0
    ends: list[float] = field(default_factory=list)

    def used(self, now: float) -> int:
        if self.ends and self.ends[0] <= now - RECIPIENT_WINDOW:
            del self.ends[: bisect_right(self.ends, now - RECIPIENT_WINDOW)]
        return self.held + len(self.ends)


class _Queue:
    """Tickets that wait for one key, by number. Who gave up is dropped when it comes up."""

    __slots__ = ("_gone", "_heap", "_key")

    def __init__(self, key: Key) -> None:
        self._key = key
        self._heap: list[tuple[int, Ticket]] = []
        self._gone = 0

    def park(self, ticket: Ticket) -> None:
        ticket.parked = self._key
        heapq.heappush(self._heap, (ticket.number, ticket))

    def forget(self, ticket: Ticket) -> None:
        ticket.parked = None
        self._gone += 1
        if 2 * self._gone > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[1].parked == self._key]
            heapq.heapify(self._heap)
            self._gone = 0

    def head(self) -> Ticket | None:
        while self._heap and self._heap[0][1].parked != self._key:
            heapq.heappop(self._heap)
            self._gone -= 1
        return self._heap[0][1] if self._heap else None

    def pop(self) -> None:
        """Take the head, which `head` has shown, out."""
        heapq.heappop(self._heap)[1].parked = None

    def __len__(self) -> int:
        return len(self._heap) - self._gone


class Places:
    """Places and windows of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._number = 0
        self._running: dict[Key, int] = {}
        self._windows: OrderedDict[Key, _Window] = OrderedDict()
        self._queues: dict[Key, _Queue] = {}
        self._starts: dict[Key, float] = {}  # the earliest next start; only rows have a spacing
        self._due: list[tuple[float, Key]] = []
        self._total = 0

    def __repr__(self) -> str:
        waiting = sum(map(len, self._queues.values()))
        return f"<Places {self._total} taken, {waiting} waiting, {len(self._windows)} windows>"

    @property
    def waiting(self) -> int:
        """Tickets that are not granted yet."""
        return sum(map(len, self._queues.values()))

    @property
    def taken(self) -> int:
        """Dialogues that run."""
        return self._total

    def ask(self, claims: Sequence[Claim], recipients: int) -> Ticket | Full:
        """A ticket that is granted or queued; `Full` if the recipients may not be asked now."""
        now = self._clock()
        full = self._full(claims, recipients, now)
        if full is not None:
            return full
        self._number += 1
        ticket = Ticket(self._number, claims, 0)
        self._hold(ticket, recipients)
        blocking = self._blocking(claims, now)
        if blocking is None:
            self._grant(ticket, now)
        else:
            self._park(ticket, blocking)
        return ticket

    def again(self, ticket: Ticket, recipients: int) -> bool:
        """Whether one more dialogue may follow inside this place; its recipients are reserved."""
        now = self._clock()
        spaced = any(now < self._starts.get(claim.key, now) for claim in ticket.claims)
        if spaced or self._full(ticket.claims, recipients, now) is not None:
            return False
        self._hold(ticket, recipients)
        self._started(ticket, now)
        return True

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give a ticket back, granted or not; the tickets that are granted by that.

        Giving one back twice changes nothing.
        """
        now = self._clock()
        if not ticket.granted:
            if ticket.parked is not None:
                self._release(ticket, now, went=False)
                self._queues[ticket.parked].forget(ticket)
            return []
        ticket.granted = False
        self._release(ticket, now, went=True)
        self._total -= 1
        for claim in ticket.claims:
            if claim.dialogues is not None:
                left = self._running[claim.key] - 1
                if left:
                    self._running[claim.key] = left
                else:
                    del self._running[claim.key]
        return self._admit([claim.key for claim in ticket.claims], now) if self._queues else []

    def due(self) -> float | None:
        """When `tick` is to be called for those whose start is spaced; None if nobody waits so."""
        return self._due[0][0] if self._due else None

    def tick(self) -> list[Ticket]:
        """The tickets that are granted because their time has come."""
        now = self._clock()
        keys = []
        while self._due and self._due[0][0] <= now:
            keys.append(heapq.heappop(self._due)[1])
        return self._admit(keys, now)

    # -- windows -------------------------------------------------------------------------------

    def _full(self, claims: Sequence[Claim], recipients: int, now: float) -> Full | None:
        fresh = 0
        for key, _, most, _ in claims:
            if most is None:
                continue
            window = self._windows.get(key)
            fresh += window is None
            if recipients + (window.used(now) if window else 0) > most:
                return Full(key[0])
        if fresh and len(self._windows) + fresh > WINDOWS_MOST:
            self._sweep(now)
            if len(self._windows) + fresh > WINDOWS_MOST:
                return Full("memory")
        return None

    def _hold(self, ticket: Ticket, recipients: int) -> None:
        ticket.held += recipients
        for key, _, most, _ in ticket.claims:
            if most is not None:
                window = self._windows.get(key)
                if window is None:
                    window = self._windows[key] = _Window()
                window.held += recipients

    def _release(self, ticket: Ticket, now: float, *, went: bool) -> None:
        """What was held has gone out at the latest now, or never will."""
        for key, _, most, _ in ticket.claims:
            if most is not None:
                window = self._windows[key]
                window.held -= ticket.held
                if went:
                    window.ends += [now] * ticket.held
                    self._windows.move_to_end(key)
        ticket.held = 0

    def _sweep(self, now: float) -> None:
        """Forget the windows in which nothing counts any more; the longest untouched come first."""
        for _ in range(len(self._windows)):
            key, window = next(iter(self._windows.items()))
            if window.held:
                self._windows.move_to_end(key)
            elif window.used(now):
                return
            else:
                del self._windows[key]

    # -- places --------------------------------------------------------------------------------

    def _has_room(self, claim: Claim, now: float) -> bool:
        most = claim.dialogues
        if most is not None and self._running.get(claim.key, 0) >= most:
            return False
        return not claim.spacing or now >= self._starts.get(claim.key, now)

    def _blocking(self, claims: Sequence[Claim], now: float) -> Key | None:
        for claim in claims:
            if not self._has_room(claim, now):
                return claim.key
        return None

    def _grant(self, ticket: Ticket, now: float) -> None:
        ticket.granted = True
        self._total += 1
        for claim in ticket.claims:
            if claim.dialogues is not None:
                self._running[claim.key] = self._running.get(claim.key, 0) + 1
        self._started(ticket, now)

    def _started(self, ticket: Ticket, now: float) -> None:
        for claim in ticket.claims:
            if claim.spacing:
                self._starts[claim.key] = now + claim.spacing
                self._expect(claim.key)

    def _park(self, ticket: Ticket, key: Key) -> None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(key)
        queue.park(ticket)
        self._expect(key)

    def _expect(self, key: Key) -> None:
        """Have those who wait for a spaced start looked at when its time comes."""
        start = self._starts.get(key)
        if start is not None and self._queues.get(key) and (start, key) not in self._due:
            heapq.heappush(self._due, (start, key))

    def _admit(self, keys: Sequence[Key], now: float) -> list[Ticket]:
        """Look at who waits for these keys, the longest waiting first, until they are full."""
        granted: list[Ticket] = []
        heads = [(head.number, key) for key in keys if (head := self._head(key))]
        heapq.heapify(heads)
        while heads:
            _, key = heapq.heappop(heads)
            ticket = self._head(key)
            if ticket is None:
                continue
            mine = next(claim for claim in ticket.claims if claim.key == key)
            if not self._has_room(mine, now):
                self._expect(key)
                continue
            self._queues[key].pop()
            blocking = self._blocking(ticket.claims, now)
            if blocking is None:
                self._grant(ticket, now)
                granted.append(ticket)
            else:
                self._park(ticket, blocking)
            head = self._head(key)
            if head is not None:
                heapq.heappush(heads, (head.number, key))
        return granted

    def _head(self, key: Key) -> Ticket | None:
        queue = self._queues.get(key)
        head = queue.head() if queue is not None else None
        if queue is not None and head is None:
            del self._queues[key]
        return head
