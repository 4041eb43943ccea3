"""Packages of Node for the tests of signup hooks, at the versions that a lock file pins."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NoReturn

import pytest

CACHE = Path(__file__).parents[2] / ".cache"
_coming: dict[str, Thread] = {}


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
    if coming := _coming.pop(folder, None):
        coming.join()
    home = _home(folder)
    home.mkdir(parents=True, exist_ok=True)
    for source in Path(__file__).with_name(folder).iterdir():
        shutil.copy(source, home / source.name)
    _install(npm, home)
    return home, node


def fetch_ahead(folder: str) -> None:
    """Begin to install while other tests run; what goes wrong is told by `installed`."""
    npm, home = shutil.which("npm"), _home(folder)
    if npm is None or folder in _coming or (home / "installed").exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).with_name(folder) / name, home / name)

    def fetch() -> None:
        with suppress(subprocess.CalledProcessError):
            _install(npm, home)

    _coming[folder] = Thread(target=fetch, name=f"npm ci, {folder}")
    _coming[folder].start()


def _home(folder: str) -> Path:
    lock = (Path(__file__).with_name(folder) / "package-lock.json").read_bytes()
    return CACHE / f"hooks-{folder}-{hashlib.sha256(lock).hexdigest()[:12]}"


def _install(npm: str, home: Path) -> None:
    if not (home / "installed").exists():
        subprocess.run([npm, "ci", "--ignore-scripts"], cwd=home, check=True, capture_output=True)
        (home / "installed").touch()
