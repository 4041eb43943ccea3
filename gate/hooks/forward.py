"""A reverse proxy that asks before it lets a signup through: forward-auth.

Set up, each with its own way of handing the address over:

Traefik (3.3 or newer; `preserveRequestMethod` needs 3.4):

    forwardAuth: { address: "https://GATE/v1/hooks/forward", forwardBody: true, maxBodySize: 65536 }

nginx never sends the body, so that the address has to be in the query; a refusal is 401 or 403.
With `email_header = "X-Signup-Email"` in the [[hook]] (the variable has to be set outside: the
sub-request has no query of its own):

    location = /gate { internal; proxy_pass https://GATE/v1/hooks/forward;
                       proxy_pass_request_body off; proxy_set_header Content-Length "";
                       proxy_set_header X-Signup-Email $signup_email; }
    location = /signup { set $signup_email $arg_email; auth_request /gate;
                         auth_request_set $why $upstream_http_x_gate_message;
                         error_page 403 = @refused; ... }
    location @refused { return 422 $why; }

(`$why` is the text; what is beyond ASCII in it is percent-encoded.)

Envoy, ext_authz with http_service: `path_prefix: /v1/hooks/forward`, `with_request_body:
{max_request_bytes: 8192, allow_partial_message: true}`, `allowed_headers: content-type`, and
`timeout: 2s`, for its own default of 0.2 s is over before most mail servers have said a word (or
`deadline_ms = 150` here, and let most signups through).

APISIX forward-auth: `request_method: POST`, or `extra_headers: {X-Signup-Email: $post_arg.email}`.

Without `secrets` only this machine and `server.trusted_proxies` are listened to. Anything but a
signup passes: a page that is fetched (X-Forwarded-Method), a call without an address.

Rules:

1. The configured header wins, for the proxy sets it; then the body, which is what the application
   will read; then the query. A header that was not configured counts for nothing: the proxy may be
   passing on what the person made up.
2. Two different addresses in one place are no address, so that nobody can show us one and the
   application another.

Bugs: bodies of other types than JSON and urlencoded forms (multipart) hold no address here.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote, unquote

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Refused, Said, Why, Wire
from gate.hooks.generic import templates
from gate.hooks.payload import at, form_values, languages
from gate.hooks.proofs import shared_header
from gate.hooks.settings import Hook

HEADER: Final = "x-gate-secret"
BLOCK_STATUS: Final = 403
"""The one refusal that every proxy understands."""
BLOCK: Final = '{"error": "{message}", "reason": "{reason}"}'
PATHS: Final = ("email", "user.email")
FIELDS: Final = ("email", "user[email]")
FETCHED: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SPOKEN: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Forward(Adapter):
    """The person's own request, or what a proxy passes on of it."""

    methods = frozenset()
    deep = True
    address_in_url = True

    def __init__(self, hook: Hook) -> None:
        super().__init__(hook)
        self._allow, self._block = templates(self, "", BLOCK)

    def prove(self, call: Call) -> Proof:
        if self.secrets:
            return shared_header(call, self.hook.secret_header or HEADER, self.secrets)
        if not call.trusted:
            raise Refused(Why.UNTRUSTED)
        return Proof()

    def read(self, call: Call) -> Asked:
        spoken = languages(call.header("accept-language"))
        if self.hook.email_header:
            return Asked(_decoded(call.header(self.hook.email_header)), spoken)
        method = call.header("x-forwarded-method") or call.header("x-original-method")
        if method is not None and method.upper() in FETCHED:
            return Asked(None, spoken)
        found = self._in_body(call) or form_values(call.query, "email")
        return Asked(_one_of(found), spoken)

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return _labelled(self._allow.wire(self.hook.answer.allow_status), "allow")

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        wire = self._block.wire(self.hook.answer.block_status or BLOCK_STATUS, said)
        return _labelled(wire, "block", said)

    def _in_body(self, call: Call) -> list[str]:
        """Every address in the body, by what its type says, or by its looks where none is given."""
        kind = (call.header("content-type") or "").partition(";")[0].strip().lower()
        body, cut = call.body, call.header("x-envoy-auth-partial-body") == "true"
        if kind.endswith("json") or (not kind and body[:1] == b"{"):
            return [] if cut else _in_json(body, self.hook.email_at or PATHS)
        if kind in ("", "application/x-www-form-urlencoded"):
            # The last field of a body that was cut may be half an address.
            whole = body.rpartition(b"&")[0] if cut else body
            fields = self.hook.email_at or FIELDS
            return [value for field in fields for value in form_values(whole, field)]
        return []


def _decoded(value: str | None) -> str | None:
    """A header's address; a proxy that took it out of a query may have left it encoded."""
    if value and "@" not in value and "%40" in value:
        value = unquote(value)
    return value or None


def _one_of(found: list[str]) -> str | None:
    """The address; several different ones stay together, and are none."""
    different = dict.fromkeys(value for value in found if value.strip())
    return " ".join(different) or None


def _in_json(body: bytes, paths: tuple[str, ...]) -> list[str]:
    """What stands at the paths. A key that stands twice keeps both of its values."""

    def together(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for name, value in pairs:
            twice = name in merged and isinstance(value, str) and isinstance(merged[name], str)
            merged[name] = f"{merged[name]} {value}" if twice else value
        return merged

    try:
        document = json.loads(body, object_pairs_hook=together, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return []
    values = (at(document, path) for path in paths)
    return [value for value in values if isinstance(value, str)]


def _labelled(wire: Wire, decision: str, said: Said | None = None) -> Wire:
    """The answer with headers that a proxy can copy where it throws the body away."""
    headers = [*wire.headers, (b"x-gate-decision", decision.encode())]
    if said is not None:
        headers.append((b"x-gate-reason", said.because.encode()))
        headers.append((b"x-gate-message", quote(said.text, safe=_SPOKEN).encode()))
    return wire._replace(headers=headers)
