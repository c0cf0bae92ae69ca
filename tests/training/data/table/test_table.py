"""A user's own table, from the file to the splits."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.config import TableData
from unveil.training.data.table.table import load_table

REAL = Path(os.environ.get("UNVEIL_TEST_DATA") or Path(__file__).parents[5] / "shared" / "data")


def real(name: str) -> Path:
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{name} is not here; UNVEIL_TEST_DATA names its folder")
    return path


@pytest.fixture
def people(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "people.csv"
    rows = [f"{i},{rng.integers(18, 80)},{rng.choice(['x', 'y', ''])},1,note {i}" for i in range(100)]
    path.write_text("\n".join(["id,age,group,one,note", *rows]) + "\n")
    return path


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(UnveilError) as caught:
        load_table(TableData(path=path, **settings))
    return str(caught.value).replace(str(path), path.name)


def test_a_table_is_split_by_row_and_useless_columns_are_dropped_with_a_notice(people: Path) -> None:
    dataset = load_table(TableData(path=people, test_share=0.2))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [70, 10, 20]
    assert dataset.names == ("age", "group", "one")
    assert dataset.tokenizer.vocabulary_sizes[1:] == (3, 1)
    assert dataset.summary["notices"] == [
        'column "id" is an index: it counts the rows: dropped (--numeric "id" keeps it)',
        'column "one" has the same value in every row',
        'column "note" has a different text in every row: dropped (--categorical "note" keeps it)',
    ]
    assert dataset.name == "people"
    assert len(dataset.summary["sha256"]["people.csv"]) == 64


def test_cells_that_are_read_as_missing_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("country,age,secret\n" + "NA,1,?\nCH, ?,?\nDE,,?\n" * 10)
    dataset = load_table(TableData(path=path, drop=("secret",)))
    assert dataset.summary["notices"] == [
        'cells "?" read as missing values: 10',
        'cells "NA" read as missing values: 10',
        'column "age" has one value, or none',
    ]
    assert load_table(TableData(path=path, missing=("?",))).tokenizer.vocabulary_sizes[0] == 3


def test_the_split_follows_from_the_seed(people: Path) -> None:
    prints = [load_table(TableData(path=people, seed=seed)).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_no_row_is_in_two_splits(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\n" + "\n".join(str(i * i) for i in range(60)))
    dataset = load_table(TableData(path=path, validation_share=0.2, test_share=0.2))
    whole = np.concatenate([dataset.train, dataset.validation, dataset.test])
    assert len(whole) == 60
    assert len(np.unique(dataset.train)) == 36  # a bin each, so the others were moved
    assert dataset.summary["validation"]["moved_numbers"] == {"x": 12}


def test_recipes_can_drop_columns_and_choose_kinds_and_bins(people: Path) -> None:
    choices = {"age": {"max_bins": 4}, "one": {"kind": "categorical"}, "id": {"kind": "numeric"}}
    dataset = load_table(
        TableData.model_validate({"path": people, "drop": ["group"], "columns": choices, "max_bins": 5})
    )
    assert dataset.names == ("id", "age", "one")
    assert dataset.tokenizer.vocabulary_sizes == (5, 4, 1)
    assert dataset.summary["dropped_columns"]["group"] == "is in the recipe's drop list"


def test_refusals_word_by_word(people: Path, tmp_path: Path) -> None:
    assert refusal(people, drop=("grup",)) == ('people.csv has no column "grup" (data.drop); did you mean "group"?')
    assert refusal(people, columns={"q": {}}) == 'people.csv has no column "q" (data.columns)'
    assert refusal(people, drop=("age",), columns={"age": {}}) == 'column "age" is in data.drop and in data.columns'
    one = tmp_path / "one.csv"
    one.write_text("a,b\n1,2\n")
    assert refusal(one) == "one.csv: 1 row, at least 10 are needed"
    none = tmp_path / "none.csv"
    none.write_text("a,b\n" + "?,?\n" * 12)
    assert refusal(none) == "none.csv: no column is left; a has no values; b has no values"


def test_a_table_whose_evaluation_rows_are_all_foreign_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,name\n" + "".join(f"{i % 3},n{i}\n" for i in range(20)))
    assert refusal(path) == "t.csv: every validation row has a level that no training row has (name); drop it"


def test_of_rows_left_out_the_first_ones_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for row in range(20):
        path.write_text("x,c\n\n" + "".join(f"{i % 3},{'odd' if i == row else 'ab'[i % 2]}\n" for i in range(20)))
        notices = load_table(TableData(path=path)).summary["notices"]
        told = "have a level that no training row has (c): left out (the first: "
        assert [notice for notice in notices if told not in notice] == []
        assert all(notice.endswith(f"(the first: {path} line {row + 3})") for notice in notices)
        if notices:
            return
    raise AssertionError("no row was left out")


def test_a_column_with_values_only_outside_the_training_rows_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    keep = {"rare": {"kind": "categorical"}}
    names = [
        load_table(TableData.model_validate({"path": _sparse(path, row=row), "columns": keep})).names
        for row in range(20)
    ]
    assert names.count(("x",)) == 4  # validation and test have two rows each
    assert names.count(("x", "rare")) == 16


def _sparse(path: Path, *, row: int) -> Path:
    path.write_text("x,rare\n" + "".join(f"{i % 3},{'yes' if i == row else ''}\n" for i in range(20)))
    return path


def test_parquet_gives_the_same_rows_as_csv(people: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    pl.read_csv(people).write_parquet(path)
    by_file = [load_table(TableData(path=p)) for p in (people, path)]
    assert by_file[0].fingerprint == by_file[1].fingerprint


def test_a_column_of_long_cells_can_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,page\n" + "".join(f"{i % 3},{'y' * 140_000}{i}\n" for i in range(12)))
    assert load_table(TableData(path=path, drop=("page",))).names == ("x",)


def _wide(path: Path, *, num_columns: int) -> Path:
    lines = [",".join(f"c{i}" for i in range(num_columns))]
    lines += [",".join(str((i * j) % 7) for i in range(num_columns)) for j in range(12)]
    path.write_text("\n".join(lines))
    return path


def test_a_table_of_512_columns_works(tmp_path: Path) -> None:
    dataset = load_table(TableData(path=_wide(tmp_path / "wide.csv", num_columns=512)))
    assert dataset.train.shape == (10, 512)
    assert dataset.summary["notices"][-1].startswith("512 columns: training and evaluation take long")


def test_more_columns_are_refused_unless_enough_of_them_are_dropped(tmp_path: Path) -> None:
    path = _wide(tmp_path / "wide.csv", num_columns=1000)
    assert refusal(path) == (
        "wide.csv line 1: 1000 columns, at most 512 are taken; leave 488 out, with --drop or data.drop"
    )
    drop = [f"c{i}" for i in range(512, 1000)]
    assert refusal(path, drop=drop[1:]) == (
        "wide.csv line 1: 1000 columns, 513 without those that are dropped, at most 512 are taken; "
        "leave 1 more out, with --drop or data.drop"
    )
    assert load_table(TableData(path=path, drop=tuple(drop))).train.shape == (10, 512)
    parquet = path.with_suffix(".parquet")
    pl.read_csv(path).write_parquet(parquet)
    assert refusal(parquet).startswith("wide.parquet: 1000 columns, at most 512 are taken; leave 488 out")


def test_shoppers_needs_no_recipe() -> None:
    dataset = load_table(TableData(path=real("shoppers.csv")))
    assert dataset.train.shape == (9864, 18)
    columns = {column["name"]: column for column in dataset.tokenizer.describe()["columns"]}
    assert columns["OperatingSystems"]["bins"] == 8
    assert columns["OperatingSystems"]["integer"]
    assert columns["Weekend"]["levels"] == ["FALSE", "TRUE"]
    assert dataset.summary["test"]["rows_left_out"] == 0


def test_default_loses_its_index_by_itself() -> None:
    dataset = load_table(TableData(path=real("default.csv")))
    assert dataset.train.shape == (24000, 24)
    assert dataset.summary["dropped_columns"] == {"ID": "is an index: it counts the rows"}
