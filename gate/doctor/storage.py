"""The store: can it be written, is there room, is it whole, does nobody else read it? Of a Redis
server: is it there, does it let us in, and does it keep what it is given?
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gate.budget import Clock
from gate.doctor.finding import Finding, Topic
from gate.redis_url import SCHEMES, parse
from gate.store import Store

if TYPE_CHECKING:
    from gate.store.link import Server
    from gate.store.look import Look

NAME: Final = "store"
WHY: Final = (
    "verdicts, promises to call back and spent tokens are kept there; without it every restart "
    "asks the same mail hosts again"
)
FREE_LEAST: Final = 200 * 1024 * 1024
"""Octets: a few hundred thousand verdicts and the write-ahead log."""
_RESET_BUG: Final = ((3, 7, 0), (3, 51, 3))
"""From, up to: SQLite may corrupt a WAL database that two connections write (WAL-reset bug)."""


async def check(url: str, store: Store | None, wall: Clock = time.time) -> list[Finding]:
    """Look at the file or server of `url`. `store`: that of the gate that runs in this process."""
    topic = Topic(NAME, WHY)
    if url == "memory:":
        return [
            topic.warning(
                "everything is kept in memory and gone with the process",
                'set store.url = "sqlite:gate.db"',
            )
        ]
    if url.startswith(SCHEMES):
        if store is not None:
            return [judge_running(store.trouble)]
        return await _check_server(url, wall)
    library = judge_library(sqlite3.sqlite_version)
    path = Path(url.partition(":")[2])
    if store is not None:
        return [judge_running(store.trouble), library]
    from gate.store.look import look  # a gate that runs asks its own store

    return [*judge(path, await asyncio.to_thread(look, path)), library]


async def _check_server(url: str, wall: Clock) -> list[Finding]:
    from gate.store.behind import Unusable
    from gate.store.link import Link

    link: Link | None = None
    try:
        link = Link(parse(url))
        return judge_server(str(link.where), await link.open(wall))
    except Unusable as error:
        found, _, mend = str(error).partition("; ")
        return [Topic(NAME, WHY).problem(found, mend)]
    finally:
        if link is not None:
            link.close()
            await asyncio.sleep(0)  # its socket closes a turn later


def judge_server(where: str, server: Server) -> list[Finding]:
    """What a Redis server that may be used says of itself. Pure."""
    from gate.store.link import doubts

    topic = Topic(NAME, WHY, where)
    version = ".".join(map(str, server.version))
    found = [topic.ok(f"{where}, Redis {version}, lets us in and evicts nothing")]
    for doubt in doubts(server):
        what, _, mend = doubt.partition("; ")
        found.append(topic.warning(what, mend))
    return found


def judge_running(trouble: str | None) -> Finding:
    """What the running gate's own store says. Pure."""
    topic = Topic(NAME, WHY)
    if trouble is None:
        return topic.ok("the store can be written")
    found, _, mend = trouble.partition("; ")
    return topic.problem(found, mend or "look at the disk and at the file's permissions")


def judge(path: Path, seen: Look) -> list[Finding]:
    """What a look at the file means. Pure."""
    topic = Topic(NAME, WHY, str(path))
    folder = path.absolute().parent
    if seen.folder:
        return [
            topic.problem(
                f"{folder} cannot be written: {seen.folder}",
                "make it, and give it to the user that runs the gate:\n"
                f"install -d -m 700 -o <user> {folder}",
            )
        ]
    if not seen.writable:
        return [
            topic.problem(
                f"{path} cannot be written by this user",
                f"chown <user> {path} (and its -wal), or run this as the gate's user",
            )
        ]
    if seen.foreign:
        return [
            topic.problem(f"{path} belongs to another program", "set store.url to another file")
        ]
    if seen.damage:
        return [
            topic.problem(
                f"{path} is damaged: {seen.damage}",
                "stop the gate, then save what can still be read:\ngate store recover",
            )
        ]
    return [_judge_place(topic, path, seen), *_judge_room(topic, folder, seen)]


def _judge_place(topic: Topic, path: Path, seen: Look) -> Finding:
    if not seen.there:
        return topic.ok(f"{path} is not there yet and can be made")
    if seen.mode & 0o077:
        return topic.warning(
            f"{path} can be read by others (mode {seen.mode:03o}), and the master key is inside",
            f"take that right away:\nchmod 600 {path}",
        )
    if seen.in_use:
        return topic.ok(f"{path} is in the hands of a gate that runs; /readyz says how it is")
    return topic.ok(f"{path} can be written and is whole")


def _judge_room(topic: Topic, folder: Path, seen: Look) -> list[Finding]:
    free = seen.free // 1024**2
    if seen.free >= FREE_LEAST:
        return []
    wanted = FREE_LEAST // 1024**2
    return [
        topic.warning(
            f"{folder} has {free} MiB left",
            f"make room for {wanted} MiB, or set store.url to a file on another disk",
        )
    ]


def judge_library(version: str) -> Finding:
    """What the version of SQLite means for us. Pure."""
    topic = Topic(NAME, WHY, f"SQLite {version}")
    number = tuple(map(int, version.split(".")))
    if _RESET_BUG[0] <= number < _RESET_BUG[1]:
        return topic.ok(
            f"SQLite {version}: its fault with two connections (before 3.51.3) cannot happen to a "
            "gate, which has one and locks others out"
        )
    return topic.ok(f"SQLite {version}")
