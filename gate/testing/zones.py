"""`FakeZones`: a DNS server on loopback, UDP and TCP, whose zones are a readable mapping.

    async with FakeZones({
        "example.test": "MX 10 mx.example.test",
        "mx.example.test": ["A 203.0.113.7", "60 AAAA 2001:db8::7"],
        "*.gone.test": NXDOMAIN,
        "slow.test MX": Late(0.3, "MX 10 mx.example.test"),
    }) as zones:
        Resolver([zones.server], private_names=True, …)

It answers as a recursive resolver does: aliases are followed, absence comes with a SOA, what is too
long for a datagram is marked truncated. A name that nobody planned is answered REFUSED and kept in
`unplanned`, so that a test can insist on there being none.

Keys: a name, a name and a type ("slow.test MX"), or a wildcard ("*.gone.test"); the most precise
one decides. Values: records ("[TTL] TYPE DATA", one or several) or a `Rcode`, `Late`, `Turns`,
`Truncated`, `Packets`, `Stream`, SILENT. `zones["name"] = value` changes a plan at any time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from gate.reason import GateError
from gate.testing.dns_listener import DnsListener, Send, Stream

TTL: Final = 300
"""Seconds, of records that name no other."""
PLAIN_DATAGRAM: Final = 512
"""Octets of an answer to a question without EDNS (RFC 1035 section 4.2.1)."""
REMEMBERED: Final = 10_000
"""Questions kept in the log: a sandbox may run for days."""


@dataclass(frozen=True, slots=True)
class Rcode:
    """An error: "SERVFAIL", say. `soa`: whether NXDOMAIN says how long it may be remembered.
    `unless_plain`: questions without EDNS get this instead.
    """

    name: str
    soa: bool = True
    unless_plain: Value | None = None


@dataclass(frozen=True, slots=True)
class Late:
    """`then`, after as many seconds."""

    seconds: float
    then: Value


class Turns:
    """One value after the other, a question each; the last one stays."""

    def __init__(self, *values: Value) -> None:
        self._values = deque(values)

    def take(self) -> Value:
        """The value whose turn it is."""
        return self._values.popleft() if len(self._values) > 1 else self._values[0]


@dataclass(frozen=True, slots=True)
class Truncated:
    """Over UDP the TC bit and nothing else; over TCP `then`."""

    then: Value


@dataclass(frozen=True, slots=True)
class Packets:
    """Any messages at all, in this order, made from the question."""

    make: Callable[[Query], Iterable[bytes]]


SILENT: Final = Packets(lambda query: ())
NXDOMAIN: Final = Rcode("NXDOMAIN")
SERVFAIL: Final = Rcode("SERVFAIL")

Value = str | Sequence[str] | Rcode | Late | Turns | Truncated | Packets | Stream


@dataclass(frozen=True, slots=True)
class Query:
    """One question as it came in."""

    message: dns.message.Message
    tcp: bool

    @property
    def name(self) -> str:
        """Lower case, no final dot."""
        return self.message.question[0].name.to_text(omit_final_dot=True).lower()

    @property
    def type(self) -> str:
        """MX, A, …"""
        return dns.rdatatype.to_text(self.message.question[0].rdtype)

    def __str__(self) -> str:
        return f"{self.name} {self.type}" + (" tcp" if self.tcp else "")

    def says(self, *records: str, rcode: str = "NOERROR") -> bytes:
        """The message that answers this question with `records`, for `Packets` to spoil."""
        answer = self.blank(rcode)
        answer.answer.extend(_rrset(self.name, record) for record in records)
        return answer.to_wire(max_size=65_535)

    def blank(self, rcode: str = "NOERROR") -> dns.message.Message:
        """An empty answer to this question, recursion available."""
        answer = dns.message.make_response(self.message, recursion_available=True)
        answer.set_rcode(dns.rcode.from_text(rcode))
        return answer


class FakeZones:
    """See the module. An async context manager; `server` is where it listens."""

    def __init__(self, plan: Mapping[str, Value], *, host: str = "127.0.0.1", tcp: bool = True):
        """`tcp`: False leaves the TCP port closed."""
        self._plan: dict[str, Value] = {}
        for key, value in plan.items():
            self[key] = value
        self._host = host
        self._tcp = tcp
        self.server: tuple[str, int] = (host, 0)
        self.queries: deque[str] = deque(maxlen=REMEMBERED)
        """Every question: "example.test MX", with " tcp" behind it if it came that way."""
        self.unplanned: deque[str] = deque(maxlen=REMEMBERED)
        """Questions for names that are not in the plan."""
        self._listener = DnsListener(self._respond)
        self._later: set[asyncio.TimerHandle] = set()
        self._news = asyncio.Event()

    def __setitem__(self, key: str, value: Value) -> None:
        """Plan an answer from now on. Raises `GateError` for a text that is no record."""
        for record in _records(value):
            _rrset(key.partition(" ")[0], record)
        self._plan[key.lower()] = value

    async def __aenter__(self) -> Self:
        self.server = await self._listener.open(self._host, tcp=self._tcp)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._later:
            handle.cancel()
        await self._listener.close()

    async def asked(self, count: int = 1) -> None:
        """Wait until as many questions have come in."""
        while len(self.queries) < count:
            self._news.clear()
            await self._news.wait()

    def _respond(self, wire: bytes, tcp: bool, send: Send) -> None:
        try:
            query = Query(dns.message.from_wire(wire), tcp)
        except dns.exception.DNSException:
            return
        if not query.message.question:
            return
        self.queries.append(str(query))
        self._news.set()
        value = self._planned(query.name, query.type)
        if value is None:
            self.unplanned.append(str(query))
            value = Rcode("REFUSED")
        self._send(value, query, send)

    def _planned(self, name: str, rdtype: str) -> Value | None:
        """The most precise plan: name and type, name, then wildcards from the longest one up."""
        suffix = name
        forms = [name]
        while suffix:
            suffix = suffix.partition(".")[2]
            forms.append(f"*.{suffix}" if suffix else "*")
        keys = (key for form in forms for key in (f"{form} {rdtype.lower()}", form))
        return next((self._plan[key] for key in keys if key in self._plan), None)

    def _send(self, value: Value, query: Query, send: Send) -> None:
        while isinstance(value, Turns):
            value = value.take()
        if isinstance(value, Late):
            self._send_later(value, query, send)
        elif isinstance(value, Truncated):
            if query.tcp:
                self._send(value.then, query, send)
            else:
                send(_truncated(query))
        elif isinstance(value, Packets):
            for packet in value.make(query):
                send(packet)
        elif isinstance(value, Stream):
            send(value if query.tcp else _truncated(query))
        elif isinstance(value, Rcode) and value.unless_plain is not None and query.message.edns < 0:
            self._send(value.unless_plain, query, send)
        else:
            send(self._fitting(self._answer(value, query), query))

    def _send_later(self, late: Late, query: Query, send: Send) -> None:
        def now() -> None:
            self._later.discard(handle)
            self._send(late.then, query, send)

        handle = asyncio.get_running_loop().call_later(late.seconds, now)
        self._later.add(handle)

    def _answer(self, value: Value, query: Query) -> dns.message.Message:
        """The answer of a plain resolver: records, aliases and what they lead to, or absence."""
        answer = query.blank()
        rdtype = query.message.question[0].rdtype
        name, seen = query.name, {query.name}
        while not isinstance(value, Rcode):
            records = [_rrset(name, text) for text in _records(value)]
            answer.answer.extend(r for r in records if r.rdtype in (rdtype, dns.rdatatype.CNAME))
            alias = next((r for r in records if r.rdtype == dns.rdatatype.CNAME), None)
            if alias is None or rdtype == dns.rdatatype.CNAME:
                break
            name = alias[0].target.to_text(omit_final_dot=True).lower()
            planned = self._planned(name, query.type)
            if name in seen or not isinstance(planned, str | Sequence | Rcode):
                return answer  # as a resolver that does not follow any further
            seen.add(name)
            value = planned
        if isinstance(value, Rcode):
            answer.set_rcode(dns.rcode.from_text(value.name))
        absent = value.name == "NXDOMAIN" and value.soa if isinstance(value, Rcode) else True
        if absent and not any(r.rdtype == rdtype for r in answer.answer):
            answer.authority.append(self._soa(name))
        return answer

    def _soa(self, name: str) -> dns.rrset.RRset:
        """The SOA planned for `name` or the nearest name above it, else one of our own."""
        at = name
        while at:
            for text in _records(self._plan.get(at)):
                record = _rrset(at, text)
                if record.rdtype == dns.rdatatype.SOA:
                    return record
            at = at.partition(".")[2]
        apex = name.rpartition(".")[2]
        return _rrset(apex, f"SOA ns.{apex} hostmaster.{apex} 1 3600 600 86400 {TTL}")

    def _fitting(self, answer: dns.message.Message, query: Query) -> bytes:
        wire = answer.to_wire(max_size=65_535)
        edns = query.message.edns >= 0
        limit = max(query.message.payload, PLAIN_DATAGRAM) if edns else PLAIN_DATAGRAM
        return wire if query.tcp or len(wire) <= limit else _truncated(query)


def _records(value: Value | None) -> Sequence[str]:
    """The records of a plan; none if it is something else."""
    if isinstance(value, str):
        return (value,)
    return value if isinstance(value, Sequence) else ()


@lru_cache(maxsize=REMEMBERED)
def _rrset(name: str, text: str) -> dns.rrset.RRset:
    """One record: "[TTL] TYPE DATA"; names in it are absolute with or without the final dot."""
    ttl, _, rest = text.partition(" ")
    if not ttl.isdigit():
        ttl, rest = str(TTL), text
    rdtype, _, data = rest.partition(" ")
    owner = dns.name.from_text(name)
    try:
        rdata = dns.rdata.from_text("IN", rdtype, data, origin=dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError) as error:
        raise GateError(f"{name}: {text!r} is no record: {error}") from None
    rrset = dns.rrset.RRset(owner, dns.rdataclass.IN, rdata.rdtype)
    rrset.add(rdata, int(ttl))
    return rrset


def _truncated(query: Query) -> bytes:
    answer = query.blank()
    answer.flags |= dns.flags.TC
    return answer.to_wire()
