"""Detection of generated rows: what it prints fits together, and its judges tell what is unlike from what is alike."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.apart import apart
from tests.benchmarks.quick import call, run_one_seed
from tests.training.small import write_csv
from unveil.benchmarks.domains.problems.reals import write_reals
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.training.evaluation.judging.detection import detection, usefulness

needs_judges = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("sdmetrics", "sklearn", "xgboost")),
    reason="sdmetrics and xgboost are not here; they come with unveil[bench]",
)


def _rows(seed: int, *, dependent: bool = True, num: int = 1500) -> dict[str, Cells]:
    """A number, a level that mostly says its sign, and a number with missing values."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=num)
    noise = generator.normal(size=num)
    level = np.where((x if dependent else generator.normal(size=num)) + 0.3 * noise > 0, "high", "low")
    other = np.where(generator.random(num) < 0.1, np.nan, generator.normal(size=num))
    return {"x": x, "level": level.astype(object), "other": other}


def _detected() -> list[dict[str, Any]]:
    return [detection(_rows(0), other, categorical=["level"]) for other in (_rows(1), _rows(1, dependent=False))]


def _used() -> list[dict[str, Any]]:
    columns = list(TableTokenizer.fit(_rows(0)).columns)
    asked = ((_rows(0), columns[1]), (_rows(0, dependent=False), columns[1]), (_rows(0), columns[0]))
    return [usefulness(rows, _rows(1), target=target, columns=columns) for rows, target in asked]


@needs_judges
def test_rows_of_one_law_are_not_told_apart_and_those_without_its_dependence_are() -> None:
    same, unlike = apart(_detected)
    assert same["xgboost"] > 0.9
    assert same["logistic"] > 0.9
    assert unlike["xgboost"] < 0.6
    assert unlike["logistic"] > 0.8  # it sees no dependence between columns, so it is no judge of joint laws


@needs_judges
def test_what_is_trained_on_rows_without_the_dependence_is_of_no_use() -> None:
    useful, useless, numeric = apart(_used)
    assert useful["auc"] > 0.95
    assert abs(useless["auc"] - 0.5) < 0.1
    assert numeric["rmse"] < 0.9  # its standard deviation is 1


@needs_judges
def test_a_table_is_trained_drawn_from_and_judged_beside_real_rows(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "own.csv")
    arguments = ("--table", str(table), "--set", "model.width=16")
    report = run_one_seed("detection", tmp_path / "work", *arguments)
    (model,) = report["models"]
    (seed,) = model["seeds"]
    assert len(set(seed["order"])) == len(seed["order"]) > 2
    for side in ("generated", "test rows"):
        assert all(0 <= model[side][name]["mean"] <= 1 for name in ("xgboost", "logistic", "shape", "trend"))
    assert model["generated"] != model["test rows"]


@needs_judges
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "give an --artifact, a --recipe or a --table"),
        (("--table", "shoppers.csv", "--drop", "x"), "shoppers.csv"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: tuple[str, ...], line: str) -> None:
    result = call("detection", *arguments)
    assert result.returncode != 0
    assert line in result.stderr.splitlines()[-1]


def test_the_made_table_is_the_same_in_each_call_and_its_columns_follow_from_others(tmp_path: Path) -> None:
    first, again = (write_reals(tmp_path / name, rows=2000).read_text() for name in ("a.csv", "b.csv"))
    assert first == again
    columns = np.array([line.split(",")[:10] for line in first.splitlines()[1:]], dtype=np.float64).T
    assert columns.shape == (10, 2000)
    product = np.log10(columns[0] * columns[1])
    assert np.corrcoef(columns[2], product)[0, 1] > 0.9
    assert ((columns[4] >= 0) & (columns[4] <= columns[3] + 1e-4)).all()
