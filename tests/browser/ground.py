"""What the browser tests stand on: a gate process, a shop whose pages a test writes, a tab.

The gate is the real one with its sandbox, in a process of its own: a test may kill it. The shop is
another origin, as in life.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".cache" / "browser"
SHOTS = Path(__file__).parent / "shots"

SECRET = "sk_" + "a" * 40
SITEKEY = "pk_" + "a" * 20
SERVE = "import gate.cli; raise SystemExit(gate.cli.main())"
SOON = 10_000
"""Milliseconds that may pass until something is seen; the machine may be busy."""

GOOD, NOBODY = "jane@inbox.test", "nobody@inbox.test"
TYPO, MEANT = "jane@gmial.com", "jane@gmail.com"
FULL, DEFERRED = "full@inbox.test", "deferred@inbox.test"
_asked = itertools.count()


def slow(milliseconds: int) -> str:
    """An address whose mail server takes its time; a new one each time, so nobody remembers it."""
    return f"slow-{milliseconds + next(_asked)}@inbox.test"


# -- the gate --------------------------------------------------------------------------------------


@dataclass(slots=True)
class GateProcess:
    """A running gate."""

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def gate_process(folder: Path, *origins: str, **limits: int) -> Iterator[GateProcess]:
    """Start a gate for pages of `origins`, and end it."""
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    limits = {"client_per_minute": 100_000, "site_per_minute": 100_000, **limits}
    folder.mkdir(exist_ok=True)
    (folder / "gate.toml").write_text(
        "[server]\nport = 0\nadmin_port = 0\n"
        '[store]\nurl = "memory:"\n[sandbox]\nenabled = true\n[dns]\nservers = ["127.0.0.1:9"]\n'
        "[limits]\n"
        + "".join(f"{key} = {value}\n" for key, value in limits.items())
        + f'[[site]]\nname = "shop"\nsite_key = "{SITEKEY}"\nsecret_hash = "{digest}"\n'
        f"origins = {json.dumps(origins)}\n"
    )
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", "--config", str(folder / "gate.toml")],
            cwd=ROOT,
            stderr=file,
            stdout=subprocess.DEVNULL,
        )
    try:
        yield GateProcess(_listening(process, log), process)
    finally:
        process.terminate()
        process.wait(12)


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, as soon as it says so."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"listening on (http://\S+?)[\s\"]", log.read_text() + "\n")
        if found:
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"the gate did not start: {log.read_text()}")


# -- the shop --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Shop:
    """A web site whose pages are what a test says, and which notes the forms it gets."""

    server: ThreadingHTTPServer
    pages: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    received: list[dict[str, str]] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=itertools.count)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.server.server_port}"

    def page(self, html: str, *, path: str = "", headers: Mapping[str, str] | None = None) -> str:
        """Serve a page (or a script, by its path's ending); its URL."""
        path = path or f"/{next(self._count)}"
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        told = {"Content-Type": f"{kind}; charset=utf-8", **(headers or {})}
        self.pages[path] = html.encode(), told
        return self.origin + path

    @property
    def last(self) -> dict[str, str]:
        """The form that came last."""
        return self.received[-1]


THANKS = "<!doctype html><title>Thanks</title><h1 id=thanks>Thank you</h1>"


@contextmanager
def shop() -> Iterator[Shop]:
    """Open the shop."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, headers = opened.pages.get(self.path.partition("?")[0], (b"", {}))
            self._answer(200 if headers else 404, body, headers)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            opened.received.append(dict(parse_qsl(body, keep_blank_values=True)))
            self._answer(200, THANKS.encode(), {"Content-Type": "text/html; charset=utf-8"})

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A browser that hangs up is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    opened = Shop(server)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield opened
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


# -- the page --------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
max-width: 24rem; padding: 0 1rem } label { display: block; font-weight: 600; margin: .75rem 0 4px }
input { box-sizing: border-box; width: 100%; padding: .6rem .75rem; font: inherit } form > button {
margin-top: 1rem; padding: .6rem 1.2rem; font: inherit }
"""
FIELDS = """<label for="email">E-mail</label><input id="email" type="email" name="email"
autocomplete="email"><label for="name">Name</label><input id="name" name="name"
autocomplete="name">"""


def script_tag(gate: str, query: str = "", **attributes: str) -> str:
    """The one script tag; impatient, so that the tests are done sooner."""
    named = {"sitekey": SITEKEY, "debounce": "200", **attributes}
    data = "".join(f' data-{key.replace("_", "-")}="{value}"' for key, value in named.items())
    return f'<script src="{gate}/v1/gate.js{query}"{data} defer></script>'


def signup(
    gate: str,
    *,
    fields: str = FIELDS,
    form: str = "",
    head: str = "",
    body: str = "",
    lang: str = "en",
    query: str = "",
    root: str = "",
    **attributes: str,
) -> str:
    """A plain signup page with the widget on it."""
    return (
        f'<!doctype html><html lang="{lang}" {root}><head><meta charset="utf-8"><title>Shop</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">'
        f"{head}{script_tag(gate, query, **attributes)}</head><body><main><h1>Sign up</h1>"
        f'<form id="form" method="post" action="/signup" {form}>{fields}'
        f'<button id="go" name="via" value="button">Create account</button></form>{body}</main>'
        "</body></html>"
    )


@dataclass
class Tab:
    """A page in the browser, with what happened on it."""

    page: Page
    shop: Shop
    gate: GateProcess
    errors: list[str] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("request", self._requested)
        self.page.add_init_script(RECORDER)

    def _heard(self, message: ConsoleMessage) -> None:
        # The browser itself notes every failed request, and no page can keep it from doing so.
        by_browser = message.text.startswith(("Failed to load resource", "Access to fetch"))
        if message.type in ("error", "warning") and not by_browser:
            self.errors.append(f"{message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        if "/v1/check" in request.url or "/v1/prefetch" in request.url:
            self.asked.append(request)

    @property
    def email(self) -> Locator:
        return self.page.locator("#email")

    @property
    def status(self) -> Locator:
        """The field's message."""
        return self.page.locator(".signup-gate")

    @property
    def checks(self) -> list[dict[str, str]]:
        """The bodies of the checks asked so far."""
        return [
            dict(parse_qsl(request.post_data or "", keep_blank_values=True))
            for request in self.asked
            if request.url.endswith("/v1/check")
        ]

    def open(self, html: str | None = None, **how: Any) -> Tab:
        """Open a page: the plain signup one unless said otherwise."""
        headers = how.pop("headers", None)
        text = signup(self.gate.url, **how) if html is None else html
        self.page.goto(self.shop.page(text, headers=headers))
        return self

    def type(self, text: str, where: str = "#email") -> None:
        """Type as a person does, key by key."""
        self.page.locator(where).press_sequentially(text)

    def leave(self) -> None:
        """Go on to the next field by keyboard."""
        self.page.keyboard.press("Tab")

    def state(self, name: str, where: str = "#email") -> None:
        """Wait until the field is in a state."""
        expect(self.page.locator(where)).to_have_attribute("data-gate-state", name, timeout=SOON)

    def submit(self) -> None:
        """Press the button."""
        self.page.locator("#go").click()

    def thanked(self) -> dict[str, str]:
        """Wait until the shop has the form; its fields."""
        expect(self.page.locator("#thanks")).to_be_visible(timeout=SOON)
        return self.shop.last

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What the widget told the page: type, detail, and when in milliseconds."""
        told: list[dict[str, Any]] = self.page.evaluate("window.told || []")
        return [one for one in told if not kinds or one["type"] in kinds]

    def shot(self, name: str) -> None:
        """Keep a picture for people to look at."""
        SHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


RECORDER = """
window.told = [];
for (const type of ["statechange", "result", "suggestion", "suggestion-accepted", "override",
    "expire", "error"]) {
  document.addEventListener("gate:" + type, (event) => {
    const { detail } = event;
    window.told.push({ type, detail, at: performance.now(), on: event.composedPath()[0].id });
  });
}
"""


def required() -> bool:
    """Whether a machine without Chromium has failed, instead of being excused."""
    return os.environ.get("CI") == "true" or os.getuid() == 0
