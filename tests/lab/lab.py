"""The running lab: starts all its servers in order, and knows where each of them is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.lab import exim, nameservers, opensmtpd, postfix
from tests.lab.servers import Ground, Network
from tests.lab.world import CLIENTS, Domain

SETTINGS: Final = """
[dns]
servers = ["{resolver}:53"]
[egress]
allow = ["127.0.0.0/8"]
address = [{{ ip = "{ip}", helo = "{helo}" }}]
[probe]
helo = "{helo}"
mail_from = "{mail_from}"
[store]
url = "memory:"
[server]
secret = "one for all runs, so that the control stays the same"
[limits]
network_dialogues = 64
network_recipients_per_minute = 10000
destination_recipients_per_minute = 10000
domain_recipients_per_minute = 10000
"""
"""All the servers are in one network, and are asked more in a minute than one's neighbours are."""


@dataclass(frozen=True, slots=True)
class Lab:
    """Where the servers are and what a client of the world has to set to meet them."""

    ground: Ground
    addresses: Mapping[str, str]

    @property
    def resolver(self) -> str:
        """The recursive resolver's address; its port is 53."""
        return self.ground.network.ip(*nameservers.RESOLVER)

    def server_ip(self, domain: Domain) -> str:
        """The address of the listener that serves the domain."""
        return self.addresses[domain.server]

    def client_ip(self, client: str) -> str:
        """The address that a client of the world comes from."""
        return nameservers.client_ip(self.ground.network, CLIENTS[client])

    def settings(self, client: str) -> str:
        """The gate's settings file for a client of the world."""
        words = CLIENTS[client]
        return SETTINGS.format(
            resolver=self.resolver,
            ip=self.client_ip(client),
            helo=words.helo,
            mail_from=words.mail_from,
        )

    def log(self, name: str) -> str:
        """What a server has written so far."""
        return (self.ground.root / "var/log" / name).read_text("utf-8", "replace")


@contextmanager
def running() -> Iterator[Lab]:
    """Start everything; end it and leave nothing behind. Raises `LabError`."""
    network = Network()
    try:
        ground = Ground.lay(network)
        try:
            yield _start(ground)
        finally:
            ground.stop()
    finally:
        network.release()


def _start(ground: Ground) -> Lab:
    network = ground.network
    places = {
        **postfix.addresses(network),
        **exim.addresses(network),
        **opensmtpd.addresses(network),
    }
    nameservers.start(ground, places)
    postfix.start(ground, exim=places["exim"])
    exim.start(ground, behind=places["relay"])
    opensmtpd.start(ground)
    for name in ("postfix", "exim", "opensmtpd"):
        ground.wait_for(name, (places["mailbox" if name == "postfix" else name], 25))
    return Lab(ground, places)
