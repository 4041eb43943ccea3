"""Answers as a broken or hostile resolver gives them, made from the right one."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable

import dns.rcode
import dns.rrset

from gate.testing.zones import Packets, Query, Truncated

MX_GOOD = "MX 10 mx.good.test"
MX_HEAD = struct.pack("!HHI", 15, 1, 60)
"""Type, class and TTL of an MX record."""

Spoil = Callable[[bytes], bytes]


def then_right(spoil: Spoil, *, times: int = 1) -> Packets:
    """As many spoiled answers, and the right one behind them."""

    def make(query: Query) -> Iterable[bytes]:
        right = query.says(MX_GOOD)
        return [*(spoil(right) for _ in range(times)), right]

    return Packets(make)


def only(spoil: Spoil) -> Packets:
    """A spoiled answer and nothing else."""
    return Packets(lambda query: [spoil(query.says(MX_GOOD))])


def alone(*records: str, rcode: str = "NOERROR") -> Packets:
    """Just these records: no SOA, and no following of aliases."""
    return Packets(lambda query: [query.says(*records, rcode=rcode)])


def other_id(wire: bytes) -> bytes:
    (right,) = struct.unpack_from("!H", wire)
    return struct.pack("!H", right ^ random.randrange(1, 65_536)) + wire[2:]


def other_name(wire: bytes) -> bytes:
    return wire[:13] + b"z" + wire[14:]


def other_case(wire: bytes) -> bytes:
    return wire[:12] + wire[12:23].swapcase() + wire[23:]


def other_class(wire: bytes) -> bytes:
    return wire[:25] + b"\0\3" + wire[27:]


def other_flags(mask: int) -> Spoil:
    """Turns bits of the second header word over."""

    def spoil(wire: bytes) -> bytes:
        (flags,) = struct.unpack_from("!H", wire, 2)
        return wire[:2] + struct.pack("!H", flags ^ mask) + wire[4:]

    return spoil


def long_rdata(wire: bytes) -> bytes:
    """The first record claims more than there is."""
    return wire.replace(MX_HEAD[:4] + b"\0\0\1\x2c\0", MX_HEAD[:4] + b"\0\0\1\x2c\xff", 1)


def records(body: bytes, count: int = 1) -> Packets:
    """A good header and question, and `body` as the answer section."""

    def make(query: Query) -> Iterable[bytes]:
        blank = query.blank()
        blank.use_edns(False)
        wire = blank.to_wire()
        return [wire[:6] + struct.pack("!3H", count, 0, 0) + wire[12:] + body]

    return Packets(make)


def deep_owners() -> Packets:
    """62 MX records of good.test, all with an owner name of a hundred labels."""
    owner, first = b"\1x" * 100 + b"\0", struct.pack("!H", 0xC000 | 27)
    record = MX_HEAD + struct.pack("!HH", 4, 10) + first
    return records(owner + record + (first + record) * 61, 62)


def chain_of_aliases() -> Truncated:
    """1,500 aliases in one answer of 51 KB, for which TCP is needed."""

    def make(query: Query) -> Iterable[bytes]:
        answer = query.blank()
        owner = "good.test."
        for number in range(1500):
            target = f"alias-number-{number}.test."
            answer.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", target))
            owner = target
        return [answer.to_wire(max_size=65_535)]

    return Truncated(Packets(make))


def referral() -> Packets:
    """Where to ask, as a server that does not recurse says it."""

    def make(query: Query) -> Iterable[bytes]:
        answer = query.blank()
        answer.authority.append(dns.rrset.from_text("test.", 60, "IN", "NS", "ns.test."))
        return [answer.to_wire()]

    return Packets(make)


def bad_version(then: str) -> Packets:
    """BADVERS to EDNS (its low four bits are zero), `then` without."""

    def make(query: Query) -> Iterable[bytes]:
        if query.message.edns < 0:
            return [query.says(then)]
        answer = query.blank()
        answer.set_rcode(dns.rcode.BADVERS)
        return [answer.to_wire()]

    return Packets(make)


def stranger() -> Packets:
    """Records of a name that nobody asked for."""

    def make(query: Query) -> Iterable[bytes]:
        answer = query.blank()
        answer.answer.append(dns.rrset.from_text("evil.test.", 60, "IN", "MX", "1 mx.evil.test."))
        return [answer.to_wire()]

    return Packets(make)
