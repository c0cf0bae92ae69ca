"""The law of one column in each row of a DataFrame, as a DataFrame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.columns import CategoricalColumn, Column
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import quoted
from unveil.tables.cells import encode
from unveil.tables.filling import missing_texts
from unveil.tables.frames import Likeness, to_polars

if TYPE_CHECKING:
    from unveil.api import Model

_ROWS_AT_ONCE = 2048


def predict(model: "Model", tokenizer: TableTokenizer, data: Any, name: str) -> Any:
    """See `unveil.Model.predict`. Raises UnveilError naming the column."""
    column, frame = tokenizer.columns[tokenizer.position(name)], to_polars(data)
    known = frame.drop(name, strict=False)
    cells = encode(tokenizer, known, missing=missing_texts(model.manifest)).cells
    names = [tokenizer.columns[position].name for position in cells]
    rows = zip(*cells.values(), strict=True)
    prompts = [{own: x for own, x in zip(names, row, strict=True) if x is not None} for row in rows]
    laws: list[dict[str, Any]] = []
    for start in range(0, len(prompts), _ROWS_AT_ONCE):
        reply = model.predict(prompts[start : start + _ROWS_AT_ONCE], columns=[name])
        laws += [found["columns"][0] for found in reply["predictions"]]
    shown = _levels(column, laws) if isinstance(column, CategoricalColumn) else _numbers(column, laws)
    return Likeness(Likeness.of(data, frame).kind).made(pl.DataFrame(shown), index=getattr(data, "index", None))


def _levels(column: CategoricalColumn, laws: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """A column for each level, as it is named, with its probabilities."""
    found = [{own["value"]: own["probability"] for own in law["levels"]} for law in laws]
    keys = [*column.levels, *([None] if column.missing else [])]
    return {column.token(i): [own.get(key, 0.0) for own in found] for i, key in enumerate(keys)}


def _numbers(column: Column, laws: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Mean and standard deviation of numbers, the quantiles, and the probability of a missing value where it can be."""
    shares = list(laws[0]["quantiles"]) if laws else []
    moments = [key for key in ("mean", "standard_deviation") if laws and key in laws[0]]
    found = {key: [law[key] for law in laws] for key in moments}
    found |= {share: [law["quantiles"][share] for law in laws] for share in shares}
    return found | ({"missing": [law["missing"] for law in laws]} if column.missing else {})


def check_one(columns: object) -> str:
    """The one column that is asked for. Raises UnveilError."""
    if isinstance(columns, list) and len(columns) == 1:
        columns = columns[0]
    if not isinstance(columns, str):
        message = f"columns must name one column where a DataFrame is given, got {quoted(columns)}"
        raise UnveilError(message, param="columns")
    return columns
