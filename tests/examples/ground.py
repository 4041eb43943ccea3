"""What the examples are run with, and the gate they ask."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RUNNERS = Path(__file__).parent / "runners"
PACKAGES = ROOT / ".cache" / "examples"
GATE = "import sys; from gate.cli import main; sys.exit(main(sys.argv[1:]))"


class Running(NamedTuple):
    """Where a gate is, and the secret key of its site."""

    url: str
    secret: str


@contextmanager
def demo() -> Iterator[Running]:
    """`gate demo` on a port that is free."""
    command = [sys.executable, "-c", GATE, "demo", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    told = ""
    try:
        for line in process.stdout:
            told += line
            if "secret key" in line:
                break
        url, secret = re.search(r"http://[\d.:]+", told), re.search(r"sk_\w+", told)
        assert url and secret, told
        yield Running(url[0], secret[0])
    finally:
        process.terminate()
        process.wait(12)
        process.stdout.close()


def need(*programs: str) -> None:
    """Skip where a runtime is missing; fail where scripts/example-packages has to have run."""
    missing = [name for name in programs if not shutil.which(name)]
    if not (PACKAGES / "complete").exists():
        missing.append(".cache/examples")
    if missing:
        said = f"{', '.join(missing)}: run scripts/example-packages"
        if os.environ.get("CI") == "true" or os.getuid() == 0:
            pytest.fail(said)
        pytest.skip(said)


def environment(**more: str) -> dict[str, str]:
    """The variables of a program: this machine's few, a proxy that must not be asked, and more."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "HTTP_PROXY")}
    return {
        **kept,
        **proxies,
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "GOCACHE": str(PACKAGES / "go"),
        "GOTOOLCHAIN": "local",
        **more,
    }


def run(command: Sequence[str], cwd: Path, **more: str) -> str:
    """What a program prints. It must end well."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
