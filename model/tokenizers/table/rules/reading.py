"""Rules as people write them.

    signup <= last_login          numbers with numbers, dates with dates: <= < >= > == !=
    price * 2 + tax == total      sums, numbers before or behind a column
    born < "2007-01-01"           a date, in quotes, as its column writes it
    pair(education, grade)        only what stood together in a row of the training table
    unique(email)                 no two rows of a file the same

A column is named as it is; in double quotes where its name holds signs that mean something here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn, cast

from unveil.model.errors import PromptError
from unveil.model.tokenizers.table.columns import CategoricalColumn, Column, DateColumn, NumericColumn
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.rules.kinds import Comparison, Rule, Sign, Term, Unique, same_levels, scale_of
from unveil.model.tokenizers.wording import listed, shown

LONGEST_RULE = 500
_SIGN = re.compile(r"<=|>=|==|!=|<|>|=")
_CALL = re.compile(r"(pair|unique)\s*\(.*\)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?|\.[0-9]+")
_QUOTED = re.compile(r'"([^"]*)"')


@dataclass(frozen=True)
class Pair:
    """`pair(...)` before it is known what stood together."""

    text: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class _Side:
    """One side of a comparison: weights by position, a number, and the texts that are neither."""

    weights: tuple[tuple[int, Fraction], ...]
    constant: Fraction
    literals: tuple[str, ...]


def read_rule(text: str, columns: Sequence[Column]) -> Rule | Pair:
    """Raises PromptError in one line, with `param` the column to blame where there is one."""
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_RULE:
        raise PromptError(f"a rule must be a text of 1 to {LONGEST_RULE} characters, as in signup <= last_login")
    return _Reader(text.strip(), columns).rule()


class _Reader:
    """One rule, read from left to right."""

    def __init__(self, text: str, columns: Sequence[Column]) -> None:
        self._text, self._columns, self._at = text, columns, 0
        names = {column.name: i for i, column in enumerate(columns)}
        self._names = dict(sorted(names.items(), key=lambda pair: -len(pair[0])))

    def rule(self) -> Rule | Pair:
        if call := _CALL.fullmatch(self._text):
            return self._call(call.group(1))
        left = self._side()
        sign = self._next(_SIGN)
        if sign is None:
            self._refuse(f"has no {listed(['<=', '<', '>=', '>', '==', '!='])} at {self._place()}")
        right = self._side()
        if self._left():
            self._refuse(f"goes on with {self._place()}")
        return self._comparison(left, cast(Sign, "==" if sign == "=" else sign), right)

    def _call(self, kind: str) -> Rule | Pair:
        self._at = self._text.index("(") + 1
        positions: list[int] = []
        while True:
            position = self._name()
            if position is None:
                self._refuse(f"must name columns, got {self._place()}; the columns are {listed(self._names)}")
            positions.append(position)
            if not self._take(","):
                break
        if not (self._take(")") and not self._left()):
            self._refuse(f"must name columns with commas between them, got {self._place()}")
        if len(set(positions)) < len(positions) or len(positions) < (2 if kind == "pair" else 1):
            self._refuse("must name columns, each another one" + (", two at least" if kind == "pair" else ""))
        own = tuple(positions)
        return Pair(self._text, own) if kind == "pair" else Unique(self._text, own)

    def _side(self) -> _Side:
        weights: dict[int, Fraction] = {}
        constant, literals, sign = Fraction(0), list[str](), Fraction(1)
        if self._take("-"):
            sign = Fraction(-1)
        while True:
            factor, position, literal = self._term()
            if position is not None:
                weights[position] = weights.get(position, Fraction(0)) + sign * factor
            elif literal is not None:
                literals.append(literal)
            else:
                constant += sign * factor
            if self._take("+"):
                sign = Fraction(1)
            elif self._take("-"):
                sign = Fraction(-1)
            else:
                return _Side(tuple(weights.items()), constant, tuple(literals))

    def _term(self) -> tuple[Fraction, int | None, str | None]:
        """A number, a column, or both with a * between them; or a text in quotes that is no column."""
        factor, position = Fraction(1), self._name()
        if position is not None:
            return (self._factor() if self._take("*") else factor), position, None
        if (quoted := self._next(_QUOTED)) is not None:
            return factor, None, quoted[1:-1]
        factor = self._factor()
        if not self._take("*"):
            return factor, None, None
        position = self._name()
        if position is None:
            self._refuse(f"must name a column after *, got {self._place()}")
        return factor, position, None

    def _factor(self) -> Fraction:
        number = self._next(_NUMBER)
        if number is None:
            self._refuse(f"must name a column or a number, got {self._place()}; the columns are {listed(self._names)}")
        return Fraction(number)

    def _name(self) -> int | None:
        """The longest column's name that stands here, as it is or in quotes."""
        self._skip()
        rest = self._text[self._at :]
        for name, position in self._names.items():
            if rest.startswith(f'"{name}"'):
                self._at += len(name) + 2
                return position
        for name, position in self._names.items():
            ends_whole = not (name[-1:].isalnum() or name[-1:] == "_") or not _goes_on(rest[len(name) :])
            if rest.startswith(name) and ends_whole:
                self._at += len(name)
                return position
        return None

    def _comparison(self, left: _Side, sign: Sign, right: _Side) -> Rule:
        weights = dict(left.weights)
        for position, weight in right.weights:
            weights[position] = weights.get(position, Fraction(0)) - weight
        weights = {i: weight for i, weight in weights.items() if weight}
        literals, columns = (*left.literals, *right.literals), self._columns
        if not weights:
            self._refuse("must name a column that counts")
        if any(isinstance(columns[i], CategoricalColumn) for i in weights):
            return self._of_levels(weights, sign, literals)
        if any(isinstance(columns[i], DateColumn) for i in weights):
            return self._of_dates(left, sign, right, weights)
        if literals:
            self._refuse(f'compares numbers, got "{shown(literals[0])}"')
        terms = tuple(Term(i, weight, self._numeric(i)) for i, weight in weights.items())
        if sign == "==" and any(self._numeric(i).decimals is None for i in weights):
            self._refuse("asks for equal numbers, and a column of it has more decimals than can be met")
        return Comparison(self._text, terms, left.constant - right.constant, sign)

    def _of_levels(self, weights: dict[int, Fraction], sign: Sign, literals: Sequence[str]) -> Rule:
        positions = tuple(weights)
        are_levels = all(isinstance(self._columns[i], CategoricalColumn) for i in positions)
        is_plain = sorted(weights.values()) == [-1, 1] and not literals
        if not (are_levels and is_plain and sign in ("==", "!=")):
            name = next(c.name for c in (self._columns[i] for i in positions) if isinstance(c, CategoricalColumn))
            self._refuse(f'compares "{shown(name)}", whose values are levels; these are only == or != each other', name)
        a, b = positions
        own = self._columns[a], self._columns[b]
        return same_levels(self._text, (a, b), own, is_same=sign == "==")

    def _of_dates(self, left: _Side, sign: Sign, right: _Side, weights: dict[int, Fraction]) -> Rule:
        """A date with a date, or with one in quotes."""
        columns = [self._columns[i] for i in weights]
        name = next(column.name for column in columns if isinstance(column, DateColumn))
        sides = [len(side.weights) + len(side.literals) for side in (left, right)]
        is_plain = all(abs(weight) == 1 for weight in weights.values()) and left.constant == right.constant == 0
        dates = [column for column in columns if isinstance(column, DateColumn)]
        if sides != [1, 1] or not is_plain or len(dates) < len(columns):
            self._refuse(f'compares "{shown(name)}", a date, with something else than one other date', name)
        formats = [FORMATS[column.format] for column in dates]
        if len({(own.noun, own.unit == "M") for own in formats}) > 1:
            self._refuse("compares dates with times, or with months", name)
        terms = tuple(
            Term(i, weight * scale_of(column, own.unit), column)
            for (i, weight), column, own in zip(weights.items(), dates, formats, strict=True)
        )
        constant = Fraction(0)
        for side, way in ((left, 1), (right, -1)):
            for literal in side.literals:
                count = formats[0].read(literal)
                if count is None:
                    message = f'takes a {formats[0].noun} as {dates[0].format}, got "{shown(literal)}"'
                    self._refuse(message, dates[0].name)
                constant += way * count * scale_of(dates[0], formats[0].unit)
        return Comparison(self._text, terms, constant, sign)

    def _numeric(self, position: int) -> NumericColumn:
        column = self._columns[position]
        assert isinstance(column, NumericColumn)
        return column

    def _skip(self) -> None:
        while self._left() and self._text[self._at].isspace():
            self._at += 1

    def _left(self) -> bool:
        return self._at < len(self._text)

    def _take(self, sign: str) -> bool:
        self._skip()
        if self._left() and self._text.startswith(sign, self._at):
            self._at += len(sign)
            return True
        return False

    def _next(self, pattern: re.Pattern[str]) -> str | None:
        self._skip()
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found.group()

    def _place(self) -> str:
        self._skip()
        return f'"{shown(self._text[self._at :])}"' if self._left() else "its end"

    def _refuse(self, reason: str, param: str | None = None) -> NoReturn:
        raise PromptError(f'the rule "{shown(self._text)}" {reason}', param=param)


def _goes_on(rest: str) -> bool:
    return rest[:1].isalnum() or rest[:1] == "_"
