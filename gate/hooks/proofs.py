"""The ways in which platforms prove a call: signatures over the raw body, and shared headers.

What it promises: whatever stands in a header, a function here returns a `Proof` or raises
`Refused`; it takes well under a millisecond of work that grows with the body only; secrets and
signatures are compared in constant time, and each of several secrets is good.

Sources: the Standard Webhooks specification 1.0.0; github.com/zitadel/zitadel
pkg/actions/signing.go; WorkOS's SDKs; authgear's docs/specs/hook.md.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from typing import Final

from gate.budget import HOOK_TOLERANCE
from gate.hooks.adapter import Call, Proof, Refused, Why

HEADER_MOST: Final = 4096
SIGNATURES_MOST: Final = 8
KEY_LEAST: Final = 24
KEY_MOST: Final = 64
"""Octets of a Standard Webhooks secret."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""No full stop: `id.time.body` could then be cut in two ways."""
_SECONDS = re.compile(r"[0-9]{10,11}")
_MILLISECONDS = re.compile(r"[0-9]{13,14}")
_HEX = re.compile(r"[0-9a-fA-F]{64}")


# -- Standard Webhooks ---------------------------------------------------------------------------


def webhook_key(secret: str) -> bytes:
    """The key of a secret, written `whsec_…`, `v1,whsec_…` or plain base64. Raises ValueError."""
    text = secret.strip().removeprefix("v1,").removeprefix("whsec_")
    key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    if not KEY_LEAST <= len(key) <= KEY_MOST:
        raise ValueError(f"a secret has {KEY_LEAST} to {KEY_MOST} octets")
    return key


def standard_webhook(call: Call, keys: Sequence[bytes]) -> Proof:
    """`webhook-id`, `webhook-timestamp` and `webhook-signature` over `id.time.body`."""
    message, at = call.proof("webhook-id"), call.proof("webhook-timestamp")
    offered = _webhook_signatures(call.proof("webhook-signature"))
    if not _ID.fullmatch(message) or not _SECONDS.fullmatch(at):
        raise Refused(Why.MALFORMED)
    fresh(float(at), call.now, HOOK_TOLERANCE)
    key = _fitting(keys, f"{message}.{at}.".encode() + call.body, offered)
    return Proof(key, mark(message.encode(), call.body))


def _webhook_signatures(text: str) -> list[bytes]:
    """`v1,A v1,B` as the specification has it, and `v1,A, v1,B` as Supabase writes it.

    Other versions (`v1a`) are passed over; so is what is no base64.
    """
    if len(text) > HEADER_MOST:
        raise Refused(Why.MALFORMED)
    items = text.split()
    if not 0 < len(items) <= SIGNATURES_MOST:
        raise Refused(Why.MALFORMED)
    found = []
    for item in items:
        version, _, encoded = item.rstrip(",").partition(",")
        if version == "v1":
            try:
                found.append(b64decode(encoded, validate=True))
            except (Base64Error, ValueError):
                continue
    return found


# -- `t=…,v1=…` ----------------------------------------------------------------------------------


def timed_hex(
    call: Call, header: str, keys: Sequence[bytes], *, tolerance: float, milliseconds: bool = False
) -> Proof:
    """`t=TIME,v1=HEX[,v1=HEX]` over `TIME.body`."""
    text = call.proof(header)
    pairs = [part.strip().partition("=") for part in text.split(",", SIGNATURES_MOST + 1)]
    times = [value for name, _, value in pairs if name == "t"]
    offered = [bytes.fromhex(v) for name, _, v in pairs if name == "v1" and _HEX.fullmatch(v)]
    grammar = _MILLISECONDS if milliseconds else _SECONDS
    if len(text) > HEADER_MOST or len(times) != 1 or not grammar.fullmatch(times[0]):
        raise Refused(Why.MALFORMED)
    seconds = float(times[0]) / (1000 if milliseconds else 1)
    fresh(seconds, call.now, tolerance)
    key = _fitting(keys, times[0].encode() + b"." + call.body, offered)
    return Proof(key, mark(times[0].encode(), call.body))


def body_hex(call: Call, header: str, keys: Sequence[bytes]) -> Proof:
    """The hex HMAC of the body alone."""
    text = call.proof(header).strip()
    if not _HEX.fullmatch(text):
        raise Refused(Why.MALFORMED)
    key = _fitting(keys, call.body, [bytes.fromhex(text)])
    return Proof(key, mark(b"", call.body))


# -- shared headers ------------------------------------------------------------------------------


def shared_header(call: Call, header: str, secrets: Sequence[bytes]) -> Proof:
    """A header that holds a secret: bare, behind `Bearer`, or as `user:password` of `Basic`."""
    text = call.proof(header)
    if len(text) > HEADER_MOST:
        raise Refused(Why.MALFORMED)
    scheme, _, rest = text.partition(" ")
    offered = [text.encode("latin-1")]
    if scheme.lower() == "bearer":
        offered.append(rest.strip().encode("latin-1"))
    elif scheme.lower() == "basic":
        try:
            offered.append(b64decode(rest.strip(), validate=True))
        except (Base64Error, ValueError):
            raise Refused(Why.MALFORMED) from None
    for secret in secrets:
        if any([same(secret, value) for value in offered]):
            return Proof(secret)
    raise Refused(Why.WRONG)


# -- parts ---------------------------------------------------------------------------------------


def fresh(at: float, now: float, tolerance: float) -> None:
    """Raises `Refused` for a time too far from now, on either side."""
    if not abs(now - at) <= tolerance:
        raise Refused(Why.STALE)


def same(one: bytes, other: bytes) -> bool:
    """Whether both are equal, in a time that depends on neither's content nor length."""
    return hmac.compare_digest(hashlib.sha256(one).digest(), hashlib.sha256(other).digest())


def mark(*parts: bytes) -> bytes:
    """What a repetition of the same message has in common with it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _fitting(keys: Sequence[bytes], signed: bytes, offered: Iterable[bytes]) -> bytes:
    """The key that made one of the signatures; every pair is compared, whichever it is."""
    signatures = list(offered)
    fits = [
        key
        for key in keys
        for signature in signatures
        if hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature)
    ]
    if not fits:
        raise Refused(Why.WRONG)
    return fits[0]
