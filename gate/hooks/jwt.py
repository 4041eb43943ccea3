"""JSON Web Tokens, as far as two platforms need them: HMAC (FusionAuth) and RS256 (Entra).

What it promises: any text is a dictionary of claims or a `Refused`. Which kind of key is used
follows from the caller, never from the token (RFC 8725, 3.1): a token that names another algorithm
is refused.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from gate.hooks.adapter import Refused, Why

TOKEN_MOST: Final = 8192
MODULUS_LEAST: Final = 2048
"""Bits of an RSA key that is believed."""
YEAR_10000: Final = 253_402_300_800
"""Unix seconds; what is later is no time."""
_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}

Claims = dict[str, Any]


class Token(NamedTuple):
    """A token taken apart; nothing of it is proved."""

    header: Claims
    claims: Claims
    signed: bytes
    signature: bytes


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


def by_rsa(token: Token, key: RSAPublicKey) -> None:
    """Raises `Refused` unless `key` signed the token with RS256."""
    if token.header.get("alg") != "RS256":
        raise Refused(Why.MALFORMED)
    try:
        key.verify(token.signature, token.signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        raise Refused(Why.WRONG) from None


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


def rsa_keys(document: bytes) -> Mapping[str, RSAPublicKey]:
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
        if number.bit_length() >= MODULUS_LEAST:
            found[entry["kid"]] = RSAPublicNumbers(exponent, number).public_key()
    if not found:
        raise ValueError("there is no RSA key of 2,048 bits or more with a kid in it")
    return found


def decode(text: str) -> bytes:
    """Unpadded URL-safe base64. Raises ValueError."""
    return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
