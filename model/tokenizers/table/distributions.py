"""What a column may hold, with probabilities: levels; of numbers and dates bins, quantiles, the mean."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from unveil.model.tokenizers.base import Value
from unveil.model.tokenizers.table.columns import Bin, CategoricalColumn, Column, DateColumn, NumericColumn, outward

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def distribution(column: Column, logprobs: Mapping[int, float]) -> dict[str, Any]:
    """The law of a column whose ids have these log-probabilities, 0 in all where one is absent; as JSON.

    Of levels: `levels`, the likeliest first, a missing value as null. Of numbers and dates: `missing`, the probability
    of a missing value; `bins`, ascending, each with its ends and its probability; and of what is not missing
    `quantiles`, and of numbers the `mean` and `standard_deviation`. These are None where nothing but a missing value
    can be.
    """
    mass = {token_id: math.exp(logprob) for token_id, logprob in logprobs.items()}
    if isinstance(column, CategoricalColumn):
        ranked = sorted(mass.items(), key=lambda pair: (-pair[1], pair[0]))
        levels = [{"value": outward(column.token(i)), "probability": p} for i, p in ranked]
        return {"name": column.name, "kind": column.kind, "levels": levels}
    missing = mass.pop(len(column.bins), 0.0)
    bins = {i: mass[i] for i in sorted(mass)}
    moments = _moments(column, bins) if isinstance(column, NumericColumn) else {}
    return {
        "name": column.name,
        "kind": column.kind,
        "missing": missing,
        **moments,
        "quantiles": {f"{q:g}": quantile(column, bins, q) for q in QUANTILES},
        "bins": [
            {"low": column.value(i, 0.0), "high": column.value(i, 1.0), "probability": p} for i, p in bins.items()
        ],
    }


def quantile(column: NumericColumn | DateColumn, bins: Mapping[int, float], q: float) -> Value | None:
    """The value below which this share of what is not missing lies, as the column shows it."""
    left = q * math.fsum(bins.values())
    for token_id, p in bins.items():
        if p >= left and p > 0:
            return column.value(token_id, left / p)
        left -= p
    last = max((i for i, p in bins.items() if p > 0), default=None)  # what rounding left over
    return None if last is None else column.value(last, 1.0)


def _moments(column: NumericColumn, bins: Mapping[int, float]) -> dict[str, float | None]:
    total = math.fsum(bins.values())
    if not total:
        return {"mean": None, "standard_deviation": None}
    own = [(p / total, *bin_moments(column.bins[i])) for i, p in bins.items()]
    mean = math.fsum(p * first for p, first, _ in own)
    variance = math.fsum(p * (spread + (first - mean) ** 2) for p, first, spread in own)
    return {"mean": mean, "standard_deviation": math.sqrt(max(variance, 0.0))}


def bin_moments(own: Bin) -> tuple[float, float]:
    """Mean and variance of the values that a bin is drawn as: counted ones, or even between neighbouring quantiles."""
    if own.weights is not None:
        total = sum(own.weights)
        mean = math.fsum(w * x for w, x in zip(own.weights, own.values, strict=True)) / total
        return mean, math.fsum(w * (x - mean) ** 2 for w, x in zip(own.weights, own.values, strict=True)) / total
    parts = [(a, b) for a, b in pairwise(own.values)]
    if not parts:
        return own.low, 0.0
    mean = math.fsum((a + b) / 2 for a, b in parts) / len(parts)
    return mean, math.fsum((b - a) ** 2 / 12 + ((a + b) / 2 - mean) ** 2 for a, b in parts) / len(parts)
