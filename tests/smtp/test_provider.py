"""Providers: whose MX hosts these are, and that every row says why."""

from __future__ import annotations

import re

import pytest

from gate.reason import GateError
from gate.smtp.provider import PROVIDERS, load, provider_of

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
        load(ROW.format(accepts="trust") * 2)
