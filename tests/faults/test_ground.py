"""What the catalogue is played on sees what it is there to see."""

from __future__ import annotations

import asyncio
import time

import pytest

from gate.testing.wire import Connection, Piece
from tests.faults.cases import case
from tests.faults.ground import Case, Ground, Row, ground, play, spoke_in_turn


def trouble(one: Case) -> str:
    row = Row("X00", "a row for this test", (one,))
    return "\n".join(play([row]).of(row))


def test_a_row_that_holds_has_no_trouble() -> None:
    assert not trouble(case("", "accepted", expect="accepted_email", again="kept"))


def test_another_verdict() -> None:
    found = trouble(case("", "rejected", expect="accepted_email", again="kept"))
    assert found.count("found rejected_email, not accepted_email") == 3


def test_another_memory() -> None:
    assert "somebody was asked" in trouble(case("", "full", expect="mailbox_full", again="kept"))


def test_a_host_that_was_asked_for_nothing() -> None:
    one = case("", "rejected", "accepted", expect="rejected_email", again="kept", calls=(1, 1))
    assert "calls" in trouble(one) or "accepted" in trouble(one)


def test_a_loop_that_is_held_up() -> None:
    async def scene(budget: float) -> Ground:
        async with ground("accepted") as here:
            time.sleep(0.12)  # noqa: ASYNC251 - what is to be seen
            await asyncio.sleep(0.02)
        return here

    assert trouble(Case("", scene)).count("the loop was held up") == 3


def test_an_answer_that_is_late() -> None:
    async def scene(budget: float) -> Ground:
        async with ground("accepted") as here:
            here.worst = 0.2
        return here

    assert trouble(Case("", scene)).count("200 ms after its budget") == 3


@pytest.mark.may_leak
def test_a_task_that_is_left_behind() -> None:
    async def scene(budget: float) -> Ground:
        async with ground("accepted") as here:
            kept.append(asyncio.create_task(asyncio.sleep(60)))
        return here

    kept: list[asyncio.Task[None]] = []
    assert "left behind" in trouble(Case("", scene))


def test_whoever_speaks_before_the_greeting() -> None:
    async def serve(connection: Connection) -> None: ...

    early = Connection(1, serve)
    early.log = [Piece(0.0, True, b"220-mx.test\r\n"), Piece(0.1, False, b"EHLO x\r\n")]
    with pytest.raises(AssertionError, match="before the greeting"):
        spoke_in_turn(early)
    early.log.insert(1, Piece(0.05, True, b"220 go\r\n"))
    spoke_in_turn(early)
