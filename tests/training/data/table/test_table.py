"""A user's own table, from the file to the splits."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from unveil.model.errors import PromptError, UnveilError
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


def test_a_level_that_held_out_rows_alone_have_takes_one_of_them_to_training_and_the_user_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    told = "1 row has a level that no other training row has: taken for training (the first: "
    for row in range(20):
        path.write_text("x,c\n\n" + "".join(f"{i % 3},{'odd' if i == row else 'ab'[i % 2]}\n" for i in range(20)))
        dataset = load_table(TableData(path=path))
        notices = dataset.summary["notices"]
        assert notices in ([], [f"{told}{path} line {row + 3})"])
        assert len(dataset.train) == 16 + len(notices)
        assert dataset.tokenizer.encode({"c": "odd"}).num_given == 1
        if notices:
            return
    raise AssertionError("no row was moved")


def test_every_row_of_the_file_can_be_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(0)
    numbers = [*rng.normal(size=58).round(1), -9.5, 9.25]
    days = [*(f"2024-01-{i % 28 + 1:02}" for i in range(58)), "2023-01-01", "2025-01-01"]
    num_moved = 0
    for seed in range(5):
        order = rng.permutation(60)
        rows = [f"{numbers[i]},{days[i]},{'rare' if i == 5 else '' if i == 6 else 'ab'[i % 2]}" for i in order]
        path.write_text("x,day,c\n" + "\n".join(rows) + "\n")
        dataset = load_table(TableData(path=path, seed=seed))
        tokenizer: Any = dataset.tokenizer
        ranges = {column["name"]: (column["low"], column["high"]) for column in tokenizer.describe()["columns"][:2]}
        assert ranges == {"x": (-9.5, 9.25), "day": ("2023-01-01", "2025-01-01")}
        for x, day, c in (row.split(",") for row in rows):
            template = tokenizer.encode({"x": float(x), "day": day, "c": c or "[MISSING]"})
            whole = {"x": np.array([float(x)]), "c": np.array([c or None], dtype=object)}
            count = float(np.datetime64(day).astype(np.int64))
            encoded = tokenizer.encode_rows({**whole, "day": np.array([count])})
            assert encoded.tokens[0].tolist() == list(template.tokens)
        with pytest.raises(PromptError, match=r"x must be a number between -9.5 and 9.25, got -9.6"):
            tokenizer.encode({"x": -9.6})
        num_moved += sum(len(dataset.summary[name]["moved_numbers"]) for name in ("validation", "test"))
    assert num_moved > 0


def test_names_that_look_like_data_are_told_and_a_header_may_lack(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{i % 7},{'xyz'[i % 3]},2024-01-{i % 20 + 1:02}" for i in range(60)]
    path.write_text("\n".join(rows) + "\n")
    dataset = load_table(TableData(path=path))
    assert dataset.names == ("0", "x", "2024-01-01")
    assert dataset.summary["notices"] == [
        "line 1, the names of the columns, looks like data (0, x, 2024-01-01); --no-header takes it for a row"
    ]
    dataset = load_table(TableData(path=path, header=False))
    assert dataset.names == ("column 1", "column 2", "column 3")
    assert dataset.summary["notices"] == []
    assert sum(len(getattr(dataset, split)) for split in ("train", "validation", "test")) == 60
    path.write_text("age,kind,2019\n" + "\n".join(f"{i % 7},{'xyz'[i % 3]},{i % 5}" for i in range(60)) + "\n")
    assert load_table(TableData(path=path)).summary["notices"] == []
    path.write_text("1,1\n" * 20)
    assert refusal(path) == 't.csv line 1: two columns are named "1"; is it data? --no-header takes it for a row'


def test_digits_that_parquet_has_as_text_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    codes = [str(i % 7 + 10) for i in range(40)]
    pl.DataFrame({"code": codes, "n": [i % 3 for i in range(40)]}).write_parquet(path)
    dataset = load_table(TableData(path=path))
    assert dataset.tokenizer.describe()["columns"][0]["levels"] == sorted(set(codes))
    assert dataset.summary["notices"] == [
        'column "code" holds numbers, taken as levels; its file has them as text; '
        '--numeric "code" takes them as numbers'
    ]
    chosen = TableData.model_validate({"path": path, "columns": {"code": {"kind": "numeric"}}})
    assert load_table(chosen).tokenizer.describe()["columns"][0]["kind"] == "numeric"


def test_a_date_that_no_calendar_has_is_refused_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for dtype in (pl.Date, pl.Datetime("us"), pl.Datetime("ms", "UTC")):
        physical = pl.Int32 if dtype == pl.Date else pl.Int64
        last = 2**31 - 1 if dtype == pl.Date else 2**62
        days = pl.Series("until", [0, 1, last, 3] * 5, dtype=physical).cast(dtype)
        pl.DataFrame([days, pl.Series("k", ["a", "b"] * 10)]).write_parquet(path)
        assert refusal(path) == (
            't.parquet row 3, column "until": holds a date that is not between the years 1 and 9999; '
            'correct it, or leave the column out: --drop "until"'
        )
        assert load_table(TableData(path=path, drop=("until",))).names == ("k",)


def test_types_of_other_libraries_are_dropped_with_a_notice() -> None:
    cases = Path(os.environ.get("UNVEIL_TEST_CASES") or REAL.parent / "cases" / "tables")
    if not (cases / "period.parquet").is_file():
        pytest.skip("period.parquet is not here; UNVEIL_TEST_CASES names its folder")
    dataset = load_table(TableData(path=cases / "period.parquet"))
    assert dataset.names == ("k",)
    (notice,) = dataset.summary["notices"]
    assert re.fullmatch(r'column "month" is of the type .*pandas\.period.*, which is not read: dropped', notice)


def test_a_column_with_values_only_outside_the_training_rows_is_dropped_where_no_row_can_go_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    keep = {"rare": {"kind": "categorical"}}
    names = [
        load_table(TableData.model_validate({"path": _sparse(path, row=row), "columns": keep})).names
        for row in range(10)
    ]
    assert names.count(("x",)) == 2  # validation and test have a row each
    assert names.count(("x", "rare")) == 8


def _sparse(path: Path, *, row: int) -> Path:
    path.write_text("x,rare\n" + "".join(f"{i % 3},{'yes' if i == row else ''}\n" for i in range(10)))
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
