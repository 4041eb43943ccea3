"""What an adapter is given, what it gives back, and what it has to be able to do.

Rules:

1. `prove` comes first and looks at the octets as they arrived; nothing of a call is read before.
2. A call that is not proved is refused, and nobody learns how close it came. A proved call that
   cannot be read, or holds no address, is allowed: the person is not at fault.
3. An answer's octets are made here, once, so that what is signed is what is sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple

import msgspec

from gate.hooks.settings import Hook
from gate.reason import GateError

Headers = list[tuple[bytes, bytes]]

WHOLE: Final[Headers] = [(b"content-type", b"application/json")]


class Why(StrEnum):
    """Why a call is refused: for the log, where the operator finds it, and for nobody else."""

    MISSING = "missing"
    """A header that carries the proof is not there."""
    MALFORMED = "malformed"
    DOUBLED = "doubled"
    """A header that carries the proof stands there twice."""
    STALE = "stale"
    """Signed too long ago, or in the future."""
    WRONG = "wrong"
    """No secret of ours fits."""
    UNTRUSTED = "untrusted"
    """Without a secret, only this machine and trusted proxies are listened to."""


class Refused(Exception):
    """The call is not proved to be the platform's."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request of a platform.

    `rest` is the path below the hook's own. `trusted`: the other end of the connection is this
    machine or a trusted proxy. `now` is Unix time. Header names in `headers` are in small letters.
    """

    method: str
    rest: str
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    trusted: bool
    now: float

    def header(self, name: str) -> str | None:
        """The first header of this name. Octets beyond ASCII stay distinct."""
        wanted = name.lower().encode("latin-1", "replace")
        found = next((value for key, value in self.headers if key == wanted), None)
        return None if found is None else found.decode("latin-1")

    def proof(self, name: str) -> str:
        """A header that proves something. Raises `Refused`: it is missing, or there are two."""
        wanted = name.lower().encode("latin-1", "replace")
        found = [value for key, value in self.headers if key == wanted]
        if not found:
            raise Refused(Why.MISSING)
        if len(found) > 1:
            raise Refused(Why.DOUBLED)
        return found[0].decode("latin-1")


class Proof(NamedTuple):
    """What proved the call.

    `secret` is the one that fitted. `mark` is what a repetition of the same message has in common
    with it; None: the platform gives its calls nothing to tell a repetition by.
    """

    secret: bytes = b""
    mark: bytes | None = None


class Asked(NamedTuple):
    """What is asked: an address, or None; the person's languages, preferred ones first."""

    email: str | None = None
    languages: tuple[str, ...] = ()


class Said(NamedTuple):
    """The text that a person may read, and what it rests on."""

    because: str
    title: str
    text: str
    language: str


class Wire(NamedTuple):
    """An answer as it goes out."""

    status: int
    body: bytes = b""
    headers: Headers = WHOLE


class Adapter(ABC):
    """One configured hook."""

    methods: ClassVar[frozenset[str]] = frozenset({"POST"})
    """Empty: any."""
    deep: ClassVar[bool] = False
    """Paths below the hook's own are its as well."""
    address_in_url: ClassVar[bool] = False
    """The caller's protocol puts the address into the URL; everywhere else that is refused."""
    ascii_only: ClassVar[bool] = False
    """Texts beyond ASCII cannot be shown."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.secrets = [secret.encode() for secret in hook.secrets]

    @abstractmethod
    def prove(self, call: Call) -> Proof:
        """Raises `Refused`, and nothing else, for whatever a stranger may send."""

    @abstractmethod
    def read(self, call: Call) -> Asked:
        """The address in a proved call. What cannot be read holds none."""

    @abstractmethod
    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        """The platform goes on."""

    @abstractmethod
    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        """The platform turns the person away and, where it can, shows `said`."""

    def refuse(self) -> Wire | None:
        """The answer to a call that is not proved; None: the problem document, status 401."""
        return None

    def wrong(self, key: str, advice: str) -> GateError:
        """The error that a setting of this hook ends the start with."""
        return GateError(f"hook {self.hook.path}: {key}: {advice}")


def as_json(status: int, body: object) -> Wire:
    """An answer with a JSON body."""
    return Wire(status, msgspec.json.encode(body))
