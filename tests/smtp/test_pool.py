"""The pool: what is taken, parked and told QUIT, in tables and over any order of calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gate.budget import AHEAD_AGAIN, WARM_IDLE
from gate.egress import Source
from gate.smtp.pool import (
    AHEAD_MOST,
    REFUSALS_MOST,
    TRANSACTIONS_MOST,
    Limits,
    Line,
    Pool,
)

HERE = Source(None, "gate.test")
ELSEWHERE = Source(ip_address("192.0.2.9"), "gate2.test")
A, B, FAR = (ip_address(text) for text in ("8.8.8.1", "8.8.8.2", "9.9.9.9"))
LINE = Line("mx", HERE, "when-required")


def limits(destination: str, network: str, most: int) -> Limits:
    """As for an ordinary destination with all hosts in one network."""
    return {("destination", destination): most, ("network", network): most}


COUNTED = limits("mx", "8.8.8.0/24", 2)


@dataclass
class Ground:
    """A pool with a clock, whose connections are named by numbers."""

    pool: Pool[int] = field(default_factory=lambda: Pool[int]())
    now: float = 100.0
    opened: int = 0

    def open(self, line: Line = LINE, counted: Limits = COUNTED) -> int:
        self.opened += 1
        self.pool.open(self.opened, line, counted)
        return self.opened

    def park(
        self, connection: int, *, transactions: int = 2, refusals: int = 1, ip: object = A
    ) -> bool:
        return self.pool.park(
            connection,
            ip,  # type: ignore[arg-type]
            transactions=transactions,
            refusals=refusals,
            now=self.now,
        )

    def parked(self, line: Line = LINE, counted: Limits = COUNTED) -> int:
        connection = self.open(line, counted)
        assert self.park(connection)
        return connection


# (who asks, addresses of the preferred hosts, seconds since it was parked, whether it is given)
TAKEN: dict[str, tuple[Line, list[object], float, bool]] = {
    "the same again": (LINE, [A], 1.0, True),
    "one of several addresses": (LINE, [B, A], 1.0, True),
    "just before it is too old": (LINE, [A], WARM_IDLE - 0.01, True),
    "too old, and not told QUIT yet": (LINE, [A], WARM_IDLE, False),
    "the domain's host is elsewhere now": (LINE, [B], 1.0, False),
    "no address": (LINE, [], 1.0, False),
    "another destination": (Line("other", HERE, "when-required"), [A], 1.0, False),
    "another source": (Line("mx", ELSEWHERE, "when-required"), [A], 1.0, False),
    "TLS wanted another way": (Line("mx", HERE, "always"), [A], 1.0, False),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_connection_is_taken_only_for_what_it_was_opened_for(name: str) -> None:
    line, addresses, seconds, given = TAKEN[name]
    ground = Ground()
    connection = ground.parked()
    taken = ground.pool.take(line, addresses, ground.now + seconds)  # type: ignore[arg-type]
    assert taken == ((connection, A) if given else None)
    assert (ground.pool.counts.hits, ground.pool.counts.misses) == (given, not given)


def test_who_has_taken_it_has_it_alone() -> None:
    ground = Ground()
    ground.parked()
    assert ground.pool.take(LINE, [A], ground.now) is not None
    assert ground.pool.take(LINE, [A], ground.now) is None


def test_the_one_parked_last_is_taken_first() -> None:
    ground = Ground()
    first, second = ground.open(), ground.open()
    assert ground.park(second)
    ground.now += 1
    assert ground.park(first)
    assert ground.pool.take(LINE, [A], ground.now) == (first, A)


# (transactions, refusals, whether it is kept)
WEAR = [
    (0, 0, True),
    (TRANSACTIONS_MOST - 1, REFUSALS_MOST - 1, True),
    (TRANSACTIONS_MOST, 0, False),
    (1, REFUSALS_MOST, False),
]


@pytest.mark.parametrize(("transactions", "refusals", "kept"), WEAR)
def test_a_worn_connection_is_not_kept(transactions: int, refusals: int, kept: bool) -> None:
    ground = Ground()
    connection = ground.open()
    assert ground.park(connection, transactions=transactions, refusals=refusals) is kept
    assert (ground.pool.take(LINE, [A], ground.now) is not None) is kept


def test_the_idle_are_told_quit_in_time_and_the_others_are_left() -> None:
    ground = Ground()
    old = ground.parked()
    assert ground.pool.due == ground.now + WARM_IDLE
    ground.now += 3.0
    young = ground.parked()
    assert ground.pool.plan(ground.now) == []
    ground.now += WARM_IDLE - 3.0
    assert ground.pool.plan(ground.now) == [old]
    assert ground.pool.plan(ground.now) == []
    assert ground.pool.due == 103.0 + WARM_IDLE
    assert ground.pool.take(LINE, [A], ground.now) == (young, A)
    assert ground.pool.due is None


def test_the_oldest_make_room_when_too_many_are_parked() -> None:
    ground = Ground(Pool(most=2))
    connections = [ground.parked(Line(f"mx{number}", HERE, "never")) for number in range(4)]
    assert ground.pool.plan(ground.now) == connections[:2]


def test_a_pool_that_is_off_or_drained_keeps_nothing() -> None:
    off = Ground(Pool(most=0))
    assert not off.park(off.open())
    ground = Ground()
    connection, busy = ground.parked(), ground.open()
    assert ground.pool.drain() == [connection]
    assert not ground.park(busy)
    assert not ground.pool.open_ahead(99, LINE, COUNTED, ground.now)


def test_what_the_peer_closes_is_forgotten_and_counted() -> None:
    ground = Ground()
    connection = ground.parked()
    ground.pool.gone(connection)
    ground.pool.gone(connection)
    assert ground.pool.take(LINE, [A], ground.now) is None
    assert ground.pool.counts.lost == 1
    assert repr(ground.pool) == "<Pool 0 parked of 0 open>"


def test_one_that_was_dead_when_it_was_taken_is_no_hit() -> None:
    ground = Ground()
    connection = ground.parked()
    assert ground.pool.take(LINE, [A], ground.now)
    ground.pool.spoiled(connection)
    counts = ground.pool.counts
    assert (counts.hits, counts.lost) == (0, 1)


# -- room ------------------------------------------------------------------------------------------

# (what is open there, with 2 allowed; whether there is room; how many are told QUIT for it)
ROOM: dict[str, tuple[list[str], bool, int]] = {
    "nothing": ([], True, 0),
    "one parked": (["parked"], True, 0),
    "two parked": (["parked", "parked"], False, 1),
    "one asked, one parked": (["busy", "parked"], False, 1),
    "one asked, one on its way out": (["busy", "leaving"], False, 0),
    "one parked, one on its way out": (["parked", "leaving"], False, 0),
    "two parked, one on its way out": (["parked", "parked", "leaving"], False, 1),
    "all asked: the throttle counts those": (["busy", "busy"], True, 0),
}


@pytest.mark.parametrize("name", ROOM)
def test_whoever_dials_at_the_cap_lets_a_parked_one_go_first(name: str) -> None:
    states, room, told = ROOM[name]
    ground = Ground()
    parked = []
    for state in states:
        connection = ground.open()
        if state == "parked":
            assert ground.park(connection)
            parked.append(connection)
        elif state == "leaving":
            ground.pool.leaving(connection)
    found, spare = ground.pool.make_room(COUNTED)
    assert (found, spare) == (room, parked[:told])
    if not found:
        for number, state in enumerate(states, start=1):
            if state == "leaving" or number in spare:
                ground.pool.gone(number)
        assert ground.pool.make_room(COUNTED) == (True, [])


def test_hosts_of_one_network_share_their_room_whatever_the_destination() -> None:
    ground = Ground()
    for name in ("one", "two"):
        ground.parked(Line(name, HERE, "never"), limits(name, "8.8.8.0/24", 2))
    assert ground.pool.make_room(limits("three", "8.8.8.0/24", 2)) == (False, [1])
    assert ground.pool.make_room(limits("four", "9.9.9.0/24", 2)) == (True, [])
    assert ground.pool.make_room({}) == (True, [])


# -- ahead of a question ---------------------------------------------------------------------------


def test_one_is_opened_ahead_where_nothing_is_open_and_not_again_unless_it_was_used() -> None:
    ground = Ground()
    assert ground.pool.open_ahead(1, LINE, COUNTED, ground.now)
    assert not ground.pool.open_ahead(2, LINE, COUNTED, ground.now)
    assert ground.park(1, transactions=0, refusals=0)
    ground.pool.gone(1)
    neighbour = limits("neighbour", "8.8.8.0/24", 2)
    for seconds, wanted in ((WARM_IDLE, False), (AHEAD_AGAIN - 0.1, False), (AHEAD_AGAIN, True)):
        assert ground.pool.wanted_ahead(LINE, COUNTED, ground.now + seconds) is wanted
        assert ground.pool.wanted_ahead(LINE, neighbour, ground.now + seconds) is wanted


def test_one_that_was_used_may_be_opened_ahead_again() -> None:
    ground = Ground()
    assert ground.pool.open_ahead(1, LINE, COUNTED, ground.now)
    assert ground.park(1)
    assert ground.pool.take(LINE, [A], ground.now) == (1, A)
    assert not ground.pool.wanted_ahead(LINE, COUNTED, ground.now), "it is open"
    ground.pool.gone(1)
    assert ground.pool.wanted_ahead(LINE, COUNTED, ground.now)


def test_there_is_an_end_to_what_is_opened_ahead() -> None:
    ground = Ground()
    for number in range(AHEAD_MOST):
        line = Line(f"mx{number}", HERE, "never")
        counted = limits(line.destination, f"9.9.{number}.0/24", 2)
        assert ground.pool.open_ahead(number, line, counted, ground.now)
    assert not ground.pool.open_ahead(999, LINE, COUNTED, ground.now)


def test_nothing_is_opened_ahead_in_the_place_of_what_is_parked() -> None:
    ground = Ground(Pool(most=1))
    ground.parked(Line("other", HERE, "never"))
    assert not ground.pool.wanted_ahead(LINE, limits("mx", "9.9.9.0/24", 2), ground.now)


# -- any order of calls ----------------------------------------------------------------------------
LINES = [Line(name, source, "never") for name in ("one", "two") for source in (HERE, ELSEWHERE)]


def counted_with(line: Line) -> Limits:
    return limits(line.destination, f"of {line.destination}", 2)


class AnyOrder(RuleBasedStateMachine):
    """A model of the world beside the pool: who uses which connection, and what is open."""

    users = Bundle("users")

    def __init__(self) -> None:
        super().__init__()
        self.pool: Pool[int] = Pool(most=3)
        self.now = 0.0
        self.number = 0
        self.open: dict[int, Line] = {}
        self.used: set[int] = set()
        self.parked: dict[int, float] = {}

    def closed(self, connection: int) -> None:
        self.pool.gone(connection)
        del self.open[connection]
        self.parked.pop(connection, None)
        self.used.discard(connection)

    @rule(target=users, line=st.sampled_from(LINES))
    def dial(self, line: Line) -> int:
        """As a prober with a place does: at most two of them at a destination use one."""
        here = [one for one in self.used if self.open[one].destination == line.destination]
        if len(here) >= 2:
            return -1
        room, spare = self.pool.make_room(counted_with(line))
        for one in spare:
            assert one in self.parked and one not in self.used
            del self.parked[one]
        if not room:
            gone = [c for c in self.open if c not in self.used and c not in self.parked]
            for connection in gone:
                self.closed(connection)
            assert self.pool.make_room(counted_with(line)) == (True, [])
        self.number += 1
        self.pool.open(self.number, line, counted_with(line))
        self.open[self.number] = line
        self.used.add(self.number)
        return self.number

    @rule(target=users, line=st.sampled_from(LINES))
    def take(self, line: Line) -> int:
        addresses = [A if line.destination == "one" else FAR]
        taken = self.pool.take(line, addresses, self.now)
        if taken is None:
            return -1
        connection, _ = taken
        assert connection not in self.used
        assert self.open[connection] == line
        assert self.now - self.parked.pop(connection) < WARM_IDLE
        self.used.add(connection)
        return connection

    @rule(connection=consumes(users), refusals=st.integers(0, 9))
    def park(self, connection: int, refusals: int) -> None:
        if connection not in self.used:
            return
        ip = A if self.open[connection].destination == "one" else FAR
        if self.pool.park(connection, ip, transactions=1, refusals=refusals, now=self.now):
            self.parked[connection] = self.now
        self.used.discard(connection)

    @rule(connection=consumes(users))
    def user_drops_it(self, connection: int) -> None:
        if connection in self.used:
            self.closed(connection)

    @rule(choice=st.integers(0, 100))
    def peer_closes_one(self, choice: int) -> None:
        if self.open:
            self.closed(sorted(self.open)[choice % len(self.open)])

    @rule(seconds=st.floats(0.0, 5.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def plan(self) -> None:
        for one in self.pool.plan(self.now):
            assert one not in self.used
            del self.parked[one]
        assert len(self.parked) <= 3
        assert all(self.now - since < WARM_IDLE for since in self.parked.values())

    @invariant()
    def the_pool_knows_what_is_open_and_the_caps_hold(self) -> None:
        assert repr(self.pool) == f"<Pool {len(self.parked)} parked of {len(self.open)} open>"
        for destination in ("one", "two"):
            assert sum(line.destination == destination for line in self.open.values()) <= 2


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
