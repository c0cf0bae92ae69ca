"""The quick variant of benchmarks/domains/imported.py prints what it says; its holes are halves; its gains are
paired."""

from pathlib import Path

import pytest

from tests.benchmarks.quick import run_one_seed
from tests.model.artifacts import text_tokenizer
from unveil.benchmarks.domains.imported import POLICIES, QUICK, as_text, summary, with_holes
from unveil.benchmarks.domains.problems.rxnmapper import moses, rxnmapper
from unveil.commands.training import cache_folder
from unveil.model.errors import UnveilError


def _result(seed: int, learned: float, others: float) -> dict[str, object]:
    found = {name: {"valid": learned if name == "learned" else others, "recovered": others} for name in POLICIES}
    return {"seed": seed, "molecules": 10, "temperatures": {"1": found}}


def test_gains_are_paired_by_seed() -> None:
    report = summary([_result(0, 0.5, 0.4), _result(1, 0.9, 0.8)])
    valid = report["temperatures"]["1"]["valid"]
    assert set(valid["gained"]) == {"confidence", "margin", "random"}
    for gain in valid["gained"].values():
        assert gain["mean"] == pytest.approx(0.1)
        assert gain["high"] - gain["low"] < 1e-9
    assert valid["orders"]["learned"]["mean"] == pytest.approx(0.7)
    assert "| confidence | 0.600 [" in as_text(report)
    assert "+0.100 [+0.100, +0.100]" in as_text(report)


def test_half_of_each_text_is_hidden_and_the_same_half_again() -> None:
    texts = ["abcdef", "abc", "abcdefgh"]
    rows, holes = with_holes(texts, text_tokenizer(), seed=3)
    assert [len(row) for row in rows] == [6, 3, 8]
    assert [sum(hole) for hole in holes] == [3, 2, 4]
    assert with_holes(texts, text_tokenizer(), seed=3)[1] == holes
    assert with_holes(texts, text_tokenizer(), seed=4)[1] != holes


def test_the_quick_variant_learns_an_order_and_fills_in_molecules(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    try:
        rxnmapper(cache_folder())
        moses("test", 1, seed=0, cache=cache_folder())
    except UnveilError as error:
        pytest.skip(f"the model or the molecules cannot be had here: {error}")
    report = run_one_seed("imported", tmp_path)
    assert report["molecules_a_seed"] == QUICK["test"]
    for metrics in report["temperatures"].values():
        for figure in metrics.values():
            assert set(figure["orders"]) == set(POLICIES)
            assert all(0.0 <= found["mean"] <= 1.0 for found in figure["orders"].values())
    assert (tmp_path / "rxnmapper" / "README.md").is_file()
    assert run_one_seed("imported", tmp_path) == report  # found again
