"""Microsoft Entra External ID, custom authentication extension OnAttributeCollectionSubmit.

Set up: External Identities > Custom authentication extensions > AttributeCollectionSubmit, target
`https://GATE/v1/hooks/entra`, with an app registration for it; add it to the user flow.

Entra proves itself with a bearer token signed by the tenant's keys. The gate opens no connection
for that, because everything it dials goes to mail servers: save the tenant's key set (`jwks_uri` of
its OpenID configuration) into the file `token.jwks`, by a daily job, and name `token.audience` and
`token.issuer`. The file is read again when a token names a key that is not in it. Where a proxy of
yours verifies the token, let it send a secret in `secret_header` instead.

Entra waits two seconds, tries again, and then fails the sign-up. A refusal is a block page: the
address itself is no attribute that could be corrected at this step.

Source: learn.microsoft.com, OnAttributeCollectionSubmit reference; Microsoft identity platform,
claims validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gate.budget import HOOK_TOLERANCE
from gate.hooks.adapter import Adapter, Asked, Call, Proof, Refused, Said, Why, Wire, as_json
from gate.hooks.jwt import by_rsa, in_time, rsa_keys, take_apart
from gate.hooks.payload import at, from_json, languages, text
from gate.hooks.proofs import shared_header
from gate.hooks.settings import Hook

CALLER: Final = "99045fe1-7639-4a75-9d4a-577b6ca3810f"
"""The application id of Microsoft's own service that calls; the same for every tenant."""
_GRAPH: Final = "microsoft.graph."
_ACTION: Final = f"{_GRAPH}attributeCollectionSubmit."


class Entra(Adapter):
    """The identity of kind `email`, or any that looks like an address."""

    def __init__(self, hook: Hook) -> None:
        super().__init__(hook)
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._changed = 0
        self._file = Path(hook.token.jwks) if hook.token.jwks else None
        if self._file is not None:
            try:
                self._load(self._file)
            except (OSError, ValueError) as error:
                raise self.wrong("token.jwks", f"{self._file} holds no key set: {error}") from None

    def prove(self, call: Call) -> Proof:
        if self.hook.secrets:
            return shared_header(call, self.hook.secret_header or "authorization", self.secrets)
        scheme, _, token = call.proof("authorization").partition(" ")
        if scheme.lower() != "bearer":
            raise Refused(Why.MALFORMED)
        opened = take_apart(token.strip())
        by_rsa(opened, self._key(opened.header.get("kid")))
        claims, expected = opened.claims, self.hook.token
        caller = claims.get("azp", claims.get("appid"))
        if (claims.get("aud"), claims.get("iss"), caller) != (
            expected.audience,
            expected.issuer,
            CALLER,
        ):
            raise Refused(Why.WRONG)
        if "exp" not in claims:
            raise Refused(Why.MALFORMED)
        in_time(claims, call.now, HOOK_TOLERANCE)
        return Proof()

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        spoken = text(document, "data.authenticationContext.client.locale")
        return Asked(_email(document, self.hook), languages(spoken))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return _answer({"@odata.type": f"{_ACTION}continueWithDefaultBehavior"})

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        shown = {"title": said.title, "message": said.text}
        return _answer({"@odata.type": f"{_ACTION}showBlockPage", **shown})

    def _key(self, kid: object) -> RSAPublicKey:
        """The key a token names; the file is looked at again for one that is not known."""
        if not isinstance(kid, str):
            raise Refused(Why.MALFORMED)
        if kid not in self._keys and self._file is not None:
            try:
                if self._file.stat().st_mtime_ns != self._changed:
                    self._load(self._file)
            except (OSError, ValueError):
                # Half written, or gone: the keys read before still hold.
                raise Refused(Why.WRONG) from None
        if kid not in self._keys:
            raise Refused(Why.WRONG)
        return self._keys[kid]

    def _load(self, file: Path) -> None:
        changed = file.stat().st_mtime_ns
        self._keys = rsa_keys(file.read_bytes())
        self._changed = changed


def _email(document: object, hook: Hook) -> str | None:
    if hook.email_at:
        return text(document, *hook.email_at)
    identities = at(document, "data.userSignUpInfo.identities")
    for identity in identities if isinstance(identities, list) else ():
        if text(identity, "signInType") == "email":
            return text(identity, "issuerAssignedId")
    return text(document, "data.userSignUpInfo.attributes.email.value")


def _answer(action: Mapping[str, str]) -> Wire:
    kind = f"{_GRAPH}onAttributeCollectionSubmitResponseData"
    return as_json(200, {"data": {"@odata.type": kind, "actions": [action]}})
