"""The sites by their keys: those of the settings, the one for development, the test pairs.

What it promises: secret keys are known only by their SHA-256; looking one up takes the same time
for a wrong key as for a right one; origins match exactly or not at all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from gate.api.testkeys import PAIRS, TEST_PREFIX, Fixed
from gate.reason import GateError
from gate.settings import Settings, Site

Environment = Literal["live", "test"]

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
_LOOPBACK_ORIGIN = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Tenant:
    """One site as the HTTP surface sees it.

    `env` goes into its tokens, so that a test token never passes for a real one. `fixed` is the
    answer of a test pair. `loopback`: pages of any loopback origin may call, as in development.
    """

    site: Site
    digest: bytes
    env: Environment = "live"
    fixed: Fixed | None = None
    loopback: bool = False

    def allows(self, origin: str) -> bool:
        """Whether a page of `origin` may use this site's public key. Exact, case and port too."""
        if self.fixed is not None:
            return True
        return origin in self.site.origins or (self.loopback and is_loopback(origin))


class Tenants:
    """All sites there are, by site key and by the digest of the secret key."""

    def __init__(self, tenants: Iterable[Tenant]) -> None:
        every = list(tenants)
        self._public = {tenant.site.site_key: tenant for tenant in every}
        self._secret = {tenant.digest: tenant for tenant in every}
        self._loopback = any(tenant.loopback for tenant in every)
        self._origins = {origin for tenant in every for origin in tenant.site.origins}

    def by_site_key(self, key: str) -> Tenant | None:
        """The site a page belongs to."""
        return self._public.get(key)

    def by_secret(self, key: str) -> Tenant | None:
        """The site a server speaks for.

        The digest, which nobody can steer, is what is looked up; the final comparison takes
        constant time, and is made for an unknown key as well.
        """
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = self._secret.get(digest)
        matches = hmac.compare_digest(digest, found.digest if found else bytes(32))
        return found if matches else None

    def may_preflight(self, origin: str) -> bool:
        """Whether some site expects pages of `origin`: a preflight does not say which."""
        return origin in self._origins or (self._loopback and is_loopback(origin))


def is_loopback(origin: str) -> bool:
    """Whether an origin is a page of this very machine."""
    return _LOOPBACK_ORIGIN.fullmatch(origin) is not None


def tenants_of(sites: Iterable[Site], *, loopback: bool) -> Tenants:
    """The sites of the engine and the test pairs. Raises `GateError` for a key that is taken."""
    found = []
    for site in sites:
        if site.site_key.startswith(f"pk_{TEST_PREFIX}"):
            raise GateError(
                f"site {site.name}: keys that begin with pk_{TEST_PREFIX} are the documented test "
                "keys; `gate keys new` makes a pair"
            )
        digest = bytes.fromhex(site.secret_hash.removeprefix("sha256:"))
        found.append(Tenant(site, digest, loopback=loopback))
    for pair in PAIRS:
        digest = hashlib.sha256(pair.secret.encode()).digest()
        found.append(Tenant(pair.site, digest, env="test", fixed=pair))
    return Tenants(found)


def refuse_open_development(settings: Settings) -> None:
    """Raise `GateError` when the development site would be reachable from outside.

    Its secret is printed at start and any page on a loopback origin may use it: fine on one's own
    machine, and nowhere else.
    """
    host = settings.server.host
    if not settings.site and host not in ("localhost", "::1") and not host.startswith("127."):
        raise GateError(
            f"server.host: {host} is reachable from outside, and there is no [[site]]; add one "
            "(`gate keys new` prints it), or set server.host to 127.0.0.1"
        )
