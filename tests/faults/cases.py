"""Cases of the usual kind: one check, one flight, one verdict, and the same check once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from gate.budget import DNS_FAILURE, DNS_NEGATIVE_MOST
from gate.checker import PROMISED
from gate.flightmetrics import BLOCKS
from gate.reason import VERDICT_OF, Reason, Result
from gate.testing.zones import Value
from tests.faults.ground import JANE, JOE, Case, Ground, Peer, Row, ground
from tests.lateworld import until

Again = Literal["kept", "kept for all", "asked", "rests", "throttled"]
"""What a second check does.

kept: the same verdict, and nobody is asked. kept for all: so is another mailbox of the domain.
asked: somebody is asked again. rests: `probe_blocked` without a dialogue. throttled: the host said
that we ask too much, and is left alone; `throttled` without a dialogue.
"""
_AT_REST: Final = {"rests": Reason.PROBE_BLOCKED, "throttled": Reason.THROTTLED}
TIMEOUT: Final = "timeout"
SHORT: Final = 0.3
Look = Callable[[Ground], None]


def row(id: str, says: str, *cases: Case) -> Row:
    return Row(id, says, cases)


def case(
    says: str,
    *hosts: Peer,
    expect: str,
    again: Again,
    dns: Mapping[str, Value] | None = None,
    tcp: bool = True,
    email: str = JANE,
    takes: float = 0.0,
    calls: tuple[int, ...] | None = None,
    look: Look | None = None,
    then: str | None = None,
) -> Case:
    """One world and what is found in it.

    `expect`: the reason. `takes`: seconds until it can be known; smaller budgets may hear
    `timeout`. `calls`: how many connections each host was given for the first check. `look` asserts
    the rest. `then`: the reason of the second check, if it is another one.
    """
    reason = Reason(expect)
    second = Reason(then) if then else reason

    async def scene(budget: float) -> Ground:
        async with ground(*hosts, zones=dns, tcp=tcp) as here:
            refusals = _refusals()
            answer = await here.check(budget, email)
            said = answer.verdict.reason.value
            promised = await here.promised()
            found = await here.landed(answer)
            _verdict(said, found, reason, takes, budget)
            assert promised == (answer.verdict.reason in PROMISED), f"{said}, promised {promised}"
            if again == "rests":
                assert _refusals() > refusals, "nobody is told that we are refused"
            if calls is not None:
                assert tuple(host.accepted for host in here.hosts) == calls
            if look is not None:
                look(here)
            await _once_more(here, again, email, second, takes)
        return here

    return Case(says, scene, takes)


def _refusals() -> float:
    """How often /metrics says that we were refused: what an alert hangs on."""
    return sum(sample.value for family in BLOCKS.collect() for sample in family.samples)


def _verdict(said: str, found: str, reason: Reason, takes: float, budget: float) -> None:
    """The row's verdict, in the end; before it was to be had, an honest `timeout`."""
    assert found == reason, f"found {found}, not {reason}; said {said}"
    early = takes >= budget
    assert said == reason or (early and said == TIMEOUT), f"said {said} of {reason}, {takes} s"
    if VERDICT_OF[reason] is not Result.UNDELIVERABLE:
        assert VERDICT_OF[Reason(said)] is not Result.UNDELIVERABLE


async def _once_more(here: Ground, again: Again, email: str, reason: Reason, takes: float) -> None:
    dialled, questions = here.dialled, len(here.questions)
    _not_remembered_for_long(here, email, reason)
    second = await here.check(SHORT, JOE if again == "kept for all" else email)
    if again == "asked":
        await until(lambda: (here.dialled, len(here.questions)) != (dialled, questions))
        if takes < SHORT / 3:
            assert await here.landed(second) == reason
        return
    assert (here.dialled, len(here.questions)) == (dialled, questions), "somebody was asked"
    expected = _AT_REST.get(again, reason)
    assert second.verdict.reason is expected, f"{second.verdict.reason} the second time"


def _not_remembered_for_long(here: Ground, email: str, reason: Reason) -> None:
    """A look-up that failed is forgotten after seconds, an absence after minutes."""
    route = here.engine.resolver.cached(email.rpartition("@")[2])
    if route is not None and route.failure is not None:
        failed = reason is Reason.DNS_ERROR
        most = DNS_FAILURE if failed else DNS_NEGATIVE_MOST
        assert route.expires - route.found_at <= most
