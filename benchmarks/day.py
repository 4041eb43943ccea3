"""A day of signups against mail servers that keep score: the throttle alone, no socket, no wait.

A model, and it says what it assumes. 100,000 people sign up in 24 hours, most of them in the
evening, each with an address nobody asked about before: six in ten at big providers, the rest at
8,000 domains of very unequal size, half of them at fifty shared hosters. One in sixteen mistypes.
Some hosts greylist, accept everybody, hang, are down, refuse us, or put us off when we come often.
At noon somebody tries 5,000 names at one domain, and 3,000 domains of one hoster, in a minute; and
500 names each where the host is easily annoyed, down, slow, or wants to know nothing of us.

Every host keeps the book of a strict postmaster (`Score`): whatever it would hold against us is a
violation. The rules are those of probing.md's good manners, in the postmaster's words.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address
from math import cos, pi
from random import Random
from typing import Any, Final

from benchmarks.postmaster import DAY, MINUTE, Host, Score, Signup
from gate.budget import (
    CONNECT,
    CONTROL_EVERY,
    FLIGHT,
    GREYLIST_RETRY,
    RECHECK_JITTER,
    RECHECK_THROTTLED,
    SLOT_SHARE,
    Clock,
)
from gate.egress import Source
from gate.reason import Reason
from gate.recheck import Pace, wait
from gate.smtp.caps import Errand
from gate.smtp.classify import Echo, Outcome, classify
from gate.smtp.dialog import Stage
from gate.smtp.provider import provider_of
from gate.smtp.reply import parse
from gate.smtp.sources import Sources
from gate.smtp.throttle import Refusal, Throttle

NOON: Final = 12 * 3600.0
BIG: Final[tuple[tuple[float, str, tuple[str, ...]], ...]] = (
    (27.0, "aspmx.l.google.com", ("gmail.com",)),
    (12.0, "hotmail-com.olc.protection.outlook.com", ("outlook.com", "hotmail.com", "live.com")),
    (5.0, "mta5.am0.yahoodns.net", ("yahoo.com", "aol.com")),
    (4.0, "mx01.mail.icloud.com", ("icloud.com",)),
    (1.5, "mx00.gmx.net", ("gmx.net", "web.de")),
    (5.0, "alt1.aspmx.l.google.com", tuple(f"team{n}.example" for n in range(600))),
    (5.5, "firm-com.mail.protection.outlook.com", tuple(f"firm{n}.example" for n in range(700))),
)
"""Share of all signups in percent, an MX host, and domains: free mailboxes, then tenants."""
OWN: Final = 8_000
HOSTERS: Final = 50
KINDS: Final = {
    "plain": 70.0,
    "accept_all": 13.0,
    "greylist": 9.0,
    "busy": 3.0,
    "dead": 2.0,
    "tarpit": 1.5,
    "blocks": 1.5,
}
"""What hosts are like, in percent."""
BUSY_MOST: Final = 3
"""Dialogues in ten minutes after which a busy host says 421."""
BIGGEST: Final = ("plain", "plain", "busy", "plain", "dead", "plain", "blocks", "plain", "tarpit")
"""What the hosts of the biggest domains are like, so that everything happens often enough."""
MISTYPED: Final = 1 / 16


@lru_cache(maxsize=100)
def meaning(stage: Stage, text: str) -> Outcome:
    return classify(stage, parse(text.encode() + b"\r\n"), echo=Echo())


class Day:
    """The simulation. `told`: how signups that somebody made ended at the form, and how soon."""

    def __init__(
        self,
        signups: int,
        *,
        seed: int = 1,
        throttle: Callable[[Clock], Throttle] = lambda clock: Throttle(clock=clock),
    ) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.score = Score()
        self.throttle = throttle(lambda: self.now)
        self.sources = Sources(
            [Source(IPv4Address(f"192.0.2.{n}"), f"g{n}.gate.example") for n in range(1, 4)],
            clock=lambda: self.now,
        )
        self.pace = Pace()
        self.told: list[tuple[str, float, bool]] = []
        """Reason, seconds, whether it is a big provider's."""
        self.settled_later = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._waiting: dict[int, tuple[Any, Signup]] = {}
        self._controls: dict[str, tuple[bool | None, float]] = {}
        self._looked_up: dict[str, float] = {}
        self._tick_at = -1.0
        self._plan(signups)

    def run(self) -> Score:
        """Live through the day, and what follows of it."""
        while self._events:
            self.now, _, what, given = heapq.heappop(self._events)
            what(*given)
        return self.score

    # -- the population --------------------------------------------------------------------------

    def _plan(self, signups: int) -> None:
        draw, chance = self.random, self.random.random
        rows = [(share, self._big(mx), domains) for share, mx, domains in BIG]
        own = self._own()
        for number in range(signups):
            at = self._moment()
            dice = chance() * 100
            for share, big, domains in rows:
                dice -= share
                if dice < 0:
                    domain, host = draw.choice(domains), big
                    break
            else:
                domain, host = own[min(int(OWN * chance() ** 3), OWN - 1)]
            self.signup(at, host, domain, f"u{number}", exists=chance() > MISTYPED)
        for number in range(2, len(BIGGEST), 2):
            for again in range(signups // 200):
                at = NOON + MINUTE * chance()
                self.signup(at, own[number][1], own[number][0], f"b{again}", wanted=False)
        victim, neighbours = own[0], [(f"x{n}.example", own[1][1]) for n in range(3_000)]
        for number in range(signups // 20):
            at = NOON + MINUTE * chance()
            self.signup(at, victim[1], victim[0], f"a{number}", exists=False, wanted=False)
        for domain, host in neighbours[: signups // 33]:
            at = NOON + MINUTE * chance()
            self.signup(at, host, domain, "jane", wanted=False)

    def signup(
        self,
        at: float,
        host: Host,
        domain: str,
        local: str,
        *,
        exists: bool = True,
        wanted: bool = True,
    ) -> None:
        """Somebody types an address of `domain`, whose mail `host` takes, at that second."""
        signup = Signup(host, domain, f"{local}@{domain}", exists, at, wanted)
        self._later(at, self._arrive, signup)

    def _moment(self) -> float:
        """A second of the day: four times as many at eight in the evening as at eight in the
        morning."""
        while True:
            at = self.random.random() * DAY
            if self.random.random() * 1.6 < 1 + 0.6 * cos(2 * pi * (at / DAY - 20 / 24)):
                return at

    def _big(self, mx: str) -> Host:
        provider = provider_of([mx])
        assert provider is not None
        ips = tuple(IPv4Address(f"20.{self.random.randrange(256)}.{n}.1") for n in range(4))
        return Host(provider.name, ips, "plain", 0.03, 0.08, provider)

    def _own(self) -> list[tuple[str, Host]]:
        """Domains, the biggest first, with their hosts: every second one at a shared hoster."""
        draw = self.random
        hosters = [
            Host(
                f"mx.hoster{n}.example",
                tuple(IPv4Address(f"30.{n}.0.{m}") for m in (1, 2)),
                "plain",
                draw.uniform(0.02, 0.15),
                draw.uniform(0.01, 0.2),
            )
            for n in range(HOSTERS)
        ]
        kinds = draw.choices(list(KINDS), weights=list(KINDS.values()), k=OWN)
        found = []
        for number, kind in enumerate(kinds):
            domain = f"own{number}.example"
            ips = (IPv4Address((40 << 24) + (number << 8) + 1),)
            alone = Host(
                f"mx.{domain}",
                ips,
                BIGGEST[number] if number < len(BIGGEST) else kind,
                draw.uniform(0.02, 0.2),
                draw.lognormvariate(-3.0, 1.0),
            )
            found.append((domain, draw.choice(hosters) if number % 2 and number > 2 else alone))
        return found

    # -- one check -------------------------------------------------------------------------------

    def _later(self, at: float, what: Callable[..., None], *given: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, what, given))

    def _arrive(self, signup: Signup) -> None:
        known = self._controls.get(signup.domain)
        if known is not None and known[0]:
            self._tell(signup, Reason.ACCEPT_ALL)
            return
        looked_up = self.now - self._looked_up.get(signup.domain, -DAY) < 3600.0
        if not looked_up:
            self._looked_up[signup.domain] = self.now
        seconds = 0.0 if looked_up else self.random.uniform(0.005, 0.12)
        self._later(self.now + seconds, self._ask, signup)

    def _ask(self, signup: Signup) -> None:
        host = signup.host
        if host.provider is not None and host.provider.accepts == "opaque":
            self._tell(signup, Reason.PROVIDER_OPAQUE)
            return
        source = self.sources.choose(host.destination)
        known = self._controls.get(signup.domain)
        may_ask = known is None or (known[0] is None and self.now - known[1] >= CONTROL_EVERY)
        if host.provider is not None and host.provider.control == "never":
            may_ask = False
        assert source is not None
        signup.source = source
        errand = Errand(
            destination=host.destination,
            identity=f"{host.destination} {source.helo} {source.ip}",
            domain=signup.domain,
            site=f"site{len(signup.address) % 3}",
            provider=host.provider,
            hosts=host.ips,
            recipients=2 if may_ask else 1,
        )
        held = self.throttle.ask(errand)
        if isinstance(held, Refusal):
            self._end(signup, held.reason)
        elif held.granted:
            self._begin(held, signup)
        else:
            self._waiting[held.ticket.number] = held, signup
            self._later(self.now + FLIGHT * SLOT_SHARE, self._give_up, held, signup)
        self._look_again()

    def _give_up(self, held: Any, signup: Signup) -> None:
        if self._waiting.pop(held.ticket.number, None):
            self._admit(self.throttle.leave(held))
            self._end(signup, Reason.THROTTLED)

    def _admit(self, numbers: list[int]) -> None:
        for number in numbers:
            held, signup = self._waiting.pop(number)
            refusal = self.throttle.refusal(held.errand)
            if refusal is None:
                self._begin(held, signup)
            else:
                self._admit(self.throttle.leave(held))
                self._end(signup, refusal.reason)
        self._look_again()

    def _look_again(self) -> None:
        due = self.throttle.due()
        if due is not None and self._waiting and self._tick_at < self.now:
            self._tick_at = max(due, self.now)
            self._later(self._tick_at, self._tick)

    def _tick(self) -> None:
        self._tick_at = -1.0
        self._admit(self.throttle.tick())

    # -- the dialogue, as the host has it --------------------------------------------------------

    def _begin(self, held: Any, signup: Signup) -> None:
        host, now = signup.host, self.now
        self.score.begins(signup, now)
        signup.begun = now
        if host.kind == "dead":
            self.score.dialled_dead(signup, now)
            self._later(now + CONNECT, self._finish, held, signup, None, Stage.CONNECT)
        elif host.kind == "tarpit":
            self._later(now + FLIGHT, self._finish, held, signup, None, Stage.GREETING)
        elif host.kind in ("blocks", "busy") and (greeting := self._greeting(host)):
            self._later(now + 2 * host.trip, self._finish, held, signup, greeting, Stage.GREETING)
        else:
            self._later(now + 3 * host.trip, self._named, held, signup)

    def _greeting(self, host: Host) -> str | None:
        if host.kind == "blocks":
            return "554 5.7.1 blocked using zen.spamhaus.org"
        host.lately.append(self.now)
        while self.now - host.lately[0] >= 600.0:
            host.lately.popleft()
        too_many = len(host.lately) > BUSY_MOST
        return "421 4.7.0 too many connections, slow down" if too_many else None

    def _named(self, held: Any, signup: Signup) -> None:
        """The recipients have arrived."""
        self.score.asked(signup, 2 if held.control else 1, self.now)
        text = self._reply(signup)
        seconds = signup.host.think + signup.host.trip
        self._later(self.now + seconds, self._finish, held, signup, text, Stage.RCPT)

    def _reply(self, signup: Signup) -> str:
        host = signup.host
        if host.kind == "greylist":
            before = host.seen.get(signup.address)
            self.score.put_off(signup, before, self.now)
            first = before[0] if before else self.now
            host.seen[signup.address] = first, self.now, str(signup.source)
            if self.now - first < GREYLIST_RETRY * (1 - RECHECK_JITTER):
                return "451 4.7.1 Greylisted, please try again later"
        if signup.exists or host.kind == "accept_all":
            return "250 2.1.5 ok"
        return "550 5.1.1 no such user here"

    def _finish(self, held: Any, signup: Signup, text: str | None, stage: Stage) -> None:
        now = self.now
        self.score.ends(signup)
        outcome = control = failure = None
        if text is None:
            failure = Reason.NO_CONNECT if stage is Stage.CONNECT else Reason.TIMEOUT
        else:
            outcome = meaning(stage, text)
        if outcome is not None and stage is Stage.RCPT and held.control:
            control = self._control(signup, outcome)
        self.throttle.learn(held, outcome=outcome, stage=stage, failure=failure, control=control)
        reason = failure or (outcome.reason if outcome else Reason.TIMEOUT)
        if text is not None and text.startswith("421"):
            self.score.sorry(signup, now)
        elif reason is Reason.PROBE_BLOCKED:
            self.score.block(signup, now)
        elif reason is Reason.REJECTED_EMAIL:
            self.score.refused(signup, now)
        self._admit(self.throttle.leave(held))
        self._end(signup, reason, outcome)

    def _control(self, signup: Signup, real: Outcome) -> Outcome:
        """What the random recipient was answered: put off like the real one, else on its own."""
        if real.reason is Reason.GREYLISTED:
            return meaning(Stage.CONTROL, "451 4.7.1 Greylisted, please try again later")
        accepts = signup.host.kind == "accept_all"
        self._controls[signup.domain] = accepts, self.now
        self.score.control(signup.domain, self.now)
        return meaning(Stage.CONTROL, "250 2.1.5 ok" if accepts else "550 5.1.1 no such user here")

    # -- what becomes of it ----------------------------------------------------------------------

    def _end(self, signup: Signup, reason: Reason, outcome: Outcome | None = None) -> None:
        self._tell(signup, reason)
        throttled = reason is Reason.THROTTLED and signup.rounds > 0
        if throttled and self.now - signup.at < DAY / 4:
            self._later(self.now + RECHECK_THROTTLED, self._again, signup)
        elif reason in (Reason.GREYLISTED, Reason.DEFERRED, Reason.TIMEOUT):
            retry_after = outcome.retry_after if outcome else None
            seconds = wait(signup.rounds, retry_after, self.random.random())
            if seconds is not None:
                signup.rounds += 1
                self._later(self.now + seconds, self._again, signup)
        elif signup.rounds:
            self.settled_later += 1

    def _again(self, signup: Signup) -> None:
        turn = self.pace.turn(signup.address.encode(), signup.host.destination, self.now)
        if turn > self.now:
            self._later(turn, self._again, signup)
        else:
            self._ask(signup)

    def _tell(self, signup: Signup, reason: Reason) -> None:
        if signup.wanted and not signup.rounds:
            big = signup.host.provider is not None
            self.told.append((reason.value, self.now - signup.at, big))
