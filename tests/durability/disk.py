"""A disk that remembers what it was told, so that the power can be cut at any moment of it.

    with recorded(directory) as disk:
        …                                   # the real store, on its real files
        disk.mark(("promised", check))
    disk.cut(at, random, elsewhere)         # the files as they would be after a cut there

Killing a process proves nothing about a power cut: the page cache outlives it. Here SQLite's own
file layer (its VFS, https://www.sqlite.org/vfs.html) is wrapped inside the library that Python
uses, so that every write, truncation, sync and deletion is noted in its order, and done as well.

What is lost in a cut: of what was written to a file since its last sync, any sectors at all; the
name of a file made, or the deletion of one, since its directory was last synced. What was synced
stays, and a sector is old or new.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

SECTOR: Final = 512
JOURNALS: Final = 0x00000800 | 0x00004000 | 0x00080000
"""SQLITE_OPEN_MAIN_JOURNAL, SUPER_JOURNAL, WAL: their first sync syncs the directory as well."""
IO_ERROR: Final = 10
FULL: Final = 13
"""SQLITE_IOERR and SQLITE_FULL, for `Disk.broken`."""


class Write(NamedTuple):
    """Octets at a place of a file."""

    file: int
    at: int
    data: bytes


class Truncate(NamedTuple):
    """A file cut to a size."""

    file: int
    size: int


class Sync(NamedTuple):
    """All of a file is on the disk; `names`: its directory too."""

    file: int
    names: bool


class Name(NamedTuple):
    """A name leads to a file from now on, or (None) to nothing; `lasting`: at once on the disk."""

    name: str
    file: int | None
    lasting: bool = False


class Mark(NamedTuple):
    """Something that the test wants to find in its place."""

    what: Any


Event = Write | Truncate | Sync | Name | Mark


@dataclass(slots=True)
class Image:
    """One file: what is on the disk, and what was written since."""

    lasting: bytearray = field(default_factory=bytearray)
    recent: list[Write | Truncate] = field(default_factory=list)

    def sync(self) -> None:
        for event in self.recent:
            _do(self.lasting, event)
        self.recent.clear()

    def cut(self, chance: Random) -> bytes:
        """What is left of it: each sector that was not synced is there or not."""
        kept, octets = chance.choice((0.0, 0.5, 0.9, 1.0)), bytearray(self.lasting)
        for event in self.recent:
            for part in _sectors(event):
                if chance.random() < kept:
                    _do(octets, part)
        return bytes(octets)


def _sectors(event: Write | Truncate) -> Iterator[Write | Truncate]:
    if isinstance(event, Truncate):
        yield event
        return
    at, end = event.at, event.at + len(event.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        yield Write(event.file, at, event.data[at - event.at : until - event.at])
        at = until


def _do(octets: bytearray, event: Write | Truncate) -> None:
    if isinstance(event, Truncate):
        del octets[event.size :]
        return
    octets.extend(bytes(max(0, event.at - len(octets))))
    octets[event.at : event.at + len(event.data)] = event.data


class Disk:
    """What was done to the files of one directory. `broken`: the error that every write has now."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self.events: list[Event] = []
        self.broken = 0
        self.syncs = 0
        self._files: dict[str, int] = {}
        self._made = 0

    def mark(self, what: Any) -> None:
        """Note that something was said or done, behind all that SQLite has written by now."""
        self.events.append(Mark(what))

    def holds(self, name: str) -> bool:
        """Whether a file is one of ours."""
        return os.path.dirname(name) == self._directory

    def opened(self, name: str) -> int:
        """The number of a file, a new one if there is none of the name."""
        if name not in self._files:
            self._made += 1
            self._files[name] = self._made
            self.events.append(Name(name, self._made))
        return self._files[name]

    def deleted(self, name: str, lasting: bool) -> None:
        """A name leads to nothing any more."""
        if self._files.pop(name, None) is not None:
            self.events.append(Name(name, None, lasting))

    def cut(self, at: int, chance: Random, elsewhere: Path) -> None:
        """The directory, as it is found after the power failed behind the first `at` events."""
        images: dict[int, Image] = {}
        names: dict[str, int | None] = {}
        unsure: list[Name] = []
        for event in self.events[:at]:
            if isinstance(event, Write | Truncate):
                images.setdefault(event.file, Image()).recent.append(event)
            elif isinstance(event, Sync):
                images.setdefault(event.file, Image()).sync()
                if event.names:
                    names |= {e.name: e.file for e in unsure}
                    unsure.clear()
            elif isinstance(event, Name):
                unsure.append(event)
                if event.lasting:
                    names |= {e.name: e.file for e in unsure}
                    unsure.clear()
        for event in unsure:  # a directory's own changes reach the disk in their order
            if chance.random() < 0.5:
                break
            names[event.name] = event.file
        for name, file in names.items():
            if file is not None:
                image = images.get(file, Image())
                (elsewhere / os.path.basename(name)).write_bytes(image.cut(chance))


# -- SQLite's file layer ---------------------------------------------------------------------------


class _Methods(ctypes.Structure):
    """struct sqlite3_io_methods, version 3."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
        ("truncate", ctypes.c_void_p),
        ("sync", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 13),
    ]


class _Vfs(ctypes.Structure):
    """struct sqlite3_vfs, version 3."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("path_most", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("delete", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 16),
    ]


# Names are passed on as the pointers they are: SQLite keeps them, and looks behind their end.
_Open = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
)
_Delete = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_Write = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Layer:
    """A VFS in front of the system's own: it passes everything on, and tells a `Disk` of it."""

    def __init__(self, disk: Disk) -> None:
        # The symbols of the very library that the sqlite3 module is bound to.
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), ctypes.c_int]
        self._library.sqlite3_vfs_unregister.argtypes = [ctypes.POINTER(_Vfs)]
        self._disk = disk
        self._theirs = self._library.sqlite3_vfs_find(None)
        self._open = ctypes.cast(self._theirs.contents.open, _Open)
        self._delete = ctypes.cast(self._theirs.contents.delete, _Delete)
        self._numbers: dict[int, tuple[int, bool]] = {}
        self._tables: dict[int, _Methods] = {}
        self._kept: list[Any] = []  # what SQLite holds pointers to
        self._ours = _Vfs.from_buffer_copy(self._theirs.contents)
        self._ours.next = None
        self._ours.name = b"remembers"
        self._ours.open = self._pointer(_Open(self._on_open))
        self._ours.delete = self._pointer(_Delete(self._on_delete))

    def install(self) -> None:
        """From now on new connections of this process go through here."""
        self._library.sqlite3_vfs_register(ctypes.byref(self._ours), 1)

    def remove(self) -> None:
        """And now they do not any more; those that are open must have been closed."""
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._ours))
        self._library.sqlite3_vfs_register(self._theirs, 1)

    def _pointer(self, callback: Any) -> int | None:
        self._kept.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value

    def _on_open(self, _: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        result: int = self._open(ctypes.addressof(self._theirs.contents), name, file, flags, out)
        path = _text(name)
        if result == 0 and self._disk.holds(path):
            self._numbers[file] = self._disk.opened(path), bool(flags & JOURNALS)
            slot = ctypes.c_void_p.from_address(file)
            assert slot.value is not None
            if slot.value not in self._tables:
                self._tables[slot.value] = self._wrapped(_Methods.from_address(slot.value))
            slot.value = ctypes.addressof(self._tables[slot.value])
        return result

    def _on_delete(self, _: int, name: int, lasting: int) -> int:
        result: int = self._delete(ctypes.addressof(self._theirs.contents), name, lasting)
        if result == 0:
            self._disk.deleted(_text(name), bool(lasting))
        return result

    def _wrapped(self, theirs: _Methods) -> _Methods:
        ours = _Methods.from_buffer_copy(theirs)
        write = ctypes.cast(theirs.write, _Write)
        truncate = ctypes.cast(theirs.truncate, _Truncate)
        sync = ctypes.cast(theirs.sync, _Sync)
        disk = self._disk

        def on_write(file: int, data: int, size: int, at: int) -> int:
            if disk.broken:
                return disk.broken
            number, _ = self._numbers[file]
            disk.events.append(Write(number, at, ctypes.string_at(data, size)))
            return int(write(file, data, size, at))

        def on_truncate(file: int, size: int) -> int:
            disk.events.append(Truncate(self._numbers[file][0], size))
            return int(truncate(file, size))

        def on_sync(file: int, flags: int) -> int:
            result = int(sync(file, flags))
            disk.syncs += 1
            disk.events.append(Sync(*self._numbers[file]))
            return result

        ours.write = self._pointer(_Write(on_write))
        ours.truncate = self._pointer(_Truncate(on_truncate))
        ours.sync = self._pointer(_Sync(on_sync))
        return ours


def _text(name: int | None) -> str:
    """A file's name; temporary files have none."""
    return os.fsdecode(ctypes.string_at(name)) if name else ""


@contextmanager
def recorded(directory: Path) -> Iterator[Disk]:
    """While held, SQLite's files in `directory` are on a `Disk`."""
    disk = Disk(directory.absolute())
    layer = _Layer(disk)
    layer.install()
    try:
        yield disk
    finally:
        layer.remove()
