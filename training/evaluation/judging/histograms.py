"""Shares of a column's values, real ones beside generated ones."""

from collections import Counter
from typing import Any

import numpy as np

from unveil.model.tokenizers.table.columns import MISSING, Column
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.table import Cells

_MOST_LEVELS, _NUM_BINS = 12, 24
_OTHERS = "all others"


def histogram(column: Column, real: Cells, other: Cells) -> dict[str, Any]:
    """`labels`, and the `real` and `generated` share of each: the commonest levels, or equal stretches of numbers up
    to the outermost hundredths; a missing value has a bar of its own."""
    if column.kind == "categorical":
        counts = [Counter(MISSING if cell is None else cell for cell in cells) for cells in (real, other)]
        labels = [name for name, _ in sorted(counts[0].items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_LEVELS]]
        shares = [[own[name] / max(own.total(), 1) for name in labels] for own in counts]
        if len(counts[0]) > len(labels) or len(counts[1]) > len(labels):
            labels = [*labels, _OTHERS]
            shares = [[*own, 1 - sum(own)] for own in shares]
        return {"labels": labels, "real": shares[0], "generated": shares[1]}
    there = real[~np.isnan(real)]
    low, high = np.quantile(there, [0.01, 0.99])
    distinct = np.unique(there)
    if len(distinct) <= _NUM_BINS:
        edges = np.append(distinct, np.inf)
        labels = [_text(column, value) for value in distinct]
    else:
        edges = np.linspace(low, max(high, np.nextafter(low, np.inf)), _NUM_BINS + 1)
        labels = [_text(column, value) for value in edges[:-1]]
        edges[0], edges[-1] = -np.inf, np.inf
    shares = [(np.histogram(own[~np.isnan(own)], edges)[0] / max(len(own), 1)).tolist() for own in (real, other)]
    if column.missing:
        labels = [*labels, MISSING]
        shares = [[*own, float(np.isnan(cells).mean())] for own, cells in zip(shares, (real, other), strict=True)]
    return {"labels": labels, "real": shares[0], "generated": shares[1]}


def _text(column: Column, value: float) -> str:
    """Of an edge, which need not be a value that the column has."""
    if column.kind == "date":
        return FORMATS[column.format].show(value)
    decimals = 3 if column.kind == "categorical" or column.decimals is None else min(column.decimals, 3)
    return f"{value:,.{decimals}f}" if abs(value) < 1e9 else f"{value:g}"
