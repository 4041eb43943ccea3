"""OpenSMTPD, the third mail server: domains with virtual users, with listed ones, for everybody."""

from __future__ import annotations

from typing import Final

from tests.lab.servers import Ground, Network
from tests.lab.world import DOMAINS

LISTENER: Final = "opensmtpd"

CONFIGURATION: Final = """
listen on {ip} port 25 hostname opensmtpd.lab.test
table users file:/etc/users
table listed {{ "alice@opensmtpd-list.test" }}
action "keep" maildir "/srv/mail/%{{rcpt.domain}}" virtual <users>
match from any for domain "opensmtpd.test" action "keep"
match from any for domain "opensmtpd-all.test" action "keep"
match from any for domain "opensmtpd-list.test" rcpt-to <listed> action "keep"
"""


def addresses(network: Network) -> dict[str, str]:
    """Where the listener is."""
    return {LISTENER: network.ip(3, 1)}


def start(ground: Ground) -> None:
    """Start OpenSMTPD."""
    held = [domain for domain in DOMAINS if domain.server == LISTENER]
    users = [
        f"{'' if user == '@' else user}@{domain.full} mailbox"
        for domain in held
        for user in domain.users
    ]
    ground.write("etc/users", "\n".join(users) + "\n")
    ground.write(
        "etc/smtpd.conf",
        CONFIGURATION.format(ip=ground.network.ip(3, 1)),
    )
    ground.folder("var/spool/smtpd", mode=0o711)
    ground.folder("var/lib/opensmtpd/empty")
    ground.start(LISTENER, ["smtpd", "-d", "-f", "/etc/smtpd.conf"])
