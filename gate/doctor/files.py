"""Open files: may this process open as many as its limits promise (security.md k-5)?"""

from __future__ import annotations

import resource
from typing import Final

from gate.doctor.finding import Finding, Topic

NAME: Final = "files"
WHY: Final = "a process that runs out of descriptors can accept nobody and ask nobody"
OTHER_DESCRIPTORS: Final = 64
"""Store, resolvers, listeners, logs."""
DESCRIPTORS_SHARE: Final = 0.8
"""The share of the system's limit that may be spoken for."""
CONNECTIONS_LEAST: Final = 32
"""A server that could hold fewer does not start."""


def spoken_for(dialogues: int) -> int:
    """Descriptors that are not for HTTP connections: a dialogue dials two families at once."""
    return 2 * dialogues + OTHER_DESCRIPTORS


def needed(connections: int, dialogues: int) -> int:
    """The limit on open files that these need."""
    return int((connections + spoken_for(dialogues)) / DESCRIPTORS_SHARE) + 1


def room(limit: int, dialogues: int) -> int:
    """The HTTP connections that a limit on open files leaves room for; may be negative."""
    return int(limit * DESCRIPTORS_SHARE) - spoken_for(dialogues)


def check(connections: int, dialogues: int) -> list[Finding]:
    """Compare with the system's hard limit: the gate raises its own soft one as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [judge(connections, dialogues, None if hard == resource.RLIM_INFINITY else hard)]


def judge(connections: int, dialogues: int, limit: int | None) -> Finding:
    """What the limit means; None: there is none. Pure."""
    topic = Topic(NAME, WHY)
    wanted = needed(connections, dialogues)
    promised = f"{connections} connections and {dialogues} dialogues need {wanted} open files"
    if limit is None or limit >= wanted:
        allowed = "any number" if limit is None else limit
        return topic.ok(f"{promised}; the system allows {allowed}")
    mend = f"raise the limit to {wanted} (LimitNOFILE= of the unit, or ulimit -n), or lower limits"
    left = room(limit, dialogues)
    if left < CONNECTIONS_LEAST:
        return topic.problem(
            f"{promised}; the system allows {limit}: the gate does not start", mend
        )
    return topic.warning(
        f"{promised}; the system allows {limit}: only {left} connections are taken", mend
    )
