"""Anything that can sign a Standard Webhooks message and act on the answer.

Set up: `secrets = ["whsec_…"]`, the same on the other side; `POST https://GATE/v1/hooks/generic`
with a JSON body. The address is looked for at `email_at`, or else at the places that webhooks
usually have it. What is answered is the hook's own, `{"decision": "block", "reason": …,
"message": …}` with status 200, unless the table `answer` says otherwise.

Source: the Standard Webhooks specification 1.0.0.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gate.hooks.adapter import WHOLE, Adapter, Asked, Call, Proof, Said, Wire
from gate.hooks.payload import from_json, languages, text
from gate.hooks.proofs import standard_webhook, webhook_key
from gate.hooks.settings import Hook

EMAIL_AT: Final = ("email", "user.email", "data.email", "data.user.email", "data.object.email")
LANGUAGE_AT: Final = ("locale", "language", "user.locale", "data.locale", "data.user.locale")
ALLOW: Final = '{"decision": "allow", "reason": null, "message": null}'
BLOCK: Final = '{"decision": "block", "reason": "{reason}", "message": "{message}"}'


class Template:
    """A JSON answer with places in its texts. Raises ValueError for what is no JSON."""

    def __init__(self, source: str) -> None:
        self._document: Any = None
        self.empty = not source
        if source:
            try:
                self._document = msgspec.json.decode(source)
            except msgspec.DecodeError as error:
                raise ValueError(str(error)) from None

    def wire(self, status: int, said: Said | None = None) -> Wire:
        """The answer, with what was said put in its places."""
        if self.empty:
            return Wire(status, headers=[])
        values = {
            "{message}": said.text if said else "",
            "{title}": said.title if said else "",
            "{reason}": said.because if said else "",
            "{language}": said.language if said else "",
            "{decision}": "block" if said else "allow",
        }
        return Wire(status, msgspec.json.encode(_filled(self._document, values)), WHOLE)


def _filled(document: Any, values: dict[str, str]) -> Any:
    if isinstance(document, dict):
        return {key: _filled(value, values) for key, value in document.items()}
    if isinstance(document, list):
        return [_filled(value, values) for value in document]
    if isinstance(document, str):
        for place, value in values.items():
            document = document.replace(place, value)
    return document


def templates(adapter: Adapter, allow: str, block: str) -> tuple[Template, Template]:
    """The two answers of a hook whose shape is in its settings. Raises `GateError`."""
    answer = adapter.hook.answer
    found = []
    for key, source in (
        ("answer.allow_body", answer.allow_body or allow),
        ("answer.block_body", answer.block_body or block),
    ):
        try:
            found.append(Template(source))
        except ValueError as error:
            raise adapter.wrong(key, f"is not JSON: {error}") from None
    return found[0], found[1]


class Generic(Adapter):
    """A Standard Webhooks message in, an answer of the operator's shape out."""

    def __init__(self, hook: Hook) -> None:
        super().__init__(hook)
        try:
            self._keys = [webhook_key(text) for text in hook.secrets]
        except ValueError:
            raise self.wrong(
                "secrets", "not of the form whsec_… with 24 to 64 octets in base64"
            ) from None
        self._allow, self._block = templates(self, ALLOW, BLOCK)

    def prove(self, call: Call) -> Proof:
        return standard_webhook(call, self._keys)

    def read(self, call: Call) -> Asked:
        document = from_json(call.body)
        email = text(document, *(self.hook.email_at or EMAIL_AT))
        return Asked(email, languages(text(document, *LANGUAGE_AT)))

    def allow(self, asked: Asked, proof: Proof, call: Call) -> Wire:
        return self._allow.wire(self.hook.answer.allow_status)

    def deny(self, said: Said, proof: Proof, call: Call) -> Wire:
        return self._block.wire(self.hook.answer.block_status or 200, said)
