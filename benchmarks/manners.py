"""What good manners cost: a day of signups before strict postmasters, and what one host can serve.

    python -m benchmarks.manners [signups]

Prints what the postmasters counted (nothing may be held against us), the share of people who got
their answer within 800 ms, and how many checks a minute one destination can serve within its
limits. The model and its assumptions are in benchmarks/day.py; no network, no other program.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from ipaddress import IPv4Address

from benchmarks.day import Day, meaning
from benchmarks.postmaster import Score
from benchmarks.record import record
from gate.budget import CHECK
from gate.smtp.caps import Errand
from gate.smtp.dialog import Stage
from gate.smtp.provider import Provider, provider_of
from gate.smtp.throttle import Refusal, Throttle

MINUTES = 10


def share(day: Day, *, big: bool | None = None, seconds: float = CHECK) -> dict[str, float]:
    """Of those who signed up: answered in time, and what kind of answer it was."""
    people = [one for one in day.told if big is None or one[2] is big]
    counted: Counter[str] = Counter()
    for reason, took, _ in people:
        if took > seconds:
            counted["later"] += 1
        elif reason in ("accepted_email", "rejected_email", "accept_all"):
            counted["settled in time"] += 1
        else:
            counted[f"{reason} in time"] += 1
    return {what: count / len(people) for what, count in counted.most_common()}


def rate(provider: Provider | None, domains: int, *, seconds: float) -> float:
    """Checks a minute that one destination serves when as many as possible are wanted of it.

    Each dialogue takes so many seconds; every domain has been asked about before.
    """
    now = 0.0
    throttle = Throttle(clock=lambda: now)
    accepted = meaning(Stage.RCPT, "250 2.1.5 ok")
    running: list[tuple[float, object]] = []
    served = number = 0
    while now < MINUTES * 60:
        running.sort(key=lambda entry: entry[0])
        while running and running[0][0] <= now:
            held = running.pop(0)[1]
            throttle.learn(held, outcome=accepted, stage=Stage.RCPT)  # type: ignore[arg-type]
            throttle.leave(held)  # type: ignore[arg-type]
            served += 1
        number += 1
        errand = Errand(
            destination=provider.name if provider else "mx",
            identity="mx us",
            domain=f"d{number % domains}.example",
            provider=provider,
            hosts=(IPv4Address("20.0.0.1"),),
        )
        asked = throttle.ask(errand)
        if not isinstance(asked, Refusal):
            if asked.granted:
                running.append((now + seconds, asked))
            else:
                throttle.leave(asked)
        now += 0.01
    return served / MINUTES


def rates() -> dict[str, float]:
    """Checks a minute, of dialogues that take 300 ms."""
    google = provider_of(["aspmx.l.google.com"])
    microsoft = provider_of(["firm-com.mail.protection.outlook.com"])
    return {
        "one domain": rate(None, 1, seconds=0.3),
        "one destination, many domains": rate(None, 1000, seconds=0.3),
        "Google, many tenants": rate(google, 1000, seconds=0.3),
        "Microsoft 365, many tenants": rate(microsoft, 1000, seconds=0.3),
    }


def day_of(signups: int) -> tuple[Day, Score, float]:
    """The day, what was counted, and the CPU seconds that it took to simulate."""
    began = time.process_time()
    gc.disable()  # a collection would walk over a hundred thousand people, again and again
    try:
        day = Day(signups)
        score = day.run()
    finally:
        gc.enable()
    return day, score, time.process_time() - began


def main() -> None:
    signups = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    day, score, seconds = day_of(signups)
    print(
        f"{signups:,} signups in a day, {len(day.told):,} people among them, "
        f"{score.dialogues:,} dialogues, {score.recipients:,} recipients; simulated in "
        f"{seconds:.1f} s of CPU"
    )
    print("\nheld against us:", dict(score.violations) or "nothing")
    for what, most in sorted(score.most.items()):
        print(f"  most {what:40} {most:4}")
    shares = {"everybody": share(day), "big providers": share(day, big=True)}
    shares["the rest"] = share(day, big=False)
    for who, parts in shares.items():
        print(f"\n{who}: {1 - parts.get('later', 0.0):.1%} answered within 800 ms")
        for what, part in parts.items():
            print(f"  {what:32} {part:7.2%}")
    print(f"\n{day.settled_later:,} were settled later, by asking again")
    served = rates()
    print("\nchecks a minute that can be served within the limits, dialogues of 300 ms:")
    for what, number in served.items():
        print(f"  {what:32} {number:6.1f}")
    found = sum(score.violations.values())
    promises = {"R4": (f"{found} violations in a day of {signups:,} signups", "0", not found)}
    record("manners", promises=promises, figures={"shares": shares, "rates": served})


if __name__ == "__main__":
    main()
