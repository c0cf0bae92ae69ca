"""The oracle over ordered prefixes, against all permutations one by one, and against subsets where these are enough."""

from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model.enumerable import random_world
from tests.model.ordered import L, X, ranked_network, token_table
from unveil.model.denoiser import cross_entropy
from unveil.model.network.base import Network
from unveil.model.network.late import FRONT, Contents, LateQueries
from unveil.model.oracle import exact
from unveil.model.oracle.ordered import (
    best_order,
    exact_nelbo,
    law_table,
    log_likelihood,
    order_nelbo,
    ordered_prefixes,
    ordered_table,
    table_nelbo,
)
from unveil.model.order.plackett_luce import log_prob

LOG_W = torch.tensor([0.5, -1.0, 1.2, 0.1], dtype=torch.float64)
LENGTHS = torch.full((len(X),), L)


@torch.inference_mode()
def _along(network: Network, order: tuple[int, ...]) -> Tensor:
    """Nats of X along an order, what it leaves out being known, in one forward: [N]."""
    ranks = torch.zeros(L, dtype=torch.int64)
    ranks[list(order)] = torch.arange(1, len(order) + 1)
    losses = cross_entropy(network.in_turn(X, ranks.expand(X.shape), LENGTHS), X)
    return losses[:, list(order)].double().sum(-1)


def test_every_ordered_prefix_is_there_once() -> None:
    for length, known in ((6, ()), (4, (2,)), (3, (0, 1, 2))):
        prefixes = ordered_prefixes(length, known=known)
        free = [i for i in range(length) if i not in known]
        n = len(free)
        expected = [order for k in range(n + 1) for order in permutations(free, k)]
        assert len(prefixes.ranks) == len(expected)
        for ranks, order in zip(prefixes.ranks.tolist(), expected, strict=True):
            wanted = {**dict.fromkeys(free, len(order) + 1), **dict.fromkeys(known, 0)}
            wanted |= {position: place for place, position in enumerate(order, 1)}
            assert ranks == [wanted[i] for i in range(length)]
        assert prefixes.orders.tolist() == [list(order) for order in permutations(free)]
        for index, position in prefixes.hidden.nonzero().tolist():
            assert expected[prefixes.children[index, position]] == (*expected[index], position)
    assert len(ordered_prefixes(6).ranks) == 1957


@pytest.mark.parametrize("known", [(), (1,)], ids=["nothing known", "a prompt"])
def test_it_agrees_with_all_permutations_asked_in_turn(known: tuple[int, ...]) -> None:
    network, prefixes = ranked_network(), ordered_prefixes(L, known=known)
    table = token_table(network, X, prefixes)
    free = [i for i in range(L) if i not in known]
    orders = list(permutations(free))
    costs = torch.stack([_along(network, order) for order in orders])  # [n!, N]
    log_p = log_prob(LOG_W[free], torch.tensor([[free.index(i) for i in order] for order in orders]))
    assert float(log_p.exp().sum()) == pytest.approx(1.0)
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
    for order, cost in zip(orders, costs, strict=True):
        torch.testing.assert_close(order_nelbo(table, order, prefixes), cost, **close)
    expected = (log_p.exp()[:, None] * costs).sum(0)
    torch.testing.assert_close(exact_nelbo(LOG_W, table, prefixes), expected, **close)
    summed = log_likelihood(table, law_table(LOG_W, prefixes), prefixes)
    torch.testing.assert_close(summed, (log_p[:, None] - costs).logsumexp(0), **close)
    assert (summed >= -expected - 1e-4).all()
    least, sigma = best_order(table, prefixes)
    torch.testing.assert_close(least, costs.min(0).values, **close)
    assert [orders.index(tuple(order)) for order in sigma.tolist()] == costs.argmin(0).tolist()
    mean, one = best_order(table.mean(0), prefixes)
    assert tuple(one.tolist()) == orders[int(costs.mean(1).argmin())]
    assert float(mean) == pytest.approx(float(costs.mean(1).min()), rel=1e-4)


def _by_sets(network: Network) -> Tensor:
    def nats(rows: Tensor, hidden: Tensor) -> Tensor:
        logits = network(rows.masked_fill(hidden, 0), hidden, torch.full((len(rows),), L)).token_logits
        return cross_entropy(logits, rows)

    with torch.inference_mode():
        return exact.subset_table(nats, X)


def _differences(table: Tensor, sets: Tensor) -> list[float]:
    """Of the NELBO, of the likelihood and of the cost of the best order, the largest of all rows each."""
    prefixes = ordered_prefixes(L)
    pairs = (
        (exact_nelbo(LOG_W, table, prefixes), exact.exact_nelbo(LOG_W, sets)),
        (
            log_likelihood(table, law_table(LOG_W, prefixes), prefixes),
            exact.log_likelihood(-sets, exact.order_table(LOG_W)),
        ),
        (best_order(table, prefixes)[0], exact.best_order(sets)[0]),
    )
    return [float((a - b).abs().max()) for a, b in pairs]


def test_it_agrees_with_subsets_where_the_order_of_the_past_does_not_matter() -> None:
    world = random_world(L=L, imperfection=1.0)
    prefixes = ordered_prefixes(L)

    def nats(rows: Tensor, ranks: Tensor) -> Tensor:
        return world.cross_entropy(rows, (ranks == ranks.max(-1, keepdim=True).values) & (ranks > 0))

    assert max(_differences(ordered_table(nats, world.x, prefixes), world.tables())) < 1e-9


def test_subsets_are_not_enough_where_contents_read_what_was_revealed_earlier() -> None:
    network = ranked_network()
    assert min(_differences(token_table(network, X, ordered_prefixes(L)), _by_sets(network))) > 0.02


def test_a_law_that_depends_on_the_order_of_the_past_is_summed_too() -> None:
    prefixes, generator = ordered_prefixes(L), torch.Generator().manual_seed(0)
    table = token_table(ranked_network(), X, prefixes)
    logits = torch.randn(prefixes.ranks.shape, generator=generator, dtype=torch.float64)
    law = logits.masked_fill(~prefixes.hidden, -torch.inf).log_softmax(-1)
    orders = list(permutations(range(L)))
    costs = torch.stack([order_nelbo(table, order, prefixes) for order in orders])  # [n!, N]
    chances = torch.stack([order_nelbo(law, order, prefixes) for order in orders])[:, None]
    assert float(chances.exp().sum()) == pytest.approx(1.0)
    torch.testing.assert_close(table_nelbo(law, table, prefixes), (chances.exp() * costs).sum(0))
    torch.testing.assert_close(log_likelihood(table, law, prefixes), (chances - costs).logsumexp(0))


def _contents_read_all(network: LateQueries, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Contents:
    return CONTENTS(network, tokens, torch.zeros_like(ranks), lengths)._replace(ranks=F.pad(ranks, (FRONT, 0)))


def _queries_read_their_own_rank(network: LateQueries, contents: Contents, positions: Tensor, turns: Tensor) -> Tensor:
    return ASK(network, contents, positions, turns + 1)


CONTENTS, ASK = LateQueries.contents, LateQueries.ask


@pytest.mark.parametrize(("name", "mutant"), [("contents", _contents_read_all), ("ask", _queries_read_their_own_rank)])
def test_a_network_that_reads_what_it_must_not_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any
) -> None:
    network, prefixes = ranked_network(), ordered_prefixes(L)
    monkeypatch.setattr(LateQueries, name, mutant)
    table = token_table(network, X, prefixes)
    order = (2, 0, 3, 1)
    assert float((order_nelbo(table, order, prefixes) - _along(network, order)).abs().max()) > 0.05
