from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from gate.reason import GateError
from gate.settings import Settings
from gate.settings.read import load, parse

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 24).decode()
URL = "https://hooks.example.com/gate?site=1"


def settings(**webhook: Any) -> Settings:
    table = {"url": URL, "secrets": [OLD], **webhook}
    site = {"name": "shop", "site_key": "pk_1", "secret_hash": "0" * 64, "webhook": [table]}
    return parse({"site": [site]})


def test_an_endpoint_is_read_with_two_active_secrets() -> None:
    (webhook,) = settings(secrets=[NEW, OLD]).site[0].webhook
    assert webhook.keys == (b"n" * 24, b"o" * 32)
    assert (webhook.allow_http, webhook.include_address) == (False, False)


REFUSED_URLS = {
    "an IPv4 literal": "https://127.0.0.1/",
    "an IPv4 literal that is public": "https://8.8.8.8/",
    "an IPv6 literal": "https://[::ffff:169.254.169.254]/",
    "a number": "https://2130706433/",
    "hexadecimal": "https://0x7f.1/",
    "short form": "https://127.1/",
    "one label": "https://localhost/",
    "a trailing dot": "https://a.test./",
    "an empty label": "https://a..test/",
    "a label too long": f"https://{'a' * 64}.test/",
    "another port": "https://a.test:6379/",
    "port 80 with TLS": "https://a.test:80/",
    "port zero": "https://a.test:0/",
    "a port out of range": "https://a.test:99999/",
    "plain": "http://a.test/",
    "a user": "https://user@a.test/",
    "a password": "https://:secret@a.test/",
    "a fragment": "https://a.test/#x",
    "another scheme": "ftp://a.test/",
    "gopher": "gopher://a.test:443/_x",
    "no scheme": "a.test/hook",
    "a line break": "https://a.test/\r\nX-Other: 1",
    "a space": "https://a.test/a b",
    "other scripts": "https://bücher.test/",
    "full-width digits": "https://１２７.0.0.1/",
    "a percent sign in the host": "https://a%2etest/",
    "too long": "https://a.test/" + "x" * 2000,
    "empty": "",
}


@pytest.mark.parametrize("url", REFUSED_URLS.values(), ids=REFUSED_URLS)
def test_a_url_that_leads_astray_is_refused_at_start(url: str) -> None:
    """A11."""
    with pytest.raises(GateError, match=r"site\[0\]\.webhook\[0\]\.url: "):
        settings(url=url)


@pytest.mark.parametrize("url", ["https://a.test", "https://a.test:443/x", "https://a-1.b.test/?q"])
def test_a_url_by_name_is_taken(url: str) -> None:
    assert settings(url=url).site[0].webhook[0].url == url


def test_plain_http_is_a_choice() -> None:
    assert settings(url="http://a.test:80/x", allow_http=True)
    with pytest.raises(GateError, match="port 443"):
        settings(url="http://a.test:443/x", allow_http=True)


REFUSED_SECRETS = {
    "none": ([], "secrets"),
    "three": ([OLD, NEW, OLD], "secrets"),
    "without its prefix": ([OLD.removeprefix("whsec_")], "whsec_"),
    "Supabase's form": (["v1," + OLD], "whsec_"),
    "too short": (["whsec_" + base64.b64encode(b"x" * 23).decode()], "too short"),
    "too long": (["whsec_" + base64.b64encode(b"x" * 65).decode()], "too long"),
    "no base64": (["whsec_changeme!"], "base64"),
}


@pytest.mark.parametrize(("secrets", "said"), REFUSED_SECRETS.values(), ids=REFUSED_SECRETS)
def test_a_secret_that_is_none_is_refused(secrets: list[str], said: str) -> None:
    with pytest.raises(GateError, match=said) as refusal:
        settings(secrets=secrets)
    assert "changeme" not in str(refusal.value)


def test_a_secret_may_stand_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(
        '[[site]]\nname = "shop"\nsite_key = "pk_1"\nsecret_hash = "' + "0" * 64 + '"\n'
        f'[[site.webhook]]\nurl = "{URL}"\nsecrets = ["env:HOOK_SECRET"]\n'
    )
    read = load(None, {"HOOK_SECRET": OLD}, cwd=tmp_path)
    assert read.site[0].webhook[0].secrets == (OLD,)
    with pytest.raises(GateError, match=r"site\.webhook\.secrets: env:HOOK_SECRET"):
        load(None, {}, cwd=tmp_path)


def test_an_endpoint_is_named_once() -> None:
    table = {"url": URL, "secrets": [OLD]}
    site = {"name": "shop", "site_key": "pk_1", "secret_hash": "0" * 64, "webhook": [table, table]}
    with pytest.raises(GateError, match="two are the same"):
        parse({"site": [site]})
