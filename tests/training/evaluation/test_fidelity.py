"""Shape and Trend: known ones by hand, those that sdmetrics printed, and where a model's figures show."""

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from tests.apart import apart
from tests.model.artifacts import random_transformer
from tests.training.small import small_dataset, small_recipe
from unveil.benchmarks.domains.problems.fidelity import shape_and_trend as by_sdmetrics
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.fidelity import fidelity, in_the_middle, shape_and_trend
from unveil.training.evaluation.report import EVALUATION_SEED, evaluate_model
from unveil.training.evaluation.tables import generate_rows
from unveil.training.publishing.card import write_card
from unveil.training.publishing.metric_tables import fidelity_rows

DATASET = small_dataset()


def _close(value: float) -> Any:
    return pytest.approx(value, abs=1e-12)


def test_two_columns_of_levels_by_hand() -> None:
    real = {"x": np.array([0, 0, 1, 1]), "y": np.array([0, 1, 0, 1])}
    other = {"x": np.array([0, 0, 0, 1]), "y": np.array([0, 0, 1, 2])}
    # x: 1/2, 1/2 beside 3/4, 1/4 differs by 1/4. y: 1/2, 1/2, 0 beside 1/2, 1/4, 1/4 differs by 1/4.
    # Pairs: 00, 01, 10, 11 a quarter each beside 00 a half, 01 and 12 a quarter: half of 1/4 + 1/4 + 1/4 + 1/4.
    assert shape_and_trend(real, other, levels=["x", "y"]) == {"shape": _close(3 / 4), "trend": _close(1 / 2)}
    assert shape_and_trend(real, real, levels=["x", "y"]) == {"shape": 1.0, "trend": 1.0}


def test_two_columns_of_numbers_by_hand() -> None:
    real = {"x": np.array([1.0, 2.0, 3.0, 4.0]), "y": np.array([2.0, 4.0, 6.0, 8.0])}
    other = {"x": np.array([1.0, 2.0, 3.0, np.nan]), "y": np.array([6.0, 4.0, 2.0, 8.0])}
    # x: at 1, 2, 3 the other's shares are 1/3, 2/3, 1 beside 1/4, 1/2, 3/4: 1/4 apart. y: the same numbers.
    # Correlations 1 and -1, of the rows that have both.
    assert shape_and_trend(real, other, levels=[]) == {"shape": _close(7 / 8), "trend": _close(0.0)}


def test_a_number_beside_a_level_is_taken_in_ten_parts_of_its_range() -> None:
    real = {"level": np.array([0, 0, 1, 1]), "number": np.array([0.0, 1.0, 9.5, 10.0])}
    other = {"level": np.array([0, 0, 1, 1]), "number": np.array([0.0, 0.5, 1.0, 10.0])}
    # The numbers' laws are 1/4 apart. Parts of the first: 0, 1, 9, the end; of the second: 0, 0, 1, the end. So half of
    # the joint law is the same.
    assert shape_and_trend(real, other, levels=["level"]) == {"shape": _close(7 / 8), "trend": _close(1 / 2)}


def test_what_is_not_defined_is_left_out_and_none_is_said_where_nothing_is_left() -> None:
    constant = {"x": np.full(3, 7.0), "y": np.array([1.0, 2.0, 3.0])}
    assert shape_and_trend(constant, constant, levels=[]) == {"shape": 1.0, "trend": None}
    missing = {"x": np.full(3, np.nan)}
    assert shape_and_trend(missing, missing, levels=[]) == {"shape": None, "trend": None}


REAL: dict[str, list[Any]] = {
    "level": ["a", "b", "a", "c", "b", "a", "a", "b", "c", "a", "b", "a"],
    "other": ["x", "x", "y", "y", "x", "y", "x", "y", "x", "x", "y", "y"],
    "number": [1.0, 2.5, 1.5, 9.0, 3.0, 0.5, 2.0, 4.5, 8.0, 1.0, 3.5, 0.0],
    "missing": [10.0, None, 14.0, 90.0, 31.0, 4.0, None, 45.0, 82.0, 11.0, 36.0, 1.0],
    "free": [0.3, -1.2, 0.8, 1.9, -0.4, 0.0, 2.2, -0.7, 0.1, 1.1, -1.5, 0.6],
}
OTHER: dict[str, list[Any]] = {
    "level": ["a", "a", "b", "c", "c", "b", "a", "d", "b", "a"],
    "other": ["y", "x", "x", "y", "y", "x", "x", "y", "x", "x"],
    "number": [2.0, 1.0, 3.0, 7.5, 8.5, 2.5, 0.5, 5.0, 4.0, 1.5],
    "missing": [18.0, 12.0, None, 70.0, 88.0, 24.0, 9.0, 52.0, 39.0, None],
    "free": [1.4, -0.2, 0.5, -1.1, 0.9, 2.6, -0.6, 0.2, -1.9, 0.7],
}
LEVELS = ["level", "other"]
# What sdmetrics 0.32.0 prints of them: QualityReport, its two thresholds for weak pairs at 0. It counts a level that no
# real row has a millionth of a row there.
SDMETRICS = {"shape": 0.8483333472222212, "trend": 0.6430516240355202}
MILLIONTH = 1e-6 / len(REAL["level"])


def _arrays(table: dict[str, list[Any]], *, dtype: type) -> dict[str, Any]:
    return {name: np.array(cells, dtype=dtype if name in LEVELS else float) for name, cells in table.items()}


def test_they_are_those_that_sdmetrics_printed() -> None:
    ours = shape_and_trend(_arrays(REAL, dtype=str), _arrays(OTHER, dtype=str), levels=LEVELS)
    assert ours["shape"] == pytest.approx(SDMETRICS["shape"], abs=MILLIONTH)
    assert ours["trend"] == pytest.approx(SDMETRICS["trend"], abs=1e-12)


@pytest.mark.skipif(find_spec("sdmetrics") is None, reason="takes sdmetrics, of the extra `bench`")
def test_sdmetrics_still_prints_them() -> None:
    theirs = apart(by_sdmetrics, _arrays(REAL, dtype=object), _arrays(OTHER, dtype=object), categorical=LEVELS)
    assert {name: theirs[name] for name in SDMETRICS} == pytest.approx(SDMETRICS, abs=1e-9)


def test_levels_stand_for_themselves_and_numbers_for_the_middle_of_their_bin() -> None:
    columns = {"level": np.array(["a", None], dtype=object), "number": np.array([3.0, np.nan])}
    tokenizer = TableTokenizer.fit(columns)
    cells = in_the_middle(torch.from_numpy(tokenizer.encode_rows(columns).tokens), tokenizer)
    assert cells["level"].tolist() == [0, 1]
    assert cells["number"][0] == 3.0
    assert np.isnan(cells["number"][1])


def test_training_rows_stand_beside_generated_ones_and_rows_of_noise_are_less_alike() -> None:
    noise = torch.stack(
        [torch.randint(0, int(column.max()) + 1, (100,)) for column in torch.from_numpy(DATASET.train).T], 1
    )
    found = fidelity(noise, DATASET, seed=0)
    assert found["test_rows"] == len(DATASET.test) == 100
    assert found["generated"]["rows"] == found["training"]["rows"] == 100
    assert found["training"]["shape"] > found["generated"]["shape"] + 0.02
    assert found["training"]["trend"] > found["generated"]["trend"] + 0.2
    copies = fidelity(torch.from_numpy(DATASET.test), DATASET, seed=0)["generated"]
    assert (copies["shape"], copies["trend"]) == (1.0, 1.0)


def test_the_evaluation_and_the_card_have_them_of_the_rows_that_privacy_has() -> None:
    network = random_transformer(DATASET.tokenizer)
    metrics = evaluate_model(network, DATASET, limit=40)
    generated = generate_rows(network, 4, number=40, seed=EVALUATION_SEED)
    assert metrics["fidelity"] == {"seed": EVALUATION_SEED, **fidelity(generated, DATASET, seed=EVALUATION_SEED)}
    assert metrics["fidelity"]["generated"]["rows"] == metrics["privacy"]["generated_rows"] == 40
    json.dumps(metrics, allow_nan=False)
    rows = list(fidelity_rows(metrics))
    assert [row[0] for row in rows] == ["generated rows", "training rows"]
    training = {"steps": 1, "row_forwards": 1, "seed": 0, "torch": "0"}
    card = write_card(
        small_recipe(), data={}, metrics=metrics, training=training, order_words="", num_parameters=1, recipe_text=""
    )
    assert "How like the 100 test rows are the generated ones?" in card
    assert all(f"| {' | '.join(row)} |" in card for row in rows)


def test_older_metrics_have_none_and_one_column_has_no_trend() -> None:
    assert list(fidelity_rows({})) == []
    column = {"x": np.array(["a", "b"] * 10, dtype=object)}
    tokenizer = TableTokenizer.fit(column)
    ids = tokenizer.encode_rows(column).tokens
    dataset = Dataset(name="one", tokenizer=tokenizer, train=ids, validation=ids, test=ids)
    metrics = {"fidelity": fidelity(torch.from_numpy(ids), dataset, seed=0)}
    assert list(fidelity_rows(metrics)) == [
        (label, "20", "1.0000", "none") for label in ("generated rows", "training rows")
    ]
