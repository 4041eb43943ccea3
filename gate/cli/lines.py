"""Lines of standard input as they come, without stopping the event loop.

A thread of its own reads: the loop must turn while a person types, a file cannot be polled, and
making a terminal non-blocking would change it for the shell as well. It is a daemon, and reads the
descriptor rather than Python's buffer, so that Ctrl-C ends the program while it waits.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import Final

from gate.reason import GateError

PIECE: Final = 64 * 1024
PIECES_AHEAD: Final = 4
"""Pieces read before the first of them was used."""
LINE_MOST: Final = 16 * 1024
"""Octets of a line that are kept; no address is as long, and what is cut stays invalid."""


async def stdin_lines() -> AsyncIterator[str]:
    """The lines that are not blank, stripped, as `text` reads them."""
    async for line in _split(_pieces(_descriptor())):
        if address := text(line).removeprefix("\ufeff").strip():
            yield address


def text(octets: bytes) -> str:
    r"""`octets` as UTF-8. Others become `\xe9`, which no address holds, so it is never asked."""
    return octets.decode("utf-8", "backslashreplace")


def _descriptor() -> int:
    try:
        return sys.stdin.fileno()
    except (AttributeError, ValueError, OSError):
        raise GateError("standard input is closed; give the addresses as arguments") from None


async def _split(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    held = b""
    async for piece in pieces:
        *whole, rest = (held + piece).split(b"\n")
        for line in whole:
            yield line[:LINE_MOST]
        held = rest[:LINE_MOST]
    yield held


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(PIECES_AHEAD)

    def read() -> None:
        piece: bytes | OSError = b"-"
        try:
            while piece and isinstance(piece, bytes):
                room.acquire()
                try:
                    piece = os.read(descriptor, PIECE)
                except OSError as error:
                    piece = error
                loop.call_soon_threadsafe(arrived.put_nowait, piece)
        except RuntimeError:
            pass  # the loop has ended; nobody wants the rest

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while piece := await arrived.get():
        if isinstance(piece, OSError):
            raise GateError(f"standard input cannot be read: {piece.strerror}")
        room.release()
        yield piece
