"""Throttle: whether an errand may be run now, has to wait, or not at all. Pure; the clock is passed
in.

What it promises, whatever strangers type, resolve to or answer:
  1. The figures of `Caps` are never exceeded, for any key, in any minute (places.py).
  2. Who refuses us rests: five minutes, then ten, up to three hours. A refusal at RCPT may be one
     tenant's policy, so it rests that domain; the third domain refused so, with nobody welcomed
     between, rests the whole *identity*: a destination with the source address and HELO it saw.
  3. A destination that says 421, or that we ask too fast, rests; a domain that is searched for
     users rests (harvest.py); hosts that are down are not dialled (breaker.py).
  4. When too many refuse us, or nobody can be connected to, nobody is asked.
  5. Every rest ends with one try, and a try that succeeds ends it.
  6. Destinations that did not answer lately hold three quarters of the places at most.
  7. The random recipient of a domain is asked by one dialogue, not by all that wanted to.

It decides and does not wait: `ask` gives a ticket that is granted or queued, or says why not;
`learn`, before `leave`, what came of it. The waiting itself is admission's.

Bugs: what was counted and learnt is forgotten at a restart, and of several processes each counts
for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from gate.budget import ANSWERED_LATELY, CONTROL_HELD, COOL_DOWN, COOL_DOWN_MOST, RATE_REST, Clock
from gate.reason import Reason, Scope
from gate.smtp.breaker import ALL, Blocked, Downs, Shut
from gate.smtp.caps import PLACES_ONLY, Caps, Errand, claims, network_of
from gate.smtp.classify import Outcome
from gate.smtp.dialog import Stage
from gate.smtp.harvest import Harvest
from gate.smtp.places import Full, Places, Ticket
from gate.smtp.rests import RESTING_MOST, Rests
from gate.smtp.rules import RULES

__all__ = ["Caps", "Errand", "Pass", "Refusal", "Throttle", "Watch"]

DOMAINS_REFUSED: Final = 3
"""So many domains refused at RCPT, and it is us whom the host refuses, not a tenant's policy."""
_SETTLED: Final = frozenset(
    {Reason.ACCEPTED_EMAIL, Reason.REJECTED_EMAIL, Reason.MAILBOX_DISABLED, Reason.MAILBOX_FULL}
)
"""What is said of a mailbox for good."""
_PUT_OFF: Final = frozenset({Reason.GREYLISTED, Reason.DEFERRED})
"""Answers to the random recipient after which it has to be asked again."""
_GREYLISTING: Final = frozenset(row.id for row in RULES.rows if row.step == "greylist-named")
"""Rows of texts that call themselves greylisting: to come back soon is what they ask for."""
_OURS: Final = frozenset({Reason.THROTTLED, Reason.UNEXPECTED_ERROR})
"""Failures that say nothing of the peer."""

Stop = Literal["blocked", "shut"]
"""Why nobody is asked: too many refused us, or our port 25 is closed."""


class Refusal(NamedTuple):
    """Not now: for this reason, and by this kind of limit or rest (a closed set of words)."""

    reason: Reason
    kind: str


_HALTED: Final = Refusal(Reason.PROBE_OFF, "halted")


_SHUT: Final = Refusal(Reason.PROBE_OFF, "shut")
_BLOCKED: Final = Refusal(Reason.PROBE_OFF, "blocked")
_COOL: Final = Refusal(Reason.PROBE_BLOCKED, "cool-down")
_BUSY: Final = Refusal(Reason.THROTTLED, "busy")
_HARVEST: Final = Refusal(Reason.THROTTLED, "harvest")
_DOWN: Final = Refusal(Reason.NO_CONNECT, "down")


class _Gate(NamedTuple):
    rests: Rests
    name: str
    refusal: Refusal


@dataclass(slots=True, eq=False)
class Pass:
    """A ticket with the errand it is for. `control`: the random recipient may be asked, too."""

    errand: Errand
    ticket: Ticket
    control: bool
    tries: tuple[_Gate, ...]

    @property
    def granted(self) -> bool:
        return self.ticket.granted


def _ignore(_: object) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who wants to know what: for metrics, and to say it aloud. All are called at once.

    `stopped`, `resumed`: nobody, or everybody, may be asked as of now. `blocked`: a dialogue was
    refused, at the provider of this name ("" for all others). `refused`: the kind of limit or rest
    that somebody was refused by. `waited`: seconds that somebody waited for a place, even in vain.
    """

    stopped: Callable[[Stop], None] = _ignore
    resumed: Callable[[Stop], None] = _ignore
    blocked: Callable[[str], None] = _ignore
    refused: Callable[[str], None] = _ignore
    waited: Callable[[float], None] = _ignore


class Throttle:
    """Limits, rests and breakers of one process."""

    def __init__(
        self,
        *,
        clock: Clock,
        caps: Caps | None = None,
        practice: Callable[[str], bool] = lambda domain: False,
        halted: Callable[[], object] = lambda: None,
        watch: Watch | None = None,
    ) -> None:
        """`practice`: domains of a practice world, which have places and cool-downs only.
        `halted`: whether the operator wants nobody asked, as of now.
        """
        self._clock = clock
        self._caps = caps or Caps()
        self._practice = practice
        self.halted = halted
        self.watch = watch or Watch()
        self._places = Places(clock)
        self._cool = Rests(clock, first=COOL_DOWN, most=COOL_DOWN_MOST, forgotten=COOL_DOWN_MOST)
        self._busy = Rests(clock, first=RATE_REST, most=RATE_REST, forgotten=RATE_REST)
        self._harvest = Harvest(clock)
        self._downs, self._shut, self._blocked = Downs(clock), Shut(clock), Blocked(clock)
        self._refused: OrderedDict[str, set[str]] = OrderedDict()
        self._controls: OrderedDict[str, float] = OrderedDict()
        self._answered: OrderedDict[str, float] = OrderedDict()

    def __repr__(self) -> str:
        return (
            f"<Throttle {self._places.taken}/{self._caps.dialogues} running, "
            f"{self._places.waiting} waiting, {len(self._cool)} refused us>"
        )

    @property
    def stopped(self) -> Stop | None:
        """Why nobody is asked, if so."""
        if ALL in self._shut.rests:
            return "shut"
        return "blocked" if ALL in self._blocked.rests else None

    def now(self) -> float:
        """The time it goes by."""
        return self._clock()

    # -- asking --------------------------------------------------------------------------------

    def ask(self, errand: Errand) -> Pass | Refusal:
        """A pass that is granted or queued; a refusal if waiting would be of no use."""
        if self.halted():
            return _HALTED
        caps = self._caps_of(errand)
        gates = tuple(self._gates(errand))
        for gate in gates:
            if gate.rests.refuses(gate.name):
                return gate.refusal
        control = errand.recipients > 1 and self._may_control(errand.domain)
        recipients = errand.recipients if control else min(errand.recipients, 1)
        wanted = claims(errand, caps, stranger=self._is_stranger(errand))
        ticket = self._places.ask(wanted, recipients)
        if isinstance(ticket, Full):
            return Refusal(Reason.THROTTLED, ticket.kind)
        if control:
            self._controls[errand.domain] = float("inf")
        tries = tuple(gate for gate in gates if gate.rests.attempt(gate.name))
        return Pass(errand, ticket, control, tries)

    def refusal(self, errand: Errand) -> Refusal | None:
        """Why it may not be run any more, for what was learnt while it waited."""
        if self.halted():
            return _HALTED
        for gate in self._gates(errand):
            if gate.rests.left(gate.name):
                return gate.refusal
        return None

    def again(self, held: Pass) -> bool:
        """Whether one more dialogue may follow inside this place: with the next host, or anew."""
        return not self.halted() and self._places.again(held.ticket, 2 if held.control else 1)

    def leave(self, held: Pass) -> list[int]:
        """Give a pass back, granted or not; the numbers of those that are granted by that."""
        for gate in held.tries:
            gate.rests.release(gate.name)
        held.tries = ()
        if held.control and self._controls.get(held.errand.domain) == float("inf"):
            del self._controls[held.errand.domain]
        return [ticket.number for ticket in self._places.leave(held.ticket)]

    def due(self) -> float | None:
        """When `tick` is to be called next; None if nobody waits for a time to come."""
        return self._places.due()

    def tick(self) -> list[int]:
        """The numbers of those that are granted because their time has come."""
        return [ticket.number for ticket in self._places.tick()]

    def _caps_of(self, errand: Errand) -> Caps:
        if not self._practice(errand.domain):
            return self._caps
        return PLACES_ONLY

    def _is_stranger(self, errand: Errand) -> bool:
        answered = self._answered.get(errand.destination, 0.0) > self._clock()
        return not answered and not self._practice(errand.domain)

    def _gates(self, errand: Errand) -> Iterator[_Gate]:
        """The rests that concern it: the widest first."""
        local = f"{errand.identity} {errand.domain}"
        for rests, name, refusal in (
            (self._shut.rests, ALL, _SHUT),
            (self._blocked.rests, ALL, _BLOCKED),
            (self._cool, errand.identity, _COOL),
            (self._cool, local, _COOL),
            (self._busy, errand.destination, _BUSY),
            (self._harvest.rests, errand.domain, _HARVEST),
            (self._downs.rests, errand.destination, _DOWN),
        ):
            if name in rests:
                yield _Gate(rests, name, refusal)

    def _may_control(self, domain: str) -> bool:
        """Whether nobody is asking the random recipient, or has just been answered.

        Who decided to ask before the answer was remembered would ask it once more.
        """
        return self._controls.get(domain, 0.0) <= self._clock()

    # -- learning ------------------------------------------------------------------------------

    def learn(
        self,
        held: Pass,
        *,
        outcome: Outcome | None,
        stage: Stage | None,
        failure: Reason | None = None,
        control: Outcome | None = None,
    ) -> None:
        """What the dialogue of a pass has taught: `outcome` of the reply that decided, or none and
        a `failure`, at `stage`; the outcome of the random recipient.
        """
        errand = held.errand
        if failure in _OURS:
            return
        if control is not None and held.control and control.reason not in _PUT_OFF:
            self._remember_control(errand.domain)
        if not self._practice(errand.domain):
            if failure is Reason.NO_CONNECT and stage is Stage.CONNECT:
                self._unconnected(errand)
                return
            self._connected(errand)
            blocked = outcome is not None and outcome.reason is Reason.PROBE_BLOCKED
            self._count_blocked(errand, blocked)
        self._remember_answer(errand.destination, answered=outcome is not None)
        if outcome is not None:
            self._read(errand, outcome, stage)

    def _read(self, errand: Errand, outcome: Outcome, stage: Stage | None) -> None:
        at_recipient = stage is Stage.RCPT
        if outcome.reason is Reason.PROBE_BLOCKED:
            self.blocked(errand.identity, errand.domain if at_recipient else "")
        elif _about_our_rate(outcome):
            if not self._practice(errand.domain):
                self._busy.rest(errand.destination, outcome.rest)
        elif at_recipient and outcome.scope is Scope.RECIPIENT:
            self.welcomed(errand.identity, errand.domain)
            self._busy.end(errand.destination)
            if outcome.reason in _SETTLED and self._caps_of(errand).harvest:
                refused = outcome.reason is Reason.REJECTED_EMAIL
                self._harvest.told(errand.domain, refused=refused, named=bool(errand.provider))

    def blocked(self, identity: str, domain: str = "") -> None:
        """It refused us: before any recipient was named, or at the RCPT of one of `domain`."""
        if domain:
            self._cool.rest(f"{identity} {domain}")
            refused = self._refused.setdefault(identity, set())
            refused.add(domain)
            if len(self._refused) > RESTING_MOST:
                self._refused.popitem(last=False)
            if len(refused) < DOMAINS_REFUSED:
                return
        self._refused.pop(identity, None)
        self._cool.rest(identity)

    def welcomed(self, identity: str, domain: str = "") -> None:
        """It answered about a recipient: the refusals before that count no more."""
        self._cool.end(identity)
        self._cool.end(f"{identity} {domain}")
        self._refused.pop(identity, None)

    def resting(self, identity: str, domain: str = "") -> float:
        """Seconds for which this identity, or this domain of it, is still to be left alone."""
        return max(self._cool.left(identity), self._cool.left(f"{identity} {domain}"))

    def _remember_answer(self, destination: str, *, answered: bool) -> None:
        self._answered.pop(destination, None)
        if answered:
            self._answered[destination] = self._clock() + ANSWERED_LATELY
            if len(self._answered) > RESTING_MOST:
                self._answered.popitem(last=False)

    def _remember_control(self, domain: str) -> None:
        self._controls.pop(domain, None)
        self._controls[domain] = self._clock() + CONTROL_HELD
        if len(self._controls) > RESTING_MOST:
            self._controls.popitem(last=False)

    def _unconnected(self, errand: Errand) -> None:
        self._downs.failed(errand.destination)
        network = network_of(errand.hosts[0]) if errand.hosts else b""
        if self._shut.failed(errand.destination, network):
            self.watch.stopped("shut")

    def _connected(self, errand: Errand) -> None:
        self._downs.reached(errand.destination)
        if self._shut.reached():
            self.watch.resumed("shut")

    def _count_blocked(self, errand: Errand, blocked: bool) -> None:
        if blocked:
            self.watch.blocked(errand.provider.name if errand.provider else "")
        stops = self._blocked.told(blocked)
        if stops is not None:
            (self.watch.stopped if stops else self.watch.resumed)("blocked")


def _about_our_rate(outcome: Outcome) -> bool:
    """Whether it is we who ask too fast: the words say so, or 421 and no word for a mailbox."""
    if outcome.reply is None or outcome.reason not in _PUT_OFF:
        return False
    closed = outcome.reply.code == 421
    if outcome.reason is Reason.GREYLISTED:
        return closed and outcome.rule not in _GREYLISTING
    return outcome.scope is Scope.US or (closed and outcome.scope is not Scope.RECIPIENT)
