"""Late verdicts over HTTP: GET /v1/checks/{id} and siteverify say the newest, always."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from gate.engine import open_engine
from gate.settings import Settings
from gate.testing import HostRules
from tests.api.ground import BEARER, OTHER, OTHER_BEARER, Gate, gate, settings, site
from tests.lateworld import MASTER, SECRET, URL, Place, place, trusted, until

__all__ = ["trusted"]
pytestmark = pytest.mark.usefixtures("trusted")

GREY = {"grey.test": HostRules(users=("jane",), greylist=60.0)}


def config(store: str) -> Settings:
    webhook = [{"url": URL, "secrets": [SECRET]}]
    return settings(
        [site(webhook=webhook), OTHER],
        store={"url": store},
        sandbox={"enabled": False},
        server={"secret": MASTER},
        probe={"helo": "gate.test", "mail_from": "probe@gate.test"},
    )


@asynccontextmanager
async def life(here: Place, store: str) -> AsyncIterator[Gate]:
    """One life of a whole gate, HTTP included, on the test's own time."""
    opener = partial(open_engine, world=here, wall=here.clock, queue_clock=here.clock)
    async with gate(config(store), opener=opener, wall=here.clock) as running:
        yield running


async def said(running: Gate, check: str) -> tuple[str, bool]:
    answer = (await running.client.get(f"/v1/checks/{check}", headers=BEARER)).json()
    return answer["reason"], answer["final"]


async def ask_again(running: Gate, here: Place) -> None:
    here.clock.advance(72)
    await running.engine.rechecks.round()


def test_both_say_the_newest_verdict_also_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'gate.db'}"

    async def main() -> None:
        async with place(GREY) as here:
            async with life(here, store) as running:
                first = (await running.check("jane@grey.test", timeout_ms=5000)).json()
                page = (await running.page("jane@grey.test", timeout_ms="5000")).json()
                assert (first["reason"], first["final"], page["final"]) == (
                    "greylisted",
                    False,
                    False,
                )
                assert await said(running, first["id"]) == ("greylisted", False)
            async with life(here, store) as running:
                assert await said(running, first["id"]) == ("greylisted", False)
                foreign = await running.client.get(
                    f"/v1/checks/{first['id']}", headers=OTHER_BEARER
                )
                assert foreign.status_code == 404
                await ask_again(running, here)
                assert await said(running, first["id"]) == ("accepted_email", True)
                verified = await running.siteverify(response=page["token"])
                assert (verified["success"], verified["result"], verified["reason"]) == (
                    True,
                    "deliverable",
                    "accepted_email",
                )
                told = here.hook.received

                async def deliver() -> None:
                    here.clock.advance(1)
                    await running.engine.outbox.round()

                await until(lambda: len({request.data["check"] for request in told}) == 2, deliver)

    asyncio.run(main())


def test_a_refusal_that_came_late_is_told_by_siteverify(tmp_path: Path) -> None:
    """The page was let in with `unknown`; the form's server learns better."""

    async def main() -> None:
        async with place({"grey.test": HostRules(greylist=60.0, greylist_unknown=True)}) as here:
            async with life(here, f"sqlite:{tmp_path / 'gate.db'}") as running:
                page = (await running.page("typo@grey.test", timeout_ms="5000")).json()
                assert page["decision"] == "allow"
                # The control was put off with it, and settles nothing either.
                await ask_again(running, here)
                verified = await running.siteverify(response=page["token"])
                assert (verified["success"], verified["reason"]) == (False, "rejected_email")
                assert verified["error-codes"] == ["email-rejected"]

    asyncio.run(main())
