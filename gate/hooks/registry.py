"""Which adapter serves which platform, and which hook a path means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from gate.hooks.adapter import Adapter
from gate.hooks.authgear import Authgear
from gate.hooks.azure_b2c import AzureB2C
from gate.hooks.entra import Entra
from gate.hooks.forward import Forward
from gate.hooks.fusionauth import FusionAuth
from gate.hooks.generic import Generic
from gate.hooks.kratos import Kratos
from gate.hooks.okta import Okta
from gate.hooks.parse import Parse
from gate.hooks.settings import Hook
from gate.hooks.supabase import Supabase
from gate.hooks.truemail import Truemail
from gate.hooks.workos import WorkOS
from gate.hooks.zitadel import Zitadel

ADAPTERS: Final[Mapping[str, type[Adapter]]] = MappingProxyType(
    {
        "supabase": Supabase,
        "kratos": Kratos,
        "zitadel": Zitadel,
        "workos": WorkOS,
        "authgear": Authgear,
        "okta": Okta,
        "entra": Entra,
        "azure-b2c": AzureB2C,
        "fusionauth": FusionAuth,
        "parse": Parse,
        "generic": Generic,
        "forward": Forward,
        "truemail": Truemail,
    }
)


class Found(NamedTuple):
    """The hook a path means, and what of the path is left below it."""

    adapter: Adapter
    rest: str


class Registry:
    """The configured hooks. Raises `GateError` for a secret or a file that is of no use."""

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._adapters = {hook.path: ADAPTERS[hook.platform](hook) for hook in hooks}

    def find(self, path: str) -> Found | None:
        """The hook at a path, as it follows `/v1/hooks/`; the longest that fits."""
        parts = path.split("/")
        for length in (2, 1):
            adapter = self._adapters.get("/".join(parts[:length]))
            rest = "/".join(parts[length:])
            if adapter is not None and (adapter.deep or not rest):
                return Found(adapter, rest)
        return None
