"""`token`: what is sealed opens, nothing else does, and keys never meet."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.address import Address, parse
from gate.token import Claims, Keys, Seal, TokenFault, mint, open_token

KEYS = Keys(bytes(range(32)))
NOW = 1_800_000_000.0
CLAIMS = Claims(
    site="shop",
    check="chk_0123456789abcdef",
    address=KEYS.address_hash("shop", "jane@example.com"),
    hostname="shop.example",
    action="signup",
    cdata="cart-7",
    issued=NOW,
    expires=NOW + 300,
    result="deliverable",
    reason="accepted_email",
    decision="allow",
    env="live",
)


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def test_what_was_minted_opens() -> None:
    assert open_token(KEYS, mint(KEYS, CLAIMS), NOW) == CLAIMS


def test_a_token_shows_no_address() -> None:
    token = mint(KEYS, CLAIMS)
    shown = token + "".join(
        base64.urlsafe_b64decode(part + "==").decode("latin-1") for part in token.split(".")[1:]
    )
    assert "jane" not in shown and "@" not in token


def test_every_truncation_is_refused() -> None:
    token = mint(KEYS, CLAIMS)
    for length in range(len(token)):
        assert open_token(KEYS, token[:length], NOW) is TokenFault.INVALID


def forgeries() -> dict[str, str]:
    token = mint(KEYS, CLAIMS)
    version, kid, payload, seal = token.split(".")
    other = Keys(bytes(32))
    header = b64(json.dumps({"alg": "none", "typ": "JWT"}).encode())
    body = f"{version}.{kid}.{b64(b'no msgpack')}"
    sealed_rubbish = b64(hmac.digest(KEYS.derive("shop", "token"), body.encode(), "sha256"))
    return {
        "nothing": "",
        "dots": "...",
        "no seal": f"{version}.{kid}.{payload}.",
        "no seal nor dot": f"{version}.{kid}.{payload}",
        "seal of zeros": f"{version}.{kid}.{payload}.{'A' * 43}",
        "seal twice": f"{token}.{seal}",
        "other version": f"v2.{kid}.{payload}.{seal}",
        "no version": f"{kid}.{payload}.{seal}",
        "other kid": f"{version}.{b64(b'other')}.{payload}.{seal}",
        "no kid": f"{version}..{payload}.{seal}",
        "kid that is no text": f"{version}.{b64(bytes([255]))}.{payload}.{seal}",
        "empty payload": f"{version}.{kid}..{seal}",
        "padded": f"{version}.{kid}.{payload}.{seal}=",
        "standard alphabet": token.replace("-", "+").replace("_", "/") + "+/",
        "trailing octets": f"{token}AA",
        "trailing newline": f"{token}\n",
        "leading space": f" {token}",
        "letter beyond ascii": token[:-1] + "é",
        "lone surrogate": token[:-1] + "\ud800",
        "jwt with alg none": f"{header}.{payload}.",
        "jwt dressed as ours": f"{version}.{header}.{payload}.{seal}",
        "very long": "v1." + "A" * 100_000,
        "other master key": mint(other, CLAIMS),
        "sealed rubbish": f"{body}.{sealed_rubbish}",
        "sealed with the address key": _sealed_with(KEYS.derive("shop", "address")),
        "sealed with a webhook key": _sealed_with(KEYS.derive("shop", "webhook")),
        "sealed with another site's key": _sealed_with(KEYS.derive("blog", "token")),
        "sealed with the master key": _sealed_with(bytes(range(32))),
    }


def _sealed_with(key: bytes) -> str:
    body = mint(KEYS, CLAIMS).rpartition(".")[0]
    return f"{body}.{b64(hmac.digest(key, body.encode(), 'sha256'))}"


@pytest.mark.parametrize("text", forgeries().values(), ids=forgeries())
def test_a_forgery_is_refused(text: str) -> None:
    assert open_token(KEYS, text, NOW) is TokenFault.INVALID


def test_another_spelling_of_the_last_letter_is_refused() -> None:
    """Unpadded base64 leaves bits over in a last letter: only one spelling may pass."""
    token = mint(KEYS, CLAIMS)
    opened = [
        letter
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if isinstance(open_token(KEYS, token[:-1] + letter, NOW), Claims)
    ]
    assert opened == [token[-1]]


@dataclass
class At:
    seconds: float
    outcome: TokenFault | None


TIMES = {
    "at once": At(0, None),
    "just before the end": At(299.9, None),
    "within the skew": At(304.9, None),
    "after it": At(305.1, TokenFault.EXPIRED),
    "a day later": At(86_400, TokenFault.EXPIRED),
    "clock a little behind": At(-4.9, None),
    "made in the future": At(-5.1, TokenFault.INVALID),
    "clock ten minutes back": At(-600, TokenFault.INVALID),
}


@pytest.mark.parametrize("at", TIMES.values(), ids=TIMES)
def test_time(at: At) -> None:
    """G3: 300 s, five seconds of skew, and nothing from the future."""
    opened = open_token(KEYS, mint(KEYS, CLAIMS), NOW + at.seconds)
    assert opened == (at.outcome or CLAIMS)


def test_the_seal_comes_before_the_expiry() -> None:
    """G6: a forger does not learn that a guess is merely too old."""
    token = mint(KEYS, CLAIMS)
    assert open_token(KEYS, token[:-2] + "AA", NOW + 1000) is TokenFault.INVALID


def test_site_and_environment_are_inside_the_seal() -> None:
    """G4: what the caller compares cannot be changed by anybody."""
    opened = open_token(KEYS, mint(KEYS, msgspec.structs.replace(CLAIMS, env="test")), NOW)
    assert isinstance(opened, Claims)
    assert (opened.site, opened.env) == ("shop", "test")


ADDRESSES = {
    "other person": "john@example.com",
    "other case": "Jane@example.com",
    "tag": "jane+a@example.com",
    "dot": "j.ane@example.com",
    "other domain": "jane@example.org",
}


@pytest.mark.parametrize("typed", ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_stands_for_itself_only(typed: str) -> None:
    """G5: exact form, nothing folded but the domain."""
    address = parse(typed)
    assert isinstance(address, Address)
    assert KEYS.address_hash("shop", address.exact) != CLAIMS.address


def test_the_domain_is_folded() -> None:
    address = parse("jane@EXAMPLE.com")
    assert isinstance(address, Address)
    assert KEYS.address_hash("shop", address.exact) == CLAIMS.address


NAMES = st.text(max_size=6)


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_keys_of_different_uses_never_meet(one: tuple[str, str], other: tuple[str, str]) -> None:
    """E3, G4: a boundary cannot be moved from the site's name into the purpose."""
    assert (KEYS.derive(*one) == KEYS.derive(*other)) == (one == other)
    assert (KEYS.address_hash(*one) == KEYS.address_hash(*other)) == (one == other)


@given(st.text(st.characters(), max_size=100), st.floats(0, 2e9))
def test_no_text_raises(text: str, now: float) -> None:
    assert isinstance(open_token(KEYS, text, now), TokenFault)
    assert isinstance(open_token(KEYS, f"v1.{text}", now), TokenFault)


def test_more_sites_than_keys_are_kept_for() -> None:
    keys = Keys(bytes(range(32)))
    before = keys.derive("shop", "token")
    for number in range(2000):
        keys.derive(f"site {number}", "token")
    assert keys.derive("shop", "token") == before == keys.derive_anew("shop", "token")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_a_seal_is_hmac_sha256(key: bytes, message: bytes) -> None:
    assert Seal(key).of(message) == hmac.digest(key, message, "sha256")
