"""Where mail for a domain goes.

`route` composes a domain's route from `answers` (remembered and shared), which puts questions to
resolvers by `ask`, which reads and writes messages with `wire`.
"""

from __future__ import annotations

from gate.dns.hosts import MxHost
from gate.dns.route import MailRoute, Resolver, system_servers

__all__ = ["MailRoute", "MxHost", "Resolver", "system_servers"]
