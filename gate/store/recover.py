"""`recover`: from a damaged file a good one, with everything in it that can still be read.

What it promises: the damaged file is not written to and not lost, it is moved aside; the file that
takes its place has passed every look a start takes; a file that a gate has open, or that is not
damaged, is left alone.

How: a copy is read, each table forwards and backwards until the damage, and then in small ranges
of keys around it. The master key comes first: without it nobody can open a token, or what waits
sealed.

Bugs: what was damaged inside a value and still looks like one is kept. If the machine stops between
the last two steps, the log of the damaged file is with the copy that was moved aside only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from gate.store.file import StoreFile, Unusable, damage_of
from gate.store.memory import SECRET_OCTETS

LOCKS: Final = (512, 0x40000000)
"""Where SQLite locks a file: number of octets, and the first (its file format, section 1.4)."""
LOG: Final = "-wal"
_END: Final = b"\xff" * 64
"""Behind every key with the same beginning."""

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and what its columns must hold (those behind the named ones: anything)."""

    name: str
    columns: tuple[str, ...]
    kinds: tuple[type, ...]
    key: tuple[str, ...]

    def sound(self, row: Row) -> bool:
        """Whether it is a row, and not what the damage made of one."""
        return all(type(value) is kind for value, kind in zip(row, self.kinds, strict=False))


_EXPIRING: Final = ("key", "value", "expires")
_JOB: Final = (
    *("kind", "id", "lane", "subject", "payload", "due", "made", "expires", "forgotten"),
    *("attempts", "claims", "fence", "held", "buried", "told"),
)
TABLES: Final = (
    Table("claim", _EXPIRING, (bytes, bytes, float), ("key",)),
    Table("job", _JOB, (str, bytes, str, bytes, bytes, *[float] * 4, *[int] * 3), ("kind", "id")),
    Table("record", _EXPIRING, (bytes, bytes, float), ("key",)),
)
"""Dearest first."""


@dataclass(slots=True)
class Recovered:
    """What was kept, by table. `damage`: what was found; empty if nothing was, and nothing done.
    `aside`: where the damaged file is now. `master`: whether the master key could be read.
    """

    damage: str
    kept: dict[str, int]
    master: bool = True
    aside: Path | None = None


def recover(path: Path) -> Recovered:
    """Mend the store's file at `path`. Raises `Unusable` with what to do."""
    if not path.is_file():
        raise Unusable(f"{path}: there is no such file")
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".recover-") as work:
            copy, fresh = Path(work, "copy"), Path(work, "fresh")
            with _alone(path):
                for end in ("", LOG):
                    with suppress(FileNotFoundError):
                        shutil.copyfile(f"{path}{end}", f"{copy}{end}")
                found = _rescue(copy, fresh)
                if found.damage:
                    found.aside = _exchange(path, fresh)
            return found
    except (OSError, sqlite3.Error) as error:
        raise Unusable(f"{path}: could not be recovered: {error}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the octets that SQLite locks, so that no gate has the file, nor opens it meanwhile."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, *LOCKS)
        except OSError:
            raise Unusable(f"{path}: another process has it; stop that gate first") from None
        yield


def _rescue(copy: Path, fresh: Path) -> Recovered:
    """Read the copy, and write what is found into a new file."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as old:
        old.text_factory = lambda octets: octets.decode(errors="replace")
        found = Recovered(damage_of(old), {})
        if not found.damage:
            return found
        # A file that is shorter than it says is read as far as it goes.
        old.execute("PRAGMA writable_schema = ON")
        secrets = [row for row in _scan(old, "SELECT name, value FROM secret") if _is_secret(row)]
        found.master = any(name == "master" for name, _ in secrets)
        new = StoreFile(fresh)
        new.open(check=True)
        new.close()
        with closing(sqlite3.connect(fresh, isolation_level=None)) as into:
            into.execute("BEGIN")
            into.executemany("INSERT OR REPLACE INTO secret VALUES (?, ?)", secrets)
            for table in TABLES:
                found.kept[table.name] = _keep(_rows(old, table), into, table)
            into.execute("COMMIT")
    new.open(check=True)
    new.close()
    return found


def _is_secret(row: Row) -> bool:
    name, value = row
    return isinstance(name, str) and isinstance(value, bytes) and len(value) == SECRET_OCTETS


def _keep(rows: Iterator[Row], into: sqlite3.Connection, table: Table) -> int:
    """Write the rows, each once; how many that were."""
    columns, marks = ", ".join(table.columns), ", ".join("?" * len(table.columns))
    before = into.total_changes
    into.executemany(f"INSERT OR IGNORE INTO {table.name} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - our own names
    return into.total_changes - before


def _rows(old: sqlite3.Connection, table: Table) -> Iterator[Row]:
    """Every row that can be reached, some of them twice."""
    select = f"SELECT {', '.join(table.columns)} FROM {table.name}"  # noqa: S608 - our own names
    backwards = ", ".join(f"{column} DESC" for column in table.key)
    keys: dict[Row, list[bytes]] = {}
    """The least and the greatest last column of the key that were seen, by the columns before."""
    for statement in (select, f"{select} ORDER BY {backwards}"):
        for row in _scan(old, statement):
            if table.sound(row):
                *group, last = row[: len(table.key)]
                assert isinstance(last, bytes)
                least, greatest = keys.get(tuple(group), (last, last))
                keys[tuple(group)] = [min(least, last), max(greatest, last)]
                yield row
    one = " AND ".join(
        f"{column} {'= ?' if column != table.key[-1] else 'BETWEEN ? AND ?'}"
        for column in table.key
    )
    for fixed, ends in keys.items():
        for row in _around(old, f"{select} WHERE {one}", fixed, _common(*ends), 1):
            if table.sound(row):
                yield row


def _common(one: bytes, other: bytes) -> bytes:
    """What both begin with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return bytes(octet for octet, _ in pairs)


def _scan(old: sqlite3.Connection, statement: str) -> Iterator[Row]:
    """Rows until the damage."""
    with suppress(sqlite3.Error):
        yield from old.execute(statement)


def _around(
    old: sqlite3.Connection, statement: str, fixed: Row, prefix: bytes, finer: int
) -> Iterator[Row]:
    """Rows by the octet that follows on `prefix` in their key; a range with damage in it is read
    in ranges of its own.
    """
    for octet in range(256):
        start = prefix + bytes([octet])
        try:
            yield from old.execute(statement, (*fixed, start, start + _END))
        except sqlite3.Error:
            if finer:
                yield from _around(old, statement, fixed, start, finer - 1)


def _exchange(path: Path, fresh: Path) -> Path:
    """Put the new file in the old one's place, which keeps a name of its own; at no moment is
    there no file, for a gate would begin a new one.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for end in ("", LOG):
        with suppress(FileNotFoundError):
            os.link(f"{path}{end}", f"{aside}{end}")
    # The old log would be taken for the new file's.
    Path(f"{path}{LOG}").unlink(missing_ok=True)
    os.replace(fresh, path)
    directory = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return aside
