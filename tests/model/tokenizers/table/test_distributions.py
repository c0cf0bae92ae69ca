"""Laws of columns against numbers drawn from them, and against sums worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from unveil.model.tokenizers.table.columns import Bin, CategoricalColumn, DateColumn, NumericColumn
from unveil.model.tokenizers.table.distributions import distribution

COUNTED, EVEN = Bin(values=(1.0, 2.0), weights=(3, 1)), Bin(values=(4.0, 6.0, 12.0))
NUMBERS = NumericColumn(name="x", bins=(COUNTED, EVEN, Bin(values=(20.0,))), missing=True, decimals=3)
MASS = {0: 0.3, 1: 0.4, 2: 0.1, 3: 0.2}


def _law(column: Any, mass: dict[int, float]) -> dict[str, Any]:
    return distribution(column, {i: math.log(p) for i, p in mass.items()})


def test_levels_come_by_their_probability_and_a_missing_one_is_null() -> None:
    column = CategoricalColumn(name="a", levels=("x", "y"), missing=True)
    levels = _law(column, {0: 0.2, 1: 0.5, 2: 0.3})["levels"]
    assert [own["value"] for own in levels] == ["y", None, "x"]
    assert [own["probability"] for own in levels] == pytest.approx([0.5, 0.3, 0.2])


def test_moments_and_quantiles_are_those_of_numbers_drawn_from_the_bins() -> None:
    law = _law(NUMBERS, MASS)
    generator = np.random.default_rng(0)
    ids = generator.choice(3, p=np.array([0.3, 0.4, 0.1]) / 0.8, size=200_000)
    drawn = np.array([NUMBERS.drawn(i, u) for i, u in zip(ids.tolist(), generator.random(len(ids)), strict=True)])
    assert law["missing"] == pytest.approx(0.2)
    assert law["mean"] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / len(drawn) ** 0.5)
    assert law["standard_deviation"] == pytest.approx(drawn.std(), rel=0.01)
    for share, value in law["quantiles"].items():
        below, upto = (drawn < value - 0.05).mean(), (drawn <= value + 0.05).mean()
        assert below - 0.01 <= float(share) <= upto + 0.01, share
    assert [(own["low"], own["high"]) for own in law["bins"]] == [(1.0, 2.0), (4.0, 12.0), (20.0, 20.0)]


def test_moments_by_hand() -> None:
    """Of the bin of counted values 1.25 and 0.1875; of the even one a mean of 7 between 4 and 12."""
    law = _law(NUMBERS, {0: 1.0})
    assert law["mean"] == pytest.approx(1.25)
    assert law["standard_deviation"] == pytest.approx(0.1875**0.5)
    assert _law(NUMBERS, {1: 1.0})["mean"] == pytest.approx((5 + 9) / 2)


def test_where_nothing_but_a_missing_value_can_be_there_is_no_number() -> None:
    law = _law(NUMBERS, {3: 1.0})
    assert (law["missing"], law["mean"], law["standard_deviation"]) == (1.0, None, None)
    assert set(law["quantiles"].values()) == {None}
    assert law["bins"] == []


def test_dates_have_quantiles_as_they_are_written_and_no_mean() -> None:
    bins = (Bin(values=(0.0, 10.0, 20.0)), Bin(values=(31.0,)))
    law = _law(DateColumn(name="d", format="YYYY-MM-DD", bins=bins), {0: 0.5, 1: 0.5})
    assert "mean" not in law
    assert (law["quantiles"]["0.25"], law["quantiles"]["0.95"]) == ("1970-01-11", "1970-02-01")
    assert law["bins"][0]["low"] == "1970-01-01"
