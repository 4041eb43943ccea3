"""`LocalGate`: the engine inside the application's own process, asked as a remote gate is.

What it promises: it opens and closes with the application; a check takes no longer than
`probe.budget_ms`; before it is open, and after, everybody is let in.

Bugs: a file store belongs to one process, so an application with several workers gives each a
store of its own, or asks one running gate with `AsyncGate`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

from gate.api.answer import encode, full
from gate.budget import ANSWER_RESERVE, Deadline
from gate.client.answer import CheckAnswer, Failure, read_check
from gate.client.call import opened
from gate.engine import Engine, open_engine
from gate.reason import GateError, Reason
from gate.settings import Settings, Site
from gate.settings.read import load

log = logging.getLogger("gate.middleware")


class LocalGate:
    """A gate of this process. `settings`: unset, they are read as `gate serve` reads them.

    `site`: the name of the [[site]] whose policy decides; needless if there is one or none.
    `opener`: how the engine is opened, for tests that bring a mail world of their own.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        site: str = "",
        opener: Callable[[Settings], AbstractAsyncContextManager[Engine]] = open_engine,
    ) -> None:
        self._settings = settings
        self._site_name = site
        self._opener = opener
        self._stack = AsyncExitStack()
        self._open: tuple[Engine, Site] | None = None

    async def __aenter__(self) -> Self:
        """Open the engine. Raises `GateError` with what to do."""
        if self._open is not None:
            raise GateError("LocalGate: is open already; one middleware takes several paths")
        settings = self._settings or load(None, os.environ)
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(self._opener(settings))
            self._open = engine, _site(engine, self._site_name)
            engine.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = None
        await self._stack.aclose()

    async def check(self, email: str, *, remoteip: str | None = None) -> CheckAnswer:
        """Check one address, as `AsyncGate.check`; nobody's limits are counted here."""
        if self._open is None:
            log.warning("the gate of this process is not open (no lifespan); the person is let in")
            return opened(Reason.UNEXPECTED_ERROR, email)
        engine, site = self._open
        seconds = engine.settings.probe.budget_ms / 1000 - ANSWER_RESERVE
        answer = await engine.checker.check(
            email, site=site, deadline=Deadline.after(seconds, engine.clock)
        )
        told = read_check((200, encode(full(answer))))
        return opened(Reason.UNEXPECTED_ERROR, email) if isinstance(told, Failure) else told


def _site(engine: Engine, name: str) -> Site:
    for site in engine.sites:
        if site.name == name or (not name and len(engine.sites) == 1):
            return site
    known = ", ".join(site.name for site in engine.sites)
    raise GateError(f"site: {name!r} is none of {known}; name the one whose policy decides")
