"""The evaluation of a network to which the order of the past matters is of what is served: against ordered prefixes."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.ordered import L, X, ranked_network, token_table
from tests.training.small import small_dataset
from unveil.benchmarks.domains.problems.mixture import mixture_log_likelihood
from unveil.model.confidence import confidence_of
from unveil.model.denoiser import cross_entropy
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.oracle.ordered import (
    OrderedPrefixes,
    exact_nelbo,
    order_nelbo,
    ordered_prefixes,
    ordered_table,
    table_nelbo,
)
from unveil.model.order.plackett_luce import deterministic_order, next_log_probs
from unveil.training.data.rows import Rows, as_rows
from unveil.training.evaluation.comparison_orders import Law, why_not_enumerable
from unveil.training.evaluation.consistency import order_spread
from unveil.training.evaluation.judging.rows import sample
from unveil.training.evaluation.likelihood import (
    imputation_accuracy,
    law_walk,
    log_likelihood,
    marginal_nats,
    nelbo,
    policy_log_likelihood,
    policy_nelbo,
)
from unveil.training.evaluation.report import evaluate_model, num_row_forwards
from unveil.training.run.monitoring import own_regret, validation_metrics

LOG_W = torch.tensor([0.5, -1.0, 1.2, 0.1])
ROWS = Rows(X, torch.full((len(X),), L))
NEXT_COST = OrderSpec(kind="contextual", head="next_cost")
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


def _rows(copies: int) -> Rows:
    x = X.repeat(copies, 1)
    return Rows(x, torch.full((len(x),), L))


def _known(*positions: int) -> Tensor:
    return torch.zeros(L, dtype=torch.bool).index_fill(0, torch.tensor(positions, dtype=torch.int64), True)


def _is_mean(values: Tensor, expected: Tensor) -> bool:
    """Whether `values` [copies, N] are unbiased estimates of `expected` [N]."""
    z = (values.mean(0) - expected) / (values.std(0) / len(values) ** 0.5)
    return bool(z.square().sum() < len(expected) + 6 * (2 * len(expected)) ** 0.5)


@pytest.mark.parametrize("known", [(), (2,)], ids=["nothing known", "a prompt"])
def test_the_nelbo_estimate_is_that_of_the_oracle_for_every_row(known: tuple[int, ...]) -> None:
    network, prefixes, copies = ranked_network(), ordered_prefixes(L, known=known), 1500
    rows = _rows(copies)
    given = _known(*known).expand(rows.x.shape)
    values = nelbo(network, rows, LOG_W, seed=0, known=given).view(copies, -1)
    expected = exact_nelbo(LOG_W.double(), token_table(network, X, prefixes), prefixes)
    assert _is_mean(values, expected)
    assert not _is_mean(values, exact_nelbo(-LOG_W.double(), token_table(network, X, prefixes), prefixes))
    by_sets = nelbo(ranked_network(query_layers=0), rows, LOG_W, seed=0, known=given).view(copies, -1)
    assert not _is_mean(by_sets, expected), "a network of sets would be found out"


@pytest.mark.parametrize("known", [(), (0, 3)], ids=["nothing known", "a prompt"])
def test_the_log_likelihood_along_every_order_is_exact(known: tuple[int, ...]) -> None:
    network, prefixes = ranked_network(), ordered_prefixes(L, known=known)
    table = token_table(network, X, prefixes)
    given = _known(*known).expand(X.shape)
    for order in permutations(range(L)):
        free = [i for i in order if i not in known]
        values = log_likelihood(network, ROWS, list(order), known=given)
        torch.testing.assert_close(values, -order_nelbo(table, free, prefixes), **CLOSE)
    other = log_likelihood(ranked_network(query_layers=0), ROWS, list(range(L)))
    if not known:
        assert float((other - log_likelihood(network, ROWS, list(range(L)))).abs().max()) > 0.1


def test_a_whole_row_is_one_forward_and_is_told_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    network, asked = ranked_network(), 0
    told: list[int] = []
    read = network.read_in_turn

    def counted(tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Any:
        nonlocal asked
        asked += len(tokens)
        return read(tokens, ranks, lengths)

    monkeypatch.setattr(network, "read_in_turn", counted)
    log_likelihood(network, ROWS, list(range(L)), advance=told.append)
    assert asked == len(X)
    assert sum(told) == len(X) * L


def test_a_walk_says_in_which_order_it_went_and_what_was_likeliest() -> None:
    network = ranked_network()
    given = torch.zeros_like(X, dtype=torch.bool)
    given[::2, 1] = True
    lengths = torch.full((len(X),), L)
    lengths[5:] = 3
    found = law_walk(network, Rows(X, lengths), LOG_W, seed=8, known=given)
    assert len({tuple(order) for order in found.order.tolist()}) > 4
    for row, order in enumerate(found.order.tolist()):
        hidden = {i for i in range(int(lengths[row])) if not given[row, i]}
        revealed = [i for i in order if i >= 0]
        assert order == [*revealed, *[-1] * (L - len(revealed))]
        assert set(revealed) == hidden
        ranks = torch.zeros(1, L, dtype=torch.int64)
        ranks[0, revealed] = torch.arange(1, len(revealed) + 1)
        with torch.inference_mode():
            logits = network.in_turn(X[[row]], ranks, lengths[[row]])[0]
        nats = -logits.log_softmax(-1).gather(-1, X[row][:, None])[revealed].sum()
        assert float(found.nats[row]) == pytest.approx(float(nats), rel=1e-4)
        likeliest = logits.argmax(-1)[revealed].tolist()
        assert bool(found.is_solved[row]) == (likeliest == X[row][revealed].tolist())
    assert 0 < int(found.is_solved.sum()) < len(X)


def _network_with_a_head() -> Network:
    return ranked_network(order=NEXT_COST)


@torch.inference_mode()
def _tables(network: Network, prefixes: OrderedPrefixes) -> dict[str, Tensor]:
    """Of every prefix: token losses, log-probabilities of the next position, confidence [N, P, L]."""

    def asked(read: Any) -> Tensor:
        def values(rows: Tensor, ranks: Tensor) -> Tensor:
            hidden = (ranks == ranks.max(-1, keepdim=True).values) & (ranks > 0)
            shown = rows.masked_fill(hidden, 0)
            return read(network(shown, hidden, torch.full((len(rows),), L), ranks), hidden).double()  # type: ignore[no-any-return]

        return ordered_table(values, X, prefixes)

    return {
        "losses": token_table(network, X, prefixes),
        "law": asked(lambda seen, hidden: next_log_probs(seen.order_logits.double(), hidden)),
        "confidence": asked(lambda seen, _: confidence_of(seen.token_logits).confidence),
    }


def _follow(keys: Tensor, losses: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """Nats of each row along the hidden position with the largest key [N, P, L] at each prefix: [N]."""
    paid = []
    for row in range(len(keys)):
        prefix, nats = 0, 0.0
        while not prefixes.complete[prefix]:
            best = int(keys[row, prefix].masked_fill(~prefixes.hidden[prefix], -torch.inf).argmax())
            nats += float(losses[row, prefix, best])
            prefix = int(prefixes.children[prefix, best])
        paid.append(nats)
    return torch.tensor(paid, dtype=torch.float64)


@pytest.mark.parametrize("known", [(), (1,)], ids=["nothing known", "a prompt"])
def test_orders_that_look_are_walked_in_ranks(known: tuple[int, ...]) -> None:
    network, prefixes = _network_with_a_head(), ordered_prefixes(L, known=known)
    tables = _tables(network, prefixes)
    given = _known(*known).expand(X.shape)
    for policy, keys in (("learned", tables["law"]), ("confidence", tables["confidence"])):
        values = policy_log_likelihood(network, ROWS, policy, known=given)  # type: ignore[arg-type]
        torch.testing.assert_close(-values, _follow(keys, tables["losses"], prefixes), **CLOSE)


@pytest.mark.parametrize("known", [(), (1,)], ids=["nothing known", "a prompt"])
def test_a_law_that_looks_has_the_nelbo_of_the_oracle(known: tuple[int, ...]) -> None:
    network, copies = ranked_network(order=OrderSpec(kind="contextual")), 800
    prefixes, rows = ordered_prefixes(L, known=known), _rows(copies)
    tables = _tables(network, prefixes)
    law = tables["law"].masked_fill(~prefixes.hidden, -torch.inf)
    drawn = policy_nelbo(network, rows, seed=0, known=_known(*known).expand(rows.x.shape)).view(copies, -1)
    assert _is_mean(drawn, table_nelbo(law, tables["losses"], prefixes))
    even = exact_nelbo(torch.zeros(L), tables["losses"], prefixes)
    assert not _is_mean(drawn, even), "uniform orders would be found out"


def test_a_law_guides_another_network_by_the_ranks_that_either_reads() -> None:
    owner, plain = _network_with_a_head(), ranked_network(query_layers=0)
    law = Law(owner)
    own, prefixes = _tables(owner, ordered_prefixes(L)), ordered_prefixes(L)
    torch.testing.assert_close(law.greedy(owner, ROWS), _follow(own["law"], own["losses"], prefixes), **CLOSE)
    backwards = _follow(-own["law"], own["losses"], prefixes)
    torch.testing.assert_close(law.reversed_greedy(owner, ROWS), backwards, **CLOSE)

    def of_sets(rows: Tensor, ranks: Tensor) -> Tensor:
        hidden = (ranks == ranks.max(-1, keepdim=True).values) & (ranks > 0)
        logits = plain(rows.masked_fill(hidden, 0), hidden, torch.full((len(rows),), L)).token_logits
        return cross_entropy(logits, rows)

    with torch.inference_mode():
        losses = ordered_table(of_sets, X, prefixes)
    torch.testing.assert_close(law.greedy(plain, ROWS), _follow(own["law"], losses, prefixes), **CLOSE)


def test_what_is_not_scored_stays_hidden_to_the_end() -> None:
    network, scored = ranked_network(), torch.tensor([True, False, True, True]).expand(X.shape)
    prefixes = ordered_prefixes(L)
    table = token_table(network, X, prefixes)
    values = marginal_nats(network, ROWS, scored, seed=5)
    for row in range(len(X)):
        costs = []
        for order in permutations((0, 2, 3)):
            prefix, nats = 0, 0.0
            for position in order:
                nats += float(table[row, prefix, position])
                prefix = int(prefixes.children[prefix, position])
            costs.append(nats)
        assert min(abs(nats - float(values[row])) for nats in costs) < 1e-3
    assert order_spread(network, ROWS, seed=0)["spread"]["mean"] > 0.1


def test_what_is_known_from_the_start_reads_itself_both_ways_in_imputation() -> None:
    network, hits = ranked_network(), []
    for position in range(L):
        prefixes = ordered_prefixes(L, known=[i for i in range(L) if i != position])
        with torch.inference_mode():
            ranks = prefixes.ranks[:1].expand(X.shape)
            logits = network.in_turn(X, ranks, ROWS.lengths)[:, position]
        hits.append(float((logits.argmax(-1) == X[:, position]).double().mean()))
    assert imputation_accuracy(network, ROWS).tolist() == pytest.approx(hits)


def test_best_and_worst_orders_and_regret_are_left_out_since_sets_do_not_do() -> None:
    network = ranked_network()
    assert "depends on the order of those before it" in str(why_not_enumerable(ROWS, network))
    assert why_not_enumerable(ROWS, ranked_network(query_layers=0)) is None
    assert own_regret(network, ROWS, log_w=LOG_W, is_contextual=False) is None
    found = validation_metrics(network, ROWS, log_w=LOG_W, is_contextual=False, seed=0)
    order = deterministic_order(LOG_W).tolist()
    assert found["negative_log_likelihood"] == pytest.approx(-float(log_likelihood(network, ROWS, order).mean()))


@pytest.mark.parametrize("kind", ["global", "contextual"])
def test_all_metrics_of_a_table_are_there_and_told(kind: str) -> None:
    dataset = small_dataset()
    sizes = tuple(dataset.tokenizer.vocabulary_sizes)
    shape: dict[str, Any] = {"length": len(sizes), "vocabulary_sizes": sizes, "width": 16, "heads": 2}
    torch.manual_seed(0)
    order = NEXT_COST if kind == "contextual" else OrderSpec(kind="global")
    network = build_network(Architecture(**shape, query_layers=1), order).eval()
    reference = build_network(Architecture(**shape), OrderSpec(kind="uniform")).eval()
    told: list[int] = []
    metrics = evaluate_model(network, dataset, limit=20, reference=reference, advance=told.append)
    assert sum(told) == num_row_forwards(network, dataset, split="test", limit=20, reference=reference)
    assert "order of those before it" in metrics["left_out"]["best_and_worst"]
    assert "own_best_order" in metrics["reference"]["pairs"], "of the reference, whose sets do"


def test_benchmarks_that_step_for_themselves_serve_ranks_too() -> None:
    network = ranked_network()
    orders = [list(order) for order in list(permutations(range(L)))[::7]]
    along = torch.stack([log_likelihood(network, ROWS, order) for order in orders])
    found = mixture_log_likelihood(network, ROWS, orders)
    torch.testing.assert_close(found, along.logsumexp(0) - torch.tensor(len(orders)).double().log())
    ids = sample(network, order=[2, 0, 3, 1], rows=4000, seed=0)
    rows, counts = torch.unique(torch.from_numpy(ids), dim=0, return_counts=True)
    p = log_likelihood(network, as_rows(rows.numpy()), [2, 0, 3, 1]).exp()
    often = p > 0.01
    z = (counts / 4000 - p)[often] / (p * (1 - p) / 4000).sqrt()[often]
    assert int(often.sum()) > 5
    assert float(z.square().mean()) < 2.5
