"""The sandbox, through the whole engine: every example ends as its table says."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address, ip_network

from gate.answer import Answer
from gate.budget import CHECK, Deadline
from gate.engine import Engine, open_engine
from gate.reason import Flag, Reason
from gate.sandbox import EXAMPLES, Sandbox
from gate.settings.read import parse

SETTINGS = parse({"sandbox": {"enabled": True}})
NOT_A_DOMAINS_DOING = {Reason.THROTTLED, Reason.UNEXPECTED_ERROR}


async def ask(engine: Engine, email: str, seconds: float = CHECK) -> Answer:
    deadline = Deadline.after(seconds, engine.clock)
    return await engine.checker.check(email, site=engine.sites[0], deadline=deadline)


def test_every_example_ends_as_its_row_says() -> None:
    async def main() -> list[Answer]:
        async with open_engine(SETTINGS, store_url="memory:") as engine:
            return [await ask(engine, example.address) for example in EXAMPLES]

    answers = asyncio.run(main())
    found = [(answer.email, answer.verdict.reason) for answer in answers]
    assert found == [(example.address, example.reason) for example in EXAMPLES]
    for example, answer in zip(EXAMPLES, answers, strict=True):
        if example.flag is Flag.POSSIBLE_TYPO:
            assert answer.did_you_mean == "jane@gmail.com"
        elif example.flag:
            assert getattr(answer.flags, example.flag)


def test_there_is_an_example_for_every_reason_a_domain_can_give() -> None:
    assert {example.reason for example in EXAMPLES} == set(Reason) - NOT_A_DOMAINS_DOING
    assert len({example.address for example in EXAMPLES}) == len(EXAMPLES)


def test_a_slow_answer_is_there_a_little_later() -> None:
    async def main() -> tuple[Reason, Reason | None]:
        async with open_engine(SETTINGS, store_url="memory:") as engine:
            first = await ask(engine, "slow-300@inbox.test", 0.1)
            late = await engine.checker.latest(first.id, engine.sites[0], wait=5.0)
            return first.verdict.reason, late.verdict.reason if late else None

    assert asyncio.run(main()) == (Reason.TIMEOUT, Reason.ACCEPTED_EMAIL)


def test_names_nobody_planned_do_not_exist() -> None:
    async def main() -> Reason:
        async with open_engine(SETTINGS, store_url="memory:") as engine:
            return (await ask(engine, "jane@what-is-this.test")).verdict.reason

    assert asyncio.run(main()) is Reason.INVALID_DOMAIN


def test_its_addresses_are_documentation_space_and_lead_to_loopback() -> None:
    async def main() -> None:
        async with Sandbox() as sandbox:
            assert sandbox.seam_addresses
            for ip in sandbox.seam_addresses:
                assert ip in ip_network("203.0.113.0/24")
                host, _ = sandbox.seam(ip, 25)
                assert ip_address(host).is_loopback
            for servers in sandbox.stubs.values():
                assert all(ip_address(host).is_loopback for host, _ in servers)
            assert sandbox.seam(ip_address("8.8.8.8"), 25) == ("8.8.8.8", 25)

    asyncio.run(main())


def test_it_opens_and_closes_fast() -> None:
    async def main() -> None:
        async with Sandbox():
            pass

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 1.0
