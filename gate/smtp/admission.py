"""Admission: the waiting before a dialogue, and what a dialogue teaches about the next one.

What it promises: nobody is dialled who rests, or without a place at the destination; a caller waits
at most SLOT_SHARE of its time for one, in turn; who cannot be served by waiting is told at once; a
place is given back however the dialogue ends.

`Throttle` decides all of it; this shell only waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

from gate.budget import SLOT_SHARE, Deadline
from gate.reason import Reason
from gate.smtp.caps import Errand, open_most
from gate.smtp.finding import Finding
from gate.smtp.places import Key
from gate.smtp.throttle import Pass, Refusal, Throttle

__all__ = ["Admission", "Errand", "Place", "Unasked"]


class Unasked(Exception):
    """Nobody is asked, for `reason`; `kind`: the limit or rest it is because of, if that is one."""

    def __init__(self, reason: Reason, kind: str = "") -> None:
        super().__init__(f"{reason}: {kind}" if kind else str(reason))
        self.reason = reason


class Place:
    """A place at a destination, for one dialogue: `with` gives it back."""

    __slots__ = ("_admission", "_held", "_throttle")

    def __init__(self, admission: Admission, throttle: Throttle, held: Pass) -> None:
        self._admission = admission
        self._throttle = throttle
        self._held = held

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.leave(self._held)

    @property
    def control(self) -> bool:
        """Whether the random recipient may be asked, if the errand wished to."""
        return self._held.control

    @property
    def destination(self) -> str:
        return self._held.errand.destination

    @property
    def open_most(self) -> dict[Key, int]:
        """How many connections may be open with each neighbour that this place counts with."""
        return open_most(self._held.ticket.claims)

    def again(self) -> bool:
        """Whether one more dialogue may follow here: with the next host, or with the same anew.

        False: the limits leave no room for its recipients, and the answer so far has to do.
        """
        return self._throttle.again(self._held)

    def learn(self, finding: Finding) -> None:
        """Tell what the dialogue has taught, before the next one may begin."""
        self._throttle.learn(
            self._held,
            outcome=finding.mailbox,
            stage=finding.stage,
            failure=finding.failure,
            control=finding.control,
        )


class Admission:
    """One for the process: holds the callers that wait."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return repr(self._throttle)

    async def place(self, errand: Errand, deadline: Deadline) -> Place:
        """Wait for a place at the destination; `with` it, at once. Raises `Unasked`."""
        held = self._throttle.ask(errand)
        if isinstance(held, Refusal):
            raise self._refused(held)
        if not held.granted:
            try:
                await self._turn(held, deadline)
                refusal = self._throttle.refusal(errand)  # since we began to wait
                if refusal is not None:
                    raise self._refused(refusal)
            except BaseException:
                self.leave(held)
                raise
        return Place(self, self._throttle, held)

    def leave(self, held: Pass) -> None:
        """Give back what `place` has taken, and wake who may go on by that."""
        self._wake(self._throttle.leave(held))
        self._set_timer()

    def _refused(self, refusal: Refusal) -> Unasked:
        self._throttle.watch.refused(refusal.kind)
        return Unasked(refusal.reason, refusal.kind)

    def _wake(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            turn = self._waiting.get(number)
            if turn is not None and not turn.done():
                turn.set_result(None)

    async def _turn(self, held: Pass, deadline: Deadline) -> None:
        number = held.ticket.number
        before = deadline.left()
        turn = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._set_timer()
        try:
            async with asyncio.timeout(before * SLOT_SHARE):
                await turn
        except TimeoutError:
            raise self._refused(Refusal(Reason.THROTTLED, "wait")) from None
        finally:
            del self._waiting[number]
            self._throttle.watch.waited(before - deadline.left())

    def _set_timer(self) -> None:
        """Look again when the start of somebody who waits may be."""
        due = self._throttle.due()
        if due is not None and self._timer is None and self._waiting:
            seconds = max(0.0, due - self._throttle.now())
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._wake(self._throttle.tick())
        self._set_timer()
