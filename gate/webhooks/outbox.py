"""`Outbox`: messages to endpoints, from the moment a late verdict is found until somebody has it.

What it promises: a message is a job of the store's queue, written in the transaction that settles
the verdict it tells of, sealed because it may hold an address. It is sent at least once, always
under the same id, signed anew with the secrets of today; twelve attempts over five days, then it is
a dead letter for two days more, to be replayed with one command. One endpoint's trouble is its own.

Bugs: an endpoint that is taken out of the settings buries what waits for it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from msgspec import Struct, structs

from gate import metrics
from gate.answer import Answer
from gate.budget import (
    WEBHOOK,
    WEBHOOK_EXPIRES,
    WEBHOOK_FORGOTTEN,
    WEBHOOK_GONE,
    WEBHOOK_LEASE,
    Clock,
)
from gate.jobs import Worker
from gate.reason import VERDICT_OF, Reason
from gate.seal import Seal
from gate.settings import Site
from gate.store import Again, Buried, Done, Job, Kept, Lease, Settled, Store
from gate.token import Keys
from gate.webhooks.endpoint import Endpoint
from gate.webhooks.message import (
    CheckCompleted,
    CheckData,
    Outcome,
    Said,
    Told,
    encode,
    iso,
    message_id,
    outcome_of,
    sign,
    wait,
)
from gate.webhooks.post import Poster
from gate.webhooks.settings import Webhook, endpoint_id

log = logging.getLogger("gate.webhooks")

KIND: Final = "webhook"
AT_ONCE: Final = 64
"""Deliveries under way, to all endpoints together."""
GAVE_UP: Final = "every attempt failed"
GONE: Final = "the endpoint is gone (410)"
UNREADABLE: Final = "unreadable: sealed with another master key"


class DeadLetter(Struct, frozen=True):
    """A message that was given up, as an operator sees it. `made` is Unix time."""

    id: str
    site: str
    host: str
    made: float
    attempts: int
    why: str
    told: str


class Target(NamedTuple):
    """An endpoint of the settings and the condition it is in."""

    site: Site
    webhook: Webhook
    condition: Endpoint


class Outbox:
    """Makes messages and delivers them."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        sites: Iterable[Site],
        poster: Poster,
        clock: Clock,
        wall: Clock,
        chance: Random,
    ) -> None:
        """`clock` dates jobs (`budget.steady`); `wall` is Unix time as it is now."""
        self._store = store
        self._keys = keys
        self._seal = Seal(keys)
        self._poster = poster
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._targets = {
            endpoint_id(site.name, webhook.url): Target(site, webhook, Endpoint())
            for site in sites
            for webhook in site.webhook
        }
        self._worker = Worker(
            queue=store,
            kind=KIND,
            clock=clock,
            lease=WEBHOOK_LEASE,
            most=AT_ONCE,
            room=self._room,
            reopens=self._reopens,
            do=self._deliver_all,
        )
        self.round = self._worker.round
        self.wake = self._worker.wake
        self.late = self._worker.late
        self.close = self._worker.close

    async def open(self) -> None:
        """Learn which endpoints said that they are gone. Before anything is delivered."""
        for name, target in self._targets.items():
            target.condition.gone = bool(await self._store.get(gone_key(name)))

    def start(self) -> None:
        """Deliver from now on, until `close`."""
        self._worker.start()

    def messages(self, site: Site, check: str, first: Reason, answer: Answer) -> list[Job]:
        """The jobs that tell a site's endpoints of a late verdict that differs from the first."""
        if answer.address is None or not site.webhook or answer.verdict.reason is first:
            return []
        now, name = self._clock(), message_id(check, answer.verdict.reason)
        jobs = []
        for webhook in site.webhook:
            body = encode(self._completed(site, webhook, check, first, answer))
            endpoint = endpoint_id(site.name, webhook.url)
            jobs.append(
                Job(
                    kind=KIND,
                    id=f"{name}/{endpoint}".encode(),
                    lane=endpoint,
                    subject=f"{name}/{endpoint}".encode(),
                    payload=self._seal.close(site.name, name, body),
                    due=now,
                    made=now,
                    expires=now + WEBHOOK_EXPIRES,
                    forgotten=now + WEBHOOK_FORGOTTEN,
                )
            )
        return jobs

    def ids_about(self, site: Site, checks: Iterable[str]) -> list[tuple[str, bytes]]:
        """Kind and id of every message there can be about these checks."""
        endpoints = [endpoint_id(site.name, webhook.url) for webhook in site.webhook]
        return [
            (KIND, f"{message_id(check, reason)}/{endpoint}".encode())
            for check in checks
            for reason in Reason
            for endpoint in endpoints
        ]

    def _completed(
        self, site: Site, webhook: Webhook, check: str, first: Reason, answer: Answer
    ) -> CheckCompleted:
        assert answer.address is not None
        exact = answer.address.exact
        data = CheckData(
            check=check,
            site=site.name,
            address=self._keys.address_hash(site.name, exact).hex(),
            result=answer.verdict.result,
            reason=answer.verdict.reason,
            decision=answer.decision.choice,
            because=answer.decision.because,
            first=Said(result=VERDICT_OF[first], reason=first),
            found_at=iso(answer.verdict.found_at),
        )
        if webhook.include_address:
            data = structs.replace(data, email=answer.address.reveal())
        return CheckCompleted(timestamp=iso(self._wall()), data=data)

    # -- dead letters ------------------------------------------------------------------------------

    async def letters(self, most: int) -> list[DeadLetter]:
        """Messages that were given up, the newest first."""
        return await letters(self._store, [target.site for target in self._targets.values()], most)

    async def replay(self, ids: Collection[str] = ()) -> int:
        """Deliver dead letters after all, all of them if none is named; how many there were.

        An endpoint that said it was gone is believed to be back.
        """
        names = await replay(self._store, ids, self._clock())
        for name in set(names) & set(self._targets):
            if self._targets[name].condition.gone:
                self._targets[name] = self._targets[name]._replace(condition=Endpoint())
        self.wake()
        return len(names)

    # -- delivering --------------------------------------------------------------------------------

    def _room(self) -> Mapping[str, int]:
        now = self._clock()
        return {name: target.condition.room(now) for name, target in self._targets.items()}

    def _reopens(self) -> float | None:
        now = self._clock()
        times = (target.condition.reopens(now) for target in self._targets.values())
        return min((at for at in times if at is not None), default=None)

    async def _deliver_all(self, leases: Sequence[Lease]) -> None:
        for lease in leases:  # one: a message is its own subject
            await self._deliver(lease)

    async def _deliver(self, lease: Lease) -> None:
        job = lease.job
        target = self._targets[job.lane]
        if target.condition.gone:
            await self._store.settle([Settled(lease, Buried(GONE, counts=False))])
            metrics.WEBHOOKS.labels("dead").inc()
            return
        name = job.id.decode().partition("/")[0]
        body = self._seal.open(target.site.name, name, job.payload)
        if body is None:
            await self._store.settle([Settled(lease, Buried(UNREADABLE, counts=False))])
            return
        if lease.attempts == 0:
            metrics.WEBHOOK_SECONDS.observe(max(0.0, self._clock() - job.made))
        target.condition.begun(self._clock())
        outcome = Outcome.FAILED
        try:
            told = await self._send(target.webhook, name, body)
            outcome = outcome_of(told)
        finally:
            target.condition.ended(self._clock(), outcome)
        await self._settle(lease, target, told, outcome)

    async def _send(self, webhook: Webhook, name: str, body: bytes) -> Told:
        at = int(self._wall())
        headers = {
            "webhook-id": name,
            "webhook-timestamp": str(at),
            "webhook-signature": sign(webhook.keys, name, at, body),
        }
        return await self._poster.post(webhook.url, headers, body, WEBHOOK)

    async def _settle(self, lease: Lease, target: Target, told: Told, outcome: Outcome) -> None:
        metrics.WEBHOOKS.labels(outcome.value).inc()
        records: dict[bytes, Kept] = {}
        step: Done | Again | Buried = Done()
        if outcome is Outcome.GONE:
            log.error(
                "webhook %s of site %s said 410: switched off", lease.job.lane, target.site.name
            )
            step = Buried(GONE, told.note)
            records[gone_key(lease.job.lane)] = Kept(b"1", self._wall() + WEBHOOK_GONE)
        elif outcome is not Outcome.DELIVERED:
            seconds = wait(lease.attempts + 1, told, chance=self._chance.random(), now=self._wall())
            step = Buried(GAVE_UP, told.note)
            if seconds is not None:
                step = Again(self._clock() + seconds, told=told.note)
        if isinstance(step, Buried):
            metrics.WEBHOOKS.labels("dead").inc()
            log.error("webhook %s: %s (%s); a dead letter", lease.job.lane, step.why, told.note)
        await self._store.settle([Settled(lease, step)], records=records)


async def letters(store: Store, sites: Iterable[Site], most: int) -> list[DeadLetter]:
    """Messages that were given up, the newest first."""
    known = {
        endpoint_id(site.name, webhook.url): (site.name, urlsplit(webhook.url).hostname or "")
        for site in sites
        for webhook in site.webhook
    }
    return [
        DeadLetter(
            id=letter.id.decode(),
            site=known.get(letter.lane, ("?", ""))[0],
            host=known.get(letter.lane, ("", letter.lane))[1],
            made=letter.made,
            attempts=letter.attempts,
            why=letter.why,
            told=letter.told,
        )
        for letter in await store.letters(KIND, most)
    ]


async def replay(store: Store, ids: Collection[str], now: float) -> list[str]:
    """Make dead letters messages again that are due now, all of them if none is named; for each
    its endpoint, which is no longer taken to be gone.
    """
    again = Job(
        kind=KIND,
        id=b"",
        lane="",
        subject=b"",
        payload=b"",
        due=now,
        made=now,
        expires=now + WEBHOOK_EXPIRES,
        forgotten=now + WEBHOOK_FORGOTTEN,
    )
    names = await store.replay(KIND, [text.encode() for text in ids], again)
    for name in set(names):
        await store.delete(gone_key(name))
    return names


def gone_key(endpoint: str) -> bytes:
    """Under which it is remembered that an endpoint said it was gone."""
    return hashlib.sha256(b"webhook-gone\0" + endpoint.encode()).digest()[:16]
