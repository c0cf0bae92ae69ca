"""Every benchmark's quick variant runs and prints what docs/results.md says it prints."""

from pathlib import Path

import pytest

from tests.benchmarks.quick import run, run_one_seed


def test_attention_compares_both_sides_at_every_shape_and_precision() -> None:
    rows = run("attention", "--threads", "1")["rows"]
    assert len(rows) == 4
    assert all(row["fused_ms"] > 0 and row["written_ms"] > 0 for row in rows)


def test_known_order_sets_what_was_learned_between_uniform_and_best(tmp_path: Path) -> None:
    report = run_one_seed("known_order", tmp_path)
    (seed,) = report["seeds"]
    losses = {arm: value["mean"] for arm, value in seed["nelbo"].items()}
    gap = (losses["uniform"] - losses["learned"]) / (losses["uniform"] - losses["best"])
    assert seed["gap_closed"] == report["gap_closed_min"] == pytest.approx(gap)
    assert all(loss > report["entropy"] for loss in losses.values())  # no order goes below the truth
    assert -1 <= seed["kendall_tau"] <= 1
    assert run_one_seed("known_order", tmp_path) == report  # found again, not trained again


def test_selector_sets_every_policy_between_its_exact_optima(tmp_path: Path) -> None:
    report = run_one_seed("selector", tmp_path)
    (seed,) = report["seeds"]
    nats = seed["nats"]
    optimum, best = nats["contextual optimum"], nats["best single order"]
    assert seed["entropy"] < optimum <= best <= nats["uniform orders"]
    assert nats["global, learned"] >= best - 1e-9
    for name, gained in seed["context_gained"].items():
        assert nats[name] >= optimum - 1e-9
        assert gained == pytest.approx((best - nats[name]) / (best - optimum))
