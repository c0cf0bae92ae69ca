"""The search for an order against enumeration and Held-Karp."""

import pytest
import torch

from tests.model.absorbing import all_costs, masks, random_rows, state_costs
from unveil.model.loss.critic import Cost, Critic
from unveil.model.oracle.exact import best_order, subset_masks
from unveil.model.search import search
from unveil.model.search.pricing import SetPrices, TrialRows, order_cost
from unveil.model.search.search import Found, search_orders


def random_critic(L: int, *, seed: int) -> Cost:
    """A critic whose weights are large enough that orders differ by nats."""
    generator = torch.Generator().manual_seed(seed)
    critic = Critic(L)
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return critic


def rows_of(L: int, num: int = 1) -> TrialRows:
    """As many kinds of rows, the later the shorter."""
    absent = torch.arange(L) >= (L - torch.arange(num))[:, None]
    return TrialRows(torch.zeros_like(absent), absent)


def searched(cost: Cost, rows: TrialRows, *, seed: int = 0, max_questions: int = 1_000_000) -> list[Found]:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.stack([torch.randperm(rows.known.shape[1], generator=generator) for _ in range(2)])
    return search_orders(cost, rows, starts=starts, generator=generator, max_questions=max_questions)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("L", [1, 2, 5, 6])
def test_of_short_rows_the_best_of_all_orders_is_found_with_what_it_costs(L: int, seed: int) -> None:
    rows = random_rows(3, L, seed=seed)
    orders, costs = all_costs(state_costs(L, seed=seed), rows, L)
    best = searched(state_costs(L, seed=seed), TrialRows(*masks(rows, L)))[0]
    assert best.nats == pytest.approx(float(costs.min()))
    assert float(costs[(orders == best.order).all(-1)]) == pytest.approx(best.nats)


@pytest.fixture
def descending(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no row were short enough to be enumerated."""
    monkeypatch.setattr(search, "EXACT_LENGTH", 0)


@pytest.mark.usefixtures("descending")
@pytest.mark.parametrize("L", [8, 10])
def test_the_descents_end_at_the_best_order_there_is_for_nearly_every_critic(L: int) -> None:
    """Of 20 critics: for 18 at least, and never further from it than a hundredth of what random orders lose."""
    is_best = []
    for seed in range(20):
        cost, rows = random_critic(L, seed=seed), rows_of(L, 3)
        least = float(best_order(SetPrices(cost, rows).after(subset_masks(L)))[0])
        chance = torch.stack([torch.randperm(L) for _ in range(20)])
        lost = float(order_cost(cost, chance, rows).mean()) - least
        gap = searched(cost, rows, seed=seed)[0].nats - least
        assert -1e-4 < gap < 0.01 * lost
        is_best.append(gap < 1e-4)
    assert sum(is_best) >= 18


@pytest.mark.usefixtures("descending")
@pytest.mark.parametrize("seed", range(3))
def test_where_ends_absorb_the_descents_find_the_best_of_all_orders(seed: int) -> None:
    L, rows = 6, random_rows(4, 6, seed=seed)
    _, costs = all_costs(state_costs(L, seed=seed), rows, L)
    assert searched(state_costs(L, seed=seed), TrialRows(*masks(rows, L)))[0].nats == pytest.approx(float(costs.min()))


@pytest.mark.parametrize("max_questions", [0, 500, 20_000])
def test_nothing_that_is_found_first_is_dearer_than_a_start_however_small_the_budget(max_questions: int) -> None:
    L, rows = 20, rows_of(20, 2)
    for seed in range(5):
        cost = random_critic(L, seed=seed)
        first = searched(cost, rows, seed=seed, max_questions=max_questions)
        starts = torch.stack([found.order for found in first])
        found = search_orders(
            cost, rows, starts=starts, generator=torch.Generator().manual_seed(9), max_questions=max_questions
        )
        assert found[0].nats <= float(order_cost(cost, starts, rows).min()) + 1e-4
        assert first[0].nats <= float(order_cost(cost, torch.arange(L)[None], rows)) + 1e-4


def test_the_best_few_are_distinct_and_priced_and_sorted() -> None:
    for L in (6, 14):
        cost, rows = random_critic(L, seed=1), rows_of(L, 2)
        found = searched(cost, rows)
        nats = [each.nats for each in found]
        assert len({tuple(each.order.tolist()) for each in found}) == len(found) == 4
        assert all(sorted(each.order.tolist()) == list(range(L)) for each in found)
        assert nats == sorted(nats)
        prices = order_cost(cost, torch.stack([each.order for each in found]), rows)
        assert torch.allclose(prices, torch.tensor(nats, dtype=torch.float64), atol=1e-4)


def test_a_search_is_the_same_again_from_the_same_generator() -> None:
    cost, rows = random_critic(16, seed=2), rows_of(16)
    first, again = (searched(cost, rows, seed=4, max_questions=3_000) for _ in range(2))
    assert all(torch.equal(a.order, b.order) and a.nats == b.nats for a, b in zip(first, again, strict=True))


def test_no_more_is_asked_than_what_the_starts_need_and_the_budget() -> None:
    L, asked = 40, [0]
    critic = random_critic(L, seed=0)

    def cost(hidden: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        asked[0] += len(hidden)
        return critic(hidden, absent)

    counts = {}
    for budget in (0, 500, 2_000):
        asked[0] = 0
        searched(cost, rows_of(L), max_questions=budget)
        counts[budget] = asked[0]
    assert counts[0] < 20 * L
    assert all(counts[0] < counts[budget] <= counts[0] + budget for budget in (500, 2_000))


def test_a_search_ends_before_its_budget_where_nothing_helps_any_more() -> None:
    prices = []

    def cost(hidden: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        prices.append(len(hidden))
        return torch.arange(20.0).expand(hidden.shape)

    assert searched(cost, rows_of(20))[0].nats == 190.0
    assert sum(prices) < 200_000
