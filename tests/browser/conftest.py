"""One browser, one gate and one shop for all of these tests; a fresh tab for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.ground import (
    PACKAGES,
    STYLE,
    GateProcess,
    Shop,
    Tab,
    gate_process,
    required,
    shop,
)

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tab's sockets are the fixtures' affair, and a busy machine starts a browser slowly."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.may_leak)
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(scope="package")
def packages() -> Path:
    """The npm packages of these tests."""
    _need((PACKAGES / "complete").exists(), "the packages of tests/browser")
    return PACKAGES / "node_modules"


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    _need(shutil.which(CHROMIUM) is not None, CHROMIUM)
    with sync_playwright() as playwright:
        # Playwright switches the back/forward cache off, because few people test it.
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*ARGUMENTS],
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def open_shop() -> Iterator[Shop]:
    """The other origin."""
    with shop() as opened:
        opened.pages["/style.css"] = STYLE.encode(), {"Content-Type": "text/css"}
        yield opened


@pytest.fixture(scope="package")
def gate(tmp_path_factory: pytest.TempPathFactory, open_shop: Shop) -> Iterator[GateProcess]:
    """The gate that knows the shop."""
    with gate_process(tmp_path_factory.mktemp("gate"), open_shop.origin) as running:
        yield running


@pytest.fixture
def tab(browser: Browser, gate: GateProcess, open_shop: Shop) -> Iterator[Tab]:
    """A fresh tab; at the end there may be no error on its console."""
    open_shop.received.clear()
    context = browser.new_context(locale="en-US", viewport={"width": 800, "height": 600})
    opened = Tab(context.new_page(), open_shop, gate)
    yield opened
    context.close()
    assert not opened.errors


def _need(there: bool, what: str) -> None:
    if not there:
        reason = f"{what} is missing; scripts/browser-packages brings it"
        if required():
            pytest.fail(reason)
        pytest.skip(reason)
