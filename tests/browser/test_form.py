"""The widget on a plain form: what people see and do, and what the shop gets."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.ground import (
    DEFERRED,
    FULL,
    GOOD,
    MEANT,
    NOBODY,
    SECRET,
    SITEKEY,
    SOON,
    TYPO,
    Tab,
    slow,
)


def verify(tab: Tab, form: dict[str, str]) -> dict[str, Any]:
    """What the shop's server is told about a form."""
    data = {
        "secret": SECRET,
        "response": form["signup-gate-response"],
        "email": form["email"],
    }
    answer: dict[str, Any] = httpx.post(f"{tab.gate.url}/v1/siteverify", data=data).json()
    return answer


def test_a_good_address_gets_a_quiet_tick_and_the_shop_a_token(tab: Tab) -> None:
    tab.open(action="signup", cdata="a b&c")
    tab.type(GOOD)
    tab.state("ok")
    expect(tab.status).to_have_text("✓Looks good")
    tab.shot("ok")
    tab.submit()
    form = tab.thanked()
    assert form["via"] == "button"
    answer = verify(tab, form)
    assert answer["success"]
    assert (answer["reason"], answer["hostname"]) == ("accepted_email", "localhost")
    assert (answer["action"], answer["cdata"]) == ("signup", "a b&c")


def test_one_typed_address_costs_one_prefetch_and_one_check(tab: Tab) -> None:
    tab.open(debounce="400")
    tab.email.press_sequentially("jane@inbox.test", delay=20)
    tab.state("ok")
    tab.leave()
    tab.submit()
    tab.thanked()
    assert [request.url.rpartition("/")[2] for request in tab.asked] == ["prefetch", "check"]
    assert tab.checks[0]["email"] == GOOD


def test_the_request_is_simple_and_carries_nothing_but_what_it_says(tab: Tab) -> None:
    tab.open()
    tab.page.context.add_cookies([{"name": "id", "value": "1", "url": tab.gate.url}])
    tab.type(GOOD)
    tab.state("ok")
    for request in tab.asked:
        headers = request.all_headers()
        assert request.method == "POST"
        assert headers["content-type"].startswith("application/x-www-form-urlencoded")
        assert "cookie" not in headers
    assert set(tab.checks[0]) == {"sitekey", "email", "action", "cdata", "timeout_ms"}
    assert tab.checks[0]["sitekey"] == SITEKEY
    assert tab.page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert tab.page.evaluate("document.cookie") == ""


def test_nothing_is_said_while_somebody_types(tab: Tab) -> None:
    tab.open()
    tab.type(NOBODY)
    tab.state("blocked")
    expect(tab.status).to_have_text("")
    assert tab.email.get_attribute("aria-invalid") is None
    tab.leave()
    expect(tab.status).to_contain_text("This mailbox does not exist.")
    expect(tab.email).to_have_attribute("aria-invalid", "true")
    tab.shot("blocked")
    tab.type("x")
    tab.state("idle")
    expect(tab.status).to_have_text("")
    assert tab.email.get_attribute("aria-invalid") is None
    assert tab.page.evaluate("document.querySelector('#email').validationMessage") == ""


def test_a_blocked_address_is_refused_with_message_validity_and_focus(tab: Tab) -> None:
    tab.open()
    tab.type(NOBODY)
    tab.state("blocked")
    tab.submit()
    expect(tab.status).to_have_attribute("role", "alert", timeout=SOON)
    expect(tab.email).to_be_focused()
    invalid = "document.querySelector('#email').validity.customError"
    assert tab.page.evaluate(invalid)
    tab.submit()  # the browser's own check stops this one
    expect(tab.email).to_be_focused()
    assert not tab.shop.received
    tab.email.fill(GOOD)
    tab.state("ok")
    expect(tab.status).to_have_attribute("role", "status")
    assert not tab.page.evaluate(invalid)
    tab.submit()
    assert tab.thanked()["email"] == GOOD


def test_enter_in_the_field_is_refused_too(tab: Tab) -> None:
    tab.open()
    tab.type(NOBODY)
    tab.page.keyboard.press("Enter")
    tab.state("blocked")
    expect(tab.status).to_have_attribute("role", "alert", timeout=SOON)
    expect(tab.email).to_be_focused()
    assert not tab.shop.received


def test_a_doubtful_address_goes_through_at_the_second_press(tab: Tab) -> None:
    tab.open()
    tab.type(FULL)
    tab.state("warn")
    tab.submit()
    expect(tab.status).to_contain_text("This mailbox is full.")
    expect(tab.status).to_have_attribute("role", "alert")
    expect(tab.email).to_be_focused()
    tab.shot("warn")
    assert not tab.shop.received
    assert tab.page.evaluate("document.querySelector('#email').validity.valid")
    tab.submit()
    assert tab.thanked()["email"] == FULL


def test_use_this_address_anyway_sends_what_was_refused(tab: Tab) -> None:
    tab.open()
    tab.type(FULL)
    tab.state("warn")
    tab.submit()
    tab.page.get_by_role("button", name="Use this address anyway").click()
    form = tab.thanked()
    assert (form["email"], form["via"]) == (FULL, "button")


def test_use_this_address_anyway_before_any_submit_only_agrees(tab: Tab) -> None:
    tab.open()
    tab.type(FULL)
    tab.leave()
    tab.page.get_by_role("button", name="Use this address anyway").click()
    expect(tab.status).to_have_text("")
    assert [one["detail"]["reason"] for one in tab.events("override")] == ["mailbox_full"]
    assert not tab.shop.received
    tab.submit()
    tab.thanked()


def test_a_suggestion_is_taken_by_keyboard_and_can_be_undone(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate(
        "for (const type of ['input', 'change']) document.addEventListener(type,"
        " (event) => (window.heard ||= []).push(type + ' ' + event.target.value))"
    )
    tab.type(TYPO)
    tab.leave()
    suggestion = tab.page.get_by_role("button", name=f"Did you mean {MEANT}?")
    expect(suggestion).to_be_visible(timeout=SOON)
    assert suggestion.get_attribute("type") == "button"
    expect(tab.email).to_have_value(TYPO)
    tab.shot("suggest")
    tab.email.focus()
    tab.leave()
    expect(suggestion).to_be_focused()
    tab.page.keyboard.press("Enter")
    expect(tab.email).to_have_value(MEANT)
    expect(tab.email).to_be_focused()
    assert tab.page.evaluate("heard.slice(-2)") == [f"input {MEANT}", f"change {MEANT}"]
    assert tab.events("suggestion-accepted")[0]["detail"] == {"email": TYPO, "suggestion": MEANT}
    undo = tab.page.get_by_role("button", name="Undo")
    expect(undo).to_be_visible(timeout=SOON)
    tab.shot("accepted")
    undo.press("Enter")
    expect(tab.email).to_have_value(TYPO)
    tab.submit()  # who takes a suggestion back means what was typed
    assert tab.thanked()["email"] == TYPO


def test_the_suggestion_is_never_applied_by_itself(tab: Tab) -> None:
    tab.open()
    tab.type(TYPO)
    tab.state("suggest")
    tab.submit()
    expect(tab.status).to_have_attribute("role", "alert", timeout=SOON)
    expect(tab.email).to_have_value(TYPO)
    tab.submit()
    assert tab.thanked()["email"] == TYPO


def test_unknown_looks_like_success_without_the_tick(tab: Tab) -> None:
    tab.open()
    tab.type(DEFERRED)
    tab.leave()
    tab.state("unknown")
    expect(tab.status).to_have_text("")
    tab.shot("unknown")
    tab.submit()
    answer = verify(tab, tab.thanked())
    assert answer["success"] and answer["result"] == "unknown"


def test_a_password_manager_that_submits_at_once_is_held_for_the_answer(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate(
        """(email) => {
          document.querySelector("#email").value = email;  // no event of any kind
          document.querySelector("#go").click();
        }""",
        NOBODY,
    )
    tab.state("blocked")
    expect(tab.status).to_contain_text("This mailbox does not exist.")
    assert not tab.shop.received


def test_a_held_submit_goes_out_with_its_button_and_its_token(tab: Tab) -> None:
    tab.open()
    tab.email.fill(GOOD)
    tab.submit()
    form = tab.thanked()
    assert form["via"] == "button"
    assert verify(tab, form)["success"]


def test_a_slow_mail_server_holds_the_form_no_longer_than_it_may(tab: Tab) -> None:
    tab.open(timeout_ms="400")
    tab.page.route("**/signup", lambda route: route.fulfill(body="<h1 id=thanks>Thanks</h1>"))
    tab.email.fill(slow(1600))
    held = tab.page.evaluate(
        """() => new Promise((done) => {
          const began = performance.now();
          const form = document.querySelector("#form");
          form.addEventListener("submit", () => done(performance.now() - began));
          document.querySelector("#go").click();
        })"""
    )
    assert 250 < held < 800


def test_a_late_verdict_replaces_the_first_before_the_submit(tab: Tab) -> None:
    tab.open()
    tab.type(slow(1600))
    tab.state("unknown")
    tab.state("ok")
    first, second = (one["detail"] for one in tab.events("result"))
    assert (first["final"], second["final"]) == (False, True)
    assert first["token"] != second["token"]
    tab.submit()
    assert tab.thanked()["signup-gate-response"] == second["token"]


def test_checking_is_said_after_a_while_only(tab: Tab) -> None:
    tab.open(timeout_ms="4000")
    tab.email.fill(slow(500))
    tab.leave()
    tab.state("checking")
    tab.state("ok")
    assert tab.events("statechange")[-1]["detail"]["previous"] == "checking"
    seen = watch_messages(tab, lambda: tab.email.fill(slow(1200)))
    assert seen[0][1] == "Checking…" and seen[-1][1] == "✓Looks good"
    assert seen[0][0] >= 200 + 650


def watch_messages(tab: Tab, act: Any) -> list[tuple[float, str]]:
    """Every message from `act` until a tick, with the milliseconds since."""
    tab.page.evaluate(
        """() => {
          const box = document.querySelector(".signup-gate");
          const began = performance.now();
          window.seen = [];
          new MutationObserver(() => {
            if (box.textContent) window.seen.push([performance.now() - began, box.textContent]);
          }).observe(box, { childList: true, subtree: true, characterData: true });
        }"""
    )
    act()
    tab.page.wait_for_function("seen.length && seen.at(-1)[1].startsWith('✓')", timeout=SOON)
    seen: list[tuple[float, str]] = tab.page.evaluate("seen")
    return seen


def test_answers_are_remembered_by_value(tab: Tab) -> None:
    tab.open()
    for text, name in ((GOOD, "ok"), (NOBODY, "blocked"), (GOOD, "ok"), (NOBODY, "blocked")):
        tab.email.fill(text)
        tab.state(name)
    assert [body["email"] for body in tab.checks] == [GOOD, NOBODY]


def test_a_fast_typist_has_one_request_outstanding_at_most(tab: Tab) -> None:
    open_now: set[Any] = set()
    most = 0

    def begun(request: Any) -> None:
        nonlocal most
        if "/v1/" in request.url and request.method == "POST":
            open_now.add(request)
            most = max(most, len(open_now))

    def ended(request: Any) -> None:
        open_now.discard(request)

    tab.page.on("requestfinished", ended)
    tab.page.on("requestfailed", ended)
    tab.page.on("request", begun)
    tab.open(debounce="30")
    for end in ("a", "b", "c", "d", "e"):
        tab.email.fill(f"slow-400@inbox.{end}.test")
        tab.page.wait_for_timeout(45)
    tab.email.fill("")
    tab.type(slow(500))
    tab.state("ok")
    assert most == 1


def test_the_value_is_never_touched(tab: Tab) -> None:
    tab.open(fields='<input id="email" name="email" data-gate>')
    odd = "  Jane.DOE+News@INBOX.test "
    tab.email.fill(odd)
    tab.leave()
    tab.page.wait_for_function("told.some((one) => one.type === 'result')")
    expect(tab.email).to_have_value(odd)


def test_an_empty_field_and_one_that_is_left_alone_cost_nothing(tab: Tab) -> None:
    tab.open(
        fields='<input id="email" type="email" name="email">'
        '<input id="other" type="email" name="other" data-gate="off">'
    )
    tab.email.focus()
    tab.leave()
    tab.type(NOBODY, "#other")
    assert tab.page.locator("#other").get_attribute("data-gate-state") is None
    assert tab.page.locator(".signup-gate").count() == 1
    tab.submit()
    tab.thanked()
    assert not tab.asked


def test_preconnect_comes_with_the_focus(tab: Tab) -> None:
    tab.open()
    link = tab.page.locator("link[rel=preconnect]")
    assert link.count() == 0
    tab.email.focus()
    assert link.get_attribute("href") == tab.gate.url
    assert link.get_attribute("crossorigin") is not None


def test_a_click_is_not_robbed_of_its_target_by_a_message(tab: Tab) -> None:
    tab.open()
    tab.type(FULL)
    tab.state("warn")
    box = tab.page.locator("#go").bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + 20, box["y"] + box["height"] - 3)
    tab.page.mouse.down()
    tab.page.wait_for_timeout(150)
    assert tab.page.locator("#go").bounding_box() == box
    tab.page.mouse.up()
    expect(tab.status).to_have_attribute("role", "alert")


def test_formdata_carries_the_token_even_without_the_hidden_field(tab: Tab) -> None:
    tab.open()
    tab.type(GOOD)
    tab.state("ok")
    token = tab.page.evaluate(
        """() => {
          const form = document.querySelector("#form");
          const hidden = form.elements["signup-gate-response"];
          const before = new FormData(form).get("signup-gate-response");
          hidden.remove();
          return [before, new FormData(form).get("signup-gate-response")];
        }"""
    )
    assert token[0] and token[0] == token[1]


@pytest.mark.parametrize("how", ["form", "handle"])
def test_a_reset_forgets_the_answer(tab: Tab, how: str) -> None:
    tab.open()
    tab.type(NOBODY)
    tab.leave()
    expect(tab.status).to_contain_text("mailbox")
    tab.page.evaluate(
        "document.querySelector('#form').reset()" if how == "form" else "SignupGate.reset()"
    )
    tab.state("idle")
    expect(tab.status).to_have_text("")
    assert tab.page.evaluate("document.querySelector('#email').validationMessage") == ""


def test_every_state_change_is_told(tab: Tab) -> None:
    tab.open()
    tab.type(GOOD)
    tab.state("ok")
    steps = [one["detail"] for one in tab.events("statechange")]
    assert steps == [
        {"state": "checking", "previous": "idle"},
        {"state": "ok", "previous": "checking"},
    ]
    (result,) = tab.events("result")
    assert set(result["detail"]) >= {"decision", "reason", "did_you_mean", "message", "final"}
    assert re.match(r"v1\.", result["detail"]["token"])
