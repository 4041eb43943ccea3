"""Port 25: can mail hosts be reached from each egress address?

Many providers of machines and of lines close it to the outside, most of them by dropping packets.
Some hosts that are meant to be reached by anybody are greeted and left at once with QUIT; nothing
is asked of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, cast

from gate.budget import DOCTOR_CONNECT, GREETING, QUIT_LINGER, Deadline
from gate.dns import Resolver
from gate.doctor.face import Face
from gate.doctor.finding import Finding, Topic, listed
from gate.doctor.names import SEE_DNS
from gate.egress import Dialer, IPAddress, NoConnect, Source, Unroutable
from gate.reason import RemoteProtocolError
from gate.smtp.command import command
from gate.smtp.reply import Reply, ReplyReader

NAME: Final = "port-25"
WHY: Final = "without it no mail host can be asked, and every check ends as probe_off or no_connect"
TARGETS: Final = ("gmail.com", "outlook.com", "icloud.com")
"""Their MX are meant to be reached by anybody; a provider that closes port 25 closes these too."""
OPEN_IT: Final = (
    "ask your provider to open outbound port 25 (many do for customers who ask), use an egress "
    "address of another provider, or send through a SOCKS5 proxy where it is open"
)


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of greeting one target. `trouble`: why there was no greeting."""

    target: str
    greeting: Reply | None = None
    trouble: str = ""
    looked_up: bool = True
    local: str = ""
    """The address of this machine that was used."""


async def check(
    faces: Sequence[Face],
    targets: Sequence[str],
    resolver: Resolver,
    dialer: Dialer,
    deadline: Deadline,
) -> list[Finding]:
    """Greet every target from every egress address."""
    hosts = await asyncio.gather(*(_hosts(target, resolver, deadline) for target in targets))
    findings = []
    for face in faces:
        visits = await asyncio.gather(
            *(
                _visit(target, found, face.source, dialer, deadline)
                for target, found in zip(targets, hosts, strict=True)
            )
        )
        findings.append(judge(face, visits))
    return findings


async def _hosts(target: str, resolver: Resolver, deadline: Deadline) -> tuple[IPAddress, ...]:
    """The addresses of a target: of its first MX, or its own if it is an IP address."""
    try:
        return (ip_address(target),)
    except ValueError:
        route = await resolver.route(target, deadline)
        return next((host.addresses for host in route.hosts if host.addresses), ())


async def _visit(
    target: str,
    addresses: Sequence[IPAddress],
    source: Source,
    dialer: Dialer,
    deadline: Deadline,
) -> Visit:
    if not addresses:
        return Visit(target, trouble="its MX could not be looked up", looked_up=False)
    caller = _Caller()
    try:
        await dialer.dial(
            lambda: caller, addresses, source=source, deadline=deadline.cap(DOCTOR_CONNECT)
        )
    except (NoConnect, Unroutable) as error:
        return Visit(target, trouble=str(error))
    try:
        async with asyncio.timeout(min(GREETING, deadline.left())):
            return Visit(target, await caller.greeting, local=caller.local)
    except TimeoutError:
        return Visit(target, trouble="connected, but was not greeted", local=caller.local)
    except RemoteProtocolError as error:
        return Visit(target, trouble=f"no mail server: {error}", local=caller.local)
    finally:
        await caller.leave()


class _Caller(asyncio.Protocol):
    """Waits for a greeting, says QUIT and closes."""

    def __init__(self) -> None:
        self.greeting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.local = ""
        self._reader = ReplyReader()
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.local = str(transport.get_extra_info("sockname")[0])

    def data_received(self, data: bytes) -> None:
        if self.greeting.done():
            self._abort()
            return
        try:
            replies = self._reader.feed(data)
        except RemoteProtocolError as error:
            self.greeting.set_exception(error)
            return
        if replies:
            self.greeting.set_result(replies[0])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.greeting.done():
            self.greeting.set_exception(RemoteProtocolError("it closed without a greeting"))
        self._gone.set()

    async def leave(self) -> None:
        """Say QUIT if somebody is there, and close, at the latest QUIT_LINGER later."""
        if self._transport is None:
            return
        if self.greeting.done() and not self.greeting.cancelled() and not self._gone.is_set():
            if self.greeting.exception() is None:
                self._transport.write(command("QUIT"))
            try:
                async with asyncio.timeout(QUIT_LINGER):
                    await self._gone.wait()
            except TimeoutError:
                pass
        self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def judge(face: Face, visits: Sequence[Visit]) -> Finding:
    """What the visits from one egress address mean together. Pure."""
    topic = Topic(NAME, WHY, face.label)
    greeted = [visit for visit in visits if visit.greeting is not None]
    welcome = [v for v in greeted if v.greeting is not None and v.greeting.code < 400]
    if welcome:
        names = listed(visit.target for visit in welcome)
        local = f" (from {welcome[0].local})" if face.source.ip is None else ""
        return topic.ok(f"open: greeted by {names}{local}")
    if greeted:
        return _turned_away(topic, greeted[0])
    reached = [visit for visit in visits if visit.looked_up]
    if not reached:
        return topic.skipped(
            "no mail host could be looked up to try",
            f"{SEE_DNS}; or name a host by its address: --target <IP>",
        )
    return _unreached(topic, face, reached)


def _turned_away(topic: Topic, visit: Visit) -> Finding:
    """Somebody answers, and does not want us."""
    assert visit.greeting is not None
    said = f"{visit.greeting.code} {visit.greeting.text}"[:200]
    return topic.problem(
        f"open, but {visit.target} turns this address away at the greeting: {said}",
        "mend the names and block lists first (see those checks)",
    )


def _unreached(topic: Topic, face: Face, visits: Sequence[Visit]) -> Finding:
    """Nobody was reached: the kind of failure says who prevents it."""
    troubles = {visit.trouble for visit in visits}
    names = listed(visit.target for visit in visits)
    trouble = visits[0].trouble
    if all("assign requested address" in one for one in troubles):
        return topic.problem(
            f"{face.source.ip} is no address of this machine",
            "set egress.address.ip to an address that `ip address` shows, or remove it",
        )
    if all("unreachable" in one for one in troubles):
        return topic.problem(
            f"no way to {names}: {trouble}", "connect this machine to the internet (ip route)"
        )
    if all("timed out" in one for one in troubles):
        return topic.problem(f"closed by your provider, it seems: {names} timed out", OPEN_IT)
    if all("refused" in one for one in troubles):
        return topic.problem(
            f"something on the way refuses for {names}: a firewall, here or at your provider",
            f"look at this machine's firewall first; then {OPEN_IT}",
        )
    return topic.problem(
        "no mail host was reached: " + "; ".join(f"{v.target}: {v.trouble}" for v in visits),
        OPEN_IT,
    )
