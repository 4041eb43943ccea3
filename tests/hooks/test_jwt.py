"""Tokens of the two platforms that send them, made by a library and taken apart by us."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.hooks.adapter import Refused, Why
from gate.hooks.jwt import by_hmac, by_rsa, in_time, rsa_keys, take_apart

SECRET = "test_webhook_secret_for_hmac_signing_that_is_long_enough_for_every_algorithm"


@cache
def private(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def key_set(**keys: rsa.RSAPrivateKey) -> bytes:
    """A JWKS as a tenant publishes it."""
    entries = [
        {
            **json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())),
            "kid": kid,
            "use": "sig",
        }
        for kid, key in keys.items()
    ]
    return json.dumps({"keys": entries}).encode()


def part(document: object) -> str:
    return urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_hmac(algorithm: str) -> None:
    token = take_apart(jwt.encode({"a": 1}, SECRET, algorithm))
    assert by_hmac(token, [b"other", SECRET.encode()]) == SECRET.encode()
    with pytest.raises(Refused):
        by_hmac(token, [b"other"])


def test_the_token_does_not_choose_the_kind_of_key() -> None:
    public = key_set(one=private())
    confused = jwt.encode({"a": 1}, SECRET, "HS256", headers={"alg": "HS256", "kid": "one"})
    with pytest.raises(Refused):
        by_rsa(take_apart(confused), rsa_keys(public)["one"])
    signed = jwt.encode({"a": 1}, private(), "RS256")
    with pytest.raises(Refused):
        by_hmac(take_apart(signed), [SECRET.encode()])
    unsigned = f"{part({'alg': 'none'})}.{part({'a': 1})}."
    for check in (
        lambda token: by_hmac(token, [b""]),
        lambda token: by_rsa(token, rsa_keys(public)["one"]),
    ):
        with pytest.raises(Refused):
            check(take_apart(unsigned))


def test_rsa() -> None:
    keys = rsa_keys(key_set(one=private(), two=private(number=1)))
    assert set(keys) == {"one", "two"}
    text = jwt.encode({"a": 1}, private(), "RS256", headers={"kid": "one"})
    by_rsa(take_apart(text), keys["one"])
    with pytest.raises(Refused):
        by_rsa(take_apart(text), keys["two"])
    head, body, seal = text.split(".")
    for changed in (
        f"{head}.{part({'a': 2})}.{seal}",
        f"{head}.{body}.{seal[:-4]}",
        f"{head}.{body}.",
    ):
        with pytest.raises(Refused):
            by_rsa(take_apart(changed), keys["one"])
    with pytest.raises(Refused):
        by_rsa(take_apart(jwt.encode({"a": 1}, private(), "RS512")), keys["one"])


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1, {"kty": "EC", "kid": "a"}]}', b"\xff"],
)
def test_what_is_no_key_set_is_said(document: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        rsa_keys(document)


def test_a_short_key_is_not_believed() -> None:
    with pytest.raises(ValueError, match="2,048"):
        rsa_keys(key_set(weak=private(1024)))


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, None),
        ({"exp": 1000, "nbf": 1000}, None),
        ({"exp": 701}, None),
        ({"nbf": 1299}, None),
        ({"exp": 699}, Why.STALE),
        ({"nbf": 1301}, Why.STALE),
        ({"exp": "1000"}, Why.MALFORMED),
        ({"exp": True}, Why.MALFORMED),
        ({"exp": [1]}, Why.MALFORMED),
        ({"exp": 10**400}, Why.MALFORMED),
        ({"nbf": -1}, Why.MALFORMED),
    ],
)
def test_times(claims: dict[str, Any], expected: Why | None) -> None:
    found = None
    try:
        in_time(claims, 1000.0, 300.0)
    except Refused as refused:
        found = refused.why
    assert found is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b",
        "a.b.c.d",
        "..",
        f"{part([])}.{part({})}.AA",
        f"{part({'alg': 'HS256'})}.{part([1])}.AA",
        f"{part({'alg': 'HS256', 'crit': ['b64']})}.{part({})}.AA",
        f"{part({})}.{part({})}.é",
        f"{part({})}.{part({})}.@@",
        "A" * 9000 + ".A.A",
    ],
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Refused):
        take_apart(text)


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_no_text_makes_another_error(text: str) -> None:
    for candidate in (text, f"{part({'alg': text})}.{part({'exp': text})}.AAAA"):
        with pytest.raises(Refused):
            by_hmac(take_apart(candidate), [b"key"])
