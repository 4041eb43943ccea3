"""A look at a store's file without becoming its owner: for `gate doctor`. Blocks.

What it promises: makes no file that stays, changes nothing, and gives way to a gate that has the
file: one process, one connection (see file.py).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gate.store.file import APPLICATION_ID

_PROOF = b"written to be read back\n" * 64


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. `folder` and `damage` are what is wrong, empty if nothing is.

    `in_use`: another process has the file; then nobody looked inside. `free`: octets.
    """

    there: bool
    folder: str = ""
    free: int = 0
    mode: int = 0
    writable: bool = True
    in_use: bool = False
    foreign: bool = False
    damage: str = ""


def look(path: Path) -> Look:
    """Look at the folder, then at the file."""
    folder = path.absolute().parent
    trouble = _folder_trouble(folder)
    if trouble:
        return Look(there=path.exists(), folder=trouble)
    free = shutil.disk_usage(folder).free
    if not path.exists():
        return Look(there=False, free=free)
    mode = path.stat().st_mode & 0o777
    writable = os.access(path, os.R_OK | os.W_OK)
    if not writable or not path.is_file():
        return Look(there=True, free=free, mode=mode, writable=False)
    in_use, foreign, damage = _inside(path)
    return Look(True, "", free, mode, writable, in_use, foreign, damage)


def _folder_trouble(folder: Path) -> str:
    """Why nothing can be kept in a folder: written, read back and deleted to find out."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".gate-doctor-") as file:
            file.write(_PROOF)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            return "" if file.read() == _PROOF else "what was written is not what is read"
    except OSError as error:
        return error.strerror or type(error).__name__


def _inside(path: Path) -> tuple[bool, bool, str]:
    """(another process has it, it is not ours, what is damaged)."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0.0, isolation_level=None
        )
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        damage = "" if found == "ok" else found.splitlines()[0]
        return False, bool(tables) and owner != APPLICATION_ID, damage
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return True, False, ""
        return False, False, str(error)
    finally:
        if connection is not None:
            connection.close()
