"""Bins of a numeric column from its training values: equal mass, heavy values alone."""

from collections.abc import Iterator
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from unveil.model.tokenizers.table.columns import MAX_DECIMALS, Bin
from unveil.model.tokenizers.table.dates import Unit

MAX_WEIGHTED = 24
NUM_QUANTILES = 17
_EXACT = 2.0**53
_SECOND = 10**6
_MICROSECONDS = {"us": 1, "s": _SECOND, "m": 60 * _SECOND, "D": 86400 * _SECOND}
_SECONDS = (1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400, 604800)
_NATURAL = (10, 100, 1000, 10_000, 100_000, *(seconds * _SECOND for seconds in _SECONDS))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def num_decimals(values: Floats) -> int | None:
    """The decimals that write every one of the finite `values` [N] exactly; None where a float has no room for them."""
    needed = max(-int(Decimal(repr(float(x))).normalize().as_tuple().exponent) for x in np.unique(values))
    decimals = max(needed, 0)
    is_exact = decimals <= MAX_DECIMALS and float(np.abs(values).max()) < _EXACT / 10**decimals
    return decimals if is_exact else None


def coarsest_step(counts: Floats, unit: Unit) -> int:
    """The coarsest natural step, an hour say, that all differences of the whole numbers `counts` [N] are made of."""
    distinct = np.unique(counts).astype(np.int64)
    shared = int(np.gcd.reduce(np.diff(distinct))) if len(distinct) > 1 else 1
    return max((step for step in _steps(unit) if shared % step == 0), default=1)


def _steps(unit: Unit) -> Iterator[int]:
    """In a unit, ascending or not: years and quarters of months; weeks, days, parts of them, and parts of seconds."""
    if unit == "M":
        yield from (3, 12)
        return
    size = _MICROSECONDS[unit]
    yield from (step // size for step in _NATURAL if step % size == 0)


def fit_bins(values: Floats, *, max_bins: int) -> tuple[Bin, ...]:
    """At most `max_bins` ascending bins of about equal mass over the finite `values` [N], N >= 1.

    Up to `max_bins` distinct values get a bin each. Otherwise a value that holds a share of 1 / max_bins or more gets a
    bin of its own (heaviest first, while bins are left for what lies between), and the values between two of those are
    cut into bins of about equal mass.
    """
    assert len(values) >= 1
    assert max_bins >= 1
    distinct, counts = np.unique(values + 0.0, return_counts=True)  # + 0.0 turns -0.0 into 0.0
    starts = np.arange(len(distinct)) if len(distinct) <= max_bins else _starts(counts, max_bins=max_bins)
    return tuple(_bin(d, c) for d, c in zip(np.split(distinct, starts[1:]), np.split(counts, starts[1:]), strict=True))


def _bin(distinct: Floats, counts: Ints) -> Bin:
    if len(distinct) <= MAX_WEIGHTED:
        return Bin(values=tuple(map(float, distinct)), weights=tuple(map(int, counts)))
    # Inverted: each quantile is a training value, so it has the column's decimals.
    cumulated = np.cumsum(counts)
    ranks = np.ceil(np.linspace(0, 1, NUM_QUANTILES) * cumulated[-1]).clip(1)
    places = np.searchsorted(cumulated, ranks)
    places[-1] = len(distinct) - 1
    return Bin(values=tuple(float(distinct[i]) for i in places))


def _starts(counts: Ints, *, max_bins: int) -> NDArray[np.intp]:
    """The indices of `counts` (one per distinct value, more than `max_bins`) at which bins begin."""
    segments = _segments(_alone(counts, max_bins=max_bins), len(counts))
    shares = _share_out([counts[a:b] for a, b, _ in segments], [is_alone for *_, is_alone in segments], max_bins)
    starts: list[int] = []
    for (a, b, _), share in zip(segments, shares, strict=True):
        starts += [a + i for i in _cuts(counts[a:b], share)]
    return np.array(starts, dtype=np.intp)


def _alone(counts: Ints, *, max_bins: int) -> set[int]:
    """The heavy values that get a bin of their own."""
    heavy = np.flatnonzero(counts * max_bins >= counts.sum())
    alone: set[int] = set()
    for i in heavy[np.argsort(-counts[heavy], kind="stable")]:
        if len(list(_segments(alone | {int(i)}, len(counts)))) <= max_bins:
            alone.add(int(i))
    return alone


def _segments(alone: set[int], num: int) -> list[tuple[int, int, bool]]:
    """Half-open ranges covering 0..num: each of `alone` by itself, and what lies between."""

    def pieces() -> Iterator[tuple[int, int, bool]]:
        at = 0
        for i in sorted(alone):
            yield at, i, False
            yield i, i + 1, True
            at = i + 1
        yield at, num, False

    return [piece for piece in pieces() if piece[0] < piece[1]]


def _share_out(segments: list[Ints], is_alone: list[bool], num_bins: int) -> list[int]:
    """Bins for each segment: one each, then always one more where a bin holds most."""
    masses = [int(counts.sum()) for counts in segments]
    most = [1 if alone else len(counts) for counts, alone in zip(segments, is_alone, strict=True)]
    shares = [1] * len(segments)
    for _ in range(num_bins - len(segments)):
        loads = [m / k if k < top else 0.0 for m, k, top in zip(masses, shares, most, strict=True)]
        if max(loads) == 0.0:
            break
        shares[int(np.argmax(loads))] += 1
    return shares


def _cuts(counts: Ints, num_bins: int) -> list[int]:
    """Where `num_bins` bins of about equal mass begin, none of them empty."""
    cumulated = np.concatenate([[0], np.cumsum(counts)])
    cuts = [0]
    for k in range(1, num_bins):
        done = cumulated[cuts[-1]]
        target = done + (cumulated[-1] - done) / (num_bins - k + 1)
        above = int(np.searchsorted(cumulated, target))
        nearest = above - int(target - cumulated[above - 1] <= cumulated[above] - target)
        cuts.append(min(max(nearest, cuts[-1] + 1), len(counts) - (num_bins - k)))
    return cuts
