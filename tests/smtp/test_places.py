"""Places: caps, queues, windows and spacing, against the log that a peer would keep."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.budget import RECIPIENT_WINDOW
from gate.smtp import places as module
from gate.smtp.places import Claim, Full, Key, Places, Ticket
from gate.testing.clock import FakeClock

ALL: Key = ("all", "")
MINUTE = 60.0


def claims(
    *names: str, dialogues: int = 2, overall: int = 4, recipients: int | None = None
) -> tuple[Claim, ...]:
    return (
        Claim(ALL, overall),
        *(Claim(("destination", name), dialogues, recipients) for name in names),
    )


def places_of() -> tuple[Places, FakeClock]:
    clock = FakeClock()
    return Places(clock), clock


def ask(places: Places, wish: tuple[Claim, ...], recipients: int = 1) -> Ticket:
    ticket = places.ask(wish, recipients)
    assert isinstance(ticket, Ticket)
    return ticket


def test_a_destination_has_two_dialogues_and_the_third_waits_its_turn() -> None:
    places, _ = places_of()
    first, second, third, fourth = (ask(places, claims("mx.example")) for _ in range(4))
    assert [t.granted for t in (first, second, third, fourth)] == [True, True, False, False]
    assert repr(places) == "<Places 2 taken, 2 waiting, 0 windows>"
    assert places.leave(second) == [third]
    assert places.leave(first) == [fourth]
    assert places.leave(third) == places.leave(fourth) == []
    assert repr(places) == "<Places 0 taken, 0 waiting, 0 windows>"


def test_a_full_destination_holds_up_nobody_who_wants_another() -> None:
    places, _ = places_of()
    for _ in range(3):
        ask(places, claims("tarpit.example"))
    assert ask(places, claims("good.example")).granted


def test_the_global_cap_is_given_on_in_the_order_of_asking() -> None:
    places, _ = places_of()
    running = [ask(places, claims(f"{n}.example")) for n in range(4)]
    fifth, sixth = ask(places, claims("e.example")), ask(places, claims("f.example"))
    assert not fifth.granted and not sixth.granted
    assert places.leave(running[2]) == [fifth]
    assert places.leave(running[0]) == [sixth]


def test_who_waits_for_a_full_destination_is_passed_over_until_it_has_room() -> None:
    places, _ = places_of()
    a1, _, b1, c1 = (ask(places, claims(d)) for d in ("a", "a", "b", "c"))
    a3, d1 = ask(places, claims("a")), ask(places, claims("d"))
    assert places.leave(b1) == [d1]
    assert places.leave(c1) == []
    assert places.leave(a1) == [a3]


def test_who_gives_up_waiting_is_passed_over_and_those_behind_move_up() -> None:
    places, _ = places_of()
    wish = {name: claims(name, dialogues=1, overall=1) for name in "ab"}
    running = ask(places, wish["a"])
    impatient, patient = ask(places, wish["b"]), ask(places, wish["b"])
    assert places.leave(impatient) == []
    assert places.leave(running) == [patient]
    assert places.leave(impatient) == places.leave(running) == []


def test_giving_a_ticket_back_twice_frees_one_place_only() -> None:
    places, _ = places_of()
    first, second, third = (ask(places, claims(d, overall=1)) for d in "abc")
    assert places.leave(first) == [second]
    assert places.leave(first) == []
    assert not third.granted


def test_many_who_gave_up_leave_nothing_behind() -> None:
    places, _ = places_of()
    running = [ask(places, claims("a")) for _ in range(2)]
    for _ in range(1000):
        places.leave(ask(places, claims("a", recipients=5)))
    last = ask(places, claims("a"))
    assert places.waiting == 1 and len(places._queues["destination", "a"]._heap) < 5
    assert places.leave(running[0]) == [last]


def test_a_full_window_says_no_at_once_and_which_it_is() -> None:
    places, clock = places_of()
    wish = claims("a", recipients=3)
    places.leave(ask(places, wish, 2))
    assert places.ask(wish, 2) == Full("destination")
    last = ask(places, wish)
    clock.advance(5.0)
    places.leave(last)
    clock.advance(RECIPIENT_WINDOW - 5.0)
    places.leave(ask(places, wish, 2))
    assert places.ask(wish, 1) == Full("destination"), "the last one ended five seconds later"


def test_all_claims_are_met_or_none_is() -> None:
    places, _ = places_of()
    places.leave(ask(places, claims("full", recipients=1)))
    for _ in range(5):
        assert places.ask(claims("roomy", "full", recipients=1), 1) == Full("destination")
    assert ask(places, claims("roomy", recipients=1)).granted


def test_recipients_of_who_gave_up_waiting_are_free_again() -> None:
    places, _ = places_of()
    wish = claims("a", dialogues=1, recipients=3)
    ask(places, wish)
    waiting = ask(places, wish, 2)
    assert places.ask(wish, 1) == Full("destination")
    places.leave(waiting)
    assert not ask(places, wish, 2).granted


def test_one_more_dialogue_inside_a_place_counts_its_recipients() -> None:
    places, clock = places_of()
    wish = claims("a", recipients=5)
    ticket = ask(places, wish, 2)
    assert places.again(ticket, 2)
    assert not places.again(ticket, 2)
    places.leave(ticket)
    assert places.ask(wish, 2) == Full("destination")
    clock.advance(RECIPIENT_WINDOW)
    assert ask(places, wish, 5).granted


def test_spaced_starts_wait_for_their_time() -> None:
    places, clock = places_of()
    wish = (Claim(("provider", "slow"), 2, None, 2.0),)
    first, second, third = (ask(places, wish) for _ in range(3))
    assert first.granted and not second.granted and not places.again(first, 1)
    assert places.due() == clock() + 2.0 and places.tick() == []
    clock.advance(2.0)
    assert places.tick() == [second] and places.leave(first) == []
    clock.advance(1.9)
    assert places.tick() == []
    clock.advance(0.1)
    assert places.tick() == [third] and places.due() is None


def test_strangers_fill_the_table_of_windows_and_nothing_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WINDOWS_MOST", 3)
    places, clock = places_of()
    for name in "abc":
        places.leave(ask(places, claims(name, recipients=1)))
        clock.advance(1.0)
    assert places.ask(claims("d", recipients=1), 1) == Full("memory")
    assert places.ask(claims("a", recipients=1), 1) == Full("destination")
    clock.advance(RECIPIENT_WINDOW - 2.5)
    assert ask(places, claims("d", recipients=1)).granted, "the first minute is over"
    assert places.ask(claims("e", recipients=1), 1) == Full("memory")


# -- whatever comes --------------------------------------------------------------------------------

CAPS = {
    "all": Claim(ALL, 4),
    "one": Claim(("site", "one"), 3),
    "two": Claim(("site", "two"), 2),
    "a": Claim(("destination", "a"), 2, 6),
    "b": Claim(("destination", "b"), 1, 4),
    "net": Claim(("network", "n"), 2, 7),
    "row": Claim(("provider", "row"), 2, 8, 1.5),
}
WISHES = [
    tuple(CAPS[name] for name in names.split())
    for names in (
        "all one a net",
        "all two a",
        "all one b net",
        "all two b",
        "all one row",
        "all two row",
        "all one",
    )
]


class Judge:
    """What the peers see: starts and recipients by key, each as late or early as may be."""

    def __init__(self) -> None:
        self.starts: dict[Key, list[float]] = defaultdict(list)
        self.recipients: dict[Key, list[float]] = defaultdict(list)

    def started(self, wish: tuple[Claim, ...], now: float) -> None:
        for claim in wish:
            self.starts[claim.key].append(now)

    def asked(self, wish: tuple[Claim, ...], now: float, count: int) -> None:
        for claim in wish:
            self.recipients[claim.key] += [now] * count

    def check(self) -> None:
        for claim in CAPS.values():
            times = sorted(self.recipients[claim.key])
            if claim.recipients is not None:
                late = times[claim.recipients :]
                for early, then in zip(times, late, strict=False):
                    assert then - early >= MINUTE, f"{claim} within {then - early:.1f} s"
            if claim.spacing:
                starts = self.starts[claim.key]
                assert all(b - a >= claim.spacing for a, b in pairwise(starts))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_limit_is_exceeded_and_nobody_waits_who_need_not(data: st.DataObject) -> None:
    places, clock = places_of()
    judge = Judge()
    alive: list[tuple[Ticket, tuple[Claim, ...], int, bool]] = []

    def began(tickets: list[Ticket]) -> None:
        assert [t.number for t in tickets] == sorted(t.number for t in tickets)
        for ticket, wish, count, early in alive:
            if ticket in tickets:
                judge.started(wish, clock())
                if early:
                    judge.asked(wish, clock(), count)

    def ask_one() -> None:
        wish, count = data.draw(st.sampled_from(WISHES)), data.draw(st.integers(1, 2))
        ticket = places.ask(wish, count)
        if isinstance(ticket, Ticket):
            alive.append((ticket, wish, count, data.draw(st.booleans())))
            began([ticket] if ticket.granted else [])

    def leave_one() -> None:
        ticket, wish, count, early = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
        if ticket.granted and not early:
            judge.asked(wish, clock(), count)
        began(places.leave(ticket))

    for _ in range(data.draw(st.integers(1, 70))):
        move = data.draw(st.sampled_from(["ask", "ask", "leave", "wait"]))
        if move == "wait":
            clock.advance(data.draw(st.sampled_from([0.1, 1.0, 20.0, 61.0])))
            began(places.tick())
        elif move == "leave" and alive:
            leave_one()
        else:
            ask_one()
        running = [wish for ticket, wish, _, _ in alive if ticket.granted]
        used = {c.key: sum(c in wish for wish in running) for c in CAPS.values()}
        assert all(used[c.key] <= c.dialogues for c in CAPS.values() if c.dialogues)
        for ticket, wish, _, _ in alive:
            full = any(c.dialogues and used[c.key] >= c.dialogues for c in wish)
            spaced = CAPS["row"] in wish and judge.starts["provider", "row"]
            waits = spaced and clock() - judge.starts["provider", "row"][-1] < 1.5
            assert ticket.granted or full or waits, "it waits though all its keys have room"
    judge.check()
