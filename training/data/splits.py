"""Rows into train, validation and test, and a table's cells into ids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unveil.model.tokenizers.table.numbers import NumberStyle
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.training.data.dataset import Rows

Index = NDArray[np.int64]
Columns = Mapping[str, Cells]


@dataclass(frozen=True, slots=True)
class EncodedSplits:
    """All have the keys train, validation, test. A fate is JSON for the summary; `left_out` are rows of a split as it
    was given, ascending."""

    tokenizer: TableTokenizer
    rows: Mapping[str, Rows]
    fates: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, Index]


def draw_out(num_rows: int, *, shares: tuple[float, ...], seed: int) -> tuple[Index, ...]:
    """Random disjoint parts of 0..num_rows-1, each ascending: the rest first, then one for each share (at least 1)."""
    sizes = [max(1, round(share * num_rows)) for share in shares]
    order = np.random.default_rng(seed).permutation(num_rows)
    parts = np.split(order, np.cumsum(sizes))
    return tuple(np.sort(part) for part in (parts[-1], *parts[:-1]))


def with_every_level(columns: Columns, parts: Sequence[Index]) -> tuple[list[Index], Index]:
    """The parts, training first, once every level has a training row, and the rows that went there for it, ascending.

    Of a level that held-out rows alone have, or of missing values, the first row goes. A column for which more than
    half of a part would have to go, names say, is left as it is.
    """
    train, *held = parts
    moved: set[int] = set()
    for cells in columns.values():
        keys = cells if cells.dtype == object else np.isnan(cells)
        seen = {*keys[train].tolist(), *keys[sorted(moved)].tolist()}
        first: dict[Any, int] = {}
        for row in np.sort(np.concatenate(held)).tolist():
            if (key := keys[row]) not in seen:
                first.setdefault(key, row)
        more = moved | set(first.values())
        if all(2 * np.isin(part, sorted(more)).sum() <= len(part) for part in held):
            moved = more
    rows = np.array(sorted(moved), dtype=np.int64)
    kept = [part[~np.isin(part, rows)] for part in held]
    return [np.sort(np.concatenate([train, rows])), *kept], rows


def take(columns: Columns, rows: Index) -> dict[str, Cells]:
    return {name: cells[rows] for name, cells in columns.items()}


def fit_and_encode(
    train: Columns,
    *,
    validation: Columns,
    test: Columns,
    max_bins: int | Mapping[str, int],
    date_formats: Mapping[str, str] | None = None,
    number_styles: Mapping[str, NumberStyle] | None = None,
    whole: Columns | None = None,
) -> EncodedSplits:
    """Bins and levels from the training rows alone, then the ids of all three splits.

    A row with a level that training never saw has no likelihood under the model: it is left out and counted. A number
    that no bin holds goes to the nearest one, and is counted. `whole` are all rows, which decide what prompts may say.
    """
    tokenizer = TableTokenizer.fit(
        train, max_bins=max_bins, date_formats=date_formats, number_styles=number_styles, whole=whole
    )
    rows: dict[str, Rows] = {}
    fates: dict[str, dict[str, Any]] = {}
    left_out: dict[str, Index] = {}
    for name, columns in (("train", train), ("validation", validation), ("test", test)):
        encoded = tokenizer.encode_rows(columns)
        rows[name] = encoded.tokens[encoded.is_known]
        left_out[name] = np.flatnonzero(~encoded.is_known)
        fates[name] = {
            "rows": len(rows[name]),
            "rows_left_out": len(left_out[name]),
            "unseen_levels": dict(encoded.num_unseen),
            "moved_numbers": dict(encoded.num_moved),
        }
    return EncodedSplits(tokenizer, rows, fates, left_out)


def notices_of(encoded: EncodedSplits, place: Callable[[str, int], str]) -> list[str]:
    """One line for each split from which rows had to be left out; `place` says where a split's row stands."""
    return [
        left_out(
            f"{fate['rows_left_out']} of {fate['rows'] + fate['rows_left_out']} {name} rows have a level that no "
            f"training row has ({', '.join(fate['unseen_levels'])})",
            place(name, int(encoded.left_out[name][0])),
        )
        for name, fate in encoded.fates.items()
        if fate["rows_left_out"]
    ]


def left_out(what: str, first: str) -> str:
    """The notice of rows which a data set does not take; `first` is where the first of them stands."""
    return f"{what}: left out (the first: {first})"
