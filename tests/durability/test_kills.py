"""SIGKILL at any moment under load: whatever was acknowledged arrives (R2, O01, O02, L1)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.durability.supervisor import Tally, survive

KILLS = 60
"""A thousand: scripts/kill-loop."""
GATES = 2
"""Side by side, each with a folder, a receiver and mail hosts of its own: most of a life, and of
what comes after the last one, is waiting. More of them would have too little of the processor to
promise much before they are killed.
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_sixty_kills_lose_nothing_that_was_promised(tmp_path: Path) -> None:
    async def side_by_side() -> list[Tally]:
        lives = []
        for number in range(GATES):
            folder = tmp_path / str(number)
            folder.mkdir()
            lives.append(survive(KILLS // GATES, folder, seed=number))
        return await asyncio.gather(*lives)

    tallies = asyncio.run(side_by_side())
    assert sum(tally.kills for tally in tallies) == KILLS
    assert sum(tally.promised for tally in tallies) > KILLS, "there was no load"
    for tally in tallies:
        assert tally.lost == []
        assert tally.with_two_ids == 0, "what comes twice comes under the same id"
