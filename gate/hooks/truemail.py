"""The Truemail server API, which Misskey and its forks call, and which has clients of its own.

Set up, in Misskey: Control panel > Security > Active e-mail validation > Truemail API, instance
`https://GATE/v1/hooks/truemail`, and a key of yours, which goes into `secrets`. It waits five
seconds and takes any failure for an address that is not available.

The protocol is `POST|GET ?email=ADDRESS`, with the address not even encoded: one of two places
where an address may stand in a URL (the other is a proxy's forward-auth), because that is not ours
to choose. The gate logs no URL; a proxy in front of it has to be told not to either.

Bugs: layers are told apart as far as the callers do: regex, mx, smtp and list_match. smtp_debug is
always null, and `configuration` holds what a fresh Truemail would say.

Source: github.com/truemail-rb/truemail-rack; github.com/misskey-dev/misskey EmailService.ts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.messages import TEXT_OF
from gate.hooks.proofs import shared_header

PARAMETER: Final = b"email="
LAYERS: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "invalid": ("regex", "regex", "email does not match the regular expression"),
        "domain": ("mx", "mx", "target host(s) not found"),
        "mailbox": ("smtp", "smtp", "smtp error"),
        "full": ("smtp", "smtp", "smtp error"),
        "disposable": ("blacklist", "list_match", "disposable"),
    }
)
"""By text: the layer that refused, the key in `errors`, and its value. Misskey knows the last."""
OTHER: Final = ("blacklist", "list_match", "blacklist")
CONFIGURATION: Final[Mapping[str, object]] = MappingProxyType(
    {
        "blacklist_mx_ip_addresses": None,
        "blacklisted_domains": None,
        "blacklisted_emails": None,
        "dns": None,
        "email_pattern": "default gem value",
        "not_rfc_mx_lookup_flow": False,
        "smtp_error_body_pattern": "default gem value",
        "smtp_fail_fast": False,
        "smtp_safe_check": True,
        "validation_type_by_domain": None,
        "whitelist_validation": False,
        "whitelisted_domains": None,
        "whitelisted_emails": None,
    }
)


class Truemail(Adapter):
    """The address behind `?email=`."""

    methods = frozenset({"GET", "POST"})
    address_in_url = True

    def prove(self, call: Call) -> Proof:
        return shared_header(call, self.hook.secret_header or "authorization", self.secrets)

    def read(self, call: Call) -> Asked:
        return Asked(_email(call))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        if asked.email is None and _email(call) is None:
            return as_json(422, {"error": "email is required parameter"})
        return _told(call, "smtp", None)

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        layer, key, value = LAYERS.get(TEXT_OF.get(said.because, ""), OTHER)
        return _told(call, layer, {key: value})

    def refuse(self) -> Wire | None:
        return as_json(401, {"error": "invalid truemail access token"})


def _email(call: Call) -> str | None:
    """What stands behind `email=`: encoded or not, so that a plus sign is one, and no space.

    As the only parameter it takes all that follows, an ampersand as well.
    """
    query = call.query
    if not query.startswith(PARAMETER):
        query = next((part for part in query.split(b"&") if part.startswith(PARAMETER)), b"")
    value = unquote_to_bytes(query.removeprefix(PARAMETER)).decode("utf-8", "replace")
    return value or None


def _told(call: Call, layer: str, errors: Mapping[str, str] | None) -> Wire:
    date = datetime.fromtimestamp(call.now, UTC).strftime("%Y-%m-%d %H:%M:%S +0000")
    return as_json(
        200,
        {
            "date": date,
            "email": _email(call),
            "validation_type": layer,
            "success": errors is None,
            "errors": errors,
            "smtp_debug": None,
            "configuration": dict(CONFIGURATION),
        },
    )
