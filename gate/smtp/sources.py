"""Sources: which of our addresses a destination meets, and how much an address may do. Pure.

What it promises
  1. A destination keeps the address it met first. Which one that is follows from its name, so that
     a restart finds the same, and a new address takes over few (rendezvous hashing; an address that
     is still warming up takes its share of the others').
  2. It is never handed on to get round a limit: while its address rests, or has used up its day,
     it has none. Only a destination that was never seen is given another.
  3. A new address warms up: so many dialogues in each UTC day, twice as many in the next.
  4. An address that several destinations refuse within an hour rests for an hour, then two, up to a
     day. A single address does not: there is no other to give its destinations to, and the
     throttle leaves alone whoever refuses us.

Addresses are for capacity. The limits of a destination hold over all of them; no limit of the
throttle knows of sources.

Bugs: of several processes each counts for itself. Which destinations are kept is forgotten at a
restart, but for those that were given another address than their own; one whose address has warmed
up since may then meet a new one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b
from math import log
from typing import Any, Final

from msgspec import Struct

from gate.budget import SOURCE_DAY, SOURCE_NOTES, SOURCE_REST, SOURCE_REST_MOST, Clock
from gate.egress import Source

FIRST_DAY: Final = 50
"""Dialogues of an address on its first day."""
WARM: Final = 20_000
"""An allowance above this is none: the address is warm."""
REFUSED_LEAST: Final = 3
REFUSED_SHARE: Final = 5
"""An address rests when so many destinations refuse it, and one in so many of those it met."""
KEPT_MOST: Final = 50_000
MET_MOST: Final = 1_000
MOVED_MOST: Final = 1_000
"""Destinations remembered in all, of the last hour of one source, and in a snapshot. Strangers
name them, so the oldest makes room."""
_BOTH: Final = (4, 6)
_EPOCH: Final = date(1970, 1, 1)


class Counted(Struct, frozen=True, array_like=True, gc=False):
    """What one source has used up of its day, and its rest. `until` is Unix time."""

    day: int
    used: int
    until: float
    seconds: float


class Snapshot(Struct, frozen=True, array_like=True):
    """What has to outlive a process: the sources by name, and destinations given another's."""

    sources: dict[str, Counted]
    moved: dict[str, str]


@dataclass(slots=True)
class _State:
    """One source. `met`: when each destination last spoke to it, and whether it refused."""

    day: int = 0
    used: int = 0
    until: float = 0.0
    seconds: float = 0.0
    met: OrderedDict[str, tuple[float, bool]] = field(default_factory=OrderedDict)


def allowance(since: date | None, day: int) -> int | None:
    """Dialogues that an address in use since that day has on a UTC day (days since 1970).

    None: as many as the other limits let through.
    """
    if since is None:
        return None
    age = day - (since - _EPOCH).days
    if age < 0:
        return 0
    dialogues = FIRST_DAY << min(age, WARM)
    return dialogues if dialogues <= WARM else None


class Sources:
    """The addresses of one process. `clock`: Unix time that does not step."""

    def __init__(self, sources: Sequence[Source], *, clock: Clock) -> None:
        self._clock = clock
        self._states = {source: _State() for source in sources}
        self._kept: OrderedDict[str, tuple[Source, ...]] = OrderedDict()
        self._moved: OrderedDict[str, str] = OrderedDict()
        self.changes = 0
        """Grows when there is something new to keep."""

    def __repr__(self) -> str:
        resting = sum(self.resting(source) > 0 for source in self._states)
        return f"<Sources {len(self._states)}, {resting} resting, {len(self._kept)} destinations>"

    def choose(self, destination: str, versions: Collection[int] = _BOTH) -> Source | None:
        """The source for a destination whose hosts have addresses of these IP versions.

        None: its own rests or has used up its day, or, for a new one, all do. Where no source has
        the right family, any will do: the dialler says so.
        """
        able = [source for source in self._states if _reaches(source, versions)] or [*self._states]
        kept = self._kept.get(destination, ())
        for source in kept:
            if source in able:
                self._kept.move_to_end(destination)
                return source if self._ready(source) else None
        # At most one for each family: a kept one that reaches these hosts was returned above.
        ranked = able
        if len(able) > 1:
            ranked = sorted(able, key=lambda source: self._rank(destination, source))
        found = next(filter(self._ready, ranked), None)
        if found is not None:
            self._kept[destination] = (*kept, found)
            _bound(self._kept, KEPT_MOST)
            if found is not ranked[0]:
                self._moved[destination] = found.name
                _bound(self._moved, MOVED_MOST)
                self.changes += 1
        return found

    def take(self, source: Source) -> bool:
        """Count a dialogue that is about to begin; False if the source has none left today."""
        if not self._ready(source):
            return False
        self._states[source].used += 1
        if source.since is not None:
            self.changes += 1
        return True

    def left(self, source: Source) -> int | None:
        """Dialogues that a source has left today; None: no allowance binds it."""
        state = self._today(source)
        most = allowance(source.since, state.day)
        return None if most is None else max(0, most - state.used)

    def resting(self, source: Source) -> float:
        """Seconds for which a source still rests."""
        return max(0.0, self._states[source].until - self._clock())

    def blocked(self, source: Source, destination: str) -> float:
        """A destination refused us as whom this source shows; the length of the rest that begins
        with it (seconds), or 0. Dialogues that were already under way do not count.
        """
        if self.resting(source):
            return 0.0
        state = self._note(source, destination, refused=True)
        refused = sum(was for _, was in state.met.values())
        if (
            len(self._states) == 1
            or refused < REFUSED_LEAST
            or refused * REFUSED_SHARE < len(state.met)
        ):
            return 0.0
        now = self._clock()
        again = state.seconds and now - state.until < SOURCE_REST_MOST
        state.seconds = min(2 * state.seconds, SOURCE_REST_MOST) if again else SOURCE_REST
        state.until = now + state.seconds
        state.met.clear()
        self.changes += 1
        return state.seconds

    def welcomed(self, source: Source, destination: str) -> None:
        """A destination spoke of a recipient to this source: it does not refuse it."""
        self._note(source, destination, refused=False)

    def snapshot(self) -> Snapshot:
        """What a later process has to know."""
        counted = {
            source.name: Counted(state.day, state.used, state.until, state.seconds)
            for source, state in self._states.items()
            if source.since is not None or state.seconds
        }
        return Snapshot(counted, dict(self._moved))

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what an earlier process knew; sources that are no more are left out."""
        named = {source.name: source for source in self._states}
        for name, counted in snapshot.sources.items():
            if name in named:
                state = self._states[named[name]]
                state.day, state.used = counted.day, counted.used
                state.until, state.seconds = counted.until, counted.seconds
        for destination, name in snapshot.moved.items():
            if name in named:
                self._kept[destination] = (named[name],)
                self._moved[destination] = name

    def _ready(self, source: Source) -> bool:
        return not self.resting(source) and self.left(source) != 0

    def _today(self, source: Source) -> _State:
        """The state with the count of this day. A clock that was set back gives nothing back."""
        state = self._states[source]
        day = int(self._clock() // SOURCE_DAY)
        if day > state.day:
            state.day, state.used = day, 0
        return state

    def _note(self, source: Source, destination: str, *, refused: bool) -> _State:
        state, now = self._states[source], self._clock()
        state.met[destination] = (now, refused)
        state.met.move_to_end(destination)
        _bound(state.met, MET_MOST)
        while now - next(iter(state.met.values()))[0] > SOURCE_NOTES:
            state.met.popitem(last=False)
        return state

    def _rank(self, destination: str, source: Source) -> float:
        """The lower, the rather. Weighted rendezvous hashing: each source draws a number that
        hangs on the two names only, stretched by its share of a warm one's work.
        """
        digest = blake2b(f"{destination}\0{source.name}".encode(), digest_size=8).digest()
        drawn = (int.from_bytes(digest) + 1) / (1 << 64)
        most = allowance(source.since, self._today(source).day)
        return -log(drawn) / (WARM if most is None else max(most, 1))


def _reaches(source: Source, versions: Collection[int]) -> bool:
    return source.ip is None or source.ip.version in versions


def _bound(remembered: OrderedDict[str, Any], most: int) -> None:
    if len(remembered) > most:
        remembered.popitem(last=False)
