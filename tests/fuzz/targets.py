"""Everything that reads octets of strangers, and what alone may come out of it.

Each target takes octets, so that an input that was found once can be kept as a file. `run` may
raise the `allowed` exceptions; `most` is what one input may cost, in seconds of CPU.
"""

from __future__ import annotations

import struct
import tempfile
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from gate import address
from gate.api.sites import tenants_of
from gate.dns.wire import MX, Question, Reply, encode, read, tell
from gate.egress import Source
from gate.hooks import proofs
from gate.hooks.adapter import Call, Proof, Refused
from gate.hooks.registry import Registry
from gate.reason import GateError, RemoteProtocolError
from gate.seal import Seal
from gate.settings.read import load
from gate.smtp import reply
from gate.smtp.classify import Echo, classify
from gate.smtp.dialog import Dialog, Stage
from gate.smtp.finding import Question as Asked
from gate.smtp.finding import read as understand
from gate.smtp.session import Ending
from gate.token import Claims, Keys, mint, open_token

Octets = st.SearchStrategy[bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """See the module."""

    octets: Octets
    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()
    most: float = 0.01


# -- a mail server's octets ------------------------------------------------------------------------

PIECE: Final = b"\xfe"
"""Where a stream is cut into what arrives at once."""
_LINES: Final = [
    *(b"220 mx\r\n", b"250-mx\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 SMTPUTF8\r\n"),
    *(b"250 ok\r\n", b"550 5.1.1 no such user\r\n", b"450 4.7.1 later\r\n", b"421 bye\r\n"),
    *(b"354 go\r\n", b"550-5.7.1 x\r\n550 5.7.1 y\r\n", b"250\n", b"550-", b"2", b"\r", b"\n"),
    *(b"530 must issue STARTTLS first\r\n", b"\x00", b"250 \xc3\xa9\xff\r\n", PIECE, PIECE),
]
_SENT: Final = st.sampled_from(_LINES) | st.binary(max_size=20)
_SERVER: Final = st.lists(_SENT, max_size=40).map(b"".join)
_LONG: Final = st.builds(
    lambda head, part, times: head + part * times,
    st.sampled_from([b"", b"220 mx\r\n", b"250-", b"550 "]),
    st.sampled_from([b"x", b"250-x\r\n", b"5", b"\xff", b"a@b ", b"mx.test ", b"1.2.3.4 "]),
    st.integers(1, 20_000),
)


def _feed(octets: bytes) -> object:
    return reply.ReplyReader().feed(octets)


def _talk(octets: bytes) -> object:
    """A whole dialogue, and what is made of it however it ends."""
    dialog = Dialog(
        helo="gate.example.com",
        mail_from="probe@example.com",
        recipient="jane@example.org",
        control="x1@example.org",
        tls="when-required",
        smtputf8=False,
    )
    asked = Asked(
        destination="example.org",
        recipient="jane@example.org",
        control="x1@example.org",
        mail_from="probe@example.com",
        smtputf8=False,
        source=Source(None, "gate.example.com"),
        provider=None,
        tls="when-required",
    )
    ending = Ending.LOST
    for piece in octets.split(PIECE):
        try:
            dialog.receive(piece)
        except RemoteProtocolError:
            ending = Ending.BROKEN
            break
        if dialog.wants_tls:
            dialog.tls_started()
        dialog.outgoing()
    return understand(dialog, ending, asked, "192.0.2.1")


def _classify(octets: bytes) -> object:
    code = 200 + (octets[0] if octets else 0) * 399 // 255
    lines = tuple(octets[1:].decode("utf-8", "replace").split("\n"))[:100]
    echo = Echo("jane@example.org", "probe@example.com", "gate.example.com", "192.0.2.1")
    said = reply.Reply(code, lines)
    return [classify(stage, said, echo=echo) for stage in (Stage.MAIL, Stage.RCPT)]


_PHRASES: Final = [
    *(b"user unknown", b"mailbox", b"blocked using", b"zen.spamhaus.org", b"5.1.1", b"4.7.1"),
    *(b"greylist", b"<a@b.c>", b"try again in 300 seconds", b"https://x.y/p=z", b"1.2.3.4"),
    *(b"::1", b"no such", b"over quota", b"\xc3\x9f", b"\xef\xbc\xa1"),
]
_PHRASE: Final = st.sampled_from(_PHRASES) | st.binary(max_size=12)
_WORDS: Final = st.lists(_PHRASE, max_size=60).map(b" ".join)

# -- a name server's octets ------------------------------------------------------------------------

_QUESTION: Final = Question.about("many.test", MX, id=0x1234, case=0)


def _header(answers: int, rcode: int) -> bytes:
    return struct.pack("!6H", 0x1234, 0x8180 | rcode, 1, answers, 0, 0) + _QUESTION.section


def _mail_exchange(name: bytes) -> bytes:
    return b"\xc0\x0c" + struct.pack("!HHIH", MX, 1, 60, len(name) + 2) + b"\0\x0a" + name


_LABELS: Final = [b"\x01x", b"\x02mx", b"\xc0\x0c", b"\xc0\x1c", b"\0", b"\x40", b"\x3f"]
_LABEL: Final = st.sampled_from(_LABELS) | st.binary(max_size=6)
_NAME: Final = st.lists(_LABEL, max_size=110).map(b"".join)
_DNS: Final = st.builds(
    lambda answers, rcode, names, rest: (
        _header(answers, rcode) + b"".join(map(_mail_exchange, names)) + rest
    ),
    st.integers(0, 70),
    st.integers(0, 15),
    st.lists(_NAME, max_size=60),
    st.binary(max_size=200),
)


def _answer(octets: bytes) -> object:
    found = read(octets, _QUESTION)
    return tell(found, MX, [encode("many.test")], hops=8) if isinstance(found, Reply) else found


# -- what people and sites send --------------------------------------------------------------------

KEYS: Final = Keys(bytes(range(32)))
SECRET: Final = "whsec_" + b64encode(b"s" * 32).decode()
NOW: Final = 1_800_000_000.0
_CLAIMS: Final = Claims(
    site="shop",
    check="chk_" + "0" * 32,
    address=bytes(16),
    hostname="",
    action="",
    cdata="",
    issued=NOW,
    expires=NOW + 300,
    result="deliverable",
    reason="accepted_email",
    decision="allow",
    env="live",
)
_TOKEN: Final = mint(KEYS, _CLAIMS).encode()


def _damaged(whole: bytes) -> Octets:
    """Something whole with a few octets changed, taken out or put in."""
    change = st.tuples(st.integers(0, len(whole)), st.integers(0, 4), st.binary(max_size=4))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        octets = whole
        for at, gone, more in changes:
            octets = octets[:at] + more + octets[at + gone :]
        return octets

    return st.lists(change, max_size=4).map(apply)


def _proofs(octets: bytes) -> object:
    """Four lines: three headers and a body, to each way of proving a call."""
    one, two, three, body = [*octets.split(b"\n", 3), b"", b"", b"", b""][:4]
    names = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
    call = Call("POST", "", b"", list(zip(names, (one, two, three), strict=True)), body, False, NOW)
    again = Call("POST", "", b"", [(b"x", three)], body, False, NOW)
    key = proofs.webhook_key(SECRET)
    attempts: tuple[Callable[[], Proof], ...] = (
        lambda: proofs.standard_webhook(call, [key]),
        lambda: proofs.timed_hex(again, "x", [key], tolerance=1e18),
        lambda: proofs.timed_hex(again, "x", [key], tolerance=1e18, milliseconds=True),
        lambda: proofs.body_hex(again, "x", [key]),
        lambda: proofs.shared_header(again, "x", [key]),
    )
    believed = 0
    for prove in attempts:
        try:
            prove()
        except Refused:
            continue
        believed += 1
    return believed


_HEADERS: Final = st.lists(
    st.sampled_from(
        [
            b"msg_1",
            b"1800000000",
            b"v1,",
            b"v1,AAAA",
            b"t=1800000000,v1=" + b"a" * 64,
            b"v1a,x",
            b"\n",
        ]
        + [b"\n", b"\n", b"\n", b"Bearer x", b"Basic eA==", b" ", b",", b"t=,", b"=" * 5]
    )
    | st.binary(max_size=30),
    max_size=40,
).map(b"".join)

_SETTINGS: Final = b"""\
[server]
port = 0
trusted_proxies = ["10.0.0.0/8"]
[probe]
helo = "gate.example.com"
mail_from = "probe@example.com"
[store]
url = "memory:"
[[site]]
name = "shop"
site_key = "pk_shop"
secret_hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
origins = ["https://www.example.com"]
policy = { role = "warn", deny = ["x@example.org"] }
[[site.webhook]]
url = "https://hooks.example.com/"
secrets = ["whsec_c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M="]
[[hook]]
platform = "generic"
secrets = ["whsec_c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M="]
"""


def _settings(octets: bytes) -> object:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(octets)
        found = load(file.name, {})
    Registry(found.hook)
    return tenants_of(found.site, loopback=True)


_VALUES: Final = st.sampled_from(
    b'[]|{}|""|0|-1|true|nan|inf|1979-05-27|"\\u0000"|[[]]|[""]|[1]|"10.0.0.0/8"|"::/0"|9e999'.split(
        b"|"
    )
)
_KEYS: Final = [line.partition(b" =")[0] for line in _SETTINGS.splitlines() if b" =" in line]
_TREES: Final = st.lists(
    st.builds(
        lambda table, key, value: b"%s\n%s = %s\n" % (table, key, value),
        st.sampled_from([line for line in _SETTINGS.splitlines() if line.startswith(b"[")]),
        st.sampled_from(_KEYS),
        _VALUES,
    ),
    max_size=4,
).map(b"".join)

_TEXT: Final = st.text(st.characters(), max_size=400).map(
    lambda t: t.encode("utf-8", "surrogatepass")
)
_ADDRESS: Final = st.one_of(
    _TEXT,
    st.builds(lambda a, b: a + b"@" + b, _TEXT, _TEXT),
    _damaged("jané.doe+tag@mail.bücher.example".encode()),
    st.builds(
        lambda part, times: part * times,
        st.sampled_from(
            [b"a.", b"@", b"(", "\u0301".encode(), b"xn--", "\ufdfa".encode(), b"a@b."]
        ),
        st.integers(1, 5000),
    ),
)


def _parse(octets: bytes) -> object:
    return address.parse(octets.decode("utf-8", "surrogateescape"))


TARGETS: Final = {
    "reply": Target(_SERVER | _LONG | st.binary(max_size=400), _feed, (RemoteProtocolError,)),
    "dialogue": Target(_SERVER | _LONG, _talk),
    "wording": Target(_WORDS | st.binary(max_size=3000) | _LONG, _classify, most=0.03),
    "dns": Target(_DNS | _damaged(_header(2, 0) + _mail_exchange(b"\x02mx\xc0\x0c") * 2)
                  | st.binary(max_size=80), _answer, (RemoteProtocolError,)),
    "address": Target(_ADDRESS, _parse, most=0.005),
    "token": Target(
        _damaged(_TOKEN) | st.binary(max_size=200),
        lambda octets: open_token(KEYS, octets.decode("latin-1"), NOW),
    ),
    "sealed": Target(
        _damaged(Seal(KEYS).close("shop", "chk", b"jane@example.org")) | st.binary(max_size=100),
        lambda octets: Seal(KEYS).open("shop", "chk", octets),
    ),
    "signature": Target(_HEADERS | st.binary(max_size=6000), _proofs),
    "settings": Target(_damaged(_SETTINGS) | _TREES | st.binary(max_size=200), _settings,
                       (GateError,), most=0.1),
}  # fmt: skip
"""By name; corpus/NAME/ holds what was found."""
