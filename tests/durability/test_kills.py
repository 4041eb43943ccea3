"""SIGKILL at any moment under load: whatever was acknowledged arrives (R2, O01, O02, L1)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.durability.supervisor import survive

KILLS = 60
"""A thousand: scripts/kill-loop."""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_sixty_kills_lose_nothing_that_was_promised(tmp_path: Path) -> None:
    tally = asyncio.run(survive(KILLS, tmp_path))
    assert tally.promised > KILLS, "there was no load"
    assert tally.lost == []
    assert tally.with_two_ids == 0, "what comes twice comes under the same id"
