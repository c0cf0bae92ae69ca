"""The benchmark of recipes times real runs of them, and adds up what a bundled model takes."""

import tomllib
from pathlib import Path

import pytest

from tests.benchmarks.quick import run
from unveil.benchmarks.speed.recipes import MODELS, RECIPES, as_text, command, is_walked, start_of, totals


def test_a_recipe_is_begun_and_stopped() -> None:
    report = run("recipes")
    (row,) = report["recipes"]
    assert (row["recipe"], row["processes"]) == ("adult", 1)
    assert row["minutes"] == row["steps"] * row["seconds_a_step"] / 60 > 0
    assert report["minutes"] == {"1": {"adult": row["minutes"]}}
    assert f"| adult | 1 | {row['steps']:,} |" in as_text(report)


def test_every_recipe_of_a_bundled_model_is_timed() -> None:
    assert {path.name for path in Path("checkpoints").iterdir()} == set(MODELS)
    for model, parts in MODELS.items():
        assert tomllib.loads((RECIPES / f"{parts[-1]}.toml").read_text(encoding="utf-8"))["name"] == model


def test_a_model_of_several_recipes_takes_all_of_them_or_is_left_out() -> None:
    rows = [
        {"recipe": "adult", "processes": 1, "minutes": 2.0},
        {"recipe": "sudoku-start", "processes": 1, "minutes": 1.0},
        {"recipe": "sudoku-denoiser", "processes": 1, "minutes": 2.0},
        {"recipe": "sudoku", "processes": 1, "minutes": 3.0},
        {"recipe": "sudoku", "processes": 2, "minutes": 1.0},
    ]
    assert totals(rows) == {"1": {"adult": 2.0, "sudoku": 6.0}, "2": {}}


@pytest.mark.parametrize("processes", [1, 2])
def test_several_processes_are_started_by_torchrun(processes: int) -> None:
    words = command("sudoku-denoiser", processes, out=Path("somewhere/artifact"))
    assert ("torch.distributed.run" in words, f"--nproc-per-node={processes}" in words) == (processes > 1,) * 2
    assert f"start.artifact={start_of('sudoku-denoiser')}" in words


def test_a_recipe_goes_on_from_its_own_start_or_the_bundled_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipes = RECIPES.resolve()
    monkeypatch.setattr("unveil.benchmarks.speed.recipes.RECIPES", recipes)
    monkeypatch.chdir(tmp_path)
    assert start_of("adult") is None
    assert start_of("sudoku-denoiser") == "checkpoints/sudoku"
    Path("runs/sudoku-start").mkdir(parents=True)
    assert start_of("sudoku-denoiser") == "runs/sudoku-start"


def test_what_runs_in_one_process_counts_in_every_total() -> None:
    rows = [
        {"recipe": "sudoku-start", "processes": 2, "minutes": 2.0},
        {"recipe": "sudoku-denoiser", "processes": 2, "minutes": 3.0},
        {"recipe": "sudoku", "processes": 1, "minutes": 1.0},
    ]
    assert is_walked("sudoku")
    assert not is_walked("moses")
    assert totals(rows) == {"1": {}, "2": {"sudoku": 6.0}}
