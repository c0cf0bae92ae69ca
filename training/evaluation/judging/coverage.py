"""Alpha-precision and beta-recall (Alaa et al., 2022, arXiv 2102.08921): whether generated rows lie where real ones do,
and whether they reach everywhere.

The naive variant that synthcity, TabSyn and TabDiff print: numbers scaled to [0, 1] by the real rows, levels one by
one, Euclidean distances, both curves at 30 shares, each one minus its mean gap to the diagonal.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unveil.model.tokenizers.table.table import Cells
from unveil.training.evaluation.judging.rows import frame

_NUM_SHARES = 30
Floats = NDArray[np.float64]


def coverage(real: Mapping[str, Cells], other: Mapping[str, Cells], *, categorical: Sequence[str]) -> dict[str, float]:
    """`precision` and `recall` in [0, 1], of equally many rows of both, [N] by column."""
    x, y = _features(real, other, categorical)
    shares = np.linspace(0.0, 1.0, _NUM_SHARES)
    center, own_center = x.mean(0), y.mean(0)
    radii = np.quantile(np.linalg.norm(x - center, axis=1), shares)
    from_center = np.linalg.norm(y - center, axis=1)
    precision = (from_center[None] <= radii[:, None]).mean(1)
    neighbors = import_module("sklearn.neighbors").NearestNeighbors
    to_real = neighbors(n_neighbors=2).fit(x).kneighbors(x)[0][:, 1]  # the first is the row itself
    to_other, closest = (own[:, 0] for own in neighbors(n_neighbors=1).fit(y).kneighbors(x))
    own_distances = np.linalg.norm(y[closest] - own_center, axis=1)
    own_radii = np.quantile(own_distances, shares)
    recall = ((to_other <= to_real)[None] & (own_distances[None] <= own_radii[:, None])).mean(1)
    return {"precision": _to_diagonal(precision, shares), "recall": _to_diagonal(recall, shares)}


def _to_diagonal(curve: Floats, shares: Floats) -> float:
    return float(1.0 - np.abs(curve - shares).sum() / shares.sum())


def _features(
    real: Mapping[str, Cells], other: Mapping[str, Cells], categorical: Sequence[str]
) -> tuple[Floats, Floats]:
    """[N, F] and [M, F]; a missing number stands at the real rows' mean."""
    pandas: Any = import_module("pandas")
    frames = [frame(rows, list(categorical)) for rows in (real, other)]
    rows = pandas.concat(frames, ignore_index=True)
    rows = rows.fillna(frames[0].mean(numeric_only=True)).fillna(0.0)
    rows = pandas.get_dummies(rows, columns=list(categorical)).to_numpy(dtype=np.float64)
    x, y = rows[: len(frames[0])], rows[len(frames[0]) :]
    low, span = x.min(0), np.ptp(x, axis=0)
    scale = np.where(span > 0, span, 1.0)
    return (x - low) / scale, (y - low) / scale
