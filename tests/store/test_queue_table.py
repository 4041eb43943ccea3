"""The queue as SQL: what one address costs does not grow with how many others wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from gate.store import Done, Job, Settled
from gate.store.queue import SCHEMA, QueueTable

KIND, LANE, NOW = "recheck", "shop", 1_000_000.0
FEW, MANY = 10, 5_000


def job(number: int) -> Job:
    subject = f"subject {number}".encode()
    return Job(KIND, b"%d" % number, LANE, subject, b"", NOW, NOW, NOW + 9e5, NOW + 9e5)


def steps(jobs: int, do: Callable[[QueueTable], None]) -> int:
    """How many instructions SQLite needs for it with so many waiting."""
    done = 0

    def counted() -> None:
        nonlocal done
        done += 1

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        queue = QueueTable(connection, {})
        queue.add([job(number) for number in range(jobs)])
        connection.set_progress_handler(counted, 1)
        do(queue)
    return done


def lease_one(queue: QueueTable) -> None:
    assert len(queue.lease_subject(KIND, b"subject 3", NOW, NOW + 60)) == 1


def lease_due(queue: QueueTable) -> None:
    assert len(queue.lease(KIND, {LANE: 1}, NOW, NOW + 60)) == 1


def settle_one(queue: QueueTable) -> None:
    leases = queue.lease_subject(KIND, b"subject 3", NOW, NOW + 60)
    assert queue.settle([Settled(lease, Done()) for lease in leases], [job(MANY + 1)])


@pytest.mark.parametrize("do", [lease_one, lease_due, settle_one])
def test_as_many_steps_with_many_as_with_few(do: Callable[[QueueTable], None]) -> None:
    assert 0 < steps(MANY, do) <= 2 * steps(FEW, do)
