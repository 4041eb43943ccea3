"""Re-checks: what could not be found out in time is found out later, whatever crashes in between.

What it promises: an answer that says `greylisted` or `deferred` leaves when its re-check is on disk
(or the disk is known to be broken); five, twenty and sixty minutes later, or after the delay that
the reply named and never before, the address is asked about again, from the same source, under the
same names; a restart only delays. What is found is kept with the check, and told to the site's
webhooks if it differs from what was said first: both in one transaction.

Rules:

1. One address of one site is asked about once for all who wait for it.
2. Whoever finds something out settles it: a re-check, or a flight that somebody else started.
3. Re-checks at one destination are RECHECK_SPACING apart, under all limits of the throttle.
4. After the third time it stays unknown: `deferred` for a host that put us off, and final.

Bugs: an answer that says `timeout` does not wait for the disk; a crash in the milliseconds behind
it, while its flight is in the air, loses the re-check. When the disk was too slow for `greylisted`
to be said in time, the caller hears `timeout`, and the webhook later says it was `greylisted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

import msgspec
from cachetools import LRUCache
from msgspec import Struct, structs

from gate import address as addresses
from gate import metrics
from gate.address import Address
from gate.answer import Answer
from gate.budget import (
    ANSWER_RESERVE,
    GREYLIST_RETRY,
    RECHECK_JITTER,
    RECHECK_KEEPS,
    RECHECK_LEASE,
    RECHECK_SPACING,
    RECHECK_THROTTLED,
    RECHECK_WAITS,
    STORE_QUEUE,
    Clock,
    Deadline,
)
from gate.checker import Checker
from gate.flight import Recalled
from gate.jobs import Worker
from gate.known import Known
from gate.reason import TEMPORARY, Reason
from gate.seal import Seal
from gate.settings import Site
from gate.store import Again, Buried, Done, Job, Kept, Lease, Settled, Store
from gate.token import Keys
from gate.verdict import Verdict

KIND: Final = "recheck"
AT_ONCE: Final = 64
SITE_AT_ONCE: Final = 16
ENDED_MOST: Final = 200
"""Checks of one address whose kept promises are found again when it is to be forgotten."""
PACED_MOST: Final = 10_000
"""Destinations whose last re-check is remembered."""
UNREADABLE: Final = "unreadable: sealed with another master key"

RETRIED: Final = TEMPORARY | {
    Reason.PROBE_BLOCKED,
    Reason.PROBE_OFF,
    Reason.UNEXPECTED_ERROR,
}
"""What a re-check does not settle for as long as there is another: also a refusal of ourselves,
after which the destination rests, probing that is switched off, and a fault of our own.
"""

Messages = Callable[[Site, str, Reason, Answer], list[Job]]


class Promise(Struct, frozen=True, array_like=True, gc=False):
    """A check that was answered without a final verdict, and what is known of it by now."""

    site: str
    check: str
    address: bytes
    """The exact address, sealed under the check's id."""
    first: Reason
    given: float
    """When it was answered: Unix time, as `found_at`."""
    reason: Reason
    final: bool
    found_at: float


class Due(NamedTuple):
    """A lease and the promise it is for."""

    lease: Lease
    promise: Promise


# -- when: pure ------------------------------------------------------------------------------------


def wait(round_: int, retry_after: int | None, chance: float) -> float | None:
    """Seconds until the next re-check when there were so many already; None: that was all.

    A delay that the reply names is kept to, and lengthened by up to RECHECK_JITTER; the usual ones
    are longer or shorter by so much. `chance` is between 0 and 1.
    """
    if round_ >= len(RECHECK_WAITS):
        return None
    if retry_after is not None and retry_after != GREYLIST_RETRY:
        return retry_after * (1 + RECHECK_JITTER * chance)
    return RECHECK_WAITS[round_] * (1 + RECHECK_JITTER * (2 * chance - 1))


def given_up(reason: Reason) -> Reason:
    """What is said of an address whose last re-check ended with a temporary reason."""
    put_off = reason in (Reason.GREYLISTED, Reason.DEFERRED)
    return Reason.DEFERRED if put_off else reason


class Pace:
    """Turns at destinations, RECHECK_SPACING apart. Pure; `now` never steps back."""

    def __init__(self) -> None:
        self._free_at: LRUCache[str, float] = LRUCache(PACED_MOST)
        self._turns: LRUCache[bytes, float] = LRUCache(PACED_MOST)

    def turn(self, subject: bytes, destination: str, now: float) -> float:
        """When this subject may go: `now`, or the moment to come again, which is then its own."""
        at = self._turns.pop(subject, None)
        if at is None:
            at = max(now, self._free_at.get(destination, now))
            self._free_at[destination] = at + RECHECK_SPACING
        if at > now:
            self._turns[subject] = at
        return at


# -- the shell -------------------------------------------------------------------------------------


class Rechecks:
    """Keeps promises: `gate.flight.Promises`, and the worker behind it."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        sites: Iterable[Site],
        messages: Messages,
        told: Callable[[], None],
        clock: Clock,
        wall: Clock,
        chance: Random,
    ) -> None:
        """`messages` makes the jobs that tell of a late verdict, `told` wakes who delivers them.
        `clock` dates jobs (`budget.steady`); `wall` is Unix time as it is now.
        """
        self._store = store
        self._keys = keys
        self._seal = Seal(keys)
        self._sites = {site.name: site for site in sites}
        self._messages = messages
        self._told = told
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._pace = Pace()
        self._expected: set[bytes] = set()
        self._checker: Checker | None = None
        self._worker = Worker(
            queue=store,
            kind=KIND,
            clock=clock,
            lease=RECHECK_LEASE,
            most=AT_ONCE,
            room=lambda: dict.fromkeys(self._sites, SITE_AT_ONCE),
            reopens=lambda: None,
            do=self._recheck,
        )
        self.round = self._worker.round
        self.wake = self._worker.wake
        self.late = self._worker.late
        self.close = self._worker.close

    async def open(self, checker: Checker) -> None:
        """Take up what an earlier process promised. Before the first check."""
        self._checker = checker
        self._expected |= await self._store.subjects(KIND)

    def start(self) -> None:
        """Re-check from now on, until `close`."""
        self._worker.start()

    # -- what the checker asks for -----------------------------------------------------------------

    async def promise(
        self, check: str, address: Address, site: Site, verdict: Verdict, deadline: Deadline
    ) -> bool:
        """Queue the re-check of an address that was answered with `verdict`.

        False: the disk is too slow for the caller's deadline, so that nothing is promised yet.
        """
        now, subject = self._clock(), self._subject(site, address)
        seconds = wait(0, verdict.retry_after, self._chance.random())
        assert seconds is not None
        promise = Promise(
            site=site.name,
            check=check,
            address=self._seal.close(site.name, check, address.exact.encode()),
            first=verdict.reason,
            given=self._wall(),
            reason=verdict.reason,
            final=verdict.final,
            found_at=verdict.found_at,
        )
        job = Job(
            kind=KIND,
            id=check.encode(),
            lane=site.name,
            subject=subject,
            payload=msgspec.msgpack.encode(promise),
            due=now + seconds,
            made=now,
            expires=now + RECHECK_KEEPS,
            forgotten=now + RECHECK_KEEPS,
        )
        self._expected.add(subject)
        waits = verdict.reason is not Reason.TIMEOUT
        within = min(STORE_QUEUE, max(deadline.left(), ANSWER_RESERVE)) if waits else 0.0
        too_late = deadline.clock() + within
        kept = await self._store.add([job], self._record(promise), within=within)
        self._worker.wake(job.due, site.name)
        late = waits and not kept and self._store.healthy and deadline.clock() >= too_late
        outcome = "kept" if kept else "late" if late else "behind" if not waits else "refused"
        metrics.PROMISES.labels(outcome).inc()
        return not late

    def expected(self, address: Address, site: Site) -> bool:
        """Whether somebody waits for what a flight to this address finds out."""
        return bool(self._expected) and self._subject(site, address) in self._expected

    async def landed(self, address: Address, site: Site, known: Known) -> None:
        """A flight has found something out: settle what waits for it and is in nobody's hands."""
        subject, now = self._subject(site, address), self._clock()
        leases = await self._store.lease_subject(KIND, subject, now=now, until=now + RECHECK_LEASE)
        dues, settled = self._read(leases)
        if dues:
            await self._settle(address, site, known, dues, settled, counts=False)

    async def recall(self, check: str, site: Site) -> Recalled | None:
        """What is known by now of a check that was promised something, after a restart too."""
        raw = None
        for keys in self._keys.all:
            raw = raw or await self._store.get(_record_key(keys, check))
        if raw is None:
            return None
        promise = _decoded(raw)
        if promise is None or promise.site != site.name:
            return None
        address = self._address(promise)
        if address is None:
            return None
        return Recalled(address, Verdict(promise.reason, promise.final, promise.found_at))

    async def forget(self, address: Address, site: Site) -> tuple[list[str], list[bytes]] | None:
        """Drop what was promised about an address. The checks it was promised for, and the keys of
        what else is kept of them; None: the store cannot be written.
        """
        subjects = self._keys.hashes(site.name, address.exact)
        gone = await self._store.erase([], subjects=subjects)
        if gone is None:
            return None
        self._expected -= set(subjects)
        checks, ended = [job.decode() for job in gone], []
        for keys, subject in zip(self._keys.all, subjects, strict=True):
            ended.append(_ended_key(keys, subject))
            checks += await self._ended(ended[-1])
        return checks, ended + [_record_key(keys, c) for keys in self._keys.all for c in checks]

    # -- the worker's side -------------------------------------------------------------------------

    async def _recheck(self, leases: Sequence[Lease]) -> None:
        """Ask about one address again, on behalf of all who wait for it."""
        assert self._checker is not None
        dues, settled = self._read(leases)
        if not dues:
            await self._store.settle(settled)
            return
        promise = dues[0].promise
        site, address = self._sites[promise.site], self._address(promise)
        assert address is not None
        known = await self._checker.newest(address, site, wait=0.0)
        # A refusal from before the answer would have been the answer; this one came since.
        if known is None or known.verdict.found_at < promise.given:
            destination = await self._checker.destination(address.domain)
            now = self._clock()
            turn = self._pace.turn(leases[0].job.subject, destination, now)
            if turn > now:
                settled += [Settled(due.lease, Again(turn, counts=False)) for due in dues]
                await self._store.settle(settled)
                return
            known = await self._checker.recheck(address, site)
        await self._settle(address, site, known, dues, settled, counts=True)

    def _read(self, leases: Sequence[Lease]) -> tuple[list[Due], list[Settled]]:
        """The promises of leases, and an end for those that nobody can read any more."""
        dues, settled = [], []
        for lease in leases:
            promise = _decoded(lease.job.payload)
            if promise is not None and self._address(promise) is not None:
                dues.append(Due(lease, promise))
            else:
                metrics.RECHECKS.labels("unreadable").inc()
                settled.append(Settled(lease, Buried(UNREADABLE)))
        return dues, settled

    async def _settle(
        self,
        address: Address,
        site: Site,
        known: Known,
        dues: Sequence[Due],
        settled: list[Settled],
        *,
        counts: bool,
    ) -> None:
        """Write down what became of all who waited: found out, again later, or given up."""
        verdict = known.verdict
        throttled = verdict.reason is Reason.THROTTLED
        settles = verdict.final and verdict.reason not in RETRIED
        counts = counts and not throttled
        jobs: list[Job] = []
        records: dict[bytes, Kept] = {}
        waits: list[Due] = []
        for due in dues:
            if not settles and due.lease.attempts + counts < len(RECHECK_WAITS):
                waits.append(due)
                continue
            answer = self._late(address, site, known, due.promise)
            settled.append(Settled(due.lease, Done()))
            records |= self._record(_newer(due.promise, answer.verdict))
            jobs += self._messages(site, due.promise.check, due.promise.first, answer)
        if waits:
            least = min(due.lease.attempts + counts for due in waits)
            seconds = wait(least, verdict.retry_after, self._chance.random()) or 0.0
            again = Again(self._clock() + (RECHECK_THROTTLED if throttled else seconds), counts)
            settled += [Settled(due.lease, again) for due in waits]
        else:
            subject = self._subject(site, address)
            self._expected.discard(subject)
            key = _ended_key(self._keys, subject)
            ended = [*await self._ended(key), *(due.promise.check for due in dues)]
            value = msgspec.msgpack.encode(ended[-ENDED_MOST:])
            records[key] = Kept(value, self._wall() + RECHECK_KEEPS)
        done = await self._store.settle(settled, jobs, records)
        over, later = ("found" if settles else "gave_up"), ("throttled" if throttled else "again")
        metrics.RECHECKS.labels(over if done else "lost").inc(len(dues) - len(waits))
        metrics.RECHECKS.labels(later if done else "lost").inc(len(waits))
        if jobs:
            self._told()

    def _late(self, address: Address, site: Site, known: Known, promise: Promise) -> Answer:
        """The answer that a check gets at last: a verdict that stands."""
        assert self._checker is not None
        if not known.verdict.final:
            verdict = Verdict(given_up(known.verdict.reason), True, known.verdict.found_at)
            known = structs.replace(known, verdict=verdict)
        return self._checker.late(promise.check, address, site, known)

    # -- what is kept ------------------------------------------------------------------------------

    def _subject(self, site: Site, address: Address) -> bytes:
        return self._keys.address_hash(site.name, address.exact)

    def _address(self, promise: Promise) -> Address | None:
        text = self._seal.open(promise.site, promise.check, promise.address)
        parsed = addresses.parse(text.decode()) if text is not None else None
        return parsed if isinstance(parsed, Address) else None

    async def _ended(self, key: bytes) -> list[str]:
        """The checks of a subject whose promise was kept; what is known outlives the job."""
        raw = await self._store.get(key)
        return [] if raw is None else msgspec.msgpack.decode(raw, type=list[str])

    def _record(self, promise: Promise) -> Mapping[bytes, Kept]:
        value = msgspec.msgpack.encode(promise)
        return {_record_key(self._keys, promise.check): Kept(value, promise.given + RECHECK_KEEPS)}


def _record_key(keys: Keys, check: str) -> bytes:
    return keys.address_hash("", f"check:{check}")


def _ended_key(keys: Keys, subject: bytes) -> bytes:
    return keys.address_hash("", f"ended:{subject.hex()}")


def _decoded(raw: bytes) -> Promise | None:
    """A promise, or None for one that another version wrote."""
    try:
        return msgspec.msgpack.decode(raw, type=Promise)
    except msgspec.DecodeError:
        return None


def _newer(promise: Promise, verdict: Verdict) -> Promise:
    return structs.replace(
        promise, reason=verdict.reason, final=verdict.final, found_at=verdict.found_at
    )
