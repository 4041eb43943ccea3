"""One SQLite file and its one connection. Everything here blocks; `sqlite.py` calls it.

What it knows: the schema, what must hold before a file is used, and how SQLite's errors read to the
person who has to mend them.

Rules:

1. One connection at a time, of one process: `locking_mode=EXCLUSIVE`. Up to 3.51.2, SQLite may
   corrupt a WAL database that is written through two connections.
2. Every commit is on disk when it returns (`synchronous=FULL`); many rows share one.
3. Migrations only go forward. A file of a newer schema is refused, not guessed at.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gate.budget import CLAIM_GRACE, STORE_RETRY
from gate.reason import GateError
from gate.store import Kept as Row
from gate.store.behind import ClaimRow as ClaimRow
from gate.store.behind import Unusable as Unusable
from gate.store.behind import Work as Work
from gate.store.memory import SECRET_OCTETS
from gate.store.queue import SCHEMA, QueueTable

APPLICATION_ID: Final = 0x67617465
""""gate": other programs' databases are told by it."""
OWNER_ONLY: Final = 0o600
"""The master key is inside."""
SWEEP_ROWS: Final = 2000
"""Rows deleted in one sweep: a few milliseconds."""
WAL_OCTETS: Final = 16 * 1024 * 1024
"""The write-ahead log is cut back to this after a checkpoint."""
OLDEST_LIBRARY: Final = (3, 35, 0)
"""The first SQLite with `RETURNING`."""

MIGRATIONS: Final = (
    """
    CREATE TABLE record (key BLOB PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL)
        WITHOUT ROWID;
    CREATE INDEX record_expires ON record (expires);
    CREATE TABLE claim (key BLOB PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL)
        WITHOUT ROWID;
    CREATE INDEX claim_expires ON claim (expires);
    CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    """,
    SCHEMA,
)
"""The schema, step by step; `user_version` counts the steps that a file has taken."""

_FIND_RECORD = "SELECT value, expires FROM record WHERE key = ?"
_KEEP_RECORD = (
    "INSERT INTO record (key, value, expires) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires"
)


class Damaged(Unusable):
    """What is in the file is not what was written; only another file in its place helps."""


class StoreFile:
    """The open file. Raises `Unusable`, from `sqlite3.Error`, out of every method but `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._room: dict[tuple[str, str], int] = {}
        self._inode = -1
        self._secrets: dict[str, bytes] = {}

    def open(self, *, check: bool) -> None:
        """Open, or open again, and prove it can be written. `check`: read all of it for damage."""
        self.close()
        self._create()
        try:
            # The path is absolute so that ":memory:" is a file like any other.
            self._connection = connection = sqlite3.connect(
                self.path.absolute(),
                timeout=STORE_RETRY,
                isolation_level=None,
                check_same_thread=False,
            )
            self._claim_file(connection)
            if check and (damage := damage_of(connection)):
                raise Damaged(f"{self.path}: is damaged ({damage}); {_mend_damage(self.path)}")
            self._prove_writable(connection)
            self._room.clear()
            self._inode = self.path.stat().st_ino
            self._secrets = dict(connection.execute("SELECT name, value FROM secret"))
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._unusable(error) from error
        except Unusable:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; its log is folded into it. Never raises."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def secrets(self) -> dict[str, bytes]:
        """The secrets that the file was made with. A file made anew later keeps them."""
        return dict(self._secrets)

    def read(self, key: bytes) -> Row | None:
        """One record, whether or not it expired. A few microseconds."""
        try:
            found = self._connected().execute(_FIND_RECORD, (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return None if found is None else Row(*found)

    def write(
        self,
        records: Mapping[bytes, Row | None],
        claims: Sequence[ClaimRow],
        now: float,
        works: Sequence[Work] = (),
    ) -> tuple[list[Row | None], list[object]]:
        """Keep records (None: delete), decide claims, do the queue's work, on disk when it returns:
        all or nothing.

        For each claim None if it won, else the one that holds at `now`; for each work its result.
        """
        connection = self._connected()
        self._look_for_file()
        try:
            connection.execute("BEGIN IMMEDIATE")
            decided = [self._decide(connection, claim, now) for claim in claims]
            gone = [(key,) for key, row in records.items() if row is None]
            connection.executemany("DELETE FROM record WHERE key = ?", gone)
            self._keep(connection, records)
            done = [self._do(connection, work) for work in works]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise self._unusable(error) from error
        return decided, done

    def _do(self, connection: sqlite3.Connection, work: Work) -> object:
        result = work.act(QueueTable(connection, self._room))
        if result is not False:
            self._keep(connection, work.records)
        return result

    def _keep(self, connection: sqlite3.Connection, records: Mapping[bytes, Row | None]) -> None:
        kept = [(key, *row) for key, row in records.items() if row is not None]
        connection.executemany(_KEEP_RECORD, kept)

    def sweep(self, now: float) -> bool:
        """Delete expired rows, a bounded number at once; True if there may be more."""
        connection = self._connected()
        more = False
        try:
            for table, before in (("record", now), ("claim", now - CLAIM_GRACE)):
                deleted = connection.execute(
                    f"DELETE FROM {table} WHERE key IN "  # noqa: S608 - our own two names
                    f"(SELECT key FROM {table} WHERE expires <= ? LIMIT {SWEEP_ROWS})",
                    (before,),
                )
                more = more or deleted.rowcount == SWEEP_ROWS
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return more

    def fold(self) -> None:
        """Write the log into the file and cut it to nothing."""
        try:
            self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _create(self) -> None:
        """Make the file if it is missing; nobody but its owner may read it."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY))
            if self.path.stat().st_mode & 0o777 != OWNER_ONLY:
                self.path.chmod(OWNER_ONLY)
        except FileNotFoundError:
            raise Unusable(
                f"{self.path}: its directory does not exist; create {self.path.absolute().parent}"
            ) from None
        except IsADirectoryError:
            raise Unusable(f"{self.path}: is a directory; name a file in it") from None
        except OSError as error:
            raise Unusable(f"{self.path}: {error.strerror}; {_MAKE_WRITABLE}") from None

    def _claim_file(self, connection: sqlite3.Connection) -> None:
        """Take the file for this process alone and bring its schema up to date."""
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if not (ours or empty):
            raise Unusable(f"{self.path}: belongs to another program; name a file of our own")
        steps = connection.execute("PRAGMA user_version").fetchone()[0]
        if steps > len(MIGRATIONS):
            raise Unusable(
                f"{self.path}: was written by a newer gate (schema {steps}, this one knows "
                f"{len(MIGRATIONS)}); start that version, or name another file"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten: it is about people.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_OCTETS}")
        if steps < len(MIGRATIONS):
            self._migrate(connection, steps)

    def _migrate(self, connection: sqlite3.Connection, steps: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for step in MIGRATIONS[steps:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        master = self._secrets.get("master") or secrets.token_bytes(SECRET_OCTETS)
        connection.execute("INSERT OR IGNORE INTO secret VALUES ('master', ?)", (master,))
        connection.execute("COMMIT")

    def _look_for_file(self) -> None:
        """A file that was removed would take every write and keep none."""
        try:
            there = self.path.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:
            raise Unusable(f"{self.path}: was moved or removed; a new one is made")

    def _prove_writable(self, connection: sqlite3.Connection) -> None:
        """Commit something that changes nothing: a full disk or a read-only file says so now."""
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")

    def _decide(self, connection: sqlite3.Connection, claim: ClaimRow, now: float) -> Row | None:
        held = connection.execute(
            "SELECT value, expires FROM claim WHERE key = ? AND expires > ?", (claim.key, now)
        ).fetchone()
        if held is not None:
            return Row(*held)
        connection.execute("INSERT OR REPLACE INTO claim VALUES (?, ?, ?)", claim)
        return None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise Unusable(f"{self.path}: is not open")
        return self._connection

    def _unusable(self, error: sqlite3.Error | OSError) -> Unusable:
        """SQLite's error as a sentence that ends with what to do."""
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(_DAMAGE):
            return Damaged(f"{self.path}: {error}; {_mend_damage(self.path)}")
        for prefix, advice in _ADVICE.items():
            if name.startswith(prefix):
                return Unusable(f"{self.path}: {error}; {advice}")
        return Unusable(f"{self.path}: {error} ({name or type(error).__name__})")


_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_MAKE_WRITABLE = "give the gate's user permission to write it and its directory"
_ADVICE = {
    "SQLITE_BUSY": "another process has it: stop that one, or give each gate a file of its own",
    "SQLITE_LOCKED": "another process has it: stop that one, or give each gate a file of its own",
    "SQLITE_READONLY": _MAKE_WRITABLE,
    "SQLITE_CANTOPEN": _MAKE_WRITABLE,
    "SQLITE_PERM": _MAKE_WRITABLE,
    "SQLITE_AUTH": _MAKE_WRITABLE,
    "SQLITE_FULL": "make room on the disk",
    "SQLITE_IOERR": "look at the disk: it is full, has a quota, or fails",
}
"""What to do, by the beginning of SQLite's name of the error."""


def _mend_damage(path: Path) -> str:
    return (
        "`gate store recover` keeps what can be read; or move it away "
        f'(mv "{path}" "{path}.damaged"; its -wal too), and what was in it is forgotten'
    )


def damage_of(connection: sqlite3.Connection) -> str:
    """The first thing found wrong in the whole file; empty if nothing is."""
    try:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else found.splitlines()[0]


def check_library() -> None:
    """Raise `GateError` if the SQLite that Python was built with is too old."""
    if sqlite3.sqlite_version_info < OLDEST_LIBRARY:
        oldest = ".".join(map(str, OLDEST_LIBRARY))
        raise GateError(
            f"SQLite {sqlite3.sqlite_version} is too old for a store; use a Python with SQLite "
            f'{oldest} or newer, or store.url = "memory:"'
        )
