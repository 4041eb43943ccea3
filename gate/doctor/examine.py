"""All checks of one gate, side by side, inside one deadline.

What it promises: `examine` never raises for what it finds; a check that is not done in time, or
that fails for a fault of its own, is a finding that says so. Checks that ask somebody outside are
left out, and say why, where a gate asks nobody: probing off, or the sandbox only.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gate.budget import Deadline
from gate.dns import Resolver, system_servers
from gate.dns.wire import A, Kind
from gate.doctor import (
    blocklists,
    clocks,
    files,
    names,
    permitted,
    port25,
    resolving,
    sanity,
    sender,
    storage,
)
from gate.doctor.face import Face, face_of, is_name
from gate.doctor.finding import Finding, Report, Topic
from gate.egress import outgoing_addresses
from gate.engine import Engine
from gate.probing import STATES
from gate.reason import GateError
from gate.settings import server_of

FACES_SHARE: Final = 0.3
"""The share of the time in which it has to be known what we look like from outside."""
INNER_SHARE: Final = 0.9
"""The share of its time that a check gives whom it asks, so that it can say who was silent."""

NOT_BELIEVED: Final = "no resolver is there that can be believed"
NETWORK: Final = "network"
WHO: Final = "who we are"
MACHINE: Final = "this machine"

log = logging.getLogger("gate.doctor")


@dataclass(frozen=True, slots=True)
class Patient:
    """The gate that is looked at. `apart`: it was opened for this only, and has no store of its
    own; `targets`: whom to greet on port 25; `offline`: why nobody outside may be asked, or empty.
    """

    engine: Engine
    apart: bool
    targets: tuple[str, ...] = port25.TARGETS
    offline: str = ""
    faces: tuple[Face, ...] = ()
    blind: str = ""
    """Why nothing that the resolvers deny may be believed, or empty."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `group`: the heading it stands under. `outside`: it asks others; `named`: about
    the name we give them; `faces`: it needs to know what we look like.
    """

    name: str
    group: str
    why: str
    run: Callable[[Patient, Deadline], Awaitable[list[Finding]]]
    outside: bool = False
    named: bool = False
    faces: bool = False


async def _resolver(patient: Patient, deadline: Deadline) -> list[Finding]:
    engine = patient.engine
    servers = [server_of(text) for text in engine.settings.dns.servers] or system_servers()
    private = bool(engine.settings.egress.allow)

    def one(server: tuple[str, int]) -> Resolver:
        chance = random.SystemRandom()
        return Resolver([server], private_names=private, clock=engine.clock, random=chance)

    return await resolving.check(servers, one, engine.clock, deadline)


async def _port_25(patient: Patient, deadline: Deadline) -> list[Finding]:
    engine = patient.engine
    return await port25.check(
        patient.faces, patient.targets, engine.resolver, engine.dialer, deadline
    )


async def _identity(patient: Patient, deadline: Deadline) -> list[Finding]:
    who = patient.engine.identity
    helo, note = (who.helo, who.note) if who else ("", "")
    found = sanity.identity(patient.engine.settings, helo, note)
    domain = mail_from(patient).rpartition("@")[2]
    if patient.offline or patient.blind or not is_name(domain):
        return found
    route = await patient.engine.resolver.route(domain, deadline)
    mx_names = () if route.implicit else route.mx_names
    doubled = [f for face in patient.faces for f in _doubled(face, mx_names, domain)]
    return [*found, *doubled]


def _doubled(face: Face, mx_names: Sequence[str], domain: str) -> list[Finding]:
    return sanity.helo_is_own_mx(face.helo, mx_names, domain)


async def _names(patient: Patient, deadline: Deadline) -> list[Finding]:
    return await names.check(patient.faces, patient.engine.resolver, deadline)


async def _sender(patient: Patient, deadline: Deadline) -> list[Finding]:
    engine = patient.engine
    return await sender.check(mail_from(patient), engine.resolver, engine.prober, deadline)


async def _spf(patient: Patient, deadline: Deadline) -> list[Finding]:
    return await permitted.check(
        mail_from(patient), patient.faces, patient.engine.resolver, deadline
    )


async def _block_lists(patient: Patient, deadline: Deadline) -> list[Finding]:
    return await blocklists.check(patient.faces, patient.engine.resolver, deadline)


async def _clock(patient: Patient, deadline: Deadline) -> list[Finding]:
    return clocks.check(patient.engine.wall)


async def _files(patient: Patient, deadline: Deadline) -> list[Finding]:
    limits = patient.engine.settings.limits
    return files.check(limits.connections, limits.dialogues)


async def _store(patient: Patient, deadline: Deadline) -> list[Finding]:
    store = None if patient.apart else patient.engine.store
    engine = patient.engine
    return await storage.check(engine.settings.store.url, store, engine.wall)


async def _settings(patient: Patient, deadline: Deadline) -> list[Finding]:
    return sanity.settings_of(patient.engine.settings)


CHECKS: Final = (
    Check(resolving.NAME, NETWORK, resolving.WHY, _resolver, outside=True),
    Check(port25.NAME, NETWORK, port25.WHY, _port_25, outside=True, faces=True),
    Check(sanity.IDENTITY, WHO, sanity.IDENTITY_WHY, _identity, faces=True),
    Check(names.NAME, WHO, names.WHY, _names, outside=True, named=True, faces=True),
    Check(sender.NAME, WHO, sender.WHY, _sender, outside=True, named=True),
    Check(permitted.NAME, WHO, permitted.WHY, _spf, outside=True, named=True, faces=True),
    Check(blocklists.NAME, WHO, blocklists.WHY, _block_lists, outside=True, named=True, faces=True),
    Check(clocks.NAME, MACHINE, clocks.WHY, _clock),
    Check(files.NAME, MACHINE, files.WHY, _files),
    Check(storage.NAME, MACHINE, storage.WHY, _store),
    Check(sanity.SETTINGS, MACHINE, sanity.SETTINGS_WHY, _settings),
)


def mail_from(patient: Patient) -> str:
    """The envelope sender; empty if there is none of the operator's own."""
    who = patient.engine.identity
    return who.mail_from if who else ""


def why_offline(engine: Engine) -> str:
    """Why a gate asks nobody outside; empty if it does."""
    halted = engine.probing.halted
    if halted:
        return f"nobody is asked: {STATES[halted]}"
    if engine.settings.sandbox.enabled and (engine.identity is None or engine.identity.note):
        return "the gate serves the sandbox only; set probe.helo to go outside"
    return ""


async def examine(patient: Patient, deadline: Deadline, only: Collection[str] = ()) -> Report:
    """Run the checks (`only`: those of these names) and report in their order."""
    wanted = [check for check in CHECKS if not only or check.name in only]
    looking: asyncio.Task[Patient] | None = None
    if not patient.offline and any(check.faces or check.named for check in wanted):
        share = deadline.cap(deadline.left() * FACES_SHARE)
        looking = asyncio.create_task(_oriented(patient, share))
    try:
        done = await asyncio.gather(*(_one(check, patient, looking, deadline) for check in wanted))
    finally:
        if looking is not None:
            looking.cancel()
            await asyncio.wait({looking})
    return Report(tuple(finding for findings in done for finding in findings))


async def _oriented(patient: Patient, deadline: Deadline) -> Patient:
    """The patient, with what is known of it from outside."""
    faces, there = await asyncio.gather(
        _faces(patient, deadline),
        patient.engine.resolver.records(resolving.SURELY_THERE, A, deadline),
    )
    # A lab need not know the root servers.
    blind = there.kind is not Kind.FOUND and not patient.engine.settings.egress.allow
    return replace(patient, faces=faces, blind=NOT_BELIEVED if blind else "")


async def _faces(patient: Patient, deadline: Deadline) -> tuple[Face, ...]:
    engine = patient.engine
    outgoing = outgoing_addresses()
    looks = (
        face_of(
            source,
            source.helo if engine.identity else "",
            resolver=engine.resolver,
            outgoing=outgoing,
            deadline=deadline,
        )
        for source in engine.dialer.sources
    )
    return tuple(await asyncio.gather(*looks))


async def _one(
    check: Check,
    patient: Patient,
    looking: asyncio.Task[Patient] | None,
    deadline: Deadline,
) -> list[Finding]:
    topic = Topic(check.name, check.why)
    if check.outside and patient.offline:
        return [topic.skipped(patient.offline)]
    if check.named and patient.engine.identity is None:
        return [topic.skipped("the gate has no name yet (see identity)")]
    try:
        async with asyncio.timeout(deadline.left()):
            if (check.faces or check.named) and looking is not None:
                patient = await asyncio.shield(looking)
            if check.named and patient.blind:
                return [topic.skipped(patient.blind, names.SEE_DNS)]
            return await check.run(patient, deadline.cap(deadline.left() * INNER_SHARE))
    except TimeoutError:
        return [topic.skipped("not done in time", "give it more with --timeout")]
    except GateError as error:
        return [topic.problem(str(error), "change that setting")]
    except Exception as error:
        log.exception("the check %s failed for a reason of its own", check.name)
        return [topic.skipped(f"the check itself failed ({type(error).__name__})")]
