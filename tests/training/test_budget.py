"""A time budget becomes a number of steps, once."""

import json
from pathlib import Path

import pytest

from tests.training.small import small_dataset, small_recipe
from unveil.model.errors import UnveilError
from unveil.training import budget
from unveil.training.budget import fit_steps, parse_time

DATASET = small_dataset()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0), ("2 m", 120)]
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "-3m", "0", "5d", "1m30s", "9" * 400 + "h"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UnveilError, match=r"^--time: must be as 90s, 10m or 1\.5h, got"):
        parse_time(text)


def test_as_many_steps_are_taken_as_fit_and_no_more_than_the_recipe_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_steps_per_second", lambda *_, **__: 2.0)
    recipe = small_recipe("optimizer.steps=1000")
    fitted = fit_steps(recipe, DATASET, seconds=100.0, work=tmp_path / "a")
    assert fitted.optimizer.steps == int(2.0 * 100 * 0.95 * 0.9)
    assert fit_steps(recipe, DATASET, seconds=1e6, work=tmp_path / "b").optimizer.steps == 1000
    assert fit_steps(recipe, DATASET, seconds=1e-6, work=tmp_path / "c").optimizer.steps == 1


def test_a_resumed_run_has_the_steps_that_were_measured_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe("optimizer.steps=1000000")
    first = fit_steps(recipe, DATASET, seconds=3.0, work=tmp_path)  # really measured
    kept = json.loads((tmp_path / "budget.json").read_text())
    assert first.optimizer.steps == kept["steps"] >= 1
    monkeypatch.setattr(budget, "_steps_per_second", lambda *_, **__: 1e9)
    assert fit_steps(recipe, DATASET, seconds=3.0, work=tmp_path) == first
    with pytest.raises(UnveilError, match=r"holds a run of --time 3s; remove the folder or choose another --out"):
        fit_steps(recipe, DATASET, seconds=4.0, work=tmp_path)
