"""A gate in a process of its own, its mail world the test's: `python -m tests.switched PLAN`."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import Any

from gate.engine import open_engine
from gate.server import Bound, run
from gate.settings.read import load
from gate.testing import Seam
from tests.durability.life import Elsewhere


def announce(bound: Bound) -> None:
    sys.stdout.write(f"{bound.port}\n")
    sys.stdout.flush()


def main(plan: dict[str, Any]) -> None:
    """`config`: the settings file; `dns`: where .test is served; `hosts`: listeners by address."""
    seam = Seam()
    for ip, address in plan["hosts"].items():
        seam.add(ip, tuple(address))
    world = Elsewhere(seam, {"test": [tuple(plan["dns"])]})
    opener = partial(open_engine, world=world)
    asyncio.run(run(load(plan["config"], {}), opener=opener, started=announce))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
