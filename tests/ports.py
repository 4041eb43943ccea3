"""Ports on loopback for what cannot be told to choose its own, and for what is to be refused."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that nobody has at the moment: bound and let go."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


def closed_url() -> str:
    """Where a connection is refused."""
    return f"http://127.0.0.1:{free_port()}"
