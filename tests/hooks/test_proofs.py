"""Proofs by themselves: the grammar of each header, both ways to rotate, and no foreign error."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.hooks import proofs
from gate.hooks.adapter import Call, Proof, Refused, Why
from tests.hooks.ground import (
    NOW,
    OTHER_WEBHOOK_SECRET,
    WEBHOOK_SECRET,
    authgear_headers,
    hex_seal,
    webhook_headers,
    zitadel_headers,
)

BODY = b'{"email":"jane@example.com"}'
KEY = proofs.webhook_key(WEBHOOK_SECRET)
OTHER_KEY = proofs.webhook_key(OTHER_WEBHOOK_SECRET)
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GOOD = webhook_headers(BODY)["webhook-signature"]


def call(headers: dict[str, str], body: bytes = BODY, now: float = NOW) -> Call:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Call("POST", "", b"", raw, body, False, now)


def why(headers: dict[str, str], body: bytes = BODY, now: float = NOW) -> Why | None:
    """Why a Standard Webhooks call is refused; None: it is believed."""
    try:
        proofs.standard_webhook(call(headers, body, now), [KEY])
    except Refused as refused:
        return refused.why
    return None


def test_the_specifications_own_vector() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    proof = proofs.standard_webhook(
        call(headers, b'{"test": 2432232314}', 1614265330.0), [proofs.webhook_key(VECTOR_SECRET)]
    )
    assert proof.secret == KEY


@pytest.mark.parametrize("joined", [" ", ", ", "  "], ids=["standard", "supabase", "two spaces"])
@pytest.mark.parametrize("first", [True, False], ids=["right first", "wrong first"])
def test_both_forms_of_rotation(joined: str, first: bool) -> None:
    keys = [WEBHOOK_SECRET, OTHER_WEBHOOK_SECRET]
    headers = webhook_headers(BODY, keys=keys if first else keys[::-1], joined=joined)
    assert why(headers) is None
    proof = proofs.standard_webhook(call(headers), [OTHER_KEY])
    assert proof.secret == OTHER_KEY


def test_any_of_our_secrets_is_good() -> None:
    headers = webhook_headers(BODY, keys=[OTHER_WEBHOOK_SECRET])
    assert proofs.standard_webhook(call(headers), [KEY, OTHER_KEY]).secret == OTHER_KEY


SIGNATURES = {
    "no version": "abc",
    "nothing behind the version": "v1,",
    "no base64": "v1,@@@",
    "only other versions": "v1a,x v2,y",
    "another version with the right seal": GOOD.replace("v1,", "v1a,"),
    "empty": "",
    "spaces": "   ",
    "commas": ",,,,",
    "ten thousand": " ".join(["v1,AAAA"] * 10_000),
    "nine, the last one right": " ".join([*["v1,AAAA"] * 8, GOOD]),
    "beyond ASCII": "v1,é",
    "cut off": GOOD[:-3],
    "urlsafe alphabet": GOOD.replace("+", "-").replace("/", "_") + "-",
    "glued": GOOD + GOOD,
    "padded too much": GOOD + "==",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_malformed_signature_is_refused_and_nothing_else(name: str) -> None:
    begun = time.perf_counter()
    assert why({**webhook_headers(BODY), "webhook-signature": SIGNATURES[name]}) is not None
    assert time.perf_counter() - begun < 0.005


def test_eight_signatures_are_looked_at() -> None:
    eight = " ".join([*["v1,AAAA"] * 7, GOOD])
    assert why({**webhook_headers(BODY), "webhook-signature": eight}) is None


@pytest.mark.parametrize(
    "at",
    "1e9 1767225600.0 nan inf -1767225600 +1767225600 0x69 1767225600000 17672256 ١٧٦٧٢٢٥٦٠٠ "
    "1_767_225_600".split()
    + ["", " 1767225600", "1767225600\n"],
)
def test_a_time_is_ten_or_eleven_digits(at: str) -> None:
    raw = at.encode("utf-8").decode("latin-1")
    headers = {**webhook_headers(BODY), "webhook-timestamp": raw}
    assert why(headers) is Why.MALFORMED


@pytest.mark.parametrize("name", ["a.1", "", "a b", "a/b", "é", "x" * 65, "a\n"])
def test_an_id_cannot_run_into_the_time(name: str) -> None:
    headers = {**webhook_headers(BODY, message="a"), "webhook-id": name}
    assert why(headers) is Why.MALFORMED


def test_a_full_stop_in_the_id_is_refused_though_it_is_signed() -> None:
    assert why(webhook_headers(BODY, message="a.1")) is Why.MALFORMED


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(name: str) -> None:
    headers = webhook_headers(BODY)
    del headers[name]
    assert why(headers) is Why.MISSING


def test_what_the_log_says() -> None:
    assert why(webhook_headers(BODY, at=NOW - 301)) is Why.STALE
    assert why(webhook_headers(BODY, at=NOW + 301)) is Why.STALE
    assert why(webhook_headers(BODY, keys=[OTHER_WEBHOOK_SECRET])) is Why.WRONG
    assert why(webhook_headers(BODY), BODY + b" ") is Why.WRONG


@pytest.mark.parametrize(
    "secret",
    [
        WEBHOOK_SECRET,
        WEBHOOK_SECRET.removeprefix("whsec_"),
        f"v1,{WEBHOOK_SECRET}",
        f" {WEBHOOK_SECRET}\n",
    ],
)
def test_a_secret_is_read_however_it_is_copied(secret: str) -> None:
    assert proofs.webhook_key(secret) == KEY


@pytest.mark.parametrize(
    "secret",
    [
        "changeme",
        "whsec_",
        "whsec_AAAA",
        "whsec_" + b64encode(bytes(65)).decode(),
        "whpk_" + b64encode(bytes(32)).decode(),
        "v1a,whsk_" + b64encode(bytes(64)).decode(),
        "whsec_ä",
    ],
)
def test_what_is_no_secret_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        proofs.webhook_key(secret)


# -- t=…,v1=… --------------------------------------------------------------------------------------


def timed(text: str, *, body: bytes = BODY, now: float = NOW) -> Why | None:
    try:
        proofs.timed_hex(call({"x-sig": text}, body, now), "x-sig", [b"one", b"two"], tolerance=300)
    except Refused as refused:
        return refused.why
    return None


ONE = zitadel_headers(BODY, "one")["ZITADEL-Signature"]
TWO = zitadel_headers(BODY, "two")["ZITADEL-Signature"]
NEITHER = zitadel_headers(BODY, "three")["ZITADEL-Signature"]
SEAL = ONE.partition("v1=")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ONE, None),
        (TWO, None),
        (ONE.replace(",", ", "), None),
        (f"{NEITHER},v1={SEAL}", None),
        (f"v1={SEAL},t={int(NOW)}", None),
        (f"{ONE},v0=x,scheme=y", None),
        (ONE.replace(SEAL, SEAL.upper()), None),
        (NEITHER, Why.WRONG),
        (f"t={int(NOW)}", Why.WRONG),
        (f"t={int(NOW)},v1=", Why.WRONG),
        (f"t={int(NOW)},v1={SEAL[:-1]}", Why.WRONG),
        (f"t={int(NOW)},v2={SEAL}", Why.WRONG),
        (f"v1={SEAL}", Why.MALFORMED),
        (f"{ONE},t={int(NOW)}", Why.MALFORMED),
        (f"t=1e9,v1={SEAL}", Why.MALFORMED),
        (f"t={NOW},v1={SEAL}", Why.MALFORMED),
        (ONE + ",v1=0" * 5000, Why.MALFORMED),
        ("", Why.MALFORMED),
        ("é", Why.MALFORMED),
        ("=,=,=", Why.MALFORMED),
    ],
)
def test_times_and_seals_in_one_header(text: str, expected: Why | None) -> None:
    assert timed(text) is expected


def test_the_time_is_what_was_signed() -> None:
    assert timed(ONE.replace(str(int(NOW)), str(int(NOW) + 1))) is Why.WRONG
    assert timed(ONE, now=NOW + 301) is Why.STALE


def test_a_seal_of_the_body_alone() -> None:
    headers = authgear_headers(BODY, "key")
    proof = proofs.body_hex(call(headers), "x-authgear-body-signature", [b"other", b"key"])
    assert proof.secret == b"key"
    for text in ("", "zz" * 32, hex_seal("key", BODY)[:-2], hex_seal("wrong", BODY)):
        with pytest.raises(Refused):
            proofs.body_hex(
                call({"x-authgear-body-signature": text}), *("x-authgear-body-signature", [b"key"])
            )


# -- shared headers --------------------------------------------------------------------------------

SECRET = "user:pass word é"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SECRET, None),
        (f"Bearer {SECRET}", None),
        (f"bearer  {SECRET} ", None),
        ("Basic " + b64encode(SECRET.encode()).decode(), None),
        ("other", None),
        (f"Token {SECRET}", Why.WRONG),
        (SECRET + "x", Why.WRONG),
        (SECRET[:-1], Why.WRONG),
        ("Basic user:pass", Why.MALFORMED),
        ("Basic é", Why.MALFORMED),
        ("", Why.WRONG),
        ("x" * 5000, Why.MALFORMED),
    ],
)
def test_a_shared_secret_bare_bearer_or_basic(text: str, expected: Why | None) -> None:
    sent = text.encode().decode("latin-1")
    secrets = [SECRET.encode(), b"other"]
    found = None
    try:
        proofs.shared_header(call({"authorization": sent}), "Authorization", secrets)
    except Refused as refused:
        found = refused.why
    assert found is expected


# -- nothing but a proof or a refusal --------------------------------------------------------------

HEADER = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=300)


@settings(max_examples=300)
@given(HEADER, HEADER, HEADER, st.binary(max_size=100))
def test_no_header_makes_another_error(one: str, two: str, three: str, body: bytes) -> None:
    headers = {"webhook-id": one, "webhook-timestamp": two, "webhook-signature": three}
    attempts: tuple[Callable[[], Proof], ...] = (
        lambda: proofs.standard_webhook(call(headers, body), [KEY]),
        lambda: proofs.timed_hex(call({"x": three}, body), "x", [KEY], tolerance=1e18),
        lambda: proofs.timed_hex(
            call({"x": three}, body), "x", [KEY], tolerance=1e18, milliseconds=True
        ),
        lambda: proofs.body_hex(call({"x": three}, body), "x", [KEY]),
        lambda: proofs.shared_header(call({"x": three}, body), "x", [KEY]),
    )
    for prove in attempts:
        with pytest.raises(Refused):
            prove()
