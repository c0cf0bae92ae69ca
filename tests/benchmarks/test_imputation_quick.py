"""Imputation against boosted trees and the mode: what it prints fits together, and its measures are right."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.quick import call, run_one_seed
from unveil.benchmarks.domains.imputation import (
    ARMS,
    Guesses,
    _filled_figures,
    _hide,
    _paired,
    by_mode,
    expected_calibration_error,
)
from unveil.commands.training import cache_folder
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.config import AdultData
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset


def _dataset() -> Dataset:
    """A column of two levels and missing values, and one of three."""
    generator = np.random.default_rng(0)
    columns = {
        "a": np.array([[None, "x", "y"][v] for v in generator.integers(0, 3, 900)], dtype=object),
        "b": np.array([f"b{v}" for v in np.minimum(generator.integers(0, 4, 900), 2)], dtype=object),
    }
    tokenizer = TableTokenizer.fit(columns)
    ids = tokenizer.encode_rows(columns).tokens
    return Dataset(name="t", tokenizer=tokenizer, train=ids[:300], validation=ids[300:600], test=ids[600:])


def test_all_arms_are_scored_on_the_same_cells_of_adult(tmp_path: Path) -> None:
    if find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not here; it comes with unveil[bench]")
    try:
        load_dataset(AdultData(), cache=cache_folder())
    except UnveilError as error:
        pytest.skip(f"the data cannot be had here: {error}")
    report = run_one_seed("imputation", tmp_path)
    (table,) = report["tables"]
    (seed,) = table["seeds"]
    assert set(seed["arms"]) == set(ARMS)
    assert 0.1 < seed["cells"] / (seed["rows"] * 15) < 0.3
    assert sum(column["cells"] for column in seed["columns"].values()) == seed["cells"]
    for rival, minus in seed["unveil_minus"].items():
        for metric in ("accuracy", "nats"):
            expected = seed["arms"]["unveil"][metric] - seed["arms"][rival][metric]
            assert minus[metric]["mean"] == pytest.approx(expected, abs=1e-9)
    assert seed["train_seconds"]["unveil"] > 0
    assert 0 <= seed["filled"]["accuracy"] <= 1
    assert run_one_seed("imputation", tmp_path) == report  # found again, not trained again


def test_without_scikit_learn_it_says_so_in_one_line() -> None:
    if find_spec("sklearn") is not None:
        pytest.skip("scikit-learn is here")
    result = call("imputation", "--quick")
    assert result.returncode == 1
    assert result.stderr == "error: the comparison takes scikit-learn: pip install 'unveil[bench]'\n"


def test_cells_are_hidden_by_chance_but_never_those_without_a_value() -> None:
    dataset = _dataset()
    hidden = _hide(dataset.test, dataset, share=0.2, seed=0)
    missing = dataset.test[:, 0] == 2
    assert not hidden[missing, 0].any()
    assert 0.1 < hidden[~missing, 0].mean() < 0.3
    assert (hidden != _hide(dataset.test, dataset, share=0.2, seed=1)).any()


def test_the_mode_is_the_commonest_value_that_is_one() -> None:
    dataset = _dataset()
    hidden = _hide(dataset.test, dataset, share=0.5, seed=0)
    guesses = by_mode(dataset, dataset.test, hidden)
    column = np.nonzero(hidden)[1]
    assert set(guesses.likeliest[column == 0]) <= {0, 1}
    assert set(guesses.likeliest[column == 1]) == {2}
    assert np.all(guesses.truth > 0)


def test_the_calibration_error_is_the_gap_of_each_bin() -> None:
    confidence = np.array([0.9] * 10 + [0.5] * 10)
    hits = np.array([True] * 9 + [False] + [True] * 2 + [False] * 8)
    assert expected_calibration_error(confidence, hits) == pytest.approx((0.0 + 0.3) / 2)


def test_differences_are_paired_by_row() -> None:
    rows, hidden = np.zeros((4, 2), dtype=np.int64), np.ones((4, 2), dtype=bool)
    even, sure = np.full(8, 0.5), np.full(8, 0.5)
    right = Guesses(np.zeros(8, dtype=np.int64), sure, even)
    wrong = Guesses(np.array([1, 1, 0, 0, 0, 0, 0, 0]), sure, even)
    found = _paired(right, wrong, rows, hidden)
    assert found["accuracy"]["mean"] == 0.25
    # Residuals of the row sums 2, 0, 0, 0 about their mean, over 8 cells: 1.0 * sqrt(4) / 8.
    assert found["accuracy"]["standard_error"] == pytest.approx(0.25)
    assert found["nats"]["mean"] == 0.0


def test_cells_filled_in_some_rows_are_set_beside_the_guesses_of_those_very_cells() -> None:
    rows = np.arange(12).reshape(6, 2)
    hidden = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 1], [1, 0]], dtype=bool)
    some = np.array([1, 4])
    likeliest = rows[hidden].copy()
    likeliest[[0, 1, 6]] += 100  # wrong in rows 0, 1 and 5, once each
    guesses = Guesses(likeliest, np.full(7, 0.5), np.full(7, 0.5))
    found = _filled_figures(rows[some][hidden[some]], guesses, some, rows, hidden)
    assert (found["rows"], found["accuracy"], found["each_alone"]) == (2, 1.0, 0.75)
    assert found["difference"]["mean"] == 0.25
