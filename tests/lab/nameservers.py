"""NSD with the zones of the lab, and Unbound as the recursive resolver that everybody asks.

Unbound knows two zones, `test` and `127.in-addr.arpa`, both at NSD; it answers NXDOMAIN for every
other name and may not send a packet anywhere but to loopback.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import dns.exception
import dns.message
import dns.query
import dns.rcode

from tests.lab.servers import READY, Ground, LabError, Network
from tests.lab.world import CLIENTS, DOMAINS, Client, Who

AUTHORITY: Final = (53, 1)
RESOLVER: Final = (53, 53)
SILENT: Final = (53, 99)
DEAD: Final = (250, 1)
CLIENT: Final = 9
"""Last but one or last two numbers of addresses, inside the session's network."""

SOA: Final = "@ SOA ns.lab.test. hostmaster.lab.test. 1 3600 600 86400 60\n@ NS ns.lab.test.\n"

NSD: Final = """
server:
  ip-address: {authority}
  do-ip6: no
  server-count: 1
  username: ""
  pidfile: ""
  zonesdir: "/etc/nsd"
  zonelistfile: "/run/nsd.zones"
  xfrdfile: "/run/nsd.xfrd"
  database: ""
  verbosity: 1
remote-control:
  control-enable: no
zone:
  name: "test"
  zonefile: "test.zone"
zone:
  # No such file: the server answers SERVFAIL, as for a zone that has expired.
  name: "lame.test"
  zonefile: "expired.zone"
zone:
  name: "127.in-addr.arpa"
  zonefile: "reverse.zone"
"""

UNBOUND: Final = """
server:
  interface: {resolver}
  outgoing-interface: {resolver}
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  do-ip6: no
  num-threads: 1
  chroot: ""
  username: ""
  directory: "/etc/unbound"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  max-udp-size: 1232
  minimal-responses: yes
  local-zone: "." always_nxdomain
  local-zone: "test." transparent
  local-zone: "127.in-addr.arpa." transparent
  infra-host-ttl: 5
remote-control:
  control-enable: no
stub-zone:
  name: "test"
  stub-addr: {authority}
stub-zone:
  name: "127.in-addr.arpa"
  stub-addr: {authority}
"""


def start(ground: Ground, addresses: Mapping[str, str], zone: str = "test") -> None:
    """Start both servers; `addresses` says where each listener of the world is, `zone` what the
    ground makes of the lab's own.
    """
    network = ground.network
    authority, resolver = network.ip(*AUTHORITY), network.ip(*RESOLVER)
    ground.write("etc/nsd/nsd.conf", NSD.format(authority=authority))
    ground.write("etc/nsd/test.zone", forward_zone(network, addresses))
    ground.write("etc/nsd/reverse.zone", reverse_zone(network, addresses))
    ground.write("etc/unbound/unbound.conf", UNBOUND.format(authority=authority, resolver=resolver))
    ground.write("etc/resolv.conf", f"nameserver {resolver}\noptions timeout:1 attempts:2\n")
    ground.start("nsd", ["nsd", "-d", "-c", "/etc/nsd/nsd.conf"])
    ground.start("unbound", ["unbound", "-d", "-c", "/etc/unbound/unbound.conf"])
    _wait_for_answers(resolver, f"lab.{zone}.", ground)


def client_ip(network: Network, client: Client) -> str:
    """The address that a client of the world connects from."""
    return network.ip(CLIENT, client.number)


def forward_zone(network: Network, addresses: Mapping[str, str]) -> str:
    """The zone `test`: every domain of the world, the clients' names, the lab's own block list."""
    special = {
        "dead": network.ip(*DEAD),
        "silent": network.ip(*SILENT),
        "authority": network.ip(*AUTHORITY),
    }
    lines = [
        "$ORIGIN test.",
        "$TTL 60",
        SOA,
        f"ns.lab A {network.ip(*AUTHORITY)}",
        f"dead.lab A {network.ip(*DEAD)}",
    ]
    for domain in DOMAINS:
        server = addresses.get(domain.server, "")
        lines += [f"$ORIGIN {domain.full}.", domain.records.format(server=server, **special)]
    lines.append("$ORIGIN test.")
    for client in CLIENTS.values():
        ip = client_ip(network, client)
        listed = ".".join(reversed(ip.split(".")))
        lines.append(f'{listed}.dnsbl A 127.0.0.2\n{listed}.dnsbl TXT "Listed for the test"')
        if client.who is Who.GOOD:
            lines.append(f"{client.helo}. A {ip}")
    return "\n".join(lines) + "\n"


def reverse_zone(network: Network, addresses: Mapping[str, str]) -> str:
    """The zone `127.in-addr.arpa`: names for the servers and the good clients only."""
    names = {addresses[domain.server]: f"mx.{domain.full}." for domain in DOMAINS if domain.server}
    for client in CLIENTS.values():
        if client.who is Who.GOOD:
            names[client_ip(network, client)] = f"{client.helo}."
    lines = ["$ORIGIN 127.in-addr.arpa.", "$TTL 60", SOA]
    for ip, name in names.items():
        lines.append(f"{'.'.join(reversed(ip.split('.')[1:]))} PTR {name}")
    return "\n".join(lines) + "\n"


def _wait_for_answers(resolver: str, name: str, ground: Ground) -> None:
    query = dns.message.make_query(name, "MX")
    limit = time.monotonic() + READY
    while time.monotonic() < limit:
        try:
            answer = dns.query.udp(query, resolver, timeout=0.2)
            if answer.rcode() == dns.rcode.NOERROR and answer.answer:
                return
        except (dns.exception.DNSException, OSError):
            pass
        time.sleep(0.05)
    raise LabError(f"the resolver does not answer\n{ground.logs()}")
