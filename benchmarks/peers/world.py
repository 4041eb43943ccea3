"""The mail world that all verifiers are asked about: the lab's real Postfix, NSD and Unbound.

Every verifier runs in a mount namespace of its own whose /etc/resolv.conf names the lab's resolver,
and dials port 25 of addresses in 127.0.0.0/8. To make a server's replies later by so many
milliseconds, each listener gets a second address, from which a relay hands everything on and holds
back what the server says.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab import exim, nameservers, opensmtpd, postfix
from tests.lab.servers import Ground, Network

LATER, MUTE = 77, (76, 1)
"""Third number of the late addresses; where somebody accepts connections and never speaks."""
TARPIT = "ascii"
"""The listener of whose domain all traffic leads to the mute one: ascii.example.com."""
ZONE = "example.com"
_LAB_ZONE = re.compile(r"\btest\b(?!\.zone)")


NO_FLOW_CONTROL = "in_flow_delay = 0\n"
"""Postfix makes a client wait a second for each transaction once a hundred have led to no mail."""


class Renamed(Ground):
    """A ground whose every file and folder is of ZONE instead of the lab's own."""

    def write(self, path: str, text: str, owner: str = "root") -> Path:
        text += NO_FLOW_CONTROL if path.endswith("/main.cf") else ""
        return super().write(_LAB_ZONE.sub(ZONE, path), _LAB_ZONE.sub(ZONE, text), owner)

    def folder(
        self, path: str, owner: str = "root", group: str = "root", mode: int = 0o755
    ) -> Path:
        return super().folder(_LAB_ZONE.sub(ZONE, path), owner, group, mode)


@dataclass(frozen=True, slots=True)
class World:
    """The running servers, as one sees them whose questions go to `resolver`."""

    ground: Ground
    resolver: str

    def inside(self, command: list[str]) -> list[str]:
        """A command in a world where names are looked up at the lab's resolver."""
        file = self.ground.root / "etc/resolv.conf"
        shell = f'mount --bind "{file}" /etc/resolv.conf && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", shell, "sh", *command]


@contextmanager
def running(later_ms: float) -> Iterator[World]:
    """Start the servers, whose every reply comes so much later. Raises `LabError`."""
    network = Network()
    relay = None
    try:
        ground = Renamed.lay(network)
        try:
            places = {**postfix.addresses(network), **exim.addresses(network)}
            places |= opensmtpd.addresses(network)
            seen, pairs = _late(network, places) if later_ms else (dict(places), [])
            seen[TARPIT] = network.ip(*MUTE)
            nameservers.start(ground, seen, ZONE)
            postfix.start(ground, exim=places["exim"])
            exim.start(ground, behind=places["relay"])
            opensmtpd.start(ground)
            for name in ("postfix", "exim", "opensmtpd"):
                ground.wait_for(name, (places["mailbox" if name == "postfix" else name], 25))
            words = [str(later_ms), seen[TARPIT], *(f"{one}={other}" for one, other in pairs)]
            relay = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.world", *words], stdout=subprocess.PIPE
            )
            assert relay.stdout
            relay.stdout.readline()
            yield World(ground, network.ip(*nameservers.RESOLVER))
        finally:
            if relay is not None:
                relay.send_signal(signal.SIGTERM)
                relay.communicate()
            ground.stop()
    finally:
        network.release()


def _late(
    network: Network, places: Mapping[str, str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The address that everybody sees of each listener, and what it leads to."""
    seen = {name: network.ip(LATER, number) for number, name in enumerate(places, start=1)}
    return seen, [(seen[name], places[name]) for name in places]


# -- the relay, a process of its own ---------------------------------------------------------------


async def _hand_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    """Copy until the end, everything `seconds` after it came; the order stays."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await reader.read(65_536):
            if seconds:
                loop.call_later(seconds, writer.write, data)
            else:
                writer.write(data)
        await asyncio.sleep(seconds)
        writer.write_eof()


async def _relay(target: str, seconds: float, address: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            behind, ahead = await asyncio.open_connection(target, 25)
            await asyncio.gather(_hand_on(reader, ahead, 0), _hand_on(behind, writer, seconds))
            ahead.close()
        writer.close()

    await asyncio.start_server(talk, address, 25)


async def _mute(address: str) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()
        writer.close()

    await asyncio.start_server(listen, address, 25)


async def _serve(later_ms: float, mute: str, pairs: list[str]) -> None:
    await _mute(mute)
    for pair in pairs:
        address, _, target = pair.partition("=")
        await _relay(target, later_ms / 1000, address)
    print("ready", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
