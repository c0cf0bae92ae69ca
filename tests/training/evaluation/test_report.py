"""All controls beside the learned order: what each figure is, for every kind of order, and a reference's pairs."""

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from tests.model.artifacts import random_transformer
from tests.training.small import small_dataset
from unveil.model.network.architecture import OrderKind
from unveil.model.network.base import Network
from unveil.training.data.rows import Rows
from unveil.training.evaluation.comparison_orders import Law, best_and_worst, mean_order, why_not_enumerable
from unveil.training.evaluation.likelihood import (
    as_rows,
    log_likelihood,
    nelbo,
    policy_log_likelihood,
    policy_nelbo,
    policy_walk,
)
from unveil.training.evaluation.report import EVALUATION_SEED, evaluate_model, num_row_forwards
from unveil.training.publishing.metric_tables import notes, order_rows, pair_rows

DATASET = small_dataset()
KINDS: tuple[OrderKind, ...] = ("global", "contextual", "uniform")
ROWS = as_rows(DATASET.test)


def _network(kind: OrderKind, *, seed: int = 4) -> Network:
    network = random_transformer(DATASET.tokenizer, kind=kind, seed=seed)
    for parameter in network.order_head.parameters():
        parameter.data.mul_(3.0)  # orders that differ from row to row
    return network


def _mean(values: torch.Tensor) -> float:
    return float(values.mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_reference", [False, True])
def test_the_progress_bar_is_told_what_it_was_promised(kind: OrderKind, has_reference: bool) -> None:
    told: list[int] = []
    reference = _network("uniform", seed=1) if has_reference else None
    network = _network(kind)
    metrics = evaluate_model(network, DATASET, limit=40, reference=reference, advance=told.append)
    promised = num_row_forwards(network, DATASET, split="test", limit=40, reference=reference)
    assert sum(told) == promised
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert ("reference" in metrics) == has_reference


def test_a_global_law_is_scored_as_it_always_was() -> None:
    network = _network("global")
    metrics = evaluate_model(network, DATASET)
    log_w = network.order_head.global_log_w().detach()
    order = log_w.argsort(descending=True).tolist()
    for name, weights in (("learned", log_w), ("uniform", torch.zeros(4)), ("reversed", -log_w)):
        assert metrics["nelbo"][name]["mean"] == _mean(nelbo(network, ROWS, weights, seed=EVALUATION_SEED))
    expected = {"learned": order, "reversed": order[::-1], "left_to_right": [0, 1, 2, 3], "right_to_left": [3, 2, 1, 0]}
    for name, sigma in expected.items():
        assert metrics["log_likelihood"][name]["mean"] == _mean(log_likelihood(network, ROWS, sigma))
    for policy in ("confidence", "margin"):
        assert metrics["log_likelihood"][policy]["mean"] == _mean(policy_log_likelihood(network, ROWS, policy))
    assert metrics["orders"]["learned"] == order


def test_a_contextual_law_is_scored_by_its_own_rollouts_and_its_likeliest_order() -> None:
    network = _network("contextual")
    metrics = evaluate_model(network, DATASET)
    assert metrics["nelbo"]["learned"]["mean"] == _mean(policy_nelbo(network, ROWS, seed=EVALUATION_SEED))
    walk = policy_walk(network, ROWS, "learned")
    assert len({tuple(order) for order in walk.order.tolist()}) > 1
    assert metrics["log_likelihood"]["learned"]["mean"] == _mean(-walk.nats)
    assert metrics["nelbo"]["reversed"]["mean"] != metrics["nelbo"]["learned"]["mean"]
    sigma = mean_order(network, as_rows(DATASET.validation))
    assert metrics["orders"]["mean_order"] == sigma
    assert metrics["log_likelihood"]["mean_order"]["mean"] == _mean(log_likelihood(network, ROWS, sigma))
    assert "learned" not in metrics["orders"], "each row has its own"


def test_the_reverse_of_a_policy_takes_what_it_likes_least() -> None:
    network = _network("contextual")
    rows = Rows(ROWS.x[:30], ROWS.lengths[:30])
    reversed_cost = Law(network).reversed_greedy(network, rows)
    hidden = torch.ones_like(rows.x, dtype=torch.bool)
    first = network(rows.x, hidden, rows.lengths).order_logits.argmin(-1)
    costs = torch.stack([-log_likelihood(network, rows, list(sigma)) for sigma in permutations(range(4))])
    starts = torch.tensor([sigma[0] for sigma in permutations(range(4))])
    for row in range(30):
        among = costs[starts == first[row], row]
        assert float((among - reversed_cost[row]).abs().min()) < 1e-4


def test_best_and_worst_are_so_among_all_orders_of_the_rows_they_were_chosen_on() -> None:
    network, rows = _network("global", seed=2), as_rows(DATASET.validation)
    costs = {sigma: _mean(-log_likelihood(network, rows, sigma)) for sigma in permutations(range(4))}
    best, worst = best_and_worst(network, rows)
    assert costs[tuple(best)] == pytest.approx(min(costs.values()), abs=1e-5)
    assert costs[tuple(worst)] == pytest.approx(max(costs.values()), abs=1e-5)
    metrics = evaluate_model(network, DATASET)
    assert (metrics["orders"]["best"], metrics["orders"]["worst"]) == (best, worst)
    for name, order in (("best", best), ("worst", worst)):
        assert metrics["log_likelihood"][name]["mean"] == _mean(log_likelihood(network, ROWS, order))
    assert "these very rows" not in "".join(notes(metrics, digits=3))
    on_validation = evaluate_model(network, DATASET, split="validation", limit=20)
    assert "chosen on these very rows" in "".join(notes(on_validation, digits=3))


def test_where_orders_are_too_many_to_compare_the_metrics_say_so() -> None:
    wide = torch.zeros(3, 11, dtype=torch.int64)
    network = _network("global")
    reason = why_not_enumerable(Rows(wide, torch.full((3,), 11)), network)
    assert reason is not None
    assert "11 positions" in reason
    assert why_not_enumerable(Rows(wide[:, :10], torch.full((3,), 10)), network) is None
    assert why_not_enumerable(Rows(wide[:, :10], torch.tensor([10, 9, 10])), network) == "rows differ in length"
    metrics = evaluate_model(network, DATASET, limit=20)
    metrics["left_out"] = {"best_and_worst": reason}
    assert f"left out: {reason}." in "".join(notes(metrics, digits=3))


def test_a_model_against_itself_differs_by_nothing() -> None:
    network = _network("uniform")
    reference = evaluate_model(network, DATASET, limit=50, reference=network)["reference"]
    for name in ("learned_orders", "learned_order", "conditional"):
        assert reference["pairs"][name]["difference"] == {"mean": 0.0, "standard_error": 0.0}
    assert reference["pairs"]["random_orders"]["difference"]["standard_error"] > 0


@pytest.mark.parametrize("kind", ["global", "contextual"])
def test_the_reference_is_scored_along_the_models_orders_and_its_own_best(kind: OrderKind) -> None:
    network, other = _network(kind), _network("uniform", seed=5)
    rows = ROWS.subset(40)
    reference = evaluate_model(network, DATASET, limit=40, reference=other)["reference"]
    walk = policy_walk(network, rows, "learned")
    each = [
        log_likelihood(other, Rows(rows.x[[row]], rows.lengths[[row]]), order)
        for row, order in enumerate(walk.order.tolist())
    ]
    pair = reference["pairs"]["learned_order"]
    assert pair["reference"]["mean"] == pytest.approx(_mean(-torch.cat(each)), abs=1e-5)
    assert pair["difference"]["mean"] == pytest.approx(_mean(walk.nats + torch.cat(each)), abs=1e-5)
    best = best_and_worst(other, as_rows(DATASET.validation))[0]
    assert reference["orders"] == {"own_best_order": best}
    own_best = reference["pairs"]["own_best_order"]["reference"]["mean"]
    assert own_best == pytest.approx(_mean(-log_likelihood(other, rows, best)))
    random_orders = nelbo(other, rows, torch.zeros(4), seed=EVALUATION_SEED)
    assert reference["pairs"]["random_orders"]["reference"]["mean"] == _mean(random_orders)
    margin = -policy_log_likelihood(other, rows, "margin")
    assert reference["pairs"]["margin"]["reference"]["mean"] == _mean(margin)


def test_every_order_and_every_pair_has_a_row_in_words() -> None:
    metrics = evaluate_model(_network("contextual"), DATASET, limit=20, reference=_network("uniform"))
    rows = list(order_rows(metrics, digits=3))
    assert len(rows) == len(metrics["nelbo"].keys() | metrics["log_likelihood"].keys())
    assert all(bound or exact for _, bound, exact in rows)
    assert len(list(pair_rows(metrics, digits=3))) == len(metrics["reference"]["pairs"])
    difference = metrics["reference"]["pairs"]["margin"]["difference"]["mean"]
    assert f"{difference:+.3f} ±" in "".join(map("".join, pair_rows(metrics, digits=3)))


def test_rows_that_differ_in_length_are_scored_without_best_and_worst() -> None:
    lengths = {split: np.full(len(getattr(DATASET, split)), 3) for split in ("train", "validation", "test")}
    padded = replace(DATASET, lengths=lengths)
    told: list[int] = []
    network = _network("contextual")
    metrics = evaluate_model(network, padded, limit=20, advance=told.append)
    assert metrics["left_out"] == {"best_and_worst": "rows differ in length"}
    assert "best" not in metrics["log_likelihood"]
    assert sum(told) == num_row_forwards(network, padded, split="test", limit=20)
