"""The one door out: says which IP addresses may be dialled, then dials exactly those.

What it promises: no name is ever handed to the socket layer; every address is classified after
resolution and the very object that was classified is dialled; the port is one of the dialler's own
(25 for mail, 443 and 80 for webhooks) or there is no socket; the peer is the one that was meant, or
the connection is closed. Nothing else in the project opens an outbound connection. Servers that the
operator names, resolvers and the store, are dialled without being classified; the store alone may
be named. An address that
has a proxy is dialled from there: the proxy is given that very IP address, never a name.

Denied addresses are dropped before anything is raced; what is denied is said in `special.py`.

Bugs: an interface address that appears after start is noticed only when the connection comes back
to us, after the handshake.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from gate.budget import HAPPY_EYEBALLS, TLS_LEAST, TLS_SHUTDOWN, Deadline
from gate.proxy import Proxy
from gate.special import Egress as Egress
from gate.special import IPAddress as IPAddress
from gate.special import IPNetwork as IPNetwork
from gate.special import classify as classify

Seam = Callable[[IPAddress, int], tuple[str, int]]
"""For tests and the sandbox: where a vetted (address, port) really leads, on loopback.

It is asked after the guard has let the address pass. `LookupError` means that nothing answers
there; to leave an address alone it gives back what it was given.
"""

SMTP_PORT: Final = 25
WEB_PORTS: Final = (443, 80)
ADDRESSES_MOST: Final = 4
"""Addresses of one host that are tried, both families together (faults.md N32)."""
DATAGRAM_MOST: Final = 65_535

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRINUSE})

P = TypeVar("P", bound=asyncio.Protocol)


def own_addresses() -> frozenset[IPAddress]:
    """The addresses of this machine's interfaces, as far as the system tells without a library.

    Linux says it in /proc. Elsewhere the address a packet to the outside would carry is found by
    connecting a datagram socket, which sends nothing.
    """
    found: set[IPAddress] = set()
    try:
        lines = Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines()
        for before, line in zip(lines, lines[1:], strict=False):
            if line.strip() == "/32 host LOCAL":
                found.add(ip_address(before.rpartition(" ")[2]))
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            found.add(IPv6Address(int(line.split()[0], 16)))
    except OSError:
        found.update(outgoing_addresses())
    return frozenset(found)


def outgoing_addresses() -> list[IPAddress]:
    """The addresses that a packet of this machine to the outside carries, IPv4 first.

    As the machine sees them: behind NAT these are private ones. Nothing is sent.
    """
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((target, SMTP_PORT))
                found.append(ip_address(sock.getsockname()[0]))
        except OSError:
            continue
    return found


def is_ours(ip: IPAddress) -> bool:
    """Whether connections can be made from this address: it is one of this machine's."""
    with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET) as sock:
        try:
            sock.bind((str(ip), 0))
        except OSError:
            return False
    return True


class Unroutable(Exception):
    """Every address is one we refuse to dial; `blocked` says which and why."""

    def __init__(self, blocked: Sequence[tuple[IPAddress, Egress]]) -> None:
        super().__init__(", ".join(f"{ip} ({egress.value})" for ip, egress in blocked))
        self.blocked = tuple(blocked)


class NoConnect(Exception):
    """No address could be connected to; the message says how the last one failed."""


class Exhausted(NoConnect):
    """The fault is ours: this process has no descriptor, port or buffer left."""


class ProxyFailed(NoConnect):
    """The fault is our proxy's, and nothing was learned of the host."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source address and the name it greets with. `ip` None: the system chooses.

    An address of one family reaches hosts of that family only. `since`: the first day that it was
    used; None: it is warm. `proxy`: what dials for it; `ip` is then the address that hosts see,
    and none of this machine.
    """

    ip: IPAddress | None
    helo: str
    since: date | None = None
    proxy: Proxy | None = None

    @property
    def name(self) -> str:
        """What tells it from the others, in a log and in the store. Holds no password."""
        told = str(self.ip) if self.ip else "" if self.proxy else self.helo
        return f"{told} by way of {self.proxy}".lstrip() if self.proxy else told


class Dialer:
    """Opens connections to vetted addresses. Holds no connection itself."""

    def __init__(
        self,
        *,
        sources: Sequence[Source],
        allow: Sequence[IPNetwork] = (),
        seam: Seam | None = None,
        seam_addresses: Collection[IPAddress] = (),
        own: Collection[IPAddress] = (),
        on_blocked: Callable[[Egress], None] | None = None,
        ports: Collection[int] = (SMTP_PORT,),
    ) -> None:
        """`seam_addresses`: denied ones that are let pass only because `seam` maps them. `ports`:
        those that may be dialled; there are no others.
        """
        self.sources = tuple(sources)
        self._allow = tuple(allow)
        self._seam = seam
        self._seam_addresses = frozenset(seam_addresses) if seam else frozenset()
        self._own = frozenset(own)
        self._on_blocked = on_blocked
        self._ports = tuple(ports)
        if any(source.proxy for source in self.sources):
            _socks_library()

    def classify(self, ip: IPAddress) -> Egress:
        """`classify` with this dialer's lists."""
        if ip in self._seam_addresses:
            return Egress.SANDBOX
        return classify(ip, allow=self._allow, own=self._own)

    def vet(self, addresses: Sequence[IPAddress]) -> list[IPAddress]:
        """The addresses that may be dialled, in their order. Raises `Unroutable` if none may."""
        kept, blocked = [], []
        for ip in addresses:
            egress = self.classify(ip)
            if egress.allowed:
                kept.append(ip)
                continue
            blocked.append((ip, egress))
            if self._on_blocked:
                self._on_blocked(egress)
        if not kept:
            raise Unroutable(blocked)
        return kept

    async def dial(
        self,
        factory: Callable[[], P],
        addresses: Sequence[IPAddress],
        *,
        source: Source,
        deadline: Deadline,
        port: int = SMTP_PORT,
        tls: tuple[ssl.SSLContext, str] | None = None,
    ) -> tuple[asyncio.Transport, P, IPAddress]:
        """Connect to the first of `addresses` that answers, and say which it was.

        IPv6 gets a head start over IPv4 if there are both (RFC 8305); within a family the
        addresses take turns and share the time. `tls`: a context and the name that the peer has
        to prove, for ports that begin with the handshake. Raises `Unroutable`, `NoConnect`, and
        `ValueError` for a port that is not this dialler's, before a socket exists.
        """
        sock, ip = await self.reach(addresses, source=source, deadline=deadline, port=port)
        loop = asyncio.get_running_loop()
        try:
            if tls is None:
                transport, protocol = await loop.create_connection(factory, sock=sock)
            else:
                transport, protocol = await loop.create_connection(
                    factory,
                    sock=sock,
                    ssl=tls[0],
                    server_hostname=tls[1],
                    ssl_handshake_timeout=max(deadline.left(), TLS_LEAST),
                    ssl_shutdown_timeout=TLS_SHUTDOWN,
                )
        except OSError as error:
            raise _no_connect(error) from None
        return transport, protocol, ip

    async def reach(
        self,
        addresses: Sequence[IPAddress],
        *,
        source: Source,
        deadline: Deadline,
        port: int = SMTP_PORT,
    ) -> tuple[socket.socket, IPAddress]:
        """`dial` as far as the socket, for a library that speaks over one it is handed."""
        if port not in self._ports:
            known = ", ".join(map(str, self._ports))
            raise ValueError(f"port {port}: this dialler opens port {known} only")
        vetted = self.vet(addresses)
        lanes = _lanes(
            [ip for ip in vetted if source.ip is None or ip.version == source.ip.version]
        )
        if not lanes:
            raise NoConnect("no source address of the host's family")
        if len(lanes) == 1:
            return await self._try(lanes[0], port, source, deadline)
        return await self._race(lanes[0], lanes[1], port, source, deadline)

    async def _race(
        self,
        first: list[IPAddress],
        second: list[IPAddress],
        port: int,
        source: Source,
        deadline: Deadline,
    ) -> tuple[socket.socket, IPAddress]:
        """Two families: the second starts when the first is late or has failed; one wins."""
        lead = asyncio.create_task(self._try(first, port, source, deadline))
        tasks = {lead}
        try:
            await asyncio.wait(tasks, timeout=min(HAPPY_EYEBALLS, deadline.left()))
            if not lead.done() or lead.exception() is not None:
                tasks.add(asyncio.create_task(self._try(second, port, source, deadline)))
            failure: BaseException = NoConnect("timed out")
            waiting = set(tasks)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        tasks.discard(task)
                        return task.result()
                    failure = error
            raise failure
        finally:
            await _abandon(tasks)

    async def _try(
        self, addresses: list[IPAddress], port: int, source: Source, deadline: Deadline
    ) -> tuple[socket.socket, IPAddress]:
        """The addresses of one family, one after the other, each with its share of the time."""
        failure = NoConnect("no address")
        for index, ip in enumerate(addresses):
            share = deadline.left() / (len(addresses) - index)
            try:
                return await self._connect(ip, port, source, share), ip
            except NoConnect as error:
                failure = error
            except OSError as error:
                failure = _no_connect(error)
            except LookupError:
                failure = NoConnect("nothing answers there")
            if isinstance(failure, Exhausted | ProxyFailed):
                break
        raise failure

    async def _connect(
        self, ip: IPAddress, port: int, source: Source, seconds: float
    ) -> socket.socket:
        """A connected socket to `ip` and nobody else."""
        target = (str(ip), port)
        if self._seam is not None:
            target = self._seam(ip, port)
        # A proxy elsewhere does not lead to the sandbox of this process.
        if source.proxy is not None and self.classify(ip) is not Egress.SANDBOX:
            return await _by_proxy(source.proxy, target, seconds)
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if source.ip is not None and (source.ip.version == 6) == (":" in target[0]):
                sock.bind((str(source.ip), 0))
            await _connected(sock, target, seconds)
            if not _same(sock.getpeername()[0], target[0]):
                raise ConnectionAbortedError(errno.ECONNABORTED, "connected to another peer")
            if _same(sock.getsockname()[0], str(ip)) and self.classify(ip) is Egress.PUBLIC:
                raise ConnectionAbortedError(errno.ECONNABORTED, "connected to ourselves")
        except BaseException:
            sock.close()
            raise
        return sock


async def _by_proxy(proxy: Proxy, target: tuple[str, int], seconds: float) -> socket.socket:
    """A socket to a proxy that has connected itself to `target`, within so many seconds.

    The connection is ours, so that no password is said before the peer is known to be the proxy.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    family = socket.AF_INET6 if proxy.ip.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await _connected(sock, (str(proxy.ip), proxy.port), seconds)
        if not _same(sock.getpeername()[0], str(proxy.ip)):
            raise ProxyFailed("the proxy: connected to another peer")
        await _socks5(sock, proxy, target, max(0.0, until - loop.time()))
    except (OSError, ValueError) as error:
        sock.close()
        failure = _no_connect(error) if isinstance(error, OSError) else NoConnect("no SOCKS5")
        if isinstance(failure, Exhausted):
            raise failure from None
        raise ProxyFailed(f"the proxy: {failure}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _socks5(
    sock: socket.socket, proxy: Proxy, target: tuple[str, int], seconds: float
) -> None:
    """Have the proxy at the other end of `sock` connect itself to an IP address (RFC 1928)."""
    socks = _socks_library()
    client = socks.async_.asyncio.Proxy(
        socks.ProxyType.SOCKS5,
        str(proxy.ip),
        proxy.port,
        username=proxy.user or None,
        password=proxy.password or None,
        forward=cast(Any, _Opened(sock)),
    )
    try:
        await client.connect(*target, timeout=seconds)
    except socks.ProxyTimeoutError:
        raise ProxyFailed("the proxy: timed out") from None
    except socks.ProxyError as error:
        if said := _SAYS_OF_THE_HOST.get(error.error_code or 0):
            raise NoConnect(f"{said}, says the proxy") from None
        raise ProxyFailed(f"the proxy: {str(error).lower()}") from None


class _Opened:
    """Stands in for the proxy before ours in a chain of them: a connection that is open already."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **where: object) -> socket.socket:
        return self._sock


_SAYS_OF_THE_HOST: Final = {
    1: "no connection",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "timed out",
}
"""Replies that are about the host that was to be dialled (RFC 1928, section 6)."""


@lru_cache(maxsize=1)
def _socks_library() -> Any:
    """Imported only where a proxy is set, and before it is needed: it takes a while."""
    import python_socks.async_.asyncio

    return python_socks


async def _connected(
    sock: socket.socket, target: tuple[str, int], seconds: float | None = None
) -> None:
    """Connect a non-blocking socket to an IP address. Raises `OSError`, `TimeoutError` too.

    By hand, because `loop.sock_connect` under `asyncio.timeout` takes as much processor time as
    all reads and writes of a dialogue together.
    """
    code = sock.connect_ex(target)
    if code == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[bool] = loop.create_future()
        loop.add_writer(sock, _settle, ready, True)
        timer = None if seconds is None else loop.call_later(seconds, _settle, ready, False)
        try:
            in_time = await ready
        finally:
            loop.remove_writer(sock)
            if timer is not None:
                timer.cancel()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if in_time else errno.ETIMEDOUT
    if code:
        raise OSError(code, os.strerror(code))


def _settle(ready: asyncio.Future[bool], in_time: bool) -> None:
    if not ready.done():
        ready.set_result(in_time)


class ResolverSocket:
    """A datagram socket that knows one resolver. `heard` is given what comes: datagrams, errors.

    No transport of the event loop: to make one and wait for it took as long as the exchange, 10 µs.
    """

    __slots__ = ("_heard", "_loop", "_sock")

    def __init__(self, sock: socket.socket, heard: Callable[[bytes | OSError], None]) -> None:
        self._sock = sock
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)

    def send(self, message: bytes) -> None:
        """Send a datagram. One that the kernel has no room for is lost, as any may be."""
        try:
            self._sock.send(message)
        except BlockingIOError:
            pass
        except OSError as error:
            self._heard(error)

    def close(self) -> None:
        """Hear nothing more. Closing twice changes nothing."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _read(self) -> None:
        try:
            heard = self._sock.recv(DATAGRAM_MOST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._heard(error)
        else:
            self._heard(heard)


def open_resolver_udp(
    server: tuple[str, int], heard: Callable[[bytes | OSError], None]
) -> ResolverSocket:
    """A datagram socket connected to a configured resolver, from a port the kernel picks at random.

    Connected, so that only that resolver's datagrams arrive and its ICMP errors are reported.
    Raises `OSError`; `ValueError` if the server is not given as an IP address.
    """
    family, host = _numeric(server[0])
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect((host, server[1]))
        return ResolverSocket(sock, heard)
    except BaseException:
        sock.close()
        raise


async def open_resolver_tcp(
    server: tuple[str, int], factory: Callable[[], P]
) -> tuple[asyncio.Transport, P]:
    """A stream to a configured resolver. Raises `OSError`, or `ValueError` for a name.

    The caller bounds it in time; cancelling closes the socket.
    """
    family, host = _numeric(server[0])
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await _connected(sock, (host, server[1]))
    except BaseException:
        sock.close()
        raise
    return await asyncio.get_running_loop().create_connection(factory, sock=sock)


@lru_cache(maxsize=64)
def _numeric(server: str) -> tuple[socket.AddressFamily, str]:
    """Family and text of a resolver's address. Raises `ValueError` for a name.

    To read it anew for each question took as long as a question's own parsing: 10 µs.
    """
    ip = ip_address(server)
    return (socket.AF_INET6 if ip.version == 6 else socket.AF_INET), str(ip)


async def open_store_connection(
    server: tuple[str, int], tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to the configured store. `tls`: the certificate has to prove the server's name.

    A name is looked up as the system does it, because names of containers and of /etc/hosts are
    known there only; its addresses are tried in turn. Raises `OSError`. The caller bounds it in
    time; cancelling closes the socket.
    """
    loop = asyncio.get_running_loop()
    failure = OSError(errno.EADDRNOTAVAIL, "has no address")
    for family, _, _, _, target in await loop.getaddrinfo(*server, type=socket.SOCK_STREAM):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _connected(sock, (str(target[0]), server[1]))
        except OSError as error:
            sock.close()
            failure = error
            continue
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(
            sock=sock, ssl=tls, server_hostname=server[0] if tls else None
        )
    raise failure


def _lanes(addresses: Sequence[IPAddress]) -> list[list[IPAddress]]:
    """The addresses by family, IPv6 first, at most ADDRESSES_MOST and balanced between the two."""
    families = [[ip for ip in addresses if ip.version == version] for version in (6, 4)]
    lanes = [lane for lane in families if lane]
    return [lane[: ADDRESSES_MOST // len(lanes)] for lane in lanes]


def _same(one: str, other: str) -> bool:
    """Whether two texts are the same address; the kernel writes zones behind link-local ones."""
    if one == other or ":" not in one:  # an IPv4 address has one spelling here
        return one == other
    return ip_address(one.partition("%")[0]) == ip_address(other)


def _no_connect(error: OSError) -> NoConnect:
    """An operating-system error in our words; whose fault it is shows in the type."""
    if isinstance(error, ssl.SSLError):
        # Its errno is a number of OpenSSL's own; the reason is a word of a closed list.
        return NoConnect(f"tls: {(error.reason or 'handshake failed').lower().replace('_', ' ')}")
    words = os.strerror(error.errno).lower() if error.errno else type(error).__name__
    return Exhausted(words) if error.errno in _EXHAUSTED else NoConnect(words)


async def _abandon(tasks: Collection[asyncio.Task[tuple[socket.socket, IPAddress]]]) -> None:
    """End connects that lost. One that had connected all the same is closed, even if we are
    cancelled while waiting here.
    """
    for task in tasks:
        task.add_done_callback(_close_unwanted)
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _close_unwanted(task: asyncio.Task[tuple[socket.socket, IPAddress]]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result()[0].close()
