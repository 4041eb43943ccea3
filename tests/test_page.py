"""The page at `/`: self-contained but for the widget, escaped, allowed to run by its own policy."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from gate import page, widget
from gate.sandbox import EXAMPLES
from gate.settings import Settings
from gate.settings.read import parse

ON = parse({"sandbox": {"enabled": True}, "server": {"port": 8123}})
OFF = parse({})
KEY = "pk_0123456789abcdef"


def render(settings: Settings, key: str = KEY) -> bytes:
    return page.render(settings, key, widget.script())


class Reading(HTMLParser):
    """The elements of a page, and the text of its script and style."""

    VOID = frozenset(("meta", "link", "input", "br"))

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, str] = {}
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.inline[self.open[-1]] = self.inline.get(self.open[-1], "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("settings", [ON, OFF], ids=["sandbox", "development"])
def test_it_is_well_formed_and_loads_the_widget_and_nothing_else(settings: Settings) -> None:
    reading = Reading(render(settings))
    assert not reading.open
    assert not reading.unbalanced
    sources = [
        value
        for tag, attributes in reading.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data") and tag != "use"
    ]
    assert [s for s in sources if not str(s).startswith("data:")] == [
        widget.script().path,
        "/openapi.json",
    ]
    (loaded,) = [script for script in reading.all("script") if "src" in script]
    assert loaded["integrity"] == widget.script().integrity
    assert (loaded["crossorigin"], loaded["data-sitekey"]) == ("anonymous", KEY)
    assert "{{" not in render(settings).decode()


def test_the_policy_allows_exactly_this_script_and_this_style() -> None:
    reading = Reading(render(ON))
    policy = dict(page.headers())[b"content-security-policy"].decode()
    for tag, more in (("script", "'self' "), ("style", "")):
        digest = base64.b64encode(hashlib.sha256(reading.inline[tag].encode()).digest()).decode()
        assert f"{tag}-src {more}'sha256-{digest}';" in policy
        assert len([one for one in reading.all(tag) if "src" not in one]) == 1
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';")
    inline = [a for _, attributes in reading.elements for a in attributes]
    assert not [a for a in inline if a.startswith("on") or a == "style"]


def test_the_script_uses_no_sink_that_trusted_types_forbid() -> None:
    script = Reading(render(ON)).inline["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|document\.write", script)


def test_every_example_can_be_chosen_by_its_reason() -> None:
    html = render(ON).decode("utf-8")
    reading = Reading(html.encode())
    offered = [b["data-address"] for b in reading.all("button") if "data-address" in b]
    assert sorted(map(str, offered)) == sorted(example.address for example in EXAMPLES)
    for example in EXAMPLES:
        assert f"<code>{example.flag or example.reason}</code>" in html


def test_without_the_sandbox_it_says_how_to_switch_it_on() -> None:
    html = render(OFF).decode("utf-8")
    assert "data-address" not in html.partition("<script>")[0]
    assert "gate demo" in html


def test_what_is_put_in_is_escaped() -> None:
    html = render(ON, '"><script>alert(1)</script>').decode("utf-8")
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    assert 'data-sitekey="&quot;' in html


def test_what_is_to_be_pasted_names_the_server_and_the_key() -> None:
    assert page.tag(ON, KEY) == (
        f'<script src="http://127.0.0.1:8123/v1/gate.js" data-sitekey="{KEY}" defer></script>'
    )
    assert page.curl(ON).startswith("curl http://127.0.0.1:8123/v1/siteverify ")
    assert KEY not in page.curl(ON)


def test_the_fields_can_be_used_by_everybody() -> None:
    reading = Reading(render(ON))
    labels = [label["for"] for label in reading.all("label")]
    assert labels == [field["id"] for field in reading.all("input")]
    ids = {attributes.get("id") for _, attributes in reading.elements}
    for _, attributes in reading.elements:
        for name in ("aria-labelledby", "data-message-target", "for", "data-copy"):
            assert attributes.get(name) is None or attributes[name] in ids
    assert ("p", "status") in [(tag, a.get("role")) for tag, a in reading.elements]
    assert all(button.get("type") in ("button", None) for button in reading.all("button"))
    assert reading.all("html") == [{"lang": "en"}]
