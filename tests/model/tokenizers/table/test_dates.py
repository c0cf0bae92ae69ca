"""Dates as text and as numbers, and a column of them."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.table.bins import coarsest_step
from unveil.model.tokenizers.table.columns import MISSING, DateColumn
from unveil.model.tokenizers.table.dates import FORMATS, candidates
from unveil.model.tokenizers.table.table import TableTokenizer

DAYS = np.array([float(day) for day in range(19000, 19100)] + [np.nan])
_SPAN = {"M": 20_000, "D": 700_000, "m": 10**9, "s": 10**10, "us": 4 * 10**15}
_DAY = {"m": 24 * 60, "s": 24 * 3600, "us": 24 * 3600 * 10**6}


@given(st.sampled_from(sorted(FORMATS)), st.floats(-1, 1))
def test_every_count_comes_back_from_its_text(name: str, share: float) -> None:
    chosen = FORMATS[name]
    share = share if "YYYY" in name else abs(share) / 60  # of two digits a century alone comes back
    count = int(share * _SPAN[chosen.unit])
    if chosen.noun == "time":
        count %= _DAY[chosen.unit]
    assert chosen.parse(chosen.show(count)) == count


@pytest.mark.parametrize(
    "text", ["2024-02-30", "2024-13-01", "24-01-01", "2024-01-01 00:00", "today", "now", "NaT", "", "٢٠٢٤-01-01"]
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert FORMATS["YYYY-MM-DD"].parse(text) is None


def test_a_time_of_day_counts_from_midnight_and_stays_within_its_day() -> None:
    assert FORMATS["hh:mm"].parse("7:05") == 425
    assert FORMATS["hh:mm:ss"].show(86399) == "23:59:59"
    assert FORMATS["hh:mm"].parse("24:00") is None
    assert FORMATS["hh:mm"].parse("07:05:00") is None


def test_leading_zeros_may_lack_when_read_and_are_there_when_shown() -> None:
    chosen = FORMATS["DD.MM.YYYY hh:mm"]
    count = chosen.parse("1.2.2024 7:05")
    assert count is not None
    assert chosen.show(count) == "01.02.2024 07:05"


@pytest.mark.parametrize(
    ("name", "text", "iso"),
    [
        ("M/D/YYYY h:mm AM", "9/7/2024 1:20 PM", "2024-09-07T13:20"),
        ("MM/DD/YYYY hh:mm am", "09/07/2024 12:05 am", "2024-09-07T00:05"),
        ("M/D/YY", "3/19/68", "2068-03-19"),
        ("DD.MM.YY", "01.02.69", "1969-02-01"),
        ("D. Month YYYY", "3. September 2024", "2024-09-03"),
        ("DD-MON-YY", "07-SEP-24", "2024-09-07"),
        ("Mon DD, YYYY, hh:mm", "May 07, 2024, 13:20", "2024-05-07T13:20"),
        ("YYYY-MM", "2024-09", "2024-09"),
        ("MM/YYYY", "09/2024", "2024-09"),
        ("YYYYMM", "202409", "2024-09"),
        ("YYYY-MM-DD hh:mm:ss.fff", "2024-09-07 13:20:01.250", "2024-09-07T13:20:01.250"),
        ("YYYY-MM-DD hh:mm:ss.fffffffff", "2024-09-07 13:20:01.250001000", "2024-09-07T13:20:01.250001"),
        ("YYYY-MM-DDThh:mm+hh:mm", "2024-09-07T13:20+00:00", "2024-09-07T13:20"),
        ("YYYY-MM-DDThh:mm+02:00", "2024-09-07T13:20+02:00", "2024-09-07T13:20"),
        ("YYYY-MM-DD hh:mm:ss UTC", "2024-09-07 13:20:01 UTC", "2024-09-07T13:20:01"),
    ],
)
def test_a_date_in_any_dress_is_read_and_written_as_it_was(name: str, text: str, iso: str) -> None:
    chosen = FORMATS[name]
    count = chosen.parse(text)
    assert count is not None
    assert np.datetime64(count, chosen.unit) == np.datetime64(iso)
    assert chosen.show(count) == text
    if not text.isdecimal():  # such a text is a number at first
        assert {FORMATS[found].parse(text) for found in candidates([text])} - {None}


def test_an_offset_is_taken_off_and_a_fraction_may_lack() -> None:
    times = FORMATS["YYYY-MM-DD hh:mm:ss.ffffff+hhmm"]
    assert times.parse("1970-01-01 02:00:00+0130") == 30 * 60 * 10**6
    assert times.parse("1969-12-31 22:30:00.5-0130") == 500_000
    assert times.show(0) == "1970-01-01 00:00:00.000000+0000"


@pytest.mark.parametrize(
    ("name", "text"),
    [("hh:mm AM", "13:20 PM"), ("hh:mm AM", "0:20 AM"), ("YYYYMMDD", "2024111"), ("M/D/YY", "3/19/2020")],
)
def test_what_no_clock_or_calendar_has_is_none(name: str, text: str) -> None:
    assert FORMATS[name].parse(text) is None


def test_names_that_are_no_formats_are_not_known() -> None:
    assert [name in FORMATS for name in ("D.M.YY h:mm", "hh", "DD.MM", "YYYY-MM-DDhh:mm", "%Y")] == [True, *[False] * 4]


@pytest.mark.parametrize(
    ("first", "step", "drawn"),
    [
        ("2021-06-11 00:00:00", 86400, r"00:00:00"),
        ("2021-06-11 06:00:00", 3600, r"\d\d:00:00"),
        ("2021-06-11 06:30:00", 3600, r"\d\d:30:00"),
        ("2021-06-11 06:30:00", 1800, r"\d\d:[03]0:00"),
        ("2021-06-11 06:00:00", 1, r"\d\d:\d\d:\d\d"),
    ],
)
def test_times_keep_the_coarsest_step_that_all_of_them_share(first: str, step: int, drawn: str) -> None:
    name = "YYYY-MM-DD hh:mm:ss"
    start = FORMATS[name].parse(first)
    assert start is not None
    counts = np.array([start + step * i * i for i in range(80)], dtype=float)
    tokenizer = TableTokenizer.fit({"at": counts}, max_bins=2, date_formats={"at": name})
    (column,) = tokenizer.columns
    assert isinstance(column, DateColumn)
    assert column.step == step
    found = {str(tokenizer.value(0, token, u)) for token in (0, 1) for u in np.linspace(0.01, 0.99, 97)}
    assert len(found) > 80  # values between those of training, too
    assert all(re.fullmatch(rf"\d{{4}}-\d\d-\d\d {drawn}", text) for text in found)


def test_months_days_and_weeks_have_steps_too() -> None:
    assert coarsest_step(np.array([0.0, 3.0, 9.0]), "M") == 3
    assert coarsest_step(np.array([0.0, 14.0, 21.0]), "D") == 7
    assert coarsest_step(np.array([0.0, 2000.0, 5000.0]), "us") == 1000
    assert coarsest_step(np.array([5.0, 5.0]), "s") == 1


def _column() -> TableTokenizer:
    return TableTokenizer.fit({"joined": DAYS}, max_bins=10, date_formats={"joined": "DD.MM.YYYY"})


def test_a_prompt_takes_dates_and_gives_them_back_as_they_were() -> None:
    template = _column().encode({"joined": "8.1.2022"})
    assert template.known == {0: "8.1.2022"}
    assert template.tokens[0] == 0
    assert template.hidden == (False,)


def test_values_are_dates_within_their_bin() -> None:
    tokenizer = _column()
    chosen = FORMATS["DD.MM.YYYY"]
    assert tokenizer.token(0, 0) == "08.01.2022 to 17.01.2022"
    for token in range(10):
        for uniform in (0.001, 0.5, 0.999):
            value = tokenizer.value(0, token, uniform)
            assert isinstance(value, str)
            count = chosen.parse(value)
            assert count is not None
            assert 19000 + 10 * token <= count < 19010 + 10 * token
    assert tokenizer.value(0, 10, 0.5) == MISSING


@pytest.mark.parametrize("value", ["2022-01-08", "07.01.2022", "31.02.2022", 19001, None, True])
def test_anything_else_is_refused_saying_what_the_column_takes(value: object) -> None:
    with pytest.raises(PromptError) as caught:
        _column().columns[0].encode(value)
    assert str(caught.value).startswith(
        'joined must be a date as DD.MM.YYYY between 08.01.2022 and 17.04.2022, or "[MISSING]", got '
    )
    assert caught.value.param == "joined"


def test_a_column_of_dates_survives_its_file_and_a_foreign_format_does_not(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer = _column()
    tokenizer.save(path)
    assert TableTokenizer.load(path).columns == tokenizer.columns
    assert tokenizer.describe()["columns"][0] == {
        "name": "joined",
        "kind": "date",
        "format": "DD.MM.YYYY",
        "low": "08.01.2022",
        "high": "17.04.2022",
        "bins": 10,
        "missing": True,
    }
    assert tokenizer.example_prompt() == {}
    path.write_text(path.read_text().replace("DD.MM.YYYY", "%d.%m"))
    with pytest.raises(ArtifactError, match="the format"):
        TableTokenizer.load(path)


def test_cells_become_ids_as_numbers_do() -> None:
    encoded = _column().encode_rows({"joined": np.array([19000.0, 19099.0, np.nan, 25000.0])})
    assert encoded.tokens[:, 0].tolist() == [0, 9, 10, 9]
    assert encoded.num_moved == {"joined": 1}
