"""The page at `/` in development and sandbox mode: a signup form with the real widget on it.

What it promises: one self-contained document that loads nothing but the widget, by its hash; every
value that is put in is escaped; style and script are allowed by their hashes, so that the page runs
under `policy()`, the strictest Content-Security-Policy it can have. It knows the public key only.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Final

from gate.reason import VERDICT_OF
from gate.sandbox import EXAMPLES, Example
from gate.settings import Settings
from gate.widget import Script

ASSETS: Final = Path(__file__).parent / "assets"
GROUPS: Final = (
    ("deliverable", "Deliverable", "let in"),
    ("risky", "Risky", "let in, or asked to look again"),
    ("undeliverable", "Undeliverable", "proved, and turned away"),
    ("unknown", "Unknown", "nothing was proved: let in"),
    ("flags", "Flags", "what lists say of an address"),
)
"""Class, title and what the default policy does, in the order of the page."""


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def policy() -> str:
    """The Content-Security-Policy to serve the page with."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {_hash(_asset('page.js'))}",
            f"style-src {_hash(_asset('page.css'))}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def headers() -> list[tuple[bytes, bytes]]:
    """The headers to serve the page with, all but the length."""
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy().encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]


def render(settings: Settings, site_key: str, script: Script) -> bytes:
    """The page for a site, in UTF-8. `site_key` is the public key; never hand it a secret."""
    on = settings.sandbox.enabled
    values = {
        "mode": "sandbox" if on else "development",
        "sitekey": escape(site_key),
        "src": escape(script.path),
        "integrity": escape(script.integrity),
        "size": f"{len(script.gzipped) / 1024:.1f} KB",
        "world": _world() if on else _WORLD_OFF,
        "tag": escape(tag(settings, site_key)),
        "curl": escape(curl(settings)),
        "style": _asset("page.css"),
        "script": _asset("page.js"),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], _asset("page.html"))
    return page.encode("utf-8")


def tag(settings: Settings, site_key: str) -> str:
    """What a page of one's own takes over."""
    return f'<script src="{_url(settings)}/v1/gate.js" data-sitekey="{site_key}" defer></script>'


def curl(settings: Settings) -> str:
    """What a server of one's own asks when the form arrives."""
    fields = ("secret=sk_…", "response=$signup_gate_response", "email=$email")
    return " ".join(
        (
            f"curl {_url(settings)}/v1/siteverify",
            *(f'--data-urlencode "{field}"' for field in fields),
        )
    )


def _url(settings: Settings) -> str:
    host = settings.server.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


_WORLD_OFF: Final = """\
    <h2>Practice addresses</h2>
    <p class="hint">The sandbox is off. Start with <code>gate demo</code>, or write
    <code>enabled = true</code> under <code>[sandbox]</code>, and a small mail world under .test
    answers here: an address for each reason, served by real mail servers on this machine.</p>"""


def _world() -> str:
    groups = "\n".join(_group(*group) for group in GROUPS)
    return f"""\
    <h2>Practice addresses</h2>
    <p>One for each reason, served by real mail servers inside this process. Choose one. The reason
    beside it is what your server is told; a page is told less.</p>
{groups}"""


def _group(kind: str, title: str, policy_says: str) -> str:
    rows = "\n".join(_row(example) for example in EXAMPLES if _kind(example) == kind)
    return f"""\
    <section class="group {kind}">
      <h3><i></i>{title} <span>{policy_says}</span></h3>
      <ul>
{rows}
      </ul>
    </section>"""


def _kind(example: Example) -> str:
    return "flags" if example.flag else VERDICT_OF[example.reason].value


def _row(example: Example) -> str:
    word = example.flag or example.reason
    address = escape(example.address)
    return (
        f'        <li><button type="button" data-address="{address}"><b>{address}</b>'
        f"<code>{word}</code><small>{escape(example.note)}</small></button></li>"
    )
