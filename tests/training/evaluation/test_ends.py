"""Where an id ends a sequence, what is evaluated is what is served: ends decide what lies behind them."""

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.ordered import ranked_network
from tests.training.molecules import molecules_dataset
from unveil.engine.runner import Runner
from unveil.model.along.serving import along, decode
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.scoring import score
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.network.architecture import OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import fixed_shapes
from unveil.model.network.late import LateQueries
from unveil.model.oracle.exact import order_nelbo, subset_table
from unveil.model.order.plackett_luce import gumbel_noise
from unveil.training.data.rows import Rows, split_rows
from unveil.training.evaluation.conditionals import ask_set
from unveil.training.evaluation.likelihood import law_walk, log_likelihood, marginal_nats, policy_walk

END, L = 0, 4
TEXTS = [text for size in range(L + 1) for text in product((1, 2), repeat=size)]
X = torch.tensor([[*text, *[END] * (L - len(text))] for text in TEXTS])  # [31, L]: all that can be written
ROWS = Rows(X, torch.full((len(X),), L), end_id=END)
ORDERS = list(permutations(range(L)))
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}
QUERY_LAYERS = [1, 0]
CPU = torch.device("cpu")


def _network(query_layers: int, *, order: OrderSpec | None = None) -> Network:
    return ranked_network(query_layers=query_layers, order=order)


@cache
def _runner(query_layers: int) -> Runner:
    network = _network(query_layers)
    if isinstance(network, LateQueries):
        return Runner(along(network, end_id=END, max_rows=8), weights_version="", device=CPU)
    fixed, _ = fixed_shapes(prepare(network), network.architecture, 8, CPU)
    fixed.end_id = END
    return Runner(fixed, weights_version="", device=CPU)


def _served(
    query_layers: int,
    orders: Sequence[Sequence[int]] | OrderPolicy,
    *,
    given: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """What the engine says that each row costs: [N] nats, along an order of its own or by a policy."""
    runner, nothing = _runner(query_layers), torch.zeros_like(X, dtype=torch.bool)
    given, hidden = nothing if given is None else given, nothing if hidden is None else hidden
    chains = []
    for row, (x, shown, unseen) in enumerate(zip(X.tolist(), given.tolist(), hidden.tolist(), strict=True)):
        params = SamplingParams(order=orders) if isinstance(orders, str) else _along(orders[row], shown, unseen)
        chains.append(Chain.start(tuple(x), tuple(unseen), seed=row, params=params, given=tuple(shown)))
    terms = score(runner.score, chains, max_batch=8, links=runner.links)
    return torch.tensor([sum(term.nats for term in own) for own in terms], dtype=torch.float64)


def _along(order: Sequence[int], given: Sequence[bool], hidden: Sequence[bool]) -> SamplingParams:
    own = tuple(i for i in order if not given[i] and not hidden[i])
    return SamplingParams(order="explicit", explicit_order=own)


@pytest.mark.parametrize("query_layers", QUERY_LAYERS)
def test_all_that_can_be_written_has_probability_one_along_every_order(query_layers: int) -> None:
    network = _network(query_layers)
    for order in ORDERS:
        total = float(log_likelihood(network, ROWS, list(order)).exp().sum())
        assert total == pytest.approx(1.0, abs=1e-5), order
    plain = [float(log_likelihood(network, Rows(X, ROWS.lengths), list(order)).exp().sum()) for order in ORDERS]
    assert max(plain) < 0.99, "without the ends, other rows have their part"


@pytest.mark.parametrize("query_layers", QUERY_LAYERS)
def test_the_likelihood_along_every_order_is_the_one_that_is_served(query_layers: int) -> None:
    network = _network(query_layers)
    for order in ORDERS[:: 5 if query_layers else 11]:
        expected = _served(query_layers, [order] * len(X))
        torch.testing.assert_close(-log_likelihood(network, ROWS, list(order)), expected, **CLOSE)


@pytest.mark.parametrize("query_layers", QUERY_LAYERS)
def test_prompts_and_drawn_orders_too(query_layers: int) -> None:
    network, generator = _network(query_layers), torch.Generator().manual_seed(3)
    given = torch.rand(X.shape, generator=generator) < 0.3
    log_w = torch.tensor([0.5, -1.0, 1.2, 0.1])
    walk = law_walk(network, ROWS, log_w, seed=4, known=given)
    keys = -(log_w.double() + gumbel_noise(X.shape, torch.Generator().manual_seed(4)))
    torch.testing.assert_close(walk.nats, _served(query_layers, keys.argsort(-1).tolist(), given=given), **CLOSE)
    assert len(set(map(tuple, walk.order.tolist()))) > 10
    for row, order in enumerate(walk.order.tolist()):
        ends = [i for i in order if i >= 0 and X[row, i] == END]
        assert ends == sorted(ends, reverse=True), "of two ends the one behind has no turn after the other"
        missing = {i for i in range(L) if not given[row, i]} - set(order)
        assert all(X[row, i] == END and min(ends) < i for i in missing)


@pytest.mark.parametrize("query_layers", QUERY_LAYERS)
def test_a_part_of_the_row_alone_too(query_layers: int) -> None:
    scored = torch.rand(X.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    keys = -gumbel_noise(X.shape, torch.Generator().manual_seed(9))
    expected = _served(query_layers, keys.argsort(-1).tolist(), hidden=~scored)
    torch.testing.assert_close(marginal_nats(_network(query_layers), ROWS, scored, seed=9), expected, **CLOSE)


@pytest.mark.parametrize("query_layers", QUERY_LAYERS)
@pytest.mark.parametrize("policy", ["confidence", "margin", "entropy"])
def test_orders_that_look_too(query_layers: int, policy: Any) -> None:
    walk = policy_walk(_network(query_layers), ROWS, policy)
    torch.testing.assert_close(walk.nats, _served(query_layers, policy), **CLOSE)
    assert bool(((walk.order < 0) & (X == END)).any()), "ends decided others"


def test_a_law_that_looks_walks_over_the_open_positions_alone() -> None:
    network = _network(1, order=OrderSpec(kind="contextual"))
    assert isinstance(network, LateQueries)
    runner = Runner(along(network, end_id=END, max_rows=8), weights_version="", device=CPU)
    params = SamplingParams(order_temperature=0.0)
    chains = [Chain.start(tuple(x), (False,) * L, seed=0, params=params) for x in X.tolist()]
    terms = score(runner.score, chains, max_batch=8, links=runner.links)
    nats = torch.tensor([sum(term.nats for term in own) for own in terms], dtype=torch.float64)
    torch.testing.assert_close(policy_walk(network, ROWS, "learned").nats, nats, **CLOSE)


def test_tables_of_sets_have_what_every_order_costs() -> None:
    network = _network(0)
    with torch.inference_mode():
        table = subset_table(lambda x, hidden: ask_set(network, x, hidden, end_id=END)[1], X)
    for order in ORDERS[::5]:
        expected = -log_likelihood(network, ROWS, list(order))
        torch.testing.assert_close(order_nelbo(table, torch.tensor(order)), expected, **CLOSE)


@pytest.mark.parametrize("query_layers", QUERY_LAYERS)
def test_what_is_decoded_has_the_frequencies_that_are_evaluated(query_layers: int) -> None:
    network, count = _network(query_layers), 3000
    params = SamplingParams(order="explicit", explicit_order=(2, 0, 3, 1))
    starts = [Canvas.start((0,) * L, (True,) * L, seed=seed, params=params) for seed in range(count)]
    told: list[int] = []
    made = torch.tensor([d.canvas.tokens for d in decode(network, starts, end_id=END, on_step=told.append)])
    assert sum(told) == count * L
    counts = (made[:, None] == X).all(-1).sum(0)
    assert int(counts.sum()) == count, "only what can be written"
    p = log_likelihood(network, ROWS, [2, 0, 3, 1]).exp()
    often = p > 0.003
    z = (counts / count - p)[often] / (p * (1 - p) / count).sqrt()[often]
    assert int(often.sum()) > 4
    assert float(z.square().mean()) < 2.5


def test_rows_of_molecules_know_their_end() -> None:
    rows = split_rows(molecules_dataset(), "train", is_packed=True)
    some = rows.subset(9).widened().to(CPU)
    assert [part.end_id for part, _ in some.batches(size=4)] == [END] * 3
    assert rows.at(torch.tensor([1])).end_id == END
