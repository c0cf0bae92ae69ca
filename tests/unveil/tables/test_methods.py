"""`sample`, `impute` and `log_prob`: DataFrames in, the same kind out."""

import itertools
import math
import subprocess
import sys
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import unveil
from tests.model.artifacts import table_tokenizer, text_tokenizer, write_artifact
from tests.unveil.commands import run_command
from unveil.model.order.plackett_luce import deterministic_order
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.tables.cells import cells_of, typed

HOLES = pl.DataFrame(
    {
        "id": [1, 2, None, 4],
        "age": [39, None, 40, 41],
        "workclass": ["class 1", " class 2 ", None, ""],
        "income": [None, ">50K", None, "<=50K"],
        "rate": [0.5, None, float("nan"), -0.25],
        "hours": [3.0, 2.0, None, 4.0],
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "people"
    write_artifact(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> unveil.Model:
    return unveil.load(folder)


def test_samples_are_the_rows_that_generate_gives_with_integers_texts_and_nulls(model: unveil.Model) -> None:
    rows = model.sample(40, seed=7, temperature=1.5)
    assert list(rows.schema.values()) == [pl.Int64, pl.String, pl.String, pl.Int64, pl.Float64]
    replies = model.generate({}, num_samples=40, seed=7, temperature=1.5)["samples"]
    assert rows.to_dicts() == [reply["output"] for reply in replies]
    assert rows["workclass"].null_count()


def test_samples_meet_a_condition(model: unveil.Model) -> None:
    rows = model.sample(50, where={"age": {"min": 30, "max": 40}, "income": {"not": ">50K"}}, seed=1)
    assert rows["age"].is_between(30, 40).all()
    assert set(rows["income"]) == {"<=50K"}
    assert rows.equals(model.sample(50, where={"age": {"min": 30, "max": 40}, "income": {"not": ">50K"}}, seed=1))


def test_samples_are_of_the_library_that_is_asked_for(model: unveil.Model) -> None:
    rows = model.sample(40, seed=7)
    in_pandas, in_arrow = model.sample(40, seed=7, as_="pandas"), model.sample(40, seed=7, as_="pyarrow")
    assert isinstance(in_pandas, pd.DataFrame)
    assert isinstance(in_arrow, pa.Table)
    assert pl.from_pandas(in_pandas).equals(rows)
    assert in_arrow.to_pydict() == model.sample(40, seed=7, as_="dict") == rows.to_dict(as_series=False)
    with pytest.raises(unveil.UnveilError, match='as_ must be one of polars, pandas, pyarrow, dict, got "spark"'):
        model.sample(1, as_="spark")


def test_empty_cells_are_filled_and_all_others_stay(model: unveil.Model) -> None:
    full = model.impute(HOLES, seed=3)
    assert full.schema == HOLES.schema
    assert full.drop("id").null_count().sum_horizontal().item() == 0
    assert full["id"].to_list() == [1, 2, None, 4], "a column that the model does not have"
    assert full["age"].to_list()[0::2] == [39, 40]
    assert full["workclass"].to_list()[:2] == ["class 1", " class 2 "], "as it was written"
    assert set(full["workclass"]) <= {" class 2 ", *(f"class {i}" for i in range(4))}
    assert full["rate"].to_list()[0::3] == [0.5, -0.25]
    assert not full["rate"].is_nan().any()
    assert full.equals(model.impute(HOLES, seed=3))
    assert not full.equals(model.impute(HOLES, seed=4))


def test_a_missing_value_is_never_filled_in(model: unveil.Model) -> None:
    assert model.sample(300, seed=1)["workclass"].null_count() > 0
    full = model.impute({"age": [39] * 300, "workclass": [None] * 300}, seed=1)
    assert set(full["workclass"]) == {f"class {i}" for i in range(4)}


def test_a_seed_fills_as_the_command_does(
    model: unveil.Model,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    HOLES.fill_nan(None).write_csv(table)
    assert run_command(capsys, monkeypatch, "impute", folder, table, "--out", out, "--seed", 5)[0] == 0
    by_command = pl.read_csv(out, schema=HOLES.schema)
    assert by_command.drop("workclass").equals(model.impute(HOLES, seed=5).drop("workclass"))
    stripped = [series["workclass"].str.strip_chars().to_list() for series in (by_command, model.impute(HOLES, seed=5))]
    assert stripped[0] == stripped[1]
    assert run_command(capsys, monkeypatch, "impute", folder, table, "--out", out, "--mode", "--force")[0] == 0
    assert pl.read_csv(out, schema=HOLES.schema)["age"].equals(model.impute(HOLES, mode=True)["age"])


def test_every_library_gets_its_own_back_with_index_and_types(model: unveil.Model) -> None:
    full = model.impute(HOLES, seed=3).drop("id")
    data = HOLES.drop("id").to_pandas()
    data.index = pd.Index([7, 8, 9, 9], name="key")
    data["income"] = data["income"].astype("category")
    data["age"] = data["age"].astype("Int16")
    before = data.copy()
    in_pandas = model.impute(data, seed=3)
    assert in_pandas.index.equals(data.index)
    assert in_pandas.drop(columns="income").dtypes.equals(data.drop(columns="income").dtypes)
    assert in_pandas.to_dict("list") == full.to_dict(as_series=False)
    pd.testing.assert_frame_equal(data, before)
    table = HOLES.drop("id").to_arrow()
    table = table.set_column(2, "income", table["income"].cast("string").dictionary_encode())
    in_arrow = model.impute(table, seed=3)
    assert in_arrow.schema == table.schema
    assert in_arrow.to_pydict() == full.to_dict(as_series=False)
    assert model.impute(HOLES.drop("id").to_dict(as_series=False), seed=3) == full.to_dict(as_series=False)


def test_a_column_without_any_value_gets_the_models_type(model: unveil.Model) -> None:
    full = model.impute(pl.DataFrame({"age": [39, 40], "hours": [None, None]}), seed=1)
    assert full.schema == {"age": pl.Int64, "hours": pl.Int64}
    assert full["hours"].is_between(1, 5).all()


def test_what_the_model_does_not_know_is_refused_by_row_and_column_or_left(model: unveil.Model) -> None:
    data = pl.DataFrame({"age": [39, 200], "income": [None, None]}, schema={"age": pl.Int64, "income": pl.String})
    with pytest.raises(
        unveil.UnveilError, match=r"^row 1 \(counted from 0\): age must be an integer between 17 and 90"
    ) as no:
        model.impute(data)
    assert no.value.param == "age"
    full = model.impute(data, seed=1, ignore_foreign=True)
    assert full["age"].to_list() == [39, 200]
    assert full["income"].null_count() == 0
    with pytest.raises(unveil.UnveilError, match='column "age" is of the type List'):
        model.impute(pl.DataFrame({"age": [[1]]}))
    with pytest.raises(unveil.UnveilError, match=r"none of the model's columns \(\"age\", "):
        model.impute(pl.DataFrame({"ages": [1]}))
    with pytest.raises(unveil.UnveilError, match="order: must be one of learned"):
        model.impute(data, order="best")


def test_log_probabilities_of_all_rows_sum_to_one_and_are_those_of_the_likeliest_order(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "a": np.array(["x", "y", None], dtype=object),
        "b": np.array([1.0, 2.0, 2.0]),
        "c": np.array(["u", "v", "w"], dtype=object),
    }
    write_artifact(tmp_path / "small", tokenizer=TableTokenizer.fit(columns))
    model = unveil.load(tmp_path / "small")
    rows = [*itertools.product(["x", "y", None], [1, 2], ["u", "v", "w"])]
    data = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Int64, "c": pl.String}, orient="row")
    found = model.log_prob(data)
    assert (found.name, found.dtype) == ("log_prob", pl.Float64)
    assert found.exp().sum() == pytest.approx(1, abs=1e-5)
    denoiser: Any = model._engine()[1].denoiser
    order = deterministic_order(denoiser.log_w).tolist() if hasattr(denoiser, "log_w") else None
    own = order or [place["position"] for place in sorted(model.order()["positions"], key=lambda p: -p["probability"])]
    scored = model.score({"a": "x", "b": 1, "c": "u"}, order=own)["scores"][0]["log_likelihood"]
    assert found[0] == pytest.approx(scored, abs=1e-6)
    some = model.log_prob(data.select("c").unique(maintain_order=True))
    assert some.exp().sum() == pytest.approx(1, abs=1e-5), "the others are integrated out"


def test_log_probabilities_come_as_the_librarys_columns_with_the_index(model: unveil.Model) -> None:
    rows = model.sample(3, seed=2)
    own = model.log_prob(rows).to_list()
    in_pandas = model.log_prob(rows.to_pandas().set_index(pd.Index(list("abc"))))
    assert in_pandas.to_dict() == dict(zip("abc", own, strict=True))
    assert model.log_prob(rows.to_arrow()).to_pylist() == model.log_prob(rows.to_dict(as_series=False)) == own
    assert all(map(math.isfinite, own))


def test_drawn_orders_give_the_bound(model: unveil.Model) -> None:
    row = {"age": [39], "income": [">50K"]}
    bound = model.score({"age": 39, "income": ">50K"}, order="uniform", num_orders=4, seed=3)["scores"][0]["nelbo"]
    assert model.log_prob(row, order="uniform", num_orders=4, seed=3) == [-bound]


def test_a_null_is_a_missing_value_where_training_had_some(model: unveil.Model) -> None:
    missing = model.score({"age": 39, "workclass": "[MISSING]"}, order="learned", order_temperature=0)["scores"][0]
    assert model.log_prob({"age": [39], "workclass": [None]}) == [missing["log_likelihood"]]
    with pytest.raises(
        unveil.UnveilError, match=r'row 1 \(counted from 0\): column "age" is empty, and had no missing'
    ):
        model.log_prob({"age": [39, None]})


def test_models_of_anything_else_have_no_rows(tmp_path: Path) -> None:
    write_artifact(tmp_path / "prose", tokenizer=text_tokenizer())
    with pytest.raises(unveil.UnveilError, match="sample is for models of tables, and this is a text model"):
        unveil.load(tmp_path / "prose").sample(1)


@pytest.mark.parametrize(
    ("form", "text", "value", "dtype"),
    [
        ("DD.MM.YYYY", "27.09.2024", date(2024, 9, 27), pl.Date),
        ("MM/YYYY", "09/2024", date(2024, 9, 1), pl.Date),
        ("YYYY-MM-DD hh:mm", "2024-09-27 13:20", datetime(2024, 9, 27, 13, 20), pl.Datetime("us")),
        ("YYYY-MM-DDThh:mm:ssZ", "2024-09-27T13:20:05Z", datetime(2024, 9, 27, 13, 20, 5, tzinfo=UTC), None),
        ("hh:mm", "13:20", time(13, 20), pl.Time),
    ],
)
def test_dates_are_dates_and_are_read_as_such(form: str, text: str, value: Any, dtype: pl.DataType | None) -> None:
    from unveil.model.tokenizers.table.dates import FORMATS

    count = float(FORMATS[form].parse(text) or 0)
    cells = np.array([count, count - 24, float("nan")])
    column = TableTokenizer.fit({"when": cells}, date_formats={"when": form}).columns[0]
    series = typed(column, [text, None])
    assert series.to_list() == [value, None]
    assert series.dtype == (dtype or pl.Datetime("us", "UTC"))
    assert cells_of(series, column, ()) == [text, None]
    assert cells_of(pl.Series("when", [text, "NA"]), column, ("NA",)) == [text, None]
    if value.__class__ is datetime:
        far = series.cast(pl.Datetime("ns", getattr(series.dtype, "time_zone", None)))
        zone = far.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
        assert typed(column, [text], far.dtype)[0] == far[0]
        if form.endswith("Z"):
            assert cells_of(zone, column, ()) == [text, None]
            assert typed(column, [text], zone.dtype)[0] == zone[0]


def test_types_are_those_of_the_data() -> None:
    age, work = table_tokenizer().columns[:2]
    assert typed(age, [39, None], pl.Float32()).to_list() == [39.0, None]
    assert typed(age, [39], pl.UInt8()).dtype == pl.UInt8
    assert typed(age, [39], pl.String()).to_list() == ["39"]
    assert typed(work, ["class 1", None], pl.Categorical()).to_list() == ["class 1", None]
    with pytest.raises(unveil.UnveilError, match='column "workclass": the model\'s values are no Int64'):
        typed(work, ["class 1"], pl.Int64())


def test_pandas_needs_no_pyarrow(model: unveil.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    data = HOLES.drop("id").to_pandas()
    expected = model.impute(data, seed=3)
    monkeypatch.setattr(pl, "from_pandas", absent)
    pd.testing.assert_frame_equal(model.impute(data, seed=3), expected)
    with pytest.raises(unveil.UnveilError, match='column "age" cannot be read: '):
        model.impute(pd.DataFrame({"age": [39, "x"]}))


def absent(*_: object) -> None:
    raise ModuleNotFoundError("pyarrow")


def test_importing_brings_no_library_of_data_frames() -> None:
    code = """
import sys
import unveil
unveil.fit, unveil.Model
print(sorted({"torch", "pandas", "polars", "narwhals", "pyarrow"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_filled_cells_meet_a_condition_and_rules_and_known_cells_that_break_one_are_left(model: unveil.Model) -> None:
    frame = pl.DataFrame({"age": [None, 20, None, 80], "hours": [5, 5, None, None], "income": [None] * 4}).cast(
        {"income": pl.String}
    )
    rules = ["hours * 10 <= age"]
    for seed in range(8):
        filled = model.impute(frame, where={"income": ">50K"}, rules=rules, seed=seed)
        assert filled["income"].to_list() == [">50K"] * 4
        kept = (filled["hours"] * 10 <= filled["age"]).to_list()
        assert kept == [True, False, True, True], "the second row breaks the rule as it is given"
        assert filled["age"].to_list()[1::2] == [20, 80]
    for wrong, line in (
        ({"mode": True, "rules": rules}, "mode and rules exclude each other"),
        ({"rules": ["unique(age)"]}, "is about all rows"),
        ({"where": {"agee": 3}}, "unknown column"),
    ):
        with pytest.raises(unveil.UnveilError, match=line):
            model.impute(frame, **wrong)
