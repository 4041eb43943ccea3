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
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
        # When the first job of each lane is due, as far as it was looked up since it changed.
        self._dues: dict[str, float] = {}
        self._changed: set[str] = set()
        self._all_changed = True
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, until `close`."""
        self._loop = asyncio.create_task(self._work(), name=f"gate-{self._kind}")

    def wake(self, due: float = float("-inf"), lane: str | None = None) -> None:
        """A job of a lane is due then; or, of no lane, anything may have changed."""
        if lane is None:
            self._all_changed = True
        else:
            self._changed.add(lane)
        if due < self._sleeps_until:
            self._wake.set()

    def late(self) -> float:
        """Seconds for which the most overdue job has been due, as far as it was looked up."""
        return max(0.0, self._clock() - min(self._dues.values(), default=float("inf")))

    async def round(self) -> int:
        """Do all that is due now, and what becomes due by it; how many subjects that were."""
        done = 0
        while await self._begin():
            done += len(self._tasks)
            while self._tasks:
                await asyncio.wait(self._tasks)
                await asyncio.sleep(0)  # a task that is done is crossed off a turn later
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
        await self._look()
        now = self._clock()
        room = self._share({lane: n for lane, n in self._free().items() if self._dues[lane] <= now})
        if not room:
            return 0
        self._changed |= room.keys()
        leases = await self._queue.lease(self._kind, room, now=now, until=now + self._lease)
        groups = [list(group) for _, group in groupby(leases, lambda lease: lease.job.subject)]
        for group in groups:
            task = asyncio.create_task(self._one(group))
            self._tasks[task] = lane = group[0].job.lane
            self._running[lane] += 1
            task.add_done_callback(self._ended)
        return len(groups)

    async def _look(self) -> None:
        """Look up when lanes that changed have something due."""
        if not (self._changed or self._all_changed):
            return
        lanes = set(self._room()) if self._all_changed else self._changed
        self._changed, self._all_changed = set(), False
        dues = await self._queue.dues(self._kind, lanes)
        for lane in lanes:
            self._dues.pop(lane, None)
        self._dues.update(dues)

    def _free(self) -> dict[str, int]:
        """The lanes with jobs and with room for more, and for how many."""
        every = ((lane, most - self._running[lane]) for lane, most in self._room().items())
        return {lane: free for lane, free in every if free > 0 and lane in self._dues}

    def _share(self, lanes: Mapping[str, int]) -> dict[str, int]:
        """What of it there is room for in all; each time another lane is the first."""
        free, names = self._most - len(self._tasks), list(lanes)
        self._turn += 1
        shares: dict[str, int] = {}
        for index in range(len(names)):
            lane = names[(index + self._turn) % len(names)]
            if free > 0:
                shares[lane] = min(lanes[lane], free)
                free -= shares[lane]
        return shares

    async def _next(self) -> float:
        """When to look again, if nothing happens before."""
        # First what is closed, then what is open: a lane that opens meanwhile is in either.
        reopens = self._reopens()
        await self._look()
        dues = [self._dues[lane] for lane in self._free()] if len(self._tasks) < self._most else []
        idle = self._clock() + QUEUE_IDLE
        return min([idle, *dues, idle if reopens is None else reopens])

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
        self._changed.add(lane)
        self._wake.set()

    async def _tidy(self) -> None:
        now = self._clock()
        if now - self._tidied < QUEUE_IDLE:
            return
        self._tidied, self._all_changed = now, True
        buried = await self._queue.tidy(self._kind, list(self._room()), now=now)
        if buried:
            log.warning("%d jobs of %s were given up undone", buried, self._kind)
        metrics.queue_depth(await self._queue.depth())
