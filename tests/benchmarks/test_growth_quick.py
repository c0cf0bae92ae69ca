"""The growth benchmark measures every sweep under both kinds of order, along the order and by whole canvases."""

from tests.benchmarks.quick import run
from unveil.benchmarks.speed.growth import ORDERS, QUICK, SIDES, as_text


def test_every_sweep_is_measured_under_both_orders_on_both_sides() -> None:
    rows = run("growth")["rows"]
    assert [(row["sweep"], row[row["sweep"]], row["order"], row["side"]) for row in rows] == [
        (name, value, order, side)
        for name, values in QUICK.items()
        for value in values
        for order in ORDERS
        for side in SIDES
    ]
    assert all(row["microseconds_a_token"] > 0 and row["peak_megabytes"] >= 0 for row in rows)
    assert all((row["row_kilobytes"] > 0) == (row["side"] == "along") for row in rows)
    text = as_text(rows, QUICK)
    assert text.count("| uniform, along |") == text.count("| confidence, whole |") == len(QUICK)
