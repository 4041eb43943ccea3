"""`RedisUrl`: where a Redis server listens, and as whom it is asked. Pure.

What it promises: neither the user nor the password is ever shown, whatever prints it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEMES: Final = ("redis:", "rediss:")
PORT: Final = 6379
WRITE_URL: Final = 'write "sqlite:gate.db", "redis://user:password@127.0.0.1:6379/0" or "memory:"'
"""The kinds of store there are."""


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A server and one of its databases. `tls`: its certificate is verified for `host`, by the
    authorities of the file `ca` if one is named, else by the system's.
    """

    host: str
    port: int = PORT
    database: int = 0
    tls: bool = False
    ca: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"


def parse(url: str) -> RedisUrl:
    """The server of `redis[s]://[user:password@]host[:port][/database][?ca=FILE]`.

    Raises `ValueError`; its message says what is wrong and holds nothing of the URL, for that may
    be the password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError("is no URL; a password's special characters are written %XX") from None
    tls = parts.scheme == "rediss"
    if parts.scheme not in ("redis", "rediss") or parts.fragment:
        raise ValueError("is no Redis URL")
    if not parts.hostname:
        raise ValueError("names no host")
    if port == 0:
        raise ValueError("names port 0")
    database = parts.path.strip("/") or "0"
    if not (database.isascii() and database.isdigit()):
        raise ValueError("names a database that is no number")
    ca = options.pop("ca", "")
    if options or (ca and not tls):
        raise ValueError("has options; rediss:// knows ?ca=FILE, and there are no others")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user and not password:
        raise ValueError("has a user without a password")
    return RedisUrl(parts.hostname, port or PORT, int(database), tls, ca, user, password)


def without_password(url: str) -> str:
    """A store's URL as it may be shown: of a Redis server, without the user and the password."""
    if not url.startswith(SCHEMES):
        return url
    try:
        return str(parse(url))
    except ValueError:
        return url.partition(":")[0] + "://…"
