"""Supabase Auth, "Before User Created" hook.

Set up: Authentication > Hooks > Before User Created, HTTPS, `https://GATE/v1/hooks/supabase`; copy
the secret it makes (`v1,whsec_…`) into `secrets`. Self-hosted:
`GOTRUE_HOOK_BEFORE_USER_CREATED_URI`, `…_SECRETS` (several are joined with `|`, here as well).

Supabase waits five seconds over all attempts and gives each attempt an id of its own; a refusal is
status 200 with an error object, and an empty message would mean *allow*. Before version 2.187 the
object is not read, and only another status stops the signup: that is `legacy = true`.

Source: github.com/supabase/auth internal/hooks/hookshttp/hookshttp.go, hookserrors.go.
"""

from __future__ import annotations

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.payload import from_json, languages, text
from gate.hooks.proofs import standard_webhook, webhook_key
from gate.hooks.settings import Hook


class Supabase(Adapter):
    """`user.email` of a Standard Webhooks message."""

    def __init__(self, hook: Hook) -> None:
        super().__init__(hook)
        try:
            self._keys = [webhook_key(one) for text in hook.secrets for one in text.split("|")]
        except ValueError:
            raise self.wrong(
                "secrets", "not of the form v1,whsec_…; copy the one that Supabase shows"
            ) from None

    def prove(self, call: Call) -> Proof:
        return standard_webhook(call, self._keys)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        where = self.hook.email_at or ("user.email",)
        spoken = text(document, "user.user_metadata.locale", "user.user_metadata.language")
        return Asked(text(document, *where), languages(spoken))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return as_json(200, {})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        status = 400 if self.hook.legacy else 200
        return as_json(status, {"error": {"http_code": 400, "message": said.text}})
