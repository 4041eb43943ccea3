"""POST /v1/hooks/{platform}: an auth platform asks before it creates a user.

What it promises: whoever proves that it is the platform gets an answer in the platform's own words,
inside the hook's deadline, whatever the mail servers, the store or a fault of ours do. Platforms
turn people away when they get no answer, a 5xx or a 429; so no proved call is given one, and *we do
not know* is always *allow*. No body and no URL is ever logged.

Rules:

1. The proof comes first, over the octets as they arrived. A call that is not proved gets 401.
2. Only the decision of the site's policy counts: `block` is a refusal, `warn` lets the person in.
3. A signed message that comes again within fifteen minutes gets its first answer again, after a
   restart too: the answer is claimed in the store before it leaves. A platform that tries again on
   its own account sends a new message (Supabase makes a new id for each attempt), and is answered
   anew, by what is known by then.
4. Over the site's limit the answer is allow, and nobody is asked.

Bugs: a body over `BODY_MOST` is 413, which the platform takes for a failure. The connection layer
may cut or refuse connections before anything here sees them.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Final, NamedTuple

from starlette.types import Receive, Scope, Send

from gate import address as addresses
from gate import metrics, typo
from gate.address import Address
from gate.answer import Answer
from gate.api.front import HOOKS as PREFIX
from gate.api.front import report
from gate.api.guard import host_problem
from gate.api.journal import Line
from gate.api.peer import Peers
from gate.api.problems import Problem
from gate.api.reply import SAFE, Reply
from gate.api.requests import ClientGone, receive_body, refuse_secrets_in_url
from gate.api.service import Service
from gate.api.sites import Tenant
from gate.budget import ANSWER_RESERVE, HOOK_REPLAY, HOOK_RESERVE, Deadline
from gate.hooks.adapter import Adapter, Asked, Call, Proof, Refused, Why, Wire
from gate.hooks.messages import say
from gate.hooks.registry import Registry
from gate.reason import VERDICT_OF, Choice, Reason

BODY_MOST: Final = 64 * 1024
NO_ADDRESS: Final = "no_address"
UNASKED: Final = "unasked"
FAILED: Final = "failed"
RESERVE_SHARE: Final = 0.2
"""The share of a short deadline that may be kept back instead."""
LOOPBACK: Final = ("127.0.0.0/8", "::1/128")


class Ruling(NamedTuple):
    """What is answered, what it rests on, and how it was come by (the metric's `outcome`)."""

    block: bool
    because: str
    outcome: str
    answer: Answer | None = None

    def pack(self) -> bytes:
        """As it is kept for a repetition: without the address."""
        return f"{'block' if self.block else 'allow'}:{self.because}".encode()


class Case(NamedTuple):
    """One call, once it is proved."""

    adapter: Adapter
    call: Call
    proof: Proof
    tenant: Tenant
    started: float
    deadline: Deadline


class Hooks:
    """The ASGI application below `/v1/hooks/`."""

    def __init__(self, service: Service, registry: Registry) -> None:
        self._service = service
        self._engine = service.engine
        self._registry = registry
        proxies = service.engine.settings.server.trusted_proxies
        self._trusted = Peers((*proxies, *LOOPBACK)).is_trusted
        self._claims: set[asyncio.Task[bytes | None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._engine.clock()
        try:
            wire = await self._answer(scope, receive, started)
            reply = Reply(wire.status, wire.body, [*wire.headers, *SAFE])
        except Problem as problem:
            metrics.PROBLEMS.labels(problem.name).inc()
            reply = problem.reply()
        except ClientGone:
            return
        await reply(send)

    async def close(self) -> None:
        """Wait for what is being set down."""
        await asyncio.gather(*self._claims, return_exceptions=True)

    async def _answer(self, scope: Scope, receive: Receive, started: float) -> Wire:
        """Raises `Problem` and `ClientGone` only."""
        found = self._registry.find(scope["path"].removeprefix(PREFIX))
        if found is None:
            raise Problem("not_found", "There is no [[hook]] of this name in gate.toml.")
        adapter, method = found.adapter, scope["method"]
        if adapter.methods and method not in adapter.methods:
            allowed = ", ".join(sorted(adapter.methods)).encode()
            raise Problem("method_not_allowed", headers=[(b"allow", allowed)])
        if not adapter.address_in_url:
            refuse_secrets_in_url(scope["query_string"])
        client = scope.get("client")
        call = Call(
            method=method,
            rest=found.rest,
            query=scope["query_string"],
            headers=scope["headers"],
            body=b"",
            trusted=client is not None and self._trusted(client[0]),
            now=self._engine.wall(),
        )
        # Any machine may be named: a call is proved by more than the name it asked for.
        if host_problem(call.header("host"), scope["http_version"], False) is not None:
            raise Problem("invalid_request", "The Host header is missing or malformed.")
        body = await receive_body(receive, BODY_MOST)
        return await self._hear(adapter, replace(call, body=body), started)

    async def _hear(self, adapter: Adapter, call: Call, started: float) -> Wire:
        tenant = self._tenant(adapter)
        deadline = Deadline(started + adapter.hook.deadline - ANSWER_RESERVE, self._engine.clock)
        try:
            if call.header("content-encoding") not in (None, "", "identity"):
                raise Refused(Why.MALFORMED)
            proof = adapter.prove(call)
        except Refused as refused:
            self._note(adapter, tenant, started, None, f"refused, {refused.why}")
            metrics.HOOKS.labels(adapter.hook.platform, "refused").inc()
            return _refusal(adapter)
        except Exception as error:
            report(error)
            proof = Proof()
        case = Case(adapter, call, proof, tenant, started, deadline)
        asked = _read(adapter, call)
        ruling = await self._first(case) or await self._settled(case, asked)
        metrics.HOOKS.labels(adapter.hook.platform, ruling.outcome).inc()
        self._note(adapter, tenant, started, ruling, ruling.outcome)
        now = replace(call, now=self._engine.wall())
        return _worded(case._replace(call=now), asked, ruling)

    async def _settled(self, case: Case, asked: Asked) -> Ruling:
        """The ruling on a message that was not seen before, set down for when it comes again."""
        ruling = await self._rule(case, asked)
        if case.proof.mark is None or ruling.outcome == FAILED:
            return ruling
        earlier = await self._claim(case, ruling)
        return ruling if earlier is None else earlier

    async def _rule(self, case: Case, asked: Asked) -> Ruling:
        if asked.email is None:
            return Ruling(case.adapter.hook.without_email == "block", NO_ADDRESS, NO_ADDRESS)
        try:
            self._service.guard.charge(case.tenant)
            async with asyncio.timeout(case.deadline.left()):
                answer = await self._check(case, asked.email)
        except Problem:
            return Ruling(False, Reason.THROTTLED, UNASKED)
        except TimeoutError:
            return Ruling(False, Reason.TIMEOUT, UNASKED)
        except Exception as error:
            report(error)
            return Ruling(False, Reason.UNEXPECTED_ERROR, FAILED)
        block = answer.decision.choice is Choice.BLOCK
        return Ruling(block, answer.decision.because, "deny" if block else "allow", answer)

    async def _check(self, case: Case, email: str) -> Answer:
        """The checker's answer, early enough for it to be set down and worded."""
        reserve = min(HOOK_RESERVE, RESERVE_SHARE * case.adapter.hook.deadline)
        deadline = Deadline(case.deadline.at - reserve, case.deadline.clock)
        return await self._engine.checker.check(email, site=case.tenant.site, deadline=deadline)

    # -- messages that come again ------------------------------------------------------------------

    async def _first(self, case: Case) -> Ruling | None:
        """The first answer to this very message, if there was one."""
        if case.proof.mark is None:
            return None
        try:
            async with asyncio.timeout(case.deadline.left()):
                kept = await self._engine.store.get(_key(b"answer", case))
        except Exception as error:
            report(error)
            return None
        return None if kept is None else _unpack(kept)

    async def _claim(self, case: Case, ruling: Ruling) -> Ruling | None:
        """Make this ruling the message's answer; else the one that was made so before.

        Waits as long as there is time. Later than that the claim goes on by itself, and the answer
        does not.
        """
        expires, packed = self._engine.wall() + HOOK_REPLAY, ruling.pack()
        store = self._engine.store
        task = asyncio.ensure_future(
            store.claim(_key(b"claim", case), expires=expires, value=packed)
        )
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)
        await asyncio.wait({task}, timeout=case.deadline.left())
        if not task.done():
            return None
        try:
            first = task.result()
        except Exception as error:
            report(error)
            return None
        await store.put(_key(b"answer", case), packed if first is None else first, expires=expires)
        return None if first is None else _unpack(first)

    # -- the rest ----------------------------------------------------------------------------------

    def _tenant(self, adapter: Adapter) -> Tenant:
        """The site whose policy decides; settings made sure that it exists."""
        sites = self._engine.sites
        named = next((site for site in sites if site.name == adapter.hook.site), sites[0])
        tenant = self._service.guard.tenants.by_site_key(named.site_key)
        assert tenant is not None
        return tenant

    def _note(
        self, adapter: Adapter, tenant: Tenant, started: float, ruling: Ruling | None, outcome: str
    ) -> None:
        """Write the call's line: never a body, never an address."""
        engine, site = self._engine, tenant.site.name
        answer = ruling.answer if ruling else None
        address = answer.address if answer else None
        mark = engine.keys.address_hash(site, address.exact).hex() if address else None
        told = None if ruling is None else Choice.BLOCK if ruling.block else Choice.ALLOW
        reason = answer.verdict.reason if answer else None
        if ruling is not None and ruling.outcome in (UNASKED, FAILED):
            reason = Reason(ruling.because)
        self._service.journal.wrote(
            Line(
                ts=round(engine.wall(), 3),
                request=self._service.request_id(),
                site=site,
                key="hook",
                check=answer.id if answer else None,
                address=mark,
                domain=address.domain if address else None,
                result=VERDICT_OF[reason] if reason else None,
                reason=reason,
                decision=told,
                because=ruling.because if ruling else None,
                would_be=answer.decision.would_be if answer else told,
                final=answer.verdict.final if answer else None,
                remembered=answer.cached.mailbox is not None if answer else None,
                outcome=f"{adapter.hook.path}: {outcome}",
                duration_ms=round((engine.clock() - started) * 1000, 2),
                budget_ms=round(adapter.hook.deadline * 1000),
            )
        )


def _read(adapter: Adapter, call: Call) -> Asked:
    """What is asked; a fault of ours in reading it counts as no address."""
    try:
        return adapter.read(call)
    except Exception as error:
        report(error)
        return Asked()


def _worded(case: Case, asked: Asked, ruling: Ruling) -> Wire:
    """The ruling in the platform's words; what cannot be worded is an allow."""
    adapter, call, hook = case.adapter, case.call, case.adapter.hook
    try:
        if ruling.block:
            said = say(
                ruling.because,
                languages=(*asked.languages, hook.language),
                own=hook.messages,
                reveal_mailbox=case.tenant.site.reveal == "mailbox",
                suggestion=_suggested(asked.email),
                ascii_only=adapter.ascii_only,
            )
            return adapter.deny(said, case.proof, call)
        return adapter.allow(asked, case.proof, call)
    except Exception as error:
        report(error)
        return adapter.allow(Asked(), case.proof, call)


def _suggested(email: str | None) -> str | None:
    """The domain that was probably meant."""
    parsed = addresses.parse(email or "")
    suggestion = typo.suggest(parsed) if isinstance(parsed, Address) else None
    return suggestion.rpartition("@")[2] if suggestion else None


def _refusal(adapter: Adapter) -> Wire:
    wire = adapter.refuse()
    if wire is not None:
        return wire
    raise Problem(
        "invalid_key",
        "The call is not signed, or carries no secret, as the [[hook]] in gate.toml has it. The "
        "gate's log says what is wrong with it.",
    )


def _key(kind: bytes, case: Case) -> bytes:
    """Where a message's answer is kept: by hook, so that two platforms never share one."""
    mark = case.proof.mark or b""
    return hashlib.sha256(
        b"hook\0" + kind + b"\0" + case.adapter.hook.path.encode() + b"\0" + mark
    ).digest()


def _unpack(kept: bytes) -> Ruling:
    choice, _, because = kept.decode().partition(":")
    return Ruling(choice == "block", because, "repeated")
