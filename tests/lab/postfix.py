"""Postfix with one listener for each configuration of the world, and what stands behind it.

One Postfix serves all: `LISTENERS` says of which class the addresses of a listener's domains are,
and what its smtpd or postscreen has set otherwise than main.cf. Behind it postgrey keeps the
greylist, and Dovecot's quota-status says whose mailbox is full.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import trustme

from tests.lab.servers import PACKAGES, Ground, Network
from tests.lab.world import AGAIN, DOMAINS, Domain

GREYLIST: Final = (8, 1, 10_023)
QUOTA: Final = (8, 1, 12_340)
"""Last two numbers of the address, and the port."""

BASE: Final = "permit_mynetworks reject_unauth_destination"


@dataclass(frozen=True, slots=True)
class Listener:
    """An smtpd, or with `screen` a postscreen, with settings of its own."""

    holds: Literal["local", "mailbox", "alias", "relay", "nothing"] = "mailbox"
    settings: tuple[str, ...] = ()
    screen: tuple[str, ...] = ()


LISTENERS: Final[dict[str, Listener]] = {
    "local": Listener("local"),
    "mailbox": Listener(),
    "alias": Listener("alias"),
    "relay": Listener("relay"),
    "quota": Listener(
        settings=(
            f"smtpd_recipient_restrictions={BASE} reject_unlisted_recipient "
            "check_policy_service inet:<quota>",
        )
    ),
    "access": Listener(
        settings=(
            f"smtpd_recipient_restrictions={BASE} check_recipient_access inline:{{ "
            "{ gone@access.test = 550 5.2.1 The account is disabled } "
            "{ later@access.test = 452 4.2.2 The mailbox is over quota } }",
        )
    ),
    "soft": Listener(settings=("unknown_virtual_mailbox_reject_code=450",)),
    "dnsbl": Listener(settings=("smtpd_client_restrictions=reject_rbl_client dnsbl.test",)),
    "dnsbl-early": Listener(
        settings=(
            "smtpd_client_restrictions=reject_rbl_client dnsbl.test",
            "smtpd_delay_reject=no",
        )
    ),
    "client": Listener(settings=("smtpd_client_restrictions=reject_unknown_client_hostname",)),
    "client-hard": Listener(
        settings=(
            "smtpd_client_restrictions=reject_unknown_client_hostname",
            "unknown_client_reject_code=550",
        )
    ),
    "helo": Listener(settings=("smtpd_helo_restrictions=reject_unknown_helo_hostname",)),
    "helo-early": Listener(
        settings=(
            "smtpd_helo_restrictions=reject_unknown_helo_hostname",
            "smtpd_delay_reject=no",
            "unknown_hostname_reject_code=550",
        )
    ),
    "sender": Listener(settings=("smtpd_sender_restrictions=reject_unknown_sender_domain",)),
    "sender-early": Listener(
        settings=(
            "smtpd_sender_restrictions=reject_unknown_sender_domain",
            "smtpd_delay_reject=no",
            "unknown_address_reject_code=550",
        )
    ),
    "sender-callout": Listener(
        settings=(
            "smtpd_sender_restrictions=reject_unverified_sender",
            "address_verify_poll_delay=1",
        )
    ),
    "footer": Listener(settings=("smtpd_reject_footer=Ask the postmaster.",)),
    "rate": Listener(settings=("smtpd_client_recipient_rate_limit=1",)),
    # Everything that cuts a client off who comes too often, errs too often or chatters.
    "strict": Listener(
        settings=(
            "smtpd_client_connection_rate_limit=15",
            "smtpd_client_connection_count_limit=2",
            "smtpd_soft_error_limit=10",
            "smtpd_hard_error_limit=10",
            "smtpd_junk_command_limit=30",
        )
    ),
    "one-error": Listener(settings=("smtpd_hard_error_limit=1", "smtpd_soft_error_limit=1")),
    "norelay": Listener(
        "nothing", settings=("smtpd_relay_restrictions=reject_unauth_destination",)
    ),
    "tls": Listener(settings=("smtpd_tls_security_level=encrypt",)),
    "old-tls": Listener(
        settings=("smtpd_tls_security_level=encrypt", "smtpd_tls_mandatory_protocols=<=TLSv1.1")
    ),
    "one-by-one": Listener(settings=("smtpd_discard_ehlo_keywords=pipelining",)),
    "utf8": Listener(settings=("smtputf8_enable=yes",)),
    "ascii": Listener(settings=("smtputf8_enable=no",)),
    "verify": Listener(
        "relay",
        settings=(
            f"smtpd_recipient_restrictions={BASE} reject_unverified_recipient",
            "unverified_recipient_reject_code=550",
            "address_verify_poll_delay=1",
        ),
    ),
    "verify-soft": Listener(
        "relay",
        settings=(
            f"smtpd_recipient_restrictions={BASE} reject_unverified_recipient",
            "address_verify_poll_count=1",
        ),
    ),
    "grey": Listener(
        settings=(
            f"smtpd_recipient_restrictions={BASE} reject_unlisted_recipient "
            "check_policy_service inet:<greylist>",
        )
    ),
    "grey-first": Listener(
        settings=(f"smtpd_recipient_restrictions={BASE} check_policy_service inet:<greylist>",)
    ),
    "pregreet": Listener(screen=("postscreen_greet_wait=2s", "postscreen_greet_action=enforce")),
    "deep": Listener(
        screen=(
            "postscreen_greet_wait=1s",
            "postscreen_pipelining_enable=yes",
            "postscreen_bare_newline_enable=yes",
        )
    ),
    # As Debian's README has it: six seconds, and every test there is.
    "patient": Listener(
        screen=(
            "postscreen_greet_wait=6s",
            "postscreen_greet_action=enforce",
            "postscreen_pipelining_enable=yes",
            "postscreen_pipelining_action=enforce",
            "postscreen_non_smtp_command_enable=yes",
            "postscreen_non_smtp_command_action=drop",
            "postscreen_bare_newline_enable=yes",
            "postscreen_bare_newline_action=enforce",
        )
    ),
    "screened": Listener(
        screen=(
            # It counts the block lists that have answered when the wait is over.
            "postscreen_greet_wait=3s",
            "postscreen_dnsbl_sites=dnsbl.test",
            "postscreen_dnsbl_action=enforce",
        )
    ),
}

MAIN: Final = """
compatibility_level = 3.6
queue_directory = /var/spool/postfix
data_directory = /var/lib/postfix
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
maillog_file = /var/log/postfix-mail.log
myhostname = postfix.lab.test
mydomain = lab.test
mynetworks = [::1]/128
address_verify_sender = probe@lab.test
inet_interfaces = loopback-only
inet_protocols = ipv4
smtp_bind_address = {outgoing}
smtp_tls_security_level = none
alias_maps =
alias_database =
unknown_local_recipient_reject_code = 550
local_recipient_maps = inline:{{ {local_users} }}
mydestination = {local_domains}
virtual_mailbox_domains = {mailbox_domains}
virtual_mailbox_maps = inline:{{ {mailbox_users} }}
virtual_mailbox_base = /srv/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_alias_domains = {alias_domains}
virtual_alias_maps = inline:{{ {alias_users} }}
relay_domains = {relay_domains}
relay_recipient_maps = inline:{{ {relay_users} }}
recipient_delimiter = +
transport_maps = inline:{{ {behind} }}
smtpd_tls_cert_file = /etc/postfix/server.pem
smtpd_tls_key_file = /etc/postfix/server.pem
smtpd_tls_security_level = none
smtputf8_enable = yes
"""

SERVICES: Final = """
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
"""

QUEUE: Final = (
    "active bounce corrupt defer deferred flush hold incoming private saved trace".split()
)

DOVECOT: Final = """
protocols =
ssl = no
log_path = /dev/stderr
mail_location = maildir:~/Maildir
mail_plugins = quota
auth_mechanisms = plain
first_valid_uid = 1
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=mailbox gid=mailbox home=/srv/mail/%d/%n allow_all_users=yes
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage=1M
  quota_status_success = DUNNO
  quota_status_nouser = DUNNO
  quota_status_overquota = "552 5.2.2 Mailbox is full"
}}
service quota-status {{
  executable = quota-status -p postfix
  inet_listener {{
    address = {ip}
    port = {port}
  }}
  client_limit = 1
}}
"""


def addresses(network: Network) -> dict[str, str]:
    """Where each listener is."""
    return {name: network.ip(1, number) for number, name in enumerate(LISTENERS, start=1)}


def start(ground: Ground, exim: str) -> None:
    """Start postgrey, Dovecot and Postfix; `exim`: who holds the mailboxes of verify.test."""
    _start_postgrey(ground)
    _start_dovecot(ground)
    for name in QUEUE:
        ground.folder(f"var/spool/postfix/{name}", "postfix", mode=0o700)
    ground.folder("var/spool/postfix/public", "postfix", "postdrop", mode=0o710)
    ground.folder("var/spool/postfix/maildrop", "postfix", "postdrop", mode=0o730)
    ground.folder("var/spool/postfix/pid")
    ground.folder("var/lib/postfix", "postfix")
    ground.write("etc/postfix/main.cf", main_cf(ground.network, exim))
    ground.write("etc/postfix/master.cf", master_cf(ground.network))
    _write_certificate(ground.root / "etc/postfix/server.pem")
    ground.start("postfix", ["/usr/lib/postfix/sbin/master", "-c", "/etc/postfix"])


def main_cf(network: Network, exim: str) -> str:
    """What all listeners share: which domains there are, of which class, with which users."""
    tables = {}
    for kind in ("local", "mailbox", "alias", "relay"):
        held = [domain for domain in DOMAINS if _kind(domain) == kind]
        tables[f"{kind}_domains"] = " ".join(domain.full for domain in held)
        tables[f"{kind}_users"] = " ".join(
            f"{{ {user}@{domain.full} = {_target(user)} }}"
            for domain in held
            for user in domain.users
        )
    behind = " ".join(
        f"{{ {domain.full} = smtp:[{exim}]:25 }}" for domain in DOMAINS if domain.behind == "exim"
    )
    return MAIN.format(outgoing=network.ip(8, 1), behind=behind, **tables)


def master_cf(network: Network) -> str:
    """One line, with its settings, for each listener, and the services behind."""
    return "\n".join([SERVICES.strip(), *_listener_lines(network)]) + "\n"


def _listener_lines(network: Network) -> Iterator[str]:
    policies = {
        "<quota>": f"{network.ip(*QUOTA[:2])}:{QUOTA[2]}",
        "<greylist>": f"{network.ip(*GREYLIST[:2])}:{GREYLIST[2]}",
    }
    places = addresses(network)
    for name, listener in LISTENERS.items():
        settings = [f"syslog_name=postfix/{name}", *listener.settings]
        if listener.screen:
            yield f"{places[name]}:25 inet n - n - 1 postscreen"
            yield from _options(
                f"syslog_name=postscreen/{name}",
                f"smtpd_service_name={name}",
                f"postscreen_cache_map=btree:/var/lib/postfix/{name}",
                *listener.screen,
            )
            yield f"{name} pass - - n - - smtpd"
        else:
            yield f"{places[name]}:25 inet n - n - - smtpd"
        for word, place in policies.items():
            settings = [setting.replace(word, place) for setting in settings]
        yield from _options(*settings)


def _options(*settings: str) -> Iterator[str]:
    for setting in settings:
        name, _, value = setting.partition("=")
        yield f"  -o {{ {name} = {value} }}"


def _kind(domain: Domain) -> str:
    listener = LISTENERS.get(domain.server) or LISTENERS.get(domain.behind)
    return listener.holds if listener and domain.users else "nothing"


def _target(user: str) -> str:
    """Any value says that the address exists; for an alias it is also where it leads."""
    return "alice@mailbox.test"


def _start_postgrey(ground: Ground) -> None:
    """Perl is this machine's own, so postgrey alone runs outside the tree."""
    libraries = [
        f"-I{folder}"
        for pattern in ("share/perl5", "lib/*/perl5/*", "share/perl/*", "lib/*/perl/*")
        for folder in (PACKAGES / "usr").glob(pattern)
    ]
    words = ground.folder("var/lib/postgrey")
    nobody = ground.write("etc/postgrey/nobody", "")
    third, fourth, port = GREYLIST
    command = [
        *("perl", "-T", *libraries, str(ground.root / "usr/sbin/postgrey")),
        f"--inet={ground.network.ip(third, fourth)}:{port}",
        f"--delay={round(AGAIN) - 1}",
        f"--dbdir={words}",
        f"--pidfile={words}/pid",
        f"--whitelist-clients={nobody}",
        f"--whitelist-recipients={nobody}",
        "--lookup-by-host",
        "--user=root",
        "--group=root",
    ]
    ground.start("postgrey", command, chroot=False)
    ground.wait_for("postgrey", (ground.network.ip(third, fourth), port))


def _start_dovecot(ground: Ground) -> None:
    third, fourth, port = QUOTA
    ip = ground.network.ip(third, fourth)
    ground.write("etc/dovecot/dovecot.conf", DOVECOT.format(ip=ip, port=port))
    ground.folder("run/dovecot")
    ground.folder("srv/mail", "mailbox", "mailbox")
    box = "srv/mail/quota.test"
    for folder in (box, box := f"{box}/full", box := f"{box}/Maildir"):
        ground.folder(folder, "mailbox", "mailbox")
    # Two lines of a Maildir++ quota file: the limit, and what lies there by the file's own count.
    ground.write(f"{box}/maildirsize", "1048576S\n2000000 1\n", "mailbox")
    ground.start("dovecot", ["dovecot", "-F"])
    ground.wait_for("dovecot", (ip, port))


def _write_certificate(path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert(
        "postfix.lab.test", not_after=datetime.datetime.now(datetime.UTC) + datetime.timedelta(1)
    )
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
