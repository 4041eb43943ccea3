"""A gate that comes often is still welcome: real Postfix with every limit and test switched on.

Postfix's own log is the judge. The gate's limits for recipients are off here, so that it asks far
more often than it would; those for connections are on.
"""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from gate.budget import CLI_CHECK, FLIGHT, Deadline
from gate.engine import Engine, open_engine
from gate.reason import Reason
from gate.settings import Settings
from gate.settings.read import parse
from tests.lab.lab import Lab
from tests.lab.rounds import came_of
from tests.lab.world import REGULARS, TENANTS

UNWELCOME = (
    "PREGREET", "HANGUP", "COMMAND", "BARE NEWLINE", "NON-SMTP", "BLACKLISTED", "DENYLISTED",
    "improper command", "too many errors", "Connection rate limit", "Connection concurrency",
    "lost connection", "timeout after", "non-SMTP command", "junk",
)  # fmt: skip
"""What Postfix writes of a client that it takes for a bad one, or that left without a word."""
CLIENT = "regular"


def settings(lab: Lab) -> Settings:
    return parse(tomllib.loads(lab.settings(CLIENT)))


async def ask(engine: Engine, email: str, seconds: float = CLI_CHECK) -> Reason:
    deadline = Deadline.after(seconds, engine.clock)
    answer = await engine.checker.check(email, site=engine.sites[0], deadline=deadline)
    return answer.verdict.reason


def lines_of(lab: Lab, listener: str) -> list[str]:
    """What a listener, or the postscreen before it, has written about our client."""
    ours = f"[{lab.client_ip(CLIENT)}]"
    log = lab.log("postfix-mail.log").splitlines()
    return [line for line in log if ours in line and f"/{listener}/" in line]


def unwelcome(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if any(word in line for word in UNWELCOME)]


def farewells(lines: Iterable[str]) -> tuple[int, int]:
    """Sessions that have ended, and how many of them with QUIT."""
    ended = [line for line in lines if "disconnect from" in line]
    return len(ended), sum(" quit=1 " in line for line in ended)


async def all_ended(lab: Lab, listener: str) -> list[str]:
    """The lines once every session is over: Postfix writes them a moment later."""
    for _ in range(100):
        lines = lines_of(lab, listener)
        begun = sum(": connect from" in line for line in lines)
        if begun and farewells(lines)[0] == begun:
            break
        await asyncio.sleep(0.05)
    return lines_of(lab, listener)


def test_limits_of_anvil_and_of_errors_are_never_met_over_dozens_of_checks(lab: Lab) -> None:
    async def scene() -> list[str]:
        async with open_engine(settings(lab)) as engine:
            for number in range(TENANTS):
                for user in REGULARS[:6]:
                    reason = await ask(engine, f"{user}@strict-{number}.test")
                    assert reason is Reason.ACCEPTED_EMAIL
                nobody = await asyncio.gather(
                    *(ask(engine, f"nobody{n}@strict-{number}.test") for n in range(4))
                )
                assert set(nobody) == {Reason.REJECTED_EMAIL}
            counts = engine.prober.counts
            assert counts.hits > 5 * counts.misses
            assert (counts.lost, counts.replaced) == (0, 0)
        return await all_ended(lab, "strict")

    lines = asyncio.run(scene())
    ended, with_quit = farewells(lines)
    assert unwelcome(lines) == []
    assert 1 < ended == with_quit <= 15
    asked = sum(int(found[1]) for line in lines if (found := re.search(r"rcpt=\d+/(\d+)", line)))
    assert asked == TENANTS * 11


def _be_screened(lab: Lab, folder: Path) -> list[str]:
    async def scene() -> list[str]:
        async with open_engine(settings(lab)) as engine:
            await engine.checker.prefetch("patient.test")  # takes the six seconds
            assert "PASS" not in " ".join(lines_of(lab, "patient"))
            first = await ask(engine, f"{REGULARS[0]}@patient.test", FLIGHT)
            assert first in (Reason.GREYLISTED, Reason.DEFERRED)
            for user in REGULARS[1:]:
                assert await ask(engine, f"{user}@patient.test") is Reason.ACCEPTED_EMAIL
            assert engine.prober.counts.hits >= len(REGULARS) - 1
        return await all_ended(lab, "patient")

    return asyncio.run(scene())


ROUNDS = {"screened": _be_screened}


screened = came_of("screened")


def test_postscreen_with_all_its_tests_lets_us_pass_and_we_stay_with_it(
    screened: list[str],
) -> None:
    assert unwelcome(screened) == []
    assert sum("PASS NEW" in line for line in screened) == 1
    ended, with_quit = farewells(screened)
    assert ended == with_quit >= 1
