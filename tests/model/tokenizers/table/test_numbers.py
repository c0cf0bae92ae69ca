"""Numbers as people write them: found, read, and written again."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.errors import PromptError
from unveil.model.tokenizers.table.numbers import NumberStyle, find_style, marks_of
from unveil.model.tokenizers.table.table import TableTokenizer

WRITTEN = {
    "a decimal comma": (["747,06", "3,5", "12", "-0,25"], [747.06, 3.5, 12.0, -0.25]),
    "thousands": (["1,234,567", "890", "-1,234"], [1234567.0, 890.0, -1234.0]),
    "both": (["1,234.50", "1.25"], [1234.5, 1.25]),
    "both, the other way": (["1.234,50", "1,25"], [1234.5, 1.25]),
    "apostrophes": (["1'234.50", "12.00"], [1234.5, 12.0]),
    "narrow spaces": (["1\u202f234,5", "12,5"], [1234.5, 12.5]),
    "a currency before": (["$66,870.00", "-$5.00"], [66870.0, -5.0]),
    "a currency before a minus": (["CHF -5.50", "CHF 12.00"], [-5.5, 12.0]),
    "a currency behind": (["12,50 €", "1.000,00 €"], [12.5, 1000.0]),
    "brackets": (["($5.00)", "$1,200.50"], [-5.0, 1200.5]),
    "percent": (["76%", "-1%"], [76.0, -1.0]),
    "a typographer's minus": (["−5", "7"], [-5.0, 7.0]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_are_read_in_their_style_and_written_as_they_were(name: str) -> None:
    texts, numbers = WRITTEN[name]
    found = find_style(texts)
    assert found is not None
    assert [found.style.parse(text) for text in texts] == numbers
    decimals = max(len(repr(abs(x)).rstrip("0").partition(".")[2]) for x in numbers)
    again = [found.style.show(x, decimals=decimals) for x in numbers]
    assert [found.style.parse(text) for text in again] == numbers
    assert again == texts


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        ["007,5", "1,5"],  # a code
        ["192.168.1.1", "10.0.0.12"],
        ["2024-01-02", "2024-01-03"],
        ["1,2,3", "4,5"],
        ["$5", "5 €", "£5"],
        ["1,5 kg", "2,5 kg"],
        ["(5", "6)"],
    ],
)
def test_what_has_no_common_style_is_no_number(texts: list[str]) -> None:
    assert find_style(texts) is None


def test_a_separator_with_three_digits_behind_it_always_may_be_either_and_the_file_decides() -> None:
    texts = ["137,641", "293,836"]
    found, other = find_style(texts), find_style(texts, prefers_comma=True)
    assert found is not None
    assert other is not None
    assert (found.style.parse(texts[0]), other.style.parse(texts[0])) == (137641.0, 137.641)
    assert (found.other, other.other) == (other.style, found.style)
    assert find_style([*texts, "1,000,000"], prefers_comma=True) is not None
    sure = find_style([*texts, "0,5"])
    assert sure is not None
    assert (sure.style.decimal, sure.other) == (",", None)


def test_an_example_says_what_separates_where_only_one_reading_is_there() -> None:
    assert marks_of("1.234,56") == (",", ".")
    assert marks_of("1'234.5") == (".", "'")
    assert marks_of("1234,5") == (",", "")
    assert marks_of("1,234") is None
    assert marks_of("x") is None


@given(
    number=st.floats(-1e12, 1e12).map(lambda x: round(x, 3) + 0.0),
    places=st.integers(0, 5),
    place=st.sampled_from(["outside", "inside", "brackets"]),
)
def test_whatever_number_is_written_is_read_again(number: float, places: int, place: str) -> None:
    style = NumberStyle.model_validate(
        {"decimal": ",", "thousands": ".", "before": "€ ", "after": "", "minus_place": place, "places": places}
    )
    for decimals in (3, None):
        text = style.show(number, decimals=decimals)
        assert style.parse(text) == number
        assert len(text.partition(",")[2].rstrip(")")) >= places


def _prices() -> TableTokenizer:
    found = find_style(["$1,234.00", "$5.50"])
    assert found is not None
    return TableTokenizer.fit({"price": np.array([1234.0, 5.5, -2.0])}, number_styles={"price": found.style})


def test_a_column_gives_numbers_and_a_file_of_it_texts(tmp_path: Path) -> None:
    tokenizer = _prices()
    assert tokenizer.value(0, 2, 0.5) == 1234.0
    assert tokenizer.written([1234.0]) == ["$1,234.00"]
    assert tokenizer.written([-2.0]) == ["-$2.00"]
    assert tokenizer.output([1234.0]) == ({"price": 1234.0}, "price: $1,234.00")
    assert tokenizer.describe()["columns"][0]["written"] == "$1,234.00"
    tokenizer.save(tmp_path / "tokenizer.json")
    assert TableTokenizer.load(tmp_path / "tokenizer.json").columns == tokenizer.columns


def test_a_prompt_says_a_number_or_writes_it_as_the_column_does() -> None:
    tokenizer = _prices()
    assert tokenizer.encode({"price": "$1,234.00"}).tokens == tokenizer.encode({"price": 1234}).tokens == (2,)
    assert tokenizer.encode({"price": "$5.50"}).known == {0: "$5.50"}
    column = tokenizer.columns[0]
    assert [column.encode(column.read(text)) for text in ("$1,234", "5.50", "-$2")] == [2, 1, 0]
    for wrong in ("$2,000", "€5", "five"):
        with pytest.raises(PromptError, match=r"price must be a number between -2.0 and 1234.0, got"):
            column.encode(column.read(wrong))


def test_zero_has_no_sign() -> None:
    tokenizer = TableTokenizer.fit({"x": np.linspace(-1, 1, 401).round(2)}, max_bins=3)
    drawn = [tokenizer.value(0, 1, u) for u in np.linspace(0.3, 0.7, 400)]
    assert 0.0 in drawn
    assert "-0.0" not in map(repr, drawn)
