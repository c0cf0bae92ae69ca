"""`unveil.fit`: what the command trains, out of a DataFrame."""

import gc
import gzip
import subprocess
import sys
import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import unveil
from tests.unveil.commands import run_command
from unveil.model.artifact.manifest import WEIGHTS
from unveil.tables.fitting import settings_of

SMALL: dict[str, Any] = {
    "optimizer": {"steps": 3, "batch_size": 8},
    "model": {"width": 8, "heads": 2, "layers": 1, "mlp_width": 16},
    "run": {"threads": 1, "evaluate_rows": 4},
}
SETS = [part for setting in settings_of(SMALL) for part in ("--set", setting)]


def people(rows: int = 60) -> pl.DataFrame:
    generator = np.random.default_rng(0)
    days = generator.integers(0, 900, rows).tolist()
    return pl.DataFrame(
        {
            "age": generator.integers(17, 91, rows),
            "rate": np.round(generator.normal(size=rows), 2),
            "works": pl.Series([None if i % 7 == 0 else "abc"[i % 3] for i in range(rows)]),
            "rich": generator.integers(0, 2, rows) == 1,
            "joined": [date.fromordinal(date(2020, 1, 1).toordinal() + day) for day in days],
        }
    ).with_columns(pl.col("age").cast(pl.Int16))


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_a_data_frame_gives_the_weights_that_the_command_makes_of_the_same_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    data: Any = people() if library == "polars" else people().to_pandas()
    table, by_command = tmp_path / "people.parquet", tmp_path / "command"
    data.write_parquet(table) if library == "polars" else data.to_parquet(table)
    code, _, err = run_command(capsys, monkeypatch, "train", "--table", table, "--out", by_command, *SETS)
    assert code == 0, err
    model = unveil.fit(data, tmp_path / "library", **SMALL)
    assert (tmp_path / "library" / WEIGHTS).read_bytes() == (by_command / WEIGHTS).read_bytes()
    assert model.sample(3, seed=1, as_="dict") == unveil.load(by_command).sample(3, seed=1, as_="dict")
    other = unveil.fit(data, tmp_path / "other", seed=1, **SMALL)
    assert (tmp_path / "other" / WEIGHTS).read_bytes() != (by_command / WEIGHTS).read_bytes()
    assert other.manifest.training["seed"] == 1


def test_rows_come_back_as_a_data_frame_of_the_kind_and_types_that_were_given() -> None:
    data = people()
    model = unveil.fit(data, **SMALL)
    rows = model.sample(20, seed=1)
    assert isinstance(rows, pl.DataFrame)
    assert rows.schema == data.schema
    assert rows["rich"].is_in([True, False]).all()
    model.likeness = None
    assert dict(model.sample(2, seed=1).schema) == {
        "age": pl.Int64,
        "rate": pl.Float64,
        "works": pl.String,
        "rich": pl.String,
        "joined": pl.Date,
    }


def test_types_of_pandas_come_back_categories_and_nanoseconds_too() -> None:
    data = people().to_pandas()
    data["works"] = data["works"].astype("category")
    data["joined"] = data["joined"].astype("datetime64[ns]")
    data["age"] = data["age"].astype("Int8")
    rows = unveil.fit(data, **SMALL).sample(30, seed=1)
    assert isinstance(rows, pd.DataFrame)
    assert rows.dtypes.to_dict() == data.dtypes.to_dict()
    assert rows["works"].isna().any()


def test_the_artifact_without_a_place_lives_as_long_as_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(unveil.UnveilError):
        unveil.fit(people(), drop=["nothing"], **SMALL)
    assert list(tmp_path.iterdir()) == []
    model = unveil.fit(people().to_dict(as_series=False), name="mine", drop=["rate"], bins={"age": 4}, **SMALL)
    folder = tmp_path / next(iter(tmp_path.iterdir()))
    assert model.name == "mine"
    assert (folder / "mine" / WEIGHTS).exists()
    assert list(model.sample(1, seed=1)) == ["age", "works", "rich", "joined"]
    assert model.tokenizer.vocabulary_sizes[0] == 4
    del model
    gc.collect()
    assert not folder.exists()


def test_types_of_arrow_come_back_dictionaries_and_moments_too() -> None:
    data = people().to_arrow()
    data = data.set_column(2, "works", data["works"].cast("string").dictionary_encode())
    data = data.set_column(4, "joined", data["joined"].cast("timestamp[ms]"))
    assert unveil.fit(data, **SMALL).sample(30, seed=1).schema == data.schema


def test_types_that_only_pandas_has_come_back_with_gaps_where_there_were_some() -> None:
    data = people().to_pandas()
    data["dec"] = [Decimal(f"{rate:.2f}") for rate in data.pop("rate")]
    data["maybe"] = pd.Series([None if i % 9 == 0 else i % 2 == 0 for i in range(len(data))], dtype="boolean")
    data["at"] = pd.to_datetime(data["age"].astype("int64") * 10**7, unit="s", utc=True).dt.tz_convert("Europe/Berlin")
    data["lists"] = [[1]] * len(data)
    model = unveil.fit(data, **SMALL)
    assert model.sample(30, seed=1).dtypes.to_dict() == data.drop(columns="lists").dtypes.to_dict()
    assert isinstance(model.sample(1, seed=1)["dec"][0], Decimal)
    holes = data.copy()
    holes.loc[3, ["dec", "maybe", "at", "works"]] = None
    full = model.impute(holes, seed=1)
    assert full.dtypes.to_dict() == data.dtypes.to_dict()
    assert full.loc[3].notna().all()
    known = ["age", "rich", "joined", "dec", "at", "lists"]
    pd.testing.assert_frame_equal(full.drop(index=3)[known], data.drop(index=3)[known])


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        (people(), {"drop": ["ages"]}, 'has no column "ages" (data.drop); did you mean "age"?'),
        (people(), {"drop": "age"}, "drop must be a list of columns, got 'age'"),
        (people(), {"optimiser": {"steps": 3}}, "optimiser: unknown key"),
        (people(), {"optimizer": {"steps": None}}, "optimizer.steps must be text, a number"),
        (people(), {"date": {"works": "DD.MM"}}, "data.columns.works: format must be as in"),
        (
            [1, 2],
            {},
            "data must be a DataFrame of pandas or polars, a pyarrow Table or a dict of columns, got builtins.list",
        ),
        (people().lazy(), {}, "got polars.lazyframe.frame.LazyFrame"),
        (pd.DataFrame({0: [1, 2]}), {}, "the name of column 1 must be a text, got 0"),
        (pd.DataFrame({"a": [1, "b"]}), {}, 'column "a" cannot be read: '),
        ({"a": [1, 2], "b": [1]}, {}, 'column "b" has 1 rows, column "a" 2'),
        ("none.csv", {}, "none.csv cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_gets_one_line_that_names_it(tmp_path: Path, data: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(unveil.UnveilError) as refused:
        unveil.fit(data, tmp_path / "out", **fields)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_are_those_of_a_recipe_in_toml() -> None:
    keys = {"seed": 3, "data": {"columns": {"a.b c": {"max_bins": 4}}, "header": False}, "name": 'x"y'}
    assert settings_of(keys) == ["seed=3", 'data.columns."a.b c".max_bins=4', "data.header=false", 'name="x\\"y"']


def test_stdin_is_trained_on_as_a_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "people.csv"
    people().write_csv(table)
    assert run_command(capsys, monkeypatch, "train", "--table", table, "--out", tmp_path / "file", *SETS)[0] == 0
    command = [sys.executable, "-m", "unveil.cli", "train", "--table", "-"]
    content = gzip.compress(table.read_bytes())
    subprocess.run([*command, "--out", tmp_path / "piped", *SETS], input=content, check=True, capture_output=True)
    assert (tmp_path / "piped" / WEIGHTS).read_bytes() == (tmp_path / "file" / WEIGHTS).read_bytes()
    assert (tmp_path / "piped.run" / "stdin").read_bytes() == content
    shown = subprocess.run([*command, "--schema"], input=content, check=True, capture_output=True)
    assert shown.stdout.startswith(b"stdin: 48 train, 6 validation, 6 test rows")
    refused = subprocess.run(command, input=content, check=False, capture_output=True)
    assert (refused.returncode, refused.stderr) == (2, b"error: --table -: needs --out DIR\n")
    wrong = subprocess.run([*command, "--schema"], input=b"a,b\n1\n", check=False, capture_output=True)
    assert (wrong.returncode, wrong.stderr) == (1, b"error: stdin line 2 has 1 cell, the header 2\n")
