"""Authgear, blocking handler of `user.pre_create`.

Set up, in authgear.yaml (the secret is the project's webhook secret, as its text):

    hook:
      blocking_handlers:
        - { event: user.pre_create, url: "https://GATE/v1/hooks/authgear" }

Authgear waits five seconds and fails the signup when there is no answer. Its signature holds no
time, so an old message cannot be told from a new one. The answer may have no other keys than these.
Other events are allowed unseen.

Source: github.com/authgear/authgear-server docs/specs/hook.md, pkg/lib/hook.
"""

from __future__ import annotations

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.payload import from_json, languages, text, texts
from gate.hooks.proofs import body_hex

_EMAIL = ("payload.identities[].claims.email", "payload.user.standard_attributes.email")


class Authgear(Adapter):
    """The address of a new user's identity."""

    def prove(self, call: Call) -> Proof:
        return body_hex(call, "x-authgear-body-signature", self.secrets)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        if text(document, "type") != "user.pre_create":
            return Asked()
        spoken = texts(document, "context.language", "context.preferred_languages")
        return Asked(text(document, *(self.hook.email_at or _EMAIL)), languages(*spoken))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return as_json(200, {"is_allowed": True})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        return as_json(200, {"is_allowed": False, "title": said.title, "reason": said.text})
