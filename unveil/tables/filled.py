"""DataFrames with their empty cells filled in, as they were otherwise."""

from typing import Any

import polars as pl

from unveil.model.artifact.manifest import Manifest
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import quoted
from unveil.tables.filling import Decodes, Filled, Wishes, fill, filled_frame, filled_series, missing_texts, position_of
from unveil.tables.frames import arrow_array, kind_of, pandas_series, to_polars


def impute(model: Decodes, tokenizer: TableTokenizer, manifest: Manifest, data: Any, wishes: Wishes) -> Any:
    """See `unveil.tables.methods`."""
    frame, kind = to_polars(data), kind_of(data)
    filled = fill(model, tokenizer, frame, missing=missing_texts(manifest), wishes=wishes)
    if kind == "pandas":
        return _pandas(data, tokenizer, frame, filled)
    whole = filled_frame(tokenizer, frame, filled.samples[0])
    if kind == "polars":
        return whole
    changed = {tokenizer.columns[position].name for position in filled.samples[0]}
    if kind == "dict":
        return {name: whole[name].to_list() if name in changed else cells for name, cells in data.items()}
    for i, name in enumerate(data.column_names):
        if name in changed:
            own = data.schema.field(i)
            cells = arrow_array(whole[name], own.type)
            data = data.set_column(i, own.with_type(cells.type), cells)
    return data


def _pandas(data: Any, tokenizer: TableTokenizer, frame: pl.DataFrame, filled: Filled) -> Any:
    """Cell by cell, so that what was known stays the very object that it was."""
    whole = data.copy()
    sample = filled.samples[0]
    for name, values in filled_series(tokenizer, frame, sample).items():
        rows, column = sample[position_of(tokenizer, name)].rows, data[name]
        dtype = column.dtype
        if str(dtype) == "category":
            new = [level for level in values.unique().to_list() if level not in dtype.categories]
            column = column.cat.add_categories(new) if new else column
        cells = column.copy()
        try:
            cells.iloc[rows] = pandas_series(values, None if str(dtype) == "category" else dtype).array
        except (TypeError, ValueError) as error:
            reason = f"the model's values are no {dtype}: {str(error).splitlines()[0]}"
            raise UnveilError(f"column {quoted(name)}: {reason}", param=name) from None
        whole[name] = cells
    return whole
