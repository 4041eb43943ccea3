"""`minify`: a small JavaScript program without comments and white space, with short names.

What it knows: the tokens of the language, and which variable a name means. What it promises: the
program does the same; only its own variables are renamed, never a property, a text or a global.

It is no parser, and can do without one because the sources of widget/ keep a few rules (a test
reads them): functions are arrows; every statement ends with a semicolon; no template literals, no
`var`, no destructuring, no `{name}` for `{name: name}`, no getters; a constant in capitals is
declared once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, product
from typing import Final, NamedTuple

import rjsmin  # type: ignore[import-untyped]

_TOKEN: Final = re.compile(
    r"""(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<regex>(?<=[=(,:!&|?{};\n])/(?![*/])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*)
    |(?P<name>[A-Za-z_$][\w$]*)
    |(?P<number>\d[\w.]*)
    |(?P<space>\s+)
    |(?P<other>\?\.(?!\d)|\.\.\.|=>|.)""",
    re.VERBOSE | re.DOTALL,
)
_LETTERS: Final = "etanoirscldpumhgfbykvwxjqzETANOIRSCLDPUMHGFBYKVWXJQZ"
"""The frequent ones first: they are cheap in the compressed file."""
_WORDS: Final = frozenset(
    "break case catch class const continue debugger default delete do else export extends finally "
    "for function if import in instanceof let new return static super switch this throw try typeof "
    "var void while with yield async await of get set null true false undefined".split()
)
_SHORTER: Final = {"true": "!0", "false": "!1", "undefined": "void 0", "const": "let"}
_DECLARE: Final = frozenset({"const", "let"})
_CLOSES: Final = {")": "(", "]": "[", "}": "{"}
_CONSTANT: Final = re.compile(r"\bconst ([A-Z][A-Z_]+)=(\"(?:[^\"\\]|\\.)*\"|[\d.]+);")


class Token(NamedTuple):
    """One word or sign of the program."""

    kind: str
    text: str


@dataclass(eq=False, slots=True)
class Scope:
    """A block or a function: the tokens from `begin` to `end`, and what is declared there."""

    begin: int
    end: int
    outer: Scope | None
    names: dict[str, Variable] = field(default_factory=dict)

    def find(self, name: str) -> Variable | None:
        """What a name means here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None


@dataclass(eq=False, slots=True)
class Variable:
    """One variable, and where it stands."""

    places: list[int] = field(default_factory=list)
    short: str = ""


def minify(code: str) -> str:
    """The same program, shorter."""
    code = _put_constants_in_place(rjsmin.jsmin(code)).replace('"+"', "")
    tokens = [Token(str(match.lastgroup), match[0]) for match in _TOKEN.finditer(code)]
    tokens = list(_without_casts([token for token in tokens if token.text != "\n"]))
    written = [_SHORTER.get(text, text) if kind == "name" else text for kind, text in tokens]
    for variable in _renamed(tokens):
        for at in variable.places:
            written[at] = variable.short
    _join(tokens, written)
    return "".join(written)


def _without_casts(tokens: Sequence[Token]) -> Iterator[Token]:
    """The brackets around a lone name, which a cast in a comment needed, go."""
    for at, token in enumerate(tokens):
        begin = at if token.text == "(" else at - 2
        if token.text in "()" and 0 < begin < len(tokens) - 3:
            before, _, name, end, after = tokens[begin - 1 : begin + 4]
            alone = name.kind == "name" and end.text == ")" and after.text != "=>"
            if alone and tokens[begin].text == "(" and before.text in tuple("=([{,;}"):
                continue
        yield token


def _join(tokens: Sequence[Token], written: list[str]) -> None:
    """Declarations that follow each other become one; the last semicolon of a block goes.

    `===` with a text loses a sign: what is compared with a text is one, or nothing.
    """
    stack: list[str] = []
    word = tokens[0].text  # the first of the statement
    for at, token in enumerate(tokens[:-1]):
        following = tokens[at + 1].text
        if token.text == "{":
            stack.append(word)
            word = following
        elif token.text == "}":
            word = stack.pop()
        elif token.text == ";" and following == "}":
            written[at] = ""
        elif token.text == ";":
            if following in _DECLARE and word in _DECLARE:
                written[at : at + 3] = [",", "", ""]
            word = following
        elif token.text == "," and following in _CLOSES:
            written[at] = ""
        elif token.text == "=" and tokens[at + 1].kind == "text" and tokens[at - 1].text == "=":
            written[at] = ""


def _put_constants_in_place(code: str) -> str:
    """A constant in capitals that is one number or text is written where it is used."""
    for name, value in dict(_CONSTANT.findall(code)).items():
        uses = len(re.findall(rf"\b{name}\b", code))
        if uses == 2 or len(value) < 8:
            code = code.replace(f"const {name}={value};", "")
            code = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), code)
    return code


def _renamed(tokens: Sequence[Token]) -> list[Variable]:
    """Every variable of the program with a short name that means nothing else where it stands."""
    scopes = _scopes(tokens)
    at_token = _innermost(scopes, len(tokens))
    _declare(tokens, at_token)
    foreign = set(_WORDS)
    inside: dict[Scope, set[Variable]] = {scope: set() for scope in scopes}
    for at, token in enumerate(tokens):
        if token.kind != "name" or _is_property(tokens, at):
            continue
        variable = at_token[at].find(token.text)
        if variable is None:
            foreign.add(token.text)
            continue
        variable.places.append(at)
        scope: Scope | None = at_token[at]
        while scope is not None:
            inside[scope].add(variable)
            scope = scope.outer
    for scope in scopes:
        taken = foreign | {other.short for other in inside[scope]}
        fresh = (name for name in _every_name() if name not in taken)
        for variable in sorted(scope.names.values(), key=lambda one: -len(one.places)):
            variable.short = next(fresh)
    return [variable for scope in scopes for variable in scope.names.values()]


def _scopes(tokens: Sequence[Token]) -> list[Scope]:
    """All blocks and arrow functions, the outer before the inner; the first is the program."""
    pairs = _pairs(tokens)
    spans = [(at, end) for at, end in pairs.items() if tokens[at].text == "{" and at < end]
    for at, token in enumerate(tokens):
        if token.text != "=>":
            continue
        begin = pairs[at - 1] if tokens[at - 1].text == ")" else at - 1
        block = tokens[at + 1].text == "{"
        end = pairs[at + 1] if block else _end_of_expression(tokens, pairs, at + 1)
        spans.append((begin, end))
    scopes = [Scope(0, len(tokens), None)]
    for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        outer = next(s for s in reversed(scopes) if s.begin <= begin and end <= s.end)
        scopes.append(Scope(begin, end, outer))
    return scopes


def _pairs(tokens: Sequence[Token]) -> dict[int, int]:
    """Each bracket's partner, both ways."""
    pairs: dict[int, int] = {}
    stack: list[int] = []
    for at, token in enumerate(tokens):
        if token.kind != "other":
            continue
        if token.text in "([{":
            stack.append(at)
        elif token.text in _CLOSES:
            pairs[stack[-1]] = at
            pairs[at] = stack.pop()
    return pairs


def _end_of_expression(tokens: Sequence[Token], pairs: dict[int, int], at: int) -> int:
    while tokens[at].text not in (",", ";", ")", "]", "}"):
        at = pairs.get(at, at) + 1
    return at - 1


def _innermost(scopes: Sequence[Scope], length: int) -> list[Scope]:
    found = [scopes[0]] * length
    for scope in scopes:
        found[scope.begin : scope.end + 1] = [scope] * (
            min(scope.end, length - 1) + 1 - scope.begin
        )
    return found


def _declare(tokens: Sequence[Token], at_token: Sequence[Scope]) -> None:
    """Enter what const and let declare, and the parameters of arrows, into their scopes."""
    pairs = _pairs(tokens)
    for at, token in enumerate(tokens):
        if token.text in _DECLARE and token.kind == "name":
            at_token[at].names[tokens[at + 2].text] = Variable()
        elif token.text == "=>" and tokens[at - 1].kind == "name":
            at_token[at - 1].names[tokens[at - 1].text] = Variable()
        elif token.text == "=>":
            begin = here = pairs[at - 1]
            while here < at - 1:
                if tokens[here].text in ("(", ",", "...") and tokens[here + 1].kind == "name":
                    at_token[begin].names[tokens[here + 1].text] = Variable()
                here = pairs.get(here, here) + 1 if here > begin else here + 1


def _is_property(tokens: Sequence[Token], at: int) -> bool:
    """Behind a dot, or a key in braces."""
    before = tokens[at - 1].text if at else ""
    after = tokens[at + 1].text if at + 1 < len(tokens) else ""
    return before in (".", "?.") or (after == ":" and before in ("{", ","))


def _every_name() -> Iterator[str]:
    for length in count(1):
        for letters in product(_LETTERS, repeat=length):
            yield "".join(letters)
