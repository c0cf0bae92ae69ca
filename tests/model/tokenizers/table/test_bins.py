"""Bins: equal mass, heavy values alone, exact decimals."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.tokenizers.table.bins import MAX_WEIGHTED, Floats, fit_bins, num_decimals

columns = st.lists(st.integers(-50, 50) | st.floats(-1e9, 1e9, width=32), min_size=1, max_size=200).map(
    lambda values: np.array(values, dtype=np.float64)
)


@given(values=columns, max_bins=st.integers(1, 20))
def test_bins_cover_every_training_value_once_in_ascending_order(values: Floats, max_bins: int) -> None:
    bins = fit_bins(values, max_bins=max_bins)
    assert 1 <= len(bins) <= max_bins
    assert bins[0].low == values.min()
    assert bins[-1].high == values.max()
    assert all(a.high < b.low for a, b in pairwise(bins))
    holders = [sum(b.low <= x <= b.high for b in bins) for x in values]
    assert holders == [1] * len(values)


def test_few_distinct_values_get_a_bin_each() -> None:
    bins = fit_bins(np.array([3.0, 1.0, 2.0, 2.0]), max_bins=3)
    assert [(b.low, b.high) for b in bins] == [(1, 1), (2, 2), (3, 3)]


def test_a_value_of_big_mass_gets_a_bin_of_its_own() -> None:
    values = np.concatenate([np.zeros(900), np.arange(-50.0, 0.0), np.arange(1.0, 51.0)])
    bins = fit_bins(values, max_bins=8)
    assert [b.weights for b in bins if b.low == b.high] == [(900,)]
    assert len(bins) == 8


def test_heavy_values_never_cost_more_bins_than_there_are() -> None:
    values = np.concatenate([np.repeat(float(v), 30) for v in (10, 20, 30)] + [np.arange(40.0)])
    assert len(fit_bins(values, max_bins=4)) == 4


def test_distinct_values_are_shared_out_in_equal_parts() -> None:
    values = np.random.default_rng(0).permutation(1000).astype(float)
    bins = fit_bins(values, max_bins=10)
    sizes = [int(((b.low <= values) & (values <= b.high)).sum()) for b in bins]
    assert sizes == [100] * 10


def test_a_bin_of_few_values_draws_them_by_their_own_weights() -> None:
    (b,) = fit_bins(np.array([1.0, 5.0, 5.0, 5.0]), max_bins=1)
    drawn = [b.quantile(u) for u in (0.01, 0.24, 0.26, 0.99)]
    assert drawn == [1, 1, 5, 5]


def test_a_bin_of_many_values_draws_along_their_quantiles() -> None:
    values = np.random.default_rng(1).exponential(size=4000)
    (b,) = fit_bins(values, max_bins=1)
    assert b.weights is None
    assert len(values) > MAX_WEIGHTED
    uniforms = np.linspace(0.001, 0.999, 999)
    body = uniforms < 0.9  # the last piece of the quantile function spans the whole tail
    drawn = np.array([b.quantile(float(u)) for u in uniforms])
    assert np.abs(drawn - np.quantile(values, uniforms))[body].max() < 0.06
    assert np.all(np.diff(drawn) >= 0)


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([1.0, 20.0, -3.0], 0),
        ([0.5, 1.25], 2),
        ([1e-9], 9),
        ([0.1 + 0.2], None),
        ([1e300], None),
        ([2.0**53], None),
        ([1e-20], None),
    ],
)
def test_decimals_are_those_that_write_every_value(values: list[float], decimals: int | None) -> None:
    assert num_decimals(np.array(values)) == decimals
