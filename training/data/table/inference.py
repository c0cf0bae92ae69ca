"""What a column holds, from its cells: numbers, levels, or nothing a model should learn.

The rules, in order; a column that the user names in the recipe is never dropped, and takes the kind given there:
- nothing but missing cells: dropped;
- all cells numbers: numeric. Whole numbers that count the rows (each of n, n+1, ... once) are an index: dropped.
  Numbers with leading zeros (007) and whole numbers beyond 2**53 are codes, not quantities: text;
- all cells numbers as people write them (`numbers`), $1,234.50 or 12,5 %: numeric, and written so again;
- half of the cells numbers, or more, of which more than 16 are different, or more than 64 different cells: a column of
  numbers with something else in it. Refused, naming the first cell that is none. Codes, as above, are no numbers here;
- all cells dates or times of day of one format (`dates`): dates. A Parquet column of them always is one;
- otherwise text, booleans and a few codes (1, 2, 3, A) included: categorical, but dropped where it has more than 256
  different cells, or a different one in every row.
Whatever is dropped or taken for what it may not be, the user is told so, and how to have it otherwise.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars as pl

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.columns import MISSING
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.numbers import NumberStyle
from unveil.model.tokenizers.table.table import Cells
from unveil.model.tokenizers.wording import quoted
from unveil.training.data.config import ColumnChoice
from unveil.training.data.table.dates import Refuse, as_counts, find_format, notice_of, number_format, typed_dates
from unveil.training.data.table.numbers import Written, as_written, doubt, unusual_style

MAX_LEVELS = 256
_MAX_CODES = 16  # more different numbers than that, and they are quantities
_MAX_MIXED = 64
_FEW_ROWS = 20
_FEW_DATES = 10
_EXACT = 2**53
_LABELS = (pl.Boolean, pl.Categorical, pl.Enum)
_UNREADABLE = (pl.Binary, pl.Object, pl.Duration)


@dataclass(frozen=True, slots=True)
class Kept:
    """A column to model; `date_format` where its numbers are dates, `style` where they are not written as Python
    writes them."""

    cells: Cells
    notice: str | None = None
    date_format: str | None = None
    style: NumberStyle | None = None

    def adding(self, words: str) -> "Kept":
        """The same, and more to say of it."""
        return replace(self, notice=words if self.notice is None else f"{self.notice}; {words}")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A column to leave out; `keep_by` is the option that would keep it, if any does."""

    reason: str
    keep_by: str | None = None

    def adding(self, words: str) -> "Dropped":
        """The same, and more to say of it."""
        return replace(self, reason=f"{self.reason}, and {words}")


@dataclass(frozen=True, slots=True)
class ColumnReader:
    """`missing` are the cells that mean "no value"; `place` says where a row (from 0) is, for error lines. In a file
    that `prefers_comma` the comma of 1,234 is a decimal one; in one that `is_typed`, text is text even if all of it is
    digits."""

    missing: Collection[str]
    place: Callable[[int], str]
    prefers_comma: bool = False
    is_typed: bool = False

    def infer(self, series: pl.Series, choice: ColumnChoice | None) -> Kept | Dropped:
        """Raises UnveilError naming row and column."""
        if series.dtype.is_nested() or series.dtype in _UNREADABLE or _is_extension(series.dtype):
            return self._unusable(series, choice, f"is of the type {series.dtype}, which is not read")
        notice, is_typed = None, False
        if series.dtype in (pl.Date, pl.Datetime, pl.Time):
            is_typed = True
            series, notice = typed_dates(series, self.refuse_in(series))
        text = self._text(series)
        if text.null_count() == len(text):
            return self._unusable(series, choice, "has no values")
        kind = choice.kind if choice is not None else None
        if kind is None and series.dtype in _LABELS:
            kind = "categorical"
        numbers = text.cast(pl.Float64, strict=False)
        numbers = numbers.set(~numbers.is_finite(), None)
        is_mostly_text = 2 * numbers.count() < text.count()
        if kind == "date" or (kind is None and is_mostly_text):
            found = self._dates(text, choice, notice, is_typed=is_typed)
            if found is not None:
                return found
        looks: Kept | Written | str | None = None
        if kind is None and numbers.count() == text.count():
            looks = self._date_numbers(text, numbers)
        elif kind in (None, "numeric"):
            looks = as_written(text, choice, self.refuse_in(text), prefers_comma=self.prefers_comma)
        if isinstance(looks, Kept):
            return looks
        if isinstance(looks, Written):
            return Kept(looks.cells, looks.notice, style=looks.style)
        stays_text = kind is None and self.is_typed and series.dtype == pl.String
        if stays_text and numbers.count() == text.count():
            words = f"its file has them as text; --numeric {quoted(text.name)} takes them as numbers"
            looks = words if looks is None else f"{words}; {looks}"
        if kind == "numeric" or (kind is None and not stays_text and self._is_numeric(text, numbers)):
            plain = self._numeric(text, numbers, is_chosen=choice is not None, is_text=series.dtype == pl.String)
        else:
            plain = self._categorical(text, numbers, is_chosen=choice is not None)
        return plain if looks is None else plain.adding(looks)

    def _dates(
        self, text: pl.Series, choice: ColumnChoice | None, notice: str | None, *, is_typed: bool
    ) -> Kept | None:
        """None where a column that may hold dates holds none. `kind = "date"` without a format has it found."""
        refuse = self.refuse_in(text)
        chosen = choice.format if choice is not None else None
        found = chosen or find_format(text, refuse)
        if found is not None:
            notice = notice or notice_of(found, text)
            if FORMATS[found].noun == "time" and choice is None and not is_typed:
                notice = f"holds times of day; --categorical {quoted(text.name)} takes them as levels"
            return Kept(as_counts(text, found, refuse), notice, found)
        if choice is not None and choice.kind == "date":
            row = int(text.is_not_null().arg_max() or 0)
            raise refuse(row, f"{quoted(text[row])} is a date in no format that is known; see data.columns.NAME.format")
        return None

    def _date_numbers(self, text: pl.Series, numbers: pl.Series) -> Kept | str | None:
        """Numbers that are all dates, as 20240131 is; what is said of a few of them, which may be so by chance."""
        found = number_format(numbers)
        if found is None:
            return None
        if numbers.drop_nulls().n_unique() < _FEW_DATES:
            return f"may be dates as {found}; --date {quoted(f'{text.name}={found}')} takes them so"
        digits = numbers.cast(pl.Int64).cast(pl.String).alias(text.name)
        notice = (
            f"holds numbers that are dates as {found}, taken so; --numeric {quoted(text.name)} takes them as numbers"
        )
        return Kept(as_counts(digits, found, self.refuse_in(text)), notice, found)

    def refuse_in(self, text: pl.Series) -> Refuse:
        """What makes an error of a row of a column."""
        return partial(self._refusal, text.name)

    def _refusal(self, name: str, row: int, reason: str) -> UnveilError:
        return UnveilError(f'{self.place(row)}, column "{name}": {reason}')

    def _text(self, series: pl.Series) -> pl.Series:
        """Every cell as text, null where missing; what Unveil writes for a missing value is one."""
        if series.dtype.is_float():
            series = series.fill_nan(None)
        text = series.cast(pl.String).str.strip_chars()
        return text.set(text.is_in(["", MISSING, *self.missing]), None)

    def _is_numeric(self, text: pl.Series, numbers: pl.Series) -> bool:
        """Raises UnveilError for a column of quantities with something else in it."""
        if not numbers.count() or _are_codes(text, numbers):
            return False
        if numbers.count() == text.count():
            return True
        is_half = 2 * numbers.count() >= text.count()
        if is_half and (numbers.drop_nulls().n_unique() > _MAX_CODES or text.n_unique() > _MAX_MIXED):
            raise self._no_number(text, numbers)
        return False

    def _no_number(self, text: pl.Series, numbers: pl.Series) -> UnveilError:
        row = _first_without(text, numbers)
        noun = "a number" if text.cast(pl.Float64, strict=False)[row] is None else "a finite number"
        others = f", as {numbers.count():,} of {text.count():,} cells are" if numbers.count() else ""
        ways = (
            "correct it, add it to data.missing, or choose: "
            f"--categorical {quoted(text.name)} takes the column as levels, --drop {quoted(text.name)} leaves it out"
        )
        return self._refusal(text.name, row, f"{quoted(text[row])} is not {noun}{others}; {ways}")

    def _numeric(self, text: pl.Series, numbers: pl.Series, *, is_chosen: bool, is_text: bool) -> Kept | Dropped:
        if numbers.count() < text.count():
            raise self._no_number(text, numbers)
        if not is_chosen and _counts_rows(numbers):
            return Dropped("is an index: it counts the rows", "--numeric")
        cells = numbers.fill_null(float("nan")).to_numpy().astype(np.float64)
        if not is_text:
            return Kept(cells, _constant(text))
        notice = _constant(text) or (doubt(text) if self.prefers_comma and not is_chosen else None)
        return Kept(cells, notice, style=unusual_style(text))

    def _categorical(self, text: pl.Series, numbers: pl.Series, *, is_chosen: bool) -> Kept | Dropped:
        present = text.drop_nulls()
        num_levels, (noun, nouns) = present.n_unique(), _nouns(present, numbers)
        if not is_chosen and num_levels > MAX_LEVELS:
            return Dropped(f"has {num_levels} different {nouns}, more than {MAX_LEVELS}", "--categorical")
        if not is_chosen and num_levels == len(present) > _FEW_ROWS:
            return Dropped(f"has a different {noun} in every row", "--categorical")
        notice = None if is_chosen else self._numbers_as_levels(text, numbers)
        return Kept(np.array(text.to_list(), dtype=object), notice or _constant(text))

    def _numbers_as_levels(self, text: pl.Series, numbers: pl.Series) -> str | None:
        """What to say of numbers that are levels, and where the first cell of the rarer sort is; None without any."""
        if not numbers.count():
            return None
        if numbers.count() == text.count():
            return "holds numbers, taken as levels"
        is_odd_number = 2 * numbers.count() < text.count()
        row = int(numbers.is_not_null().arg_max() or 0) if is_odd_number else _first_without(text, numbers)
        said = "the first number" if is_odd_number else "the first that is no number"
        return f"holds numbers and texts, taken as levels; {said} is {quoted(text[row])} ({self.place(row)})"

    def _unusable(self, series: pl.Series, choice: ColumnChoice | None, reason: str) -> Dropped:
        if choice is not None:
            raise self._refusal(series.name, 0, reason)
        return Dropped(reason)


def _is_extension(dtype: pl.DataType) -> bool:
    """A type of another library's own, a period of pandas say; the oldest polars knows none."""
    return bool(getattr(dtype, "is_extension", lambda: False)())


def _are_codes(text: pl.Series, numbers: pl.Series) -> bool:
    """Whether what looks like numbers are names: 007, or whole numbers beyond what a float tells apart."""
    written = text.filter(numbers.is_not_null())
    has_zeros = bool(written.str.contains(r"^[+-]?0[0-9]").any())
    largest = float(np.abs(numbers.drop_nulls().to_numpy()).max())
    return has_zeros or (largest >= _EXACT and not written.str.contains(r"[.eE]").any())


def _first_without(text: pl.Series, numbers: pl.Series) -> int:
    """The first row of which the cell is there and no number."""
    row = (text.is_not_null() & numbers.is_null()).arg_max()
    assert row is not None
    return row


def _nouns(present: pl.Series, numbers: pl.Series) -> tuple[str, str]:
    """What the cells of a column of levels are called: one, several."""
    if not numbers.count():
        return "text", "texts"
    return ("code", "codes") if numbers.count() == len(present) else ("number or text", "numbers and texts")


def _constant(text: pl.Series) -> str | None:
    if text.drop_nulls().n_unique() > 1:
        return None
    return "has one value, or none" if text.null_count() else "has the same value in every row"


def _counts_rows(numbers: pl.Series) -> bool:
    values = np.sort(numbers.to_numpy())
    is_whole = numbers.null_count() == 0 and bool(np.all(values == np.floor(values)))
    return is_whole and len(values) > _FEW_ROWS and bool(np.all(np.diff(values) == 1))
