"""`gate check`: addresses in, one answer each out, in the order of the input."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from gate.answer import Answer
from gate.api.answer import encode, full
from gate.budget import CHECK_LEAST, CHECK_MOST, CLI_CHECK, Deadline
from gate.cli.lines import stdin_lines, text
from gate.cli.printing import describe
from gate.engine import Engine, open_engine
from gate.reason import GateError, Result
from gate.settings import Settings
from gate.settings.read import load
from gate.trace import Trace

JOBS_MOST: Final = 256
AHEAD: Final = 1024
"""Answers that may be ready before the first of them: a bound on memory when one is slow."""
REFUSED: Final = 1
"""The exit status when an address is undeliverable."""


def run(options: argparse.Namespace) -> int:
    """Check `options.address` and print. 1 if any is undeliverable, else 0."""
    if not 1 <= options.jobs <= JOBS_MOST:
        raise GateError(f"--jobs: {options.jobs} is out of range; write 1 to {JOBS_MOST}")
    seconds = CLI_CHECK if options.timeout_ms is None else options.timeout_ms / 1000
    if not CHECK_LEAST <= seconds <= CHECK_MOST:
        least, most = round(CHECK_LEAST * 1000), round(CHECK_MOST * 1000)
        raise GateError(
            f"--timeout-ms: {options.timeout_ms} is out of range; write {least} to {most}"
        )
    settings = load(options.config, os.environ)
    logging.basicConfig(format="gate: %(message)s", level=logging.WARNING)
    return asyncio.run(_check(options, settings, seconds))


async def _check(options: argparse.Namespace, settings: Settings, seconds: float) -> int:
    refused = False
    # Facts are kept in memory: a server that runs here has the store's file to itself.
    async with open_engine(settings, store_url="memory:") as engine:
        answers = _in_order(_addresses(options.address), engine, options, seconds)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                refused |= answer.verdict.result is Result.UNDELIVERABLE
                _show(answer, options)
    return REFUSED if refused else 0


def _show(answer: Answer, options: argparse.Namespace) -> None:
    """Print an answer at once: whoever reads the other end of a pipe is waiting for it."""
    if options.json:
        sys.stdout.flush()
        sys.stdout.buffer.write(encode(full(answer, explain=options.explain)) + b"\n")
        sys.stdout.buffer.flush()
        return
    sys.stdout.write(describe(answer, explain=options.explain, colour=_colour()))
    sys.stdout.flush()


def _colour() -> bool:
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


async def _in_order(
    addresses: AsyncIterator[str], engine: Engine, options: argparse.Namespace, seconds: float
) -> AsyncGenerator[Answer, None]:
    """The answers in the order of the addresses, `--jobs` checks at a time."""
    free = asyncio.Semaphore(options.jobs)
    ahead = asyncio.Semaphore(AHEAD)
    due: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()
    started: set[asyncio.Task[Answer]] = set()

    async def one(email: str) -> Answer:
        try:
            return await engine.checker.check(
                email,
                site=engine.sites[0],
                deadline=Deadline.after(seconds, engine.clock),
                trace=Trace(engine.clock, on=options.explain),
            )
        finally:
            free.release()

    async def start() -> None:
        try:
            async for email in addresses:
                await ahead.acquire()
                await free.acquire()
                task = asyncio.create_task(one(email))
                started.add(task)
                task.add_done_callback(started.discard)
                due.put_nowait(task)
        finally:
            due.put_nowait(None)

    starting = asyncio.create_task(start())
    try:
        while task := await due.get():
            yield await task
            ahead.release()
        await starting
    finally:
        for left in (starting, *started):
            left.cancel()
        await asyncio.gather(starting, *started, return_exceptions=True)


async def _addresses(arguments: Sequence[str]) -> AsyncIterator[str]:
    """The arguments, with the lines of standard input in place of `-`."""
    for argument in arguments:
        if argument == "-":
            async for line in stdin_lines():
                yield line
        elif argument.strip():
            yield text(os.fsencode(argument)).strip()
