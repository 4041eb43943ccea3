from __future__ import annotations

import struct
import time
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.dns.wire import (
    AAAA,
    MAX_LABELS,
    MAX_MESSAGE,
    MX,
    A,
    Kind,
    Question,
    Reply,
    encode,
    folded,
    host_name,
    read,
    tell,
)
from gate.reason import GateError, RemoteProtocolError

NAME = "many.test"
CASE = int.from_bytes(b"\x20\x00" * 8)
"""Every other octet of a name."""
QUESTION = Question.about(NAME, MX, id=0x1234, case=CASE)
FIRST_RECORD = 12 + len(QUESTION.section)
FIRST_TARGET = FIRST_RECORD + 2 + 10 + 2
"""Where the MX name of a first record with a compressed owner stands."""


def at(offset: int) -> bytes:
    """A compression pointer."""
    return struct.pack("!H", 0xC000 | offset)


HERE = at(12)
"""The name of the question."""


def header(answers: int = 0, *, flags: int = 0x8180, id: int = 0x1234, questions: int = 1) -> bytes:
    return struct.pack("!6H", id, flags, questions, answers, 0, 0)


def message(*records: bytes, question: Question = QUESTION) -> bytes:
    return header(len(records)) + question.section + b"".join(records)


def record(owner: bytes, rdtype: int, rdata: bytes, *, ttl: int = 60, length: int = -1) -> bytes:
    size = len(rdata) if length < 0 else length
    return owner + struct.pack("!HHIH", rdtype, 1, ttl, size) + rdata


def mx(target: bytes, *, owner: bytes = HERE) -> bytes:
    return record(owner, MX, b"\x00\x0a" + target)


def deep(labels: int) -> bytes:
    return b"\x01x" * labels + b"\0"


def cpu(work: Callable[[], object]) -> float:
    """The least of five: other programs on the machine make a run longer, never shorter."""
    runs = []
    for _ in range(5):
        start = time.thread_time()
        work()
        runs.append(time.thread_time() - start)
    return min(runs)


def kept(raw: bytes, question: Question = QUESTION) -> Reply | str | None:
    try:
        return read(raw, question)
    except RemoteProtocolError as error:
        return str(error)


def test_a_question_is_what_dnspython_reads() -> None:
    question = Question.about(
        "mx.example.test", A, id=7, case=int.from_bytes(b"\0\0\x20\xff" + bytes(13))
    )
    theirs = dns.message.from_wire(question.message(edns=True))
    assert theirs.question[0].to_text() == "mX.example.test. IN A"
    assert (theirs.id, theirs.payload, theirs.flags) == (7, 1232, dns.flags.RD)
    assert dns.message.from_wire(question.message(edns=False)).edns == -1


@pytest.mark.parametrize(
    "name", ["bücher.test", "", "a..test", f"{'x' * 64}.test", "x." * 127 + "x"]
)
def test_what_is_no_domain_is_a_mistake_of_ours(name: str) -> None:
    with pytest.raises(GateError, match=r"parse the address first"):
        encode(name)


NOT_OURS = [
    ("nothing", b""),
    ("one_byte", b"\x12"),
    ("half_a_header", header()[:11]),
    ("another_id", header(id=0x1235) + QUESTION.section),
    ("a_query_qr_0", header(flags=0x0100) + QUESTION.section),
    ("opcode_not_0", header(flags=0x8980) + QUESTION.section),
    ("no_question", header(questions=0)),
    ("two_questions", header(questions=2) + QUESTION.section * 2),
    ("another_name", header() + Question.about("other.test", MX, id=0, case=0).section),
    ("another_case", header() + Question.about(NAME, MX, id=0, case=0).section),
    ("another_type", header() + Question.about(NAME, A, id=0, case=CASE).section),
    ("another_class", header() + QUESTION.section[:-1] + b"\x03"),
]


@pytest.mark.parametrize("raw", [raw for _, raw in NOT_OURS], ids=[name for name, _ in NOT_OURS])
def test_what_does_not_match_is_not_ours(raw: bytes) -> None:
    assert read(raw, QUESTION) is None


MALFORMED = [
    ("N24_no_records_where_one_was_said", header(1) + QUESTION.section),
    ("N24_record_cut_off", message(mx(b"\x02mx" + HERE))[:-3]),
    ("N24_rdlength_past_the_end", message(record(HERE, MX, b"\0\x0a\x02mx\0", length=200))),
    ("N24_mx_of_two_bytes", message(record(HERE, MX, b"\0\x0a"))),
    ("N24_mx_name_ends_before_its_rdata", message(record(HERE, MX, b"\0\x0a\x02mx\0junk"))),
    ("N24_mx_name_ends_behind_its_rdata", message(record(HERE, MX, b"\0\x0a\x02mx\0", length=4))),
    ("a_of_five_bytes", message(record(HERE, A, b"\x7f\0\0\1\0"))),
    ("aaaa_of_four_bytes", message(record(HERE, AAAA, b"\x7f\0\0\1"))),
    ("bytes_behind_the_last_record", message(mx(b"\x02mx" + HERE)) + b"\0"),
    ("N30_pointer_to_itself", message(mx(at(FIRST_TARGET)))),
    ("N30_pointer_forward", message(mx(b"\xc0\xff"))),
    ("N30_pointer_past_the_end", message(mx(b"\xff\xff"))),
    ("N30_two_pointers_in_a_circle", message(mx(at(FIRST_TARGET + 16)), mx(at(FIRST_TARGET)))),
    ("N30_label_type_0x40", message(mx(b"\x41x\0"))),
    ("N30_label_type_0x80", message(mx(b"\x81x\0"))),
    ("name_of_256_octets", message(mx(deep(128)))),
    ("label_past_the_end", message(mx(b"\x3fx"))),
    ("N28_longer_than_we_look", message(*[mx(b"\x02mx" + HERE)] * 300)),
]


@pytest.mark.parametrize("raw", [raw for _, raw in MALFORMED], ids=[name for name, _ in MALFORMED])
def test_what_matches_and_breaks_the_format_is_the_peers_fault(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(raw, QUESTION)
    assert cpu(lambda: kept(raw)) < 0.005


def bomb_of_pointers() -> bytes:
    """N29: 62 MX records in 1,232 octets, each a long owner name by pointer."""
    pointer = at(FIRST_RECORD)
    return message(mx(HERE, owner=deep(100)), *[mx(pointer, owner=pointer)] * 61)


def bomb_of_labels() -> bytes:
    """Names that share nothing: the most labels that fit."""
    return message(*[mx(deep(120), owner=deep(120))] * 8)


def bomb_of_steps() -> bytes:
    """Every name one label longer than the last, by a pointer to it, until it is too long."""
    size = 2 + 10 + 2 + 4
    targets = [HERE, *(at(FIRST_TARGET + size * n) for n in range(199))]
    return message(*[mx(b"\x01x" + target) for target in targets])


@pytest.mark.parametrize("bomb", [bomb_of_pointers, bomb_of_labels, bomb_of_steps])
def test_a_bomb_costs_no_more_than_an_answer(bomb: Callable[[], bytes]) -> None:
    raw = bomb()
    assert len(raw) <= MAX_MESSAGE
    assert cpu(lambda: kept(raw)) < 0.005
    reply = kept(raw)
    if isinstance(reply, Reply):
        assert tell(reply, MX, [encode(NAME)], hops=8).kind is Kind.FAILED


def test_labels_are_counted() -> None:
    assert kept(bomb_of_labels()) == "a DNS answer with too many labels"
    assert MAX_LABELS < 8 * 2 * 120


def test_a_hundred_mx_records_are_an_ordinary_answer() -> None:
    reply = read(message(*[mx(b"\x05%05d" % n + HERE) for n in range(100)]), QUESTION)
    assert reply is not None
    assert len(tell(reply, MX, [encode(NAME)], hops=8).records) == 100


def test_n34_a_ttl_with_its_top_bit_set_is_zero() -> None:
    reply = read(message(record(HERE, MX, b"\0\x0a\x02mx\0", ttl=1 << 31)), QUESTION)
    assert reply is not None
    assert reply.answers[0].ttl == 0


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_an_error_may_come_as_a_bare_header(rcode: int) -> None:
    reply = read(header(flags=0x8000 | rcode, questions=0), QUESTION)
    assert reply == Reply(rcode, truncated=False)


def test_an_extended_error_is_no_empty_answer() -> None:
    """BADVERS has zero in the header; taken for NODATA it would prove that there is no MX."""
    answer = dns.message.make_response(dns.message.from_wire(QUESTION.message(edns=True)))
    answer.use_edns(0)
    answer.set_rcode(dns.rcode.BADVERS)
    reply = read(answer.to_wire(), QUESTION)
    assert reply is not None
    assert reply.rcode == 16


def test_an_answer_in_other_letter_case_is_known_as_such() -> None:
    lower = Question.about(NAME, MX, id=QUESTION.id, case=0)
    assert folded(header() + lower.section, QUESTION)
    assert not folded(header(id=1) + lower.section, QUESTION)
    assert not folded(b"\x12\x34", QUESTION)


HOSTS = [
    ("mx.example.test", "mx.example.test"),
    ("MX.Example.TEST", "mx.example.test"),
    ("_dc-mx.example.test", "_dc-mx.example.test"),
    ("2130706433", None),
    ("localhost", None),
    ("127.0.0.1", None),
    ("127.1", None),
    ("0x7f.1", None),
    ("0x7f.0x1", None),
    ("mx.0x", None),
]
ODD_LABELS = [b"[127", b"a b", b"a\0b", b"a@b", b"\xe2\x91\xa0", b"a.b", b"a\\b", b"\xff"]


@pytest.mark.parametrize(("name", "host"), HOSTS)
def test_a_mail_host_has_a_host_name(name: str, host: str | None) -> None:
    assert host_name(encode(name).lower()) == host


@pytest.mark.parametrize("label", ODD_LABELS)
def test_an_odd_label_makes_no_host(label: bytes) -> None:
    assert host_name(bytes([len(label)]) + label + b"\x04test\0") is None


LABELS = st.text("abcXYZ019-_", min_size=1, max_size=12)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)


@given(
    NAMES,
    st.lists(st.tuples(st.integers(0, 65_535), NAMES), min_size=1, max_size=20),
    st.integers(0, 2**31 - 1),
)
def test_reads_what_dnspython_writes(name: str, hosts: list[tuple[int, str]], ttl: int) -> None:
    question = Question.about(name.lower(), MX, id=99, case=CASE)
    answer = dns.message.make_response(dns.message.from_wire(question.message(edns=True)))
    records = [f"{preference} {host}." for preference, host in hosts]
    owner = answer.question[0].name
    answer.answer.append(dns.rrset.from_text_list(owner, ttl, "IN", "MX", records))
    reply = read(answer.to_wire(), question)
    assert reply is not None
    told = tell(reply, MX, [encode(name.lower())], hops=8)
    assert (told.kind, told.ttl) == (Kind.FOUND, ttl)
    ours = {(r.preference, r.name) for r in told.records}
    assert ours == {(preference, encode(host.lower())) for preference, host in hosts}


@given(st.binary(max_size=600), st.integers(0, 30), st.integers(0, 15))
def test_arbitrary_bytes_behind_a_good_header(body: bytes, answers: int, rcode: int) -> None:
    raw = header(answers, flags=0x8180 | rcode) + QUESTION.section + body

    def work() -> None:
        reply = kept(raw)
        if isinstance(reply, Reply):
            tell(reply, MX, [encode(NAME)], hops=8)

    assert cpu(work) < 0.005


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_never_ours(raw: bytes) -> None:
    reply = kept(raw)
    assert reply is None or raw[:2] == b"\x12\x34"


@given(st.data())
def test_a_damaged_answer_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(message(mx(b"\x02mx" + HERE), mx(b"\x03mx2" + HERE), mx(b"\x01x\0")))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    reply = kept(cut)
    if isinstance(reply, Reply):
        tell(reply, MX, [encode(NAME)], hops=8)
