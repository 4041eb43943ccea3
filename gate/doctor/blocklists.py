"""Block lists: does one of the lists that mail servers ask name our address?

A list that does not answer us says nothing: it is asked first about 127.0.0.2, which it must list,
and 127.0.0.1, which it must not (RFC 5782 section 5). Some refuse resolvers that many share.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from gate.budget import Deadline
from gate.dns import Resolver
from gate.dns.records import Records
from gate.dns.wire import A, Kind
from gate.doctor.face import Face
from gate.doctor.finding import Finding, Topic, listed
from gate.egress import IPAddress

NAME: Final = "block-lists"
WHY: Final = (
    "mail servers refuse an address that stands on a list they use, at connect or at RCPT, and "
    "checks end as probe_blocked"
)
OWN_RESOLVER: Final = (
    "use a resolver of your own (unbound on this machine, dns.servers) instead of one that many "
    "share, or look the address up on the list's page"
)
_LISTED_TEST: Final = ip_address("127.0.0.2")
_UNLISTED_TEST: Final = ip_address("127.0.0.1")
_ANSWERS: Final = "127."
"""Every list answers from 127.0.0.0/8; anything else is somebody's advertisement."""


@dataclass(frozen=True, slots=True)
class BlockList:
    """One row of blocklists.toml."""

    name: str
    zone: str
    serious: bool
    ipv6: bool
    means: str
    delist: str
    refusals: frozenset[str]
    codes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one list says of one address. `trouble`: why it says nothing; then it is not listed."""

    block_list: BlockList
    codes: tuple[str, ...] = ()
    trouble: str = ""


@lru_cache(maxsize=1)
def block_lists() -> tuple[BlockList, ...]:
    """The table."""
    with Path(__file__).with_name("blocklists.toml").open("rb") as file:
        rows: list[dict[str, Any]] = tomllib.load(file)["list"]
    return tuple(
        BlockList(
            name=row["name"],
            zone=row["zone"],
            serious=row["weight"] == "problem",
            ipv6=row["ipv6"],
            means=row["means"],
            delist=row["delist"],
            refusals=frozenset(row["refusals"]),
            codes=row.get("codes", {}),
        )
        for row in rows
    )


async def check(faces: Sequence[Face], resolver: Resolver, deadline: Deadline) -> list[Finding]:
    """Ask every list about every public egress address."""
    seen = list(dict.fromkeys(ip for face in faces for ip in face.seen))
    if not seen:
        return [
            Topic(NAME, WHY).skipped(
                "the address that mail leaves from is not known",
                "give the HELO name its A record (see the check named names)",
            )
        ]
    rows = block_lists()
    verdicts = await asyncio.gather(*(_ask(row, seen, resolver, deadline) for row in rows))
    findings = []
    for ip in seen:
        said = [of[ip] for of in verdicts if ip in of]
        findings += judge(ip, said)
    return findings


async def _ask(
    row: BlockList, seen: Iterable[IPAddress], resolver: Resolver, deadline: Deadline
) -> dict[IPAddress, Verdict]:
    async def look(ip: IPAddress) -> Records:
        return await resolver.records(zone_name(ip, row.zone), A, deadline)

    listed_test, unlisted_test = await asyncio.gather(look(_LISTED_TEST), look(_UNLISTED_TEST))
    trouble = judge_list(row, listed_test, unlisted_test)
    found: dict[IPAddress, Verdict] = {}
    for ip in seen:
        if ip.version == 6 and not row.ipv6:
            continue
        found[ip] = Verdict(row, (), trouble) if trouble else judge_answer(row, await look(ip))
    return found


def zone_name(ip: IPAddress, zone: str) -> str:
    """Where a list is asked about an address (RFC 5782 sections 2.1 and 2.4). Pure."""
    reversed_ip = ip.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    return f"{reversed_ip}.{zone}"


def judge_list(row: BlockList, listed_test: Records, unlisted_test: Records) -> str:
    """Why the list's answers are worth nothing to us; empty if they are. Pure."""
    answers = [str(ip) for ip in listed_test.addresses]
    if any(answer in row.refusals for answer in answers):
        return "it refuses the resolver that asks"
    if listed_test.kind is Kind.FAILED:
        return f"it could not be asked ({listed_test.detail})"
    if not any(answer.startswith(_ANSWERS) for answer in answers):
        return "it does not answer this resolver"
    if unlisted_test.kind is Kind.FOUND:
        return "it lists everything, and so nothing"
    return ""


def judge_answer(row: BlockList, answer: Records) -> Verdict:
    """What the answer about one address says. Pure."""
    if answer.kind is Kind.FAILED:
        return Verdict(row, (), f"it could not be asked ({answer.detail})")
    codes = tuple(str(ip) for ip in answer.addresses)
    if any(code in row.refusals for code in codes):
        return Verdict(row, (), "it refuses the resolver that asks")
    return Verdict(row, tuple(code for code in codes if code.startswith(_ANSWERS)))


def judge(ip: IPAddress, verdicts: Sequence[Verdict]) -> list[Finding]:
    """What all lists say of one address. Pure."""
    topic = Topic(NAME, WHY, str(ip))
    findings = [_listing(topic, verdict) for verdict in verdicts if verdict.codes]
    clean = [v.block_list.name for v in verdicts if not v.codes and not v.trouble]
    if clean and not findings:
        findings.append(topic.ok(f"stands on none of {listed(clean, most=9)}"))
    for trouble in dict.fromkeys(v.trouble for v in verdicts if v.trouble):
        names = [v.block_list.name for v in verdicts if v.trouble == trouble]
        said = f"{listed(names, most=9)} cannot tell: {trouble}"
        refused = "resolver" in trouble
        findings.append(topic.warning(said, OWN_RESOLVER) if refused else topic.skipped(said))
    return findings


def _listing(topic: Topic, verdict: Verdict) -> Finding:
    row = verdict.block_list
    said = [row.codes.get(code, "") for code in verdict.codes]
    details = "; ".join(dict.fromkeys(filter(None, said))) or row.means
    found = f"stands on {row.name} ({', '.join(verdict.codes)}): {details}"
    mend = (
        f"read why at {row.delist}, stop what brought it there (meanwhile: gate probing off), then "
        "ask for removal on that page"
    )
    return topic.problem(found, mend) if row.serious else topic.warning(found, mend)
