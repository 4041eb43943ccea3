"""Breakers: hosts that are down, our own way out being shut, and too many who refuse us. Pure.

- `Downs`: RFC 5321 4.5.4.1 wants a list of hosts that cannot be reached. A destination that could
  not be connected to twice in DOWN_WINDOW, and not once between, is on it for DOWN_REST; one
  dialogue every DOWN_TRY finds out when it is back (faults.md C05, S12, S13).
- `Shut`: destinations in DESTINATIONS networks that could not be connected to, and none that could:
  then it is port 25 of ours that is closed (C06). Tried again after PORT_REST.
- `Blocked`: more than BLOCKED_MOST of the last DIALOGUES refused us. Going on costs the operator
  the address; probing rests, and one dialogue tries when the cool-down is over.

The clock is passed in. Bugs: who has domains and networks of his own to waste can have probing stop
for a while; then nobody is refused by the gate, and nobody is checked.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from gate.budget import (
    COOL_DOWN,
    COOL_DOWN_MOST,
    DOWN_REST,
    DOWN_TRY,
    DOWN_WINDOW,
    PORT_REST,
    PORT_WINDOW,
    Clock,
)
from gate.smtp.rests import RESTING_MOST, Rests

DESTINATIONS: Final = 5
DIALOGUES: Final = 200
BLOCKED_MOST: Final = 10
"""Five in a hundred of DIALOGUES."""
ALL: Final = ""
"""The name of what concerns every destination."""


class Downs:
    """The list of destinations that cannot be reached."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, float] = OrderedDict()
        self.rests = Rests(clock, first=DOWN_TRY, most=DOWN_TRY, forgotten=DOWN_REST - DOWN_TRY)

    def failed(self, destination: str) -> None:
        """None of its hosts could be connected to."""
        now = self._clock()
        before = self._failed.pop(destination, None)
        self._failed[destination] = now
        if len(self._failed) > RESTING_MOST:
            self._failed.popitem(last=False)
        if destination in self.rests or (before is not None and now - before < DOWN_WINDOW):
            self.rests.rest(destination)

    def reached(self, destination: str) -> None:
        """Some host of it took a connection."""
        self._failed.pop(destination, None)
        self.rests.end(destination)


class Shut:
    """Whether our own port 25 is closed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: OrderedDict[str | bytes, tuple[float, str]] = OrderedDict()
        self.rests = Rests(clock, first=PORT_REST, most=PORT_REST, forgotten=float("inf"))

    def failed(self, destination: str, network: str | bytes) -> bool:
        """A destination could not be connected to. True: it is us, as of now."""
        now = self._clock()
        if ALL in self.rests:
            self.rests.rest(ALL)
            return False
        self._failed.pop(network, None)
        self._failed[network] = now, destination
        while now - next(iter(self._failed.values()))[0] >= PORT_WINDOW:
            self._failed.popitem(last=False)
        if len(self._failed) > DESTINATIONS * DESTINATIONS:
            self._failed.popitem(last=False)
        destinations = {destination for _, destination in self._failed.values()}
        return len(destinations) >= DESTINATIONS and self.rests.rest(ALL)

    def reached(self) -> bool:
        """Some host took a connection. True: the port was thought closed until now."""
        self._failed.clear()
        return self.rests.end(ALL)


class Blocked:
    """How many of the last dialogues ended in a refusal of us."""

    def __init__(self, clock: Clock) -> None:
        self._last: deque[bool] = deque(maxlen=DIALOGUES)
        self._blocked = 0
        self.rests = Rests(clock, first=COOL_DOWN, most=COOL_DOWN_MOST, forgotten=float("inf"))

    def told(self, blocked: bool) -> bool | None:
        """How one more dialogue ended. True: probing stops now; False: it goes on again."""
        if ALL in self.rests:
            if self.rests.left(ALL):
                return None  # it was under way when probing stopped
            if blocked:
                self.rests.rest(ALL)
                return None
            self.rests.end(ALL)
            return False
        if len(self._last) == DIALOGUES:
            self._blocked -= self._last[0]
        self._last.append(blocked)
        self._blocked += blocked
        if self._blocked <= BLOCKED_MOST:
            return None
        self._last.clear()
        self._blocked = 0
        self.rests.rest(ALL)
        return True
