"""Which kind a column gets, and which columns a model should not learn."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.config import ColumnChoice, TableData
from unveil.training.data.table.inference import ColumnReader, Dropped, Kept

MARKERS = TableData.model_fields["missing"].default
READER = ColumnReader(missing=MARKERS, place=lambda row: f"t.csv line {row + 2}")


def infer(values: Any, choice: ColumnChoice | None = None, *, dtype: Any = None) -> Kept | Dropped:
    return READER.infer(pl.Series("x", values, dtype=dtype), choice)


def kept(values: Any, choice: ColumnChoice | None = None, *, dtype: Any = None) -> list[Any]:
    found = infer(values, choice, dtype=dtype)
    assert isinstance(found, Kept), found
    return [None if isinstance(cell, float) and np.isnan(cell) else cell for cell in found.cells]


def reason(values: Any, *, dtype: Any = None) -> str:
    found = infer(values, dtype=dtype)
    assert isinstance(found, Dropped)
    return found.reason


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        (["1", "-2", " 3 "], [1.0, -2.0, 3.0]),
        (["1.5", "1e3", ""], [1.5, 1000.0, None]),
        (["1", "?", "NA", "nan", "null", None], [1.0, None, None, None, None, None]),
        (["a", " b ", "?", ""], ["a", "b", None, None]),
        (["a", "[MISSING]"], ["a", None]),
        (["1", "[MISSING]"], [1.0, None]),
        (["TRUE", "FALSE", "TRUE"], ["TRUE", "FALSE", "TRUE"]),
        (["007", "010", "100"], ["007", "010", "100"]),
        (["12345678901234567890", "12345678901234567890"], ["12345678901234567890"] * 2),
        (["1", "2", "three"], ["1", "2", "three"]),
        (["1", "inf"], ["1", "inf"]),
        (["2024-01-01", "2024-02-30"], ["2024-01-01", "2024-02-30"]),
        (["0", "0.5", "-0"], [0.0, 0.5, 0.0]),
    ],
)
def test_cells_of_text_become_numbers_only_where_all_of_them_are(values: list[str], cells: list[Any]) -> None:
    assert kept(values) == cells


@pytest.mark.parametrize(
    ("values", "dtype", "cells"),
    [
        ([1, None, 3], pl.Int32, [1.0, None, 3.0]),
        ([0.1, float("nan"), None], pl.Float32, [0.1, None, None]),
        ([True, None, False], pl.Boolean, ["true", None, "false"]),
        (["1", "2", "1"], pl.Categorical, ["1", "2", "1"]),
        ([date(1970, 1, 3), None], pl.Date, [2.0, None]),
        ([datetime(1970, 1, 1, 1), None], pl.Datetime("ms"), [3600.0, None]),
    ],
)
def test_typed_cells_keep_their_meaning(values: list[Any], dtype: Any, cells: list[Any]) -> None:
    assert kept(values, dtype=dtype) == cells


def test_a_column_of_nothing_an_index_and_texts_without_end_are_dropped() -> None:
    assert reason(["", "?"]) == "has no values"
    assert reason([None, None], dtype=pl.Null) == "has no values"
    assert reason([str(i) for i in np.random.default_rng(0).permutation(50)]) == "is an index: it counts the rows"
    assert reason([f"name {i}" for i in range(30)]) == "has a different text in every row"
    assert reason([f"name {i // 2}" for i in range(600)]) == "has 300 different texts, more than 256"
    assert reason([[1], [2]]) == "is of the type List(Int64), which is not read"


def test_a_column_that_the_recipe_names_is_not_dropped() -> None:
    assert len(kept([f"name {i}" for i in range(300)], ColumnChoice())) == 300
    assert kept([str(i) for i in range(50)], ColumnChoice(max_bins=4)) == list(range(50))
    with pytest.raises(UnveilError, match=r'^t.csv line 2, column "x": has no values$'):
        infer(["", ""], ColumnChoice())


def test_the_recipe_decides_the_kind() -> None:
    assert kept(["1", "2", "?"], ColumnChoice(kind="categorical")) == ["1", "2", None]
    assert kept(["007", "010"], ColumnChoice(kind="numeric")) == [7.0, 10.0]


def refusal(values: Any, choice: ColumnChoice | None = None) -> str:
    with pytest.raises(UnveilError) as caught:
        infer(values, choice)
    return str(caught.value)


def notice(values: Any) -> str | None:
    found = infer(values)
    assert isinstance(found, Kept), found
    return found.notice


AGES = [str(age) for age in np.random.default_rng(0).integers(18, 76, 2000)]
WAYS = (
    "correct it, add it to data.missing, or choose: "
    '--categorical "x" takes the column as levels, --drop "x" leaves it out'
)


def test_one_word_among_many_numbers_is_refused_with_its_line() -> None:
    assert len(set(AGES)) == 58
    assert refusal(["?", *AGES[:500], "abc", *AGES[501:], "old"]) == (
        f't.csv line 503, column "x": "abc" is not a number, as 1,999 of 2,001 cells are; {WAYS}'
    )
    assert refusal([*[str(i) for i in range(100)], "old\n"]).startswith('t.csv line 102, column "x": "old" is not a nu')
    assert refusal(["1", "b"], ColumnChoice(kind="numeric")).startswith('t.csv line 3, column "x": "b" is not a number')
    assert refusal(["a"], ColumnChoice(kind="numeric")) == f't.csv line 2, column "x": "a" is not a number; {WAYS}'
    assert refusal([*AGES, "abc"], ColumnChoice(max_bins=4)).startswith('t.csv line 2002, column "x": "abc" is not a')


def test_the_user_may_take_such_a_column_as_levels_or_the_word_as_missing() -> None:
    assert len(set(kept([*AGES, "abc"], ColumnChoice(kind="categorical")))) == 59
    found = ColumnReader(missing=("abc",), place=str).infer(pl.Series("x", [*AGES, "abc"]), None)
    assert isinstance(found, Kept)
    assert found.cells.dtype == np.float64
    assert np.isnan(found.cells[-1])


def test_numbers_in_half_of_the_cells_are_refused_too_and_never_dropped_as_texts() -> None:
    halves = [str(i * 3) if i % 2 else f"text {i}" for i in range(600)]
    assert refusal(halves) == (f't.csv line 2, column "x": "text 0" is not a number, as 300 of 600 cells are; {WAYS}')
    assert refusal([*"12345" * 40, *(f"note {i}" for i in range(70))]).startswith(
        't.csv line 202, column "x": "note 0"'
    )
    assert len(kept(halves, ColumnChoice(kind="categorical"))) == 600


def test_few_numbers_among_texts_without_end_do_not_make_the_reason_false() -> None:
    tags = [f"{i}" if i % 4 == 0 else f"{i}f" for i in range(300)]
    assert reason(tags[:100]) == "has a different number or text in every row"
    assert reason(tags) == "has 300 different numbers and texts, more than 256"
    codes = [f"{i:04}" for i in range(0, 3000, 7)]
    assert reason(codes[:50]) == "has a different code in every row"
    assert reason([*codes, "A1"]) == "has 430 different numbers and texts, more than 256"  # codes are no quantities


def test_a_few_codes_among_words_are_levels_and_the_user_is_told_where() -> None:
    assert notice(["1", "2", "A"]) == (
        'holds numbers and texts, taken as levels; the first that is no number is "A" (t.csv line 4)'
    )
    codes = [str(i) for i in range(16)] * 10
    assert notice([*codes, "A"]) == (
        'holds numbers and texts, taken as levels; the first that is no number is "A" (t.csv line 162)'
    )
    assert refusal([*codes, "16", "A"]).startswith('t.csv line 163, column "x": "A" is not a number, as 161 of 162')
    assert notice(["?", "a", "b", "7"]) == (
        'holds numbers and texts, taken as levels; the first number is "7" (t.csv line 5)'
    )
    assert notice(["007", "010"]) == "holds numbers, taken as levels"


def dated(values: Any, choice: ColumnChoice | None = None, *, dtype: Any = None) -> tuple[str | None, list[Any]]:
    found = infer(values, choice, dtype=dtype)
    assert isinstance(found, Kept), found
    return found.date_format, [None if np.isnan(cell) else cell for cell in found.cells]


def test_dates_are_numbers_of_their_unit_with_the_format_that_all_of_them_have() -> None:
    assert dated(["1970-01-02", "?", " 1969-12-31 "]) == ("YYYY-MM-DD", [1.0, None, -1.0])
    assert dated(["01/02/1970", "13/01/1970"]) == ("DD/MM/YYYY", [31.0, 12.0])
    assert dated(["1970-01-01 00:02", "1970-01-01 1:00"]) == ("YYYY-MM-DD hh:mm", [2.0, 60.0])
    assert dated(["1970-01-01T00:00:01.5Z"] * 2) == ("YYYY-MM-DDThh:mm:ss.fZ", [1_500_000.0] * 2)
    assert dated(["19700102", "19700103"], ColumnChoice(kind="date", format="YYYYMMDD")) == ("YYYYMMDD", [1.0, 2.0])
    assert kept(["19700102", "19700103"]) == [19700102.0, 19700103.0]
    assert kept(["1970-01-02"] * 2, ColumnChoice(kind="categorical")) == ["1970-01-02"] * 2


def test_times_of_day_are_numbers_too_written_or_typed() -> None:
    assert dated(["07:05", "?", "23:59"]) == ("hh:mm", [425.0, None, 1439.0])
    assert dated(["00:00:01.500000"]) == ("hh:mm:ss.ffffff", [1_500_000.0])
    assert dated([time(7, 5), None], dtype=pl.Time) == ("hh:mm:ss", [25500.0, None])
    assert dated([time(0, 0, 0, 7)], dtype=pl.Time) == ("hh:mm:ss.ffffff", [7.0])
    assert kept(["21:15", "3:75"]) == ["21:15", "3:75"]
    assert kept(["10:00", "9:00"]) == ["10:00", "9:00"]  # it would come back as 09:00
    assert kept(["10:00", "24:00"]) == ["10:00", "24:00"]
    assert dated(["9:00"], ColumnChoice(kind="date", format="hh:mm")) == ("hh:mm", [540.0])
    lap_times = [f"{minute:02d}:{second:02d}" for minute in range(10, 31) for second in range(0, 60, 7)]
    assert kept(lap_times * 2) == lap_times * 2
    found = infer(["21:15", "23:59"])
    assert isinstance(found, Kept)
    assert found.notice == 'holds times of day; --categorical "x" takes them as levels'
    finer = ColumnReader(missing=(), place=str).infer(pl.Series("x", [1001], dtype=pl.Int64).cast(pl.Time), None)
    assert isinstance(finer, Kept)
    assert finer.notice == "holds nanoseconds, taken as microseconds"


def test_typed_times_of_a_zone_are_given_in_utc() -> None:
    moment = datetime(1970, 1, 1, 2, tzinfo=UTC)
    assert dated([moment], dtype=pl.Datetime("us", "Europe/Zurich")) == ("YYYY-MM-DDThh:mm:ssZ", [7200.0])


def test_days_that_two_formats_read_differently_are_refused_until_the_user_says_which() -> None:
    with pytest.raises(UnveilError) as caught:
        infer(["", "01/02/2024", "03/04/2024"])
    assert str(caught.value) == (
        't.csv line 3, column "x": "01/02/2024" may be DD/MM/YYYY, MM/DD/YYYY; say which one: --date "x=DD/MM/YYYY"'
    )
    assert dated(["01/02/1970"], ColumnChoice(kind="date", format="MM/DD/YYYY")) == ("MM/DD/YYYY", [1.0])


def test_something_else_among_many_dates_is_refused_with_its_line() -> None:
    days = [str(date(2024, 1, 1) + timedelta(days=i)) for i in range(100)]
    with pytest.raises(UnveilError, match=r'^t.csv line 102, column "x": "soon" is not a date as YYYY-MM-DD; add it'):
        infer([*days, "soon"])
    with pytest.raises(UnveilError, match=r'^t.csv line 22, column "x": "0" is not a date as YYYY-MM-DD; add it to'):
        infer([*days[:20], "0"])
    with pytest.raises(UnveilError, match=r'^t.csv line 2, column "x": "2024-01-01" is not a date as DD.MM.YYYY'):
        infer(days, ColumnChoice(kind="date", format="DD.MM.YYYY"))
    with pytest.raises(UnveilError, match=r'^t.csv line 2, column "x": "a" is a date in no format that is known'):
        infer(["a", "b"], ColumnChoice(kind="date"))


def test_a_number_without_end_among_numbers_is_refused_as_such() -> None:
    with pytest.raises(UnveilError, match=r'^t.csv line 102, column "x": "inf" is not a finite number, as 100 of 101'):
        infer([*[str(i) for i in range(100)], "inf"])


def test_a_constant_column_is_kept_and_told() -> None:
    for values in (["1", "1"], ["a", "a"]):
        found = infer(values)
        assert isinstance(found, Kept)
        assert found.notice == "has the same value in every row"
