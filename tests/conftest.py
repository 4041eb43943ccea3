"""Keeps Python's garbage collector off what eight thousand tests have loaded.

A full collection with all of them in memory looks at a third of a million objects, which takes a
third of a second; each gate that a test starts in this process makes one, and so does each look
for leaks. What is there before a test is set aside, so that collections see what the test made.
"""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that is being loaded is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What the test before left is collected; the rest is set aside. (A gate that was stopped has
    put everything back: see gate.collector.)
    """
    gc.collect(1)
    gc.freeze()
