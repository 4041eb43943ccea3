"""The OpenAPI 3.1 document, put together from the tables the code itself runs on.

Schemas come from the very records that are read and written (gate/api/schemas.py), reasons from
gate/reason.py, problems from gate/api/problems.py; only the paths are written by hand. So the
document cannot promise a field that is not there.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import msgspec

import gate
from gate.api.problems import KINDS
from gate.api.schemas import REF, Json, problem, schemas
from gate.api.siteverify import ERROR_CODES
from gate.hooks.registry import ADAPTERS
from gate.webhooks.message import EVENT

_SECRET: Final[list[Json]] = [{"secret_key": []}]
_PAGE_OR_SECRET: Final[list[Json]] = [{"secret_key": []}, {}]

_CHECK_LINKS: Final[Json] = {
    "newest": {
        "operationId": "find_check",
        "parameters": {"id": "$response.body#/id"},
        "description": "The newest answer of the same check; a later one may follow if not final.",
    },
    "verify": {
        "operationId": "siteverify",
        "requestBody": {"response": "$response.body#/token"},
        "description": "What the site's server does with the token a form carried.",
    },
}


@cache
def document() -> bytes:
    """The document as JSON text."""
    return msgspec.json.format(msgspec.json.encode(_document()), indent=2)


def _document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Signup gate",
            "version": gate.__version__,
            "description": "Tells a signup form whether an e-mail address can receive mail. A bad "
            "address is a verdict with status 200; errors are RFC 9457 problem documents.",
        },
        "paths": {
            "/v1/check": {"post": _check()},
            "/v1/checks/{id}": {"get": _find()},
            "/v1/subject": {"delete": _forget()},
            "/v1/prefetch": {"post": _prefetch()},
            "/v1/siteverify": {"post": _siteverify()},
            "/v1/hooks/{path}": {"post": _hook()},
            "/v1/gate.js": {"get": _script()},
            "/v1/gate.json": {"get": _plain("gate_json", "Where the widget stands.", "Script")},
            "/healthz": {"get": _plain("healthz", "Whether the process lives.", "Health")},
            "/readyz": {"get": _readyz()},
            "/openapi.json": {"get": _openapi()},
        },
        "webhooks": {EVENT: {"post": _completed()}},
        "components": {
            "schemas": schemas(),
            "responses": {name: problem(name) for name in KINDS},
            "securitySchemes": {
                "secret_key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`sk_…`, for servers. Pages send `sitekey` in the body instead "
                    "(or `pk_…` here).",
                }
            },
        },
    }


def _check() -> Json:
    return {
        "operationId": "check",
        "summary": "Check one address.",
        "security": _PAGE_OR_SECRET,
        "requestBody": _body("Check"),
        "responses": {
            "200": {
                **_json(
                    "A verdict: the whole answer for a secret key, the trimmed one for a site key.",
                    {"anyOf": [{"$ref": REF + "FullAnswer"}, {"$ref": REF + "BrowserAnswer"}]},
                ),
                "links": _CHECK_LINKS,
            },
            **_problems(
                "invalid_request",
                "missing_key",
                "origin_not_allowed",
                "body_timeout",
                "body_too_large",
                "unsupported_media_type",
                "wrong_host",
                "too_many_requests",
                "internal_error",
                "unavailable",
            ),
        },
    }


def _find() -> Json:
    return {
        "operationId": "find_check",
        "summary": "The newest answer of an earlier check, a late verdict included.",
        "security": _SECRET,
        "parameters": [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "`id` of the answer",
                "schema": {"type": "string"},
            }
        ],
        "responses": {
            "200": _json("The answer.", {"$ref": REF + "FullAnswer"}),
            **_problems(
                "invalid_request",
                "missing_key",
                "not_found",
                "wrong_host",
                "too_many_requests",
                "internal_error",
                "unavailable",
            ),
        },
    }


def _forget() -> Json:
    return {
        "operationId": "forget_subject",
        "summary": "Forget an address: its verdict, what waits for it, and answers that are kept.",
        "security": _SECRET,
        "requestBody": _body("Subject"),
        "responses": {
            "204": {"description": "Nothing about it is left at this site."},
            **_problems(
                "invalid_request",
                "missing_key",
                "body_timeout",
                "body_too_large",
                "unsupported_media_type",
                "wrong_host",
                "too_many_requests",
                "internal_error",
                "unavailable",
            ),
        },
    }


def _prefetch() -> Json:
    return {
        "operationId": "prefetch",
        "summary": "Look a domain up and connect to its mail host in advance, while its address is "
        "still being typed.",
        "security": _PAGE_OR_SECRET,
        "requestBody": _body("Prefetch"),
        "responses": {
            "204": {"description": "Taken note of."},
            **_problems(
                "invalid_request",
                "missing_key",
                "origin_not_allowed",
                "body_timeout",
                "body_too_large",
                "unsupported_media_type",
                "wrong_host",
                "too_many_requests",
                "internal_error",
                "unavailable",
            ),
        },
    }


def _siteverify() -> Json:
    return {
        "operationId": "siteverify",
        "summary": "Verify a form's token, or check an address now. Turnstile's shape.",
        "security": _PAGE_OR_SECRET,
        "requestBody": _body("Siteverify"),
        "responses": {
            "200": _json(
                "The answer; errors are in `error-codes`: " + ", ".join(ERROR_CODES) + ".",
                {"$ref": REF + "SiteverifyAnswer"},
            ),
            **_problems(
                "invalid_request",
                "body_timeout",
                "body_too_large",
                "unsupported_media_type",
                "wrong_host",
                "too_many_requests",
                "unavailable",
            ),
        },
    }


def _hook() -> Json:
    return {
        "operationId": "hook",
        "summary": "An auth platform asks before it creates a user.",
        "description": "Body, proof and answer are those of the platform that the [[hook]] of the "
        "settings names: " + ", ".join(ADAPTERS) + ".",
        "security": [],
        "parameters": [
            {
                "name": "path",
                "in": "path",
                "required": True,
                "description": "`path` of the [[hook]]",
                "schema": {"type": "string"},
            }
        ],
        "responses": {
            "default": {"description": "In the platform's own words."},
            **_problems(
                "invalid_request", "not_found", "body_timeout", "body_too_large", "unavailable"
            ),
        },
    }


def _completed() -> Json:
    signed = {
        "webhook-id": "Names the message; one that comes twice has the same.",
        "webhook-timestamp": "Unix time of this attempt, in seconds.",
        "webhook-signature": "`v1,` and the HMAC-SHA-256 of `id.timestamp.body` in base64; several "
        "with spaces between them while the secret is being changed.",
    }
    return {
        "operationId": "check_completed",
        "summary": "A late verdict differs from the one that was given first.",
        "description": "Sent to the URLs of [[site.webhook]], at least once, signed after Standard "
        "Webhooks 1.0.0.",
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": description,
                "schema": {"type": "string"},
            }
            for name, description in signed.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF + "CheckCompleted"}}},
        },
        "responses": {
            "2XX": {"description": "Taken; it is not sent again."},
            "410": {"description": "Send nothing here any more."},
            "default": {"description": "Not taken, redirects included; tried again later."},
        },
    }


def _script() -> Json:
    content = {"text/javascript": {"schema": {"type": "string"}}}
    return {
        "operationId": "gate_js",
        "summary": "The widget.",
        "security": [],
        "responses": {"200": {"description": "The script.", "content": content}},
    }


def _readyz() -> Json:
    described = _plain("readyz", "Whether it can answer checks, and how well.", "Readiness")
    described["responses"]["503"] = {"$ref": "#/components/responses/unavailable"}
    return described


def _plain(name: str, summary: str, schema: str) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {"200": _json(summary, {"$ref": REF + schema})},
    }


def _openapi() -> Json:
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "security": [],
        "responses": {"200": _json("OpenAPI 3.1.", {"type": "object"})},
    }


def _body(schema: str) -> Json:
    kinds = {
        "application/json": f"{schema}Body",
        "application/x-www-form-urlencoded": f"{schema}Form",
    }
    content = {kind: {"schema": {"$ref": REF + name}} for kind, name in kinds.items()}
    return {"required": True, "content": content}


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problems(*names: str) -> Json:
    return {str(KINDS[name].status): {"$ref": f"#/components/responses/{name}"} for name in names}
