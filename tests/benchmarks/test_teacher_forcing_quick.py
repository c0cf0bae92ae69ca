"""Teacher forcing: the quick variant trains every way at equal work, and says what each costs."""

from pathlib import Path

import pytest

from tests.benchmarks.quick import run_one_seed
from tests.training.molecules import MOLECULES
from unveil.benchmarks.orders.teacher_forcing import ORDERS, WAYS, as_text


def test_the_quick_variant_sets_whole_orders_beside_single_steps(tmp_path: Path) -> None:
    report = run_one_seed("teacher_forcing", tmp_path, "--smiles", str(MOLECULES))
    assert list(report["ways"]) == list(ORDERS)
    runs = {
        (order, way): run
        for (order, way), run in zip(((o, w) for o in ORDERS for w in WAYS), report["seeds"], strict=True)
    }
    for order in ORDERS:
        assert list(report["ways"][order]) == list(WAYS)
        steps = [runs[order, way]["steps"] for way in WAYS]
        assert steps == [8, 4], "a forward of whole orders costs about two"
        nats = {way: runs[order, way]["nats"] for way in WAYS}
        assert len(set(nats.values())) == len(WAYS), "different nets"
        for way in WAYS[:-1]:
            less = report["whole_order_minus"][order][way]["mean"]
            assert less == pytest.approx(nats["whole order"] - nats[way])
        assert all(runs[order, way]["cpu_seconds"] > 0 for way in WAYS)
    assert "whole order minus next step" in as_text(report)
    assert run_one_seed("teacher_forcing", tmp_path, "--smiles", str(MOLECULES)) == report  # found again
