"""Asking the gate that runs on this machine, through its admin listener.

The store's file belongs to one process at a time. If a command cannot open it, the gate that has it
is asked; if there is none, the file's own trouble is what is reported.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

from gate.budget import CLI_ADMIN
from gate.reason import GateError
from gate.settings import Settings
from gate.store import Store, open_store

Ask = Callable[..., Awaitable[bytes]]
T = TypeVar("T")


async def with_store_or_gate(
    settings: Settings,
    with_store: Callable[[Store], Awaitable[T]],
    with_gate: Callable[[Ask], Awaitable[T]],
) -> T:
    """What `with_store` makes of the open store; where it is not to be had, `with_gate`.

    The latter is handed a function of method, path and body (to be JSON) that gives the gate's
    answer. Raises `GateError`.
    """
    # A store in memory is in nobody else's reach: whoever has it is asked.
    url = "" if settings.store.url == "memory:" else settings.store.url
    try:
        store = await open_store(url, wall=time.time, capacity=1)
    except GateError as error:
        trouble = error

        async def ask(method: str, path: str, body: object = None) -> bytes:
            return await _ask(settings, method, path, body, trouble)

        return await with_gate(ask)
    try:
        return await with_store(store)
    finally:
        await store.close()


async def _ask(
    settings: Settings, method: str, path: str, body: object, trouble: GateError
) -> bytes:
    port = settings.server.admin_port
    if not port:
        raise trouble
    try:
        async with httpx.AsyncClient(timeout=CLI_ADMIN, trust_env=False) as client:
            answer = await client.request(method, f"http://127.0.0.1:{port}{path}", json=body)
            answer.raise_for_status()
    except httpx.HTTPError:
        raise trouble from None
    return answer.content
