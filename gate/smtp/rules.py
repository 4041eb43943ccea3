"""The rows of rules.toml, compiled: which phrase means what, in the order in which they decide.

A row is tried only if one of its `words` stands in the text; that is what keeps one reading in the
tens of microseconds while the table grows. Patterns may name fragments, `{box}` for "mailbox, user,
account ...", so that a row covers a family of wordings and not one sentence.

Steps decide in the order of STEPS; inside a step, rows in the order of the file.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from gate.reason import GateError, Reason, Scope
from gate.smtp.wording import Signal

STEPS: Final = (
    "greylist-named",
    "fault",
    "exception",
    "block",
    "full",
    "recipient-rate",
    "prober-rate",
    "greylist",
    "relay",
    "soft",
    "not-found",
    "disabled",
    "syntax",
)
"""probing.md 3, in order: whose fault it is comes before what is wrong."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. `codes` are prefixes of the reply code; empty means any, as for the other limits.

    `providers`: a known provider must have one of these in its name; an unknown one is no obstacle.
    `rest`: seconds for which the host is then left alone, where they are known to differ.
    """

    id: str
    step: str
    match: re.Pattern[str]
    unless: re.Pattern[str] | None
    codes: tuple[str, ...]
    enhanced: tuple[str, ...]
    providers: tuple[str, ...]
    reason: Reason
    scope: Scope | None
    rest: float | None
    why: str
    example: str
    source: str


@dataclass(frozen=True, slots=True)
class Rules:
    """All rows in deciding order, and the words that select the ones worth trying."""

    rows: tuple[Rule, ...]
    signals: tuple[Signal, ...]
    words: Mapping[str, tuple[tuple[str, int], ...]]
    """Each word with the set (as bits) of the rows that need it, under three letters of the word;
    under "" the words that have no three."""

    def candidates(self, text: str) -> Iterator[Rule]:
        """The rows of which at least one word stands in `text`, in deciding order."""
        some = 0
        threes = {text[at : at + 3] for at in range(len(text) - 2)}
        for three in threes & self.words.keys() | {""}:
            for word, rows in self.words.get(three, ()):
                if word in text:
                    some |= rows
        while some:
            lowest = some & -some
            yield self.rows[lowest.bit_length() - 1]
            some ^= lowest


_KEYS: Final = frozenset(
    (
        "id step match unless codes enhanced providers reason scope rest why example source words"
    ).split()
)


def load(text: str) -> Rules:
    """Compile a table.

    Raises:
        GateError: a row is wrong; the message names it.
    """
    table = tomllib.loads(text)
    fragments: Mapping[str, str] = table.get("fragments", {})
    words: dict[str, int] = {}
    rows = sorted(table.get("rule", []), key=lambda row: STEPS.index(row.get("step", STEPS[-1])))
    rules = []
    for number, row in enumerate(rows):
        try:
            rules.append(_rule(row, fragments))
        except (KeyError, ValueError, re.error) as error:
            raise GateError(f"rules.toml, row {row.get('id', number)!r}: {error!r}") from error
        for word in row["words"]:
            words[word] = words.get(word, 0) | 1 << number
    signals = tuple(
        Signal(
            re.compile(row["host"]), re.compile(row["path"]) if "path" in row else None, row["word"]
        )
        for row in table.get("signal", [])
    )
    return Rules(tuple(rules), signals, _by_letters(words))


def _by_letters(words: Mapping[str, int]) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """Every word under the three letters of it that the fewest other words share.

    A usual text has some eighty threes, of which few are any word's: far fewer look-ups than there
    are words.
    """
    threes = {word: {word[at : at + 3] for at in range(len(word) - 2)} for word in words}
    common = Counter(three for own in threes.values() for three in own)
    found: dict[str, list[tuple[str, int]]] = {}
    for word, rows in words.items():
        key = min(threes[word], key=lambda three: (common[three], three), default="")
        found.setdefault(key, []).append((word, rows))
    return {three: tuple(own) for three, own in found.items()}


def _rule(row: Mapping[str, Any], fragments: Mapping[str, str]) -> Rule:
    unknown = row.keys() - _KEYS
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    if not row["words"]:
        raise ValueError("no words: the row would never be tried")
    return Rule(
        id=row["id"],
        step=row["step"],
        match=re.compile(_filled(row["match"], fragments)),
        unless=re.compile(_filled(row["unless"], fragments)) if "unless" in row else None,
        codes=tuple(row.get("codes", ())),
        enhanced=tuple(row.get("enhanced", ())),
        providers=tuple(row.get("providers", ())),
        reason=Reason(row["reason"]),
        scope=Scope(row["scope"]) if "scope" in row else None,
        rest=float(row["rest"]) if "rest" in row else None,
        why=row["why"],
        example=row["example"],
        source=row["source"],
    )


def _filled(pattern: str, fragments: Mapping[str, str]) -> str:
    """The pattern with every `{name}` replaced; numbers in braces are repetitions and stay."""
    return re.sub(r"\{([a-z_]+)\}", lambda name: f"(?:{fragments[name[1]]})", pattern)


RULES: Final = load(files("gate.smtp").joinpath("rules.toml").read_text(encoding="utf-8"))
"""The table that is shipped."""
