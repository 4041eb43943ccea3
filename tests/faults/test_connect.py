"""C01 to C17: connecting, and the first words."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from gate.budget import DOWN_REST
from gate.testing.forgery import MX_GOOD
from tests.faults.cases import Again, case, row
from tests.faults.ground import Case, Ground, Played, Row, ground

pytestmark = pytest.mark.timeout(180)

UNREACHABLE: Final = ("127.255.255.255", 25)
"""The broadcast address of loopback: the kernel knows no way there for TCP, and says so at once."""
SIX: Final = "2001:4860:4860::8844"


@contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """A loopback address that answers no SYN: a listener whose queue is full."""
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        yield listener.getsockname()


async def dropped(budget: float) -> Ground:
    """C02: no answer to SYN; the connect ends long before the flight."""
    with black_hole() as nowhere:
        async with ground(nowhere) as here:
            said, found = await here.found(budget)
            assert found == "no_connect"
            assert said == ("no_connect" if budget > 3.2 else "timeout")
            dialled = here.dialled
            await here.check(0.05)
            assert here.dialled > dialled
    return here


async def dead_six(budget: float) -> Ground:
    """C03: IPv6 leads nowhere, IPv4 answers."""
    with black_hole() as nowhere:
        zones = {"good.test": MX_GOOD, "mx.good.test": ["A 8.1.4.4", f"AAAA {SIX}"]}
        async with ground("accepted", zones=zones) as here:
            here.seam.add(SIX, nowhere)
            said, found = await here.found(budget)
            assert found == "accepted_email"
            assert said == found or budget < 0.35
    return here


async def down(budget: float) -> Ground:
    """C05: unreachable twice, and nobody dials it any more, until one try shows that it is back."""
    async with ground("refused", "refused") as here:
        for _ in range(2):
            assert await here.found(budget) == ("no_connect", "no_connect")
        dialled = here.dialled
        assert await here.found(budget) == ("no_connect", "no_connect")
        assert here.dialled == dialled, "a host that is known to be down is dialled"
        await here.back("accepted")
        here.advance(DOWN_REST)
        assert await here.found(budget) == ("accepted_email", "accepted_email")
    return here


async def port_closed(budget: float) -> Ground:
    """C06: nobody anywhere can be connected to, so it is us; then nobody is dialled."""
    names = [f"d{n}.test" for n in range(8)]
    zones = {name: f"MX 10 mx.{name}" for name in names}
    zones |= {f"mx.{name}": f"A 9.{n}.4.4" for n, name in enumerate(names)}
    async with ground(zones=zones) as here:
        reasons = [await here.reason(budget, f"jane@{name}") for name in names]
        assert set(reasons) == {"no_connect", "probe_off"}
        assert reasons[-1] == "probe_off"
        dialled, started = here.dialled, asyncio.get_running_loop().time()
        assert await here.reason(budget, f"joe@{names[0]}") == "probe_off"
        assert here.dialled == dialled
        assert asyncio.get_running_loop().time() - started < 0.05
    return here


async def postscreen(budget: float) -> Ground:
    """C10: it greets after six seconds: too late for the person, not for the flight behind."""
    async with ground("slow_greeting") as here:
        answer = await here.check(budget)
        assert answer.verdict.reason == "timeout"
        assert await here.promised() == 1
        assert await here.landed(answer) == "accepted_email"
        assert await here.settled() == 0
        assert await here.found(budget) == ("accepted_email", "accepted_email")
        assert here.hosts[0].accepted == 1
    return here


def no_mail_service(here: Ground) -> None:
    """C12: whoever asks is told what the host said, and draws conclusions alone."""
    assert here.answers[0].smtp == ("greeting", 521, None)


def next_one(says: str, script: str, expect: str, again: Again) -> tuple[Case, Case]:
    """A host after which the next one is asked: both alike, or the second one good."""
    return (
        case(f"{says}, both", script, script, expect=expect, again=again, calls=_two(script)),
        case(f"{says}, then a good one", script, "accepted", expect="accepted_email", again="kept"),
    )


def _two(script: str) -> tuple[int, ...] | None:
    return None if script == "refused" else (1, 1)


def broken(says: str, script: str) -> Case:
    """What speaks no SMTP; the next host is not asked: this one has seen enough of us."""
    return case(says, script, "accepted", expect="protocol_error", again="asked", calls=(1, 0))


ROWS = [
    row("C01", "RST to SYN", *next_one("refused", "refused", "no_connect", "asked")),
    row("C02", "SYN is dropped", Case("no answer at all", dropped, takes=3.2)),
    row("C03", "IPv6 leads nowhere, IPv4 answers", Case("a quarter of a second", dead_six, 0.3)),
    row(
        "C04",
        "unreachable, and the network says so",
        case("ENETUNREACH", UNREACHABLE, expect="no_connect", again="asked"),
    ),
    row("C05", "down twice in ten minutes: on the list of those", Case("and back again", down)),
    row("C06", "our own port 25 is closed", Case("eight networks", port_closed)),
    row(
        "C07",
        "silence",
        case("accepts and waits", "silent", expect="timeout", again="asked", takes=8),
    ),
    row("C08", "closes at once", *next_one("FIN", "accept_close", "no_connect", "asked")),
    row(
        "C09",
        "RST behind one octet",
        *next_one("RST", "reset_after_one_byte", "no_connect", "asked"),
    ),
    row("C10", "greets after six seconds", Case("postscreen", postscreen, takes=6.5)),
    row(
        "C11",
        "a first line to tempt those who do not wait for the last one",
        case("0.4 s between", "teaser_banner", expect="accepted_email", again="kept", takes=0.4),
    ),
    row(
        "C12",
        "554 or 521 in the greeting: refuses us, and never a word about a mailbox",
        *next_one("554", "banner_554", "probe_blocked", "rests"),
        *next_one("521", "banner_521", "probe_blocked", "rests"),
        case(
            "521, which is told (RFC 7504)",
            "banner_521",
            expect="probe_blocked",
            again="rests",
            look=no_mail_service,
        ),
    ),
    row(
        "C13",
        "421 or 450 in the greeting; after 421 it is left alone (probing.md 5)",
        *next_one("421", "banner_421", "deferred", "throttled"),
        *next_one("450", "banner_450", "deferred", "asked"),
    ),
    row(
        "C14",
        "our address is on a block list",
        *next_one("554", "banner_blocked", "probe_blocked", "rests"),
    ),
    row(
        "C15",
        "greetings of any size and shape",
        broken("ten thousand octets in a line", "banner_long_line"),
        broken("a million lines", "banner_endless"),
        broken("a gigabyte without a line", "banner_no_line_end"),
        broken("NUL", "banner_nul"),
        case("bare LF", "banner_bare_lf", expect="accepted_email", again="kept"),
    ),
    row(
        "C16",
        "something else on port 25",
        broken("HTTP", "http"),
        broken("SSH", "ssh"),
        broken("TLS", "tls_first"),
        broken("noise", "noise"),
    ),
    row(
        "C17",
        "it greets with our own name",
        case("ourselves", "own_banner", expect="mx_unroutable", again="asked", calls=(1,)),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_connecting(row: Row, played: Played) -> None:
    played.passed(row)
