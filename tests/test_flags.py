"""`flags`: disposable, relay, role, free and tagged addresses, and what overrules what."""

from __future__ import annotations

import pytest
from disposable_email_domains import blocklist

from gate import flags
from gate.address import Address, parse
from gate.flags import Flags
from gate.lists import table, words


def flags_of(text: str) -> Flags:
    address = parse(text)
    assert isinstance(address, Address), address
    return flags.of(address)


DISPOSABLE = {
    "mailinator": ("a@mailinator.com", True),
    "upper case": ("a@MAILINATOR.COM", True),
    "subdomain": ("a@x.mailinator.com", True),
    "subdomain of a subdomain": ("a@x.y.yopmail.com", True),
    "guerrilla mail": ("a@sharklasers.com", True),
    "ordinary": ("a@example.com", False),
    "only ends alike": ("a@not-the-mailinator.com", False),
    "listed name as a subdomain of another": ("a@mailinator.com.example.org", False),
    "gmail": ("a@gmail.com", False),
    "known slip of gmail": ("a@gmial.com", False),
    "single label": ("a@mailinator", False),
}


@pytest.mark.parametrize(("text", "disposable"), DISPOSABLE.values(), ids=DISPOSABLE)
def test_disposable(text: str, disposable: bool) -> None:
    assert flags_of(text).disposable is disposable


def test_the_package_lists_slips_that_we_ask_about_instead() -> None:
    assert "gmial.com" in blocklist, "if this fails, the exception of flags is no longer needed"


RELAYS = [
    "x7k2@privaterelay.appleid.com",
    "x7k2@mozmail.com",
    "shop@jane.mozmail.com",
    "jane@duck.com",
    "shop.x7k2@simplelogin.com",
    "shop.x7k2@aleeas.com",
    "shop@jane.aleeas.com",
    "shop@slmails.com",
    "94960540-f914-42e0-9c50-6faa7a385384@anonaddy.me",
    "shop@jane.anonaddy.com",
    "shop@addymail.com",
    "shop.word123@passmail.net",
    "shop.word123@passinbox.com",
]


@pytest.mark.parametrize("text", RELAYS)
def test_a_relay_is_never_disposable(text: str) -> None:
    found = flags_of(text)
    assert found.relay
    assert not found.disposable
    assert not flags_of("jane@gmail.com").relay


def test_every_relay_row_names_its_source() -> None:
    for row in table("relays.toml")["relay"]:
        assert row["source"].startswith("https://"), row["name"]
        for domain in row["domains"]:
            assert flags_of(f"a@{domain}").relay, domain


ROLES = {
    "info": ("info@example.com", True),
    "upper case": ("INFO@example.com", True),
    "tagged": ("support+de@example.com", True),
    "postmaster": ("postmaster@example.com", True),
    "no-reply": ("no-reply@example.com", True),
    "german": ("kontakt@example.de", True),
    "french": ("accueil@example.fr", True),
    "spanish": ("ventas@example.es", True),
    "umlaut": ("büro@example.de", True),
    "person": ("jane.doe@example.com", False),
    "person who contains one": ("informant@example.com", False),
    "one as a tag": ("jane+info@example.com", False),
    "dotted": ("info.jane@example.com", False),
}


@pytest.mark.parametrize(("text", "role"), ROLES.values(), ids=ROLES)
def test_role(text: str, role: bool) -> None:
    assert flags_of(text).role is role


FREE = {
    "gmail": ("a@gmail.com", True),
    "national": ("a@yahoo.co.uk", True),
    "upper case": ("a@GMX.DE", True),
    "company": ("a@example.com", None),
    "company of a provider": ("a@google.com", None),
    "relay": ("a@duck.com", None),
    "subdomain": ("a@x.gmail.com", None),
}


@pytest.mark.parametrize(("text", "free"), FREE.values(), ids=FREE)
def test_free_is_true_or_not_known(text: str, free: bool | None) -> None:
    assert flags_of(text).free is free


def test_no_provider_is_disposable_whatever_the_package_lists() -> None:
    providers = words("providers.txt")
    assert [name for name in sorted(providers) if flags_of(f"a@{name}").disposable] == []


def test_subaddress() -> None:
    assert flags_of("jane+news@example.com").subaddress
    assert not flags_of("jane@example.com").subaddress


MX = {
    "one of them": (["mail.mailinator.com"], True),
    "both of them": (["mail.mailinator.com", "mail2.mailinator.com"], True),
    "upper case and root dot": (["IN.MAIL.TM."], True),
    "numbered server": (["mx99.add5000.com"], True),
    "server of a listed domain": (["mx3.guerrillamail.com"], True),
    "beside a server of its own": (["mail.mailinator.com", "mx.example.com"], False),
    "none": ([], False),
    "google": (["aspmx.l.google.com", "alt1.aspmx.l.google.com"], False),
    "microsoft": (["example-com.mail.protection.outlook.com"], False),
    "relay": (["mx1.simplelogin.co", "mx2.simplelogin.co"], False),
    "other relay": (["mail.anonaddy.me"], False),
    "mail.ru": (["mxs.mail.ru"], False),
    "only ends alike": (["mx.notmail.tm.example.com"], False),
}


@pytest.mark.parametrize(("names", "disposable"), MX.values(), ids=MX)
def test_disposable_by_mx(names: list[str], disposable: bool) -> None:
    assert flags.disposable_by_mx(names) is disposable


def test_every_fingerprint_names_its_source_and_works() -> None:
    for row in table("disposable_mx.toml")["operator"]:
        assert row["source"].startswith("https://"), row["name"]
        assert flags.disposable_by_mx(row["mx"]), row["name"]
