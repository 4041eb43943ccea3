"""The calls a client makes: what is sent, for how long it is waited, what a failure becomes.

What it promises: what somebody typed cannot make a call fail, and so let its author in unseen. An
address that is too long, or holds what no text can hold, is sent in a form that is just as invalid;
a token or an IP address that cannot be one is not sent at all.
"""

from __future__ import annotations

import logging
import re
import secrets
from ipaddress import ip_address
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from gate.budget import CHECK_LEAST, CHECK_MOST, CLIENT, CLIENT_RESERVE
from gate.client.answer import (
    CheckAnswer,
    Failure,
    Got,
    SiteverifyAnswer,
    read_check,
    read_siteverify,
)
from gate.reason import Choice, GateError, Reason, Result

log = logging.getLogger("gate.client")

EMAIL_MOST: Final = 400
"""Characters of an address that are sent: 400 are as invalid as any more."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~=-]{1,4096}")
_CHECK_ID: Final = re.compile(r"chk_[0-9A-Za-z]{1,64}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
NO_TOKEN: Final = SiteverifyAnswer(success=False, error_codes=("invalid-input-response",))
"""What a text that cannot be a token is answered, without asking."""

OnFailure = Literal["allow", "raise"]


class GateUnavailable(GateError):
    """There is no verdict, and the client was told to raise. `reason` says why, coarsely."""

    def __init__(self, text: str, reason: Reason) -> None:
        super().__init__(text)
        self.reason = reason


class Call(NamedTuple):
    """One request, and how many seconds it may take in all."""

    method: str
    path: str
    body: dict[str, Any] | None
    timeout: float


A = TypeVar("A", CheckAnswer, SiteverifyAnswer)


class Caller:
    """What both clients share: everything but the waiting."""

    def __init__(self, url: str, secret: str, timeout: float | None, on_failure: OnFailure) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise GateError("url: write where the gate is, as in https://gate.example.com")
        if not secret.startswith("sk_") or not secret.isascii():
            raise GateError("secret: write the secret key (sk_…); a site key is for pages")
        self._where = f"{parts.scheme}://{parts.hostname}"
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._raises = on_failure == "raise"
        self._headers = {
            "authorization": f"Bearer {secret}",
            "content-type": "application/json",
            "accept-encoding": "identity",
        }

    def _check(
        self, email: str, timeout: float | None, max_age: int | None, remoteip: str | None
    ) -> Call:
        body: dict[str, Any] = {"email": _sendable(email)}
        wanted = self._timeout if timeout is None else timeout
        if wanted is not None:
            seconds = min(max(wanted - CLIENT_RESERVE, CHECK_LEAST), CHECK_MOST)
            body["timeout_ms"] = int(seconds * 1000)
        if max_age is not None:
            body["max_age"] = max_age
        if remoteip is not None and _is_ip(remoteip):
            body["remoteip"] = remoteip
        return self._call("/v1/check", body, timeout)

    def _siteverify(self, token: str, email: str | None, timeout: float | None) -> Call | None:
        """None: what was handed in cannot be a token."""
        if token and not _TOKEN.fullmatch(token):
            return None
        # With a key, a call that broke off can be made again although the token is spent.
        body = {"response": token, "idempotency_key": secrets.token_hex(16)}
        if email is not None:
            body["email"] = _sendable(email)
        return self._call("/v1/siteverify", body, timeout)

    def _find(self, check_id: str, timeout: float | None) -> Call | None:
        """None: what was handed in cannot be an id, and does not go into a URL."""
        if not _CHECK_ID.fullmatch(check_id):
            return None
        return self._call(f"/v1/checks/{check_id}", None, timeout)

    def _call(self, path: str, body: dict[str, Any] | None, timeout: float | None) -> Call:
        wanted = self._timeout if timeout is None else timeout
        method = "GET" if body is None else "POST"
        return Call(method, path, body, CLIENT if wanted is None else wanted)

    def _request(self, call: Call, left: float) -> dict[str, Any]:
        """The call as httpx takes it."""
        return {
            "method": call.method,
            "url": self._url + call.path,
            "headers": self._headers,
            "content": None if call.body is None else msgspec.json.encode(call.body),
            "timeout": left,
            "follow_redirects": False,
        }

    def _checked(self, got: Got | Failure, email: str | None) -> CheckAnswer:
        """The answer to a check; to one that failed, if need be, the one that lets in."""
        answer = got if isinstance(got, Failure) else read_check(got)
        if isinstance(answer, Failure):
            return self._failed(answer, opened(answer.reason, email))
        return answer if email is None else msgspec.structs.replace(answer, email=email)

    def _verified(self, got: Got | Failure) -> SiteverifyAnswer:
        answer = got if isinstance(got, Failure) else read_siteverify(got)
        if isinstance(answer, Failure):
            let_in = SiteverifyAnswer(
                success=True,
                decision=Choice.ALLOW,
                result=Result.UNKNOWN,
                reason=answer.reason.value,
                failed_open=True,
            )
            return self._failed(answer, let_in)
        return answer

    def _found(self, got: Got | Failure) -> CheckAnswer | None:
        if not isinstance(got, Failure) and got[0] == 404:
            return None
        return self._checked(got, None)

    def _failed(self, failure: Failure, answer: A) -> A:
        if self._raises:
            raise GateUnavailable(f"{self._where}: {failure.text}", failure.reason)
        log.warning("%s: %s; the person is let in", self._where, failure.text)
        return answer


def opened(reason: Reason, email: str | None) -> CheckAnswer:
    """The answer that lets a person in because there is no verdict."""
    return CheckAnswer(
        decision=Choice.ALLOW,
        reason=reason.value,
        because=reason.value,
        final=False,
        failed_open=True,
        email=email,
    )


def _sendable(email: str) -> str:
    """The address as it is sent. Lone surrogates, which JSON cannot hold, become control bytes."""
    return _SURROGATE.sub("\0", email[:EMAIL_MOST])


def _is_ip(text: str) -> bool:
    try:
        return not getattr(ip_address(text), "scope_id", None)
    except ValueError:
        return False
