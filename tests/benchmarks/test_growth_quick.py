"""The growth benchmark measures every sweep under both kinds of order."""

from tests.benchmarks.quick import run
from unveil.benchmarks.speed.growth import ORDERS, QUICK


def test_every_sweep_is_measured_under_both_orders() -> None:
    rows = run("growth")["rows"]
    assert [(row["sweep"], row[row["sweep"]], row["order"]) for row in rows] == [
        (name, value, order) for name, values in QUICK.items() for value in values for order in ORDERS
    ]
    assert all(row["seconds_a_canvas"] > 0 and row["peak_megabytes"] >= 0 for row in rows)
