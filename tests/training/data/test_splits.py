"""Rows drawn into splits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unveil.training.data.splits import draw_out, fit_and_encode, notices_of, with_every_level


@given(num_rows=st.integers(10, 200), a=st.floats(0.01, 0.4), b=st.floats(0.01, 0.4), seed=st.integers(0, 9))
def test_every_row_is_in_exactly_one_part_and_no_part_is_empty(num_rows: int, a: float, b: float, seed: int) -> None:
    parts = draw_out(num_rows, shares=(a, b), seed=seed)
    assert all(len(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_rows))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_rows_go_to_training_until_it_has_every_level_unless_too_many_would() -> None:
    columns = {
        "c": np.array([*"aaaaabab", "z", "z"], dtype=object),
        "x": np.array([*range(7), np.nan, 8, 9], dtype=float),
        "name": np.array([f"n{i}" for i in range(10)], dtype=object),
    }
    parts = (np.arange(5), np.array([5, 6, 7]), np.array([8, 9]))
    (train, *held), moved = with_every_level({"c": columns["c"], "x": columns["x"]}, parts)
    assert moved.tolist() == [5, 8]  # 7 is the only one without a number, but leaves too little behind
    assert train.tolist() == [0, 1, 2, 3, 4, 5, 8]
    assert [part.tolist() for part in held] == [[6, 7], [9]]
    assert with_every_level({"name": columns["name"]}, parts)[1].tolist() == []
    assert with_every_level({"x": columns["x"]}, parts)[1].tolist() == [7]


def test_what_evaluation_rows_lose_is_counted_and_told() -> None:
    train = {"x": np.array([1.0, 2.0]), "c": np.array(["a", "b"], dtype=object)}
    test = {"x": np.array([1.5, 2.0, 9.0]), "c": np.array(["a", "z", "b"], dtype=object)}
    encoded = fit_and_encode(train, validation=train, test=test, max_bins=4)
    assert encoded.rows["test"].tolist() == [[0, 0], [1, 1]]
    assert encoded.fates["test"] == {
        "rows": 2,
        "rows_left_out": 1,
        "unseen_levels": {"c": 1},
        "moved_numbers": {"x": 2},
    }
    assert {name: rows.tolist() for name, rows in encoded.left_out.items()} == {
        "train": [],
        "validation": [],
        "test": [1],
    }
    assert notices_of(encoded, lambda split, row: f"{split}.csv row {row + 1}") == [
        "1 of 3 test rows have a level that no training row has (c): left out (the first: test.csv row 2)"
    ]
