"""One connection to a Redis server: opened, asked in pipelines, closed at the first doubt.

What it promises: an answer goes to the question it was given to. Questions are asked one pipeline
at a time; a connection on which one was late, cut off or cancelled is closed, with whatever still
comes on it, and never used again (CVE-2023-28858). No error tells the password, a key or a value.

What it knows: redis-py shakes hands, packs and parses; the socket is opened by `gate.egress`. How
Redis's errors read to the person who has to mend them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection

from gate.budget import STORE_OPEN, STORE_SKEW, Clock
from gate.egress import open_store_connection
from gate.redis_url import RedisUrl
from gate.store.behind import Unusable
from gate.store.calls import Command

OLDEST_SERVER: Final = (6, 2)
"""The first Redis with exclusive ranges and XTRIM MINID."""
_RIGHTS: Final = "~gate:* +@all -@dangerous +info +bgrewriteaof"
"""What a user of the gate's own has to be allowed."""


class Server(NamedTuple):
    """What a Redis server says of itself. `now`: its clock (Unix seconds); `skew`: seconds that it
    is ahead of ours.
    """

    version: tuple[int, ...]
    policy: str
    aof: bool
    cluster: bool
    primary: bool
    now: float
    skew: float


class Connection(AbstractConnection):
    """redis-py's connection over a socket of the one door."""

    def __init__(self, where: RedisUrl, tls: ssl.SSLContext | None) -> None:
        super().__init__(
            db=where.database,
            username=where.user or None,
            password=where.password or None,
            # The limit is on the pipeline as a whole; each answer needs no timer of its own.
            socket_timeout=None,
            socket_connect_timeout=STORE_OPEN,
            driver_info=None,
            protocol=2,
        )
        self._where = where
        self._tls = tls

    def repr_pieces(self) -> list[tuple[str, object]]:
        """For redis-py's own messages."""
        return [("where", str(self._where))]

    def drop(self) -> None:
        """Close at once, without a word; whatever is still on its way reaches nobody."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._parser.on_disconnect()  # type: ignore[no-untyped-call]
        self._reader = self._writer = None

    async def _connect(self) -> None:
        server = (self._where.host, self._where.port)
        self._reader, self._writer = await open_store_connection(server, self._tls)

    def _host_error(self) -> str:
        return str(self._where)


class Link:
    """A connection that is opened again after each failure, by whoever calls `open`."""

    def __init__(self, where: RedisUrl) -> None:
        """Raises `Unusable` for a file of authorities that cannot be read."""
        self.where = where
        self._tls = _context(where)
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._connection is not None and self._connection.is_connected

    async def open(self, wall: Clock) -> Server:
        """Connect, log in, and hear what kind of server it is, within STORE_OPEN seconds.

        Raises `Unusable`, for a server too that must not be used.
        """
        self.close()
        connection = Connection(self.where, self._tls)
        async with self._talk(connection, STORE_OPEN, "does not answer"):
            await connection.connect()  # type: ignore[no-untyped-call]
        self._connection = connection
        try:
            info, clock = await self.ask([("INFO",), ("TIME",)], within=STORE_OPEN)
            server = _server(info, int(clock[0]) + int(clock[1]) / 1e6, wall())
            if why := refusal(server):
                raise Unusable(f"{self.where}: {why}")
        except BaseException:
            self.close()
            raise
        return server

    async def ask(self, commands: Sequence[Command], *, within: float) -> list[Any]:
        """Send commands in one pipeline; their answers. Raises `Unusable` if one is an error, after
        all were read: the connection is good for the next.
        """
        async with self._turn:
            connection = self._connection
            if connection is None or not connection.is_connected:
                raise Unusable(f"{self.where}: is not connected; {_LOOK}")
            async with self._talk(connection, within, f"did not answer in {within:g} s"):
                packed = connection.pack_commands(commands)
                await connection.send_packed_command(packed, check_health=False)
                answers = [await _answer(connection) for _ in commands]
        for answer in answers:
            if isinstance(answer, Exception):
                raise Unusable(f"{self.where}: {_told(answer)}") from answer
        return answers

    @asynccontextmanager
    async def _talk(
        self, connection: Connection, seconds: float, silence: str
    ) -> AsyncIterator[None]:
        """A talk that has so long; whatever cuts it short ends the connection.

        Raises `Unusable`, which says `silence` where the time was over.
        """
        try:
            async with asyncio.timeout(seconds):
                yield
        except BaseException as error:
            connection.drop()
            if self._connection is connection:
                self._connection = None
            if isinstance(error, TimeoutError):
                raise Unusable(f"{self.where}: {silence}; {_LOOK}") from None
            if isinstance(error, redis_errors.RedisError | OSError):
                raise Unusable(f"{self.where}: {_told(error)}") from error
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.drop()
            self._connection = None


async def _answer(connection: Connection) -> Any:
    """One answer, or the error that it is; the next one is behind it."""
    try:
        return await connection.read_response(disable_decoding=True)
    except redis_errors.ResponseError as error:
        return error


def _context(where: RedisUrl) -> ssl.SSLContext | None:
    if not where.tls:
        return None
    try:
        return ssl.create_default_context(cafile=where.ca or None)
    except OSError as error:
        why = error.strerror or "holds no certificate"
        raise Unusable(f"{where}: ca={where.ca}: {why}; name a PEM file of authorities") from None


def _server(info: bytes, now: float, ours: float) -> Server:
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    said = {name: value for name, _, value in lines}
    numbers = said.get("redis_version", "0").split(".")
    return Server(
        version=tuple(int(number) for number in numbers if number.isdigit()),
        policy=said.get("maxmemory_policy", "unknown"),
        aof=said.get("aof_enabled") == "1",
        cluster=said.get("cluster_enabled") == "1",
        primary=said.get("role", "master") == "master",
        now=now,
        skew=now - ours,
    )


def refusal(server: Server) -> str | None:
    """Why a server must not hold a gate's store, and what to do; None if it may. Pure."""
    if server.version < OLDEST_SERVER:
        told, oldest = (".".join(map(str, version)) for version in (server.version, OLDEST_SERVER))
        return f"is Redis {told}; the store needs {oldest} or newer"
    if server.cluster:
        return "is a cluster; name a server that is none: what belongs together would be parted"
    if not server.primary:
        return _READ_ONLY
    if server.policy != "noeviction":
        return (
            f"throws away what it promised to keep: maxmemory-policy is {server.policy}; "
            "set maxmemory-policy noeviction in redis.conf, or CONFIG SET maxmemory-policy "
            "noeviction and CONFIG REWRITE"
        )
    return None


def doubts(server: Server) -> list[str]:
    """What the operator should know of a server that may be used, with what to do. Pure."""
    found = []
    if not server.aof:
        found.append(
            "a restart of Redis loses spent tokens, jobs and the master key (appendonly no); set "
            "appendonly yes: with appendfsync everysec a crash loses about the last second, with "
            "always nothing"
        )
    if abs(server.skew) > STORE_SKEW:
        found.append(
            f"its clock is {abs(server.skew):.0f} s {'ahead of' if server.skew > 0 else 'behind'} "
            "this machine's; keep both by NTP: leases and spent tokens end by the clock"
        )
    return found


_LOOK: Final = "see whether Redis runs there, and is not blocked"
_READ_ONLY: Final = "is a replica and cannot be written; name the primary"
_ADVICE: Final[Sequence[tuple[str | type[Exception], str]]] = (
    ("LOADING", "is still loading its data; wait until it has"),
    ("NOAUTH", "asks for a login; write user and password in store.url"),
    (redis_errors.AuthenticationError, "refuses the login; look at user and password in store.url"),
    ("NOPERM", f"forbids this user what it needs; ACL SETUSER … {_RIGHTS}"),
    ("OOM", "is out of memory; raise maxmemory"),
    ("READONLY", _READ_ONLY),
    ("NOSCRIPT", "has lost our scripts; they are loaded again"),
    ("MOVED", "has become part of a cluster; name a server that is none"),
    ("CLUSTERDOWN", "is a cluster that is down; name a server that is none"),
    ("MISCONF", "cannot write its disk; look at its log"),
    ("MASTERDOWN", "is a replica without its primary; name the primary"),
    ("DB index", "has no database of this number; look at the end of store.url"),
    ("max number of clients", "has too many clients; raise maxclients"),
    (
        ssl.SSLCertVerificationError,
        "has a certificate that is not its own, or of no authority here",
    ),
    (ssl.SSLError, "does not speak TLS as we do; redis:// is without it"),
    (socket.gaierror, "its name is not known; look at the host in store.url"),
    ("Connection closed", f"closed the connection; {_LOOK}"),
    (redis_errors.InvalidResponse, "speaks another protocol; look at the port in store.url"),
)
"""What to do, by the code of an error, words in it, or its kind; the first that fits."""


def _told(error: BaseException) -> str:
    """An error in our words. Its own may hold what we sent."""
    seen: BaseException | None = error
    while seen is not None:
        for sign, words in _ADVICE:
            if _shows(seen, sign):
                return words
        if isinstance(seen, OSError) and not isinstance(seen, redis_errors.RedisError):
            why = os.strerror(seen.errno).lower() if seen.errno else "the connection broke"
            return f"{why}; {_LOOK}"
        seen = seen.__cause__ or seen.__context__
    return f"{type(error).__name__} at a command of ours; {_LOOK}"


def _shows(error: BaseException, sign: str | type[Exception]) -> bool:
    if not isinstance(sign, str):
        return isinstance(error, sign)
    # What is quoted in a message is ours.
    return getattr(error, "status_code", "") == sign or sign in str(error).partition("'")[0]
