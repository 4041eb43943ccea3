"""[[hook]] tables: what is refused at the start, and that the message says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gate.api.front import HOOKS as PREFIX
from gate.app import create_app
from gate.budget import HOOKS
from gate.hooks.registry import ADAPTERS, Registry
from gate.reason import GateError
from gate.settings import Settings
from gate.settings.read import load, parse
from tests.api.ground import OTHER, site
from tests.hooks.ground import SHARED, WEBHOOK_SECRET

SITES = {"site": [site()]}
OKTA = {"platform": "okta", "secrets": [SHARED]}


def with_hooks(*hooks: dict[str, Any], **tables: Any) -> Settings:
    return parse({**SITES, **tables, "hook": list(hooks)}, origin="gate.toml")


REFUSED: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "unknown platform": ([{"platform": "clerk"}], "hook[0].platform", "clerk"),
    "unknown key": ([{**OKTA, "secret": "x"}], "hook[0].secret", "secrets"),
    "unknown key in a table": ([{**OKTA, "answer": {"body": "x"}}], "hook[0].answer.body", "allow"),
    "no secret": ([{"platform": "okta"}], "hook[0].secrets", "env:NAME"),
    "an empty secret": ([{**OKTA, "secrets": [" "]}], "hook[0].secrets", "take it out"),
    "unread secret": ([{**OKTA, "secrets": ["env:X"]}], "hook[0].secrets", "environment"),
    "no such site": ([{**OKTA, "site": "shop"}], "hook[0].site", "shop"),
    "two at one path": ([OKTA, OKTA], "hook.name", "/v1/hooks/okta"),
    "a name with a slash": ([{**OKTA, "name": "a/b"}], "hook[0].name", "small letters"),
    "slower than the platform": ([{**OKTA, "deadline_ms": 3000}], "hook[0].deadline_ms", "3000"),
    "no time at all": ([{**OKTA, "deadline_ms": 1}], "hook[0].deadline_ms", "50"),
    "no language": ([{**OKTA, "language": "English"}], "hook[0].messages", "pt-BR"),
    "an empty message": ([{**OKTA, "messages": {"en": ""}}], "hook[0].messages.en", "allow"),
    "a long message": ([{**OKTA, "messages": {"en": "x" * 501}}], "hook[0].messages.en", "500"),
    "a line break": ([{**OKTA, "messages": {"en": "a\nb"}}], "hook[0].messages.en", "printable"),
    "beyond ASCII for WorkOS": (
        [{"platform": "workos", "secrets": [SHARED], "messages": {"de": "Nö"}}],
        "hook[0].messages.de",
        "ASCII",
    ),
    "Entra with keys alone": (
        [{"platform": "entra", "token": {"jwks": "keys.json"}}],
        "hook[0].token",
        "audience",
    ),
    "Entra with nothing": ([{"platform": "entra"}], "hook[0].secrets", "env:NAME"),
    "a refusal that is an error": (
        [{"platform": "forward", "answer": {"block_status": 503}}],
        "hook[0].answer.block_status",
        "499",
    ),
    "a refusal that allows": (
        [{"platform": "forward", "answer": {"block_status": 200}}],
        "hook[0].answer.block_status",
        "403",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_key_and_what_to_write(name: str) -> None:
    hooks, key, advice = REFUSED[name]
    with pytest.raises(GateError) as refused:
        with_hooks(*hooks)
    assert str(refused.value).startswith(f"gate.toml: {key}")
    assert advice in str(refused.value)


def test_with_several_sites_the_hook_names_one() -> None:
    with pytest.raises(GateError, match=r"hook\[0\]\.site: there are several"):
        with_hooks(OKTA, site=[site(), OTHER])
    assert with_hooks({**OKTA, "site": "other"}, site=[site(), OTHER]).hook[0].site == "other"


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no Supabase secret": ({"platform": "supabase", "secrets": ["changeme"]}, "v1,whsec_"),
    "one of two is none": (
        {"platform": "supabase", "secrets": [f"v1,{WEBHOOK_SECRET}|v1,whsec_x"]},
        "v1,whsec_",
    ),
    "no webhook secret": ({"platform": "generic", "secrets": ["x"]}, "whsec_"),
    "an answer that is no JSON": (
        {"platform": "generic", "secrets": [WEBHOOK_SECRET], "answer": {"allow_body": "{ok}"}},
        "answer.allow_body: is not JSON",
    ),
    "a refusal that is no JSON": (
        {"platform": "forward", "answer": {"block_body": "no"}},
        "answer.block_body: is not JSON",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_an_adapter_cannot_use_ends_the_start(name: str) -> None:
    hook, advice = UNUSABLE[name]
    with pytest.raises(GateError) as refused:
        create_app(with_hooks(hook))
    assert str(refused.value).startswith(f"hook {hook['platform']}: ")
    assert advice in str(refused.value)
    assert not any(secret in str(refused.value) for secret in hook.get("secrets", ()))


def test_secrets_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(
        '[[hook]]\nplatform = "okta"\nsecrets = ["env:OKTA_ONE", "literal", "env:OKTA_TWO"]\n'
    )
    found = load(None, {"OKTA_ONE": "one", "OKTA_TWO": "two"}, cwd=tmp_path)
    assert found.hook[0].secrets == ("one", "literal", "two")
    for environ in ({"OKTA_ONE": "one"}, {"OKTA_ONE": "one", "OKTA_TWO": ""}):
        with pytest.raises(GateError, match="env:OKTA_TWO: the variable is not set"):
            load(None, environ, cwd=tmp_path)


def test_no_variable_can_name_one_of_several(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="there is no section 'hook'"):
        load(None, {"GATE_HOOK__SECRETS": "x"}, cwd=tmp_path)


def test_every_platform_has_an_adapter_and_times_of_its_own() -> None:
    assert set(ADAPTERS) == set(HOOKS)
    for platform, time in HOOKS.items():
        assert 0.5 <= time.ours <= 4.0, platform
        assert time.theirs is None or time.ours <= time.theirs / 2, platform


def test_paths_lead_to_hooks() -> None:
    hooks = with_hooks(
        OKTA,
        {**OKTA, "name": "eu"},
        {"platform": "forward"},
        {"platform": "forward", "name": "admin"},
    ).hook
    registry = Registry(hooks)
    for path, name, rest in (
        ("okta", "okta", ""),
        ("okta/eu", "okta/eu", ""),
        ("forward", "forward", ""),
        ("forward/", "forward", ""),
        ("forward/a/b/c", "forward", "a/b/c"),
        ("forward/admin", "forward/admin", ""),
        ("forward/admin/x", "forward/admin", "x"),
    ):
        found = registry.find(path)
        assert found is not None, path
        assert (found.adapter.hook.path, found.rest) == (name, rest)
    for path in ("", "okta/us", "okta/eu/x", "supabase", "OKTA", "../okta"):
        assert registry.find(path) is None, path
    assert PREFIX == "/v1/hooks/"
