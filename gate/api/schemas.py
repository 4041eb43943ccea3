"""The schemas of the OpenAPI document, made from the records that the surfaces read and write."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gate.api.answer import COARSE, BrowserAnswer, FullAnswer
from gate.api.problems import KINDS, URN
from gate.api.requests import CheckBody, PrefetchBody, SiteverifyBody, SubjectBody
from gate.api.siteverify import SiteverifyAnswer
from gate.doctor.examine import CHECKS
from gate.probing import STATES
from gate.reason import MEANING, VERDICT_OF, Reason
from gate.webhooks.message import CheckCompleted

Json = dict[str, Any]

REF: Final = "#/components/schemas/"
_BODIES: Final = (CheckBody, PrefetchBody, SiteverifyBody, SubjectBody)
_ANSWERS: Final = (FullAnswer, BrowserAnswer, SiteverifyAnswer)
_AT_TIMES: Final = ("detail", "position", "trace", "transcript")
"""Fields of an answer that are left out when there is nothing to say."""

_AROUND: Final = ("anyOf", "description")


def problem(name: str) -> Json:
    """The response of one row of problems.py."""
    content = {"application/problem+json": {"schema": {"$ref": REF + "Problem"}}}
    return {"description": KINDS[name].title + ".", "content": content}


def schemas() -> Json:
    """Every schema by its name."""
    records = [*_BODIES, *_ANSWERS, CheckCompleted]
    _, found = msgspec.json.schema_components(records, ref_template=REF + "{name}")
    found["Reason"]["description"] = (
        "A closed list; treat a value you do not know as unknown.\n"
        + ("\n".join(f"- `{r}` ({VERDICT_OF[r]}): {MEANING[r]}" for r in Reason))
    )
    found["BrowserAnswer"]["properties"]["reason"]["enum"] = list(COARSE)
    for name in (record.__name__ for record in _ANSWERS):
        fields = found[name]["properties"]
        found[name]["required"] = [field for field in fields if field not in _AT_TIMES]
    found["CheckCompleted"]["required"] = list(found["CheckCompleted"]["properties"])
    for name in (record.__name__ for record in _BODIES):
        for described in found[name]["properties"].values():
            # Generators take a field with a default for one that is always sent.
            described.pop("default", None)
        found[name.removesuffix("Body") + "Form"] = _form(found[name])
    found["Problem"] = _problem()
    found["Health"] = {
        "type": "object",
        "properties": {"status": {"const": "ok"}},
        "required": ["status"],
    }
    script: Json = {name: {"type": "string"} for name in ("path", "integrity", "version")}
    script |= {name: {"type": "integer"} for name in ("bytes", "gzip_bytes")}
    found["Script"] = {"type": "object", "properties": script, "required": list(script)}
    found["Readiness"] = {
        "type": "object",
        "properties": {
            "status": {"enum": ["ready", "degraded"]},
            "store": {"enum": ["ok", "failing"]},
            "probing": {"enum": ["on", "sandbox", "off"]},
            "probing_why": {
                "enum": [*STATES, "identity", None],
                "description": "why mail servers are not asked; null: they are",
            },
            "resolver": {"enum": ["ok", "failing"]},
            "doctor": _doctor(),
        },
        "required": ["status", "store", "probing", "probing_why", "resolver"],
        "description": "degraded: checks are answered, but unremembered, or unknown.",
    }
    return found


def _doctor() -> Json:
    """What the last look of `gate doctor` in the background found."""
    checks = {"type": "array", "items": {"enum": [check.name for check in CHECKS]}}
    return {
        "type": "object",
        "properties": {
            "state": {"enum": ["pending", "ok", "warning", "problem"]},
            "problems": checks,
            "warnings": checks,
        },
        "required": ["state", "problems", "warnings"],
        "description": "the checks of `gate doctor` to look at; missing: it does not run",
    }


def _problem() -> Json:
    properties: Json = {
        "type": {"type": "string", "enum": [URN + name for name in KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer", "enum": sorted({kind.status for kind in KINDS.values()})},
        "detail": {"type": "string", "description": "what to do instead"},
    }
    return {
        "type": "object",
        "description": "RFC 9457. Nothing that was sent is repeated.",
        "properties": properties,
        "required": list(properties),
    }


def _form(body: Json) -> Json:
    """The schema of a body sent as a form: a key is left out or left empty, and never null."""
    properties = {}
    for name, described in body["properties"].items():
        kind = {key: value for key, value in described.items() if key not in _AROUND}
        for other in described.get("anyOf", ()):
            if other != {"type": "null"}:
                kind = other
        if kind.get("type") == "boolean":
            kind = {"type": "string", "enum": ["true", "false", "1", "0", ""]}
        if kind.get("type") == "integer":
            kind = {"anyOf": [kind, {"type": "string", "maxLength": 0}]}
        properties[name] = {**kind, "description": described["description"]}
    title = body["title"].removesuffix("Body") + "Form"
    return {**body, "title": title, "properties": properties}
