"""The OpenAPI document, read by strangers: a tester that believes it, a generator of clients."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gate.api.openapi import document
from gate.server import Bound
from gate.webhooks.message import CheckCompleted, CheckData, Said, encode, iso
from tests.api.ground import ORIGIN, SECRET, SITEKEY, site
from tests.api.test_ops import conforms
from tests.examples.ground import PACKAGES, need, run
from tests.test_server import config, serving

CONFIG = Path(__file__).with_name("schemathesis.toml")
TYPESCRIPT = Path(__file__).with_name("generated.ts")
CALLS = os.environ.get("GATE_API_CALLS", "50")
MANY = 1_000_000_000


@pytest.fixture(scope="module")
def bound() -> Iterator[Bound]:
    """A gate without limits or probing; its hook is the one that needs no platform's signature."""
    per_minute = ("client_per_minute", "site_per_minute", "secret_per_minute")
    tables: dict[str, Any] = {
        "site": [site(origins=(ORIGIN,))],
        "hook": [{"platform": "forward"}],
        "probe": {"enabled": False, "budget_ms": 50},
        "limits": dict.fromkeys(per_minute, MANY),
    }
    with serving(config(**tables)) as running:
        yield running


STRANGERS: dict[str, tuple[str, list[str]]] = {
    "server": (SECRET, []),
    # With the site key three fields and every other call are refused, so nothing follows one.
    "page": (SITEKEY, ["--exclude-checks=positive_data_acceptance", "--phases=coverage,fuzzing"]),
}


def told(key: str, options: list[str], port: int, folder: Path) -> tuple[int, str]:
    """The status that a stranger ends with, and what he said."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={CONFIG}",
        "run",
        f"http://127.0.0.1:{port}/openapi.json",
        f"--header=Authorization: Bearer {key}",
        f"--max-examples={CALLS}",
        "--generation-database=none",
        "--no-color",
        *options,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def strangers(bound: Bound, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What came of each; they are there at the same time."""
    with ThreadPoolExecutor(len(STRANGERS)) as threads:
        running = {
            who: threads.submit(told, key, options, bound.port, tmp_path_factory.mktemp(who))
            for who, (key, options) in STRANGERS.items()
        }
    return {who: one.result() for who, one in running.items()}


@pytest.mark.may_leak  # the connections of the gate, which is in this process
@pytest.mark.timeout(100 if CALLS == "50" else 3600)
@pytest.mark.parametrize("who", STRANGERS)
def test_strangers_find_nothing(who: str, strangers: dict[str, tuple[int, str]]) -> None:
    status, said = strangers[who]
    sys.stdout.write(said)
    assert status == 0, said
    assert re.search(r"([0-9]+) generated, \1 passed", said)


def test_the_webhook_is_described_as_it_is_sent() -> None:
    described = msgspec.json.decode(document())
    posted = described["webhooks"]["check.completed"]["post"]
    schema = posted["requestBody"]["content"]["application/json"]["schema"]
    data: dict[str, Any] = {
        "check": "chk_1",
        "site": "main",
        "address": "00",
        "result": "deliverable",
        "reason": "accepted_email",
        "decision": "allow",
        "because": "accepted_email",
        "first": {"result": "unknown", "reason": "greylisted"},
        "found_at": iso(0),
    }
    for more in ({}, {"email": "jane@inbox.test"}):
        sent = CheckCompleted(timestamp=iso(0), data=msgspec.convert({**data, **more}, CheckData))
        assert conforms(described, schema, msgspec.json.decode(encode(sent)))
        assert isinstance(sent.data.first, Said)
    headers = {parameter["name"] for parameter in posted["parameters"]}
    assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}


@pytest.mark.timeout(100)
def test_a_generated_client_compiles_and_makes_calls(bound: Bound, tmp_path: Path) -> None:
    """openapi-typescript and openapi-fetch from npm, TypeScript at its strictest."""
    need("node")
    (tmp_path / "node_modules").symlink_to(PACKAGES / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "openapi.json").write_bytes(document())
    shutil.copy(TYPESCRIPT, tmp_path)
    programs = "node_modules/.bin"
    run([f"{programs}/openapi-typescript", "openapi.json", "-o", "gate.d.ts"], tmp_path)
    kind = [
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--strict",
        "--skipLibCheck",
    ]
    run([f"{programs}/tsc", *kind, "--outDir", "built", "generated.ts"], tmp_path)
    url = f"http://127.0.0.1:{bound.port}"
    told = run(["node", "built/generated.js"], tmp_path, GATE_URL=url, GATE_SECRET=SECRET)
    assert told.splitlines() == [
        "undeliverable invalid_email block",
        "the same",
        "false invalid-input-response",
        "400 urn:signup-gate:problem:invalid_request",
    ]
