"""Tokens and inbound ids are accepted exactly once (R8): under a race, kills, restarts and a clock
that steps.

A whole gate in a process of its own, over HTTP. A hundred callers bring the same token (or the same
signed message) at once; then the gate is killed in the middle of such a race, starts again with its
clock an hour ahead or back, and meets the same hundred again. An answer that was read counts; one
that was cut off does not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
import uvloop

from gate.settings import Settings
from tests.hooks.ground import WEBHOOK_SECRET, webhook_headers
from tests.resources.crowd import HOST, Caller, Refused
from tests.resources.process import SECRET, gate, good, settings, world

RACE = 100
STEPS = (0.0, 3600.0, -3600.0, 0.0)
"""Seconds that the wall clock of each life is off."""


def config(directory: Path) -> Settings:
    return settings(
        store={"url": f"sqlite:{directory / 'gate.db'}"},
        hook=[{"platform": "generic", "site": "shop", "secrets": [WEBHOOK_SECRET]}],
    )


async def spend(port: int, token: str) -> str:
    """What siteverify says of a token: success, an error code, or that there was no answer."""
    caller = Caller(port, SECRET)
    try:
        said = await caller.post("/v1/siteverify", {"secret": SECRET, "response": token})
        return "success" if said["success"] else str(said["error-codes"][0])
    except (OSError, Refused):
        return "no answer"
    finally:
        caller.close()


async def race(port: int, token: str, pid: int | None = None, after: float = 0.0) -> list[str]:
    """A hundred at once; `pid` is killed so many seconds into it."""
    tasks = [asyncio.create_task(spend(port, token)) for _ in range(RACE)]
    if pid is not None:
        await asyncio.sleep(after)
        os.kill(pid, signal.SIGKILL)
    return await asyncio.gather(*tasks)


async def _lives(directory: Path, lives: int, chance: Random) -> dict[str, list[str]]:
    """Every token's answers over lives that end in a kill in the middle of a race."""
    told: dict[str, list[str]] = {}
    async with world(200) as outside:
        for life in range(lives):
            ahead = STEPS[life % len(STEPS)]
            with gate(outside.outside, config(directory), ahead=ahead) as running:
                for token in tuple(told)[-6:]:
                    told[token] += await race(running.port, token)
                caller, fresh = Caller(running.port, SECRET), []
                for number in range(3):
                    answer = await caller.ask(good(3 * life + number))
                    assert answer["reason"] == "accepted_email", answer
                    fresh.append(answer["token"])
                caller.close()
                told[fresh[0]] = await race(running.port, fresh[0])
                assert told[fresh[0]].count("success") == 1, told[fresh[0]]
                told[fresh[1]] = await race(
                    running.port, fresh[1], running.pid, chance.uniform(0.0, 0.15)
                )
                told[fresh[2]] = []  # spent in the next life for the first time
    return told


def once(directory: Path, lives: int, seed: int = 1) -> None:
    told = uvloop.run(_lives(directory, lives, Random(seed)))
    answers = [answer for said in told.values() for answer in said]
    twice = [said.count("success") for said in told.values() if said.count("success") > 1]
    print(
        f"{len(told)} tokens in {lives} lives, brought {len(answers)} times: "
        f"{answers.count('success')} accepted, {len(twice)} of them twice, "
        f"{answers.count('no answer')} cut off"
    )
    assert not twice
    assert answers.count("success") >= lives
    assert set(answers) <= {
        "success",
        "timeout-or-duplicate",
        "no answer",
        "invalid-input-response",
    }


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_token_is_accepted_once_whatever_happens_to_the_gate(tmp_path: Path) -> None:
    once(tmp_path, 4)


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_a_token_is_accepted_once_in_forty_lives(tmp_path: Path) -> None:
    once(tmp_path, 40, seed=int(time.time()))


# -- inbound ids -----------------------------------------------------------------------------------


async def deliver(port: int, body: bytes, headers: dict[str, str]) -> bytes:
    """What a platform is answered; empty if it was cut off."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        head = f"POST /v1/hooks/generic HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        said = await reader.read()
        writer.transport.abort()
    except OSError:
        return b""
    return said.partition(b"\r\n\r\n")[2] if said.startswith(b"HTTP/1.1 200") else b""


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_message_is_decided_once_over_a_race_a_kill_and_a_step_of_the_clock(
    tmp_path: Path,
) -> None:
    """The same id is given the first answer again, although the mailbox is gone by then."""
    body = b'{"type":"user.creating","data":{"email":"u1@%s"}}'

    async def main() -> tuple[set[bytes], set[bytes], list[int]]:
        async with world(50) as outside:
            address = good(0, "u1")
            message = body.replace(b"u1@%s", address.encode())
            headers = webhook_headers(message, message="msg_once", at=time.time())
            said: list[set[bytes]] = []
            asked = []
            for ahead in (0.0, 120.0):
                with gate(outside.outside, config(tmp_path), ahead=ahead) as running:
                    each = [deliver(running.port, message, headers) for _ in range(RACE)]
                    said.append(set(await asyncio.gather(*each)))
                    asked.append(outside.host.accepted)
                    os.kill(running.pid, signal.SIGKILL)
            return said[0], said[1], asked

    first, second, asked = uvloop.run(main())
    assert len(first) == 1 and b'"allow"' in next(iter(first)), first
    assert second == first
    assert asked[0] == asked[1] == 1, "nobody is asked about it again"
