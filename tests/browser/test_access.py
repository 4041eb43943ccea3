"""Accessible by contract, and safe to embed: axe-core on every state, and the page's own rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.ground import (
    DEFERRED,
    FULL,
    GOOD,
    MEANT,
    NOBODY,
    SOON,
    TYPO,
    Tab,
    script_tag,
    slow,
)
from tests.browser.test_weather import says

STATES = [
    ("idle", "", "idle"),
    ("ok", GOOD, "ok"),
    ("suggest", TYPO, "suggest"),
    ("warn", FULL, "warn"),
    ("blocked", NOBODY, "blocked"),
    ("unknown", DEFERRED, "unknown"),
    ("checking", "slow", "checking"),
]
THEMES = ["light", "dark"]


def violations(tab: Tab, packages: Path) -> list[str]:
    """What axe-core has against the page as it stands."""
    if not tab.page.evaluate("'axe' in window"):
        tab.page.evaluate((packages / "axe-core" / "axe.min.js").read_text())
    found: list[str] = tab.page.evaluate(
        """async () => (await axe.run(document, { runOnly: [
          "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice",
        ] })).violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html)}`)"""
    )
    return found


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("name", "email", "state"), STATES, ids=[row[0] for row in STATES])
def test_axe_finds_nothing(
    tab: Tab, packages: Path, name: str, email: str, state: str, theme: str
) -> None:
    tab.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    tab.open(timeout_ms="9000")
    tab.email.fill(slow(2500) if email == "slow" else email)
    tab.leave()
    tab.state(state)
    if state == "checking":
        expect(tab.status).to_have_text("Checking…", timeout=SOON)
    if theme == "dark":
        tab.shot(f"dark-{name}")
    assert violations(tab, packages) == []


def test_axe_finds_nothing_in_a_refused_submit_and_an_expired_answer(
    tab: Tab, packages: Path
) -> None:
    tab.open()
    tab.email.fill(NOBODY)
    tab.submit()
    expect(tab.status).to_have_attribute("role", "alert", timeout=SOON)
    tab.shot("refused")
    assert violations(tab, packages) == []
    says(tab, token="v1.short", token_expires_in=1)
    tab.email.fill("other@inbox.test")
    tab.state("ok")
    says(tab, status=500, body="{}")
    tab.state("expired")
    assert violations(tab, packages) == []
    tab.email.fill("third@inbox.test")
    tab.state("error")
    assert violations(tab, packages) == []


def test_one_live_region_from_the_start_in_the_light_dom(tab: Tab) -> None:
    tab.open(
        fields='<p id="hint">We never share it.</p><label>E-mail <input id="email" type="email"'
        ' name="email" aria-describedby="hint"></label>'
    )
    assert tab.status.count() == 1
    assert tab.status.inner_html() == ""
    told = tab.status.evaluate(
        "(box) => ['role', 'aria-atomic', 'dir', 'lang'].map((name) => box.getAttribute(name))"
    )
    assert told == ["status", "true", "auto", "en"]
    described = tab.email.get_attribute("aria-describedby")
    assert described == "hint " + (tab.status.get_attribute("id") or "")
    assert tab.page.evaluate(
        "!document.querySelector('label').contains(document.querySelector('.signup-gate'))"
    )
    tab.page.evaluate("SignupGate.remove()")
    assert tab.email.get_attribute("aria-describedby") == "hint"


def test_a_message_stays_until_something_is_typed(tab: Tab) -> None:
    tab.page.clock.install()
    tab.open()
    tab.email.fill(NOBODY)
    tab.page.clock.run_for(500)
    tab.state("blocked")
    tab.leave()
    tab.page.clock.run_for(100)
    expect(tab.status).to_contain_text("mailbox")
    tab.page.clock.run_for(200_000)
    expect(tab.status).to_contain_text("mailbox")


def test_every_message_has_an_icon_that_is_not_read_out(tab: Tab) -> None:
    tab.open()
    for email, mark in ((GOOD, "✓"), (FULL, "!"), (NOBODY, "✕"), (TYPO, "!")):
        tab.email.fill(email)
        tab.leave()
        icon = tab.status.locator("b")
        expect(icon).to_have_text(mark, timeout=SOON)
        assert icon.get_attribute("aria-hidden") == "true"
        tab.email.focus()


def test_addresses_keep_their_own_direction(tab: Tab) -> None:
    tab.open(lang="ar", root='dir="rtl"')
    tab.email.fill(TYPO)
    tab.leave()
    expect(tab.status.locator("bdi[dir=auto]")).to_have_text(MEANT, timeout=SOON)
    assert tab.status.get_attribute("lang") == "ar"
    tab.shot("rtl-suggest")


def test_it_moves_nothing_that_could_make_anybody_dizzy(tab: Tab) -> None:
    tab.page.emulate_media(reduced_motion="reduce")
    tab.open(timeout_ms="5000")
    tab.email.fill(slow(1500))
    expect(tab.status).to_have_text("Checking…", timeout=SOON)
    assert tab.page.evaluate("document.getAnimations().length") == 0


STRICT = (
    "default-src 'none'; script-src {gate}; style-src 'self'; connect-src {gate}; img-src data:; "
    "form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def test_a_strict_policy_and_trusted_types(tab: Tab) -> None:
    tab.open(headers={"Content-Security-Policy": STRICT.format(gate=tab.gate.url)})
    for email, text in ((TYPO, "Did you mean"), (NOBODY, "mailbox"), (GOOD, "Looks good")):
        tab.email.fill(email)
        tab.leave()
        expect(tab.status).to_contain_text(text, timeout=SOON)
        tab.email.focus()
    size = tab.status.evaluate("(box) => getComputedStyle(box).fontSize")
    assert size == "14px"  # the style sheet holds under style-src 'self'
    tab.submit()
    tab.thanked()


def test_integrity_from_another_origin(tab: Tab) -> None:
    described = tab.page.request.get(f"{tab.gate.url}/v1/gate.json").json()
    tag = script_tag(tab.gate.url).replace("/v1/gate.js", described["path"])
    pinned = f'integrity="{described["integrity"]}" crossorigin="anonymous"'
    head = '<!doctype html><title>Shop</title><link rel="icon" href="data:,">'
    tag = tag.replace(" defer", f" {pinned} defer")
    tab.open(f'{head}{tag}<input id="email" type="email">')
    tab.type(GOOD)
    tab.state("ok")


def test_remove_undoes_everything(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate("window.before = null")
    bare = "document.documentElement.outerHTML"
    blank = tab.page.evaluate(
        f"""async () => {{
          const id = "signup-gate-1";
          SignupGate.remove(id);
          return {bare};
        }}"""
    )
    tab.page.evaluate("SignupGate.render('#email')")
    tab.email.fill(NOBODY)
    tab.submit()
    expect(tab.status).to_have_attribute("role", "alert", timeout=SOON)
    tab.page.evaluate("SignupGate.remove()")
    assert tab.page.evaluate(bare) == blank
    assert tab.page.evaluate("document.adoptedStyleSheets.length") == 0
    assert tab.page.evaluate("document.querySelector('#email').validity.valid")
    tab.submit()  # nobody is in the way any more
    assert tab.thanked() == {"email": NOBODY, "name": "", "via": "button"}
