"""Settings: what is refused, and that the message says what to write instead."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gate.reason import Choice, GateError
from gate.settings import Site, server_of
from gate.settings.read import load, parse

HASH = "0123456789abcdef" * 4


def site(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "site_key": "pk_a", "secret_hash": HASH} | changes


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown key": ({"server": {"hots": 1}}, "server.hots", "port"),
    "unknown section": ({"serverr": {}}, "serverr", "server"),
    "unknown key in a site": ({"site": [site(colour=1)]}, "site[0].colour", "origins"),
    "unknown key in a policy": (
        {"site": [site(policy={"unknow": "allow"})]},
        "site[0].policy.unknow",
        "unknown",
    ),
    "unknown key in an egress address": (
        {"egress": {"address": [{"name": "x"}]}},
        "egress.address[0].name",
        "helo",
    ),
    "wrong type": ({"server": {"port": "http"}}, "server.port", "int"),
    "port out of range": ({"server": {"port": 70000}}, "server.port", "65535"),
    "unknown blocks": (
        {"site": [site(policy={"unknown": "block"})]},
        "site[0].policy.unknown",
        'unknown = "allow"',
    ),
    "allow everything, v4": ({"egress": {"allow": ["0.0.0.0/0"]}}, "egress.allow", "networks"),
    "allow everything, v6": ({"egress": {"allow": ["::/0"]}}, "egress.allow", "networks"),
    "trust every proxy": (
        {"server": {"trusted_proxies": ["0.0.0.0/0"]}},
        "server.trusted_proxies",
        "networks",
    ),
    "not a network": ({"egress": {"allow": ["lab"]}}, "egress.allow", "10.0.0.0/8"),
    "resolver by name": ({"dns": {"servers": ["dns.example:53"]}}, "dns.servers", "ip:port"),
    "source address": (
        {"egress": {"address": [{"ip": "eth0"}]}},
        "egress.address.ip",
        "IP address",
    ),
    "source address of everything": (
        {"egress": {"address": [{"ip": "0.0.0.0"}]}},
        "egress.address.ip",
        "no single address",
    ),
    "several addresses, one without a name": (
        {"egress": {"address": [{"ip": "127.0.0.2", "helo": "a.example.com"}, {"ip": "::1"}]}},
        "egress.address.helo",
        "its PTR says too",
    ),
    "several addresses, one of them none": (
        {"egress": {"address": [{"ip": "127.0.0.2", "helo": "a.example"}, {"helo": "b.example"}]}},
        "egress.address.ip",
        "write each",
    ),
    "an address twice": (
        {"egress": {"address": [{"ip": "127.0.0.2", "helo": "a.example"}] * 2}},
        "egress.address",
        "once",
    ),
    "a first day that is none": (
        {"egress": {"address": [{"since": "22.11.2026"}]}},
        "egress.address[0].since",
        "date",
    ),
    "a proxy by name": (
        {"egress": {"address": [{"proxy": "socks5://me:s3cret@proxy.example:1080"}]}},
        "egress.address.proxy: names no IP address",
        "socks5://user:password@192.0.2.1:1080",
    ),
    "a proxy of another kind": (
        {"egress": {"address": [{"proxy": "http://me:s3cret@127.0.0.1:8080"}]}},
        "egress.address.proxy: is no SOCKS5 URL",
        "socks5://",
    ),
    "HELO injection": ({"probe": {"helo": "x\r\nQUIT"}}, "probe.helo", "FQDN"),
    "HELO localhost": ({"probe": {"helo": "localhost"}}, "probe.helo", "FQDN"),
    "sender injection": ({"probe": {"mail_from": "a@b.example>\r\nDATA"}}, "probe.mail_from", ""),
    "budget too long": ({"probe": {"budget_ms": 60_000}}, "probe.budget_ms", "10000"),
    "store": ({"store": {"url": "mysql://x"}}, "store.url", "sqlite:gate.db"),
    "short secret": ({"server": {"secret": "changeme"}}, "server.secret", "32"),
    "secret not hashed": ({"site": [site(secret_hash="sk_live")]}, "site[0].secret_hash", "keys"),
    "public key": ({"site": [site(site_key="sk_a")]}, "site[0].site_key", "pk_"),
    "origin with a path": (
        {"site": [site(origins=["https://a.example/x"])]},
        "site[0].origins",
        "https://www.example.com",
    ),
    "two sites, one key": ({"site": [site(), site(name="b")]}, "site.site_key", "own"),
    "a list where a table is": ({"server": []}, "server", "object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_key_and_what_to_write(name: str) -> None:
    tree, key, advice = REFUSED[name]
    with pytest.raises(GateError) as refused:
        parse(tree, origin="gate.toml")
    message = str(refused.value)
    assert message.startswith(f"gate.toml: {key}")
    assert "s3cret" not in message
    assert advice in message


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(
        f"""
        [server]
        port = 9000
        trusted_proxies = ["10.0.0.0/8"]
        [dns]
        servers = ["127.0.0.53:53", "[::1]:5353"]
        [[egress.address]]
        ip = "127.0.0.2"
        helo = "gate.example.com"
        [[site]]
        name = "shop"
        site_key = "pk_1"
        secret_hash = "sha256:{HASH}"
        [site.policy]
        disposable = "warn"
        """
    )
    settings = load(None, {}, cwd=tmp_path)
    assert settings.server.port == 9000
    assert settings.egress.address[0].helo == "gate.example.com"
    assert settings.site[0].policy.disposable is Choice.WARN
    assert settings.site[0].policy.unknown is Choice.ALLOW


def test_a_password_of_a_proxy_in_a_file_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('[[egress.address]]\nproxy = "socks5://me:s3cret@127.0.0.1:1080"\n')
    file.chmod(0o644)
    load(None, {}, cwd=tmp_path)
    assert f"chmod 600 {file}" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_proxys_url_may_come_from_the_environment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gate.toml").write_text(
        """
        [[egress.address]]
        ip = "192.0.2.7"
        helo = "far.example.com"
        since = 2026-11-01
        proxy = "env:FAR_PROXY"
        """
    )
    url = "socks5://me:s3cret@127.0.0.1:1080"
    (address,) = load(None, {"FAR_PROXY": url}, cwd=tmp_path).egress.address
    assert address.proxy == url
    assert address.since == date(2026, 11, 1)
    assert "chmod" not in caplog.text
    with pytest.raises(GateError, match=r"egress\.address\.proxy: env:FAR_PROXY: the variable is"):
        load(None, {}, cwd=tmp_path)


def test_the_environment_wins_over_the_file_and_names_lists_with_commas(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[server]\nport = 9000\n[probe]\nenabled = true\n")
    settings = load(
        None,
        {
            "GATE_CONFIG": "other.toml",
            "GATE_SERVER__PORT": "9001",
            "GATE_PROBE__ENABLED": "false",
            "GATE_DNS__SERVERS": "127.0.0.1:53, 127.0.0.2:53",
        },
        cwd=tmp_path,
    )
    assert settings.server.port == 9001
    assert settings.probe.enabled is False
    assert settings.dns.servers == ("127.0.0.1:53", "127.0.0.2:53")


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("GATE_SERVER__PROT", "1", "server.prot: there is no such key; there is host, port"),
        ("GATE_SERVICE__PORT", "1", "GATE_SERVER__"),
        ("GATE_SITE__NAME", "1", "there is no section 'site'"),
        ("GATE_SERVER__PORT", "many", "server.port"),
        ("GATE_SERVER__PORT__X", "1", "GATE_SERVER__PORT=8080"),
    ],
)
def test_a_wrong_variable_is_refused(name: str, value: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="GATE_|server") as refused:
        load(None, {name: value}, cwd=tmp_path)
    assert advice in str(refused.value)


def test_a_named_file_that_is_missing_is_an_error_not_a_default(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="cannot be read"):
        load("absent.toml", {}, cwd=tmp_path)


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text("[server\nport = 1")
    with pytest.raises(GateError, match="line 1"):
        load(None, {}, cwd=tmp_path)


def test_settings_cannot_be_changed_after_they_are_read() -> None:
    with pytest.raises(AttributeError):
        parse({}).server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.53:53", ("127.0.0.53", 53)),
        ("127.0.0.53", ("127.0.0.53", 53)),
        ("[::1]:5353", ("::1", 5353)),
        ("::1", ("::1", 53)),
    ],
)
def test_resolvers_are_written_with_or_without_a_port(text: str, expected: object) -> None:
    assert server_of(text) == expected


def test_a_site_lets_unknown_in_unless_told_to_warn() -> None:
    assert Site(name="a", site_key="pk_a", secret_hash=HASH).policy.unknown is Choice.ALLOW
