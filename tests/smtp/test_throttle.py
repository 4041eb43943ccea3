from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gate.budget import COOL_DOWN, COOL_DOWN_MOST
from gate.smtp import throttle as module
from gate.smtp.throttle import Throttle, Ticket
from gate.testing.clock import FakeClock


def throttle_of(destination: int = 2, overall: int = 4) -> tuple[Throttle, FakeClock]:
    clock = FakeClock()
    return Throttle(clock=clock, destination_most=destination, global_most=overall), clock


def numbers(tickets: list[Ticket]) -> list[int]:
    return [ticket.number for ticket in tickets]


def test_a_destination_has_two_dialogues_and_the_third_waits_its_turn() -> None:
    throttle, _ = throttle_of()
    first, second, third, fourth = (throttle.ask("mx.example") for _ in range(4))
    assert [t.granted for t in (first, second, third, fourth)] == [True, True, False, False]
    assert repr(throttle) == "<Throttle 2/4 running with 1 destinations, 2 waiting, 0 refused us>"
    assert throttle.leave(second) == [third]
    assert throttle.leave(first) == [fourth]
    assert throttle.leave(third) == throttle.leave(fourth) == []
    assert repr(throttle) == "<Throttle 0/4 running with 0 destinations, 0 waiting, 0 refused us>"


def test_a_full_destination_holds_up_nobody_who_wants_another() -> None:
    throttle, _ = throttle_of()
    for _ in range(3):
        throttle.ask("tarpit.example")
    assert throttle.ask("good.example").granted


def test_the_global_cap_is_given_on_in_the_order_of_asking() -> None:
    throttle, _ = throttle_of()
    running = [throttle.ask(f"{n}.example") for n in range(4)]
    fifth, sixth = throttle.ask("e.example"), throttle.ask("f.example")
    assert not fifth.granted and not sixth.granted
    assert throttle.leave(running[2]) == [fifth]
    assert throttle.leave(running[0]) == [sixth]


def test_who_waits_for_a_full_destination_is_passed_over_until_it_has_room() -> None:
    throttle, _ = throttle_of()
    a1, _, b1, c1 = (throttle.ask(d) for d in ("a", "a", "b", "c"))
    a3, d1 = throttle.ask("a"), throttle.ask("d")
    assert throttle.leave(b1) == [d1]
    assert throttle.leave(c1) == []
    assert throttle.leave(a1) == [a3]


def test_who_gives_up_waiting_is_passed_over_and_those_behind_move_up() -> None:
    throttle, _ = throttle_of(destination=1, overall=1)
    running = throttle.ask("a")
    impatient, patient = throttle.ask("b"), throttle.ask("b")
    assert throttle.leave(impatient) == []
    assert throttle.leave(running) == [patient]
    assert throttle.leave(impatient) == throttle.leave(running) == []


def test_giving_a_ticket_back_twice_frees_one_place_only() -> None:
    throttle, _ = throttle_of(overall=1)
    first, second, third = (throttle.ask(d) for d in "abc")
    assert throttle.leave(first) == [second]
    assert throttle.leave(first) == []
    assert not third.granted


@given(st.data())
def test_caps_hold_places_are_used_and_order_is_kept_whatever_comes(data: st.DataObject) -> None:
    """Against a slow model: the oldest waiting ticket that fits is always the one granted."""
    throttle, _ = throttle_of(destination=2, overall=3)
    alive: list[Ticket] = []
    for _ in range(data.draw(st.integers(1, 60))):
        leaves = data.draw(st.booleans())
        if alive and leaves:
            ticket = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
            was_granted, waiting = ticket.granted, [t for t in alive if not t.granted]
            granted = throttle.leave(ticket)
            assert numbers(granted) == sorted(numbers(granted))
            assert set(granted) <= set(waiting) and (was_granted or not granted)
        else:
            alive.append(throttle.ask(data.draw(st.sampled_from("abcd"))))
        running = [ticket.destination for ticket in alive if ticket.granted]
        assert len(running) <= 3
        assert all(running.count(destination) <= 2 for destination in running)
        for ticket in alive:
            room = len(running) < 3 and running.count(ticket.destination) < 2
            assert ticket.granted or not room
            older = [t for t in alive if t.destination == ticket.destination and t.granted]
            assert ticket.granted or all(t.number < ticket.number for t in older)


def test_a_refusal_rests_five_minutes_then_doubles_up_to_three_hours() -> None:
    throttle, clock = throttle_of()
    rests = []
    for _ in range(8):
        throttle.blocked("x")
        rests.append(throttle.resting("x"))
        clock.advance(rests[-1])
        assert throttle.resting("x") == 0.0
    assert rests == [300, 600, 1200, 2400, 4800, 9600, 10_800, 10_800]
    assert (rests[0], rests[-1]) == (COOL_DOWN, COOL_DOWN_MOST)


def test_a_welcome_ends_the_rest_and_forgets_the_refusals() -> None:
    throttle, clock = throttle_of()
    throttle.blocked("x")
    clock.advance(COOL_DOWN)
    throttle.blocked("x")
    throttle.welcomed("x")
    assert throttle.resting("x") == 0.0
    throttle.blocked("x")
    assert throttle.resting("x") == COOL_DOWN


def test_a_second_dialogue_that_was_under_way_does_not_lengthen_the_rest() -> None:
    throttle, clock = throttle_of()
    throttle.blocked("x")
    clock.advance(1.0)
    throttle.blocked("x")
    assert throttle.resting("x") == COOL_DOWN - 1.0


def test_a_refusal_long_ago_counts_no_more() -> None:
    throttle, clock = throttle_of()
    throttle.blocked("x")
    clock.advance(COOL_DOWN + COOL_DOWN_MOST)
    throttle.blocked("x")
    assert throttle.resting("x") == COOL_DOWN


def test_rests_are_apart_and_bounded() -> None:
    throttle, _ = throttle_of()
    for number in range(module.RESTING_MOST + 1):
        throttle.blocked(f"{number}")
    assert throttle.resting("0") == 0.0
    assert throttle.resting("1") == COOL_DOWN
    assert throttle.resting("another") == 0.0


def test_a_refusal_at_rcpt_rests_the_domain_and_leaves_its_neighbours_alone() -> None:
    clock = FakeClock()
    throttle = Throttle(clock=clock)
    throttle.blocked("x", "one.example")
    assert throttle.resting("x", "one.example") == COOL_DOWN
    assert throttle.resting("x", "two.example") == 0.0


def test_the_third_domain_refused_rests_them_all() -> None:
    throttle = Throttle(clock=FakeClock())
    for number in range(3):
        assert throttle.resting("x", "another.example") == 0.0
        throttle.blocked("x", f"{number}.example")
    assert throttle.resting("x", "another.example") == COOL_DOWN


def test_a_welcome_between_them_starts_the_count_anew() -> None:
    throttle = Throttle(clock=FakeClock())
    for number in range(5):
        throttle.blocked("x", f"{number}.example")
        throttle.welcomed("x", "good.example")
    assert throttle.resting("x", "another.example") == 0.0
    assert throttle.resting("x", "4.example") == COOL_DOWN
