"""JSON Web Tokens, as far as two platforms need them: HMAC (FusionAuth) and RS256 (Entra).

What it promises: any text is a dictionary of claims or a `Refused`. Which kind of key is used
follows from the caller, never from the token (RFC 8725, 3.1): a token that names another algorithm
is refused.

The RSA part only ever verifies, with public keys, so that there is no secret whose timing could
leak; it builds the one encoded message that the signature may hold (RFC 8017, 9.2) and compares it
whole, which leaves no padding to be parsed. That keeps a large library out of the gate for the sake
of one platform.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from gate.hooks.adapter import Refused, Why

TOKEN_MOST: Final = 8192
MODULUS_LEAST: Final = 2048
"""Bits of an RSA key that is believed."""
YEAR_10000: Final = 253_402_300_800
"""Unix seconds; what is later is no time."""
_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER of DigestInfo for SHA-256, up to the digest (RFC 8017, 9.2, note 1)."""

Claims = dict[str, Any]


class Token(NamedTuple):
    """A token taken apart; nothing of it is proved."""

    header: Claims
    claims: Claims
    signed: bytes
    signature: bytes


class RsaKey(NamedTuple):
    """A public key."""

    modulus: int
    exponent: int


def take_apart(text: str) -> Token:
    """Raises `Refused` for what is no compact JWS with two JSON objects."""
    parts = text.split(".")
    if len(text) > TOKEN_MOST or not text.isascii() or len(parts) != 3:
        raise Refused(Why.MALFORMED)
    try:
        header, claims, signature = map(decode, parts)
        opened = msgspec.json.decode(header), msgspec.json.decode(claims)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Refused(Why.MALFORMED) from None
    if not isinstance(opened[0], dict) or not isinstance(opened[1], dict) or "crit" in opened[0]:
        raise Refused(Why.MALFORMED)
    return Token(opened[0], opened[1], text.rpartition(".")[0].encode(), signature)


def by_hmac(token: Token, keys: Sequence[bytes]) -> bytes:
    """The key that sealed the token."""
    name = token.header.get("alg")
    algorithm = _HASHES.get(name) if isinstance(name, str) else None
    if algorithm is None:
        raise Refused(Why.MALFORMED)
    fits = [
        key
        for key in keys
        if hmac.compare_digest(hmac.digest(key, token.signed, algorithm), token.signature)
    ]
    if not fits:
        raise Refused(Why.WRONG)
    return fits[0]


def by_rsa(token: Token, key: RsaKey) -> None:
    """Raises `Refused` unless `key` signed the token with RS256."""
    size = (key.modulus.bit_length() + 7) // 8
    number = int.from_bytes(token.signature, "big")
    if token.header.get("alg") != "RS256":
        raise Refused(Why.MALFORMED)
    if len(token.signature) != size or number >= key.modulus:
        raise Refused(Why.WRONG)
    opened = pow(number, key.exponent, key.modulus).to_bytes(size, "big")
    digest = _SHA256_INFO + hashlib.sha256(token.signed).digest()
    expected = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    if not hmac.compare_digest(opened, expected):
        raise Refused(Why.WRONG)


def in_time(claims: Claims, now: float, leeway: float) -> None:
    """Raises `Refused` outside `nbf` and `exp` (Unix seconds), as far as the token has them."""
    for name, sign in (("exp", 1), ("nbf", -1)):
        at = claims.get(name)
        if at is None:
            continue
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < YEAR_10000:
            raise Refused(Why.MALFORMED)
        if sign * (at - now) < -leeway:
            raise Refused(Why.STALE)


def rsa_keys(document: bytes) -> Mapping[str, RsaKey]:
    """The RSA keys of a key set (RFC 7517) by `kid`. Raises ValueError."""
    found = {}
    try:
        opened = msgspec.json.decode(document)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    listed = opened.get("keys") if isinstance(opened, dict) else None
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("kty") != "RSA":
            continue
        if not all(isinstance(entry.get(name), str) for name in ("kid", "n", "e")):
            continue
        number = int.from_bytes(decode(entry["n"]), "big")
        exponent = int.from_bytes(decode(entry["e"]), "big")
        if number.bit_length() >= MODULUS_LEAST and exponent >= 3:
            found[entry["kid"]] = RsaKey(number, exponent)
    if not found:
        raise ValueError("there is no RSA key of 2,048 bits or more with a kid in it")
    return found


def decode(text: str) -> bytes:
    """Unpadded URL-safe base64. Raises ValueError."""
    return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
