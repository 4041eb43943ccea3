"""Many domains, a mail host each: no limit on a destination is what a test runs into."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from gate.testing import Seam
from gate.testing.zones import Value


class Everybody(Collection[str]):
    """Users: everybody whose name begins with u; the random recipient begins with x."""

    def __contains__(self, name: object) -> bool:
        return str(name).startswith("u")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def name_of(number: int) -> str:
    """The domain of a number."""
    return f"d{number}.test"


def ip_of(number: int) -> str:
    """Its mail host's public address: a network (/24) for each."""
    return f"8.{16 + number // 250}.{number % 250}.1"


def plan(count: int) -> dict[str, Value]:
    """Zones of so many domains."""
    zones: dict[str, Value] = {}
    for number in range(count):
        name = name_of(number)
        zones |= {name: f"MX 10 mx.{name}", f"mx.{name}": f"A {ip_of(number)}"}
    return zones


def lead(seam: Seam, numbers: Iterable[int], listener: tuple[str, int]) -> None:
    """The mail hosts of these domains are all this one."""
    for number in numbers:
        seam.add(ip_of(number), listener)
