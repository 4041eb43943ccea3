"""Starts the lab once for all tests of this folder; puts the servers' logs beside a failure."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lab.lab import Lab, running
from tests.lab.rounds import Played, play, wanted
from tests.lab.servers import LabError, missing

TIMEOUT: Final = 90
"""Seconds for a test, the start of the lab and all its rounds included, on a busy machine."""

RUNNING: Final = pytest.StashKey[Lab]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, which alone need the servers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """The running lab. Without its packages or root: a skip; under CI or as root a failure."""
    if reason := missing():
        if os.environ.get("CI") == "true" or os.geteuid() == 0:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    try:
        with running() as lab:
            pytestconfig.stash[RUNNING] = lab
            yield lab
            del pytestconfig.stash[RUNNING]
    except LabError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def played(
    lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Played:
    """What came of the rounds that the tests of this session look at."""
    return play(wanted(request.session.items), lab, tmp_path_factory.mktemp("rounds"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the ends of the servers' logs under a failed test."""
    report = yield
    if report.failed and (started := item.config.stash.get(RUNNING, None)):
        report.sections.append(("logs of the lab's servers", started.ground.logs()))
    return report
