"""Asking the gate that runs on this machine, through its admin listener, or its store's file.

The file belongs to one process at a time: where a gate holds it, the gate is asked.
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
"""Called with method, path and body (to be JSON); the gate's answer. Raises `NoGate`."""
T = TypeVar("T")


class NoGate(GateError):
    """No gate answers, or another one than was meant."""


async def with_store_or_gate(
    settings: Settings,
    with_store: Callable[[Store], Awaitable[T]],
    with_gate: Callable[[Ask], Awaitable[T]],
) -> T:
    """What `with_store` makes of the open store; where it is not to be had, `with_gate`.

    Raises `GateError`: the file's own trouble, if there is no gate either.
    """
    try:
        return await with_file(settings, with_store)
    except GateError as trouble:
        try:
            return await with_gate(asking(settings))
        except NoGate:
            raise trouble from None


async def with_file(settings: Settings, with_store: Callable[[Store], Awaitable[T]]) -> T:
    """What `with_store` makes of the open store. Raises `GateError` if it cannot be opened."""
    if settings.store.url == "memory:":
        raise GateError(
            "no gate answers on server.admin_port, and a store in memory is in nobody else's reach"
        )
    store = await open_store(settings.store.url, wall=time.time, capacity=1)
    try:
        return await with_store(store)
    finally:
        await store.close()


def asking(settings: Settings) -> Ask:
    """What asks the gate of these settings."""

    async def ask(method: str, path: str, body: object = None) -> bytes:
        port = settings.server.admin_port
        if not port:
            raise NoGate("server.admin_port is 0: a running gate cannot be asked")
        try:
            async with httpx.AsyncClient(timeout=CLI_ADMIN, trust_env=False) as client:
                answer = await client.request(method, f"http://127.0.0.1:{port}{path}", json=body)
                answer.raise_for_status()
        except httpx.HTTPError as error:
            raise NoGate(f"no gate answers on 127.0.0.1:{port}: {error}") from None
        return answer.content

    return ask
