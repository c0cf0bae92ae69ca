"""What a row must be like, column by column: a value, several, a range, or what is none of these -> ids and shares.

    {"age": {"min": 30, "max": 40}, "state": ["CA", "NY"], "income": {"not": "<=50K"}, "day": {"after": "2020-01-01"}}

`min` and `max` belong to the range, `after` and `before` do not. null stands for a missing value. `not` leaves missing
values in, unless null is among what is not wanted.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Share
from unveil.model.tokenizers.table.columns import MISSING, CategoricalColumn, Column, DateColumn, NumericColumn
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.wording import listed, quoted, shown

Range = tuple[float, float]
"""A closed one."""
_ENDS = ("min", "max", "after", "before")
_BISECTIONS = 60
_MOST_VALUES = 256  # of a list; each takes a moment, in which nobody else is answered


class _Wanted(NamedTuple):
    """Closed ranges of numbers, ascending and apart; of a categorical column ids as [i, i]. And missing values."""

    ranges: tuple[Range, ...]
    missing: bool


def shares_of(column: Column, condition: Any) -> tuple[Share, ...]:
    """What of each id of a column meets its condition. Raises PromptError, with `param` the column."""
    wanted = _wanted(column, condition)
    shares = shares_within(column, wanted.ranges, missing=wanted.missing)
    if not shares:
        raise PromptError(
            f"{shown(column.name)} has nothing that is {_told(condition)}; it is {column.expected()}",
            param=column.name,
        )
    return shares


def shares_within(column: Column, ranges: Sequence[Range], *, missing: bool) -> tuple[Share, ...]:
    """What of each id lies in ranges, ascending and apart, of numbers or of ids of levels; and a missing value, where
    it is wanted and can be."""
    is_level = isinstance(column, CategoricalColumn)
    shares = _levels(column, ranges) if is_level else _shares(column, ranges)  # type: ignore[arg-type]
    return (*shares, Share(column.vocabulary_size - 1)) if missing and column.missing else tuple(shares)


def _told(condition: Any) -> str:
    """As JSON, but for what may be nested deeper than is written."""
    if not isinstance(condition, Mapping) or any(isinstance(own, Mapping | list) for own in condition.values()):
        return quoted(condition)
    return shown(json.dumps(condition, ensure_ascii=False, default=lambda other: type(other).__name__))


def _wanted(column: Column, condition: Any) -> _Wanted:
    if not isinstance(condition, Mapping):
        return _listed(column, condition if isinstance(condition, list) else [condition])
    if set(condition) == {"not"} and not _is_negation(condition["not"]):
        return _without(column, _wanted(column, condition["not"]))
    if not condition or not set(condition) <= set(_ENDS) or isinstance(column, CategoricalColumn):
        ranges = "" if isinstance(column, CategoricalColumn) else f", a range by {listed(_ENDS)}"
        raise PromptError(
            f'{shown(column.name)}: a condition is a value, a list of values, {{"not": ...}}{ranges}; '
            f"got {_told(condition)}",
            param=column.name,
        )
    low, high = -math.inf, math.inf
    for name, value in condition.items():
        end = number_in(column, value)
        if name in ("min", "after"):
            low = max(low, end if name == "min" else math.nextafter(end, math.inf))
        else:
            high = min(high, end if name == "max" else math.nextafter(end, -math.inf))
    return _Wanted(((low, high),) if low <= high else (), missing=False)


def _is_negation(condition: Any) -> bool:
    return isinstance(condition, Mapping) and "not" in condition


def _listed(column: Column, values: Sequence[Any]) -> _Wanted:
    if not values:
        raise PromptError(f"{shown(column.name)}: the list of its values is empty", param=column.name)
    if len(values) > (most := max(_MOST_VALUES, column.vocabulary_size)):
        message = f"{shown(column.name)}: {len(values):,} values are listed; a condition takes at most {most:,}"
        raise PromptError(message, param=column.name)
    is_missing = [value is None or value == MISSING for value in values]
    if any(is_missing) and not column.missing:
        raise PromptError(f"{shown(column.name)} has no missing values", param=column.name)
    known = [value for value, own in zip(values, is_missing, strict=True) if not own]
    read: Callable[[Any], float] = (
        column.encode if isinstance(column, CategoricalColumn) else lambda value: number_in(column, value)
    )
    numbers = sorted({float(read(value)) for value in known})
    return _Wanted(tuple((x, x) for x in numbers), missing=any(is_missing))


def _without(column: Column, unwanted: _Wanted) -> _Wanted:
    """All else."""
    return _Wanted(outside(unwanted.ranges), missing=column.missing and not unwanted.missing)


def outside(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """What lies between and beyond ascending closed ranges."""
    found, low = list[Range](), -math.inf
    for first, last in ranges:
        if low < first:
            found.append((low, math.nextafter(first, -math.inf)))
        low = math.nextafter(last, math.inf)
    return (*found, (low, math.inf))


def number_in(column: Column, value: Any) -> float:
    """A number, or a date as its count of units."""
    if isinstance(column, DateColumn):
        is_readable = isinstance(value, int | str) and not isinstance(value, bool)
        count = FORMATS[column.format].read(str(value)) if is_readable else None
        if count is not None:
            return float(count)
        what = f"a {FORMATS[column.format].noun} as {column.format}"
    else:
        if isinstance(value, str) and isinstance(column, NumericColumn) and column.style is not None:
            value = value if (number := column.style.parse(value)) is None else number
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        what = "a number"
    raise PromptError(f"{shown(column.name)} is compared with {what}, got {quoted(value)}", param=column.name)


def _levels(column: CategoricalColumn, ranges: Sequence[Range]) -> list[Share]:
    ids = range(len(column.levels))
    return [Share(i) for i in ids if any(low <= i <= high for low, high in ranges)]


def _shares(column: NumericColumn | DateColumn, ranges: Sequence[Range]) -> list[Share]:
    """Of each bin, between which shares of its mass the shown values are wanted."""
    shares = []
    for i, own in enumerate(column.bins):
        for low, high in ranges:
            if low <= own.low and own.high <= high:
                shares.append(Share(i))
            elif low <= own.high and own.low <= high:
                first = _first(lambda u, i=i, low=low: column.drawn(i, u) >= low)  # type: ignore[misc]
                last = _first(lambda u, i=i, high=high: column.drawn(i, u) > high)  # type: ignore[misc]
                if first < last:
                    shares.append(Share(i, first, last))
    return shares


def _first(is_there: Callable[[float], bool]) -> float:
    """From which share of a bin's mass on something holds that goes on holding; 1 if it never does."""
    low, high = 0.0, 1.0
    if is_there(0.0):
        return 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_there(middle) else (middle, high)
    return high
