"""`Model.predict` of DataFrames: the same laws as one by one, in the DataFrame's own library."""

from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import unveil

ADULT = Path(__file__).parents[3] / "checkpoints" / "adult"
ROWS = {"age": [39, None, 60], "education": ["Masters", "Bachelors", None], "income": [">50K", None, "<=50K"]}


@pytest.fixture(scope="module")
def adult() -> unveil.Model:
    return unveil.load(ADULT)


def test_levels_have_a_probability_each_whatever_the_rows_say_of_them(adult: unveil.Model) -> None:
    found = adult.predict(pl.DataFrame(ROWS), "income")
    assert found.columns == ["<=50K", ">50K"]
    prompts = [{"age": 39, "education": "Masters"}, {"education": "Bachelors"}, {"age": 60}]
    for row, prompt in zip(found.to_dicts(), prompts, strict=True):
        ((law,),) = [own["columns"] for own in adult.predict(prompt, columns=["income"])["predictions"]]
        assert row == pytest.approx({level["value"]: level["probability"] for level in law["levels"]})
        assert sum(row.values()) == pytest.approx(1.0)


def test_numbers_have_moments_and_quantiles_and_pandas_keeps_its_index(adult: unveil.Model) -> None:
    data = pd.DataFrame(ROWS, index=["x", "y", "z"])
    found = adult.predict(data, "hours-per-week")
    assert list(found.index) == ["x", "y", "z"]
    assert list(found.columns) == ["mean", "standard_deviation", "0.05", "0.25", "0.5", "0.75", "0.95"]
    prompt = {"age": 60, "income": "<=50K"}
    ((law,),) = [own["columns"] for own in adult.predict(prompt, ["hours-per-week"])["predictions"]]
    assert found.loc["z", "mean"] == pytest.approx(law["mean"])
    assert found.loc["z", "0.5"] == law["quantiles"]["0.5"]


def test_rows_that_know_nothing_of_the_model_are_refused(adult: unveil.Model) -> None:
    with pytest.raises(unveil.UnveilError, match=r"^data has none of the model's columns"):
        adult.predict(pl.DataFrame({"income": ["<=50K", ">50K"]}), "income")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (None, "columns must name one column where a DataFrame is given, got null"),
        (["age", "income"], "columns must name one column"),
        ("incomee", 'unknown column "incomee"; did you mean "income"?'),
    ],
)
def test_a_mistake_is_one_line(adult: unveil.Model, columns: object, line: str) -> None:
    with pytest.raises(unveil.UnveilError, match=line.replace("?", r"\?")):
        adult.predict(pl.DataFrame(ROWS), columns)
    with pytest.raises(unveil.UnveilError, match="seed is not valid with a DataFrame"):
        adult.predict(pl.DataFrame(ROWS), "income", seed=3)
