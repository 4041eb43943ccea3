"""Libraries written for Cloudflare Turnstile, pointed at this gate and nothing else changed.

Each is the real one from its registry, in a process of its own. It is given four tokens: a good
one, the same again, one that was never made, one of an address that does not exist.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.browser.ground import GOOD, NOBODY, SECRET, SITEKEY, GateProcess, Shop

DJANGO = """
import json, os, sys
import django
from django.conf import settings
settings.configure(
    TURNSTILE_VERIFY_URL=os.environ["URL"], TURNSTILE_SECRET=os.environ["SECRET"], USE_I18N=False
)
django.setup()
from django import forms
from turnstile.fields import TurnstileField

class Signup(forms.Form):
    turnstile = TurnstileField()

def verify(token):
    return Signup({"cf-turnstile-response": token}).is_valid()

print(json.dumps([verify(token) for token in json.load(sys.stdin)]))
"""
FLASK = """
import json, os, sys
from flask import Flask
from flask_turnstile import Turnstile

app = Flask("shop")
Turnstile.VERIFY_URL = os.environ["URL"]
turnstile = Turnstile(site_key="pk_1", secret_key=os.environ["SECRET"])

def verify(token):
    with app.test_request_context("/", method="POST", data={"cf-turnstile-response": token}):
        return turnstile.verify()

print(json.dumps([verify(token) for token in json.load(sys.stdin)]))
"""
NODE = """
const turnstile = require("cf-turnstile");
const verify = turnstile(process.env.SECRET, { apiUrl: process.env.URL });
(async () => {
  const tokens = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const results = [];
  for (const token of tokens) {
    const answer = await verify(token);
    results.push([answer.success, answer.errors, answer.hostname, answer.action,
                  answer.timestamp instanceof Date && !isNaN(answer.timestamp)]);
  }
  console.log(JSON.stringify(results));
})();
"""


@pytest.fixture
def tokens(gate: GateProcess, open_shop: Shop) -> list[str]:
    """The four."""

    def token(email: str) -> str:
        answer = httpx.post(
            f"{gate.url}/v1/check",
            data={"email": email, "sitekey": SITEKEY, "action": "signup"},
            headers={"origin": open_shop.origin},
        ).json()
        made: str = answer["token"]
        return made

    good = token(GOOD)
    return [good, good, "v1.never.been.made", token(NOBODY)]


def run(gate: GateProcess, command: list[str], tokens: list[str], **more: str) -> object:
    """The client's verdicts."""
    where = {"URL": f"{gate.url}/v1/siteverify", "SECRET": SECRET}
    done = subprocess.run(
        command,
        input=json.dumps(tokens),
        env={"PATH": os.environ["PATH"], **where, **more},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("client", [DJANGO, FLASK], ids=["django-turnstile", "flask-turnstile"])
def test_a_library_from_pypi(
    gate: GateProcess, packages: Path, tokens: list[str], client: str
) -> None:
    libraries = str(packages.parent / "python")
    verdicts = run(gate, [sys.executable, "-c", client], tokens, PYTHONPATH=libraries)
    assert verdicts == [True, False, False, False]


def test_a_library_from_npm(gate: GateProcess, packages: Path, tokens: list[str]) -> None:
    verdicts = run(gate, ["node", "-e", NODE], tokens, NODE_PATH=str(packages))
    assert verdicts == [
        [True, [], "localhost", "signup", True],
        [False, ["timeout-or-duplicate"], None, None, False],
        [False, ["invalid-input-response"], None, None, False],
        [False, ["email-rejected"], "localhost", "signup", True],
    ]
