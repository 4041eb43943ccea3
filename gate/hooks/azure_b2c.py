"""Azure AD B2C, API connector "Before creating the user" or after the attributes were collected.

Set up: API connectors > New, endpoint `https://GATE/v1/hooks/azure-b2c`, Basic authentication;
`secrets = ["USER:PASSWORD"]`. For custom policies (a REST technical profile that takes
`userMessage` of status 409) write `legacy = true`.

B2C waits twenty seconds and asks once more. A refusal is a validation error: the form stays, and
the person can correct the address.

Source: learn.microsoft.com, Add an API connector to a sign-up user flow.
"""

from __future__ import annotations

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.payload import from_json, languages, text
from gate.hooks.proofs import shared_header

VERSION = "1.0.0"
_EMAIL = ("email", "signInNames.emailAddress", "signInName")


class AzureB2C(Adapter):
    """The claim `email`."""

    def prove(self, call: Call) -> Proof:
        return shared_header(call, self.hook.secret_header or "authorization", self.secrets)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        spoken = languages(text(document, "ui_locales"))
        claim = document.get("signInNames.emailAddress") if isinstance(document, dict) else None
        email = text(document, *(self.hook.email_at or _EMAIL))
        return Asked(email or (claim if isinstance(claim, str) and claim else None), spoken)

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        if self.hook.legacy:
            return as_json(200, {})
        return as_json(200, {"version": VERSION, "action": "Continue"})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        if self.hook.legacy:
            return as_json(409, {"version": VERSION, "status": 409, "userMessage": said.text})
        return as_json(
            400,
            {
                "version": VERSION,
                "status": 400,
                "action": "ValidationError",
                "userMessage": said.text,
            },
        )
