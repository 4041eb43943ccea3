"""The page at `/`: self-contained, escaped, and allowed to run by its own policy."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from gate import page
from gate.sandbox import EXAMPLES
from gate.settings import Settings, parse

ON = parse({"sandbox": {"enabled": True}, "server": {"port": 8123}})
OFF = parse({})
KEY = "pk_0123456789abcdef"


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
def test_it_is_well_formed_and_loads_nothing(settings: Settings) -> None:
    reading = Reading(page.render(settings, KEY))
    assert not reading.open
    assert not reading.unbalanced
    sources = [
        value
        for tag, attributes in reading.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data") and tag != "use"
    ]
    assert all(str(source).startswith("data:") or source == "/openapi.json" for source in sources)
    assert "{{" not in page.render(settings, KEY).decode()


def test_the_policy_allows_exactly_this_script_and_this_style() -> None:
    reading = Reading(page.render(ON, KEY))
    policy = dict(page.headers())[b"content-security-policy"].decode()
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(reading.inline[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
        assert len(reading.all(tag)) == 1
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';")
    inline = [a for _, attributes in reading.elements for a in attributes]
    assert not [a for a in inline if a.startswith("on") or a == "style"]


def test_the_script_uses_no_sink_that_trusted_types_forbid() -> None:
    script = Reading(page.render(ON, KEY)).inline["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|document\.write", script)


def test_every_example_can_be_chosen_by_its_reason() -> None:
    html = page.render(ON, KEY).decode("utf-8")
    reading = Reading(html.encode())
    offered = [b["data-address"] for b in reading.all("button") if "data-address" in b]
    assert sorted(map(str, offered)) == sorted(example.address for example in EXAMPLES)
    for example in EXAMPLES:
        assert f"<code>{example.flag or example.reason}</code>" in html


def test_without_the_sandbox_it_says_how_to_switch_it_on() -> None:
    html = page.render(OFF, KEY).decode("utf-8")
    assert "data-address" not in html.partition("<script>")[0]
    assert "gate demo" in html


def test_what_is_put_in_is_escaped() -> None:
    html = page.render(ON, '"><script>alert(1)</script>').decode("utf-8")
    assert "<script>alert" not in html
    assert html.count("<script>") == 1


def test_the_command_line_names_the_server_and_the_key() -> None:
    line = page.curl(ON, KEY)
    assert line.startswith("curl http://127.0.0.1:8123/v1/check ")
    assert f"-d sitekey={KEY}" in line


def test_the_field_can_be_used_by_everybody() -> None:
    reading = Reading(page.render(ON, KEY))
    (label,) = reading.all("label")
    (field,) = reading.all("input")
    assert label["for"] == field["id"]
    ids = {attributes.get("id") for _, attributes in reading.elements}
    assert field["aria-describedby"] in ids
    assert ("p", "status") in [(tag, a.get("role")) for tag, a in reading.elements]
    assert all(button.get("type") in ("button", "submit") for button in reading.all("button"))
    assert reading.all("html") == [{"lang": "en"}]
