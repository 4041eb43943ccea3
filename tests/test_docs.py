"""Documents tell the truth: what exists is in README, with the words the program itself uses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from gate import __version__, metrics
from gate.api.openapi import document
from gate.cli import main
from gate.policy import decide
from gate.reason import MEANING, VERDICT_OF, Flag, Reason
from gate.settings import Policy
from gate.settings.read import parse
from gate.smtp.provider import overlay

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
COMMANDS = (
    "serve",
    "check",
    "demo",
    "keys",
    "doctor",
    "webhooks",
    "probing",
    "store",
    "explain-reply",
    "providers",
    "settings",
)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        main(arguments)
    except SystemExit as done:
        assert not done.code
    return capsys.readouterr().out


def test_every_setting_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    keys = re.findall(r"^(\S+) {2,}", printed(capsys, "settings"), re.MULTILINE)
    assert len(keys) > 30
    missing = [key for key in keys if f"| `{key}` |" not in README]
    assert not missing


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_row_with_result_meaning_and_default(reason: Reason) -> None:
    result = VERDICT_OF[reason]
    choice = decide(reason=reason, result=result, flags=frozenset(), policy=Policy()).choice
    assert f"| {result} | `{reason}` | {MEANING[reason]} | {choice} |" in README


@pytest.mark.parametrize("flag", Flag)
def test_every_flag_is_named(flag: Flag) -> None:
    assert f"`{flag}`" in README


def test_every_endpoint_is_named() -> None:
    paths = msgspec.json.decode(document())["paths"]
    missing = [path for path in paths if path not in README]
    assert paths and not missing


def test_every_command_and_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "--help")
    for command in COMMANDS:
        assert re.search(rf"^    {command}\b", shown, re.MULTILINE)
        assert f"`gate {command}" in README
        options = set(re.findall(r"--[a-z-]+", printed(capsys, command, "--help")))
        missing = {option for option in options - {"--help"} if option not in README}
        assert not missing, command


def test_no_command_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    listed = re.findall(r"^    ([a-z-]+)\s", printed(capsys, "--help"), re.MULTILINE)
    assert set(listed) == set(COMMANDS)


def test_every_metric_has_its_row() -> None:
    names = set(re.findall(r"# HELP (gate_\S+)", metrics.render().decode()))
    missing = [name for name in names if f"`{name}`" not in README and "_created" not in name]
    assert names and not missing


def example(heading: str) -> str:
    """The first TOML of a section of README."""
    section = README.partition(f"### {heading}\n")[2]
    return section.partition("```toml\n")[2].partition("```")[0]


def test_the_example_of_source_addresses_is_read() -> None:
    tree = tomllib.loads(example("Several source addresses"))
    tree["egress"]["address"][2]["proxy"] = "socks5://user:password@10.0.0.5:1080"
    assert [address.helo for address in parse(tree).egress.address] == [
        "gate1.example.com",
        "gate2.example.com",
        "gate3.example.com",
    ]


def test_the_example_of_an_operators_providers_is_read() -> None:
    table = overlay(example("Providers"), "own.toml")
    assert {row.name for row in table.values() if row.overlaid} == {
        "Microsoft 365",
        "Our parent company",
    }


def test_the_version_has_its_entry_in_the_changelog() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("document_text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_file_that_is_pointed_to_exists(document_text: str) -> None:
    named = set(re.findall(r"`((?:gate|tests|scripts|benchmarks|widget)/[\w./-]*)`", document_text))
    named |= set(re.findall(r"\]\(((?!http|#)[^)]+)\)", document_text))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


def test_no_public_registry_or_private_path_is_named() -> None:
    words = re.compile(r"pypi\.org|npmjs|registry\.|/root/|/home/")
    named = [
        path.name
        for path in (*ROOT.glob("*.md"), *ROOT.glob("scripts/**/*"), ROOT / "pyproject.toml")
        if path.is_file() and words.search(path.read_text("utf-8"))
    ]
    assert not named
