"""Providers: whose MX hosts these are, and that every row says why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from gate.reason import GateError
from gate.smtp.provider import PROVIDERS, Provider, load, overlay, provider_of

ROW = """
[[provider]]
name = "Example"
suffixes = ["mx.example"]
accepts = "{accepts}"
why = "because"
source = "https://example.com"
date = "2026-01-01"
"""


@pytest.mark.parametrize(
    ("mx_names", "name"),
    [
        (["aspmx.l.google.com", "alt1.aspmx.l.google.com"], "Google"),
        (["alt3.aspmx.l.google.com", "aspmx2.googlemail.com", "aspmx.l.google.com"], "Google"),
        (["smtp.google.com"], "Google"),
        (["example-com.mail.protection.outlook.com"], "Microsoft 365"),
        (["example-com.a-v1.mx.microsoft"], "Microsoft 365"),
        (["outlook-com.olc.protection.outlook.com"], "Outlook.com"),
        (["mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"], "Yahoo"),
        (["mx-aol.mail.gm0.yahoodns.net"], "Yahoo"),
        (["mx01.mail.icloud.com", "mx02.mail.icloud.com"], "iCloud"),
        (["mx00.emig.gmx.net", "mx01.emig.gmx.net"], "GMX"),
        (["mx-ha02.web.de", "mx-ha03.web.de"], "GMX"),
        (["mx00.mail.com"], "GMX"),
        (["mx.yandex.net"], "Yandex"),
        (["mxs.mail.ru", "emx.mail.ru"], "Mail.ru"),
        (["eu-smtp-inbound-1.mimecast.com", "eu-smtp-inbound-2.mimecast.com"], "Mimecast"),
        (["mx0a-00000001.pphosted.com", "mx0b-00000001.pphosted.com"], "Proofpoint"),
        (["d100.a.ess.de.barracudanetworks.com"], "Barracuda"),
        (["mx00.t-online.de"], "T-Online"),
        (["mx.zoho.eu", "mx2.zoho.eu"], "Zoho"),
        (["in1-smtp.messagingengine.com"], "Fastmail"),
        (["mail.protonmail.ch", "mailsec.protonmail.ch"], "Proton"),
        (["mxbiz1.qq.com", "mxbiz2.qq.com"], "Tencent QQ"),
        (["163mx01.mxmail.netease.com"], "NetEase"),
        (["mx1.naver.com"], "Naver"),
        (["smtp-in.sfr.fr"], "SFR"),
        (["mx1.hc0000-00.eu.iphmx.com", "mx2.hc0000-00.eu.iphmx.com"], "Cisco IronPort"),
        (["MX00.GMX.NET."], "GMX"),
        (["aspmx.l.google.com", "alt1.aspmx.l.google.com", "backup.example"], "Google"),
    ],
)
def test_most_of_the_hosts_name_the_provider(mx_names: list[str], name: str) -> None:
    provider = provider_of(mx_names)
    assert provider is not None
    assert provider.name == name


@pytest.mark.parametrize(
    "mx_names",
    [
        [],
        [""],
        ["mail.example.com"],
        ["mygoogle.com"],
        ["google.com.example.org"],
        ["notmail.ru.example"],
        ["aspmx.l.google.com", "mail.example.com"],
        ["mx.mimecast.com", "mx.example.net", "mx.example.org"],
    ],
)
def test_a_look_alike_or_a_minority_names_nobody(mx_names: list[str]) -> None:
    assert provider_of(mx_names) is None


def test_yahoo_is_not_asked_and_gateways_are_believed_only_when_they_refuse() -> None:
    worth = {row.name: row.accepts for row in PROVIDERS.values()}
    assert worth["Yahoo"] == "opaque"
    assert worth["Mimecast"] == worth["Proofpoint"] == worth["Barracuda"] == "opaque_if_accepted"
    assert worth["Google"] == worth["GMX"] == "trust"


@pytest.mark.parametrize("suffix", PROVIDERS)
def test_every_row_says_why_and_where_from(suffix: str) -> None:
    row = PROVIDERS[suffix]
    assert len(row.why) > 20
    assert row.source.startswith(("https://", "http://"))
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", row.date)
    assert all("." in suffix and not suffix.startswith(".") for suffix in row.suffixes)


def test_a_wrong_row_is_named() -> None:
    with pytest.raises(GateError, match=r"row 'Example': unknown value of accepts"):
        load(ROW.format(accepts="perhaps"))
    with pytest.raises(GateError, match=r"'why' is missing"):
        load(ROW.format(accepts="trust").replace('why = "because"\n', ""))
    with pytest.raises(GateError, match=r"mx\.example is claimed twice"):
        row = ROW.format(accepts="trust")
        load(row + row.replace('name = "Example"', 'name = "Another"'))
    with pytest.raises(GateError, match=r"row 'Example': there are two of that name"):
        load(ROW.format(accepts="trust") * 2)


@pytest.mark.parametrize("row", {row.name: row for row in PROVIDERS.values()}.values(), ids=str)
def test_every_row_has_limits_and_says_whose_choice_they_are(row: Provider) -> None:
    assert row.dialogues is not None and 1 <= row.dialogues <= 4
    assert row.recipients_per_minute is not None and 6 <= row.recipients_per_minute <= 60
    assert row.spacing is None or 0 < row.spacing <= 5
    assert "limits: " in row.why or row.accepts == "opaque"
    assert row.probe == "allowed"
    assert row.control == ("same-session" if row.accepts == "trust" else "never")


# What an operator lays over it.


def named(providers: Mapping[str, Provider], name: str) -> Provider:
    return next(row for row in providers.values() if row.name == name)


def test_a_row_with_a_known_name_changes_the_keys_it_names_and_no_other() -> None:
    table = overlay(
        '[[provider]]\nname = "microsoft 365"\nprobe = "never"\nspacing = 9\n', "own.toml"
    )
    row, shipped = named(table, "Microsoft 365"), named(PROVIDERS, "Microsoft 365")
    assert (row.probe, row.spacing, row.overlaid) == ("never", 9.0, ("spacing", "probe"))
    assert replace(row, probe="allowed", spacing=shipped.spacing) == shipped
    assert all(table[suffix] is row for suffix in shipped.suffixes)
    assert {**table, **dict.fromkeys(shipped.suffixes)} == {
        **PROVIDERS,
        **dict.fromkeys(shipped.suffixes),
    }


def test_a_row_with_a_new_name_is_added_and_a_longer_suffix_takes_hosts_from_another() -> None:
    text = '[[provider]]\nname = "Big tenant"\nsuffixes = ["big.mail.protection.outlook.com"]\n'
    table = overlay(f'{text}accepts = "opaque"\n', "own.toml")
    found = provider_of(["big.mail.protection.outlook.com"], table)
    assert found is not None
    assert (found.name, found.accepts, found.source) == ("Big tenant", "opaque", "own.toml")
    other = provider_of(["small.mail.protection.outlook.com"], table)
    assert other is not None and other.name == "Microsoft 365"


def test_suffixes_of_an_operator_replace_those_of_the_row() -> None:
    table = overlay('[[provider]]\nname = "GMX"\nsuffixes = ["GMX.net"]\n', "own.toml")
    assert provider_of(["mx00.gmx.net"], table) is not None
    assert provider_of(["mx-ha02.web.de"], table) is None


def test_an_empty_table_changes_nothing() -> None:
    assert overlay("", "own.toml") == PROVIDERS


WRONG = {
    "an unknown key": (
        '[[provider]]\nname = "Google"\ndialoges = 3',
        r"own\.toml, row 'Google': dialoges: there is no such key; there is name, suffixes,",
    ),
    "an unknown word": (
        '[[provider]]\nname = "Google"\nprobe = "no"',
        r"own\.toml, row 'Google': unknown value of probe: 'no'; write one of allowed, never",
    ),
    "a limit of nothing": (
        '[[provider]]\nname = "Google"\ndialogues = 0',
        r"own\.toml, row 'Google': dialogues: expected `int` >= 1",
    ),
    "a limit in words": (
        '[[provider]]\nname = "Google"\nspacing = "long"',
        r"own\.toml, row 'Google': spacing: expected `float`, got `str`",
    ),
    "a new row without suffixes": (
        '[[provider]]\nname = "Googel"\naccepts = "trust"',
        r"own\.toml, row 'Googel': 'suffixes' is missing; no provider of that name",
    ),
    "a row without a name": ("[[provider]]\ndialogues = 1", r"own\.toml: a row has no name"),
    "a suffix with its dot": (
        '[[provider]]\nname = "Google"\nsuffixes = [".google.com"]',
        r"own\.toml, row 'Google': suffixes: '\.google\.com' is no end of a host name",
    ),
    "a suffix that is no text": (
        '[[provider]]\nname = "Google"\nsuffixes = [25]',
        r"own\.toml, row 'Google': suffixes: expected `str`, got `int`",
    ),
    "a suffix of another": (
        '[[provider]]\nname = "Own"\nsuffixes = ["google.com"]\naccepts = "opaque"',
        r"own\.toml: suffixes: google\.com is claimed twice, by 'Google' and 'Own'",
    ),
    "two of one name": (
        '[[provider]]\nname = "Google"\n[[provider]]\nname = "google"',
        r"own\.toml, row 'google': there are two of that name",
    ),
    "a row not in a list": ('[provider]\nname = "Google"', r"own\.toml: holds more than rows"),
    "something else": ("[limits]\ndialogues = 1", r"own\.toml: holds more than rows"),
    "no TOML": ("[[provider", r"own\.toml: is not valid TOML"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_by_file_row_and_key(text: str, message: str) -> None:
    with pytest.raises(GateError, match=message):
        overlay(text, "own.toml")
