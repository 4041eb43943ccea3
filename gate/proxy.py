"""`Proxy`: a SOCKS5 server (RFC 1928) that dials for one of our source addresses. Pure.

What it promises: neither the name nor the password for it is ever shown, whatever prints it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import unquote, urlsplit

WORD_MOST: Final = 255
"""Octets of a user name and of a password (RFC 1929, section 2)."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy listens, and as whom it is asked; without a user, as nobody."""

    ip: IPv4Address | IPv6Address
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


def parse(url: str) -> Proxy:
    """The proxy of `socks5://[user:password@]ip:port`.

    Raises `ValueError`; its message says what is wrong and holds nothing of the URL, for that may
    be the password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme != "socks5" or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("is no SOCKS5 URL")
    try:
        ip = ip_address(parts.hostname or "")
    except ValueError:
        raise ValueError("names no IP address; a name would be looked up at every dial") from None
    if not port:
        raise ValueError("names no port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(user) != bool(password):
        raise ValueError("has a user without a password, or a password without a user")
    for word in (user, password):
        if not word.isascii() or len(word) > WORD_MOST:
            raise ValueError(f"needs ASCII user and password, {WORD_MOST} characters at most")
    return Proxy(ip, port, user, password)
