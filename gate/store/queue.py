"""Jobs with a due time, in one table of an open SQLite connection. Everything here blocks.

What it knows: what the `Queue` protocol (gate/store) promises, as SQL. `StoreFile` runs it inside
its transactions, `MemoryStore` on a database in memory, so that there is one meaning of a queue.

Rules:

1. A lease makes a job due again when it ends: whoever dies with one loses it to the next.
2. Every lease has a number of its own (the fence). What is settled under an older one is refused,
   and then all that was to be settled with it.
3. A job that was leased POISON times and never settled is buried: it kills whoever touches it.
4. Jobs of one subject are leased together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from msgspec.structs import astuple

from gate.store import Again, Done, Job, Lease, Letter, Settled

POISON: Final = 10
"""Leases in a row without a settlement. A crash of the whole process costs each job one."""
LANE_MOST: Final = 20_000
"""Jobs in one lane before `add` takes no more, so that one site fills nobody's disk."""
TOGETHER_MOST: Final = 200
"""Jobs of one subject that are leased at once."""
WORN_OUT: Final = "poison: never finished"
EXPIRED: Final = "expired"
UNKNOWN_LANE: Final = "no longer in the settings"

SCHEMA: Final = """
    CREATE TABLE job (
        kind TEXT NOT NULL, id BLOB NOT NULL, lane TEXT NOT NULL, subject BLOB NOT NULL,
        payload BLOB NOT NULL, due REAL NOT NULL, made REAL NOT NULL,
        expires REAL NOT NULL, forgotten REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, claims INTEGER NOT NULL DEFAULT 0,
        fence INTEGER NOT NULL DEFAULT 0, held REAL, buried TEXT, told TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE INDEX job_due ON job (kind, lane, due) WHERE buried IS NULL;
    CREATE INDEX job_subject ON job (kind, subject) WHERE buried IS NULL;
    CREATE INDEX job_expires ON job (expires) WHERE buried IS NULL;
    CREATE INDEX job_forgotten ON job (forgotten)
"""
"""`held`: the due time that a lease put off. `buried`: why it is a dead letter.

Statements name their index where SQLite would else read every job of a kind: it knows nothing of
how many there are, and takes the primary key's first column for a choice among ten.
"""

_JOB = "kind, id, lane, subject, payload, due, made, expires, forgotten"
_INSERT = f"INSERT OR IGNORE INTO job ({_JOB}) VALUES (?,?,?,?,?,?,?,?,?)"  # noqa: S608 - ours
_TAKE = (
    "UPDATE job SET held = coalesce(held, due), due = ?, fence = fence + 1, claims = claims + 1 "  # noqa: S608 - ours
    "WHERE kind = ? AND id IN (SELECT id FROM job INDEXED BY job_subject "
    "WHERE kind = ? AND subject = ? "
    f"AND buried IS NULL AND (held IS NULL OR due <= ?) LIMIT ?) RETURNING {_JOB}, attempts, fence"
)


class QueueTable:
    """The jobs of one connection. Raises `sqlite3.Error` and commits nothing by itself."""

    def __init__(self, connection: sqlite3.Connection, room: dict[tuple[str, str], int]) -> None:
        """`room`: how many jobs each lane had room for when it was last counted, less those since;
        an empty one to begin with, kept as long as the file is open.
        """
        self._db = connection
        self._room = room

    def begin(self, now: float) -> None:
        """What holds when a process opens the file: nobody has a lease, nothing is of tomorrow.

        Jobs that were made after `now` were made by a clock that has been set back; they wait as
        long as they were meant to.
        """
        self._db.execute("UPDATE job SET due = held, held = NULL WHERE held IS NOT NULL")
        self._db.execute(
            "UPDATE job SET due = due - (made - ?1), expires = expires - (made - ?1), "
            "forgotten = forgotten - (made - ?1), made = ?1 WHERE made > ?1",
            (now,),
        )

    def add(self, jobs: Sequence[Job]) -> int:
        """Take jobs; one whose id is there already changes nothing. How many lanes had room for."""
        taken = [job for job in jobs if self._has_room(job.kind, job.lane)]
        self._insert(taken)
        return len(taken)

    def _insert(self, jobs: Sequence[Job]) -> None:
        self._db.executemany(_INSERT, [astuple(job) for job in jobs])

    def _has_room(self, kind: str, lane: str) -> bool:
        """Count a lane once for as many jobs as it then had room for, not for each of them."""
        room = self._room.get((kind, lane), 0)
        if room <= 0:
            (jobs,) = self._db.execute(
                "SELECT count(*) FROM job WHERE kind = ? AND lane = ? AND buried IS NULL",
                (kind, lane),
            ).fetchone()
            room = LANE_MOST - int(jobs)
        self._room[kind, lane] = room - 1
        return room > 0

    def lease(self, kind: str, room: Mapping[str, int], now: float, until: float) -> list[Lease]:
        """The jobs that are due, oldest first, at most so many subjects of each lane."""
        leases: list[Lease] = []
        for lane, most in room.items():
            subjects = self._db.execute(
                "SELECT DISTINCT subject FROM (SELECT subject FROM job WHERE kind = ? AND lane = ? "
                "AND buried IS NULL AND due <= ? ORDER BY due LIMIT ?)",
                (kind, lane, now, max(0, most)),
            ).fetchall()
            for (subject,) in subjects:
                leases += self.lease_subject(kind, subject, now, until)
        return leases

    def lease_subject(self, kind: str, subject: bytes, now: float, until: float) -> list[Lease]:
        """What waits for one subject, due or not, except what somebody holds."""
        self._db.execute(
            "UPDATE job INDEXED BY job_subject SET buried = ?, held = NULL, told = '' "
            "WHERE kind = ? AND subject = ? AND buried IS NULL AND claims >= ? "
            "AND (held IS NULL OR due <= ?)",
            (WORN_OUT, kind, subject, POISON, now),
        )
        rows = self._db.execute(_TAKE, (until, kind, kind, subject, now, TOGETHER_MOST)).fetchall()
        return [Lease(Job(*row[:9]), row[9], row[10]) for row in rows]

    def settle(self, settled: Sequence[Settled], jobs: Sequence[Job]) -> bool:
        """What became of leases, and the jobs that follow from it; False, and nothing, if one of
        the leases is no longer ours.
        """
        if not all(self._holds(entry.lease) for entry in settled):
            return False
        for entry in settled:
            job, outcome = entry.lease.job, entry.outcome
            key = (job.kind, job.id)
            if isinstance(outcome, Done):
                self._db.execute("DELETE FROM job WHERE kind = ? AND id = ?", key)
            elif isinstance(outcome, Again):
                self._db.execute(
                    "UPDATE job SET due = ?, held = NULL, claims = 0, attempts = attempts + ?, "
                    "told = ? WHERE kind = ? AND id = ?",
                    (outcome.due, outcome.counts, outcome.told, *key),
                )
            else:
                self._db.execute(
                    "UPDATE job SET buried = ?, held = NULL, attempts = attempts + ?, told = ? "
                    "WHERE kind = ? AND id = ?",
                    (outcome.why, outcome.counts, outcome.told, *key),
                )
        self._insert(jobs)  # what follows from a job that was taken is taken, room or not
        return True

    def _holds(self, lease: Lease) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM job WHERE kind = ? AND id = ? AND fence = ? AND held IS NOT NULL "
            "AND buried IS NULL",
            (lease.job.kind, lease.job.id, lease.fence),
        ).fetchone()
        return found is not None

    def forget(
        self, subjects: Collection[bytes], ids: Collection[tuple[str, bytes]]
    ) -> list[bytes]:
        """Delete all jobs about these subjects, and those of these kinds and ids, leased, dead or
        alive; the ids of the first.
        """
        gone = []
        for subject in subjects:
            rows = self._db.execute("DELETE FROM job WHERE subject = ? RETURNING id", (subject,))
            gone += [job for (job,) in rows.fetchall()]
        self._db.executemany("DELETE FROM job WHERE kind = ? AND id = ?", ids)
        return gone

    def dues(self, kind: str, lanes: Collection[str]) -> dict[str, float]:
        """When the first job of each of these lanes is due."""
        found = {}
        for lane in lanes:
            (due,) = self._db.execute(
                "SELECT min(due) FROM job WHERE kind = ? AND lane = ? AND buried IS NULL",
                (kind, lane),
            ).fetchone()
            if due is not None:
                found[lane] = due
        return found

    def tidy(self, kind: str, lanes: Collection[str], now: float) -> int:
        """Bury what expired or is in no lane that exists any more; delete forgotten letters.

        How many were buried.
        """
        marks = ",".join("?" * len(lanes))
        buried = self._db.execute(
            "UPDATE job INDEXED BY job_expires SET buried = ?, held = NULL WHERE kind = ? "
            "AND buried IS NULL AND expires <= ?",
            (EXPIRED, kind, now),
        ).rowcount
        buried += self._db.execute(
            f"UPDATE job SET buried = ?, held = NULL WHERE kind = ? AND buried IS NULL "  # noqa: S608 - question marks
            f"AND lane NOT IN ({marks})",
            (UNKNOWN_LANE, kind, *lanes),
        ).rowcount
        self._db.execute(
            "DELETE FROM job INDEXED BY job_forgotten WHERE kind = ? AND forgotten <= ?",
            (kind, now),
        )
        return buried

    def subjects(self, kind: str) -> set[bytes]:
        """The subjects that jobs wait for."""
        rows = self._db.execute(
            "SELECT DISTINCT subject FROM job WHERE kind = ? AND buried IS NULL", (kind,)
        )
        return {subject for (subject,) in rows}

    def depth(self) -> dict[tuple[str, bool], int]:
        """How many jobs of each kind there are, alive and (True) buried."""
        rows = self._db.execute("SELECT kind, buried IS NOT NULL, count(*) FROM job GROUP BY 1, 2")
        return {(kind, bool(buried)): count for kind, buried, count in rows}

    def letters(self, kind: str, most: int) -> list[Letter]:
        """Dead letters, the newest first."""
        rows = self._db.execute(
            "SELECT id, lane, made, attempts, buried, told FROM job WHERE kind = ? "
            "AND buried IS NOT NULL ORDER BY made DESC LIMIT ?",
            (kind, most),
        )
        return [Letter(*row) for row in rows]

    def replay(self, kind: str, ids: Collection[bytes], again: Job) -> list[str]:
        """Revive dead letters (no `ids`: all); `again` has their new times. The lanes of them."""
        return list(self._revived(kind, ids, again))

    def _revived(self, kind: str, ids: Collection[bytes], again: Job) -> Iterator[str]:
        wanted = ids or [letter.id for letter in self.letters(kind, -1)]
        for key in wanted:
            rows = self._db.execute(
                "UPDATE job SET buried = NULL, held = NULL, attempts = 0, claims = 0, due = ?, "
                "expires = ?, forgotten = ? WHERE kind = ? AND id = ? AND buried IS NOT NULL "
                "RETURNING lane",
                (again.due, again.expires, again.forgotten, kind, key),
            ).fetchall()
            yield from (lane for (lane,) in rows)
