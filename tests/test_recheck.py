"""Re-checks: when, how, and that nothing promised is forgotten."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from gate.budget import (
    RECHECK_JITTER,
    RECHECK_KEEPS,
    RECHECK_SPACING,
    RECHECK_THROTTLED,
    RECHECK_WAITS,
    Deadline,
    steady,
)
from gate.reason import Reason
from gate.recheck import KIND, Pace, given_up, wait
from gate.settings import Settings, Site
from gate.store.file import StoreFile
from gate.testing import FakeClock, HostRules, ScriptedMta
from tests.lateworld import Late, Receiver, in_world, place, settings, trusted, until

__all__ = ["trusted"]
pytestmark = pytest.mark.usefixtures("trusted")

OTHER_SITE = Site(name="other", site_key="pk_other", secret_hash="1" * 64)
GREY = HostRules(users=("jane", "joe"), greylist=60.0)
FIRST, SECOND, THIRD = RECHECK_WAITS
LATEST = 1 + RECHECK_JITTER
EARLIEST = 1 - RECHECK_JITTER


def silent(**tables: object) -> Settings:
    """A site without webhooks."""
    return settings(webhooks=[], **tables)  # type: ignore[arg-type]


def rcpt(late: Late, domain: str = "grey.test") -> list[list[str]]:
    """What each dialogue said after EHLO, without RSET and QUIT."""
    return [
        [line for line in connection.lines if line[:4] in ("EHLO", "MAIL", "RCPT")]
        for connection in late.hosts[domain].connections
    ]


# -- when


WAITS = {
    "five minutes": (0, None, 0.5, 300),
    "five minutes at the earliest": (0, None, 0.0, 240),
    "five minutes at the latest": (0, None, 1.0, 360),
    "twenty minutes after the first answer": (1, None, 0.5, 900),
    "an hour after it": (2, None, 0.5, 2400),
    "that was all": (3, None, 0.5, None),
    "what greylisting without a number is given": (1, 300, 0.5, 900),
    "the delay that the reply names": (0, 60, 0.0, 60),
    "never before it": (2, 3600, 0.0, 3600),
    "but a little behind it": (0, 600, 1.0, 720),
    "which is no reason to go on for ever": (3, 60, 0.0, None),
}


@pytest.mark.parametrize(("rounds", "named", "chance", "seconds"), WAITS.values(), ids=WAITS)
def test_when_to_ask_again(
    rounds: int, named: int | None, chance: float, seconds: float | None
) -> None:
    assert wait(rounds, named, chance) == seconds


def test_what_is_said_in_the_end() -> None:
    assert given_up(Reason.GREYLISTED) is given_up(Reason.DEFERRED) is Reason.DEFERRED
    assert given_up(Reason.TIMEOUT) is Reason.TIMEOUT, "nobody there put us off"


def test_turns_at_one_destination_are_apart_and_kept() -> None:
    """D5: a thousand at once come one after the other, and each has to come back once at most."""
    pace, now = Pace(), 1000.0
    names = [b"%d" % number for number in range(1000)]
    turns = [pace.turn(name, "mx.grey.test", now) for name in names]
    assert turns == [now + RECHECK_SPACING * number for number in range(1000)]
    assert pace.turn(b"elsewhere", "mx.other.test", now) == now
    for name, turn in zip(names[1:], turns[1:], strict=True):
        assert pace.turn(name, "mx.grey.test", turn) == turn, "its own turn"


# -- what is asked, and what becomes of it


def test_a_greylisted_address_is_let_in_and_the_check_knows() -> None:
    """R19, and that it is never early."""

    async def test(late: Late) -> None:
        first = await late.check("jane@grey.test")
        assert (first.verdict.reason.value, first.verdict.final) == ("greylisted", False)
        assert await late.later(59.0) == (0, 0), "the reply named sixty seconds"
        assert late.dialogues("grey.test") == 1
        assert await late.latest(first.id) == "greylisted"
        assert await late.later(60 * LATEST - 59) == (1, 1)
        assert await late.latest(first.id) == "accepted_email!"
        assert await late.reason("jane@grey.test") == "accepted_email"
        assert late.dialogues("grey.test") == 2

    in_world(test, {"grey.test": GREY})


def test_it_comes_back_as_the_same_one() -> None:
    """Greylisting counts (address, sender, recipient): all of them stay, the control's too."""

    async def test(late: Late) -> None:
        await late.check("jane@grey.test")
        await late.later(80)
        first, second = rcpt(late)
        assert first == second
        assert len([line for line in first if line.startswith("RCPT")]) == 2
        peers = {connection.peer[0] for connection in late.hosts["grey.test"].connections}
        assert len(peers) == 1

    in_world(test, {"grey.test": dataclasses.replace(GREY, greylist_unknown=True)})


def test_without_a_number_it_is_five_twenty_and_sixty_minutes_and_then_deferred() -> None:
    """R20: three times, and no more."""
    rules = HostRules(answers={"rcpt": "450 4.2.0 Greylisted, try again later"})

    async def test(late: Late) -> None:
        check = await late.check("jane@grey.test")
        for number, seconds in enumerate(RECHECK_WAITS, 1):
            assert await late.later(seconds * EARLIEST - 1) == (0, 0)
            assert late.dialogues("grey.test") == number
            assert await late.latest(check.id) == "greylisted"
            rechecked, _ = await late.later(seconds * (LATEST - EARLIEST) + 1)
            assert rechecked == 1
        assert await late.latest(check.id) == "deferred!"
        assert await late.later(RECHECK_KEEPS) == (0, 0)
        assert late.dialogues("grey.test") == 4
        (told,) = late.hook.received
        assert told.data["first"] == {"result": "unknown", "reason": "greylisted"}
        assert (told.data["result"], told.data["reason"]) == ("unknown", "deferred")

    in_world(test, {"grey.test": rules})


QUEUED = {
    "R17": ("450 4.1.1 unverified recipient", True),
    "R18": ("451 4.7.1 Greylisted, try again in 300 seconds", True),
    "R21": ("450 4.3.2 Service currently unavailable", True),
    "R22": ("451 4.3.0 local error", True),
    "R07": ("550 5.1.1 user unknown", False),
    "R10": ("550 5.7.1 blocked using zen.spamhaus.org", False),
    "R11": ("554 5.7.1 relay access denied", False),
    "R16": ("552 5.2.2 mailbox full", False),
}


@pytest.mark.parametrize(("reply", "queued"), QUEUED.values(), ids=QUEUED)
def test_which_replies_are_asked_about_again(reply: str, queued: bool) -> None:
    async def test(late: Late) -> None:
        answer = await late.check("jane@grey.test")
        assert answer.verdict.final is not queued
        depth = await late.engine.store.depth()
        assert depth.get((KIND, False), 0) == queued

    in_world(test, {"grey.test": HostRules(answers={"rcpt": reply})}, config=silent())


@pytest.mark.parametrize(
    ("reply", "earliest"),
    [
        ("451 4.7.1 Greylisted for 20 minutes", 1200.0),
        ("450 4.2.0 please try again in 90 seconds", 90.0),
        ("450 4.2.0 try again in 5 seconds", 300.0 * EARLIEST),
        ("450 4.2.0 try again in 5 hours", 300.0 * EARLIEST),
    ],
)
def test_the_delay_that_a_reply_names(reply: str, earliest: float) -> None:
    async def test(late: Late) -> None:
        await late.check("jane@grey.test")
        due = (await late.engine.store.dues(KIND, ["shop"]))["shop"]
        assert earliest <= due - late.clock() <= earliest * LATEST / min(1, earliest / 300)

    in_world(test, {"grey.test": HostRules(answers={"rcpt": reply})}, config=silent())


def test_a_slow_host_is_given_the_time_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """C10: a host that greets later than a flight waits is heard out by the re-check."""
    monkeypatch.setattr("gate.smtp.session.GREETING", 0.2)
    monkeypatch.setattr("gate.smtp.session.COMMAND", 0.2)
    script = """
        *pause 0.5
        S: 220 mx.grey.test
        C: EHLO *
        S: 250 mx.grey.test
        *rest 550 5.1.1 unknown
    """

    async def test(late: Late) -> None:
        check = await late.check("jane@grey.test")
        assert check.verdict.reason is Reason.TIMEOUT
        assert await late.later(FIRST * LATEST) == (1, 1)
        assert await late.latest(check.id) == "rejected_email!"
        (told,) = late.hook.received
        assert told.data["first"]["reason"] == "timeout"
        assert told.data["reason"] == "rejected_email"

    in_world(test, {"grey.test": ScriptedMta(script)})


def test_a_flight_that_lands_behind_its_caller_tells_what_it_found() -> None:
    async def test(late: Late) -> None:
        check = await late.check("slow-400@grey.test", 0.1)
        assert check.verdict.reason is Reason.TIMEOUT
        assert await late.latest(check.id, wait=5) == "accepted_email!"
        await until(lambda: late.hook.received, late.engine.outbox.round)
        (told,) = late.hook.received
        assert (told.data["check"], told.data["reason"]) == (check.id, "accepted_email")
        assert await late.later(RECHECK_KEEPS) == (0, 0)
        assert late.dialogues("grey.test") == 1

    in_world(test, {"grey.test": HostRules(users=("jane",))})


def test_a_hundred_who_wait_for_one_address_are_served_by_one_dialogue() -> None:
    async def test(late: Late) -> None:
        checks = await asyncio.gather(*(late.check("jane@grey.test") for _ in range(100)))
        assert late.dialogues("grey.test") == 1
        assert await late.later(72) == (1, 100)
        assert late.dialogues("grey.test") == 2
        assert {await late.latest(check.id) for check in checks} == {"accepted_email!"}
        assert {told.data["check"] for told in late.hook.received} == {c.id for c in checks}
        assert len({told.id for told in late.hook.received}) == 100

    in_world(test, {"grey.test": GREY})


def test_whoever_finds_it_out_settles_it() -> None:
    """Another check of the address, before the re-check is due."""

    async def test(late: Late) -> None:
        first = await late.check("jane@grey.test")
        late.clock.advance(60)
        assert await late.reason("jane@grey.test") == "accepted_email"
        await until(lambda: late.hook.received, late.engine.outbox.round)
        assert [told.data["check"] for told in late.hook.received] == [first.id]
        assert await late.later(RECHECK_KEEPS) == (0, 0)
        assert late.dialogues("grey.test") == 2

    in_world(test, {"grey.test": GREY})


def test_many_at_one_host_come_one_after_the_other() -> None:
    """D5: no two within two seconds."""

    async def test(late: Late) -> None:
        users = [f"u{number}@grey.test" for number in range(30)]
        for user in users:
            await late.check(user)
        due = late.dialogues("grey.test")
        late.clock.advance(300)
        moments = []
        for _ in range(200):
            before = late.dialogues("grey.test")
            await late.engine.rechecks.round()
            moments += [late.clock()] * (late.dialogues("grey.test") - before)
            late.clock.advance(0.5)
        assert late.dialogues("grey.test") == 2 * due
        gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
        assert min(gaps) >= RECHECK_SPACING

    rules = HostRules(users=[f"u{number}" for number in range(30)], greylist=200.0)
    keys = ("domain", "destination", "network")
    roomy = {f"{key}_recipients_per_minute": 1000 for key in keys}
    in_world(test, {"grey.test": rules}, config=silent(limits=roomy))


def test_a_limit_of_our_own_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one place at the destination is taken: later, as often as it takes."""
    monkeypatch.setattr("gate.smtp.admission.SLOT_SHARE", 0.001)

    async def test(late: Late) -> None:
        slow = "slow-600@grey.test"
        await late.check(slow)
        await late.later(72)  # let in from now on
        check = await late.check("jane@grey.test")
        before = late.dialogues("grey.test")
        deadline = Deadline.after(5.0, time.monotonic)
        holds = asyncio.create_task(
            late.engine.checker.check(slow, site=late.site, deadline=deadline, max_age=-1)
        )
        await until(lambda: late.dialogues("grey.test") > before)
        for _ in range(len(RECHECK_WAITS) + 2):
            late.clock.advance(RECHECK_THROTTLED + 60)
            assert await late.engine.rechecks.round() == 1
            assert await late.latest(check.id) == "greylisted"
        await holds
        assert await late.later(RECHECK_THROTTLED + 60) == (1, 1)
        assert await late.latest(check.id) == "accepted_email!"

    rules = dataclasses.replace(GREY, users=("jane",))
    in_world(test, {"grey.test": rules}, config=settings(limits={"destination_dialogues": 1}))


# -- whatever happens in between


def test_a_restart_only_delays(tmp_path: Path) -> None:
    config = settings(f"sqlite:{tmp_path / 'gate.db'}")

    async def main() -> None:
        async with place({"grey.test": GREY}) as here:
            async with here.engine(config) as late:
                check = await late.check("jane@grey.test")
            here.clock.advance(7200)
            async with here.engine(config) as late:
                assert await late.latest(check.id) == "greylisted", "found after a restart"
                stranger = await late.engine.checker.latest(check.id, OTHER_SITE, wait=0.0)
                assert stranger is None, "another site's id is nobody's"
                assert await late.later(0) == (1, 1)
                assert await late.latest(check.id) == "accepted_email!"
            async with here.engine(config) as late:
                assert await late.latest(check.id) == "accepted_email!"
                assert await late.later(0) == (0, 0)
            assert [told.data["check"] for told in here.hook.received] == [check.id]

    asyncio.run(main())


def test_what_was_given_up_is_still_known_after_a_restart(tmp_path: Path) -> None:
    """`deferred` is never remembered of a mailbox; of this check it is."""
    config = settings(f"sqlite:{tmp_path / 'gate.db'}", webhooks=[])
    rules = HostRules(answers={"rcpt": "450 4.2.0 Greylisted, try again later"})

    async def main() -> None:
        async with place({"grey.test": rules}) as here:
            async with here.engine(config) as late:
                check = await late.check("jane@grey.test")
                for seconds in RECHECK_WAITS:
                    await late.later(seconds * LATEST)
            async with here.engine(config) as late:
                assert await late.latest(check.id) == "deferred!"
                here.clock.advance(RECHECK_KEEPS)
                assert await late.latest(check.id) == "unknown check"

    asyncio.run(main())


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["ahead", "back"])
def test_a_wall_clock_that_is_set_makes_nothing_due(step: float) -> None:
    """O09: no mass retry, and nothing put off."""

    async def main() -> None:
        async with place({"grey.test": GREY}) as here:
            elapsed, wall = FakeClock(0.0), FakeClock(1_800_000_000.0)
            queue_clock = steady(elapsed, wall)
            async with here.engine(settings(), queue_clock=queue_clock, wall=wall) as late:
                check = await late.check("jane@grey.test")
                wall.advance(step)
                assert await late.engine.rechecks.round() == 0
                elapsed.advance(72)
                here.clock.advance(72)  # the host's own
                assert await late.engine.rechecks.round() == 1
                assert await late.latest(check.id) == "accepted_email!"

    asyncio.run(main())


def test_another_master_key_reads_nothing_and_the_rest_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'gate.db'}"

    async def main() -> None:
        async with place({"grey.test": GREY}) as here:
            async with here.engine(settings(url)) as late:
                await late.check("jane@grey.test")
            async with here.engine(settings(url, server={"secret": "x" * 40})) as late:
                check = await late.check("joe@grey.test")
                await late.later(300)
                assert await late.latest(check.id) == "accepted_email!"
                depth = await late.engine.store.depth()
                assert (depth.get((KIND, False), 0), depth.get((KIND, True))) == (0, 1)

    asyncio.run(main())


def test_no_address_lies_in_the_file(tmp_path: Path) -> None:
    """J2, R9: sealed for as long as it waits, and for no longer than that."""
    path = tmp_path / "gate.db"
    config = settings(f"sqlite:{path}", webhooks=[])

    def held() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.glob("gate.db*"))

    async def main() -> None:
        rules = HostRules(users=("canary-7f3a",), greylist=60.0)
        async with place({"secret-place.test": rules}) as here:
            async with here.engine(config) as late:
                await late.check("canary-7f3a@secret-place.test")
                (kept,) = await late.engine.store.lease(
                    KIND, {"shop": 1}, now=late.clock() + 9999, until=late.clock() + 9999
                )
                assert kept.job.payload in held(), "it was looked for in the right place"
                for secret in (b"canary", b"secret-place"):
                    assert secret not in held()
        for secret in (b"canary", b"secret-place"):
            assert secret not in held()

    asyncio.run(main())


def test_the_answer_waits_for_the_disk_but_not_beyond_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O05: what could not be made sure of is not said; it is promised a moment later."""
    config = settings(f"sqlite:{tmp_path / 'gate.db'}")
    seconds = [0.0]
    write = StoreFile.write

    def slow(self: StoreFile, *args: object) -> object:
        time.sleep(seconds[0])
        return write(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(StoreFile, "write", slow)

    async def main() -> None:
        async with place({"grey.test": GREY}) as here, here.engine(config) as late:
            seconds[0] = 1.0
            started = time.monotonic()
            check = await late.check("jane@grey.test", 0.4)
            assert time.monotonic() - started < 0.6
            assert check.verdict.reason is Reason.TIMEOUT
            seconds[0] = 0.0
            assert await late.later(72) == (1, 1)
            assert await late.latest(check.id) == "accepted_email!"

    asyncio.run(main())


def test_a_broken_disk_loses_nobody_their_answer(tmp_path: Path) -> None:
    """L4, O04: said without being promised, and the gate says that it forgets."""
    path = tmp_path / "gate.db"
    config = settings(f"sqlite:{path}")

    async def main() -> None:
        async with place({"grey.test": GREY}) as here, here.engine(config) as late:
            path.unlink()
            checks = [await late.reason(f"{name}@grey.test") for name in ("jane", "joe")]
            assert checks == ["greylisted", "greylisted"]

    asyncio.run(main())


def test_a_lane_that_is_full_says_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gate.store.queue.LANE_MOST", 1)

    async def test(late: Late) -> None:
        assert await late.reason("jane@grey.test") == "greylisted"
        assert await late.reason("joe@grey.test") == "greylisted"
        assert (await late.engine.store.depth())[KIND, False] == 1

    in_world(test, {"grey.test": GREY}, config=silent())


def test_the_worker_wakes_by_itself(tmp_path: Path) -> None:
    """In real time: started, it finds what is due, and delivers it."""

    async def main() -> None:
        hook = Receiver()
        async with place({"grey.test": dataclasses.replace(GREY, greylist=0.1)}, hook) as here:
            fast = steady(lambda: 1000 * time.monotonic(), here.clock)
            async with here.engine(settings(), queue_clock=fast) as late:
                late.engine.start()
                check = await late.check("jane@grey.test")
                here.clock.advance(1)  # the host's own clock

                async def shake() -> None:
                    late.engine.rechecks.wake()  # it sleeps by a clock a thousand times slower
                    await asyncio.sleep(0.005)

                await until(lambda: hook.received, shake)
                assert await late.latest(check.id) == "accepted_email!"

    asyncio.run(main())
