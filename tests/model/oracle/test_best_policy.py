"""The contextual optimum against a recursion written out over partial canvases, and against what it must dominate."""

import torch
from torch import Tensor

from tests.model.enumerable import random_world
from unveil.model.oracle.exact import best_order, best_policy, order_nelbo, policy_cost

WORLD = random_world(L=4, V=2, seed=4, imperfection=2.0)
TABLES = WORLD.tables().detach()


def recursive(known: dict[int, int]) -> float:
    """V*(x_S) over canvases as dictionaries, expectations as sums over the rows that agree with them."""
    rows = [n for n, x in enumerate(WORLD.x.tolist()) if all(x[i] == v for i, v in known.items())]
    hidden = [i for i in range(WORLD.x.shape[1]) if i not in known]
    if not hidden:
        return 0.0
    S = sum(1 << i for i in known)
    mass = sum(float(WORLD.p[n]) for n in rows)

    def after(place: int) -> float:
        return sum(
            float(WORLD.p[n])
            / mass
            * (float(TABLES[n, S, place]) + recursive({**known, place: int(WORLD.x[n, place])}))
            for n in rows
        )

    return min(after(place) for place in hidden)


def mean(values: Tensor) -> float:
    return float((WORLD.p * values).sum())


def test_it_is_the_recursion_over_partial_canvases() -> None:
    value, _ = best_policy(TABLES, WORLD.x, WORLD.p)
    assert abs(float(value) - recursive({})) < 1e-9


def test_following_its_choices_costs_what_it_promises_and_less_than_any_single_order() -> None:
    value, choice = best_policy(TABLES, WORLD.x, WORLD.p)
    assert abs(mean(policy_cost(TABLES, choice)) - float(value)) < 1e-9
    best, sigma = best_order((WORLD.p[:, None, None] * TABLES).sum(0))
    assert float(value) < float(best) - 1e-3
    assert abs(mean(order_nelbo(TABLES, sigma)) - float(best)) < 1e-9


def test_it_is_not_clairvoyant() -> None:
    """Rows choose alike while they look alike, so it costs more than an order for each row in hindsight."""
    value, choice = best_policy(TABLES, WORLD.x, WORLD.p)
    hindsight, _ = best_order(TABLES)
    assert float(value) > mean(hindsight) + 1e-3
    for S in range(2**4):
        inside = [i for i in range(4) if S >> i & 1]
        for n in range(len(WORLD.x)):
            alike = (WORLD.x[:, inside] == WORLD.x[n, inside]).all(-1)
            assert (choice[alike, S] == choice[n, S]).all()


def test_rows_of_unequal_weight_count_by_their_weight() -> None:
    one = torch.zeros(len(WORLD.x), dtype=torch.float64)
    one[3] = 1.0
    value, _ = best_policy(TABLES, WORLD.x, one + 1e-12)
    assert abs(float(value) - float(best_order(TABLES[3])[0])) < 1e-6
