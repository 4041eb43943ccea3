"""The page at `/`: what the browser saw beside what the server saw, and how it looks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from gate.sandbox import EXAMPLES, Example
from tests.browser.ground import GOOD, NOBODY, SOON, GateProcess, Shop, Tab
from tests.browser.test_access import violations

SETTLED = re.compile("ok|suggest|warn|blocked|unknown")


def opened(tab: Tab) -> Page:
    tab.page.goto(tab.gate.url + "/")
    return tab.page


def choose(page: Page, address: str) -> None:
    page.locator(f'[data-address="{address}"]').click()


def test_both_sides_are_shown_with_their_times(tab: Tab) -> None:
    page = opened(tab)
    choose(page, GOOD)
    expect(page.locator("#state")).to_have_text("ok", timeout=SOON)
    expect(page.locator("#reason")).to_have_text("accepted_email")
    expect(page.locator("#shown")).to_have_text(re.compile(r"shown \d+ ms after asking"))
    page.locator(".submit").click()
    expect(page.locator("#success")).to_have_text("success", timeout=SOON)
    expect(page.locator("#v-reason")).to_have_text("accepted_email")
    expect(page.locator("#v-bound")).to_have_text("127.0.0.1, signup")
    expect(page.locator("#took")).to_have_text(re.compile(r"siteverify took [\d.]+ ms"))
    expect(page.locator("#done")).to_have_text("Your server lets this signup in.")


def test_a_blocked_form_is_not_sent_and_a_script_gets_no_further(tab: Tab) -> None:
    page = opened(tab)
    choose(page, NOBODY)
    expect(page.locator("#state")).to_have_text("blocked", timeout=SOON)
    page.locator(".submit").click()
    expect(page.locator("#says")).to_contain_text("This mailbox does not exist.")
    expect(page.locator("#success")).to_have_text("not asked")
    page.locator("#bare").click()
    expect(page.locator("#success")).to_have_text("email-rejected", timeout=SOON)
    expect(page.locator("#done")).to_have_text("Your server turns this signup away.")


def test_the_server_gets_the_late_verdict(tab: Tab) -> None:
    page = opened(tab)
    choose(page, "slow-1500@inbox.test")
    page.locator(".submit").click()
    expect(page.locator("#v-reason")).to_have_text("accepted_email", timeout=SOON)


def test_every_address_does_what_it_says(tab: Tab) -> None:
    page = opened(tab)
    page.evaluate("SignupGate.remove(); SignupGate.render('#email', { timeoutMs: 200 })")
    for example in EXAMPLES:
        # Without the mouse, because scrolling to each takes a second.
        page.locator(f'[data-address="{example.address}"]').dispatch_event("click")
        expect(page.locator("#reason")).not_to_have_text("–", timeout=SOON)
        expect(page.locator("#state")).to_have_text(SETTLED, timeout=SOON)
        assert page.locator("#email").input_value() == example.address
        assert page.locator("#decision").inner_text() == decision(example), example.address


def decision(example: Example) -> str:
    """What the default policy makes of it."""
    if example.flag:
        return {"disposable": "block", "possible_typo": "warn"}.get(example.flag, "allow")
    if example.reason == "mailbox_full":
        return "warn"
    blocked = "invalid_email invalid_domain no_mx null_mx rejected_email mailbox_disabled"
    return "block" if example.reason in blocked.split() else "allow"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("desktop", 1440, 960), ("tablet", 820, 1100), ("phone", 390, 844)],
)
def test_it_looks_well(
    browser: Browser,
    gate: GateProcess,
    open_shop: Shop,
    packages: Path,
    name: str,
    width: int,
    height: int,
    theme: str,
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        reduced_motion="reduce",
    )
    tab = Tab(context.new_page(), open_shop, gate)
    page = opened(tab)
    tab.shot(f"page-{name}-{theme}-empty")
    for address, state in (
        ("jane@gmial.com", "suggest"),
        (NOBODY, "blocked"),
        (GOOD, "ok"),
    ):
        choose(page, address)
        expect(page.locator("#state")).to_have_text(state, timeout=SOON)
        expect(page.locator("#shown")).not_to_be_empty(timeout=SOON)
        if state == "ok":
            page.locator(".submit").click()
            expect(page.locator("#success")).to_have_text("success", timeout=SOON)
        page.evaluate("scrollTo(0, 0)")
        tab.shot(f"page-{name}-{theme}-{state}")
        assert violations(tab, packages) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(
        path=Path(__file__).parent / "shots" / f"page-{name}-{theme}-whole.png", full_page=True
    )
    assert not tab.errors
    context.close()
