"""`gate webhooks list|replay`: messages that nobody took, in a running gate or in its file."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence

import msgspec

from gate.cli.running import Ask, with_store_or_gate
from gate.settings import Settings
from gate.settings.read import load
from gate.store import Store
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
    async def with_store(store: Store) -> list[DeadLetter]:
        return await letters(store, settings.site, LETTERS_MOST)

    async def with_gate(ask: Ask) -> list[DeadLetter]:
        answer = await ask("GET", "/webhooks")
        return msgspec.json.decode(answer, type=dict[str, list[DeadLetter]])["letters"]

    return await with_store_or_gate(settings, with_store, with_gate)


async def _replay(settings: Settings, ids: Sequence[str]) -> int:
    async def with_store(store: Store) -> int:
        return len(await replay(store, ids, time.time()))

    async def with_gate(ask: Ask) -> int:
        answer = await ask("POST", "/webhooks/replay", {"ids": list(ids)})
        return msgspec.json.decode(answer, type=dict[str, int])["replayed"]

    return await with_store_or_gate(settings, with_store, with_gate)
