"""`gate webhooks list|replay`: messages that nobody took, in a running gate or in its file.

The file belongs to one process at a time. If it cannot be opened, the gate that has it is asked,
on its admin listener; if there is none, the file's own trouble is what is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence

import httpx
import msgspec

from gate.budget import CLI_ADMIN
from gate.reason import GateError
from gate.settings import Settings, load
from gate.store import open_store
from gate.webhooks.outbox import DeadLetter, letters, replay

LETTERS_MOST = 1000


def run(options: argparse.Namespace) -> int:
    """List dead letters, or make them messages again."""
    settings = load(options.config, os.environ)
    if options.action == "list":
        found = asyncio.run(_list(settings))
        sys.stdout.write(describe(found, time.time()))
        return 0
    count = asyncio.run(_replay(settings, options.id))
    sys.stdout.write(f"{count} to be delivered\n")
    return 0 if count or not options.id else 1


def describe(found: Sequence[DeadLetter], now: float) -> str:
    """Letters as lines of text."""
    if not found:
        return "no dead letters\n"
    lines = [
        f"{letter.id}  {letter.site} {letter.host}  {_age(now - letter.made)} old, "
        f"{letter.attempts} attempts: {letter.why}" + (f" ({letter.told})" if letter.told else "")
        for letter in found
    ]
    return "\n".join(lines) + "\n"


def _age(seconds: float) -> str:
    hours = max(0.0, seconds) / 3600
    return f"{hours:.0f} h" if hours >= 1 else f"{hours * 60:.0f} min"


async def _list(settings: Settings) -> list[DeadLetter]:
    try:
        store = await open_store(_file(settings), wall=time.time, capacity=1)
    except GateError as error:
        answer = await _ask(settings, "GET", "/webhooks", error)
        return msgspec.json.decode(answer, type=dict[str, list[DeadLetter]])["letters"]
    try:
        return await letters(store, settings.site, LETTERS_MOST)
    finally:
        await store.close()


async def _replay(settings: Settings, ids: Sequence[str]) -> int:
    try:
        store = await open_store(_file(settings), wall=time.time, capacity=1)
    except GateError as error:
        answer = await _ask(settings, "POST", "/webhooks/replay", error, {"ids": list(ids)})
        return msgspec.json.decode(answer, type=dict[str, int])["replayed"]
    try:
        return len(await replay(store, ids, time.time()))
    finally:
        await store.close()


def _file(settings: Settings) -> str:
    if settings.store.url == "memory:":
        # Whoever has it is asked: it is in nobody else's reach.
        return ""
    return settings.store.url


async def _ask(
    settings: Settings, method: str, path: str, error: GateError, body: object = None
) -> bytes:
    """What the running gate answers on its admin listener; else the error is raised."""
    port = settings.server.admin_port
    if not port:
        raise error
    try:
        async with httpx.AsyncClient(timeout=CLI_ADMIN, trust_env=False) as client:
            answer = await client.request(method, f"http://127.0.0.1:{port}{path}", json=body)
            answer.raise_for_status()
    except httpx.HTTPError:
        raise error from None
    return answer.content
