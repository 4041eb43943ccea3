"""Answers as a broken or hostile resolver gives them, for `FakeZones`: forged, cut off, endless.

    async with FakeZones({
        "good.test": then_right(other_id, "MX 10 mx.good.test", times=50),
        "deep.test": deep_owners(),
    }) as zones: …

A *spoil* makes a wrong message of the right one; what it does not touch is as it should be. The
bombs are as large as a datagram or a stream can carry, and cost us next to nothing to make.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from typing import Final

import dns.edns
import dns.rcode
import dns.rrset

from gate.testing.zones import Packets, Query, Truncated

MX_GOOD: Final = "MX 10 mx.good.test"
"""What the right answer says unless another is named."""
MX_HEAD: Final = struct.pack("!HHI", 15, 1, 60)
"""Type, class and TTL of an MX record."""

Spoil = Callable[[bytes], bytes]


def then_right(spoil: Spoil, right: str = MX_GOOD, *, times: int = 1) -> Packets:
    """As many spoiled answers, and the right one behind them."""

    def make(query: Query) -> Iterable[bytes]:
        message = query.says(right)
        return [*(spoil(message) for _ in range(times)), message]

    return Packets(make)


def only(spoil: Spoil, right: str = MX_GOOD) -> Packets:
    """A spoiled answer and nothing else."""
    return Packets(lambda query: [spoil(query.says(right))])


def alone(*records: str, rcode: str = "NOERROR") -> Packets:
    """Just these records: no SOA, and no following of aliases."""
    return Packets(lambda query: [query.says(*records, rcode=rcode)])


def other_id(wire: bytes) -> bytes:
    """The answer to a question that was never asked."""
    (right,) = struct.unpack_from("!H", wire)
    return struct.pack("!H", right ^ random.randrange(1, 65_536)) + wire[2:]  # noqa: S311 - noise


def other_name(wire: bytes) -> bytes:
    """The right id, and another name in the question."""
    return wire[:13] + b"z" + wire[14:]


def other_case(wire: bytes) -> bytes:
    """The letters of the question in the other case: whoever guesses has to guess them too."""
    end = _question_end(wire)
    return wire[:12] + wire[12:end].swapcase() + wire[end:]


def other_class(wire: bytes) -> bytes:
    """The question is of class CHAOS."""
    end = _question_end(wire)
    return wire[: end + 2] + b"\0\3" + wire[end + 4 :]


def other_flags(mask: int) -> Spoil:
    """Turns bits of the second header word over."""

    def spoil(wire: bytes) -> bytes:
        (flags,) = struct.unpack_from("!H", wire, 2)
        return wire[:2] + struct.pack("!H", flags ^ mask) + wire[4:]

    return spoil


def long_rdata(wire: bytes) -> bytes:
    """The first record claims more than there is. It has the default TTL."""
    return wire.replace(MX_HEAD[:4] + b"\0\0\1\x2c\0", MX_HEAD[:4] + b"\0\0\1\x2c\xff", 1)


def _question_end(wire: bytes) -> int:
    """Where the name in the question ends."""
    return wire.index(b"\0", 12) + 1


def records(body: bytes, count: int = 1) -> Packets:
    """A good header and question, and `body` as the answer section."""

    def make(query: Query) -> Iterable[bytes]:
        blank = query.blank()
        blank.use_edns(False)
        wire = blank.to_wire()
        return [wire[:6] + struct.pack("!3H", count, 0, 0) + wire[12:] + body]

    return Packets(make)


def deep_owners() -> Packets:
    """62 MX records with an owner name of a hundred labels, for a question as long as good.test."""
    owner, first = b"\1x" * 100 + b"\0", struct.pack("!H", 0xC000 | 27)
    record = MX_HEAD + struct.pack("!HH", 4, 10) + first
    return records(owner + record + (first + record) * 61, 62)


def chain_of_aliases(count: int = 1500) -> Truncated:
    """So many aliases in one answer, fifty kilobytes of them, for which TCP is needed."""

    def make(query: Query) -> Iterable[bytes]:
        blank = query.blank()
        blank.use_edns(False)
        wire = blank.to_wire()
        parent = struct.pack("!H", 0xC000 | 13 + wire[12])
        owner, answers = b"\xc0\x0c", b""
        for number in range(count):
            label = b"alias-%d" % number
            target = bytes((len(label),)) + label + parent
            answers += owner + struct.pack("!HHIH", 5, 1, 60, len(target)) + target
            owner = target
        return [wire[:6] + struct.pack("!3H", count, 0, 0) + wire[12:] + answers]

    return Truncated(Packets(make))


def crowd(count: int) -> Truncated:
    """So many public addresses of one host; TCP is needed to say them."""

    def make(query: Query) -> Iterable[bytes]:
        blank = query.blank()
        blank.use_edns(False)
        wire = blank.to_wire()
        head = b"\xc0\x0c" + struct.pack("!HHIHBB", 1, 1, 60, 4, 9, 9)
        answers = b"".join(head + number.to_bytes(2, "big") for number in range(count))
        return [wire[:6] + struct.pack("!3H", count, 0, 0) + wire[12:] + answers]

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


def bogus() -> Packets:
    """SERVFAIL of a validating resolver, with the extended error "DNSSEC Bogus" (RFC 8914)."""

    def make(query: Query) -> Iterable[bytes]:
        answer = query.blank("SERVFAIL")
        answer.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS)])
        return [answer.to_wire()]

    return Packets(make)


def stranger() -> Packets:
    """Records of a name that nobody asked for."""

    def make(query: Query) -> Iterable[bytes]:
        answer = query.blank()
        answer.answer.append(dns.rrset.from_text("evil.test.", 60, "IN", "MX", "1 mx.evil.test."))
        return [answer.to_wire()]

    return Packets(make)
