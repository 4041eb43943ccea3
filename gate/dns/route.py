"""The route of mail to a domain: MX, null MX, implicit MX.

What it promises: `route` never raises for what resolvers and zones do. A route without hosts says
why, and says that a domain *cannot* receive mail (`invalid_domain`, `no_mx`, `null_mx`) only where
that is proven: NXDOMAIN confirmed by a second question, or nothing in either address family of
every host. Whatever could not be looked up is `dns_error`.

Rules
  1. Absolute names only, as A-labels; names that are never public are not asked for at all.
  2. At most HOSTS_MOST mail hosts are looked up, with at most `ask.QUESTIONS` questions a route.
  3. A domain with MX records is never reached by its own address (RFC 5321 section 5.1).
  4. A route is ready when what matters is there: a usable host does not wait long for the rest.
  5. A resolver that says NXDOMAIN of a root server is cut off from the world: its NXDOMAIN is not
     believed, or every person would be refused for a resolver's fault.
  6. The wish of a domain's owner (`optout`) is asked for beside the route and never waited for.
  7. Nothing is remembered beyond its TTL or the bounds of budget.py; TTL 0 serves only those who
     wait right now. An incomplete route is remembered as briefly as a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from msgspec import Struct, structs

from gate.budget import DNS_FAILURE, Clock, Deadline
from gate.dns.answers import ESTATE_MOST, Answer, Answers, Memory, Shared
from gate.dns.ask import Allowance, ServerAddress
from gate.dns.hosts import Hosts, MxHost
from gate.dns.optout import OptOuts
from gate.dns.records import Records, look_up
from gate.dns.wire import AAAA, MX, A, Kind, encode
from gate.egress import IPAddress, classify, own_addresses
from gate.reason import GateError, Reason

HOSTS_MOST: Final = 4
"""MX names looked up (security.md A10)."""

WILDCARD: Final = "wildcard_dns"
DNS_PORT: Final = 53

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_CANARY_ZONES = ("com", "net", "org")
_SURELY_THERE = "a.root-servers.net"
"""A resolver that denies this name has no view of the public tree, and proves nothing."""


class MailRoute(Struct, frozen=True, gc=False):
    """Where mail for `domain` goes; times are on the resolver's clock.

    gc=False: thousands are remembered, and none can be part of a cycle.
    """

    domain: str
    hosts: tuple[MxHost, ...]
    """In the order to try them; empty if there is a `failure`."""
    implicit: bool
    """The domain has no MX and is its own mail host."""
    null: bool
    failure: Reason | None
    detail: str
    """A short code: `nxdomain`, `servfail`, `timeout`, `nonzero_pref`, `not_public` …; or empty.
    Of a route that leads somewhere: `wildcard_dns` where, by all appearances, every name does.
    """
    found_at: float
    expires: float
    others: tuple[str, ...] = ()
    """Names of further MX hosts that were not looked up."""
    opted_out: bool = False
    """The domain's owner asks not to be probed, as far as is known by now."""

    @property
    def mx_names(self) -> tuple[str, ...]:
        """All MX names, sorted."""
        return tuple(sorted([*(host.name for host in self.hosts), *self.others]))

    @property
    def destination(self) -> str:
        """Names the set of hosts, whatever their order today: what throttling hangs on."""
        return " ".join(self.mx_names) or self.domain


class Resolver:
    """Finds routes and remembers them. Made inside the event loop that uses it."""

    def __init__(
        self,
        servers: Sequence[ServerAddress],
        *,
        stubs: Mapping[str, Sequence[ServerAddress]] | None = None,
        private_names: bool = False,
        clock: Clock,
        random: Random,
        cache_size: int = 20_000,
        ipv6: bool | None = None,
    ) -> None:
        """`stubs`: zones with servers of their own, "test" for all of .test. `private_names`:
        names like .internal may be asked for. `ipv6`: routes wait for IPv6 addresses; None: if
        this machine has one itself, or private names are in use.
        """
        self._answers = Answers(
            servers,
            stubs=stubs or {},
            private_names=private_names,
            clock=clock,
            random=random,
            size=cache_size,
        )
        self._clock = clock
        self._random = random
        self._routes: Memory[MailRoute] = Memory(cache_size)
        self._running: Shared[str, MailRoute] = Shared()
        self._opt_outs = OptOuts(self._answers, clock, cache_size, self._heard)
        if ipv6 is None:
            ipv6 = private_names or _has_ipv6()
        self._families = (A, AAAA) if ipv6 else (A,)

    @property
    def healthy(self) -> bool:
        """False while nobody listens at any of the configured resolvers."""
        return self._answers.healthy

    def cached(self, domain: str) -> MailRoute | None:
        """The remembered route, if it is fresh."""
        route = self._routes.get(domain)
        return route if route is not None and self._clock() < route.expires else None

    async def route(self, domain: str, deadline: Deadline) -> MailRoute:
        """The route of a canonical domain (lower-case A-labels), within `deadline`.

        Callers for one domain share one look-up, which goes on as long as any of them waits.
        Raises `GateError` for a domain that is not in canonical form.
        """
        known = self.cached(domain)
        if known is not None:
            if known.failure is None:
                self._opt_outs.ask(domain, Allowance())
            return known
        encode(domain)
        if not self._answers.may_ask(domain):
            return self._without(domain, Reason.INVALID_DOMAIN, "not_public")
        if deadline.passed:
            return self._without(domain, Reason.DNS_ERROR, "timeout")
        task = self._running.join(domain, lambda: self._find(domain))
        try:
            await asyncio.wait({task}, timeout=deadline.left())
            if task.done() and not task.cancelled():
                return task.result()
            return self._without(domain, Reason.DNS_ERROR, "timeout")
        finally:
            self._running.leave(domain, task)

    async def addresses(self, host: str, deadline: Deadline) -> tuple[IPAddress, ...] | None:
        """The addresses of a host (canonical name, as for `route`), in the order to try them.

        Empty when it is proven to have none; None when they could not be looked up by `deadline`.
        """
        encode(host)
        if not self._answers.may_ask(host):
            return ()
        hosts = Hosts([(0, host)], self._families)
        try:
            async with asyncio.timeout(deadline.left()):
                await hosts.look_up(self._answers, Allowance(), self._clock)
        except TimeoutError:
            return None
        (found,) = hosts.found()
        return None if found.failed else found.addresses

    async def records(self, name: str, rdtype: int, deadline: Deadline) -> Records:
        """What `name` (lower-case A-labels) has of one type (`wire.TXT`, say), asked for now.

        Raises `GateError` for a name that is not in canonical form.
        """
        try:
            async with asyncio.timeout(deadline.left()):
                return await look_up(
                    name, rdtype, self._answers, clock=self._clock, random=self._random
                )
        except TimeoutError:
            return Records(Kind.FAILED, detail="timeout")

    async def invents_names(self, deadline: Deadline) -> bool | None:
        """True if the resolvers give addresses to names that nobody has; None: not determined.

        Such a resolver makes every mistyped domain look like one with a mail host (faults.md N43).
        """
        allowance = Allowance()
        names = [
            f"{''.join(self._random.choices(_ALPHABET, k=20))}.{zone}" for zone in _CANARY_ZONES
        ]
        try:
            async with asyncio.timeout(deadline.left()):
                answers = [await self._answers.ask(name, A, allowance) for name in names]
        except TimeoutError:
            return None
        if any(answer.kind is Kind.FOUND for answer in answers):
            return True
        return None if any(answer.kind is Kind.FAILED for answer in answers) else False

    async def close(self) -> None:
        """End what is under way; those who wait get `dns_error`."""
        await self._running.close()
        await self._opt_outs.close()
        await self._answers.close()

    async def _find(self, domain: str) -> MailRoute:
        allowance = Allowance()
        self._opt_outs.ask(domain, allowance)
        useless = True
        try:
            route = await self._look_up(domain, allowance)
            useless = route.failure is not None
        finally:
            self._opt_outs.leave(domain, useless=useless)
        if route.failure is None and self._is_wildcard(domain):
            route = structs.replace(route, detail=WILDCARD)
        if self._opt_outs.declined(domain):
            route = structs.replace(route, opted_out=True)
        if route.expires > self._clock():
            self._routes[domain] = route
        return route

    def _is_wildcard(self, domain: str) -> bool:
        """Whether more names below its registrable domain lead somewhere than people make by hand.

        Seen by what was asked for: to ask for a name of our own would cost a question each time.
        """
        others = self._routes.estate(domain)
        return len(others) >= ESTATE_MOST and all(route.failure is None for route in others)

    def _heard(self, domain: str, opted_out: bool) -> None:
        """A domain's wish has come, maybe after its route."""
        route = self._routes.get(domain)
        if route is not None and route.opted_out != opted_out:
            self._routes[domain] = structs.replace(route, opted_out=opted_out)

    async def _look_up(self, domain: str, allowance: Allowance) -> MailRoute:
        mx = await self._answers.ask(domain, MX, allowance)
        if mx.kind is Kind.FAILED:
            return self._without(domain, Reason.DNS_ERROR, mx.detail, mx.expires)
        if mx.kind is Kind.NXDOMAIN:
            return await self._confirm(domain, mx, allowance)
        if mx.kind is Kind.NODATA:
            return await self._implicit(domain, mx, allowance)
        return await self._explicit(domain, mx, allowance)

    async def _confirm(self, domain: str, mx: Answer, allowance: Allowance) -> MailRoute:
        """NXDOMAIN is believed when a question for another type gets it too (faults.md N03)."""
        a = await self._answers.ask(domain, A, allowance)
        expires = min(mx.expires, a.expires)
        if a.kind is Kind.NXDOMAIN and not await self._knows_nothing(domain, allowance):
            return self._without(domain, Reason.INVALID_DOMAIN, "nxdomain", expires)
        expires = min(expires, self._clock() + DNS_FAILURE)
        detail = "no_public_names" if a.kind is Kind.NXDOMAIN else a.detail or "contradiction"
        return self._without(domain, Reason.DNS_ERROR, detail, expires)

    async def _knows_nothing(self, domain: str, allowance: Allowance) -> bool:
        """Whether the resolver denies what surely exists; remembered like any answer."""
        if not self._answers.is_public(domain):
            return False
        root = await self._answers.ask(_SURELY_THERE, A, allowance)
        return root.kind is Kind.NXDOMAIN

    async def _implicit(self, domain: str, mx: Answer, allowance: Allowance) -> MailRoute:
        hosts = Hosts([(0, domain)], self._families)
        await hosts.look_up(self._answers, allowance, self._clock)
        expires = min(mx.expires, hosts.expires)
        if hosts.any_addresses:
            now = self._clock()
            return MailRoute(domain, hosts.found(), True, False, None, "", now, expires)
        if hosts.trouble:
            return self._without(domain, Reason.DNS_ERROR, hosts.trouble, expires)
        return self._without(domain, Reason.NO_MX, "no_address", expires)

    async def _explicit(self, domain: str, mx: Answer, allowance: Allowance) -> MailRoute:
        usable = [target for target in mx.exchanges if self._answers.may_ask(target[1])]
        unusable = mx.unusable or len(usable) < len(mx.exchanges)
        if not usable and unusable:
            expires = min(mx.expires, self._clock() + DNS_FAILURE)
            return self._without(domain, Reason.DNS_ERROR, "unusable_mx", expires)
        if not usable:
            detail = "nonzero_pref" if mx.null else ""
            return self._without(domain, Reason.NULL_MX, detail, mx.expires)
        self._random.shuffle(usable)
        usable.sort(key=lambda target: target[0])
        hosts = Hosts(usable[:HOSTS_MOST], self._families)
        others = tuple(name for _, name in usable[HOSTS_MOST:])
        await hosts.look_up(self._answers, allowance, self._clock)
        expires = min(mx.expires, hosts.expires)
        if hosts.any_addresses:
            now = self._clock()
            return MailRoute(domain, hosts.found(), False, False, None, "", now, expires, others)
        if hosts.trouble or others or unusable:
            expires = min(expires, self._clock() + DNS_FAILURE)
            detail = hosts.trouble or "unproven"
            return self._without(domain, Reason.DNS_ERROR, detail, expires)
        return self._without(domain, Reason.NO_MX, "mx_without_address", expires)

    def _without(
        self, domain: str, failure: Reason, detail: str, expires: float = 0.0
    ) -> MailRoute:
        """A route that leads nowhere; with no `expires` it is not remembered."""
        now = self._clock()
        null = failure is Reason.NULL_MX
        return MailRoute(domain, (), False, null, failure, detail, now, max(now, expires))


def _has_ipv6() -> bool:
    """True if an address of this machine is one that the internet can answer to."""
    return any(ip.version == 6 and classify(ip).allowed for ip in own_addresses())


def system_servers() -> list[ServerAddress]:
    """The resolvers of this machine (/etc/resolv.conf); its search list plays no part.

    Raises `GateError` if none is named there.
    """
    # Only where no resolver is set: its reading of that file is all of dnspython that a gate needs,
    # and takes 30 ms to import.
    import dns.exception
    import dns.resolver

    try:
        named = dns.resolver.Resolver().nameservers
    except dns.exception.DNSException:
        named = []
    servers = [(str(server), DNS_PORT) for server in named]
    if not servers:
        raise GateError('no resolver is configured on this machine; set dns.servers = ["ip:53"]')
    return servers
