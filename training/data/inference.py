"""What a column holds, from its cells: numbers, levels, or nothing a model should learn. Knows no file and no split.

The rules, in order; a column that the user names in the recipe is never dropped, and takes the kind given there:
- nothing but missing cells: dropped;
- all cells numbers: numeric. Whole numbers that count the rows (each of n, n+1, ... once) are an index: dropped.
  Numbers with
  leading zeros (007) and whole numbers beyond 2**53 are codes, not quantities: text;
- over half of the cells numbers, and more than 64 different cells: refused, naming the first that is none;
- otherwise text, dates and booleans included: categorical, but dropped where it has more than 256 different cells, or a
  different one in every row.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import polars as pl

from model.errors import DataError
from model.tokenizers.columns import quoted
from model.tokenizers.table import Cells
from training.data.config import ColumnChoice

MAX_LEVELS = 256
_MAX_MIXED = 64
_FEW_ROWS = 20
_EXACT = 2**53
_LABELS = (pl.Boolean, pl.Categorical, pl.Enum)
_UNREADABLE = (pl.Binary, pl.Object, pl.Duration)


@dataclass(frozen=True, slots=True)
class Kept:
    cells: Cells
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    reason: str


@dataclass(frozen=True, slots=True)
class ColumnReader:
    """`missing` are the cells that mean "no value"; `place` says where a row (from 0) is, for error lines."""

    missing: Collection[str]
    place: Callable[[int], str]

    def infer(self, series: pl.Series, choice: ColumnChoice | None) -> Kept | Dropped:
        """Raises DataError naming row and column."""
        if series.dtype.is_nested() or series.dtype in _UNREADABLE:
            return self._unusable(series, choice, f"is of the type {series.dtype}, which is not read")
        text = self._text(series)
        if text.null_count() == len(text):
            return self._unusable(series, choice, "has no values")
        kind = choice.kind if choice is not None else None
        numbers = text.cast(pl.Float64, strict=False)
        numbers = numbers.set(~numbers.is_finite(), None)
        if kind is None and series.dtype in _LABELS:
            kind = "categorical"
        if kind == "numeric" or (kind is None and self._is_numeric(text, numbers)):
            return self._numeric(text, numbers, is_chosen=choice is not None)
        return self._categorical(text, numbers, is_chosen=choice is not None)

    def _text(self, series: pl.Series) -> pl.Series:
        """Every cell as text, null where missing."""
        if series.dtype.is_float():
            series = series.fill_nan(None)
        text = series.cast(pl.String).str.strip_chars()
        return text.set(text.is_in(["", *self.missing]), None)

    def _is_numeric(self, text: pl.Series, numbers: pl.Series) -> bool:
        num_present, num_numbers = text.count(), numbers.count()
        if num_numbers < num_present:
            if 2 * num_numbers > num_present and text.n_unique() > _MAX_MIXED:
                self._refuse(text, numbers)
            return False
        has_zeros = text.str.contains(r"^[+-]?0[0-9]").any()
        largest = float(np.abs(numbers.drop_nulls().to_numpy()).max())
        is_code = largest >= _EXACT and not text.str.contains(r"[.eE]").any()
        return not has_zeros and not is_code

    def _refuse(self, text: pl.Series, numbers: pl.Series) -> None:
        row = (text.is_not_null() & numbers.is_null()).arg_max()
        assert row is not None
        raise DataError(
            f'{self.place(row)}, column "{text.name}": {quoted(text[row])} is not a number as most of the column is; '
            f'add it to data.missing, or set data.columns."{text.name}".kind to "categorical"'
        )

    def _numeric(self, text: pl.Series, numbers: pl.Series, *, is_chosen: bool) -> Kept | Dropped:
        if numbers.count() < text.count():
            self._refuse(text, numbers)
        if not is_chosen and _counts_rows(numbers):
            return Dropped("is an index: it counts the rows")
        return Kept(numbers.fill_null(float("nan")).to_numpy().astype(np.float64))

    def _categorical(self, text: pl.Series, numbers: pl.Series, *, is_chosen: bool) -> Kept | Dropped:
        present = text.drop_nulls()
        num_levels = present.n_unique()
        if not is_chosen and num_levels > MAX_LEVELS:
            return Dropped(f"has {num_levels} different texts, more than {MAX_LEVELS}")
        if not is_chosen and num_levels == len(present) > _FEW_ROWS:
            return Dropped("has a different text in every row")
        notice = "holds numbers, taken as levels" if numbers.count() and not is_chosen else None
        return Kept(np.array(text.to_list(), dtype=object), notice)

    def _unusable(self, series: pl.Series, choice: ColumnChoice | None, reason: str) -> Dropped:
        if choice is not None:
            raise DataError(f'{self.place(0)}, column "{series.name}": {reason}')
        return Dropped(reason)


def _counts_rows(numbers: pl.Series) -> bool:
    values = np.sort(numbers.to_numpy())
    is_whole = numbers.null_count() == 0 and bool(np.all(values == np.floor(values)))
    return is_whole and len(values) > _FEW_ROWS and bool(np.all(np.diff(values) == 1))
