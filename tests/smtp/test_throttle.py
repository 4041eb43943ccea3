"""The throttle as a whole: who may be asked, who rests and why, and what ends it."""

from __future__ import annotations

from ipaddress import ip_address
from zlib import crc32

import pytest

from gate.budget import (
    CONTROL_HELD,
    COOL_DOWN,
    COOL_DOWN_MOST,
    DOWN_TRY,
    HARVEST_REST,
    PORT_REST,
    RATE_REST,
    RECIPIENT_WINDOW,
)
from gate.reason import Reason
from gate.smtp.caps import PLACES_ONLY, Caps, Errand
from gate.smtp.classify import Echo, Outcome, classify
from gate.smtp.dialog import Stage
from gate.smtp.provider import Provider
from gate.smtp.reply import parse
from gate.smtp.throttle import Pass, Refusal, Throttle, Watch
from gate.testing.clock import FakeClock

ROW = Provider(
    name="Named",
    suffixes=("named.test",),
    accepts="trust",
    tls=None,
    why="",
    source="",
    date="",
    dialogues=3,
    recipients_per_minute=40,
    spacing=None,
)


def throttle_of(domain_recipients: int = 10) -> tuple[Throttle, FakeClock]:
    clock = FakeClock()
    return Throttle(clock=clock, caps=Caps(domain_recipients=domain_recipients)), clock


def errand(domain: str = "a.test", **some: object) -> Errand:
    """An errand to a host of the domain's own, in a network of its own."""
    number = crc32(domain.encode())
    host = ip_address(f"{20 + number % 80}.{number >> 8 & 255}.{number >> 16 & 255}.1")
    defaults = {"destination": f"mx.{domain}", "identity": f"mx.{domain} gate", "hosts": (host,)}
    return Errand(domain=domain, **(defaults | some))  # type: ignore[arg-type]


def outcome(text: str, stage: Stage = Stage.RCPT) -> Outcome:
    return classify(stage, parse(text.encode() + b"\r\n"), echo=Echo())


def run(
    throttle: Throttle,
    wanted: Errand,
    text: str = "250 2.1.5 ok",
    stage: Stage = Stage.RCPT,
    failure: Reason | None = None,
) -> Refusal | None:
    """One whole dialogue that ends so; None if it took place."""
    held = throttle.ask(wanted)
    if isinstance(held, Refusal):
        return held
    assert held.granted
    said = None if failure else outcome(text, stage)
    throttle.learn(held, outcome=said, stage=stage, failure=failure)
    assert throttle.leave(held) == []
    return None


def asked(throttle: Throttle, errands: list[Errand]) -> list[str]:
    """What each of them is told; "" for a dialogue that took place."""
    return [refusal.kind if (refusal := run(throttle, one)) else "" for one in errands]


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "errands", "most", "kind"),
    [
        ("one domain", [errand(recipients=1)] * 20, 10, "domain"),
        (
            "many domains of one MX set",
            [errand(f"d{n}.test", destination="mx") for n in range(50)],
            30,
            "destination",
        ),
        (
            "many MX names at one address",
            [errand(f"d{n}.test", hosts=(ip_address("20.0.0.1"),)) for n in range(50)],
            30,
            "address",
        ),
        (
            "many addresses of one /24",
            [errand(f"d{n}.test", hosts=(ip_address(f"20.0.0.{n}"),)) for n in range(50)],
            30,
            "network",
        ),
        (
            "many addresses of one /48",
            [errand(f"d{n}.test", hosts=(ip_address(f"2a00:1:2:{n:x}::1"),)) for n in range(50)],
            30,
            "network",
        ),
        (
            "a named provider, at many addresses and at one",
            [errand(f"d{n}.test", provider=ROW) for n in range(60)],
            40,
            "provider",
        ),
        (
            "its own free mailboxes",
            [errand("gmail.com", provider=ROW)] * 60,
            40,
            "provider",
        ),
        ("one tenant of it", [errand("tenant.test", provider=ROW)] * 60, 10, "domain"),
    ],
)
def test_recipients_in_a_minute(name: str, errands: list[Errand], most: int, kind: str) -> None:
    throttle, clock = throttle_of()
    expected = [""] * most + [kind] * (len(errands) - most)
    assert asked(throttle, errands) == expected, name
    clock.advance(RECIPIENT_WINDOW)
    assert asked(throttle, errands) == expected, name


@pytest.mark.parametrize(
    ("name", "errands", "most"),
    [
        ("one domain", [errand()] * 3, 1),
        ("one destination", [errand(f"d{n}.test", destination="mx") for n in range(4)], 2),
        ("one site, strangers", [errand(f"d{n}.test", site="shop") for n in range(20)], 12),
        ("all strangers", [errand(f"d{n}.test", site=f"{n}") for n in range(300)], 192),
        ("a row", [errand(f"d{n}.test", provider=ROW) for n in range(9)], 3),
        (
            "one network",
            [errand(f"d{n}.test", hosts=(ip_address(f"20.0.0.{n}"),)) for n in range(4)],
            2,
        ),
    ],
)
def test_dialogues_at_the_same_time(name: str, errands: list[Errand], most: int) -> None:
    throttle, _ = throttle_of()
    passes = [throttle.ask(one) for one in errands]
    held = [one for one in passes if isinstance(one, Pass)]
    assert sum(one.granted for one in held) == most, name
    assert len(throttle.leave(held[0])) == 1, "the next one in turn"


def test_who_answered_lately_has_places_that_strangers_do_not_get() -> None:
    throttle, _ = throttle_of()
    for number in range(20):
        assert run(throttle, errand(f"good{number}.test", site="shop")) is None

    def granted(name: str) -> int:
        held = [throttle.ask(errand(f"{name}{n}.test", site="shop")) for n in range(20)]
        return sum(isinstance(one, Pass) and one.granted for one in held)

    assert granted("tarpit") == 12
    assert granted("good") == 4
    elsewhere = throttle.ask(errand("good19.test", site="another"))
    assert isinstance(elsewhere, Pass) and elsewhere.granted, "another site does not feel it"


def test_who_hangs_is_a_stranger_again() -> None:
    throttle, _ = throttle_of()
    for number in range(20):
        one = errand(f"d{number}.test", site="shop")
        assert run(throttle, one) is None
        assert run(throttle, one, stage=Stage.GREETING, failure=Reason.TIMEOUT) is None
    held = [throttle.ask(errand(f"d{n}.test", site="shop")) for n in range(20)]
    assert sum(isinstance(one, Pass) and one.granted for one in held) == 12


def test_a_practice_world_has_places_only() -> None:
    throttle = Throttle(clock=FakeClock(), practice=lambda domain: domain.endswith(".test"))
    one = errand("inbox.test", hosts=(ip_address("203.0.113.1"),))
    for _ in range(50):
        assert run(throttle, one, "550 5.1.1 no such user here") is None
        assert run(throttle, one, stage=Stage.CONNECT, failure=Reason.NO_CONNECT) is None
        assert run(throttle, one, "421 4.7.0 too many connections") is None
    held = [throttle.ask(one) for _ in range(3)]
    assert [isinstance(one, Pass) and one.granted for one in held] == [True, True, False]


def test_the_first_of_those_who_want_it_asks_the_random_recipient() -> None:
    throttle, clock = throttle_of()
    first, second = (throttle.ask(errand(recipients=2)) for _ in range(2))
    assert isinstance(first, Pass) and isinstance(second, Pass)
    assert first.control and not second.control
    accepted = outcome("250 2.1.5 ok")
    refused = outcome("550 5.1.1 no such user", Stage.CONTROL)
    throttle.learn(first, outcome=accepted, stage=Stage.RCPT, control=refused)
    throttle.leave(first)
    throttle.leave(second)
    third = throttle.ask(errand(recipients=2))
    assert isinstance(third, Pass) and not third.control, "it decided before it could know"
    throttle.leave(third)
    clock.advance(CONTROL_HELD)
    later = throttle.ask(errand(recipients=2))
    assert isinstance(later, Pass) and later.control


@pytest.mark.parametrize("text", [None, "451 4.7.1 Greylisted, try again in 300 seconds"])
def test_a_random_recipient_that_was_put_off_is_asked_again(text: str | None) -> None:
    throttle, _ = throttle_of()
    held = throttle.ask(errand(recipients=2))
    assert isinstance(held, Pass)
    control = outcome(text, Stage.CONTROL) if text else None
    throttle.learn(held, outcome=outcome("250 ok"), stage=Stage.RCPT, control=control)
    throttle.leave(held)
    again = throttle.ask(errand(recipients=2))
    assert isinstance(again, Pass) and again.control


# -- rests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "stage", "reason", "rest"),
    [
        (
            "block at the greeting",
            "554 5.7.1 blocked using zen.spamhaus.org",
            Stage.GREETING,
            Reason.PROBE_BLOCKED,
            COOL_DOWN,
        ),
        (
            "block of a tenant",
            "550 5.7.1 Client host [192.0.2.1] blocked",
            Stage.RCPT,
            Reason.PROBE_BLOCKED,
            COOL_DOWN,
        ),
        ("421", "421 4.3.2 try later", Stage.GREETING, Reason.THROTTLED, RATE_REST),
        ("421 at RCPT", "421 4.7.0 try later", Stage.RCPT, Reason.THROTTLED, RATE_REST),
        (
            "rate words",
            "450 4.7.1 too many connections from your IP",
            Stage.MAIL,
            Reason.THROTTLED,
            RATE_REST,
        ),
        (
            "too many recipients",
            "452 4.5.3 Too many recipients (AS780090)",
            Stage.RCPT,
            Reason.THROTTLED,
            RATE_REST,
        ),
        (
            "TSS04",
            "421 4.7.0 [TSS04] Messages from 192.0.2.25 temporarily deferred due to unexpected "
            "volume or user complaints",
            Stage.MAIL,
            Reason.THROTTLED,
            7200.0,
        ),
        ("greylisting", "451 4.7.1 Greylisted, try again later", Stage.RCPT, None, 0.0),
        ("greylisting by 421", "421 4.7.1 Greylisted, come back later", Stage.RCPT, None, 0.0),
        ("a busy mailbox", "450 4.2.1 this user is receiving mail too fast", Stage.RCPT, None, 0.0),
        ("a full disk", "452 4.3.1 insufficient system storage", Stage.RCPT, None, 0.0),
        ("no such user", "550 5.1.1 user unknown", Stage.RCPT, None, 0.0),
    ],
)
def test_who_is_left_alone_after_what_for_how_long(
    name: str, text: str, stage: Stage, reason: Reason | None, rest: float
) -> None:
    throttle, clock = throttle_of()
    assert run(throttle, errand(), text, stage) is None
    assert run(throttle, errand("b.test")) is None, "others are not concerned"
    refusal = throttle.ask(errand())
    if reason is None:
        assert isinstance(refusal, Pass), name
        return
    assert isinstance(refusal, Refusal) and refusal.reason is reason, name
    clock.advance(rest - 0.1)
    assert isinstance(throttle.ask(errand()), Refusal), name
    clock.advance(0.1)
    held = throttle.ask(errand())
    assert isinstance(held, Pass), name
    assert throttle.ask(errand()) == refusal, "one tries, the others wait for what comes of it"
    throttle.learn(held, outcome=outcome("250 ok"), stage=Stage.RCPT)
    throttle.leave(held)
    assert run(throttle, errand()) is None


def test_a_try_that_told_nothing_leaves_it_to_the_next() -> None:
    throttle, clock = throttle_of()
    run(throttle, errand(), "421 4.3.2 busy", Stage.GREETING)
    clock.advance(RATE_REST)
    assert run(throttle, errand(), stage=Stage.EHLO, failure=Reason.TIMEOUT) is None
    assert isinstance(throttle.ask(errand()), Pass)


def test_who_waited_while_the_rest_began_is_told() -> None:
    throttle, _ = throttle_of()
    first, waiting = throttle.ask(errand()), throttle.ask(errand())
    assert isinstance(first, Pass) and isinstance(waiting, Pass)
    assert throttle.refusal(errand()) is None
    throttle.learn(first, outcome=outcome("421 busy", Stage.GREETING), stage=Stage.GREETING)
    assert throttle.leave(first) == [waiting.ticket.number]
    assert throttle.refusal(errand()) == Refusal(Reason.THROTTLED, "busy")


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


def test_a_refusal_at_rcpt_rests_the_domain_and_leaves_its_neighbours_alone() -> None:
    throttle, _ = throttle_of()
    throttle.blocked("x", "one.example")
    assert throttle.resting("x", "one.example") == COOL_DOWN
    assert throttle.resting("x", "two.example") == 0.0


def test_the_third_domain_refused_rests_them_all() -> None:
    throttle, _ = throttle_of()
    for number in range(3):
        assert throttle.resting("x", "another.example") == 0.0
        throttle.blocked("x", f"{number}.example")
    assert throttle.resting("x", "another.example") == COOL_DOWN


def test_a_welcome_between_them_starts_the_count_anew() -> None:
    throttle, _ = throttle_of()
    for number in range(5):
        throttle.blocked("x", f"{number}.example")
        throttle.welcomed("x", "good.example")
    assert throttle.resting("x", "another.example") == 0.0
    assert throttle.resting("x", "4.example") == COOL_DOWN


def test_a_domain_that_is_searched_for_users_is_left_alone() -> None:
    throttle, clock = throttle_of(domain_recipients=100)
    said = [run(throttle, errand(), "550 5.1.1 no such user") for _ in range(8)]
    assert said == [None] * 5 + [Refusal(Reason.THROTTLED, "harvest")] * 3
    assert run(throttle, errand("b.test")) is None
    clock.advance(HARVEST_REST)
    said = [run(throttle, errand(), "550 5.1.1 no such user") for _ in range(3)]
    assert said == [None] + [Refusal(Reason.THROTTLED, "harvest")] * 2


def test_mailboxes_that_are_full_or_switched_off_are_no_search() -> None:
    throttle, _ = throttle_of(domain_recipients=100)
    for text in ("552 5.2.2 mailbox full", "550 5.2.1 mailbox disabled", "451 4.3.0 later"):
        assert [run(throttle, errand(), text) for _ in range(9)] == [None] * 9


def test_hosts_that_are_down_are_dialled_twice_a_minute() -> None:
    throttle, clock = throttle_of(domain_recipients=100)
    down = {"stage": Stage.CONNECT, "failure": Reason.NO_CONNECT}
    dials = []
    for second in range(300):
        if run(throttle, errand(), **down) is None:  # type: ignore[arg-type]
            dials.append(second)
        clock.advance(1.0)
    assert dials == [0, *range(1, 300, int(DOWN_TRY))]
    assert run(throttle, errand()) == Refusal(Reason.NO_CONNECT, "down")
    clock.advance(DOWN_TRY)
    assert [run(throttle, errand()) for _ in range(3)] == [None] * 3


def test_a_closed_port_stops_everything_aloud() -> None:
    said: list[str] = []
    clock = FakeClock()
    watch = Watch(
        stopped=lambda why: said.append(f"stopped {why}"),
        resumed=lambda why: said.append(f"resumed {why}"),
    )
    throttle = Throttle(clock=clock, watch=watch)
    for number in range(5):
        run(
            throttle,
            errand(f"d{number}.test"),
            stage=Stage.CONNECT,
            failure=Reason.NO_CONNECT,
        )
    assert said == ["stopped shut"] and throttle.stopped == "shut"
    assert run(throttle, errand("x.test")) == Refusal(Reason.PROBE_OFF, "shut")
    clock.advance(PORT_REST)
    assert run(throttle, errand("x.test")) is None
    assert said == ["stopped shut", "resumed shut"]


def test_too_many_blocks_stop_everything_aloud() -> None:
    said: list[str] = []
    clock = FakeClock()
    watch = Watch(
        stopped=lambda why: said.append(f"stopped {why}"),
        resumed=lambda why: said.append(f"resumed {why}"),
        blocked=lambda provider: said.append(f"by {provider}"),
    )
    throttle = Throttle(clock=clock, watch=watch)
    for number in range(11):
        block = "554 5.7.1 blocked using zen.spamhaus.org"
        provider = ROW if number == 10 else None
        one = errand(f"b{number}.test", provider=provider)
        assert run(throttle, one, block, Stage.GREETING) is None
    assert said == ["by "] * 10 + ["by Named", "stopped blocked"]
    assert throttle.stopped == "blocked"
    assert run(throttle, errand("y.test")) == Refusal(Reason.PROBE_OFF, "blocked")
    clock.advance(COOL_DOWN)
    assert run(throttle, errand("y.test")) is None
    assert said[-1] == "resumed blocked"


def test_a_fault_of_our_own_teaches_nothing() -> None:
    throttle, _ = throttle_of()
    for number in range(20):
        one = errand(f"d{number}.test")
        assert run(throttle, one, stage=Stage.CONNECT, failure=Reason.THROTTLED) is None


def test_places_only_still_keep_two_dialogues_a_destination() -> None:
    throttle = Throttle(clock=FakeClock(), caps=PLACES_ONLY)
    held = [throttle.ask(errand()) for _ in range(3)]
    assert [isinstance(one, Pass) and one.granted for one in held] == [True, True, False]
