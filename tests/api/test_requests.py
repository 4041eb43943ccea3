"""Bodies: what is read, and what is refused and how."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gate.api.problems import Problem
from gate.api.requests import CheckBody, SiteverifyBody, from_form, from_json

GOOD_JSON: list[tuple[str, bytes, dict[str, Any]]] = [
    ("only the address", b'{"email":"a@b.test"}', {"email": "a@b.test"}),
    ("escapes", rb'{"email":"\u006a\u00e9@b.test"}', {"email": "jé@b.test"}),
    ("a pair of surrogates", rb'{"email":"\ud83d\ude00@b.test"}', {"email": "😀@b.test"}),
    ("UTF-8", '{"email":"jé@b.test"}'.encode(), {"email": "jé@b.test"}),
    ("white space", b' {\n"email" :\t"a@b.test" } ', {"email": "a@b.test"}),
    ("a value that looks like a key", rb'{"email":"\"email\":","action":"email"}', {}),
    ("a value equal to a key", b'{"email":"email","action":"email"}', {"action": "email"}),
    ("nulls", b'{"email":"a@b.test","timeout_ms":null,"sitekey":null}', {"timeout_ms": None}),
    ("all of it", b'{"email":"a","timeout_ms":800,"max_age":0,"explain":true}', {"max_age": 0}),
    ("a control character escaped", rb'{"email":"\u0000"}', {"email": "\0"}),
    ("empty address", b'{"email":""}', {"email": ""}),
]
BAD_JSON: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("not JSON", b"email=a@b.test"),
    ("a list", b"[]"),
    ("a text", b'"a@b.test"'),
    ("no address", b"{}"),
    ("null address", b'{"email":null}'),
    ("number as address", b'{"email":5}'),
    ("NaN", b'{"email":NaN}'),
    ("Infinity", b'{"email":"a","timeout_ms":Infinity}'),
    ("lone high surrogate", rb'{"email":"\ud800@x"}'),
    ("lone low surrogate", rb'{"email":"\udc00@x"}'),
    ("surrogates the wrong way round", rb'{"email":"\udc00\ud800"}'),
    ("surrogate in UTF-8", b'{"email":"\xed\xa0\x80"}'),
    ("not UTF-8", b'{"email":"\xff"}'),
    ("raw control character", b'{"email":"\x01"}'),
    ("byte order mark", b'\xef\xbb\xbf{"email":"a"}'),
    ("trailing text", b'{"email":"a"} {}'),
    ("truncated", b'{"email":"a'),
    ("comment", b'{"email":"a"/**/}'),
    ("single quotes", b"{'email':'a'}"),
    ("doubled key", b'{"email":"a@x","email":"b@x"}'),
    ("doubled key, spaced", b'{"email" :"a@x" , "email" : "b@x"}'),
    ("doubled key, escaped", rb'{"email":"a@x","\u0065mail":"b@x"}'),
    ("doubled other key", b'{"email":"a","action":"x","action":"y"}'),
    ("unknown key", b'{"email":"a","e_mail":"b"}'),
    ("deep list", b'{"email":' + b"[" * 4000),
    ("deep unknown", b'{"email":"a","x":' + b"[" * 4000 + b"]" * 4000 + b"}"),
    ("5,000 digits", b'{"email":"a","timeout_ms":' + b"1" * 5000 + b"}"),
    ("5,000 digits alone", b"1" * 5000),
    ("float as int", b'{"email":"a","timeout_ms":1.5}'),
    ("text as int", b'{"email":"a","timeout_ms":"800"}'),
    ("below the least", b'{"email":"a","timeout_ms":49}'),
    ("above the most", b'{"email":"a","timeout_ms":10001}'),
    ("negative age", b'{"email":"a","max_age":-1}'),
    ("long action", b'{"email":"a","action":"' + b"x" * 33 + b'"}'),
    ("odd action", b'{"email":"a","action":"sign up"}'),
    ("action with a newline", rb'{"email":"a","action":"signup\n"}'),
    ("long cdata", b'{"email":"a","cdata":"' + b"x" * 256 + b'"}'),
]
GOOD_FORMS: list[tuple[str, bytes, dict[str, Any]]] = [
    ("plain", b"email=a@b.test", {"email": "a@b.test"}),
    ("encoded", b"email=j%C3%A9%2Bnews%40b.test", {"email": "jé+news@b.test"}),
    ("plus is a space", b"email=a+b@c.test", {"email": "a b@c.test"}),
    ("raw UTF-8", "email=jé@b.test".encode(), {"email": "jé@b.test"}),
    ("number", b"email=a&timeout_ms=800", {"timeout_ms": 800}),
    ("yes", b"email=a&explain=true", {"explain": True}),
    ("empty fields are not filled in", b"email=a&timeout_ms=&sitekey=", {"sitekey": None}),
    ("empty address", b"email=", {"email": ""}),
    ("no equals sign", b"email", {"email": ""}),
    ("empty pairs", b"&&email=a&", {"email": "a"}),
    ("equals sign in the value", b"email=a=b", {"email": "a=b"}),
]
BAD_FORMS: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("JSON", b'{"email":"a"}'),
    ("not UTF-8", b"email=%FF"),
    ("surrogate", b"email=%ED%A0%80"),
    ("raw bytes", b"email=\xff"),
    ("doubled", b"email=a&email=b"),
    ("doubled, encoded", b"email=a&%65mail=b"),
    ("unknown", b"email=a&other=b"),
    ("no number", b"email=a&timeout_ms=soon"),
    ("huge number", b"email=a&timeout_ms=" + b"1" * 5000),
    ("many fields", b"&".join(b"f%d=" % n for n in range(2000))),
]


@pytest.mark.parametrize(("name", "body", "expected"), GOOD_JSON, ids=lambda v: str(v)[:40])
def test_json_is_read(name: str, body: bytes, expected: dict[str, Any]) -> None:
    found = from_json(body, CheckBody)
    assert {field: getattr(found, field) for field in expected} == expected


@pytest.mark.parametrize(("name", "body"), BAD_JSON, ids=[name for name, _ in BAD_JSON])
def test_json_is_refused(name: str, body: bytes) -> None:
    with pytest.raises(Problem, check=lambda problem: problem.name == "invalid_request"):
        from_json(body, CheckBody)


@pytest.mark.parametrize(("name", "body", "expected"), GOOD_FORMS, ids=lambda v: str(v)[:40])
def test_forms_are_read(name: str, body: bytes, expected: dict[str, Any]) -> None:
    found = from_form(body, CheckBody)
    assert {field: getattr(found, field) for field in expected} == expected


@pytest.mark.parametrize(("name", "body"), BAD_FORMS, ids=[name for name, _ in BAD_FORMS])
def test_forms_are_refused(name: str, body: bytes) -> None:
    with pytest.raises(Problem, check=lambda problem: problem.name == "invalid_request"):
        from_form(body, CheckBody)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b'{"email":"a","e_mail":"b"}', "There is no key e_mail", id="plain name"),
        pytest.param(b'{"email":"a","<b>jane@x":1}', "There is no key of that name", id="odd name"),
        pytest.param(b"{}", "missing required field `email`", id="missing"),
        pytest.param(b'{"email":"a","timeout_ms":49}', "timeout_ms: ", id="out of range"),
        pytest.param(b'{"email":"a","email":"b"}', "email stands there twice", id="doubled"),
    ],
)
def test_what_is_wrong_is_named_and_values_are_not_repeated(body: bytes, said: str) -> None:
    with pytest.raises(Problem) as caught:
        from_json(body, CheckBody)
    assert said in caught.value.detail
    assert "jane" not in caught.value.detail


def test_siteverify_ignores_what_captcha_clients_send_along() -> None:
    found = from_json(b'{"secret":"s","response":"r","sitekey":"x","n":[1]}', SiteverifyBody)
    assert (found.secret, found.response) == ("s", "r")
    assert from_form(b"secret=s&response=r&sitekey=x", SiteverifyBody).response == "r"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["lists", "objects"])
def test_depth_in_an_ignored_key_is_refused_too(opening: bytes) -> None:
    body = rb'{"secret":"\u0041","x":' + opening * 1300
    with pytest.raises(Problem):
        from_json(body, SiteverifyBody)


@pytest.mark.parametrize("read", [from_json, from_form])
def test_the_worst_body_takes_no_time(read: Any) -> None:
    for body in (
        b'"' * 8192,
        b"&" * 8192,
        b"%" * 8192,
        b'{"email":"' + rb"\u00e9" * 1300,
        b"=&" * 4096,
    ):
        before = time.thread_time()
        with pytest.raises(Problem):
            read(body, CheckBody)
        assert time.thread_time() - before < 0.005
