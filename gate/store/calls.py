"""The queue's verbs, as calls of scripts in a Redis server.

What it knows: what the `Queue` protocol (gate/store) promises, as arguments and answers of the
scripts in `lua/`, one a verb. A script runs alone from its beginning to its end, and what it wrote
is one entry of the append-only file: that is the transaction. The meaning of the rules, and every
number in them, is that of `queue.py`.

Scripts find their keys themselves, below one prefix: good for one server, not for a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from struct import Struct as Packing
from typing import Any, Final, NamedTuple

from msgspec.structs import astuple

from gate.budget import CLAIM_GRACE, STORE_NEWS_KEPT
from gate.store import Again, Buried, Job, Lease, Letter, Settled
from gate.store import Kept as Row
from gate.store.behind import ClaimRow
from gate.store.queue import EXPIRED, LANE_MOST, POISON, TOGETHER_MOST, UNKNOWN_LANE, WORN_OUT

Command = Sequence[bytes | str | int]

PREFIX: Final = b"gate:"
RECORD: Final = PREFIX + b"r:"
SECRET: Final = PREFIX + b"secret:"
GONE: Final = PREFIX + b"gone"
"""A stream of the records that some process deleted, for the memories of the others."""
AT_ONCE: Final = 2_000
"""Jobs that are buried or forgotten by one call, so that it keeps the server some milliseconds."""
_VERBS: Final = (
    "claim",
    "drop",
    "begin",
    "add",
    "lease",
    "lease_subject",
    "settle",
    "dues",
    "tidy",
    "subjects",
    "depth",
    "letters",
    "replay",
    "forget",
)
_NUMBERS: Final = {
    "POISON": POISON,
    "LANE_MOST": LANE_MOST,
    "TOGETHER_MOST": TOGETHER_MOST,
    "AT_ONCE": AT_ONCE,
    "JOB_FIELDS": len(Job.__struct_fields__),
    "WORN_OUT": f"'{WORN_OUT}'",
    "EXPIRED": f"'{EXPIRED}'",
    "UNKNOWN_LANE": f"'{UNKNOWN_LANE}'",
}
_expiry: Final = Packing("<d")


class Call(NamedTuple):
    """A command for the server, and what its answer means; None: nothing but that it was done."""

    command: Command
    read: Callable[[Any], object] | None = None


@lru_cache(maxsize=1)
def scripts() -> dict[str, tuple[str, str]]:
    """The text of each verb's script, and the name that the server gives it."""
    folder = files("gate.store").joinpath("lua")
    head = "".join(f"local {name} = {value}\n" for name, value in _NUMBERS.items())
    head += folder.joinpath("common.lua").read_text(encoding="utf-8")
    found = {}
    for verb in _VERBS:
        text = head + folder.joinpath(f"{verb}.lua").read_text(encoding="utf-8")
        found[verb] = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return found


def run(verb: str, *args: bytes | str | float) -> Command:
    """The command that runs a verb's script. Numbers are written so that none of them is lost."""
    return ("EVALSHA", scripts()[verb][1], 1, PREFIX, *map(_written, args))


def _written(arg: bytes | str | float) -> bytes | str:
    return arg if isinstance(arg, bytes | str) else repr(arg)


def packed(row: Row | ClaimRow) -> bytes:
    """A value as it is kept: its expiry, by the clock of who put it, in front."""
    return _expiry.pack(row.expires) + row.value


def unpacked(raw: bytes | None) -> Row | None:
    """What was kept; None for what is not there or was not written by a gate."""
    if raw is None or len(raw) < _expiry.size:
        return None
    return Row(raw[_expiry.size :], *_expiry.unpack_from(raw))


def lasts(expires: float, now: float) -> int:
    """Milliseconds from now, at least so many that nothing expires early."""
    return int((expires - now) * 1000) + 1 if expires > now else 0


def put(key: bytes, row: Row, now: float) -> Call:
    """Keep a record. One that expired already is no different from one that never was."""
    if row.expires <= now:
        return Call(("DEL", RECORD + key))
    return Call(("SET", RECORD + key, packed(row), "PX", lasts(row.expires, now)))


def drop(keys: Collection[bytes]) -> Call:
    """Delete records, and tell the other processes."""
    return Call(run("drop", int(STORE_NEWS_KEPT), *keys))


def claim(row: ClaimRow, now: float) -> Call:
    """Decide a claim: None if it won, else who holds it."""
    kept = lasts(row.expires + CLAIM_GRACE, now)
    return Call(run("claim", row.key, packed(row), now, max(1, kept)), unpacked)


class QueueCalls:
    """What a server has to do for each verb. Records that are kept with it are given here."""

    def __init__(self, records: Mapping[bytes, Row], now: float) -> None:
        """`now`: Unix time."""
        self._records: list[bytes | str | float] = [len(records)]
        for key, row in records.items():
            self._records += key, packed(row), lasts(row.expires, now)

    def begin(self, now: float) -> Call:
        """Jobs of tomorrow. Leases may be another process's and end by themselves."""
        return Call(run("begin", now), bool)

    def add(self, jobs: Sequence[Job]) -> Call:
        """Take jobs; how many lanes had room."""
        return Call(run("add", *self._records, *_fields(jobs)), int)

    def lease(self, kind: str, room: Mapping[str, int], now: float, until: float) -> Call:
        """The jobs that are due, at most so many subjects of each lane."""
        lanes = [part for lane, most in room.items() if most > 0 for part in (lane, most)]
        return Call(run("lease", kind, now, until, *lanes), _leases(kind))

    def lease_subject(self, kind: str, subject: bytes, now: float, until: float) -> Call:
        """What waits for one subject and is nobody's."""
        return Call(run("lease_subject", kind, subject, now, until), _leases(kind))

    def settle(self, settled: Sequence[Settled], jobs: Sequence[Job]) -> Call:
        """What became of leases, and what follows from it; False if one was lost."""
        args: list[bytes | str | float] = [len(settled)]
        for lease, outcome in settled:
            args += lease.job.kind, lease.job.id, lease.fence
            if isinstance(outcome, Again):
                args += "again", outcome.due, int(outcome.counts), outcome.told
            elif isinstance(outcome, Buried):
                args += "buried", outcome.why, int(outcome.counts), outcome.told
            else:
                args += "done", "", 0, ""
        return Call(run("settle", *args, *self._records, *_fields(jobs)), bool)

    def forget(self, subjects: Collection[bytes], ids: Collection[tuple[str, bytes]]) -> Call:
        """Delete jobs; the ids of those about the subjects."""
        jobs = [part for job in ids for part in job]
        return Call(run("forget", len(subjects), *subjects, *jobs), list)

    def dues(self, kind: str, lanes: Collection[str]) -> Call:
        """When the first job of each lane is due."""
        names = list(lanes)

        def read(found: list[bytes | None]) -> dict[str, float]:
            pairs = zip(names, found, strict=True)
            return {lane: float(due) for lane, due in pairs if due is not None}

        return Call(run("dues", kind, *names), read)

    def tidy(self, kind: str, lanes: Collection[str], now: float) -> Call:
        """Bury and forget what is too old, or of no lane; how many were buried."""
        return Call(run("tidy", kind, now, *lanes), int)

    def subjects(self, kind: str) -> Call:
        """What jobs wait for."""
        return Call(run("subjects", kind), set)

    def depth(self) -> Call:
        """How many jobs of each kind, alive and (True) dead."""
        return Call(run("depth"), _depth)

    def letters(self, kind: str, most: int) -> Call:
        """Dead letters, the newest first; -1: all."""

        def read(found: list[list[bytes]]) -> list[Letter]:
            return [
                Letter(id, lane.decode(), float(made), int(attempts), why.decode(), told.decode())
                for id, lane, made, attempts, why, told in found
            ]

        return Call(run("letters", kind, most - 1 if most > 0 else -1), read)

    def replay(self, kind: str, ids: Collection[bytes], again: Job) -> Call:
        """Revive dead letters; their lanes."""
        times = (again.due, again.expires, again.forgotten)
        return Call(
            run("replay", kind, *times, *ids), lambda found: [lane.decode() for lane in found]
        )


def _fields(jobs: Sequence[Job]) -> list[bytes | str | float]:
    return [field for job in jobs for field in astuple(job)]


def _leases(kind: str) -> Callable[[list[list[bytes]]], list[Lease]]:
    def read(found: list[list[bytes]]) -> list[Lease]:
        leases = []
        for id, lane, subject, payload, due, made, expires, forgotten, attempts, fence in found:
            times = (float(due), float(made), float(expires), float(forgotten))
            job = Job(kind, id, lane.decode(), subject, payload, *times)
            leases.append(Lease(job, int(attempts), int(fence)))
        return leases

    return read


def _depth(found: list[tuple[bytes, int, int]]) -> dict[tuple[str, bool], int]:
    counts: dict[tuple[str, bool], int] = {}
    for kind, alive, dead in found:
        counts |= {(kind.decode(), False): alive, (kind.decode(), True): dead}
    return {which: count for which, count in counts.items() if count}
