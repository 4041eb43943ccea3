"""One check, and what is remembered of it: through real DNS and SMTP servers on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gate.budget import (
    ACCEPT_ALL_EXPIRES,
    ACCEPT_ALL_FRESH,
    DELIVERABLE_EXPIRES,
    DELIVERABLE_FRESH,
    UNDELIVERABLE_EXPIRES,
)
from gate.reason import Choice, Flag
from gate.store import open_store
from gate.testing import FakeClock, HostRules
from gate.testing.zones import NXDOMAIN
from gate.trace import Trace
from tests.mailworld import SENDER, World, mail_world, site

INBOX = HostRules(users=("jane", "joe"))
CATCH_ALL = HostRules(accept_all=True)
NOWHERE = {"nowhere.example": NXDOMAIN}


def in_world(
    test: Callable[[World], Awaitable[None]], rules: HostRules = INBOX, **options: object
) -> None:
    async def main() -> None:
        async with mail_world({"inbox.example": rules}, **options) as world:  # type: ignore[arg-type]
            await test(world)

    asyncio.run(main())


def test_five_hundred_callers_share_one_dialogue() -> None:
    async def test(world: World) -> None:
        answers = await asyncio.gather(*(world.check("jane@inbox.example") for _ in range(500)))
        assert {answer.verdict.reason.value for answer in answers} == {"accepted_email"}
        assert world.hosts["inbox.example"].accepted == 1

    in_world(test)


def test_a_caller_leaves_on_time_and_the_flight_lands_without_it() -> None:
    async def test(world: World) -> None:
        started = time.monotonic()
        first = await world.check("slow-600@inbox.example", 0.15)
        assert time.monotonic() - started < 0.25
        assert (first.verdict.reason.value, first.verdict.final) == ("timeout", False)
        late = await world.checker.latest(first.id, site("shop"), wait=5)
        assert late is not None
        assert late.verdict.reason.value == "accepted_email"
        assert (await world.check("slow-600@inbox.example")).cached.mailbox is not None
        assert world.hosts["inbox.example"].accepted == 1

    in_world(test)


def test_a_cancelled_caller_does_not_end_the_flight_of_others() -> None:
    async def test(world: World) -> None:
        leaves = asyncio.create_task(world.check("slow-200@inbox.example"))
        stays = asyncio.create_task(world.check("slow-200@inbox.example"))
        await world.zones.asked()
        leaves.cancel()
        assert (await stays).verdict.reason.value == "accepted_email"

    in_world(test)


def test_a_remembered_verdict_needs_no_server() -> None:
    async def test(world: World) -> None:
        await world.check("jane@inbox.example")
        world.wall.advance(DELIVERABLE_FRESH - 1)
        again = await world.check("jane@inbox.example")
        assert again.cached.mailbox == pytest.approx(DELIVERABLE_FRESH - 1)
        assert world.hosts["inbox.example"].accepted == 1

    in_world(test)


def test_between_fresh_and_expired_the_old_answer_is_served_while_a_flight_starts_behind() -> None:
    async def test(world: World) -> None:
        await world.check("jane@inbox.example")
        world.wall.advance(DELIVERABLE_FRESH + 1)
        stale = await world.check("jane@inbox.example")
        assert stale.cached.mailbox is not None
        await world.landed()
        assert world.hosts["inbox.example"].accepted == 2
        renewed = await world.check("jane@inbox.example")
        assert renewed.cached.mailbox == 0

    in_world(test)


def test_a_failed_probe_never_overwrites_a_good_mailbox() -> None:
    async def test(world: World) -> None:
        await world.check("jane@inbox.example")
        host = world.hosts["inbox.example"]
        host.rules = dataclasses.replace(  # type: ignore[union-attr]
            INBOX, answers={"rcpt": "451 4.3.0 temporary trouble"}
        )
        world.wall.advance(DELIVERABLE_FRESH + 1)
        await world.check("jane@inbox.example")
        await world.landed()
        assert host.accepted == 2
        still = await world.check("jane@inbox.example")
        assert still.verdict.reason.value == "accepted_email"
        world.wall.advance(DELIVERABLE_EXPIRES)
        assert await world.reason("jane@inbox.example") == "deferred"

    in_world(test)


def test_two_proofs_that_contradict_each_other_settle_nothing() -> None:
    async def test(world: World) -> None:
        await world.check("jane@inbox.example")
        world.hosts["inbox.example"].rules = HostRules(users=("joe",))  # type: ignore[union-attr]
        first = await world.check("jane@inbox.example", max_age=0)
        assert first.verdict.reason.value == "accepted_email"
        world.wall.advance(1)
        assert (await world.check("jane@inbox.example", max_age=0)).verdict.reason.value == (
            "unconfirmed"
        )
        assert await world.reason("jane@inbox.example") == "rejected_email"

    in_world(test)


def test_a_mailbox_that_was_made_after_the_refusal_is_found_after_two_hours() -> None:
    async def test(world: World) -> None:
        assert await world.reason("new@inbox.example") == "rejected_email"
        world.hosts["inbox.example"].rules = HostRules(users=("new",))  # type: ignore[union-attr]
        assert await world.reason("new@inbox.example") == "rejected_email"
        world.wall.advance(UNDELIVERABLE_EXPIRES)
        assert await world.reason("new@inbox.example") == "accepted_email"

    in_world(test)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("450 4.2.0 Greylisted, try again later", "greylisted"),
        ("451 4.3.0 local error", "deferred"),
        ("550 5.7.1 blocked using zen.spamhaus.org", "probe_blocked"),
        ("552 5.2.2 mailbox full", "mailbox_full"),
        ("252 2.5.2 cannot verify", "unconfirmed"),
    ],
)
def test_nothing_uncertain_is_remembered(reply: str, reason: str) -> None:
    async def test(world: World) -> None:
        assert await world.reason("jane@inbox.example") == reason
        again = await world.check("jane@inbox.example")
        assert again.cached.mailbox is None

    in_world(test, HostRules(answers={"rcpt": reply}))


def test_a_good_domain_is_asked_for_a_random_recipient_once() -> None:
    async def test(world: World) -> None:
        for name in ("jane", "joe", "nobody"):
            await world.check(f"{name}@inbox.example")
        real, control, *later = world.recipients("inbox.example")
        assert "jane@" in real and "jane@" not in control
        assert [line.count("@inbox.example") for line in later] == [1, 1]
        assert control not in later

    in_world(test)


def test_an_accept_all_domain_is_answered_from_memory_for_everybody() -> None:
    async def test(world: World) -> None:
        first = await world.check("anyone@inbox.example")
        second = await world.check("someone-else@inbox.example")
        assert first.accept_all is True and first.cached.accept_all is None
        assert (second.verdict.reason.value, second.cached.accept_all) == ("accept_all", 0)
        assert world.hosts["inbox.example"].accepted == 1
        world.wall.advance(ACCEPT_ALL_FRESH + 1)
        assert await world.reason("third@inbox.example") == "accept_all"
        await world.landed()
        assert world.hosts["inbox.example"].accepted == 2
        world.wall.advance(ACCEPT_ALL_EXPIRES)

    in_world(test, CATCH_ALL)


def test_a_control_that_settles_nothing_is_not_asked_again_that_day() -> None:
    blocked = HostRules(users=("jane",), mailboxes={"k4w8zq2m6t0r5v9x1c3b": "550 5.7.1 blocked"})

    async def test(world: World) -> None:
        assert await world.reason("jane@inbox.example") == "unconfirmed"
        assert await world.reason("jane@inbox.example") == "unconfirmed"
        assert len(world.recipients("inbox.example")) == 3

    in_world(test, blocked)


def test_greylisting_clears_for_both_recipients_and_then_the_mailbox_is_known() -> None:
    async def test(world: World) -> None:
        first = await world.check("jane@inbox.example")
        assert first.verdict.reason.value == "greylisted"
        assert first.verdict.retry_after is not None
        await asyncio.sleep(0.06)  # the server's own clock: this is the delay that is tested
        assert await world.reason("jane@inbox.example") == "accepted_email"

    in_world(test, HostRules(users=("jane",), greylist=0.05))


def test_a_bare_refusal_counts_once_the_host_is_known_to_accept_people() -> None:
    bare = HostRules(users=("jane",), answers={})

    async def test(world: World) -> None:
        assert await world.reason("jane@inbox.example") == "accepted_email"
        world.hosts["inbox.example"].rules = HostRules(answers={"rcpt": "550 <joe@inbox.example>"})  # type: ignore[union-attr]
        assert await world.reason("joe@inbox.example") == "rejected_email"

    in_world(test, bare)


def test_a_bare_refusal_of_everybody_is_a_refusal_of_us() -> None:
    async def test(world: World) -> None:
        assert await world.reason("joe@inbox.example") == "probe_blocked"

    in_world(test, HostRules(answers={"rcpt": "550 <joe@inbox.example>"}))


def test_one_site_cannot_read_what_another_learned() -> None:
    async def test(world: World) -> None:
        await world.check("jane@inbox.example", site=site("one"))
        other = await world.check("jane@inbox.example", site=site("two"))
        assert other.cached.mailbox is None
        assert other.cached.accept_all == 0
        assert world.checker.find(other.id, site("one")) is None

    in_world(test)


def test_a_known_slip_is_suggested_and_its_server_never_dialled() -> None:
    async def main() -> None:
        async with mail_world({"gmial.com": INBOX}) as world:
            answer = await world.check("jane@gmial.com")
            assert answer.did_you_mean == "jane@gmail.com"
            assert (answer.decision.choice, answer.decision.because) == (
                Choice.WARN,
                Flag.POSSIBLE_TYPO,
            )
            assert not world.seam.dialled

    asyncio.run(main())


def test_an_address_on_the_deny_list_is_blocked_unasked() -> None:
    async def test(world: World) -> None:
        answer = await world.check("jane@inbox.example", site=site("s", deny=("inbox.example",)))
        assert answer.decision.because is Flag.BLOCKED_BY_RULE
        assert not world.zones.queries

    in_world(test)


def test_with_probing_off_the_domain_is_still_looked_up() -> None:
    async def test(world: World) -> None:
        assert await world.reason("jane@inbox.example") == "probe_off"
        assert await world.reason("jane@absent.example") == "invalid_domain"
        assert not world.seam.dialled

    in_world(test, probing=False, zones={"absent.example": NXDOMAIN})


def test_an_answer_is_kept_across_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:{tmp_path / 'gate.db'}"
        for expected in (None, 0):
            store = await open_store(url, wall=FakeClock(1_700_000_000.0), capacity=100)
            async with mail_world({"inbox.example": INBOX}, store=store) as world:
                answer = await world.check("jane@inbox.example")
                assert answer.cached.mailbox == expected
                assert world.hosts["inbox.example"].accepted == (1 if expected is None else 0)
            await store.close()
        assert b"jane" not in (tmp_path / "gate.db").read_bytes()

    asyncio.run(main())


def test_a_fault_of_our_own_lets_the_person_in() -> None:
    class Broken:
        def peek(self, key: bytes) -> bytes | None:
            raise RuntimeError("the store lost its mind")

    async def test(world: World) -> None:
        world.checker._memory._store = Broken()  # type: ignore[assignment]
        answer = await world.check("jane@inbox.example")
        assert answer.verdict.reason.value == "unexpected_error"
        assert answer.decision.choice is Choice.ALLOW

    in_world(test)


def test_an_explained_check_shows_the_dialogue_without_addresses() -> None:
    async def test(world: World) -> None:
        trace = Trace(time.monotonic)
        answer = await world.check("jane@inbox.example", trace=trace)
        shown = "\n".join(answer.trace.transcript)
        assert "C: EHLO gate.example.com" in shown
        assert "RCPT TO:<***@inbox.example>" in shown
        assert "jane" not in shown and SENDER not in shown

    in_world(test)


@pytest.mark.parametrize(
    "email", ["", "@", "jane", "jane@", "a" * 400 + "@x.example", "j\x00@x.example", "j@@x.example"]
)
def test_what_is_no_address_costs_no_look_up(email: str) -> None:
    async def test(world: World) -> None:
        assert await world.reason(email) == "invalid_email"
        assert not world.zones.queries

    in_world(test)


def test_no_address_stands_in_any_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test(world: World) -> None:
        answer = await world.check("canary-7f3a@inbox.example")
        assert "canary" not in repr(answer)

    in_world(test)
    assert "canary" not in caplog.text


# -- prefetch --------------------------------------------------------------------------------------


def test_after_a_prefetch_the_check_takes_one_round_trip_and_no_query() -> None:
    async def test(world: World) -> None:
        await asyncio.gather(*(world.checker.prefetch("inbox.example") for _ in range(5)))
        (connection,) = world.hosts["inbox.example"].connections
        assert connection.lines == ["EHLO gate.example.com"]
        queries, trips = len(world.zones.queries), connection.round_trips
        assert await world.reason("jane@inbox.example") == "accepted_email"
        assert len(world.zones.queries) == queries
        assert connection.round_trips == trips + 1
        assert world.hosts["inbox.example"].accepted == 1

    in_world(test, warm=8)


# Why a prefetch connects to nobody.
PREFETCHES: dict[str, tuple[str, dict[str, object]]] = {
    "no connection is to be kept": ("inbox.example", {"warm": 0}),
    "probing is off": ("inbox.example", {"warm": 8, "probing": False}),
    "a known slip of another domain": ("gmial.com", {"warm": 8}),
    "a domain that is none": ("no domain", {"warm": 8}),
    "a domain that does not exist": ("nowhere.example", {"warm": 8, "zones": NOWHERE}),
}


@pytest.mark.parametrize("why", PREFETCHES)
def test_a_prefetch_connects_to_nobody_where_no_question_would_follow(why: str) -> None:
    domain, options = PREFETCHES[why]

    async def test(world: World) -> None:
        await world.checker.prefetch(domain)
        assert world.hosts["inbox.example"].accepted == 0

    in_world(test, INBOX, **options)


def test_a_prefetch_connects_to_nobody_whose_accept_all_state_will_answer() -> None:
    async def test(world: World) -> None:
        await world.check("jane@inbox.example")
        (connection,) = world.hosts["inbox.example"].connections
        world.checker._prober.let_go()
        await connection.lost.wait()
        await world.checker.prefetch("inbox.example")
        assert world.hosts["inbox.example"].accepted == 1

    in_world(test, CATCH_ALL, warm=8)
