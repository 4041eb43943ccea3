"""Bad weather: whatever happens to the gate, the form can be sent and nothing stays behind.

That no error is on the console is looked at by the `tab` fixture, after every test.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import expect

from tests.browser.ground import (
    GOOD,
    MEANT,
    NOBODY,
    SOON,
    TYPO,
    Tab,
    gate_process,
    signup,
    slow,
)

HOLD = 800
ANSWER = {
    "decision": "allow",
    "reason": "accepted_email",
    "did_you_mean": None,
    "message": None,
    "final": True,
    "token": "v1.a.b.c",
    "token_expires_in": 300,
}


def says(tab: Tab, *, status: int = 200, body: str = "", **answer: object) -> None:
    """From now on the gate answers checks with this."""
    text = body or json.dumps({**ANSWER, **answer})
    headers = {"access-control-allow-origin": tab.shop.origin, "content-type": "application/json"}
    # The route that was made last is asked first.
    tab.page.route(
        "**/v1/check", lambda route: route.fulfill(status=status, body=text, headers=headers)
    )


def nothing_stays(tab: Tab, email: str = GOOD) -> None:
    """The form goes out with what was typed, without a token and without a complaint."""
    expect(tab.status).to_have_text("")
    assert tab.page.evaluate("document.querySelector('#form').checkValidity()")
    assert tab.email.get_attribute("aria-invalid") is None
    tab.submit()
    form = tab.thanked()
    assert (form["email"], form["signup-gate-response"]) == (email, "")


def test_gate_down_before_the_page_loads(tab: Tab) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tab.open(signup(f"http://127.0.0.1:{port}"))
    tab.type(GOOD)
    tab.leave()
    tab.submit()
    assert tab.thanked()["email"] == GOOD


def test_gate_down_before_the_first_check(tab: Tab, tmp_path: Path) -> None:
    with gate_process(tmp_path / "gate", tab.shop.origin) as gate:
        tab.open(signup(gate.url))
        gate.kill()
        tab.type(GOOD)
        tab.state("error")
        assert tab.events("error")[0]["detail"] == {"status": 0}
        tab.shot("error")
        nothing_stays(tab)


def test_gate_dying_in_the_middle_of_a_check(tab: Tab, tmp_path: Path) -> None:
    with gate_process(tmp_path / "gate", tab.shop.origin) as gate:
        tab.open(signup(gate.url, timeout_ms="5000"))
        tab.email.fill("slow-3000@inbox.test")
        tab.submit()
        tab.state("checking")
        tab.page.wait_for_timeout(200)
        gate.kill()
        assert tab.thanked()["email"] == "slow-3000@inbox.test"


def test_gate_that_hangs_up_in_the_middle_of_its_answer(tab: Tab) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def half() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\nContent-Type: application/json\r\n"
                b"Access-Control-Allow-Origin: " + tab.shop.origin.encode() + b'\r\n\r\n{"decision'
            )

    tab.open(url=f"http://127.0.0.1:{listener.getsockname()[1]}", validate_on="submit")
    thread = Thread(target=half)
    thread.start()
    tab.email.fill(GOOD)
    tab.submit()
    assert tab.thanked()["email"] == GOOD
    listener.close()
    thread.join(5)


BROKEN = [
    ("500", {"status": 500, "body": '{"title":"internal"}'}),
    ("503 with a page", {"status": 503, "body": "<h1>Bad gateway</h1>"}),
    ("429", {"status": 429, "body": "{}"}),
    ("403, an unknown origin", {"status": 403, "body": "{}"}),
    ("no JSON", {"body": "<html>captive portal</html>"}),
    ("half a JSON", {"body": '{"decision":"blo'}),
    ("null", {"body": "null"}),
    ("a list", {"body": "[]"}),
    ("an empty record", {"body": "{}"}),
    ("a text", {"body": '"block"'}),
    ("a block behind a 500", {"status": 500, "body": json.dumps({**ANSWER, "decision": "block"})}),
]


@pytest.mark.parametrize("answer", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_an_answer_that_is_none(tab: Tab, answer: dict[str, object]) -> None:
    tab.open()
    says(tab, **answer)  # type: ignore[arg-type]
    tab.type(GOOD)
    tab.state("error")
    tab.leave()
    nothing_stays(tab)


def test_an_answer_with_odd_types_does_no_harm(tab: Tab) -> None:
    tab.open()
    says(tab, decision="perhaps", reason=7, message={"a": 1}, token=5, token_expires_in="soon")
    tab.type(GOOD)
    tab.state("unknown")
    tab.submit()
    assert tab.thanked()["email"] == GOOD


def test_markup_in_an_answer_stays_text(tab: Tab) -> None:
    tab.open()
    mark = "<img src=x onerror=alert(1)>"
    says(tab, decision="block", reason="other", message=mark, did_you_mean=f'"{mark}"@a.test')
    tab.type(GOOD)
    tab.leave()
    expect(tab.status).to_contain_text(mark, timeout=SOON)
    assert tab.page.locator(".signup-gate img").count() == 0


def test_csp_that_refuses_the_connection(tab: Tab) -> None:
    refused: list[str] = []
    tab.page.on("console", lambda message: refused.append(message.text))
    policy = f"default-src 'self'; script-src {tab.gate.url}; img-src data:"
    tab.open(headers={"Content-Security-Policy": policy})
    tab.type(GOOD)
    tab.state("error")
    nothing_stays(tab)
    # The browser reports what its policy stopped; no page can keep it from doing so.
    tab.errors[:] = [error for error in tab.errors if "Content Security Policy" not in error]
    assert any("Content Security Policy" in text for text in refused)


def test_slow_network(tab: Tab) -> None:
    tab.open()
    session = tab.page.context.new_cdp_session(tab.page)
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 3000, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    tab.email.fill(GOOD)
    assert held(tab) < HOLD + 400


def test_a_gate_that_never_answers(tab: Tab) -> None:
    tab.open()
    tab.page.route("**/v1/*", lambda route: None)
    tab.email.fill(GOOD)
    assert HOLD - 50 < held(tab) < HOLD + 400


def held(tab: Tab) -> float:
    """Press the button; the milliseconds until the page's own listener has the submit."""
    took: float = tab.page.evaluate(
        """() => new Promise((done) => {
          const began = performance.now();
          const form = document.querySelector("#form");
          form.addEventListener("submit", (event) => {
            event.preventDefault();
            done(performance.now() - began);
          });
          document.querySelector("#go").click();
        })"""
    )
    return took


def test_offline(tab: Tab) -> None:
    tab.open()
    tab.page.context.set_offline(True)
    tab.type(GOOD)
    tab.state("error")
    tab.page.context.set_offline(False)
    nothing_stays(tab)


def test_a_slip_is_seen_without_the_gate_and_keeps_nobody_back(tab: Tab) -> None:
    tab.open()
    says(tab, status=500, body="{}")
    tab.type(TYPO)
    tab.leave()
    expect(tab.page.get_by_role("button", name=f"Did you mean {MEANT}?")).to_be_visible(
        timeout=SOON
    )
    tab.submit()
    assert tab.thanked()["email"] == TYPO


def test_a_token_is_replaced_before_it_expires(tab: Tab) -> None:
    tab.open()
    says(tab, token="v1.first", token_expires_in=3)  # replaced long before its end
    tab.type(GOOD)
    tab.state("ok")
    says(tab, token="v1.second", token_expires_in=300)
    hidden = tab.page.locator("input[name=signup-gate-response]")
    expect(hidden).to_have_value("v1.second", timeout=SOON)
    assert not tab.events("expire")
    tab.submit()
    assert tab.thanked()["signup-gate-response"] == "v1.second"


def test_a_token_that_expires_while_the_form_stands_open(tab: Tab) -> None:
    tab.page.add_init_script("window.onExpired = () => (window.expired = true)")
    tab.open(expired_callback="onExpired")
    says(tab, token="v1.first", token_expires_in=2)
    tab.type(GOOD)
    tab.state("ok")
    says(tab, status=500, body="{}")
    tab.state("expired")
    expect(tab.status).to_have_text("")
    assert len(tab.events("expire")) == 1
    assert tab.page.evaluate("window.expired && SignupGate.isExpired()")
    tab.shot("expired")
    says(tab, token="v1.fresh")
    tab.submit()  # asks once more, and waits for it
    assert tab.thanked()["signup-gate-response"] == "v1.fresh"


def test_a_token_that_expired_with_the_gate_gone(tab: Tab) -> None:
    tab.open()
    says(tab, token="v1.first", token_expires_in=1)
    tab.type(GOOD)
    tab.state("ok")
    says(tab, status=502, body="{}")
    tab.state("expired")
    nothing_stays(tab)


def test_a_double_submit_is_sent_once(tab: Tab) -> None:
    tab.open()
    tab.email.fill(slow(450))
    tab.page.evaluate(
        "() => { for (let n = 0; n < 3; n += 1) document.querySelector('#go').click(); }"
    )
    tab.state("checking")
    tab.submit()
    tab.thanked()
    tab.page.wait_for_timeout(100)
    assert len(tab.shop.received) == 1
    assert len(tab.checks) == 1


def test_the_back_button_finds_a_working_form(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate("addEventListener('pageshow', (event) => (window.kept = event.persisted))")
    tab.type(GOOD)
    tab.state("ok")
    tab.submit()
    first = tab.thanked()["signup-gate-response"]
    tab.page.go_back(wait_until="commit")
    tab.page.wait_for_function("window.kept === true")
    expect(tab.email).to_have_value(GOOD)
    tab.state("idle")
    assert not tab.page.evaluate("SignupGate.getResponse()")
    tab.submit()
    second = tab.thanked()["signup-gate-response"]
    assert second and second != first  # the first was spent


def test_back_while_a_submit_was_held(tab: Tab) -> None:
    tab.open(timeout_ms="5000")
    elsewhere = tab.shop.page("<!doctype html><title>Elsewhere</title>")
    tab.page.evaluate("addEventListener('pageshow', (event) => (window.kept = event.persisted))")
    tab.email.fill(slow(2200))
    tab.submit()
    tab.state("checking")
    tab.page.goto(elsewhere)
    tab.page.go_back(wait_until="commit")
    tab.page.wait_for_function("window.kept === true || !window.told.length")
    tab.page.locator("#email").fill(GOOD)
    tab.state("ok")
    assert not tab.shop.received
    tab.submit()
    tab.thanked()
    assert len(tab.shop.received) == 1


def test_the_script_loaded_twice(tab: Tab) -> None:
    again = f'<script src="{tab.gate.url}/v1/gate.js" data-sitekey="pk_other" defer></script>'
    tab.open(body=again)
    tab.type(GOOD)
    tab.state("ok")
    assert tab.page.locator(".signup-gate").count() == 1
    assert len(tab.checks) == 1
    tab.submit()
    tab.thanked()


@pytest.mark.parametrize(
    "remove",
    ["document.querySelector('#email').remove()", "SignupGate.remove()"],
    ids=["from the page", "by the page's own word"],
)
def test_an_input_that_goes_away_while_it_is_checked(tab: Tab, remove: str) -> None:
    tab.open(timeout_ms="5000")
    tab.email.fill(slow(2400))
    tab.submit()
    tab.state("checking")
    tab.page.evaluate(remove)
    tab.thanked()


def test_a_form_that_goes_away_while_it_is_checked(tab: Tab) -> None:
    tab.open()
    tab.email.fill(slow(700))
    tab.submit()
    tab.state("checking")
    tab.page.evaluate("document.querySelector('#form').remove()")
    tab.page.wait_for_function("!document.adoptedStyleSheets.length")
    assert not tab.shop.received


def test_a_faulty_callback_is_the_pages_own_affair(tab: Tab) -> None:
    tab.page.add_init_script("window.bad = () => { throw new Error('mine'); }")
    tab.open(callback="bad")
    tab.type(GOOD)
    tab.state("ok")
    tab.page.wait_for_timeout(50)
    assert tab.errors == ["uncaught: mine"]
    tab.errors.clear()
    tab.submit()
    tab.thanked()


def test_throttled_is_unknown_and_goes_through(tab: Tab) -> None:
    tab.open()
    says(tab, reason="throttled", final=False)
    tab.type(GOOD)
    tab.state("unknown")
    tab.submit()
    tab.thanked()


def test_a_value_that_a_script_changes_after_a_no_is_judged_anew(tab: Tab) -> None:
    tab.open()
    tab.type(NOBODY)
    tab.leave()
    expect(tab.email).to_have_attribute("aria-invalid", "true", timeout=SOON)
    tab.page.evaluate(f"document.querySelector('#email').value = '{GOOD}'")
    tab.submit()
    assert tab.thanked()["email"] == GOOD
