"""Columns of numbers in another dress: what they become, and what is said of them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.config import ColumnChoice, TableData
from unveil.training.data.table.inference import ColumnReader, Dropped, Kept
from unveil.training.data.table.table import load_table

CASES = Path(os.environ.get("UNVEIL_TEST_CASES") or Path(__file__).parents[5] / "shared" / "cases" / "tables")
RNG = np.random.default_rng(0)


def infer(values: list[Any], choice: ColumnChoice | None = None, *, prefers_comma: bool = False) -> Kept | Dropped:
    reader = ColumnReader(missing=("?",), place=lambda row: f"t.csv line {row + 2}", prefers_comma=prefers_comma)
    return reader.infer(pl.Series("x", values), choice)


def kept(values: list[Any], choice: ColumnChoice | None = None, *, prefers_comma: bool = False) -> Kept:
    found = infer(values, choice, prefers_comma=prefers_comma)
    assert isinstance(found, Kept)
    return found


def test_dressed_numbers_are_numbers_and_the_user_is_told() -> None:
    found = kept(["$1,234.50", "?", "$5.00"])
    np.testing.assert_equal(found.cells, [1234.5, np.nan, 5.0])
    assert found.notice == (
        'holds numbers written as "$1,234.50", read as 1234.5; --categorical "x" takes them as levels'
    )
    assert kept(["12,5 %", "3 %"]).cells.tolist() == [12.5, 3.0]
    assert kept(["12,5", "3"], ColumnChoice(kind="categorical")).cells.tolist() == ["12,5", "3"]


def test_what_may_be_read_in_two_ways_follows_the_file_and_the_notice_names_the_option() -> None:
    values = ["137,641", "293,836"]
    assert kept(values).cells.tolist() == [137641.0, 293836.0]
    assert kept(values).notice == (
        'holds numbers written as "137,641", read as 137641, not as 137.641; --numeric "x=1234,5" reads them so'
    )
    assert kept(values, prefers_comma=True).cells.tolist() == [137.641, 293.836]
    for example, first in (("1234,5", 137.641), ("1,234.5", 137641.0)):
        assert kept(values, ColumnChoice(kind="numeric", format=example)).cells[0] == first
    points = kept(["1.234", "5.678"], prefers_comma=True)
    assert points.notice == (
        'holds numbers as "1.234", read with a decimal point; --numeric "x=1.234,5" reads them otherwise'
    )
    assert kept(["1.234", "5.67"], prefers_comma=True).notice is None
    assert kept(["1.234"], ColumnChoice(kind="numeric", format="1.234,5")).cells.tolist() == [1234.0]


def test_a_word_among_dressed_numbers_is_told_or_refused() -> None:
    prices = [f"${x:,}.00" for x in RNG.integers(1, 10**6, 300)]
    found = infer([*prices, "free"])
    assert isinstance(found, Dropped)
    assert found.reason.endswith(
        f'looks like numbers, but "free" is not a number as "{prices[0]}"; --numeric "x" says where'
    )
    with pytest.raises(UnveilError, match=r'^t.csv line 302, column "x": "free" is not a number as "\$'):
        infer([*prices, "free"], ColumnChoice(kind="numeric"))


def test_units_are_not_taken_for_numbers_before_the_user_says_so() -> None:
    weights = [f"{x} kg" for x in range(100, 400, 3)]
    found = infer(weights)
    assert isinstance(found, Dropped)
    assert found.reason.endswith('looks like numbers with " kg" behind; --numeric "x" takes them so')
    assert kept(weights, ColumnChoice(kind="numeric")).cells[:2].tolist() == [100.0, 103.0]


@pytest.mark.parametrize(
    ("values", "written"),
    [
        (["76.00", "1.25"], ["76.00", "1.25"]),
        (["76", "1.25"], ["76", "1.25"]),
        (["76.0", "1.25"], ["76.0", "1.25"]),
        (["76.0", "12.0"], ["76.0", "12.0"]),
        (["76", "12"], ["76", "12"]),
        (["0.00002", "76.0"], ["0.00002", "76.0"]),
    ],
)
def test_numbers_have_the_width_that_the_column_gives_them(
    tmp_path: Path, values: list[str], written: list[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,c\n" + "".join(f"{values[i % 2]},{i % 3}\n" for i in range(40)))
    tokenizer = load_table(TableData(path=path)).tokenizer
    column: Any = tokenizer.columns[0]  # type: ignore[attr-defined]
    assert {column.written(column.value(token, 0.5)) for token in range(2)} == set(written)


def test_a_choice_of_numbers_may_name_how_they_are_written() -> None:
    assert ColumnChoice(kind="numeric", format="1.234,56").format == "1.234,56"
    with pytest.raises(ValueError, match=r"format must be a number as 1,234.56 or 1.234,56, got 1,234"):
        ColumnChoice(kind="numeric", format="1,234")


@pytest.mark.parametrize(
    ("name", "delimiter", "pattern"),
    [
        ("deccomma", ";", {"price": r"\d+,\d\d", "kg": r"\d+,\d"}),
        ("thousands", ",", {"revenue": r"\d{1,3}(,\d{3})*"}),
        ("currency", ",", {"revenue": r"\$\d{1,3}(,\d{3})*\.00", "growth": r"-?\d+%"}),
    ],
)
def test_the_files_that_failed_come_out_as_they_went_in(name: str, delimiter: Any, pattern: dict[str, str]) -> None:
    if not CASES.is_dir():
        pytest.skip("the cases are not here; UNVEIL_TEST_CASES names their folder")
    dataset = load_table(TableData(path=CASES / f"{name}.csv", delimiter=delimiter))
    tokenizer: Any = dataset.tokenizer
    for column, regex in pattern.items():
        position = dataset.names.index(column)
        drawn = [
            tokenizer.columns[position].written(tokenizer.value(position, int(token), 0.37))
            for token in dataset.train[:, position]
        ]
        assert tokenizer.columns[position].kind == "numeric"
        assert pl.Series(drawn).str.contains(f"^{regex}$").all()
