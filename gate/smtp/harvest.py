"""Harvest: a domain that keeps saying "no such user" is being searched for users. Pure.

What it promises: after REFUSALS_MOST refused mailboxes in HARVEST_WINDOW a domain is left alone for
an hour, then two, up to a day; a domain of a named provider, where thousands of strangers mistype
every day, when more than half of its last ANSWERS answers were refusals. After a rest one address
is tried: refused again, the rest doubles; anything else, and all is forgotten.

Only one dialogue a domain at a time makes that exact: the refusal that trips it is known before
the next one is asked. The clock is passed in; strangers name the domains, the oldest makes room.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from gate.budget import HARVEST_REST, HARVEST_REST_MOST, HARVEST_WINDOW, Clock
from gate.smtp.rests import Rests

REFUSALS_MOST: Final = 5
ANSWERS: Final = 20
DOMAINS_MOST: Final = 10_000


class Harvest:
    """What domains said of their mailboxes lately. `rests`: those that are left alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals: OrderedDict[str, deque[float]] = OrderedDict()
        self._answers: OrderedDict[str, deque[bool]] = OrderedDict()
        self.rests = Rests(
            clock, first=HARVEST_REST, most=HARVEST_REST_MOST, forgotten=HARVEST_REST_MOST
        )

    def __repr__(self) -> str:
        return f"<Harvest {len(self._refusals)} domains, {len(self.rests)} resting>"

    def told(self, domain: str, *, refused: bool, named: bool) -> None:
        """A mailbox of `domain` was refused for good, or spoken of otherwise.

        `named`: its mail is run by a provider with a row of its own.
        """
        if domain in self.rests:
            if refused:
                self.rests.rest(domain)
            elif not self.rests.left(domain):
                self.rests.end(domain)
            return
        searched = self._share(domain, refused) if named else self._count(domain, refused)
        if searched:
            self.rests.rest(domain)
            self._refusals.pop(domain, None)
            self._answers.pop(domain, None)

    def _count(self, domain: str, refused: bool) -> bool:
        if not refused:
            return False
        now = self._clock()
        times = self._refusals.pop(domain, deque(maxlen=REFUSALS_MOST))
        times.append(now)
        self._refusals[domain] = times
        if len(self._refusals) > DOMAINS_MOST:
            self._refusals.popitem(last=False)
        return len(times) == REFUSALS_MOST and now - times[0] < HARVEST_WINDOW

    def _share(self, domain: str, refused: bool) -> bool:
        answers = self._answers.pop(domain, deque(maxlen=ANSWERS))
        answers.append(refused)
        self._answers[domain] = answers
        if len(self._answers) > DOMAINS_MOST:
            self._answers.popitem(last=False)
        return 2 * sum(answers) > ANSWERS
