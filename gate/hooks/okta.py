"""Okta, registration inline hook.

Set up: Workflow > Inline Hooks > Registration, URL `https://GATE/v1/hooks/okta`, authentication
field `Authorization` with a secret of yours, which goes into `secrets`; then switch the hook on in
the profile enrolment policy. (OAuth 2.0 authentication is not supported.)

Okta waits three seconds, asks once more after an error, and then turns the person away. The Sign-In
Widget shows `errorCauses[].errorSummary` beside the field. For progressive profiling, where an
existing user adds data, 204 says that nothing changes.

Source: developer.okta.com, registration inline hook reference.
"""

from __future__ import annotations

from gate.hooks.adapter import Adapter, Asked, Call, Proof, Said, Wire, as_json
from gate.hooks.payload import from_json, languages, text
from gate.hooks.proofs import shared_header

_NEW = "data.userProfile.email"
_CHANGED = "data.userProfileUpdate.email"


class Okta(Adapter):
    """The profile's address, or the login where that is one."""

    def prove(self, call: Call) -> Proof:
        return shared_header(call, self.hook.secret_header or "authorization", self.secrets)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        if _progressive(call):
            email = text(document, *(self.hook.email_at or (_CHANGED,)))
        else:
            email = text(document, *(self.hook.email_at or (_NEW, "data.userProfile.login")))
        spoken = text(document, "data.userProfile.preferredLanguage", "data.userProfile.locale")
        return Asked(email, languages(spoken))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        if _progressive(call):
            return Wire(204, headers=[])
        return as_json(200, {"commands": [_command("ALLOW")]})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        progressive = _progressive(call)
        cause = {
            "errorSummary": said.text,
            "reason": said.because.upper(),
            "locationType": "body",
            "location": _CHANGED if progressive else _NEW,
            "domain": "end-user",
        }
        error = {"errorSummary": said.title, "errorCauses": [cause]}
        if progressive:
            return as_json(200, {"error": error})
        return as_json(200, {"commands": [_command("DENY")], "error": error})


def _progressive(call: Call) -> bool:
    return text(from_json(call.body), "requestType") == "progressive.profile"


def _command(registration: str) -> dict[str, object]:
    return {"type": "com.okta.action.update", "value": {"registration": registration}}
