"""Where a field can stand, and the ways in which a value comes into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.ground import (
    FIELDS,
    GOOD,
    MEANT,
    NOBODY,
    SITEKEY,
    SOON,
    TYPO,
    GateProcess,
    Shop,
    Tab,
    signup,
)


def react(packages: Path) -> str:
    """React from npm as one classic script: its modules, and a `require` that finds them."""
    files = {
        "react": "react/cjs/react.production.js",
        "scheduler": "scheduler/cjs/scheduler.production.js",
        "react-dom": "react-dom/cjs/react-dom.production.js",
        "react-dom/client": "react-dom/cjs/react-dom-client.production.js",
    }
    modules = ",".join(
        f"{json.dumps(name)}(module,exports,require){{{(packages / path).read_text()}\n}}"
        for name, path in files.items()
    )
    return (
        f"const sources={{{modules}}},made={{}};function require(name){{if(!made[name]){{"
        "const module={exports:{}};made[name]=module;"
        "sources[name](module,module.exports,require)}return made[name].exports}"
        "window.React=require('react');window.ReactDOM=require('react-dom/client');"
    )


APP = """
const { createElement: h, useState } = React;
function Signup() {
  const [email, setEmail] = useState("");
  const [sent, setSent] = useState(null);
  const [count, setCount] = useState(0);
  window.again = () => setCount((n) => n + 1);
  window.modelled = email;
  return h("form", { id: "form", onSubmit: (event) => {
      event.preventDefault();
      setSent(Object.fromEntries(new FormData(event.target)));
    } },
    h("label", { htmlFor: "email" }, "E-mail"),
    h("input", { id: "email", type: "email", name: "email", value: email,
                 onChange: (event) => setEmail(event.target.value) }),
    h("button", { id: "go" }, "Create account " + count),
    sent && h("pre", { id: "sent" }, JSON.stringify(sent)));
}
window.root = ReactDOM.createRoot(document.querySelector("#app"));
root.render(h(Signup));
"""


def test_a_controlled_input_of_react(tab: Tab, packages: Path) -> None:
    tab.shop.page(react(packages), path="/react.js")
    tab.shop.page(APP, path="/app.js")
    page = signup(tab.gate.url, fields="").replace("<form", "<div id=app></div><form hidden", 1)
    page = page.replace('id="form"', "").replace('id="go"', "")
    tab.open(
        page.replace("</body>", '<script src="/react.js"></script><script src="/app.js"></script>')
    )
    tab.type(TYPO)
    tab.leave()
    tab.page.get_by_role("button", name=f"Did you mean {MEANT}?").press("Enter")
    expect(tab.email).to_have_value(MEANT)
    tab.page.wait_for_function(f"window.modelled === '{MEANT}'")  # React knows
    tab.page.evaluate("again()")  # and a render does not take it back
    expect(tab.email).to_have_value(MEANT)
    tab.state("unknown")
    tab.page.locator("#go").click()
    sent = tab.page.locator("#sent")
    expect(sent).to_contain_text(MEANT, timeout=SOON)
    assert json.loads(sent.inner_text())["signup-gate-response"].startswith("v1.")
    tab.email.fill(NOBODY)
    tab.page.locator("#go").click()
    expect(tab.status).to_have_attribute("role", "alert", timeout=SOON)
    expect(sent).to_contain_text(MEANT)  # React's onSubmit was not reached
    tab.page.evaluate("root.unmount()")
    tab.page.wait_for_function("!document.adoptedStyleSheets.length")
    assert tab.page.evaluate("SignupGate.getResponse()") is None


def test_the_npm_module_attaches_by_itself(tab: Tab) -> None:
    source = Path(__file__).parents[2] / "widget"
    for name in ("gate.js", "machine.js", "messages.js"):
        tab.shop.page((source / name).read_text(), path=f"/npm/{name}")
    module = (
        "<script type=module>import { attach } from '/npm/gate.js';"
        "window.handle = attach(document.querySelector('#email'),"
        f" {{ url: '{tab.gate.url}', sitekey: '{SITEKEY}', appearance: 'problems-only',"
        " callback: (token) => (window.token = token) });"
        "window.same = attach(document.querySelector('#email')) === handle;</script>"
    )
    page = signup(tab.gate.url, body=module)
    tab.open(page.replace(f'src="{tab.gate.url}/v1/gate.js"', 'type="text/plain"'))
    tab.page.wait_for_function("window.handle")
    assert tab.page.evaluate("window.same && !window.SignupGate")
    tab.type(GOOD)
    tab.state("ok")
    tab.page.wait_for_function("window.token && token === handle.getResponse()")
    assert tab.page.evaluate("handle.check().then((outcome) => outcome.reason)") == "accepted_email"
    tab.submit()
    tab.thanked()


def test_a_form_inside_a_shadow_root(tab: Tab) -> None:
    tab.open(
        signup(tab.gate.url, query="?render=explicit").replace(
            "</main>",
            """<div id="host"></div></main><script>addEventListener("load", () => {
              const root = document.querySelector("#host").attachShadow({ mode: "open" });
              const form = document.createElement("form");
              Object.assign(form, { method: "post", action: "/signup" });
              for (const [tag, more] of [["input", { type: "email", name: "email", id: "inner" }],
                  ["button", { textContent: "Send", id: "send" }]]) {
                form.append(Object.assign(document.createElement(tag), more));
              }
              root.append(form);
              window.id = SignupGate.render(root.querySelector("input"));
            })</script>""",
        )
    )
    inner = tab.page.locator("#inner")
    inner.press_sequentially(NOBODY)
    tab.state("blocked", "#inner")
    tab.page.locator("#send").click()
    expect(tab.page.locator(".signup-gate")).to_have_attribute("role", "alert", timeout=SOON)
    expect(inner).to_be_focused()
    assert tab.page.locator(".signup-gate").evaluate("(box) => box.getRootNode().host.id") == "host"
    assert tab.events("result")[0]["on"] == "inner"  # events cross the boundary
    inner.fill(GOOD)
    tab.page.locator("#send").click()
    assert tab.thanked()["signup-gate-response"]


def test_two_forms_on_a_page(tab: Tab) -> None:
    second = (
        '<form id="second" method="post" action="/signup" data-action="news">'
        '<label for="news">News</label><input id="news" type="email" name="email">'
        '<button id="subscribe">Subscribe</button></form>'
    )
    tab.open(body=second, action="signup")
    tab.email.fill(NOBODY)
    tab.type(GOOD, "#news")
    tab.state("ok", "#news")
    tab.state("blocked")
    assert {body["email"]: body["action"] for body in tab.checks} == {
        NOBODY: "signup",
        GOOD: "news",
    }
    tab.page.locator("#subscribe").click()  # the other form's trouble is not this one's
    assert tab.thanked()["email"] == GOOD


def test_two_addresses_in_one_form_are_held_once(tab: Tab) -> None:
    fields = (
        '<input id="email" type="email" name="email" aria-label="E-mail">'
        '<input id="friend" type="email" name="friend" aria-label="Friend"'
        ' data-response-field-name="friend-response">'
    )
    tab.open(fields=fields)
    tab.page.locator("#friend").fill(GOOD)
    tab.state("ok", "#friend")
    tab.email.fill("john@inbox.test")
    tab.submit()
    form = tab.thanked()
    assert form["signup-gate-response"] and form["friend-response"]
    assert form["signup-gate-response"] != form["friend-response"]


def test_fields_that_come_later_and_go_again(tab: Tab) -> None:
    tab.open(fields="")
    tab.page.evaluate(
        """() => {
          const view = document.createElement("section");
          const input = document.createElement("input");
          Object.assign(input, { type: "email", id: "email", name: "email" });
          view.append(document.createElement("p"), input);
          document.querySelector("#form").prepend(view);
        }"""
    )
    tab.state("idle")
    tab.type(GOOD)
    tab.state("ok")
    tab.page.evaluate(
        "() => { const view = document.querySelector('section'); view.remove();"
        " document.body.append(view); }"
    )
    expect(tab.page.locator(".signup-gate")).to_have_text("✓Looks good")  # moved, not lost
    tab.page.evaluate("document.querySelector('section').remove()")
    tab.page.wait_for_function("!document.adoptedStyleSheets.length")
    assert tab.page.locator("input[type=hidden]").count() == 0


def test_autofill(tab: Tab) -> None:
    tab.open()
    tab.page.evaluate(
        """([email]) => {  // as Chromium fills a form: no key, one input and one change
          const field = document.querySelector("#email");
          field.value = email;
          field.dispatchEvent(new Event("input", { bubbles: true }));
          field.dispatchEvent(new Event("change", { bubbles: true }));
        }""",
        [GOOD],
    )
    tab.state("ok")
    assert len(tab.checks) == 1


def test_paste(tab: Tab) -> None:
    tab.open(fields=FIELDS.replace('id="name"', f'id="name" value="{GOOD}"'))
    name = tab.page.locator("#name")
    name.focus()
    name.press("ControlOrMeta+a")
    name.press("ControlOrMeta+c")
    tab.email.focus()
    tab.email.press("ControlOrMeta+v")
    expect(tab.email).to_have_value(GOOD)
    tab.state("ok")


def test_composition_is_waited_for(tab: Tab) -> None:
    tab.open(fields='<input id="email" name="email" aria-label="E-mail" data-gate>', debounce="50")
    tab.email.focus()
    session = tab.page.context.new_cdp_session(tab.page)
    for text in ("j", "ja", "jane@inbox.tes", "jane@inbox.test"):
        session.send(
            "Input.imeSetComposition",
            {"text": text, "selectionStart": len(text), "selectionEnd": len(text)},
        )
        tab.page.wait_for_timeout(60)
    assert not tab.asked
    session.send("Input.insertText", {"text": GOOD})
    tab.state("ok")
    assert [body["email"] for body in tab.checks] == [GOOD]


@pytest.mark.parametrize(
    ("lang", "locale", "text"),
    [
        ("de", "en-US", "Adresse existiert nicht"),
        ("fr-CA", "en-US", "Cette adresse n’existe pas"),
        ("", "es-MX", "La dirección no existe"),
        ("xx", "pt-BR", "O endereço não existe"),
        ("xx", "xx-XX", "This mailbox does not exist."),
        ("it", "de-DE", "L’indirizzo non esiste"),
    ],
)
def test_the_language_of_the_page_and_then_of_the_browser(
    browser: Browser, gate: GateProcess, open_shop: Shop, lang: str, locale: str, text: str
) -> None:
    context = browser.new_context(locale=locale)
    tab = Tab(context.new_page(), open_shop, gate).open(lang=lang)
    tab.email.fill(NOBODY)
    tab.leave()
    expect(tab.status).to_contain_text(text, timeout=SOON)
    context.close()


def test_a_small_screen_a_right_to_left_page_and_a_dark_one(
    browser: Browser, gate: GateProcess, open_shop: Shop
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 780}, color_scheme="dark", has_touch=True, is_mobile=True
    )
    tab = Tab(context.new_page(), open_shop, gate)
    tab.open(lang="ar", root='dir="rtl"')
    tab.email.fill(NOBODY)
    tab.leave()
    expect(tab.status).to_contain_text("هذا العنوان غير موجود", timeout=SOON)
    tab.shot("phone-rtl-blocked")
    long = "a-rather-long-name.with-many-parts.and-a-tag+newsletter-2026@gmial.com"
    tab.open()
    tab.email.fill(long)
    tab.leave()
    expect(tab.status).to_contain_text("Did you mean", timeout=SOON)
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.page.evaluate(wide)
    tab.shot("phone-long-suggestion")
    tab.page.get_by_role("button", name="Did you mean").tap()
    expect(tab.email).to_have_value(long.replace("gmial", "gmail"))
    context.close()
