"""Rows into train, validation and test, and a table's cells into ids. Knows no file and no inference of kinds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tokenizers.table import Cells, TableTokenizer
from training.data.dataset import Rows

Index = NDArray[np.int64]
Columns = Mapping[str, Cells]


@dataclass(frozen=True, slots=True)
class EncodedSplits:
    """`rows` and `fates` have the keys train, validation, test; a fate is JSON for the summary."""

    tokenizer: TableTokenizer
    rows: Mapping[str, Rows]
    fates: Mapping[str, Mapping[str, Any]]


def draw_out(num_rows: int, *, shares: tuple[float, ...], seed: int) -> tuple[Index, ...]:
    """Random disjoint parts of 0..num_rows-1, each ascending: the rest first, then one for each share (at least 1)."""
    sizes = [max(1, round(share * num_rows)) for share in shares]
    order = np.random.default_rng(seed).permutation(num_rows)
    parts = np.split(order, np.cumsum(sizes))
    return tuple(np.sort(part) for part in (parts[-1], *parts[:-1]))


def take(columns: Columns, rows: Index) -> dict[str, Cells]:
    return {name: cells[rows] for name, cells in columns.items()}


def fit_and_encode(
    train: Columns,
    *,
    validation: Columns,
    test: Columns,
    max_bins: int | Mapping[str, int],
    date_formats: Mapping[str, str] | None = None,
) -> EncodedSplits:
    """Bins and levels from the training rows alone, then the ids of all three splits.

    A row with a level that training never saw has no likelihood under the model: it is left out and counted. A number
    that no bin holds goes to the nearest one, and is counted.
    """
    tokenizer = TableTokenizer.fit(train, max_bins=max_bins, date_formats=date_formats)
    rows: dict[str, Rows] = {}
    fates: dict[str, dict[str, Any]] = {}
    for name, columns in (("train", train), ("validation", validation), ("test", test)):
        encoded = tokenizer.encode_rows(columns)
        rows[name] = encoded.tokens[encoded.is_known]
        fates[name] = {
            "rows": len(rows[name]),
            "rows_left_out": int((~encoded.is_known).sum()),
            "unseen_levels": dict(encoded.num_unseen),
            "moved_numbers": dict(encoded.num_moved),
        }
    return EncodedSplits(tokenizer, rows, fates)


def notices_of(fates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each split from which rows had to be left out."""
    return [
        f"{fate['rows_left_out']} of {fate['rows'] + fate['rows_left_out']} {name} rows have a level that no training "
        f"row has ({', '.join(fate['unseen_levels'])}): left out"
        for name, fate in fates.items()
        if fate["rows_left_out"]
    ]
