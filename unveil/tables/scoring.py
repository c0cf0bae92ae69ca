"""Rows of a DataFrame as prompts of which everything is known, to be scored."""

import polars as pl

from unveil.model.artifact.manifest import Manifest
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.columns import MISSING
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import quoted
from unveil.tables.cells import Cell, encode
from unveil.tables.filling import missing_texts


def prompts_of(tokenizer: TableTokenizer, manifest: Manifest, frame: pl.DataFrame) -> list[dict[str, Cell]]:
    """A row each; what is empty is a missing value. Raises UnveilError naming row and column where there are none, and
    for cells that the model does not know."""
    columns = encode(tokenizer, frame, missing=missing_texts(manifest)).cells
    for position, cells in columns.items():
        column = tokenizer.columns[position]
        if not column.missing and None in cells:
            reason = f"column {quoted(column.name)} is empty, and had no missing value in training"
            raise UnveilError(f"row {cells.index(None)} (counted from 0): {reason}", param=column.name)
    names = [tokenizer.columns[position].name for position in columns]
    return [
        {name: MISSING if cell is None else cell for name, cell in zip(names, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
