"""The wish of a domain's owner not to be probed: TXT `v=sg1; probe=no` at `_signup-gate.DOMAIN`.

What it promises: the question goes out beside those of the route and costs the route no time: what
has not come by then is not waited for, and holds from the moment it comes. A wish that was heard
once holds on while it is asked about again, and while nobody answers. It counts among the questions
of its route (security.md A10): one, never repeated.

`declines` reads a record as a list of tags (RFC 6376 section 3.2): the version first, no tag twice,
letter case and blanks around names and values of no account. What is no such list says nothing; of
several records any may say no.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from gate.budget import Clock
from gate.dns.answers import Answers, Memory
from gate.dns.ask import Allowance
from gate.dns.wire import MAX_NAME, Kind

LABEL: Final = "_signup-gate"
VERSION: Final = "sg1"
ASKING_MOST: Final = 256
"""Questions in the air beyond which none outlasts its route."""

_TAG = re.compile(rb"[ \t]*([a-z][a-z0-9_]*)[ \t]*=[ \t]*([!-:<-~]*)[ \t]*", re.IGNORECASE)


def declines(records: Iterable[bytes]) -> bool:
    """Whether TXT records (the strings of each joined) ask us to stay away."""
    return any(_tags(record).get("probe") == "no" for record in records)


def _tags(record: bytes) -> dict[str, str]:
    """The tags of one record, in lower case; none if it is not a record of ours."""
    parts = record.split(b";")
    if len(parts) > 1 and not parts[-1].strip(b" \t"):
        parts.pop()  # the list may end with a semicolon
    found: dict[str, str] = {}
    for part in parts:
        match = _TAG.fullmatch(part)
        if match is None:
            return {}
        name, value = (text.decode("ascii").lower() for text in match.groups())
        if name in found:
            return {}
        found[name] = value
    return found if next(iter(found.items())) == ("v", VERSION) else {}


class _Wish(Struct, frozen=True, gc=False):
    declined: bool
    expires: float


class OptOuts:
    """What is known of the wishes of domains; asks when that is nothing, or too old."""

    def __init__(
        self, answers: Answers, clock: Clock, size: int, changed: Callable[[str, bool], None]
    ) -> None:
        """`changed` is told of each domain whose wish came, and what it is."""
        self._answers = answers
        self._clock = clock
        self._changed = changed
        self._known: Memory[_Wish] = Memory(size)
        self._asking: dict[str, asyncio.Task[None]] = {}

    def declined(self, domain: str) -> bool:
        """Whether the domain wants no probes, as far as is known by now."""
        wish = self._known.get(domain)
        return wish is not None and wish.declined

    def ask(self, domain: str, allowance: Allowance) -> None:
        """Have the question asked unless the answer is fresh; nobody waits for it."""
        wish = self._known.get(domain)
        fresh = wish is not None and self._clock() < wish.expires
        if fresh or domain in self._asking or len(LABEL) + len(domain) + 3 > MAX_NAME:
            return
        if allowance.take():
            task = self._asking[domain] = asyncio.create_task(self._ask(domain))
            task.add_done_callback(lambda done: self._forget(domain, done))

    def leave(self, domain: str, *, useless: bool) -> None:
        """The route is found; what is still in the air may come later unless it is `useless`."""
        if domain in self._asking and (useless or len(self._asking) > ASKING_MOST):
            self._asking.pop(domain).cancel()

    async def close(self) -> None:
        """End what is in the air."""
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, domain: str) -> None:
        answer = await self._answers.texts(f"{LABEL}.{domain}", Allowance(1))
        if answer.kind is Kind.FAILED:
            declined = self.declined(domain)
        else:
            declined = declines(answer.texts)
        self._known[domain] = _Wish(declined, answer.expires)
        self._changed(domain, declined)

    def _forget(self, domain: str, task: asyncio.Task[None]) -> None:
        if self._asking.get(domain) is task:
            del self._asking[domain]
