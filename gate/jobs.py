"""`Worker`: takes jobs that are due out of a queue and has them done, some at a time.

What it promises: never a job before it is due; lanes take turns, so that one of them full of work
holds up no other; a job whose doing raises is not settled, comes back when its lease ends, and is
buried by the queue in the end. It sleeps until something is due, is added, or is done.

It decides nothing: how much room a lane has is asked of whoever made it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby

from gate import metrics
from gate.budget import QUEUE_IDLE, Clock
from gate.store import Lease, Queue

log = logging.getLogger("gate.jobs")
Do = Callable[[Sequence[Lease]], Awaitable[None]]


class Worker:
    """Works off one kind of job."""

    def __init__(
        self,
        *,
        queue: Queue,
        kind: str,
        clock: Clock,
        lease: float,
        most: int,
        room: Callable[[], Mapping[str, int]],
        reopens: Callable[[], float | None],
        do: Do,
    ) -> None:
        """`lease`: seconds a job may take. `most`: at once, in all. `room`: how many subjects of
        each lane may be under way now; `reopens`: when that will change by itself. `do` is handed
        the jobs of one subject and settles them.
        """
        self._queue = queue
        self._kind = kind
        self._clock = clock
        self._lease = lease
        self._most = most
        self._room = room
        self._reopens = reopens
        self._do = do
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._running: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._sleeps_until = float("inf")
        self._tidied = float("-inf")
        self._turn = 0
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, until `close`."""
        self._loop = asyncio.create_task(self._work(), name=f"gate-{self._kind}")

    def wake(self, due: float = float("-inf")) -> None:
        """Something is due then; or, without a time, something changed."""
        if due < self._sleeps_until:
            self._wake.set()

    async def round(self) -> int:
        """Do all that is due now, and what becomes due by it; how many subjects that were."""
        done = 0
        while await self._begin():
            done += len(self._tasks)
            while self._tasks:
                await asyncio.wait(self._tasks)
        return done

    async def close(self) -> None:
        """Stop. What is under way is cancelled; its jobs are due again in the next process."""
        tasks = [*self._tasks, *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            self._sleeps_until = float("inf")
            try:
                await self._tidy()
                if await self._begin():
                    continue
                until = await self._next()
            except Exception:
                log.exception("the queue of %s failed for a reason of our own", self._kind)
                until = self._clock() + QUEUE_IDLE
            self._sleeps_until = until
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - self._clock())):
                    await self._wake.wait()

    async def _begin(self) -> int:
        """Start what is due and has room; how many subjects."""
        room = dict(self._rooms())
        if not room:
            return 0
        now = self._clock()
        leases = await self._queue.lease(self._kind, room, now=now, until=now + self._lease)
        groups = [list(group) for _, group in groupby(leases, lambda lease: lease.job.subject)]
        for group in groups:
            task = asyncio.create_task(self._one(group))
            self._tasks[task] = lane = group[0].job.lane
            self._running[lane] += 1
            task.add_done_callback(self._ended)
        return len(groups)

    def _rooms(self) -> Iterator[tuple[str, int]]:
        """The lanes with room, as far as there is any in all; another is the first each time."""
        every = ((lane, most - self._running[lane]) for lane, most in self._room().items())
        lanes = [(lane, free) for lane, free in every if free > 0]
        free = self._most - len(self._tasks)
        self._turn += 1
        for index in range(len(lanes)):
            lane, most = lanes[(index + self._turn) % len(lanes)]
            if free <= 0:
                return
            yield lane, min(most, free)
            free -= min(most, free)

    async def _next(self) -> float:
        """When to look again, if nothing happens before."""
        idle = self._clock() + QUEUE_IDLE
        lanes = [lane for lane, _ in self._rooms()]
        due = await self._queue.next_due(self._kind, lanes) if lanes else None
        reopens = self._reopens()
        return min(idle if due is None else due, idle if reopens is None else reopens, idle)

    async def _one(self, leases: Sequence[Lease]) -> None:
        try:
            await self._do(leases)
        except Exception:
            log.exception("a job of %s failed for a reason of our own", self._kind)

    def _ended(self, task: asyncio.Task[None]) -> None:
        lane = self._tasks.pop(task)
        self._running[lane] -= 1
        if not self._running[lane]:
            del self._running[lane]
        self._wake.set()

    async def _tidy(self) -> None:
        now = self._clock()
        if now - self._tidied < QUEUE_IDLE:
            return
        self._tidied = now
        buried = await self._queue.tidy(self._kind, list(self._room()), now=now)
        if buried:
            log.warning("%d jobs of %s were given up undone", buried, self._kind)
        metrics.queue_depth(await self._queue.depth())
