"""What is sent and when: body, signature, schedule, and what a receiver's answer means. Pure.

Standard Webhooks 1.0.0: three headers, HMAC-SHA-256 over `id.timestamp.body` with each active
secret, the signatures separated by spaces. The id names the message for ever: whoever gets it twice
has got one message twice.

Rules:

1. A 2xx is delivered; everything else, a redirect too, is not.
2. 410 Gone ends the endpoint; 429, 502 and 504 ask for patience.
3. `Retry-After` can put the next attempt off, up to a day, and never bring it forward: twelve
   attempts are to cover five days.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gate.budget import WEBHOOK_JITTER, WEBHOOK_RETRY_AFTER_MOST, WEBHOOK_WAITS
from gate.reason import Choice, Reason, Result

EVENT: Final = "check.completed"
ATTEMPTS: Final = len(WEBHOOK_WAITS) + 1
_PATIENCE: Final = frozenset({429, 502, 504})
_GONE: Final = 410


class Said(Struct, frozen=True, kw_only=True):
    """A verdict, as it was given first."""

    result: Result
    reason: Reason


class CheckData(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The late verdict of one check."""

    check: Annotated[str, Meta(description="id of the check, as its first answer gave it")]
    site: Annotated[str, Meta(description="name of the site")]
    address: Annotated[
        str, Meta(description="keyed hash of the address, the same for one address of one site")
    ]
    email: Annotated[
        str | UnsetType, Meta(description="the address itself, if the endpoint asks for it")
    ] = UNSET
    result: Result
    reason: Reason
    decision: Choice
    because: Annotated[str, Meta(description="the reason or flag that the decision rests on")]
    first: Annotated[Said, Meta(description="what was said at first")]
    found_at: Annotated[str, Meta(description="when it was found out, ISO 8601 in UTC")]


class CheckCompleted(Struct, frozen=True, kw_only=True):
    """The body of `check.completed`."""

    type: Literal["check.completed"] = "check.completed"
    timestamp: Annotated[str, Meta(description="when the message was made, ISO 8601 in UTC")]
    data: CheckData


class Told(Struct, frozen=True, gc=False):
    """What came of one attempt: a status, or else why there is none, in a few known words."""

    status: int | None = None
    failure: str = ""
    retry_after: str = ""

    @property
    def note(self) -> str:
        """For the operator."""
        return str(self.status) if self.status is not None else self.failure


class Outcome(Enum):
    """What an attempt means for its message and its endpoint."""

    DELIVERED = "delivered"
    FAILED = "failed"
    SLOW = "slow"
    GONE = "gone"


def message_id(check: str, reason: Reason) -> str:
    """The id of the message that tells of a verdict: found out again, it is the same."""
    return "msg_" + hashlib.sha256(f"{check}\0{reason}".encode()).hexdigest()[:32]


def encode(message: CheckCompleted) -> bytes:
    """The body, once and for all attempts."""
    return msgspec.json.encode(message)


def iso(at: float) -> str:
    """Unix time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def sign(keys: Sequence[bytes], message: str, at: int, body: bytes) -> str:
    """The `webhook-signature` of a body under each key; `at` is Unix time in seconds."""
    signed = b"%s.%d.%s" % (message.encode(), at, body)
    macs = (hmac.digest(key, signed, "sha256") for key in keys)
    return " ".join(f"v1,{b64encode(mac).decode()}" for mac in macs)


def outcome_of(told: Told) -> Outcome:
    """What an attempt means."""
    if told.status is None:
        return Outcome.FAILED
    if 200 <= told.status < 300:
        return Outcome.DELIVERED
    if told.status == _GONE:
        return Outcome.GONE
    return Outcome.SLOW if told.status in _PATIENCE else Outcome.FAILED


def wait(attempts: int, told: Told, *, chance: float, now: float) -> float | None:
    """Seconds until the next attempt after so many; None: that was the last.

    `chance` is between 0 and 1; `now` is Unix time, for receivers that name a date.
    """
    if attempts >= ATTEMPTS:
        return None
    planned = WEBHOOK_WAITS[attempts - 1] * (1 + WEBHOOK_JITTER * (2 * chance - 1))
    asked = _retry_after(told.retry_after, now)
    return max(planned, min(asked, WEBHOOK_RETRY_AFTER_MOST))


def _retry_after(text: str, now: float) -> float:
    """Seconds that a Retry-After header names (RFC 9110, section 10.2.3); 0 for nonsense."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now)
