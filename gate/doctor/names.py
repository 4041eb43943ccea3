"""HELO name, address and PTR: do they agree?

Mail hosts look the three up while the greeting is still being written (RFC 5321 section 4.1.4
allows them to look, and many refuse). What they want: the name we greet with has our address, and
our address has that name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gate.budget import Deadline
from gate.dns import Resolver
from gate.dns.records import Records
from gate.dns.wire import AAAA, PTR, A, Kind
from gate.doctor.face import Face, is_name
from gate.doctor.finding import Finding, Topic
from gate.egress import IPAddress

NAME: Final = "names"
WHY: Final = (
    "mail hosts compare the HELO name, the address and its PTR before anything else; where they "
    "disagree, many refuse every command, and checks end as probe_blocked"
)
_WORDS: Final = frozenset(
    "dyn dynamic dynip dsl adsl vdsl xdsl sdsl dhcp dip pool ppp pppoe dial dialup dialin cable "
    "catv broadband ftth wireless wlan umts gprs lte mobile customer customers cust residential "
    "unassigned unused unknown".split()
)
"""Words that providers put into the names of addresses they have given to nobody's server."""


def looks_dynamic(name: str, ip: IPAddress) -> str:
    """What in a PTR makes it look like one that nobody chose; empty if nothing does. Pure."""
    name = name.lower()
    host = name.partition(".")[0]
    words = set(re.split(r"[^a-z]+", name)) & _WORDS
    if words:
        return f"the word {min(words)!r}"
    if ip.version == 4:
        octets = str(ip).split(".")
        numbers = [number.lstrip("0") or "0" for number in re.findall(r"\d+", name)]
        in_row = any(
            numbers[at : at + 3] in (octets[1:], octets[:0:-1], octets[:3], octets[2::-1])
            for at in range(len(numbers))
        )
        packed = "".join(octet.zfill(3) for octet in octets)
        if in_row or packed in name or ip.packed.hex() in re.split(r"[^0-9a-f]", name):
            return "the numbers of the address"
    elif ip.packed.hex()[16:] in re.sub(r"[^0-9a-f]", "", host):
        return "the numbers of the address"
    return ""


async def check(faces: Sequence[Face], resolver: Resolver, deadline: Deadline) -> list[Finding]:
    """Look at each egress address."""
    findings: list[Finding] = []
    for face in faces:
        before = before_looking(face)
        findings += before
        for ip in () if before else face.seen:
            pointer = await resolver.records(reverse_name(ip), PTR, deadline)
            back = []
            for name in pointer.names[:2]:
                found = await resolver.records(name, A if ip.version == 4 else AAAA, deadline)
                back.append((name, found))
            findings.append(judge(face, ip, pointer, back))
    return findings


def reverse_name(ip: IPAddress) -> str:
    """The name whose PTR says who an address is."""
    return ip.reverse_pointer


def before_looking(face: Face) -> list[Finding]:
    """What the HELO name by itself says; empty if it has to be compared with an address. Pure."""
    topic = Topic(NAME, WHY, face.label)
    if not face.helo:
        return [
            topic.problem(
                "there is no HELO name",
                "set probe.helo to an FQDN of yours whose A record is this machine's public "
                "address, as in gate.your-domain",
            )
        ]
    if not is_name(face.helo):
        return [
            topic.problem(
                f"the HELO name {face.helo} can be nobody's on the internet",
                "set probe.helo to an FQDN of yours, as in gate.your-domain, and publish its A "
                "record",
            )
        ]
    if face.seen:
        return []
    failed = next((records for records in face.forward if records.kind is Kind.FAILED), None)
    if failed is not None:
        return [topic.skipped(f"{face.helo} could not be looked up ({failed.detail})", SEE_DNS)]
    return [
        topic.problem(
            f"{face.helo} has no address, and this machine's public one is not to be seen from "
            "inside (NAT)",
            "publish the address that mail leaves from, and ask your provider to make "
            f"{face.helo} its PTR:\n{face.helo}. A <that address>",
        )
    ]


SEE_DNS: Final = "mend the resolver first (see the check named resolver), then run this again"


def judge(
    face: Face, ip: IPAddress, pointer: Records, back: Sequence[tuple[str, Records]]
) -> Finding:
    """One address, its names, and what those names lead back to. Pure."""
    helo = face.helo.lower()
    topic = Topic(NAME, WHY, f"{ip} {helo}")
    kind = "A" if ip.version == 4 else "AAAA"
    forward = face.forward_addresses
    if ip not in forward:
        failed = next((r.detail for r in face.forward if r.kind is Kind.FAILED), "")
        if failed:
            return topic.skipped(f"{helo} could not be looked up ({failed})", SEE_DNS)
        leads = ", ".join(map(str, forward))
        return topic.problem(
            f"{helo} {f'is {leads}' if leads else 'has no address'}, but mail leaves from {ip} "
            f"({face.origin})",
            "publish its address (or give this one a HELO name of its own under "
            f"[[egress.address]]):\n{helo}. {kind} {ip}",
        )
    return _judge_pointer(topic, helo, ip, pointer, back)


def _judge_pointer(
    topic: Topic, helo: str, ip: IPAddress, pointer: Records, back: Sequence[tuple[str, Records]]
) -> Finding:
    ask = (
        f"ask whoever gave you {ip} (your host's panel: reverse DNS) for the PTR {helo}:\n"
        f"{reverse_name(ip)}. PTR {helo}."
    )
    if pointer.kind is Kind.FAILED:
        return topic.skipped(f"the PTR of {ip} could not be looked up ({pointer.detail})", SEE_DNS)
    if not pointer.names:
        return topic.problem(f"{ip} has no PTR", ask)
    name = helo if helo in pointer.names else pointer.names[0]
    generic = looks_dynamic(name, ip)
    if name == helo and not generic:
        return topic.ok(f"{helo}, {ip} and its PTR agree")
    if name == helo:
        return topic.warning(
            f"HELO name and PTR agree, but {name} looks like nobody chose it ({generic} in it)",
            "choose a name of your own, as in gate.your-domain: its A record, the PTR, and "
            "probe.helo",
        )
    confirmed = any(there == name and ip in found.addresses for there, found in back)
    if generic or not confirmed:
        flaw = f"looks dynamic: {generic} in it" if generic else f"does not lead back to {ip}"
        return topic.problem(f"the PTR of {ip} is {name}, which {flaw}", ask)
    return topic.warning(
        f"the PTR of {ip} is {name}, and we greet as {helo}",
        f'set helo = "{name}" for this address, or {ask}',
    )
