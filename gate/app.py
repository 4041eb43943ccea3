"""The application: routes, and the engine that is open while it runs. Wiring only."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gate import metrics
from gate.api import script
from gate.api.checks import Checks
from gate.api.front import Front, Routes
from gate.api.guard import Guard
from gate.api.hooks import Hooks
from gate.api.journal import Journal
from gate.api.ops import ON_ERROR, Ops, describe, has_page
from gate.api.peer import Peers
from gate.api.quota import Quota
from gate.api.service import Service
from gate.api.sites import Tenants, refuse_open_development, tenants_of
from gate.api.siteverify import Siteverify
from gate.api.subject import Subject
from gate.api.tryout import TryOut
from gate.doctor.watch import Watch, watching
from gate.engine import Engine, open_engine
from gate.hooks.registry import Registry
from gate.settings import Settings

Opener = Callable[[Settings], AbstractAsyncContextManager[Engine]]
Write = Callable[[bytes], object]


def write_stderr(text: bytes) -> None:
    """Where decision lines go unless somebody says otherwise."""
    sys.stderr.buffer.write(text)
    sys.stderr.buffer.flush()


class App:
    """The ASGI application of one `Settings`. Its lifespan opens and closes the engine."""

    def __init__(self, settings: Settings, opener: Opener, write: Write, *, doctor: bool) -> None:
        refuse_open_development(settings)
        self._registry = Registry(settings.hook)
        self._settings = settings
        self._opener = opener
        self._write = write
        self._doctor = doctor
        self.front = Front(Starlette(lifespan=lambda _: self._lifespan()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Engine]:
        """Answer requests while this is held. The server does it; so can a test."""
        async with self._opener(self._settings) as engine:
            journal = Journal(self._write)
            service = Service(engine, self._guard(engine), journal)
            checks = Checks(service)
            metrics.watch(
                checker=engine.checker,
                prober=engine.prober,
                probing=engine.probing,
                store=engine.store,
                late={"recheck": engine.rechecks.late, "webhook": engine.outbox.late},
            )
            hooks = Hooks(service, self._registry)
            watch = Watch() if self._doctor else None
            metrics.DOCTOR.source = watch.counts if watch else dict
            siteverify, ops = Siteverify(service), Ops(engine, watch)
            self.front.routes = _routes(service, checks, siteverify, hooks, ops)
            engine.start()
            try:
                async with watching(engine, watch):
                    yield engine
            finally:
                self.front.routes = None
                await checks.close()
                await hooks.close()
                journal.flush()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        async with self.open():
            yield

    def _guard(self, engine: Engine) -> Guard:
        settings = self._settings
        sandbox = settings.sandbox.enabled
        loopback = sandbox or engine.development_secret is not None
        tenants: Tenants = tenants_of(engine.sites, loopback=loopback)
        peers = Peers(settings.server.trusted_proxies)
        return Guard(tenants, Quota(engine.clock), peers, settings.limits)


def _routes(
    service: Service, checks: Checks, siteverify: Siteverify, hooks: Hooks, ops: Ops
) -> Routes:
    tryout = TryOut(service, siteverify, there=has_page(service.engine))
    cold = Starlette(
        routes=[
            Route("/v1/checks/{id}", checks.find),
            Route("/v1/subject", Subject(service).erase, methods=["DELETE"]),
            Route("/healthz", ops.healthz),
            Route("/readyz", ops.readyz),
            Route("/openapi.json", describe),
            Route("/v1/gate.js", script.serve),
            Route("/v1/gate.json", script.describe),
            Route("/", ops.page),
            Route("/try", tryout.receive, methods=["POST"]),
        ],
        exception_handlers=ON_ERROR,
    )
    return Routes(
        hot={
            "/v1/check": checks.check,
            "/v1/prefetch": checks.prefetch,
            "/v1/siteverify": siteverify,
        },
        hooks=hooks,
        cold=cold,
        tenants=service.guard.tenants,
        clock=service.engine.clock,
        development=service.engine.development_secret is not None,
    )


def create_app(
    settings: Settings,
    *,
    opener: Opener = open_engine,
    write: Write = write_stderr,
    doctor: bool = False,
) -> App:
    """The application, not yet open. `write` receives whole decision lines. `doctor`: it looks
    itself over in the background, which asks the DNS and a few mail hosts.

    Raises `GateError` when the settings would open a development site to the world.
    """
    return App(settings, opener, write, doctor=doctor)
