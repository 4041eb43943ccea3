"""Who may import whom: read from the source, so that a breach fails with the two modules' names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gate

ROOT = Path(gate.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("reason", "budget", "address", "trace", "proxy", "redis_url", "special", "smtp.reply"),
    ("hooks.settings", "webhooks.settings", "settings"),
    ("lists", "minify", "smtp.command", "smtp.provider", "smtp.rules", "smtp.wording"),
    ("flags", "typo", "widget", "smtp.dialog"),
    (
        "smtp.classify",
        "smtp.explain",
        "smtp.walk",
        "smtp.places",
        "smtp.rests",
        "smtp.caps",
        "smtp.harvest",
        "smtp.breaker",
        "smtp.throttle",
        "token",
    ),
    ("egress",),
    ("dns", "store"),
    (
        "smtp.session",
        "smtp.sources",
        "smtp.finding",
        "smtp.admission",
        "smtp.pool",
        "smtp.warm",
        "smtp.visit",
        "smtp.probe",
    ),
    ("verdict", "policy", "probing"),
    ("memory", "kept", "tally", "answer", "known", "compose", "learn", "flight", "checker"),
    ("testing", "counts", "flightmetrics", "metrics"),
    ("seal", "jobs", "recheck", "webhooks", "switch"),
    ("sandbox",),
    ("engine", "client"),
    ("doctor",),
    ("api", "hooks", "page"),
    ("app", "middleware"),
    ("collector", "server"),
    ("cli",),
)
"""A module may import its own row and those above it. A folder stands for all its modules."""

PURE = (
    "reason",
    "budget",
    "settings",
    "settings.problems",
    "address",
    "flags",
    "typo",
    "trace",
    "proxy",
    "redis_url",
    "special",
    "token",
    "smtp.reply",
    "smtp.command",
    "smtp.dialog",
    "smtp.rules",
    "smtp.wording",
    "smtp.classify",
    "smtp.provider",
    "smtp.explain",
    "smtp.walk",
    "smtp.places",
    "smtp.rests",
    "smtp.caps",
    "smtp.harvest",
    "smtp.breaker",
    "smtp.throttle",
    "smtp.sources",
    "smtp.finding",
    "smtp.pool",
    "verdict",
    "policy",
    "probing",
    "answer",
    "known",
    "compose",
    "doctor.finding",
    "doctor.sanity",
    "doctor.files",
    "doctor.spf",
)
IMPURE_LIBRARIES = {"asyncio", "socket", "time", "random", "threading", "httpx", "ssl"}

DIALS = {
    "create_connection",
    "create_datagram_endpoint",
    "open_connection",
    "sock_connect",
    "connect",
    "connect_ex",
}
MAY_DIAL = {"egress"}


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name or "gate"] = path
    return found


MODULES = modules()


def layer_of(name: str) -> int:
    for number, layer in enumerate(LAYERS):
        if any(name == place or name.startswith(f"{place}.") for place in layer):
            return number
    raise AssertionError(f"gate.{name} has no place in LAYERS: say which layer it belongs to")


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Full names of what a file imports at run time, `from x import y` as x.y and as x."""
    return tuple(_imports(ast.parse(path.read_text("utf-8")), path))


def _imports(tree: ast.Module, path: Path) -> Iterator[str]:
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute in this project"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix("gate.") in MODULES
                yield full if is_module else str(node.module)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"gate", "smtp", "__main__"}))
def test_imports_run_downwards(name: str) -> None:
    own = layer_of(name)
    for imported in imports(MODULES[name]):
        target = imported.removeprefix("gate.")
        if imported.startswith("gate.") and target != "smtp":
            assert layer_of(target) <= own, f"gate.{name} imports {imported}, which is above it"


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_clock_socket_or_chance(name: str) -> None:
    impure = {imported.split(".")[0] for imported in imports(MODULES[name])} & IMPURE_LIBRARIES
    assert not impure, f"gate.{name} is pure and imports {impure}"


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if not name.startswith("testing") and name != "gate")
)
def test_one_module_opens_outbound_connections(name: str) -> None:
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    if name.startswith("store"):
        called.discard("connect")  # sqlite3.connect opens a file; Redis's goes through egress
    if name not in MAY_DIAL:
        assert not called & DIALS, f"gate.{name} connects by itself; gate.egress is the one door"


def test_the_kit_for_tests_serves_the_sandbox_only() -> None:
    users = {
        name
        for name, path in MODULES.items()
        if any(imported.startswith("gate.testing") for imported in imports(path))
    }
    assert {name for name in users if not name.startswith("testing")} <= {"sandbox"}


def test_a_message_can_be_sent_by_the_doctor_alone() -> None:
    """The probe has no word for a message; the one library that has serves --send-test only."""
    users = {name for name, path in MODULES.items() if "aiosmtplib" in set(imports(path))}
    assert users == {"doctor.letter"}
    libraries = {
        imported.partition(".")[0] for path in MODULES.values() for imported in imports(path)
    }
    assert not libraries & {"smtplib"}
