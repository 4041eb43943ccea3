"""FusionAuth, webhook of `user.create` as part of the transaction.

Set up: Settings > Webhooks > Add, URL `https://GATE/v1/hooks/fusionauth`, event `user.create`
(`user.registration.create` is understood too), "Sign events" with an HMAC key, whose secret goes
into `secrets`; then Tenants > Webhooks > Transaction setting for the event: "All the webhooks must
succeed". Keys of other kinds cannot be verified here; use a header or Basic authentication then,
and name it in `secret_header` ("Authorization" for Basic, `secrets = ["USER:PASSWORD"]`).

Any status other than 2xx fails the transaction, and FusionAuth answers its caller with a text of
its own: ours is not shown to anybody. Other events are allowed unseen.

Source: fusionauth.io docs, extend/events-and-webhooks, signing.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode

from gate.budget import HOOK_TOLERANCE
from gate.hooks.adapter import Adapter, Asked, Call, Proof, Refused, Said, Why, Wire, as_json
from gate.hooks.jwt import by_hmac, in_time, take_apart
from gate.hooks.payload import from_json, languages, text, texts
from gate.hooks.proofs import mark, same, shared_header

_EVENTS = ("user.create", "user.registration.create")


class FusionAuth(Adapter):
    """`user.email` of an event, with or without the `event` around it."""

    def prove(self, call: Call) -> Proof:
        if self.hook.secret_header:
            return shared_header(call, self.hook.secret_header, self.secrets)
        token = take_apart(call.proof("x-fusionauth-signature-jwt").strip())
        key = by_hmac(token, self.secrets)
        in_time(token.claims, call.now, HOOK_TOLERANCE)
        digest = b64encode(hashlib.sha256(call.body).digest())
        claimed = token.claims.get("request_body_sha256")
        if not isinstance(claimed, str) or not same(claimed.encode(), digest):
            raise Refused(Why.WRONG)
        return Proof(key, mark(b"", call.body))

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        if text(document, "event.type", "type") not in _EVENTS:
            return Asked()
        spoken = texts(document, "event.user.preferredLanguages", "user.preferredLanguages")
        where = self.hook.email_at or ("event.user.email", "user.email")
        return Asked(text(document, *where), languages(*spoken))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return as_json(200, {})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        return as_json(400, {"message": said.text})
