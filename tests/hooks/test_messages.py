"""What a person is told: in which language, how much of it, and never nothing."""

from __future__ import annotations

import pytest

from gate.hooks.messages import MAILBOX_FACTS, TEXT_OF, built_in, say
from gate.hooks.payload import at, form_values, from_json, languages, text
from gate.reason import Flag, Reason

LANGUAGES = sorted(built_in())
KEYS = set(built_in()["en"])


def said(because: str, *spoken: str, **more: object) -> str:
    settings: dict[str, object] = {"own": {}, "reveal_mailbox": True, **more}
    return say(because, languages=spoken, **settings).text  # type: ignore[arg-type]


def test_six_languages_and_more() -> None:
    assert len(LANGUAGES) >= 6
    assert {"en", "de", "fr", "es", "pt", "ja"} <= set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language: str) -> None:
    texts = built_in()[language]
    assert set(texts) == KEYS
    assert set(TEXT_OF.values()) <= KEYS
    for key, value in texts.items():
        assert 0 < len(value) <= 200
        assert value.isprintable()
        assert ("{suggestion}" in value) == (key == "typo")


def test_english_is_ascii() -> None:
    assert all(value.isascii() for value in built_in()["en"].values())


@pytest.mark.parametrize("because", [*Reason, *Flag, "no_address", "", "nonsense"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_never_nothing(because: str, ascii_only: bool) -> None:
    for language in LANGUAGES:
        text = said(because, language, ascii_only=ascii_only)
        assert text.strip()
        assert "{" not in text
        assert text.isascii() or not ascii_only


@pytest.mark.parametrize(
    ("spoken", "language"),
    [
        (["de"], "de"),
        (["de-AT"], "de"),
        (["DE-at"], "de"),
        (["zh-Hans-CN"], "zh"),
        (["pt-BR", "en"], "pt"),
        (["xx", "fr"], "fr"),
        (["xx"], "en"),
        ([], "en"),
    ],
)
def test_the_first_language_there_is(spoken: list[str], language: str) -> None:
    found = say(Reason.INVALID_EMAIL, languages=spoken, own={}, reveal_mailbox=True)
    assert found.language == language
    assert found.text == built_in()[language]["invalid"]
    assert found.title == built_in()[language]["title"]


def test_the_operators_own_text_wins_in_its_language() -> None:
    own = {"de": "Nein.", "pt-BR": "Não.", "tlh": "ghobe'"}
    assert said(Reason.NO_MX, "de-DE", own=own) == "Nein."
    assert said(Reason.NO_MX, "pt-BR", own=own) == "Não."
    assert said(Reason.NO_MX, "pt-PT", own=own) == built_in()["pt"]["domain"]
    assert said(Reason.NO_MX, "tlh", own=own) == "ghobe'"
    assert said(Reason.NO_MX, "en", own=own) == built_in()["en"]["domain"]


def test_a_slip_is_named_only_when_it_is_known() -> None:
    assert "example.com" in said(Flag.POSSIBLE_TYPO, "en", suggestion="example.com")
    assert said(Flag.POSSIBLE_TYPO, "en") == built_in()["en"]["refused"]


def test_a_site_may_keep_to_itself_whether_a_mailbox_exists() -> None:
    hidden = [because for because, key in TEXT_OF.items() if key in MAILBOX_FACTS]
    assert Reason.REJECTED_EMAIL in hidden
    for because in hidden:
        text = said(because, "en", reveal_mailbox=False)
        assert text == built_in()["en"]["refused"]
    assert said(Reason.NO_MX, "en", reveal_mailbox=False) == built_in()["en"]["domain"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("de", ("de",)),
        ("de-AT, de;q=0.9, en;q=0.5", ("de-AT", "de", "en")),
        ("en;q=0.5, fr", ("fr", "en")),
        ("fr;q=0, en", ("en",)),
        ("de_DE", ("de-DE",)),
        ("*", ()),
        ("", ()),
        (None, ()),
        ("en;q=x, de;q=1.5", ("en", "de")),
        ("é, <script>, 123, a", ()),
        (",".join(["de"] * 500), ("de",)),
        (",".join(f"a{c}" for c in "abcdefghijklmnop"), tuple(f"a{c}" for c in "abcdefgh")),
    ],
)
def test_languages_of_a_header(header: str | None, expected: tuple[str, ...]) -> None:
    assert languages(header) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", {"b": [{"c": None}, {"c": "x"}], "d": "y"}),
        ("a.d", "y"),
        ("a.b[].c", "x"),
        ("a.b[]", {"c": None}),
        ("a.b.c", None),
        ("a.d.e", None),
        ("a.d[]", None),
        ("z", None),
        ("", None),
        ("[]", None),
    ],
)
def test_paths(path: str, expected: object) -> None:
    assert at({"a": {"b": [{"c": None}, {"c": "x"}], "d": "y"}}, path) == expected


def test_texts_are_texts() -> None:
    assert text({"a": "", "b": " ", "c": 1, "d": "x"}, "a", "b", "c", "d") == "x"
    assert text({"a": ["x"]}, "a") is None
    assert text(None, "a") is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"a":"\\ud800"}', b"NaN", b"[" * 10_000, b"1" * 5000 + b"x"]
)
def test_what_is_no_json(body: bytes) -> None:
    assert from_json(body) is None


def test_forms() -> None:
    assert form_values(b"a=1&email=x%40y.example&email=", "email") == ["x@y.example", ""]
    assert form_values(b"\xff", "email") == []
    assert form_values(b"a&" * 5000, "email") == []
