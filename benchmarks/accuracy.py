"""What verifiers make of addresses whose truth is known (promise C3; false refusals must be 0).

The population is every address of the lab's world, some 120 at 70 domains of real Postfix, Exim and
OpenSMTPD servers, with what the servers' configuration makes of each: the mailbox is there, it is
not (or the domain takes no mail), everybody is accepted, or nobody could know (the servers are
dead, silent, or broken). The gate as shipped and every other verifier that could be built are asked
about all of them, each in a fresh world, since greylists remember who came.

    lost          said to be missing, and is not, or nobody could know: a person turned away
    let in        said to exist, and does not, or everybody is accepted there: a bounce to come
    right         what is true was said
    unknown       an honest "could not be determined"

    scripts/peer-packages                     build the others
    python -m benchmarks.accuracy [short]     needs root, for port 25; short: the gate alone
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final

from benchmarks.peers import world
from benchmarks.peers.verifier import AS_SHIPPED, RIVALS, Verifier, asked, gate
from benchmarks.record import record
from tests.lab.servers import missing
from tests.lab.world import DOMAINS, Domain

TRUTHS: Final = ("exists", "missing", "accepts all", "full", "nobody knows")
WORDS: Final = ("exists", "missing", "accepts all", "full", "unknown", "no answer")
FULL: Final = {"full@quota", "later@access"}
GONE: Final = {"gone@access"}
NO_MAIL: Final = {"nullmx", "nomx", "missing", "dangling"}
"""Domains that are proved to take no mail."""
AT_ONCE: Final = 8


def truth_of(domain: Domain, local: str) -> str:
    """What the configuration makes of an address."""
    mailbox = f"{local}@{domain.name}"
    if domain.name in NO_MAIL or mailbox in GONE:
        return "missing"
    if mailbox in FULL:
        return "full"
    if "" in domain.users or "@" in domain.users:
        return "accepts all"
    if not domain.users or domain.server == world.TARPIT:
        return "nobody knows"
    return "exists" if local.partition("+")[0] in domain.users else "missing"


def population() -> dict[str, str]:
    """Every address that the lab's tests ask about, and its truth."""
    return {
        f"{ask.local}@{domain.name}.{world.ZONE}": truth_of(domain, ask.local)
        for domain in DOMAINS
        for ask in domain.asks
    }


def matrix(verifier: Verifier, truths: dict[str, str]) -> dict[str, str]:
    """What one verifier says of each, in a world that has not seen anybody yet."""
    with world.running(0) as at, asked(verifier, at, AT_ONCE) as crowd:
        answers = crowd.ask(list(truths))
    return {email: answers[email]["said"] for email in truths}


def lost(truths: dict[str, str], said: dict[str, str]) -> list[str]:
    return [e for e, word in said.items() if word == "missing" and truths[e] != "missing"]


def let_in(truths: dict[str, str], said: dict[str, str]) -> list[str]:
    wrong = ("missing", "accepts all", "nobody knows")
    return [e for e, word in said.items() if word == "exists" and truths[e] in wrong]


def right(truths: dict[str, str], said: dict[str, str]) -> int:
    return sum(
        word == truths[email] or (word == "unknown" and truths[email] == "nobody knows")
        for email, word in said.items()
    )


def main() -> int:
    """Ask all, print the matrix of the gate and a line for each of the others."""
    if reason := missing():
        print(f"benchmarks.accuracy: {reason}", file=sys.stderr)
        return 2
    short = sys.argv[1:2] == ["short"]
    truths = population()
    ours = gate(AS_SHIPPED, "the gate")
    found = {ours.name: matrix(ours, truths)}
    for rival in () if short else RIVALS:
        if rival.error is None:
            found[rival.name] = matrix(rival, truths)
    show(truths, found)
    turned_away = lost(truths, found[ours.name])
    for email in turned_away:
        print(f"TURNED AWAY: {email}")
    if not short:
        record(
            "accuracy",
            promises={"C3": (f"{len(turned_away)} false refusals", "0", not turned_away)},
            figures={
                name: {
                    "right": right(truths, said),
                    "lost": lost(truths, said),
                    "let in": let_in(truths, said),
                    "said": Counter(f"{truths[e]}: {word}" for e, word in said.items()),
                }
                for name, said in found.items()
            },
            population=Counter(truths.values()),
        )
    return 1 if turned_away else 0


def show(truths: dict[str, str], found: dict[str, dict[str, str]]) -> None:
    """The gate's confusion matrix, and everybody's sums."""
    ours = next(iter(found.values()))
    cells = Counter((truths[email], word) for email, word in ours.items())
    print(f"{'the gate; truth, and what it said':36}" + "".join(f"{word:>13}" for word in WORDS))
    for truth in TRUTHS:
        print(f"{truth:36}" + "".join(f"{cells[truth, word] or '.':>13}" for word in WORDS))
    print(f"\n{f'of {len(truths)} addresses':36}{'lost':>8}{'let in':>8}{'right':>8}{'unknown':>9}")
    for name, said in found.items():
        unknown = sum(word in ("unknown", "no answer") for word in said.values())
        print(
            f"{name:36}{len(lost(truths, said)):8}{len(let_in(truths, said)):8}"
            f"{right(truths, said):8}{unknown:9}"
        )


if __name__ == "__main__":
    sys.exit(main())
