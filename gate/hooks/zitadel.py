"""ZITADEL Actions v2, request executions.

Set up: a target `{"restWebhook": {"interruptOnError": true}, "endpoint":
"https://GATE/v1/hooks/zitadel", "timeout": "10s", "payloadType": "PAYLOAD_TYPE_JSON"}`, whose
answer holds the signing key for `secrets`; executions with the condition `request.method` for
`/zitadel.user.v2.UserService/CreateUser` and `/zitadel.user.v2.UserService/AddHumanUser`.

Without `interruptOnError` ZITADEL ignores every refusal. Calls of other methods are allowed unseen.
An empty body allows with either kind of target: a restCall would take any other for the new
request. A refusal's status is forwarded to the client of the API; Login V2 may show its own text.

Source: github.com/zitadel/zitadel pkg/actions/signing.go, internal/execution/execution.go.
"""

from __future__ import annotations

from gate.budget import HOOK_TOLERANCE
from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.payload import from_json, languages, text
from gate.hooks.proofs import timed_hex


class Zitadel(Adapter):
    """The address of CreateUser or AddHumanUser."""

    def prove(self, call: Call) -> Proof:
        return timed_hex(call, "zitadel-signature", self.secrets, tolerance=HOOK_TOLERANCE)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        where = self.hook.email_at or ("request.human.email.email", "request.email.email")
        spoken = text(
            document,
            "request.human.profile.preferredLanguage",
            "request.profile.preferredLanguage",
            "request.profile.preferred_language",
        )
        return Asked(text(document, *where), languages(spoken))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return Wire(200)

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        return as_json(200, {"forwardedStatusCode": 400, "forwardedErrorMessage": said.text})
