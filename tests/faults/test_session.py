"""S01 to S13: how a dialogue ends, and the time it may take."""

from __future__ import annotations

import asyncio

import pytest

from gate.budget import DOWN_TRY, FLIGHT, QUIT_LINGER, SLOT_SHARE
from gate.testing import HostRules, ScriptedMta, transcript
from tests.faults.cases import case, row
from tests.faults.ground import Case, Ground, Played, Row, ground
from tests.lateworld import settings, until

pytestmark = pytest.mark.timeout(180)


async def takes_leave(budget: float) -> Ground:
    """S01: QUIT, and the answer to it closes the connection."""
    async with ground("accepted") as here:
        assert await here.reason(budget) == "accepted_email"
    assert here.hosts[0].connections[0].lines[-1] == "QUIT"
    return here


async def no_farewell(budget: float) -> Ground:
    """S02: nobody waits for the answer to QUIT, and nobody stays."""
    async with ground("quit_ignored") as here:
        assert await here.reason(budget) == "accepted_email"
        (connection,) = here.hosts[0].connections
        started = asyncio.get_running_loop().time()
    async with asyncio.timeout(2):
        await connection.ended.wait()
    assert asyncio.get_running_loop().time() - started < QUIT_LINGER + 0.5
    return here


async def endless_farewell(budget: float) -> Ground:
    """S04: what comes behind QUIT is not read."""
    async with ground("keeps_sending") as here:
        assert await here.reason(budget) == "accepted_email"
    assert here.hosts[0].connections[0].bytes_sent < 32 * 1024 * 1024
    return here


async def caller_leaves(budget: float) -> Ground:
    """S10: who asked is gone; what is found is remembered all the same."""
    async with ground(HostRules(users=["jane"], round_trip=0.05)) as here:
        caller = asyncio.create_task(here.check(budget))
        await until(lambda: here.hosts[0].accepted)
        caller.cancel()
        await asyncio.wait({caller})
        under_way = here.engine.checker._flights.under_way
        flights = [flight.task for flight in under_way.values()]
        assert [(await flight).verdict.reason for flight in flights] == ["accepted_email"]
        assert await here.reason(budget) == "accepted_email"
        assert here.hosts[0].accepted == 1
    return here


async def all_taken(budget: float) -> Ground:
    """S11: every place is taken by a host that hangs, but for the quarter that is kept for hosts
    that answer.
    """
    names = [f"d{n}.test" for n in range(3)]
    zones = {name: f"MX 10 mx.{name}" for name in names}
    zones |= {f"mx.{name}": f"A 9.{n}.4.4" for n, name in enumerate(names)}
    config = settings(webhooks=[], limits={"dialogues": 4})
    async with ground("accepted", zones=zones, config=config) as here:
        hung = await here.stack.enter_async_context(ScriptedMta(transcript("silent")))
        for n in range(3):
            here.seam.add(f"9.{n}.4.4", hung.address)
        await asyncio.gather(*(here.check(0.2, f"jane@{name}") for name in names))
        assert hung.accepted == 3
        said, _ = (await here.check(budget)).verdict.reason, here.flights[-1]
        assert said == ("throttled" if budget > SLOT_SHARE * FLIGHT else "timeout")
        assert not here.hosts[0].accepted
        for flight in here.flights:
            flight.cancel()
    return here


async def one_tarpit(budget: float) -> Ground:
    """S12: one host, two domains; it hangs for one of them."""
    zones = {"bad.test": "MX 10 mx.good.test"}
    async with ground(HostRules(users=["jane"]), zones=zones) as here:
        assert await here.reason(0.1, "slow-3000@bad.test") == "timeout"
        assert await here.reason(budget) == "accepted_email"
        assert await here.reason(budget, "joe@good.test") == "rejected_email"
    return here


async def half_open(budget: float) -> Ground:
    """S13: a host that is down is tried once in half a minute, and one try is enough."""
    async with ground("refused") as here:
        dialled = []
        for seconds in (0, 0, 0, DOWN_TRY, 0):
            here.advance(seconds)
            assert await here.found(budget) == ("no_connect", "no_connect")
            dialled.append(here.dialled)
        assert dialled == [1, 2, 2, 3, 3]
        await here.back("accepted")
        here.advance(DOWN_TRY)
        assert await here.found(budget) == ("accepted_email", "accepted_email")
    return here


ROWS = [
    row("S01", "QUIT is answered", Case("221", takes_leave)),
    row("S02", "QUIT is never answered", Case("silence", no_farewell)),
    row(
        "S03",
        "FIN right behind the answer",
        case("half-closed", "half_close", expect="accepted_email", again="kept"),
    ),
    row("S04", "goes on for ever behind QUIT", Case("a gigabyte", endless_farewell)),
    row(
        "S05",
        "every stage takes its time: the budget is for all of them",
        case("a second each", "slow_everywhere", expect="accepted_email", again="kept", takes=5),
    ),
    row(
        "S06",
        "reads nothing",
        case("zero window", "deaf", expect="timeout", again="asked", takes=6),
    ),
    row("S07", "one octet a segment", case("all", "split", expect="accepted_email", again="kept")),
    row("S08", "all in one segment", case("all", "corked", expect="accepted_email", again="kept")),
    row(
        "S09",
        "half a code, and no more",
        case("25", "half_a_code", expect="timeout", again="asked", takes=6),
    ),
    row("S10", "the caller leaves", Case("in the middle", caller_leaves)),
    row("S11", "all dialogues hang", Case("one more", all_taken, takes=2.4)),
    row("S12", "one host hangs for one domain only", Case("two domains", one_tarpit)),
    row("S13", "down, and back", Case("half open", half_open)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_session(row: Row, played: Played) -> None:
    played.passed(row)
