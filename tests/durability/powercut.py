"""Cut the power of a gate again and again, and hold what it promised against what is left (R2).

    python -m tests.durability.powercut 300

A whole gate works on a disk that remembers every write (disk.py): it answers checks of greylisted
mailboxes, asks again, posts webhooks, spends claims, starts anew. Then the disk is cut at moments
of its past, half of them right behind a promise. On what is left, a gate must start; whoever was
promised a later verdict has it by then, or it is still in the queue; what was spent stays spent.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from gate.reason import Reason
from gate.settings import Settings
from gate.store.file import StoreFile, Unusable
from gate.testing import FakeClock, FakeZones, HostRules, MailHost, Seam
from gate.webhooks.message import message_id
from tests.durability.disk import Disk, Mark, recorded
from tests.durability.domains import Everybody, lead, plan
from tests.lateworld import NOW, OK, SECRET, Late, Place, Received, Receiver, settings

HOOK = {"url": "http://hook.test/late", "secrets": [SECRET], "allow_http": True}
AT_ONCE = 20
STEP = 40.0
"""Seconds between two batches of checks; what is greylisted for sixty is let in two later."""
LIVES = 2


@dataclass(slots=True)
class Recording:
    """A disk and what was said over it, in its order: the marks are `(kind, name)`."""

    disk: Disk

    def said(self, kind: str, at: int) -> set[str]:
        """What was said by then."""
        marks = (event.what for event in self.disk.events[:at] if isinstance(event, Mark))
        return {name for mark, name in marks if mark == kind}

    def moments(self, chance: Random) -> Iterator[int]:
        """Moments to cut at, for ever: any, and behind promises, in turn."""
        promises = [n for n, event in enumerate(self.disk.events, 1) if isinstance(event, Mark)]
        while True:
            yield chance.choice(promises)
            yield chance.randint(1, len(self.disk.events))


@dataclass(slots=True)
class Toll:
    """What the cuts cost."""

    cuts: int = 0
    promised: int = 0
    spent: int = 0
    lost: list[str] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.cuts} cuts, {self.promised} promises and {self.spent} claims looked for: "
            f"{len(self.lost)} lost, {len(self.revived)} revived, {len(self.unusable)} files "
            f"unusable; {self.seconds:.0f} s"
        )

    def add(self, other: Toll) -> None:
        self.cuts += other.cuts
        self.promised += other.promised
        self.spent += other.spent
        self.lost += other.lost
        self.revived += other.revived
        self.unusable += other.unusable
        self.seconds += other.seconds

    @property
    def clean(self) -> bool:
        return not (self.lost or self.revived or self.unusable)


@dataclass(slots=True)
class Ground:
    """A place for gates whose store is a file of ours, and the receiver that outlives them."""

    place: Place
    hook: Receiver
    disk: Disk | None = None

    async def live(self, path: Path, first: int, checks: int, *, synchronous: str) -> None:
        """One life: checks in batches, each promise marked as soon as its caller has it."""
        async with self.place.engine(config(path)) as late:
            file = late.engine.store._file  # type: ignore[attr-defined]
            if synchronous != "FULL":
                file._connection.execute(f"PRAGMA synchronous = {synchronous}")
            for start in range(first, first + checks, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, first + checks))
                await asyncio.gather(*(self._ask(late, number) for number in numbers))
                await late.later(STEP)

    async def _ask(self, late: Late, number: int) -> None:
        answer = await late.check(f"u{number}@d{number}.test")
        assert self.disk is not None
        assert answer.verdict.reason is Reason.GREYLISTED, answer.verdict.reason
        self.disk.mark(("promised", answer.id))
        spent = number.to_bytes(16, "big")
        assert await late.engine.store.claim(spent, expires=NOW + 86_400) is None
        self.disk.mark(("spent", spent.hex()))

    async def drain(self, path: Path) -> set[str]:
        """Let a gate on what is left keep its promises; the checks that were told of."""
        self.hook.received.clear()
        async with self.place.engine(config(path)) as late:
            for _ in range(50):
                await late.later(STEP)
                if not any(not dead for _, dead in await late.engine.store.depth()):
                    break
        return {request.data["check"] for request in self.hook.received}


def config(path: Path) -> Settings:
    return settings(f"sqlite:{path}", webhooks=[HOOK])


@contextmanager
def directories() -> Iterator[tuple[Path, Path]]:
    """Two that are empty."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        yield Path(one), Path(other)


async def suffer(
    cuts: int, checks: int, *, drains: int = 0, seed: int = 1, synchronous: str = "FULL"
) -> Toll:
    """Record one gate's work over so many checks, then cut its past; some of them are drained."""
    started, chance, toll = time.monotonic(), Random(seed), Toll()
    ground: Ground

    async def take(request: Received, writer: asyncio.StreamWriter) -> None:
        if ground.disk is not None:
            ground.disk.mark(("told", request.data["check"]))
        await OK(request, writer)

    clock, seam = FakeClock(NOW), Seam()
    host = MailHost(HostRules(users=Everybody(), greylist=60.0), clock=clock, history=1)
    zones = FakeZones({"hook.test": "A 8.8.8.8", **plan(checks)})
    hook = Receiver(take, tls=False)
    with directories() as (home, ruin):
        async with host, zones, hook:
            lead(seam, range(checks), host.address)
            seam.add("8.8.8.8", hook.address, 80)
            place = Place(zones, seam, clock, {"": host}, hook, {"test": [zones.server]})
            ground = Ground(place, hook)
            each = -(-checks // LIVES)
            with recorded(home) as ground.disk:
                recording = Recording(ground.disk)
                for first in range(0, checks, each):
                    part = min(each, checks - first)
                    await ground.live(home / "gate.db", first, part, synchronous=synchronous)
            ground.disk = None
            for number, at in zip(range(cuts), recording.moments(chance), strict=False):
                recording.disk.cut(at, chance, ruin)
                look(recording, at, ruin / "gate.db", toll)
                if number < drains:
                    told = await ground.drain(ruin / "gate.db") | recording.said("told", at)
                    toll.lost += recording.said("promised", at) - told
                for file in ruin.iterdir():
                    file.unlink()
    toll.seconds = time.monotonic() - started
    return toll


def look(recording: Recording, at: int, path: Path, toll: Toll) -> None:
    """Start on what is left of the file, and look for everything that was said by then."""
    toll.cuts += 1
    promised, spent = recording.said("promised", at), recording.said("spent", at)
    toll.promised += len(promised)
    toll.spent += len(spent)
    file = StoreFile(path)
    try:
        file.open(check=True)
    except Unusable as error:
        toll.unusable.append(str(error))
        return
    finally:
        file.close()
    with closing(sqlite3.connect(path)) as connection:
        jobs = {
            id.decode().partition("/")[0]
            for (id,) in connection.execute("SELECT id FROM job WHERE buried IS NULL")
        }
        claims = {key.hex() for (key,) in connection.execute("SELECT key FROM claim")}
    waiting = promised - recording.said("told", at) - jobs
    toll.lost += [
        check for check in waiting if not any(message_id(check, r) in jobs for r in Reason)
    ]
    toll.revived += spent - claims


def main() -> int:
    """As many cuts as the first argument says, thirty a recording; exit 1 if something was lost.

    The negative control is part of it: without syncs, something must be lost.
    """
    cuts, total = int(sys.argv[1]) if len(sys.argv) > 1 else 300, Toll()
    for seed in range(-(-cuts // 30)):
        toll = asyncio.run(suffer(min(30, cuts - total.cuts), 200, drains=3, seed=seed))
        total.add(toll)
    control = asyncio.run(suffer(30, 100, synchronous="OFF"))
    print(f"synchronous=FULL: {total}\nsynchronous=OFF, which must lose: {control}")
    return 0 if total.clean and control.lost else 1


if __name__ == "__main__":
    sys.exit(main())
