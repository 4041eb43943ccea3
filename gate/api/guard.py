"""Who is calling, and whether they may now: keys, origins, limits.

What it promises: a secret key counts only in the Authorization header; a page counts only with an
origin of its site; a limit of the public key and one of the secret key never share a counter, so a
flood on a public page does not touch the site's own server. Keys say who is asking; they are no
defence against asking often, the limits are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from gate import metrics
from gate.api.peer import Peers, counted_as, network_of
from gate.api.problems import Problem
from gate.api.quota import Quota
from gate.api.reply import Headers
from gate.api.requests import Request
from gate.api.sites import LOOPBACK_HOSTS, Tenant, Tenants
from gate.budget import HTTP_PREFLIGHT
from gate.settings import Limits

ORIGINLESS_SHARE: Final = 4
"""A browser always names its origin when it posts across sites. What comes without one is a script
or an app, and has this part of a browser's allowance."""
NETWORK_CLIENTS: Final = 16
"""A /48 of IPv6 may be a company or one rented server: it has the allowance of so many clients."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request is from. `public`: it came with the site key, from somebody's browser.

    `origin` is the page's, None for a server; `client` is what its address is counted as.
    """

    tenant: Tenant
    public: bool
    origin: str | None
    client: str

    @property
    def hostname(self) -> str:
        """The host of the page, as its token says it; empty for a server."""
        return _hostname(self.origin) if self.origin else ""

    @property
    def cors(self) -> Headers:
        """What lets the page read the answer; nothing for a server."""
        return cors(self.origin) if self.origin is not None else []


class Guard:
    """Decides on every request of the hot routes before anything is looked up for it."""

    def __init__(self, tenants: Tenants, quota: Quota, peers: Peers, limits: Limits) -> None:
        self.tenants = tenants
        self._quota = quota
        self._peers = peers
        self._limits = limits
        self._servers: dict[bytes, Caller] = {}

    def by_header(self, request: Request) -> Caller | None:
        """Whom the Authorization header names; None without one. Raises `Problem`: unknown key."""
        if request.caller is not None:
            return request.caller
        key = bearer(request)
        if key is None:
            return None
        if key.startswith("pk_"):
            return self.by_site_key(request, key)
        tenant = self._by_secret(key)
        caller = self._servers.get(tenant.digest)
        if caller is None:
            caller = self._servers[tenant.digest] = Caller(tenant, False, None, "")
        request.caller = caller
        return caller

    def by_site_key(self, request: Request, key: str | None) -> Caller:
        """The page that sent its site key. Raises `Problem`: none, unknown, another's origin."""
        if not key:
            raise Problem("missing_key")
        if key.startswith("sk_"):
            raise Problem(
                "invalid_key", "A secret key goes into `Authorization: Bearer`, never into a body."
            )
        tenant = self.tenants.by_site_key(key)
        if tenant is None:
            raise Problem("invalid_key")
        origin = request.header(b"origin")
        if origin is not None and not tenant.allows(origin):
            raise Problem("origin_not_allowed")
        return Caller(tenant, True, origin, self.client(request))

    def server(self, request: Request) -> Tenant:
        """The site whose server is asking. Raises `Problem` for anything but its secret key."""
        key = bearer(request)
        if key is None:
            raise Problem("missing_key")
        if key.startswith("pk_"):
            raise Problem("secret_key_needed")
        return self._by_secret(key)

    def client(self, request: Request) -> str:
        """What the caller's address is counted as."""
        forwarded = request.header(b"x-forwarded-for")
        return counted_as(self._peers.client(request.peer, forwarded))

    def within_limits(self, caller: Caller, kind: str = "") -> bool:
        """Count one request of a page. False: it is over a limit and is to be told so softly."""
        most = self._limits.client_per_minute
        if caller.origin is None:
            most = max(1, most // ORIGINLESS_SHARE)
        if self._client_waits(kind, caller.client, most):
            metrics.THROTTLED.labels("client").inc()
            return False
        site = caller.tenant.site.name
        if self._quota.take(f"{kind}site", site, self._limits.site_per_minute):
            metrics.THROTTLED.labels("site").inc()
            return False
        return True

    def charge(self, tenant: Tenant, remoteip: str | None = None) -> None:
        """Count one request of a server; with `remoteip`, of the person it speaks for as well.

        Raises `Problem` (429 with Retry-After).
        """
        limits, limit = self._limits, "secret"
        wait = self._quota.take("secret", tenant.site.name, limits.secret_per_minute)
        if not wait and remoteip:
            limit = "client"
            wait = self._client_waits("", _counted(remoteip), limits.client_per_minute)
        if wait:
            metrics.THROTTLED.labels(limit).inc()
            retry_after = b"%d" % math.ceil(wait)
            raise Problem("too_many_requests", headers=[(b"retry-after", retry_after)])

    def _client_waits(self, kind: str, client: str, most: int) -> float:
        """Seconds until a client may ask, by its own allowance and by its network's; 0.0: now."""
        network = network_of(client)
        wait = self._quota.take(f"{kind}client", client, most)
        if wait or network is None:
            return wait
        return self._quota.take(f"{kind}network", network, NETWORK_CLIENTS * most)

    def _by_secret(self, key: str) -> Tenant:
        tenant = self.tenants.by_secret(key)
        if tenant is None:
            raise Problem("invalid_key")
        return tenant


def bearer(request: Request) -> str | None:
    """The key of the Authorization header, if there is one. Raises `Problem`: it is no Bearer."""
    value = request.header(b"authorization")
    if value is None:
        return None
    scheme, _, key = value.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Problem("invalid_key", "Write the header as `Authorization: Bearer sk_…`.")
    return key.strip()


def _counted(remoteip: str) -> str:
    try:
        return counted_as(str(ip_address(remoteip)))
    except ValueError:
        raise Problem("invalid_request", "remoteip: must be an IP address.") from None


@lru_cache(maxsize=1024)
def _hostname(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def cors(origin: str) -> Headers:
    """Lets a page of `origin` read the answer. Never with credentials."""
    return [(b"access-control-allow-origin", origin.encode("latin-1"))]


def preflight(origin: str) -> Headers:
    """Lets a page of `origin` post to the hot routes."""
    return [
        *cors(origin),
        (b"access-control-allow-methods", b"POST"),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-max-age", b"%d" % HTTP_PREFLIGHT),
    ]


@lru_cache(maxsize=1024)
def host_problem(host: str | None, http_version: str, development: bool) -> str | None:
    """The name of the problem with a Host header, or None.

    HTTP/1.1 demands one (RFC 9112 3.2). No URL is ever built from it; but the development site
    refuses names that are not this machine, or any page could reach it by rebinding a name.
    """
    if host is None:
        return None if http_version == "1.0" else "invalid_request"
    if not host or any(not ("!" <= c <= "~") or c in '/\\@?#<>"' for c in host):
        return "invalid_request"
    if development:
        name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
        return None if name.lower().rstrip(".") in LOOPBACK_HOSTS else "wrong_host"
    return None
