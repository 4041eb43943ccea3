"""The shell of the pool: sessions that are open, taken, parked, told QUIT, and waited for.

What it promises: nobody is handed a session that has heard anything, or lost its peer, while it was
parked; an idle one says QUIT when `Pool.plan` wants it; after `close` nothing is open.

It is the register of its sessions (`add`, `discard`): a connection that is closed, by whomever, is
forgotten at once, and whoever waits for room at its destination goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from gate.budget import Clock, Deadline
from gate.egress import IPAddress
from gate.smtp.places import Key
from gate.smtp.pool import PARKED_MOST, Counts, Limits, Line, Pool
from gate.smtp.session import Session


class WarmConnections:
    """One for the process. `most`: sessions parked at the same time; 0 parks none. `halted`:
    whether nobody is to be asked, as of now; then none is parked either.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        most: int = PARKED_MOST,
        halted: Callable[[], object] = lambda: None,
    ) -> None:
        self._clock = clock
        self._halted = halted
        self._parks = most > 0
        self._pool: Pool[Session] = Pool(most=most)
        self._open: set[Session] = set()
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"{len(self._open)} connections"

    @property
    def counts(self) -> Counts:
        """How often a question found a connection, and so on; the very counters."""
        return self._pool.counts

    @property
    def connections(self) -> Mapping[str, int]:
        """How many are `open`, and how many of them `parked`."""
        parked = sum(session.resting for session in self._open)
        return {"open": len(self._open), "parked": parked}

    @property
    def parks(self) -> bool:
        """Whether any session is kept."""
        return self._parks

    # -- the register of sessions ----------------------------------------------------------------
    def add(self, session: Session, /) -> None:
        """`session` exists; `admit` has been asked before."""

    def discard(self, session: Session, /) -> None:
        """`session` exists no longer, or never did."""
        self._pool.gone(session)
        self._open.discard(session)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    # -- opening ---------------------------------------------------------------------------------
    async def admit(
        self, session: Session, line: Line, counted: Limits, deadline: Deadline
    ) -> bool:
        """Wait until `session` may be dialled without too many being open there.

        Parked ones are told QUIT for it, and those that were told are waited for, until they are
        gone (QUIT_LINGER). False: the deadline came first.
        """
        while True:
            room, spare = self._pool.make_room(counted)
            if room:
                break
            for one in spare:
                one.leave()
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                async with asyncio.timeout(deadline.left()):
                    await waiting
            except TimeoutError:
                return False
        self._pool.open(session, line, counted)
        self._open.add(session)
        return True

    def admit_ahead(self, session: Session, line: Line, counted: Limits) -> bool:
        """Whether `session` may be dialled before there is a question for it."""
        if not self._pool.open_ahead(session, line, counted, self._clock()):
            return False
        self._open.add(session)
        return True

    def wanted_ahead(self, line: Line, counted: Collection[Key]) -> bool:
        """Whether `admit_ahead` would say yes by now."""
        return self._pool.wanted_ahead(line, counted, self._clock())

    # -- parking ---------------------------------------------------------------------------------
    def take(
        self, line: Line, addresses: Collection[IPAddress]
    ) -> tuple[Session, IPAddress] | None:
        """A session at rest with one of `addresses`, and which; it is the caller's now."""
        while (taken := self._pool.take(line, addresses, self._clock())) is not None:
            session, _ = taken
            if session.usable():
                return taken
            self._pool.spoiled(session)
            session.abort()
        return None

    def park(self, session: Session, ip: IPAddress) -> None:
        """Keep a session at rest, whose peer is `ip`; it is told QUIT if it is not to be kept."""
        now, dialog = self._clock(), session.dialog
        wanted = session.resting and not self._halted()
        kept = wanted and self._pool.park(
            session, ip, transactions=dialog.transactions, refusals=dialog.refusals, now=now
        )
        if not kept:
            self.leave(session)
            return
        self._sweep()

    def leave(self, session: Session) -> None:
        """Let a session go that nobody needs any more."""
        self._pool.leaving(session)
        session.leave()

    def let_go(self) -> None:
        """Say QUIT on every session that is parked."""
        for session in self._pool.plan(float("inf")):
            session.leave()

    async def close(self) -> None:
        """Say QUIT where somebody is parked, drop all else, and wait until nothing is open."""
        self._stop()
        drained = self._pool.drain()
        for session in drained:
            session.leave()
        sessions = tuple(self._open)
        for session in self._open.difference(drained):
            session.abort()
        for session in sessions:
            await session.gone()

    def _sweep(self) -> None:
        """Say QUIT where the plan says so, and look again when it has more to say."""
        for session in self._pool.plan(self._clock()):
            session.leave()
        due = self._pool.due
        if due is not None and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(due - self._clock(), 0.0), self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._sweep()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
