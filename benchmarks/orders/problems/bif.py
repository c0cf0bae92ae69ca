"""Bayesian networks as BIF files write them: text to variables with their tables.

The part of the format that the known repositories use: `network`, `variable` with discrete levels, `probability` with a
`table` or with a line for each combination of the parents' levels. Anything else is refused, naming the line.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from unveil.model.errors import UnveilError

SUM_TOLERANCE = 1e-6  # tables are printed with seven digits or so
_TOKEN = re.compile(r"[{}()\[\]|,;]|[^\s{}()\[\]|,;]+")
_SIGNS = frozenset("{}()[]|,;")


@dataclass(frozen=True, slots=True)
class Variable:
    """`table` [levels of parent 1, ..., levels of the last parent, own levels]: rows of it sum to 1."""

    name: str
    levels: tuple[str, ...]
    parents: tuple[str, ...]
    table: NDArray[np.float64]


def parse_bif(text: str, *, file: str) -> tuple[Variable, ...]:
    """The variables in the order of their declaration; tables are normalised. Raises UnveilError in one line."""
    tokens = _Tokens(text, file)
    levels: dict[str, tuple[str, ...]] = {}
    tables: dict[str, tuple[tuple[str, ...], NDArray[np.float64]]] = {}
    for word in tokens.words():
        if word == "network":
            tokens.word("a name")
            tokens.signs("{}")
        elif word == "variable":
            name, found = _variable(tokens)
            _once(levels, name, tokens)
            levels[name] = found
        elif word == "probability":
            name, parents = _head(tokens, levels)
            _once(tables, name, tokens)
            tables[name] = parents, _table(tokens, [levels[parent] for parent in parents], levels[name])
        else:
            raise tokens.error(f'"{word}" where network, variable or probability should be')
    return tuple(_with_table(name, found, tables, file) for name, found in levels.items())


class _Tokens:
    """The text word by word, and the line each stands in."""

    def __init__(self, text: str, file: str) -> None:
        lines = enumerate(text.splitlines(), start=1)
        self._tokens = [(number, match[0]) for number, line in lines for match in _TOKEN.finditer(line)]
        self._file, self._place = file, 0

    def words(self) -> Iterator[str]:
        """Whatever comes first of each block, to the end."""
        while self._place < len(self._tokens):
            yield self.next()

    def peek(self) -> str:
        return self._tokens[self._place][1] if self._place < len(self._tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self._place += 1
        if not token:
            raise UnveilError(f"{self._file} ends in the middle of a block")
        return token

    def word(self, what: str) -> str:
        token = self.next()
        if token in _SIGNS:
            raise self.error(f'"{token}" where {what} should be')
        return token

    def signs(self, signs: str) -> None:
        for sign in signs:
            token = self.next()
            if token != sign:
                raise self.error(f'"{token}" where "{sign}" should be')

    def listed(self, what: str, *, end: str) -> tuple[str, ...]:
        """`a, b, c` and the sign that ends it."""
        words = [self.word(what)]
        while self.peek() == ",":
            self.next()
            words.append(self.word(what))
        self.signs(end)
        return tuple(words)

    def error(self, what: str) -> UnveilError:
        return UnveilError(f"{self._file} line {self._tokens[self._place - 1][0]}: {what}")


def _variable(tokens: _Tokens) -> tuple[str, tuple[str, ...]]:
    name = tokens.word("a name")
    tokens.signs("{")
    for expected in ("type", "discrete"):
        if tokens.next() != expected:
            raise tokens.error(f'variable {name}: only "type discrete" is read')
    tokens.signs("[")
    count = tokens.word("the number of levels")
    tokens.signs("]{")
    levels = tokens.listed("a level", end="}")
    tokens.signs(";}")
    if str(len(levels)) != count or len(set(levels)) != len(levels):
        raise tokens.error(f"variable {name} names {len(levels)} levels, {count} different ones are announced")
    return name, levels


def _head(tokens: _Tokens, levels: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    """`( NAME | PARENT, PARENT ) {`, all of them declared."""
    tokens.signs("(")
    name, parents = tokens.word("a name"), tuple[str, ...]()
    if tokens.peek() == "|":
        tokens.next()
        parents = tokens.listed("a parent", end=")")
    else:
        tokens.signs(")")
    tokens.signs("{")
    for word in (name, *parents):
        if word not in levels:
            raise tokens.error(f"{word} is not a variable declared above")
    if len({name, *parents}) != 1 + len(parents):
        raise tokens.error(f"{name} has a parent twice, or itself")
    return name, parents


def _table(tokens: _Tokens, parents: list[tuple[str, ...]], own: tuple[str, ...]) -> NDArray[np.float64]:
    """Every combination of the parents' levels once, in any order."""
    table = np.full((*map(len, parents), len(own)), np.nan)
    while tokens.peek() != "}":
        cell = _combination(tokens, parents)
        if not np.isnan(table[cell]).all():
            raise tokens.error("a combination of the parents' levels comes twice")
        table[cell] = _law(tokens, len(own))
    tokens.signs("}")
    missing = int(np.isnan(table[..., 0]).sum())
    if missing:
        raise tokens.error(f"{missing} of {prod(table.shape[:-1])} combinations of the parents' levels have no numbers")
    return table


def _combination(tokens: _Tokens, parents: list[tuple[str, ...]]) -> tuple[int, ...]:
    if not parents:
        if tokens.next() != "table":
            raise tokens.error('a variable without parents takes "table"')
        return ()
    tokens.signs("(")
    words = tokens.listed("a level", end=")")
    if len(words) != len(parents) or any(word not in levels for word, levels in zip(words, parents, strict=True)):
        raise tokens.error(f"({', '.join(words)}) are not levels of the {len(parents)} parents")
    return tuple(levels.index(word) for word, levels in zip(words, parents, strict=True))


def _law(tokens: _Tokens, size: int) -> NDArray[np.float64]:
    words = tokens.listed("a number", end=";")
    try:
        law = np.array([float(word) for word in words])
    except ValueError as error:
        raise tokens.error(str(error)) from None
    if len(law) != size or not (law >= 0).all() or abs(law.sum() - 1) > SUM_TOLERANCE:
        raise tokens.error(f"{', '.join(words)} are not {size} probabilities that sum to 1")
    normalised: NDArray[np.float64] = law / law.sum()
    return normalised


def _once(seen: Mapping[str, object], name: str, tokens: _Tokens) -> None:
    if name in seen:
        raise tokens.error(f"{name} comes twice")


def _with_table(
    name: str,
    levels: tuple[str, ...],
    tables: Mapping[str, tuple[tuple[str, ...], NDArray[np.float64]]],
    file: str,
) -> Variable:
    if name not in tables:
        raise UnveilError(f"{file}: variable {name} has no probabilities")
    return Variable(name, levels, *tables[name])
