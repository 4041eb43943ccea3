"""Has the packages of Node brought while the tests before these run: the first time takes long."""

from __future__ import annotations

import pytest

from tests.hooks.packages import fetch_ahead


def pytest_collection_finish(session: pytest.Session) -> None:
    """Whatever of it the chosen tests need."""
    if session.config.option.collectonly:
        return
    for item in session.items:
        if folder := getattr(getattr(item, "module", None), "PACKAGES_OF", None):
            fetch_ahead(folder)
