"""`serve`: the gate as a process, with a public listener and an admin one on loopback.

What it promises: a port that is taken, a store that cannot be opened and limits the machine cannot
hold are a `GateError` with what to do, before anything is answered; SIGTERM and SIGINT stop
accepting, let what is under way finish for at most `HTTP_STOP`, and return.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import uvicorn
import uvloop
from starlette.types import ASGIApp

from gate import metrics
from gate.api import ops
from gate.api.connection import Connection, House
from gate.api.letters import Letters
from gate.api.logs import to_stderr
from gate.api.peer import Peers
from gate.api.sites import refuse_open_development
from gate.api.switch import Switching
from gate.app import Opener, Write, create_app, write_stderr
from gate.budget import GC_THAW, HTTP_IDLE, HTTP_STOP, HTTP_SWEEP, LOOP_LAG
from gate.collector import Collector
from gate.doctor import files
from gate.engine import Engine, open_engine
from gate.reason import GateError
from gate.settings import Settings

log = logging.getLogger("gate.server")

BACKLOG: Final = 2048
ADMIN_HOST: Final = "127.0.0.1"
ADMIN_CONNECTIONS: Final = 64
TICK: Final = 0.1
"""uvicorn looks after itself this often, in seconds; `on_tick` rides along."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Where it listens, as `started` is told: port 0 in the settings means any that is free."""

    port: int
    admin_port: int | None
    stop: Callable[[], None]


class Listener(uvicorn.Server):
    """One listener. Signals are `run`'s business, for both at once. `collector`: thawed now and
    then, while nobody asks for anything here.
    """

    def __init__(
        self,
        app: ASGIApp,
        house: House,
        *,
        watches_loop: bool,
        collector: Collector | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(HTTP_IDLE),
            timeout_graceful_shutdown=int(HTTP_STOP),
        )
        super().__init__(config)
        self.server_state = house
        self._house = house
        self._watches_loop = watches_loop
        self._collector = collector
        self._swept = self._ticked = self._thawed = 0.0
        self._served = 0
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        self.up.set()

    async def on_tick(self, counter: int) -> bool:
        """What uvicorn does each tick, and the look over connections and loop."""
        now = asyncio.get_running_loop().time()
        if now - self._swept >= HTTP_SWEEP:
            self._swept = now
            self._house.sweep(now)
            self._thaw(now)
        if self._watches_loop and self._ticked:
            lag = max(0.0, now - self._ticked - TICK)
            metrics.note_lag(lag)
            if lag > LOOP_LAG:
                log.warning("the event loop was held up for %d ms", lag * 1000)
        self._ticked = now
        return await super().on_tick(counter)

    def _thaw(self, now: float) -> None:
        """Once in GC_THAW, between two looks with no request at all."""
        house, served = self._house, self._house.total_requests
        quiet = served == self._served and len(house.waiting) == len(house.connections)
        self._served, self._thawed = served, self._thawed or now
        if self._collector is not None and quiet and now - self._thawed >= GC_THAW:
            self._thawed = now
            self._collector.thaw()


def serve(settings: Settings, read: Callable[[], Settings] | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises `GateError` when it cannot start.

    `read` reads the settings anew: at SIGHUP, to say whether they are good.
    """
    to_stderr()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, doctor=True, read=read))


async def run(
    settings: Settings,
    *,
    started: Callable[[Bound], None] | None = None,
    opener: Opener = open_engine,
    write: Write = write_stderr,
    doctor: bool = False,
    read: Callable[[], Settings] | None = None,
) -> None:
    """The whole life of the server. `started` is called once it answers.

    Tests and benchmarks use `started`, an `opener` that brings a mail world of their own, and
    `write`, which receives the decision lines. `doctor`: see `create_app`; `read`: see `serve`.
    Raises `GateError` when it cannot start.
    """
    refuse_open_development(settings)
    most = connections_most(settings)
    with ExitStack() as stack:
        server = settings.server
        public = stack.enter_context(bind(server.host, server.port, "server.port"))
        admin = None
        if server.admin_port:
            admin = stack.enter_context(bind(ADMIN_HOST, server.admin_port, "server.admin_port"))
        app = create_app(settings, opener=opener, write=write, doctor=doctor)
        async with app.open() as engine:
            peers = Peers((*server.trusted_proxies, "127.0.0.0/8", "::1/128"))
            house = House(most=most, exempt=peers.is_trusted, front=app.front)
            collector = Collector()
            front = Listener(app, house, watches_loop=True, collector=collector)
            listeners = [(front, public)]
            if admin is not None:
                back = House(most=ADMIN_CONNECTIONS, exempt=lambda _: True)
                switching = Switching(engine.probing, engine.switch, settings.store.url)
                inner = ops.admin([*Letters(engine.outbox).routes, *switching.routes])
                listeners.append((Listener(inner, back, watches_loop=False), admin))
            with _signals([listener for listener, _ in listeners], read) as stop:
                _banner(engine, public, admin)
                bound = Bound(_port(public), _port(admin) if admin else None, stop)
                await _together(listeners, collector, lambda: started(bound) if started else None)
    log.info("stopped")


async def _together(
    listeners: Sequence[tuple[Listener, socket.socket]],
    collector: Collector,
    started: Callable[[], None],
) -> None:
    """Run the listeners until each has drained."""
    async with asyncio.TaskGroup() as tasks:
        for listener, bound in listeners:
            tasks.create_task(listener.serve(sockets=[bound]))
        for listener, _ in listeners:
            await listener.up.wait()
        collector.start()
        started()
    collector.stop()


@contextlib.contextmanager
def _signals(
    listeners: Sequence[Listener], read: Callable[[], Settings] | None
) -> Iterator[Callable[[], None]]:
    """While held, SIGTERM and SIGINT stop the listeners; a second one does not wait for clients.
    SIGHUP, which would end a process that does not expect it, has the settings looked at.

    Yields the stopping as a function, for any thread.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for listener in listeners:
            listener.force_exit = listener.should_exit
            listener.should_exit = True

    def stop_soon() -> None:
        loop.call_soon_threadsafe(stop)

    taken = threading.current_thread() is threading.main_thread()
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: lambda: _look_at(read)}
    for number, handler in handlers.items() if taken else ():
        loop.add_signal_handler(number, handler)
    try:
        yield stop_soon
    finally:
        for number in handlers if taken else ():
            loop.remove_signal_handler(number)


def _look_at(read: Callable[[], Settings] | None) -> None:
    """Read the settings and say what would become of a restart. Those in use stay as they are."""
    try:
        if read is not None:
            read()
    except GateError as error:
        log.error("SIGHUP: the settings are not good, a restart would fail: %s", error)
    else:
        log.warning("SIGHUP: the settings are good; they are read at start: restart to use them")


def bind(host: str, port: int, key: str) -> socket.socket:
    """A listening socket. Raises `GateError` that names `key`, the setting to change."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
        )
    except OSError as error:
        at = f"{host}, port {port}"
        advice = {
            errno.EADDRINUSE: f"{key}: {at} is taken; stop what listens there, or set another",
            errno.EACCES: f"{key}: {at} needs rights this process has not; set one above 1023, and "
            "put a proxy in front",
            errno.EADDRNOTAVAIL: f"server.host: {host} is no address of this machine; set one",
        }
        said = advice.get(error.errno or 0, f"server.host: cannot listen on {at}: {error}")
        raise GateError(said) from None


def _port(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def connections_most(settings: Settings) -> int:
    """How many connections this process has descriptors for, at most `limits.connections`.

    Raises the process's own limit as far as it may; what is then still missing is taken from the
    connections, with a warning, because running out in the middle of an accept helps nobody.
    """
    wanted, dialogues = settings.limits.connections, settings.limits.dialogues
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files.needed(wanted, dialogues)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = files.room(soft, dialogues)
    if most < files.CONNECTIONS_LEAST:
        raise GateError(
            f"limits: {wanted} connections and {dialogues} dialogues need {needed} open files, and "
            f"the system allows {soft}; raise it (ulimit -n), or lower limits.dialogues"
        )
    log.warning("limits.connections is %d, but %d open files allow %d", wanted, soft, most)
    return most


def _banner(engine: Engine, public: socket.socket, admin: socket.socket | None) -> None:
    """Say what was opened, and with what."""
    settings = engine.settings
    host = settings.server.host
    log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, _port(public))
    if admin is not None:
        log.info("metrics on http://%s:%d/metrics", ADMIN_HOST, _port(admin))
    if engine.identity is not None and engine.identity.note:
        log.info(engine.identity.note)
    if settings.sandbox.enabled:
        log.info("sandbox: addresses under .test are answered by mail servers in this process")
    if engine.development_secret is not None:
        log.info(
            "development site: site key %s secret key %s",
            engine.sites[0].site_key,
            engine.development_secret,
        )
