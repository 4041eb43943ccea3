"""Throttle: how many dialogues at once, with whom, and who rests. Pure; the clock is passed in.

What it promises: never more than `destination_most` dialogues with one destination nor more than
`global_most` in all; whoever waits is served in the order of asking, and a destination that is
full holds up nobody who wants another; a destination that refuses us is left alone for five
minutes, then ten, up to three hours, until it answers somebody again.

It decides and does not wait: `ask` gives a ticket that is granted or queued, `leave` gives back
the tickets that became granted by it. The waiting itself is the prober's.

A *destination* is a provider's name or an MX set; an *identity* is a destination with the source
address and HELO name it saw: another source of ours may still be welcome. A refusal at RCPT may
be one tenant's policy, so it rests that domain; the third domain that is refused so, with nobody
welcomed between, rests the whole identity.

Bugs: domains whose MX names differ but lead to one machine count as different destinations.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from gate.budget import COOL_DOWN, COOL_DOWN_MOST, Clock

DOMAINS_REFUSED: Final = 3
"""So many domains refused at RCPT, and it is us whom the host refuses, not a tenant's policy."""
RESTING_MOST: Final = 10_000
"""Refusals remembered; strangers name the destinations, so the oldest makes room."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A place at a destination, or in the queue for one. `number` is the order of asking."""

    destination: str
    number: int
    granted: bool = False


@dataclass(slots=True)
class _Rest:
    """A cool-down: until when, and how long it was."""

    until: float
    seconds: float


class Throttle:
    """Slots and cool-downs of one process."""

    def __init__(self, *, clock: Clock, destination_most: int = 2, global_most: int = 256) -> None:
        self._clock = clock
        self._destination_most = destination_most
        self._global_most = global_most
        self._number = 0
        self._total = 0
        self._running: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[int, Ticket]] = {}
        # The head of each queue whose destination has room, and which waits for the global cap
        # only. An entry that is out of date is dropped when it comes up.
        self._heads: list[tuple[int, str]] = []
        self._rests: OrderedDict[str, _Rest] = OrderedDict()
        self._refused: OrderedDict[str, set[str]] = OrderedDict()

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return (
            f"<Throttle {self._total}/{self._global_most} running with {len(self._running)} "
            f"destinations, {waiting} waiting, {len(self._rests)} refused us>"
        )

    # -- slots ---------------------------------------------------------------------------------

    def ask(self, destination: str) -> Ticket:
        """A ticket for a dialogue with `destination`: granted at once, or queued."""
        self._number += 1
        ticket = Ticket(destination, self._number)
        queue = self._waiting.get(destination)
        if queue is None and self._has_room(destination) and self._total < self._global_most:
            self._grant(ticket)
            return ticket
        if queue is None:
            self._waiting[destination] = OrderedDict({ticket.number: ticket})
            self._offer(destination)
        else:
            queue[ticket.number] = ticket
        return ticket

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give a ticket back, granted or not; the tickets that are granted by that.

        Giving one back twice changes nothing.
        """
        destination = ticket.destination
        if ticket.granted:
            was_full = not self._has_room(destination)
            ticket.granted = False
            self._total -= 1
            self._running[destination] -= 1
            if not self._running[destination]:
                del self._running[destination]
            if was_full:
                self._offer(destination)
            return self._admit()
        queue = self._waiting.get(destination, OrderedDict())
        was_head = next(iter(queue), 0) == ticket.number
        if queue.pop(ticket.number, None) and not queue:
            del self._waiting[destination]
        elif was_head:
            self._offer(destination)
        return []

    def _has_room(self, destination: str) -> bool:
        return self._running.get(destination, 0) < self._destination_most

    def _grant(self, ticket: Ticket) -> None:
        ticket.granted = True
        self._total += 1
        self._running[ticket.destination] = self._running.get(ticket.destination, 0) + 1

    def _offer(self, destination: str) -> None:
        """Put the head of a destination's queue up for the next free place, if it may have one."""
        queue = self._waiting.get(destination)
        if queue and self._has_room(destination):
            heapq.heappush(self._heads, (next(iter(queue)), destination))

    def _admit(self) -> list[Ticket]:
        """Grant free places to the longest waiting among those whose destination has room."""
        granted = []
        while self._heads and self._total < self._global_most:
            number, destination = heapq.heappop(self._heads)
            queue = self._waiting.get(destination)
            if not queue or number not in queue or not self._has_room(destination):
                continue
            ticket = queue.pop(number)
            if not queue:
                del self._waiting[destination]
            self._grant(ticket)
            granted.append(ticket)
            self._offer(destination)
        return granted

    # -- cool-downs ----------------------------------------------------------------------------

    def resting(self, identity: str, domain: str = "") -> float:
        """Seconds for which this identity, or this domain of it, is still to be left alone."""
        rests = filter(None, (self._rests.get(identity), self._rests.get(f"{identity} {domain}")))
        now = self._clock()
        return max((max(0.0, rest.until - now) for rest in rests), default=0.0)

    def blocked(self, identity: str, domain: str = "") -> None:
        """It refused us: before any recipient was named, or at the RCPT of one of `domain`."""
        if domain:
            self._rest(f"{identity} {domain}")
            refused = self._refused.setdefault(identity, set())
            refused.add(domain)
            _bound(self._refused)
            if len(refused) < DOMAINS_REFUSED:
                return
        self._refused.pop(identity, None)
        self._rest(identity)

    def welcomed(self, identity: str, domain: str = "") -> None:
        """It answered about a recipient: the refusals before that count no more."""
        self._rests.pop(identity, None)
        self._rests.pop(f"{identity} {domain}", None)
        self._refused.pop(identity, None)

    def _rest(self, name: str) -> None:
        """Begin a rest. Dialogues that were already under way do not lengthen it."""
        now = self._clock()
        rest = self._rests.pop(name, None)
        if rest is None or now - rest.until >= COOL_DOWN_MOST:
            rest = _Rest(now + COOL_DOWN, COOL_DOWN)
        elif now >= rest.until:
            seconds = min(2 * rest.seconds, COOL_DOWN_MOST)
            rest = _Rest(now + seconds, seconds)
        self._rests[name] = rest
        _bound(self._rests)


def _bound(remembered: OrderedDict[str, Any]) -> None:
    """Let the oldest make room."""
    if len(remembered) > RESTING_MOST:
        remembered.popitem(last=False)
