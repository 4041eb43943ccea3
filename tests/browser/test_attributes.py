"""Every attribute, every function of `SignupGate`, every event that a page can act on."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.ground import (
    FIELDS,
    GOOD,
    MEANT,
    NOBODY,
    SITEKEY,
    SOON,
    TYPO,
    Tab,
    slow,
)
from tests.browser.test_weather import says

EXPLICIT = "?render=explicit&onload=loaded"


def test_attributes_cascade_from_input_to_form_to_script(tab: Tab) -> None:
    fields = FIELDS.replace("<input", '<input data-action="input"', 1)
    tab.open(fields=fields, form='data-action="form" data-cdata="form"', action="s", cdata="s")
    tab.type(GOOD)
    tab.state("ok")
    body = tab.checks[0]
    assert (body["action"], body["cdata"], body["sitekey"]) == ("input", "form", SITEKEY)


def test_validate_on_submit_asks_nothing_before(tab: Tab) -> None:
    tab.open(validate_on="submit")
    tab.type(NOBODY)
    tab.leave()
    tab.page.wait_for_timeout(600)
    assert not tab.asked
    tab.submit()
    expect(tab.status).to_have_attribute("role", "alert", timeout=SOON)


def test_validate_on_input_speaks_after_the_pause(tab: Tab) -> None:
    tab.open(validate_on="input")
    tab.type(NOBODY)
    expect(tab.status).to_contain_text("This mailbox does not exist.", timeout=SOON)
    expect(tab.email).to_be_focused()


def test_debounce(tab: Tab) -> None:
    tab.open(debounce="1200")
    tab.email.fill(GOOD)
    tab.page.wait_for_timeout(900)
    assert not tab.checks
    tab.state("ok")


def test_a_hold_of_nothing(tab: Tab) -> None:
    tab.open(timeout_ms="0")
    tab.email.fill(slow(400))
    tab.submit()
    assert tab.thanked()["signup-gate-response"] == ""


def test_the_name_of_the_hidden_field(tab: Tab) -> None:
    tab.open(response_field_name="cf-turnstile-response")
    tab.type(GOOD)
    tab.state("ok")
    tab.submit()
    assert tab.thanked()["cf-turnstile-response"].startswith("v1.")


def test_a_place_of_ones_own_for_messages(tab: Tab) -> None:
    tab.open(body='<aside id="says"></aside>', message_target="says")
    tab.email.fill(NOBODY)
    tab.leave()
    expect(tab.page.locator("#says .signup-gate")).to_contain_text("mailbox", timeout=SOON)
    assert tab.page.locator(".signup-gate").count() == 1


def test_callbacks_are_named_functions_of_the_page(tab: Tab) -> None:
    tab.page.add_init_script(
        "window.calls = []; for (const name of ['onToken', 'onError', 'onExpired'])"
        " window[name] = (said) => calls.push([name, said]);"
    )
    tab.open(callback="onToken", error_callback="onError", expired_callback="onExpired")
    says(tab, token="v1.t", token_expires_in=1)
    tab.type(GOOD)
    tab.state("ok")
    says(tab, status=503, body="{}")
    tab.state("expired")
    tab.email.fill("other@inbox.test")
    tab.state("error")
    tab.page.wait_for_function("calls.length >= 3")
    calls = [tuple(call) for call in tab.page.evaluate("calls")]
    assert calls[0] == ("onToken", "v1.t")
    assert ("onExpired", None) in calls
    assert ("onError", 503) in calls


def test_a_callback_that_is_not_there_does_no_harm(tab: Tab) -> None:
    tab.open(callback="nobody", error_callback="alert(1)")
    says(tab, status=500, body="{}")
    tab.type(GOOD)
    tab.state("error")


@pytest.mark.parametrize(("tag", "text"), [("de", "Sieht gut aus"), ("auto", "Looks good")])
def test_language(tab: Tab, tag: str, text: str) -> None:
    tab.open(language=tag)
    tab.type(GOOD)
    expect(tab.status).to_have_text("✓" + text, timeout=SOON)


def test_problems_only(tab: Tab) -> None:
    tab.open(appearance="problems-only")
    tab.type(GOOD)
    tab.state("ok")
    expect(tab.status).to_have_text("")
    tab.email.fill(NOBODY)
    tab.leave()
    expect(tab.status).to_contain_text("mailbox", timeout=SOON)


def test_events_only(tab: Tab) -> None:
    tab.open(appearance="none")
    tab.email.fill(NOBODY)
    tab.leave()
    tab.state("blocked")
    expect(tab.status).to_have_text("")
    assert tab.email.get_attribute("aria-invalid") is None
    assert tab.events("result")[0]["detail"]["reason"] == "rejected_email"
    tab.submit()  # the page's own code is to decide
    assert tab.thanked()["signup-gate-response"]


def test_a_page_that_shows_the_result_itself(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate("document.addEventListener('gate:result', (event) => event.preventDefault())")
    tab.email.fill(NOBODY)
    tab.leave()
    tab.state("blocked")
    expect(tab.status).to_have_text("")
    tab.submit()
    tab.thanked()


def test_a_page_that_shows_the_suggestion_itself(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate(
        "document.addEventListener('gate:suggestion', (event) => event.preventDefault())"
    )
    tab.email.fill(TYPO)
    tab.leave()
    tab.state("suggest")
    expect(tab.status).to_have_text("")
    (told,) = tab.events("suggestion")
    assert told["detail"] == {"email": TYPO, "suggestion": MEANT}
    tab.submit()
    tab.thanked()


def test_explicit_rendering(tab: Tab) -> None:
    tab.page.add_init_script(
        "window.loaded = () => { window.was = document.querySelectorAll('.signup-gate').length;"
        " SignupGate.ready(() => { window.id = SignupGate.render('#form',"
        " { action: 'explicit', callback: (token) => (window.token = token) }); }); }"
    )
    tab.open(query=EXPLICIT)
    tab.state("idle")
    assert tab.page.evaluate("[was, SignupGate.render('#email') === id]") == [0, True]
    tab.email.fill(GOOD)
    outcome = tab.page.evaluate("SignupGate.check(id)")
    assert (outcome["state"], outcome["reason"]) == ("ok", "accepted_email")
    assert tab.checks[0]["action"] == "explicit"
    assert tab.page.evaluate("SignupGate.getResponse(id)") == outcome["token"]
    tab.page.wait_for_function("window.token === SignupGate.getResponse()")
    assert tab.page.evaluate("SignupGate.isExpired(id)") is False
    tab.page.evaluate("SignupGate.reset(id)")
    tab.state("idle")
    assert tab.page.evaluate("SignupGate.getResponse(id)") == ""
    tab.page.evaluate("SignupGate.execute(id)")
    tab.state("ok")
    tab.page.evaluate("SignupGate.remove(id)")
    assert tab.page.locator(".signup-gate").count() == 0
    tab.page.evaluate("document.body.append('something else')")  # the watcher does not take it back
    tab.page.wait_for_timeout(100)
    assert tab.page.locator(".signup-gate").count() == 0


def test_check_never_rejects(tab: Tab) -> None:
    tab.open()
    assert tab.page.evaluate("SignupGate.check()")["state"] == "idle"  # nothing to check
    says(tab, status=500, body="{}")
    tab.email.fill(GOOD)
    assert tab.page.evaluate("SignupGate.check()") == {
        "state": "error",
        "did_you_mean": "",
        "token": "",
    }
    assert tab.page.evaluate("SignupGate.check('nobody')") is None


def test_a_field_that_is_removed_by_the_page_is_left_alone_from_then_on(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate("SignupGate.remove(); document.body.append('more')")
    tab.page.wait_for_timeout(150)
    assert tab.page.locator(".signup-gate").count() == 0
