"""The kinds of rules between columns, each a plain value: what a column may hold once the others are known.

A comparison holds where one of its values is missing, as SQL's CHECK does.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from unveil.model.tokenizers.base import Share
from unveil.model.tokenizers.table.columns import CategoricalColumn, Column, DateColumn, NumericColumn
from unveil.model.tokenizers.table.conditions import Range, outside, shares_within

Sign = Literal["<=", "<", ">=", ">", "==", "!="]
COMPARES: Mapping[Sign, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
_MIRRORED: dict[Sign, Sign] = {"<=": ">=", "<": ">", ">=": "<=", ">": "<"}
_MICROSECONDS = {"us": 1, "s": 10**6, "m": 60 * 10**6, "D": 86_400 * 10**6}
Shown = tuple[int, float]
"""An id, and the uniform by which its value is drawn."""
Ids = tuple[int, ...]
"""One of each column that stood together."""


class Term(NamedTuple):
    """A weight times what a column shows."""

    position: int
    weight: Fraction
    column: NumericColumn | DateColumn

    def number(self, shown: Shown) -> Fraction | None:
        """What is shown, exactly as its digits say; None where it is missing."""
        token_id, uniform = shown
        return None if token_id == len(self.column.bins) else exact(self.column.drawn(token_id, uniform))


@dataclass(frozen=True)
class Comparison:
    """The sum of `terms` and a `constant`, compared with 0. `fixed`: numbers that a prompt gives, None if missing."""

    text: str
    terms: tuple[Term, ...]
    constant: Fraction
    sign: Sign
    fixed: Mapping[int, Fraction | None] = field(default_factory=dict)

    @property
    def positions(self) -> tuple[int, ...]:
        """Those that are not fixed."""
        return tuple(term.position for term in self.terms if term.position not in self.fixed)

    def given(self, numbers: Mapping[int, Fraction | None]) -> "Comparison":
        """With these as fixed."""
        return replace(self, fixed={t.position: numbers[t.position] for t in self.terms if t.position in numbers})

    def allowed(self, position: int, known: Mapping[int, Shown]) -> tuple[Share, ...] | None:
        """What a position may hold; None for anything, as long as others are open."""
        rest, own = self.constant, next(term for term in self.terms if term.position == position)
        for term in self.terms:
            if term is own:
                continue
            if term.position not in self.fixed and term.position not in known:
                return None
            number = self._number(term, known)
            if number is None:
                return None
            rest += term.weight * number
        sign = self.sign if own.weight > 0 else _MIRRORED.get(self.sign, self.sign)
        ranges = _ranges(sign, _nearest(-rest / own.weight))
        return shares_within(own.column, ranges, missing=True)

    def holds(self, known: Mapping[int, Shown]) -> bool:
        """Whether it does, of all its positions."""
        numbers = [(term.weight, self._number(term, known)) for term in self.terms]
        total = self.constant
        for weight, number in numbers:
            if number is None:
                return True
            total += weight * number
        return bool(COMPARES[self.sign](total, 0))

    def _number(self, term: Term, known: Mapping[int, Shown]) -> Fraction | None:
        return self.fixed[term.position] if term.position in self.fixed else term.number(known[term.position])


@dataclass(frozen=True)
class Seen:
    """Several columns hold together what they held together in a row of the training table: `rows` of their ids."""

    text: str
    columns: tuple[int, ...]
    rows: frozenset[Ids]
    fixed: Mapping[int, int] = field(default_factory=dict)

    @property
    def positions(self) -> tuple[int, ...]:
        """Those that are not fixed."""
        return tuple(position for position in self.columns if position not in self.fixed)

    def given(self, ids: Mapping[int, int]) -> "Seen":
        """With these as fixed."""
        return replace(self, fixed={i: ids[i] for i in self.columns if i in ids})

    def allowed(self, position: int, known: Mapping[int, Shown]) -> tuple[Share, ...]:
        """What a position may hold beside what is known."""
        place = self.columns.index(position)
        wanted = self._wanted(known)
        ids = {row[place] for row in self._rows(wanted)} if wanted else _by_id(self.rows)[place].keys()
        return tuple(Share(i) for i in sorted(ids))

    def holds(self, known: Mapping[int, Shown]) -> bool:
        """Whether it does, of all its positions."""
        return any(True for _ in self._rows(self._wanted(known)))

    def _wanted(self, known: Mapping[int, Shown]) -> list[tuple[int, int]]:
        """The ids that are settled, each with its place among the columns."""
        ids = {**{i: token_id for i, (token_id, _) in known.items()}, **self.fixed}
        return [(place, ids[i]) for place, i in enumerate(self.columns) if i in ids]

    def _rows(self, wanted: list[tuple[int, int]]) -> Iterable[Ids]:
        """Those with these ids, one at least, looked for among the rows of the rarest."""
        index = _by_id(self.rows)
        few = min((index[place].get(token_id, []) for place, token_id in wanted), key=len)
        return (row for row in few if all(row[place] == token_id for place, token_id in wanted))


@dataclass(frozen=True)
class Unique:
    """No two rows hold the same in these columns together."""

    text: str
    columns: tuple[int, ...]


RowRule = Comparison | Seen
Rule = RowRule | Unique


def exact(number: float) -> Fraction:
    """Of a float the number that its digits say: 1/10 of 0.1."""
    return Fraction(repr(float(number)))


def _nearest(number: Fraction) -> float:
    """The closest float, infinity beyond the largest."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


@lru_cache(maxsize=64)
def _by_id(rows: frozenset[Ids]) -> list[dict[int, list[Ids]]]:
    """The rows that hold each id, at each place. Asked for at every step of every canvas, and the same for all."""
    index: list[dict[int, list[Ids]]] = [{} for _ in next(iter(rows))]
    for row in rows:
        for own, token_id in zip(index, row, strict=True):
            own.setdefault(token_id, []).append(row)
    return index


def scale_of(column: DateColumn, unit: str) -> Fraction:
    """Microseconds of one unit that a date counts; months are counted as months."""
    return Fraction(_MICROSECONDS.get(unit, 1)) if isinstance(column, DateColumn) else Fraction(1)


def same_levels(text: str, positions: tuple[int, int], columns: tuple[Column, Column], *, is_same: bool) -> Seen:
    """Two columns of levels that hold the same level, or another; where one is missing, anything."""
    left, right = columns
    assert isinstance(left, CategoricalColumn)
    assert isinstance(right, CategoricalColumn)
    rows = [
        (a, b)
        for a in range(left.vocabulary_size)
        for b in range(right.vocabulary_size)
        if a == len(left.levels) or b == len(right.levels) or (left.token(a) == right.token(b)) == is_same
    ]
    return Seen(text, positions, frozenset(rows))


def _ranges(sign: Sign, x: float) -> tuple[Range, ...]:
    """The closed ranges of the numbers that compare with x so."""
    match sign:
        case "<=":
            return ((-math.inf, x),)
        case "<":
            return ((-math.inf, math.nextafter(x, -math.inf)),)
        case ">=":
            return ((x, math.inf),)
        case ">":
            return ((math.nextafter(x, math.inf), math.inf),)
        case "==":
            return ((x, x),)
        case _:
            return outside([(x, x)])
