"""Prices of orders against a walk along each, row by row."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from tests.model.absorbing import all_costs, masks, mean_cost, random_rows, state_costs
from unveil.model.loss.critic import Trials
from unveil.model.search.pricing import SetPrices, TrialRows, order_cost


@pytest.mark.parametrize("has_ends", [True, False])
@pytest.mark.parametrize("L", [1, 2, 5])
def test_every_order_costs_the_mean_over_rows_of_its_steps(L: int, *, has_ends: bool) -> None:
    rows = random_rows(6, L, seed=L, has_ends=has_ends)
    known, absent, ends, control = masks(rows, L)
    given = TrialRows(known, absent, ends, control) if has_ends else TrialRows(known, absent)
    orders, costs = all_costs(state_costs(L), rows, L)
    assert torch.allclose(order_cost(state_costs(L), orders, given), costs)


def test_rows_that_look_alike_are_asked_about_once_and_count_as_often_as_they_are_there() -> None:
    L, asked = 4, []

    def cost(hidden: Tensor, absent: Tensor) -> Tensor:
        asked.append(len(hidden))
        return state_costs(L)(hidden, absent)

    some, other = random_rows(2, L, seed=3)
    twin = some._replace(control=tuple(2.0 * c for c in some.control))
    rows = [some, other, twin, some]
    order = (2, 0, 3, 1)
    assert float(order_cost(cost, torch.tensor([order]), TrialRows(*masks(rows, L)))) == pytest.approx(
        mean_cost(state_costs(L), order, rows)
    )
    assert sum(asked) == 2 * L


def test_questions_are_counted_as_sets_times_kinds_of_rows() -> None:
    L = 4
    rows = random_rows(3, L, seed=5)
    prices = SetPrices(state_costs(L), TrialRows(*masks([*rows, *rows], L)))
    prices.after(torch.zeros((7, L), dtype=torch.bool))
    assert (prices.num_kinds, prices.asked) == (3, 21)


def test_a_known_end_decides_nothing() -> None:
    L = 3
    rows = [random_rows(1, L, seed=1)[0]._replace(known=frozenset({0}), absent=frozenset(), ends=frozenset({0, 1, 2}))]
    without = [rows[0]._replace(ends=frozenset({1, 2}))]
    orders = torch.tensor(list(permutations(range(L))))
    prices = [order_cost(state_costs(L), orders, TrialRows(*masks(each, L))) for each in (rows, without)]
    assert torch.equal(*prices)
    assert prices[0].max() > prices[0].min()


def test_the_rows_of_a_steps_trials_are_taken_as_they_are() -> None:
    parts = masks(random_rows(3, 4, seed=2), 4)
    assert all(
        taken is part for taken, part in zip(TrialRows.of(Trials(torch.zeros(3, 4), *parts)), parts, strict=True)
    )
