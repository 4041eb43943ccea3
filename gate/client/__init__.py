"""A Python client of a running gate: `Gate`, and `AsyncGate` for asyncio.

    with Gate("https://gate.example.com", secret_key) as gate:
        answer = gate.check(email)
        if answer.decision == "block":
            ...

What it promises: a call ends about when its `timeout` does. When there is no verdict to be had (the
gate is down, slow, full, wrongly configured, or talks nonsense) the person is let in: the answer
says `allow`, `failed_open` is true, and the log has a line. With `on_failure="raise"` it is a
`GateUnavailable` instead. No address stands in a URL, an exception, a log line or a `repr`.

Bugs: `Gate` bounds each wait on the connection by what was left when it began; a peer that sends
the head of its answer octet by octet can stretch that. `AsyncGate` ends on time whatever happens.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final, Self

import httpx

from gate.budget import CLIENT_IDLE, Deadline
from gate.client.answer import CheckAnswer, Failure, Got, SiteverifyAnswer
from gate.client.call import NO_TOKEN, Call, Caller, GateUnavailable, OnFailure
from gate.reason import Reason

__all__ = ["AsyncGate", "CheckAnswer", "Gate", "GateUnavailable", "OnFailure", "SiteverifyAnswer"]

ANSWER_MOST: Final = 256 * 1024
"""Octets of an answer; an explained one has some 10,000."""
_LIMITS: Final = httpx.Limits(keepalive_expiry=CLIENT_IDLE)
_BROKEN: Final = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""A kept connection that the gate has closed meanwhile looks like this: once more, on a new one."""
_FAILED: Final = (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError)
"""All that httpx raises; a `RuntimeError` when the client was closed, or its event loop."""
_TOO_LONG: Final = Failure(Reason.UNEXPECTED_ERROR, "its answer does not end")


class Gate(Caller):
    """The client for code that waits. Thread-safe; make one for the process and keep it.

    `url`: where the gate is. `secret`: the site's secret key. `timeout`: seconds a call may take in
    all, and the gate is told to answer within it; unset, the gate's own budget counts, and the call
    is given up after two seconds. `http`: a client of your own (proxy, certificates), which stays
    yours to close. Raises `GateError` for a URL or a key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        timeout: float | None = None,
        on_failure: OnFailure = "allow",
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(url, secret, timeout, on_failure)
        self._own = http is None
        self._http = http or httpx.Client(limits=_LIMITS, trust_env=False)

    def check(
        self,
        email: str,
        *,
        timeout: float | None = None,
        max_age: int | None = None,
        remoteip: str | None = None,
    ) -> CheckAnswer:
        """Check one address before you make the account.

        `max_age`: seconds; an older remembered verdict is looked up again. `remoteip`: the person's
        address, to be counted against the limit of one client; what is none is left out.
        """
        call = self._check(email, timeout, max_age, remoteip)
        return self._checked(self._send(call), email)

    def siteverify(
        self, token: str, *, email: str | None = None, timeout: float | None = None
    ) -> SiteverifyAnswer:
        """Verify the token a form carried; with an empty token, check `email` now."""
        call = self._siteverify(token, email, timeout)
        return NO_TOKEN if call is None else self._verified(self._send(call))

    def find(self, check_id: str, *, timeout: float | None = None) -> CheckAnswer | None:
        """The newest answer of an earlier check; None when there is none (any more)."""
        call = self._find(check_id, timeout)
        return None if call is None else self._found(self._send(call))

    def close(self) -> None:
        """Close its connections."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, call: Call) -> Got | Failure:
        deadline = Deadline.after(call.timeout, time.monotonic)
        try:
            try:
                return self._once(call, deadline)
            except _BROKEN:
                return self._once(call, deadline)
        except _FAILED as error:
            return _failure(error, call)

    def _once(self, call: Call, deadline: Deadline) -> Got | Failure:
        raw = b""
        with self._http.stream(**self._request(call, deadline.left())) as response:
            for part in response.iter_raw():
                raw += part
                if len(raw) > ANSWER_MOST:
                    return _TOO_LONG
                if deadline.passed:
                    raise TimeoutError
            return response.status_code, raw


class AsyncGate(Caller):
    """The client for asyncio. Make one for the application and keep it; otherwise as `Gate`."""

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        timeout: float | None = None,
        on_failure: OnFailure = "allow",
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(url, secret, timeout, on_failure)
        self._own = http is None
        self._http = http or httpx.AsyncClient(limits=_LIMITS, trust_env=False)

    async def check(
        self,
        email: str,
        *,
        timeout: float | None = None,
        max_age: int | None = None,
        remoteip: str | None = None,
    ) -> CheckAnswer:
        """As `Gate.check`."""
        call = self._check(email, timeout, max_age, remoteip)
        return self._checked(await self._send(call), email)

    async def siteverify(
        self, token: str, *, email: str | None = None, timeout: float | None = None
    ) -> SiteverifyAnswer:
        """As `Gate.siteverify`."""
        call = self._siteverify(token, email, timeout)
        return NO_TOKEN if call is None else self._verified(await self._send(call))

    async def find(self, check_id: str, *, timeout: float | None = None) -> CheckAnswer | None:
        """As `Gate.find`."""
        call = self._find(check_id, timeout)
        return None if call is None else self._found(await self._send(call))

    async def close(self) -> None:
        """Close its connections."""
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(self, call: Call) -> Got | Failure:
        try:
            async with asyncio.timeout(call.timeout):
                try:
                    return await self._once(call)
                except _BROKEN:
                    return await self._once(call)
        except _FAILED as error:
            return _failure(error, call)

    async def _once(self, call: Call) -> Got | Failure:
        raw = b""
        async with self._http.stream(**self._request(call, call.timeout)) as response:
            async for part in response.aiter_raw():
                raw += part
                if len(raw) > ANSWER_MOST:
                    return _TOO_LONG
            return response.status_code, raw


def _failure(error: Exception, call: Call) -> Failure:
    """The error without what it holds: httpx's carry the request, and so the address."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return Failure(Reason.TIMEOUT, f"gave no answer in {call.timeout:.3g} s")
    return Failure(Reason.UNEXPECTED_ERROR, f"cannot be asked ({type(error).__name__})")
