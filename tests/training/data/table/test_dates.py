"""Columns of dates in another dress: which format they get, and what is said of it."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from unveil.model.tokenizers.table.columns import DateColumn
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.training.data.config import ColumnChoice, TableData
from unveil.training.data.table.inference import ColumnReader, Kept
from unveil.training.data.table.table import load_table

CASES = Path(os.environ.get("UNVEIL_TEST_CASES") or Path(__file__).parents[5] / "shared" / "cases" / "tables")


def kept(values: list[Any], choice: ColumnChoice | None = None, *, dtype: Any = None) -> Kept:
    reader = ColumnReader(missing=("?",), place=lambda row: f"t.csv line {row + 2}")
    found = reader.infer(pl.Series("x", values, dtype=dtype), choice)
    assert isinstance(found, Kept)
    return found


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (["4/25/2024 2:52 PM", "11/20/2024 10:20 AM"], "M/D/YYYY h:mm AM"),
        (["04/05/2024 02:52 pm", "11/20/2024 10:20 am"], "MM/DD/YYYY hh:mm am"),
        (["2:52 PM", "10:20 AM"], "h:mm AM"),
        (["3/9/20", "8/20/17"], "M/D/YY"),
        (["9/27/2024", "12/3/2024"], "M/D/YYYY"),
        (["09/27/2024", "12/03/2024"], "MM/DD/YYYY"),
        (["2015-03", "2012-11"], "YYYY-MM"),
        (["27 Sep 2024", "3 May 2024"], "D Mon YYYY"),
        (["September 27, 2024", "May 03, 2024"], "Month DD, YYYY"),
        (["27-SEP-24", "03-MAY-24"], "DD-MON-YY"),
        (["2024-01-01 10:00:00.123", "2024-01-01 10:00:00.120"], "YYYY-MM-DD hh:mm:ss.fff"),
        (["2024-01-01 10:00:00.123456", "2024-01-01 10:00:00"], "YYYY-MM-DD hh:mm:ss.ffffff"),
        (["2024-01-01T10:00:00+01:00", "2024-07-01T10:00:00+01:00"], "YYYY-MM-DDThh:mm:ss+01:00"),
        (["2024-01-01T10:00:00+01:00", "2024-07-01T10:00:00+02:00"], "YYYY-MM-DDThh:mm:ss+hh:mm"),
        (["2024-01-01 10:00:00-0500", "2024-07-01 10:00:00-0400"], "YYYY-MM-DD hh:mm:ss+hhmm"),
    ],
)
def test_dates_get_the_format_that_writes_them_as_they_are(values: list[str], name: str) -> None:
    found = kept(values)
    assert found.date_format == name
    assert found.cells.dtype == np.float64
    if "+hh" not in name:
        assert FORMATS[name].show(found.cells[0]) == values[0]


def test_what_is_given_back_otherwise_is_told() -> None:
    offsets = kept(["2024-01-01T10:00:00+01:00", "2024-07-01T10:00:00+02:00"])
    assert offsets.notice == "holds times of several offsets, taken and given back in UTC"
    assert offsets.cells[1] - offsets.cells[0] == 182 * 86400 - 3600
    nanoseconds = kept(["2024-01-01 10:00:00.123456789"])
    assert nanoseconds.notice == "holds nanoseconds, taken as microseconds"
    assert nanoseconds.date_format == "YYYY-MM-DD hh:mm:ss.fffffffff"


def test_numbers_that_are_all_dates_are_taken_for_dates_unless_there_are_few() -> None:
    days = [20240100 + day for day in range(1, 32)]
    for values in (days, [float(day) for day in days], list(map(str, days))):
        found = kept(values)
        assert found.date_format == "YYYYMMDD"
        assert found.cells.tolist() == [19722.0 + i for i in range(1, 32)]
        assert found.notice == (
            'holds numbers that are dates as YYYYMMDD, taken so; --numeric "x" takes them as numbers'
        )
    assert kept([f"2023{month:02}" for month in range(1, 13)]).date_format == "YYYYMM"
    few = kept(days[:3])
    assert few.date_format is None
    assert few.notice == 'may be dates as YYYYMMDD; --date "x=YYYYMMDD" takes them so'
    assert kept([*days, 20240199]).date_format is None
    assert kept(days, ColumnChoice(kind="numeric")).cells.tolist() == days


def test_a_prompt_of_such_dates_may_be_a_number(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("day,k\n" + "".join(f"202401{i % 28 + 1:02},{i % 2}\n" for i in range(60)))
    tokenizer: Any = load_table(TableData(path=path)).tokenizer
    assert tokenizer.encode({"day": 20240105}).tokens == tokenizer.encode({"day": "20240105"}).tokens


@pytest.mark.parametrize(
    ("unit", "seconds", "pattern"),
    [
        ("ms", 86400.0, r"T00:00:00"),
        ("us", 3600.0, r"T\d\d:00:00"),
        ("ns", 0.001, r"T\d\d:\d\d:\d\d\.\d{3}"),
    ],
)
def test_typed_times_keep_their_step_as_written_ones_do(
    tmp_path: Path, unit: Any, seconds: float, pattern: str
) -> None:
    start = datetime(2024, 1, 1)
    times = [start + timedelta(seconds=seconds * i * i) for i in range(200)]
    path = tmp_path / "t.parquet"
    pl.DataFrame({"at": pl.Series(times, dtype=pl.Datetime(unit)), "k": [i % 2 for i in range(200)]}).write_parquet(
        path
    )
    tokenizer: Any = load_table(TableData(path=path, max_bins=3)).tokenizer
    drawn = [tokenizer.value(0, token, u) for token in range(3) for u in np.linspace(0.01, 0.99, 50)]
    assert pl.Series(drawn).str.contains(f"{pattern}$").all()


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("ampm", {"at": r"[1-9]\d?/[1-9]\d?/2024 [1-9]\d?:\d\d [AP]M"}),
        ("tzoffset", {"at": r"2024-\d\d-\d\dT\d\d:\d\d:00\+00:00"}),
        ("yyyymm", {"month": r"\d{4}-[01]\d"}),
        ("twodigit", {"at": r"[1-9]\d?/[1-9]\d?/\d\d"}),
        ("nanos", {"at": r"2024-\d\d-\d\d \d\d:\d\d:07\.\d{6}000"}),
        ("yyyymmdd_big", {"day": r"(19|20)\d\d[01]\d[0-3]\d"}),
        ("millis", {"at": r"2024-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"}),
        ("midnight", {"day": r"20\d\d-\d\d-\d\d 00:00:00", "hour": r"2013-\d\d-\d\d \d\d:00:00"}),
    ],
)
def test_the_files_that_failed_come_out_as_they_went_in(name: str, patterns: dict[str, str]) -> None:
    if not CASES.is_dir():
        pytest.skip("the cases are not here; UNVEIL_TEST_CASES names their folder")
    dataset = load_table(TableData(path=CASES / f"{name}.csv"))
    tokenizer: Any = dataset.tokenizer
    for column, regex in patterns.items():
        position = dataset.names.index(column)
        assert isinstance(tokenizer.columns[position], DateColumn)
        drawn = [tokenizer.value(position, int(token), 0.37) for token in dataset.train[:, position]]
        assert pl.Series(drawn).str.contains(f"^{regex}$").all(), drawn[:5]


def test_dates_among_times_are_their_midnight_and_it_is_told() -> None:
    values = ["2024-02-21 10:30:00", "2024-12-13", "2024-09-14", "2024-03-01 00:15:00", None]
    found = kept(values)
    assert found.date_format == "YYYY-MM-DD hh:mm:ss"
    assert found.notice == "holds dates without a time (2 different ones), taken as midnight"
    shown = [FORMATS[found.date_format].show(x) for x in found.cells[:3]]
    assert shown == ["2024-02-21 10:30:00", "2024-12-13 00:00:00", "2024-09-14 00:00:00"]
    assert np.isnan(found.cells[4])
    assert kept(["2024-12-13", "2024-09-14"]).date_format == "YYYY-MM-DD"


def test_a_date_alone_is_no_midnight_where_times_have_an_offset_or_no_day() -> None:
    assert FORMATS["YYYY-MM-DDThh:mm:ss+hh:mm"].read("2024-01-01") is None
    assert FORMATS["YYYY-MM-DDThh:mm:ss+01:00"].read("2024-01-01") is None
    assert FORMATS["YYYY-MM-DD hh:mmZ"].read("2024-01-01") == FORMATS["YYYY-MM-DD hh:mmZ"].parse("2024-01-01 00:00Z")
    assert FORMATS["hh:mm"].read("2024-01-01") is None
    for name in ("YYYY-MM-DD hh:mm", "YYYY-MM-DD hh:mm:ss", "YYYY-MM-DD hh:mm:ss.fff"):
        assert FORMATS[name].read("1969-12-31") == FORMATS[name].parse(
            "1969-12-31 00:00:00"[: 16 if "ss" not in name else 19]
        )
