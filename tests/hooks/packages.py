"""Packages of Node for the tests of signup hooks, at the versions that a lock file pins."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(__file__).parents[2] / ".cache"


def lacking(what: str) -> NoReturn:
    """Skip the test that needs it; fail where everything has to be there (CI, or root)."""
    message = f"there is no {what}: run scripts/hook-packages"
    if os.environ.get("CI") or os.geteuid() == 0:
        pytest.fail(message)
    pytest.skip(message)


def installed(folder: str) -> tuple[Path, str]:
    """Where a folder's packages and sources are, and the Node to run them.

    They are installed into .cache once for each lock file; no package's script is run.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        lacking("npm")
    sources = Path(__file__).with_name(folder)
    lock = (sources / "package-lock.json").read_bytes()
    home = CACHE / f"hooks-{folder}-{hashlib.sha256(lock).hexdigest()[:12]}"
    home.mkdir(parents=True, exist_ok=True)
    for source in sources.iterdir():
        shutil.copy(source, home / source.name)
    if not (home / "installed").exists():
        subprocess.run([npm, "ci", "--ignore-scripts"], cwd=home, check=True, capture_output=True)
        (home / "installed").touch()
    return home, node
