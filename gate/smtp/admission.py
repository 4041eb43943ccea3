"""Admission: the waiting before a dialogue, and what a dialogue teaches about the next one.

What it promises: nobody is dialled who rests, or without a place at the destination; a caller waits
at most SLOT_SHARE of its time for one, in turn; a place is given back however the dialogue ends.

`Throttle` decides all of it; this shell only waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gate.budget import SLOT_SHARE, Deadline
from gate.egress import IPAddress
from gate.reason import Reason, Scope
from gate.smtp.dialog import Stage
from gate.smtp.finding import Finding
from gate.smtp.provider import Provider
from gate.smtp.throttle import Throttle, Ticket


class Unasked(Exception):
    """Nobody is asked, for `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a dialogue is wanted for: with whom, about whose address, as whom, and by whose wish.

    `identity`: the destination with the source it sees. `site`: who wants to know. `provider`: the
    row whose limits count instead of the ordinary ones. `hosts`: the addresses that may be dialled.
    `recipients`: RCPT commands that one dialogue will send, the random recipient's included.
    """

    destination: str
    identity: str
    domain: str
    site: str = ""
    provider: Provider | None = None
    hosts: tuple[IPAddress, ...] = ()
    recipients: int = 1


class Admission:
    """One for the process: holds the callers that wait."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._waiting: dict[int, asyncio.Future[None]] = {}

    def __repr__(self) -> str:
        return repr(self._throttle)

    @asynccontextmanager
    async def place(self, errand: Errand, deadline: Deadline) -> AsyncIterator[None]:
        """A place at the destination for as long as the block runs. Raises `Unasked`."""
        self._refuse_if_resting(errand)
        ticket = self._throttle.ask(errand.destination)
        try:
            if not ticket.granted:
                await self._turn(ticket, deadline.left() * SLOT_SHARE)
                self._refuse_if_resting(errand)  # since we began to wait
            yield
        finally:
            for granted in self._throttle.leave(ticket):
                turn = self._waiting.get(granted.number)
                if turn is not None and not turn.done():
                    turn.set_result(None)

    def learn(self, errand: Errand, finding: Finding) -> None:
        """Let whoever refuses us rest; end that when it speaks of a recipient."""
        outcome = finding.mailbox
        if outcome is None:
            return
        if outcome.reason is Reason.PROBE_BLOCKED:
            named = finding.stage is Stage.RCPT
            self._throttle.blocked(errand.identity, errand.domain if named else "")
        elif finding.stage is Stage.RCPT and outcome.scope is Scope.RECIPIENT:
            self._throttle.welcomed(errand.identity, errand.domain)

    def _refuse_if_resting(self, errand: Errand) -> None:
        if self._throttle.resting(errand.identity, errand.domain):
            raise Unasked(Reason.PROBE_BLOCKED)

    async def _turn(self, ticket: Ticket, seconds: float) -> None:
        turn = self._waiting[ticket.number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            raise Unasked(Reason.THROTTLED) from None
        finally:
            del self._waiting[ticket.number]
