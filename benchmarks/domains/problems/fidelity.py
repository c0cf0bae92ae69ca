"""How like the real rows a net's samples are: sdmetrics' Column Shapes and Column Pair Trends.

Real rows are the file's own values, not bins; samples are decoded as the service does, a number being drawn within its
bin. The two scores are those of TabSyn's and TabDiff's evaluation, without the thresholds that later releases of
sdmetrics leave weak pairs out by. `training/evaluation/fidelity.py` has the same two for `unveil evaluate`, of bins and
without sdmetrics; tests/training/evaluation/test_fidelity.py holds both to the same figures.
"""

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from unveil.model.tokenizers.table.table import Cells
from unveil.training.data.rows import evenly_spaced
from unveil.training.evaluation.judging.rows import Frame, frame

NEEDED = "Shape and Trend take sdmetrics: pip install 'unveil[bench]'; `tables` goes without by --no-fidelity"


def require_sdmetrics() -> None:
    """Exits with one line where it is not installed."""
    if find_spec("sdmetrics") is None:
        raise SystemExit(f"error: {NEEDED}")


def cut(columns: Mapping[str, Cells], limit: int) -> dict[str, Cells]:
    """At most `limit` of the rows, evenly spaced."""
    return {name: cells[evenly_spaced(len(cells), limit)] for name, cells in columns.items()}


def shape_and_trend(
    real: Mapping[str, Cells], other: Mapping[str, Cells], *, categorical: Sequence[str]
) -> dict[str, Any]:
    """Scores in [0, 1], 1 being alike: means over columns and over pairs of columns, and the worst of each."""
    kinds = {name: {"sdtype": "categorical" if name in categorical else "numerical"} for name in real}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = import_module("sdmetrics.reports.single_table").QualityReport()
        report.real_correlation_threshold = report.real_association_threshold = 0
        report.generate(frame(real, categorical), frame(other, categorical), {"columns": kinds}, verbose=False)
        scores = dict(report.get_properties().itertuples(index=False))
        shapes, trends = (report.get_details(name) for name in ("Column Shapes", "Column Pair Trends"))
    return {
        "shape": float(scores["Column Shapes"]),
        "trend": float(scores["Column Pair Trends"]),
        "rows": len(next(iter(other.values()))),
        "worst_shapes": _worst(shapes, ["Column"]),
        "worst_trends": _worst(trends, ["Column 1", "Column 2"]),
    }


def _worst(details: Frame, names: Sequence[str]) -> dict[str, float]:
    lowest = details.sort_values("Score").head(5)
    return {" x ".join(str(row[n]) for n in names): float(row["Score"]) for _, row in lowest.iterrows()}
