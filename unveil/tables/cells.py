"""Cells of a DataFrame as a model's column takes them, and values of a column as cells of a type."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unveil.model.errors import PromptError, UnveilError
from unveil.model.tokenizers.base import Value
from unveil.model.tokenizers.table.columns import Column, DateColumn, NumericColumn
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import quoted
from unveil.training.data.table.dates import typed_dates

_ZONES = ("Z", " UTC", "+hh:mm", "+hhmm", "+hh")  # ends of formats that count in UTC
_LABELS = (pl.String, pl.Categorical, pl.Enum)
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Encoded:
    """Rows as the model sees them: `tokens` [N, L], what of them `is_known` [N, L], and the columns that the frame has,
    by position, with their cells [N] as prompts have them; None where a cell is empty."""

    tokens: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    cells: dict[int, list[Cell]]


Foreign = Callable[[str], None]  # told the column of each cell that the model does not know


def encode(
    tokenizer: TableTokenizer, frame: pl.DataFrame, *, missing: Collection[str], foreign: Foreign | None = None
) -> Encoded:
    """Columns of the frame that the model does not have are not looked at. `missing` are texts that mean "no value",
    besides an empty one. Raises PromptError naming row and column; with `foreign` cells stay unknown instead."""
    shape = (frame.height, tokenizer.length)
    tokens, is_known, cells = np.zeros(shape, np.int64), np.zeros(shape, np.bool_), dict[int, list[Cell]]()
    for position, column in enumerate(tokenizer.columns):
        if column.name in frame.columns:
            cells[position] = cells_of(frame[column.name], column, missing)
            ids = _ids(column, cells[position], foreign)
            is_known[:, position] = ids >= 0
            tokens[:, position] = np.maximum(ids, 0)
    if not cells:
        names = ", ".join(quoted(column.name) for column in tokenizer.columns[:5])
        raise UnveilError(f"data has none of the model's columns ({names}, …)", param="data")
    return Encoded(tokens, is_known, cells)


def _ids(column: Column, cells: Sequence[Cell], foreign: Foreign | None) -> NDArray[np.int64]:
    """[N] cells -> [N] ids, -1 where one is empty or, with `foreign`, not known to the model."""
    found: dict[Cell, int] = {}
    ids = np.full(len(cells), -1, np.int64)
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        if cell not in found:
            found[cell] = _id(column, cell, row, is_strict=foreign is None)
        ids[row] = found[cell]
        if foreign is not None and ids[row] < 0:
            foreign(column.name)
    return ids


def _id(column: Column, cell: Cell, row: int, *, is_strict: bool) -> int:
    try:
        return column.encode(cell)
    except PromptError as error:
        if not is_strict:
            return -1
        raise PromptError(f"row {row} (counted from 0): {error}", param=error.param) from None


def cells_of(series: pl.Series, column: Column, missing: Collection[str]) -> list[Cell]:
    """Cells [N] as `Column.encode` takes them, None where empty. Raises UnveilError for types that hold no values."""
    dtype = series.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Duration):
        raise UnveilError(f"column {quoted(column.name)} is of the type {dtype}, which is not read", param=column.name)
    if dtype.is_temporal():
        return list(_dates(series, column))
    if dtype.is_float() or dtype.is_decimal():
        numbers = series.cast(pl.Float64).fill_nan(None).to_list()
        return [_whole(x) for x in numbers] if isinstance(column, DateColumn) else numbers
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Null):
        return series.to_list()
    texts = series.cast(pl.String).str.strip_chars()
    return [None if text in ("", None) or text in missing else column.read(text) for text in texts]


def _whole(number: float | None) -> Cell:
    return int(number) if number is not None and number.is_integer() else number


def _dates(series: pl.Series, column: Column) -> list[str | None]:
    if not isinstance(column, DateColumn):  # levels, as training read them
        texts, _ = typed_dates(series, lambda _, reason: UnveilError(f"column {quoted(column.name)}: {reason}"))
        return texts.to_list()
    form = FORMATS[column.format]
    if series.dtype == pl.Time:
        counts = series.cast(pl.Int64) // 1000  # since midnight, in microseconds
    else:
        counts = _in_zone(series, column).cast(pl.Datetime("us")).cast(pl.Int64)
    moments = counts.fill_null(0).to_numpy().astype("datetime64[us]").astype(f"datetime64[{form.unit}]")
    units = moments.astype(np.int64).tolist()
    return [None if gap else form.show(unit) for unit, gap in zip(units, series.is_null(), strict=True)]


def _in_zone(series: pl.Series, column: DateColumn) -> pl.Series:
    """Times of a zone in UTC where the column counts in it, else as the clocks of the zone show them."""
    if getattr(series.dtype, "time_zone", None) is None:
        return series
    counted = series.dt.convert_time_zone("UTC") if column.format.endswith(_ZONES) else series
    return counted.dt.replace_time_zone(None)


def typed(column: Column, values: Sequence[Value | None], dtype: pl.DataType | None = None) -> pl.Series:
    """Values as cells of a type, None as null. Left out, the type is the column's: integers where all numbers of the
    training data are whole, dates, times or times of day, texts. Raises UnveilError naming the column."""
    if dtype is None or dtype == pl.Null:
        return _own(column, values)
    try:
        return _as_type(column, values, dtype).alias(column.name)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UnveilError(
            f"column {quoted(column.name)}: the model's values are no {dtype}: {reason}", param=column.name
        ) from None


def _as_type(column: Column, values: Sequence[Value | None], dtype: pl.DataType) -> pl.Series:
    if dtype in _LABELS:
        texts = [None if value is None else column.written(value) for value in values]
        return pl.Series(column.name, texts, dtype=pl.String).cast(dtype)
    own = _own(column, values)
    if dtype == pl.Boolean:
        return own.cast(pl.String).str.to_lowercase() == "true"
    if isinstance(dtype, pl.Datetime) and isinstance(own.dtype, pl.Datetime):
        return _moved_to_zone(own.cast(pl.Datetime(dtype.time_unit, own.dtype.time_zone)), dtype.time_zone)
    return own.round().cast(dtype) if dtype.is_integer() and own.dtype.is_float() else own.cast(dtype)


def _moved_to_zone(series: pl.Series, zone: str | None) -> pl.Series:
    assert isinstance(series.dtype, pl.Datetime)
    if series.dtype.time_zone is None or zone is None:
        return series.dt.replace_time_zone(zone)
    return series.dt.convert_time_zone(zone)


def _own(column: Column, values: Sequence[Value | None]) -> pl.Series:
    if isinstance(column, DateColumn):
        return _moments(column, values)
    if isinstance(column, NumericColumn):
        return pl.Series(column.name, values, dtype=pl.Int64 if column.decimals == 0 else pl.Float64, strict=False)
    return pl.Series(column.name, values, dtype=pl.String)


def _moments(column: DateColumn, values: Sequence[Value | None]) -> pl.Series:
    form = FORMATS[column.format]
    counts = [None if value is None else form.parse(str(value)) for value in values]
    if form.noun == "time":
        sizes = {"m": 60 * 10**9, "s": 10**9, "us": 10**3}
        nanoseconds = [None if count is None else count * sizes[form.unit] for count in counts]
        return pl.Series(column.name, nanoseconds, dtype=pl.Int64).cast(pl.Time)
    units = np.array([0 if count is None else count for count in counts], dtype=f"datetime64[{form.unit}]")
    moments = pl.Series(column.name, units.astype("datetime64[us]"), dtype=pl.Datetime("us"))
    shown = moments.cast(pl.Date) if form.unit in ("M", "D") else moments
    gaps = pl.Series([count is None for count in counts], dtype=pl.Boolean)
    found = pl.select(pl.when(~gaps).then(shown).alias(column.name)).to_series()
    return found.dt.replace_time_zone("UTC") if column.format.endswith(_ZONES) and found.dtype != pl.Date else found
