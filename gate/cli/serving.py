"""`gate serve` and `gate demo`: the server as a command."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shlex
import sys

import uvloop

from gate import server
from gate.api.logs import to_stderr
from gate.cli.printing import new_keys
from gate.settings.read import load, parse

DEMO_HOST = "127.0.0.1"


def serve(config: str | None) -> int:
    """Serve what the settings say until SIGTERM or SIGINT."""
    server.serve(load(config, os.environ), lambda: load(config, os.environ))
    return 0


def demo(port: int) -> int:
    """Serve a site of its own with the sandbox on, on loopback, and say how to try it.

    Nothing is kept: the store is in memory and the keys are new each time.
    """
    site_key, secret = new_keys()
    settings = parse(
        {
            "server": {"host": DEMO_HOST, "port": port, "admin_port": 0},
            "store": {"url": "memory:"},
            "sandbox": {"enabled": True},
            "site": [
                {
                    "name": "demo",
                    "site_key": site_key,
                    "secret_hash": hashlib.sha256(secret.encode("ascii")).hexdigest(),
                }
            ],
        },
        origin="gate demo",
    )

    def announce(bound: server.Bound) -> None:
        sys.stdout.write(_welcome(bound.port, site_key, secret))
        sys.stdout.flush()

    to_stderr()
    # The welcome says it better.
    logging.getLogger(server.__name__).setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.run(settings, started=announce))
    return 0


def _welcome(port: int, site_key: str, secret: str) -> str:
    url = f"http://{DEMO_HOST}:{port}"
    header = shlex.quote(f"Authorization: Bearer {secret}")
    return f"""\

The gate is running, with a small mail world under .test behind it. Ctrl-C ends it.

  page        {url}/
  site key    {site_key}
  secret key  {secret}

  curl {url}/v1/check -H {header} -d email=nobody@inbox.test

"""
