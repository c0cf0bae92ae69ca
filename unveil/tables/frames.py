"""DataFrames of polars, pandas and pyarrow, and dicts of columns: to polars, and back to what they were.

A library is imported only where one of its DataFrames is given or asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, cast, get_args

import polars as pl

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.wording import quoted

Kind = Literal["polars", "pandas", "pyarrow", "dict"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TYPES: dict[Kind, tuple[str, str]] = {
    "polars": ("polars", "DataFrame"),
    "pandas": ("pandas", "DataFrame"),
    "pyarrow": ("pyarrow", "Table"),
    "dict": ("builtins", "dict"),
}


def kind_of(data: object) -> Kind:
    """Raises UnveilError for what is no DataFrame."""
    classes = {(base.__module__.partition(".")[0], base.__name__) for base in type(data).__mro__}
    found = next((kind for kind, name in _TYPES.items() if name in classes), None)
    if found is None:
        raise UnveilError(
            "data must be a DataFrame of pandas or polars, a pyarrow Table or a dict of columns, got "
            f"{type(data).__module__}.{type(data).__qualname__}",
            param="data",
        )
    return found


def to_polars(data: Any) -> pl.DataFrame:
    """The same table in polars, without pandas' index. Raises UnveilError, naming the column where one is to blame."""
    kind = kind_of(data)
    if kind == "polars":
        return cast(pl.DataFrame, data)
    names = list(data) if kind in ("pandas", "dict") else data.column_names
    _check_names(names)
    columns = [_series(name, data[name], kind) for name in names]
    lengths = {len(column): column.name for column in columns}
    if len(lengths) > 1:
        first, second = list(lengths.items())[:2]
        raise UnveilError(f"column {quoted(second[1])} has {second[0]} rows, column {quoted(first[1])} {first[0]}")
    return pl.DataFrame(columns)


def _check_names(names: Sequence[object]) -> None:
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise UnveilError(f"the name of column {i + 1} must be a text, got {name!r}")
        if name in names[:i]:
            raise UnveilError(f"two columns are named {quoted(name)}", param=name)


def _series(name: str, column: Any, kind: Kind) -> pl.Series:
    try:
        if kind == "dict":
            return pl.Series(name, list(column), strict=True)
        if kind == "pyarrow":
            return pl.Series(name, pl.from_arrow(column))
        try:
            return pl.Series(name, pl.from_pandas(column))
        except ModuleNotFoundError:  # pandas without pyarrow
            gaps = column.isna().tolist()
            cells = [None if gap else cell for cell, gap in zip(column.tolist(), gaps, strict=True)]
            return pl.Series(name, cells, strict=True)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnveilError(f"column {quoted(name)} cannot be read: {reason}", param=name) from None


@dataclass(frozen=True)
class Likeness:
    """What kind of DataFrame a table was, and of which types its columns were: polars' own, and in `native` those of
    its library where it is another one."""

    kind: Kind
    dtypes: Mapping[str, pl.DataType] = field(default_factory=dict)
    native: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any, frame: pl.DataFrame) -> "Likeness":
        """Of data, and the same in polars."""
        kind = kind_of(data)
        if kind == "pandas":
            native = {name: data[name].dtype for name in frame.columns}
        else:
            native = dict(zip(data.schema.names, data.schema.types, strict=True)) if kind == "pyarrow" else {}
        return cls(kind, dict(frame.schema), native)

    def made(self, frame: pl.DataFrame, *, index: Any = None) -> Any:
        """A table in polars as what this is like; of pandas with an index, if one is given."""
        if self.kind == "polars":
            return frame
        if self.kind == "dict":
            return frame.to_dict(as_series=False)
        if self.kind == "pyarrow":
            arrays = {own.name: arrow_array(own, self.native.get(own.name)) for own in frame}
            return _library("pyarrow").table(arrays)
        columns = {own.name: pandas_series(own, self.native.get(own.name), index=index) for own in frame}
        return _library("pandas").DataFrame(columns, index=index)

    def numbers(self, values: Sequence[float], name: str, *, index: Any = None) -> Any:
        """A number a row, as a column of the same library."""
        if self.kind == "polars":
            return pl.Series(name, values, dtype=pl.Float64)
        if self.kind == "pandas":
            return _library("pandas").Series(list(values), index=index, name=name, dtype="float64")
        return _library("pyarrow").array(list(values), "float64") if self.kind == "pyarrow" else list(values)


def arrow_array(series: pl.Series, own: Any = None) -> Any:
    """In pyarrow, of a type of pyarrow; left out, or of no values, it is the series' own. Texts and numbers become what
    a dictionary has as well."""
    array = series.to_arrow()
    if own is None or own == array.type or str(own) == "null":
        return array
    if not str(own).startswith("dictionary"):
        return array.cast(own)
    encoded = array.cast(own.value_type).dictionary_encode()
    indices, levels = encoded.indices.cast(own.index_type), encoded.dictionary
    return _library("pyarrow").DictionaryArray.from_arrays(indices, levels, ordered=own.ordered)


def pandas_series(series: pl.Series, dtype: Any = None, *, index: Any = None) -> Any:
    """In pandas, of a type of pandas; left out, integers with gaps are Int64, which has gaps."""
    pandas = _library("pandas")
    if dtype is None and series.dtype.is_integer() and series.null_count():
        dtype = pandas.Int64Dtype()
    own = dtype if dtype is not None and str(dtype) in ("object", "Int64") else None
    if own is None and series.dtype.is_temporal() and series.dtype != pl.Time:
        own = str(_moments(series.dtype))
    cells = pandas.Series(series.to_list(), index=index, name=series.name, dtype=own)
    return cells if dtype is None or cells.dtype == dtype else cells.astype(dtype)


def _moments(dtype: pl.DataType) -> str:
    zone = getattr(dtype, "time_zone", None)
    return "datetime64[s]" if dtype == pl.Date else f"datetime64[us{f', {zone}' if zone else ''}]"


def likeness_named(name: str) -> Likeness:
    """Of a kind that was asked for by its name. Raises UnveilError."""
    found = next((kind for kind in KINDS if kind == name), None)
    if found is None:
        raise UnveilError(f"as_ must be one of {', '.join(KINDS)}, got {quoted(name)}", param="as_")
    return Likeness(found)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise UnveilError(f"as_: {name} is asked for, and is not installed", param="as_") from None
