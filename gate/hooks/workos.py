"""WorkOS AuthKit Actions, user registration.

Set up: Actions > User registration, endpoint `https://GATE/v1/hooks/workos`; its secret goes into
`secrets`. WorkOS denies when it gets no answer in time or cannot verify it; that can be changed for
each endpoint.

The answer is signed with the secret that the call was signed with. Texts are ASCII: the Python SDK
signs JSON with escapes and the Node one without, and only for ASCII is that the same.

Source: the SDKs, workos-node src/actions, workos-python src/workos/actions.py.
"""

from __future__ import annotations

import hmac

import msgspec

from gate.budget import HOOK_TOLERANCE_WORKOS
from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire
from gate.hooks.payload import from_json, text
from gate.hooks.proofs import timed_hex


class WorkOS(Adapter):
    """`user_data.email`; the answer is signed octet for octet as it is sent."""

    ascii_only = True

    def prove(self, call: Call) -> Proof:
        return timed_hex(
            call,
            "workos-signature",
            self.secrets,
            tolerance=HOOK_TOLERANCE_WORKOS,
            milliseconds=True,
        )

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        return Asked(text(document, *(self.hook.email_at or ("user_data.email",))))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return self._signed({"verdict": "Allow"}, proof, call)

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        return self._signed({"verdict": "Deny", "error_message": said.text}, proof, call)

    def _signed(self, verdict: dict[str, str], proof: Proof, call: Call) -> Wire:
        now = int(call.now * 1000)
        payload = msgspec.json.encode({"timestamp": now, **verdict})
        key = proof.secret or self.secrets[0]
        seal = hmac.digest(key, b"%d." % now + payload, "sha256").hex()
        body = {
            "object": "user_registration_action_response",
            "payload": msgspec.Raw(payload),
            "signature": seal,
        }
        return Wire(200, msgspec.json.encode(body))
