"""What the rows of the fault catalogue stand on: a whole gate before one misbehaving mail world.

Each *run* is one case of a row at one budget, in a world of its own: name servers and mail servers
on loopback, a seam, and an engine with everything in it but HTTP. All runs of a session are played
at once in one event loop (`play`), slow ones first; the tests then look at what came of theirs. A
run that failed is played again with few others beside it: the machine may have been busy.

What every run has to keep, whatever its row says (`Ground`): the answer leaves within the budget,
nothing is said before the greeting is complete, nothing but the eight verbs, every connection is
closed, no task is left. Of the loop see `gate.testing.LoopLag`.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from collections.abc import Sequence as Seq
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from gate.answer import Answer
from gate.budget import Deadline
from gate.egress import IPAddress
from gate.engine import Engine, open_engine
from gate.known import Known
from gate.reason import Reason
from gate.recheck import KIND
from gate.settings import Settings
from gate.testing import FakeClock, HostRules, LoopLag, MailHost, ScriptedMta, Seam, transcript
from gate.testing.plugin import Leftovers
from gate.testing.wire import Connection, SmtpListener
from gate.testing.zones import FakeZones, Value
from gate.trace import Trace
from gate.verdict import Verdict
from tests.lateworld import NOW, settings

BUDGETS: Final = (0.3, 1.0, 5.0)
GRACE: Final = 0.1
"""An answer may be so much later than its budget says (promises.md S5)."""
STALL: Final = 0.05
"""The loop may be held up no longer (R1)."""
JANE, JOE = "jane@good.test", "joe@good.test"
SPACING: Final = 0.012
"""Seconds between the starts of two runs: so many worlds are not built in one go."""
CALMS_MOST: Final = 10
AT_ONCE: Final = 200
AGAIN_AT_ONCE: Final = 6
TRIES: Final = 3
CLOSES: Final = 2.0
"""Seconds until connections that the gate has let go are seen to be closed."""
OF_A_MAILBOX: Final = frozenset(
    {
        Reason.ACCEPTED_EMAIL,
        Reason.REJECTED_EMAIL,
        Reason.MAILBOX_DISABLED,
        Reason.MAILBOX_FULL,
        Reason.ACCEPT_ALL,
    }
)
"""What only the answer to RCPT can say."""
FINAL_LINE: Final = re.compile(rb"(?m)^[2-5][0-9][0-9](?: |\r?$)")

Peer = str | HostRules | SmtpListener | tuple[str, int]
"""A transcript's name, a transcript, rules, a server, or where a seam leads without one."""

_run: contextvars.ContextVar[int] = contextvars.ContextVar("run", default=0)
_tasks: dict[int, set[asyncio.Task[Any]]] = {}


@dataclass(slots=True)
class Ground:
    """One running world. `hosts` are those of good.test, most preferred first."""

    engine: Engine
    zones: FakeZones
    seam: Seam
    clock: FakeClock
    hosts: list[SmtpListener]
    time: Time
    stack: AsyncExitStack
    worst: float = -float("inf")
    """Seconds over its budget, of the latest answer so far."""
    flights: list[asyncio.Task[Known]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    async def check(
        self,
        budget: float,
        email: str = JANE,
        *,
        max_age: float | None = None,
        trace: Trace | None = None,
    ) -> Answer:
        """Ask for the caller's budget; the flight that it began or joined is noted."""
        checker = self.engine.checker
        started = time.monotonic()
        deadline = Deadline.after(budget, self.time)
        answer = await checker.check(
            email, site=self.engine.sites[0], deadline=deadline, max_age=max_age, trace=trace
        )
        self.answers.append(answer)
        if answer.verdict.reason in OF_A_MAILBOX and answer.smtp is not None:
            assert answer.smtp[0] == "rcpt", f"{answer.verdict.reason} by the word of {answer.smtp}"
        self.worst = max(self.worst, time.monotonic() - started - budget)
        self.flights += [flight.task for flight in checker._flights.under_way.values()]
        return answer

    async def reason(self, budget: float, email: str = JANE) -> str:
        return (await self.check(budget, email)).verdict.reason.value

    async def landed(self, answer: Answer) -> str:
        """The reason that the flight behind an answer came to; the answer's own without one."""
        if not self.flights:
            return answer.verdict.reason.value
        known = await self.flights.pop()
        return known.verdict.reason.value

    async def found(self, budget: float, email: str = JANE) -> tuple[str, str]:
        """What is said within the budget, and what is found in the end."""
        answer = await self.check(budget, email)
        return answer.verdict.reason.value, await self.landed(answer)

    @property
    def dialled(self) -> int:
        """How often a mail host was dialled, or asked about somebody on an old connection."""
        return len(self.seam.dialled) + len(self.recipients)

    @property
    def recipients(self) -> list[str]:
        return [line for host in self.hosts for line in host.lines if line.startswith("RCPT")]

    @property
    def questions(self) -> list[str]:
        """What name servers were asked, but for the wish not to be probed."""
        return [query for query in self.zones.queries if not query.startswith("_signup-gate.")]

    async def promised(self) -> int:
        """How many addresses wait to be asked about again."""
        return (await self.engine.store.depth()).get((KIND, False), 0)

    async def latest(self, check: str) -> Verdict:
        """What is known by now of an earlier check."""
        answer = await self.engine.checker.latest(check, self.engine.sites[0], wait=0.0)
        assert answer is not None
        return answer.verdict

    async def settled(self) -> int:
        """The same, once those who wait for what a flight found have been told."""
        await asyncio.gather(*self.engine.checker._flights._background)
        return await self.promised()

    def advance(self, seconds: float) -> None:
        """Let time go by, on every clock there is."""
        self.clock.advance(seconds)
        self.time.ahead += seconds

    async def later(self, seconds: float) -> int:
        """Let time go by; how many addresses were asked about again."""
        self.advance(seconds)
        return await self.engine.rechecks.round()

    async def back(self, script: str) -> SmtpListener:
        """From now on every address of good.test's hosts leads to a host that plays `script`."""
        where = await _open(script, self.stack, self.hosts)
        for ip in self.seam.addresses:
            self.seam.add(str(ip), where)
        return self.hosts[-1]


@dataclass(slots=True)
class Time:
    """The monotonic clock, or as much ahead of it as a test has let go by."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@dataclass(slots=True)
class Place:
    """What `open_engine` wants of a world."""

    stubs: Mapping[str, Seq[tuple[str, int]]]
    seam: Seam
    seam_addresses: Collection[IPAddress] = frozenset()


@asynccontextmanager
async def ground(
    *hosts: Peer,
    zones: Mapping[str, Value] | None = None,
    tcp: bool = True,
    resolvers: Seq[tuple[str, int]] = (),
    own_queue_clock: bool = False,
    config: Settings | None = None,
) -> AsyncIterator[Ground]:
    """good.test with these hosts: mx.good.test, mx2.good.test … in their order. `zones` goes before
    that. `resolvers` are asked before the name server of `zones`.
    `own_queue_clock`: what is due later does not go by the clock that a test moves.
    """
    seam, clock = Seam(), FakeClock(NOW)
    records = [f"MX {10 * n} {_name(n)}" for n in range(1, len(hosts) + 1)]
    plan: dict[str, Value] = {"good.test": records or "MX 10 mx.good.test"}
    async with AsyncExitStack() as stack:
        servers: list[SmtpListener] = []
        for number, host in enumerate(hosts, 1):
            where = host if isinstance(host, tuple) else await _open(host, stack, servers)
            ip = f"8.{number}.4.4"
            seam.add(ip, where)
            plan[_name(number)] = f"A {ip}"
        fake = await stack.enter_async_context(FakeZones({**plan, **(zones or {})}, tcp=tcp))
        place = Place({"test": [*resolvers, fake.server]}, seam)
        chosen, now = config or settings(webhooks=[]), Time()
        queue = None if own_queue_clock else clock
        opened = open_engine(chosen, world=place, clock=now, wall=clock, queue_clock=queue)
        async with opened as engine:
            here = Ground(engine, fake, seam, clock, servers, now, stack)
            yield here
        await _closed(servers)
    _quiet()
    assert here.worst <= GRACE, f"an answer came {1000 * here.worst:.0f} ms after its budget"


async def _open(host: Peer, stack: AsyncExitStack, servers: list[SmtpListener]) -> tuple[str, int]:
    if isinstance(host, HostRules):
        server: SmtpListener = MailHost(host)
    elif isinstance(host, str):
        server = ScriptedMta(host if "\n" in host else transcript(host))
    else:
        assert isinstance(host, SmtpListener)
        server = host
    servers.append(await stack.enter_async_context(server))
    return server.address


def _name(number: int) -> str:
    return "mx.good.test" if number == 1 else f"mx{number}.good.test"


async def _closed(servers: Seq[SmtpListener]) -> None:
    """By now every connection is closed, by us or by the peer, and none of them was spoken on
    before its turn. (That only the eight verbs were said is what each server insists on.)
    """
    for server in servers:
        for connection in server.connections:
            if not connection.deaf:
                async with asyncio.timeout(CLOSES):
                    await connection.ended.wait()
            spoke_in_turn(connection)


def spoke_in_turn(connection: Connection) -> None:
    """Whoever speaks before the last line of the greeting is caught."""
    before = b""
    for piece in connection.log:
        if not piece.sent:
            assert FINAL_LINE.search(before), f"said {piece.data!r} before the greeting"
            break
        before += piece.data


def _quiet() -> None:
    """No task of this run is left."""
    mine = _tasks.pop(_run.get(), set())
    left = [task for task in mine if not task.done() and task is not asyncio.current_task()]
    assert not left, f"left behind: {left}"


# -- rows, and the playing of them ----------------------------------------------------------------

Scene = Callable[[float], Awaitable[Ground]]
"""Plays one case at one budget, asserts what its row says, and gives back the world it was in."""


@dataclass(frozen=True)
class Case:
    """One way in which a peer behaves. `takes`: about so many seconds until the end of its run."""

    says: str
    scene: Scene
    takes: float = 0.0


@dataclass(frozen=True)
class Row:
    """One row of the catalogue: what peers do, and what must come of it."""

    id: str
    says: str
    cases: tuple[Case, ...]


@dataclass(slots=True)
class Run:
    """One case at one budget, and what came of it."""

    row: Row
    case: Case
    budget: float
    trouble: str = ""
    over: float = -float("inf")
    lag: float = 0.0
    tries: int = 0

    def __str__(self) -> str:
        return f"{self.row.id} {self.case.says}, {1000 * self.budget:.0f} ms"


@dataclass(slots=True)
class Played:
    """All runs of a session, by row."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    left_open: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def of(self, row: Row) -> list[str]:
        """What was wrong with a row's runs."""
        return [f"{run}: {run.trouble}" for run in self.runs[row.id] if run.trouble]

    def passed(self, row: Row) -> None:
        """Fail with whatever was wrong with a row's runs."""
        if trouble := self.of(row) + [f"left open: {what}" for what in self.left_open]:
            pytest.fail("\n".join(trouble), pytrace=False)

    def __str__(self) -> str:
        runs = [run for group in self.runs.values() for run in group]
        good = sum(not self.of(group[0].row) for group in self.runs.values())
        over = max((run.over for run in runs), default=0.0)
        lag = max((run.lag for run in runs), default=0.0)
        return (
            f"fault catalogue: {good} of {len(self.runs)} rows in {len(runs)} runs, worst answer "
            f"{1000 * over:+.0f} ms over its budget, worst loop lag {1000 * lag:.0f} ms, "
            f"{sum(run.tries > 1 for run in runs)} runs played twice, {self.seconds:.0f} s"
        )


def play(rows: Seq[Row]) -> Played:
    """Every case of every row at every budget."""
    runs = [Run(row, case, budget) for row in rows for case in row.cases for budget in BUDGETS]
    started, before = time.monotonic(), Leftovers.now()
    gc.collect()
    gc.freeze()  # as the server does: what is loaded by now need not be walked again
    try:
        asyncio.run(_play(sorted(runs, key=lambda run: -run.case.takes), AT_ONCE))
        for _ in range(TRIES - 1):
            if failed := [run for run in runs if run.trouble]:
                asyncio.run(_play(failed, AGAIN_AT_ONCE))
    finally:
        gc.unfreeze()
    gc.collect()
    played = Played(seconds=time.monotonic() - started)
    played.left_open = Leftovers.now().since(before)
    for run in runs:
        played.runs.setdefault(run.row.id, []).append(run)
    return played


async def _play(runs: Seq[Run], at_once: int) -> None:
    asyncio.get_running_loop().set_task_factory(_tagged)  # type: ignore[arg-type]  # the stub knows no options
    places = asyncio.Semaphore(at_once)
    async with LoopLag() as lag:
        tasks = []
        for number, run in enumerate(runs, 1):
            await places.acquire()
            tasks.append(asyncio.create_task(_play_one(number, run, lag)))
            tasks[-1].add_done_callback(lambda _: places.release())
            await _calm()
        await asyncio.gather(*tasks)


async def _calm() -> None:
    """Wait a little; on a busy machine until the loop is on time again, but not for ever."""
    loop = asyncio.get_running_loop()
    for _ in range(CALMS_MOST):
        before = loop.time()
        await asyncio.sleep(SPACING)
        if loop.time() - before < 2 * SPACING:
            return


async def _play_one(number: int, run: Run, lag: LoopLag) -> None:
    _run.set(number)
    loop = asyncio.get_running_loop()
    started = loop.time()
    run.trouble, run.tries = "", run.tries + 1
    try:
        here = await run.case.scene(run.budget)
        run.over = here.worst
    except Exception as error:
        run.trouble = "".join(traceback.format_exception(error, limit=-2))
    finally:
        _tasks.pop(number, None)
    await asyncio.sleep(0)
    run.lag = lag.worst(since=started)
    if run.lag > STALL and not run.trouble:
        run.trouble = f"the loop was held up for {1000 * run.lag:.0f} ms"


def _tagged(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Make a task and note whose it is."""
    context = options.get("context") or contextvars.copy_context()
    task = asyncio.Task(work, loop=loop, **options)
    _tasks.setdefault(context.get(_run, 0) or 0, set()).add(task)
    return task
