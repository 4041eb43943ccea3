"""Exim, the mail server that is not Postfix: no enhanced codes, other words, other manners.

One daemon listens on an address for each configuration of the world; what the access lists do
depends on the domain, or on the address by which the client came in.
"""

from __future__ import annotations

from typing import Final

from tests.lab.servers import Ground, Network
from tests.lab.world import DOMAINS

LISTENERS: Final = (
    "exim",
    "exim-plain",
    "exim-all",
    "exim-callout",
    "exim-sender",
    "exim-deny",
    "exim-dnsbl",
    "exim-helo",
    "exim-rate",
    "exim-sync",
    "exim-busy",
    "exim-drop",
)

CONFIGURATION: Final = """
primary_hostname = exim.lab.test
daemon_smtp_ports = 25
# Several rounds of questions come at once; by default the twenty-first connection is refused.
smtp_accept_max = 200
smtp_connect_backlog = 200
local_interfaces = {interfaces}
log_file_path = /var/log/exim-%slog
spool_directory = /var/spool/exim4
pid_file_path = ""
keep_environment =
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
disable_ipv6 = true
timezone = UTC
pipelining_advertise_hosts = ${{if eq{{$received_ip_address}}{{{sync}}}{{:}}{{*}}}}
acl_smtp_connect = connect
acl_smtp_helo = helo
acl_smtp_rcpt = recipient
domainlist served = {domains}

begin acl

connect:
  # With smtp_enforce_sync, Exim's default, a client that does not wait out the delay is put out.
  accept condition = ${{if eq{{$received_ip_address}}{{{sync}}}}}
         delay = 1s
  defer condition = ${{if eq{{$received_ip_address}}{{{busy}}}}}
        message = Come back when there are fewer of you
  accept

helo:
  deny condition = ${{if eq{{$received_ip_address}}{{{helo}}}}}
       condition = ${{if eq{{${{lookup dnsdb{{defer_never,a=$sender_helo_name}}}}}}{{}}}}
       message = HELO name does not resolve
  accept

recipient:
  accept domains = exim-all.test
  deny domains = !+served
       message = relay not permitted
  deny domains = exim-deny.test
  deny domains = exim-dnsbl.test
       dnslists = dnsbl.test
       message = $sender_host_address is in a black list at $dnslist_domain
  defer domains = exim-rate.test
       ratelimit = 0 / 1h / strict
       message = Too many messages, your rate is $sender_rate per $sender_rate_period
  drop domains = exim-drop.test
       ! verify = recipient
  require verify = sender/callout=5s
  require verify = recipient/callout=5s,no_cache
  accept

begin routers

remote:
  driver = manualroute
  domains = exim-callout.test
  route_list = * {behind}
  self = send
  transport = smtp

sender:
  driver = dnslookup
  domains = ! +served
  ignore_target_hosts = 
  self = pass
  transport = smtp
  no_more

disabled:
  driver = redirect
  domains = exim.test
  local_parts = gone
  allow_fail
  data = :fail: This mailbox has been disabled

busy:
  driver = redirect
  domains = exim.test
  local_parts = busy
  allow_defer
  data = :defer: The mail store is offline

users:
  driver = accept
  local_part_suffix = +*
  local_part_suffix_optional
  condition = ${{lookup{{$local_part@$domain}}lsearch{{/etc/exim4/users}}{{yes}}{{no}}}}
  cannot_route_message = ${{if eq{{$domain}}{{exim-plain.test}}\
                              {{Unrouteable address}}{{Unknown user}}}}
  transport = none

begin transports

smtp:
  driver = smtp

none:
  driver = appendfile
  file = /dev/null
  user = mailbox
"""


def addresses(network: Network) -> dict[str, str]:
    """Where each listener is."""
    return {name: network.ip(2, number) for number, name in enumerate(LISTENERS, start=1)}


def start(ground: Ground, behind: str) -> None:
    """Start Exim; `behind` is the server that exim-callout.test is really delivered to."""
    places = addresses(ground.network)
    held = [domain for domain in DOMAINS if {domain.server, domain.behind} & set(LISTENERS)]
    users = [f"{user}@{domain.full}: yes" for domain in held for user in domain.users]
    ground.write("etc/exim4/users", "\n".join(users) + "\n")
    ground.write(
        "etc/exim4/lab.conf",
        CONFIGURATION.format(
            interfaces=" : ".join(places.values()),
            domains=" : ".join(domain.full for domain in held if domain.users),
            sync=places["exim-sync"],
            helo=places["exim-helo"],
            busy=places["exim-busy"],
            behind=behind,
        ),
    )
    for name in ("", "/input", "/msglog", "/db"):
        ground.folder(f"var/spool/exim4{name}", "Debian-exim", "Debian-exim", mode=0o750)
    ground.start("exim", ["exim4", "-bdf", "-C", "/etc/exim4/lab.conf"])
