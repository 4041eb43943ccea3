"""`Collector`: keeps Python's collections of cyclic garbage short, however much is alive.

A full collection looks at every object that is alive: with 2,000 checks under way it held up the
event loop for 170 ms. What the gate makes is freed by counting references, and full collections
find next to nothing; so what has survived one is set aside (`gc.freeze`) and not looked at again,
and full collections come early, while there is little to look at.

Bugs: of what was set aside, a cycle that dies later stays until `thaw`.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Final

THRESHOLDS: Final = (300, 2, 1)
"""Python's own are 700, 10, 10: a full collection after some 77,000 new objects; here after 1,800.
With 1,000 flights under way it takes 1 to 3 ms of the loop; after 15,000 it took 10 to 50.
"""


class Collector:
    """For the whole process, from `start` to `stop`."""

    def __init__(self) -> None:
        self._before = gc.get_threshold()

    def start(self) -> None:
        """What is loaded by now stays, and is set aside at once."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._told)

    def stop(self) -> None:
        """Leave collecting as it was found."""
        gc.callbacks.remove(self._told)
        gc.set_threshold(*self._before)
        gc.unfreeze()

    def thaw(self) -> None:
        """Look at everything once: a tenth of a second, for when nobody waits."""
        gc.unfreeze()
        gc.collect()

    def _told(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            gc.freeze()
