"""Ory Kratos and Ory Network, `web_hook` after registration.

Set up: below `selfservice.flows.registration.after`, for each method (`password`, `oidc`, `code`):

    hooks:
      - hook: web_hook
        config:
          url: https://GATE/v1/hooks/kratos
          method: POST
          body: base64://ZnVuY3Rpb24oY3R4KSBjdHg=     # function(ctx) ctx
          response: { parse: true }                   # asked before anything is stored
          auth:
            type: api_key
            config: { name: Authorization, value: "Bearer SECRET", in: header }

A body template that sends less, `function(ctx) { email: ctx.identity.traits.email }`, is understood
too, and keeps cookies out of the call. If the trait has another name, `email_at =
["identity.traits.NAME"]`. Kratos signs nothing: the header is the proof (`secret_header`, if it is
not Authorization; Basic works).

A refusal is a status of 4xx (429 would be retried) with a message bound to the field; `{}` allows,
an empty body would be an error.

Source: github.com/ory/kratos selfservice/hook/web_hook.go.
"""

from __future__ import annotations

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.payload import from_json, languages, text
from gate.hooks.proofs import shared_header

MESSAGE_ID = 1234
"""A number of ours; Kratos keeps 1010000 and up for itself."""
_TRAIT = "identity.traits.email"


class Kratos(Adapter):
    """A trait of `identity`."""

    def prove(self, call: Call) -> Proof:
        return shared_header(call, self.hook.secret_header or "authorization", self.secrets)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        spoken = text(
            document,
            "identity.traits.locale",
            "identity.traits.language",
            "request_headers.Accept-Language[]",
        )
        where = self.hook.email_at or (_TRAIT, "email")
        return Asked(text(document, *where), languages(spoken))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return as_json(200, {})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        trait = (self.hook.email_at or (_TRAIT,))[0].removeprefix("identity.")
        shown = {"id": MESSAGE_ID, "text": said.text, "type": "error"}
        pointer = "#/" + trait.replace(".", "/")
        return as_json(409, {"messages": [{"instance_ptr": pointer, "messages": [shown]}]})
