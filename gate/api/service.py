"""`Service`: what the surfaces share while the engine is open."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from gate.api.guard import Guard
from gate.api.journal import Journal
from gate.engine import Engine


def _numbered() -> Callable[[], str]:
    """Ids for requests: unique in the life of the process, cheap, and telling nobody how many."""
    prefix = secrets.token_hex(6)
    count = itertools.count(secrets.randbelow(1 << 24))
    return lambda: f"req_{prefix}{next(count):08x}"


@dataclass(frozen=True, slots=True)
class Service:
    """The running parts behind the HTTP surface."""

    engine: Engine
    guard: Guard
    journal: Journal
    request_id: Callable[[], str] = field(default_factory=_numbered)
