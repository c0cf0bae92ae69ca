"""Dates as text and as numbers, and a column of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.table.columns import MISSING
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.table import TableTokenizer

DAYS = np.array([float(day) for day in range(19000, 19100)] + [np.nan])
_SPAN = {"D": 700_000, "m": 10**9, "s": 10**10, "us": 4 * 10**15}
_DAY = {"m": 24 * 60, "s": 24 * 3600, "us": 24 * 3600 * 10**6}


@given(st.sampled_from(sorted(FORMATS)), st.floats(-1, 1))
def test_every_count_comes_back_from_its_text(name: str, share: float) -> None:
    chosen = FORMATS[name]
    count = int(share * _SPAN[chosen.unit])
    if name.startswith("hh"):
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
