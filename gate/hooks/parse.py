"""Parse Server, webhook of the trigger beforeSave on `_User`.

Set up: start Parse Server with `webhookKey: "SECRET"` and register the trigger once, with the
master key: `POST /parse/hooks/triggers {"className": "_User", "triggerName": "beforeSave", "url":
"https://GATE/v1/hooks/parse"}`.

The trigger runs on every save of a user; only a new address is looked at. The call holds the
password in the clear: neither it nor any other body is ever logged here. `{}` leaves the user as it
is; a refusal is Parse.Error 141 with our text.

Source: github.com/parse-community/parse-server src/Controllers/HooksController.js, RestWrite.js.
"""

from __future__ import annotations

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.payload import from_json, languages, text
from gate.hooks.proofs import shared_header


class Parse(Adapter):
    """`object.email`, where it is not what it was before."""

    def prove(self, call: Call) -> Proof:
        return shared_header(call, self.hook.secret_header or "x-parse-webhook-key", self.secrets)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        user = text(document, "object.className") == "_User"
        if text(document, "triggerName") != "beforeSave" or not user:
            return Asked()
        email = text(document, *(self.hook.email_at or ("object.email",)))
        if email is not None and email == text(document, "original.email"):
            return Asked()
        return Asked(email, languages(text(document, "headers.accept-language")))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return as_json(200, {})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        return as_json(200, {"error": said.text})
