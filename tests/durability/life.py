"""One life of a gate under load, in a process of its own that will be killed.

Time runs SCALE times as fast for what is due later, so that five minutes of greylisting pass in a
second. Every answer that promises a re-check is written down as soon as it is there: that is what
the supervisor holds against what arrived.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from gate.budget import Deadline
from gate.egress import IPAddress
from gate.engine import Engine, open_engine
from gate.settings.read import parse
from gate.testing import Seam
from tests.durability.domains import lead, name_of

SCALE = 300.0
CALLERS = 4
HOOK_IP = "8.8.8.8"
SECRET = "whsec_" + "c2VjcmV0" * 6
Address = tuple[str, int]


@dataclass(slots=True)
class Plan:
    """What a life is told. `base` is when the accelerated time began; `acks` the file to write
    promises to; `drain`: take nothing new, and end when nothing waits.
    """

    store: str
    acks: str
    base: float
    dns: Address
    hook: Address
    mail: Address
    domains: int
    drain: bool = False


@dataclass(slots=True)
class Elsewhere:
    """The mail world of another process."""

    seam: Seam
    stubs: Mapping[str, list[Address]]
    seam_addresses: frozenset[IPAddress] = field(default_factory=frozenset)


def live(plan: Plan) -> None:
    """Until killed, or drained."""
    asyncio.run(_live(plan))


def faster(base: float) -> float:
    """The accelerated time."""
    return base + (time.time() - base) * SCALE


async def _live(plan: Plan) -> None:
    seam = Seam()
    lead(seam, range(plan.domains), plan.mail)
    seam.add(HOOK_IP, plan.hook, 80)
    world = Elsewhere(seam, {"test": [plan.dns]})
    endpoint = {"url": "http://hook.test/late", "secrets": [SECRET], "allow_http": True}
    site = {"name": "shop", "site_key": "pk_shop", "secret_hash": "0" * 64, "webhook": [endpoint]}
    settings = parse(
        {
            "store": {"url": f"sqlite:{plan.store}"},
            "probe": {"helo": "gate.test", "mail_from": "probe@gate.test"},
            "dns": {"servers": ["127.0.0.1:9"]},
            "site": [site],
        }
    )
    queue_clock = partial(faster, plan.base)
    async with open_engine(settings, world=world, queue_clock=queue_clock) as engine:
        engine.start()
        shaking = asyncio.create_task(_shake(engine))
        try:
            if plan.drain:
                await _drained(engine)
            else:
                await asyncio.gather(*(_load(engine, plan) for _ in range(CALLERS)))
        finally:
            shaking.cancel()


async def _shake(engine: Engine) -> None:
    """The workers sleep by a clock that is SCALE times slower than the one they go by."""
    while True:
        engine.rechecks.wake()
        engine.outbox.wake()
        await asyncio.sleep(0.01)


async def _drained(engine: Engine) -> None:
    while any(not dead for _, dead in await engine.store.depth()):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.02)


async def _load(engine: Engine, plan: Plan) -> None:
    acks = os.open(plan.acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while True:
        email = f"u{secrets.token_hex(6)}@{name_of(random.randrange(plan.domains))}"
        deadline = Deadline.after(5.0, time.monotonic)
        answer = await engine.checker.check(email, site=engine.sites[0], deadline=deadline)
        if answer.verdict.reason.value in ("greylisted", "deferred"):
            os.write(acks, f"{answer.id}\n".encode())
        await asyncio.sleep(0.005)
