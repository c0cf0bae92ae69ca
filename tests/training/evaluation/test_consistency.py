"""How far probabilities depend on the order: nothing for a consistent denoiser, exactly so much for another."""

from itertools import permutations

import pytest
import torch

from tests.model.artifacts import random_transformer
from tests.model.enumerable import World, random_world
from tests.training.small import small_dataset
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.decoding.scoring import score, score_step
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.denoiser import Denoiser, Prediction
from unveil.training.data.rows import Rows, as_rows
from unveil.training.evaluation.consistency import marginal_gaps, order_spread, scored_sets
from unveil.training.evaluation.likelihood import marginal_nats
from unveil.training.evaluation.report import EVALUATION_SEED, evaluate_model
from unveil.training.evaluation.tables import generate_rows
from unveil.training.publishing.metric_tables import consistency_lines

L = 4
DATASET = small_dataset()


def _denoiser(world: World) -> Denoiser:
    def denoise(tokens: torch.Tensor, hidden: torch.Tensor, lengths: torch.Tensor) -> Prediction:
        digits = torch.where(hidden, 0, tokens + 1)
        return Prediction(world.logits[(digits * 3 ** torch.arange(L)).sum(-1)], torch.zeros(tokens.shape))

    return denoise


def _rows(world: World) -> Rows:
    return Rows(world.x, torch.full((len(world.x),), L))


def test_a_consistent_denoiser_has_no_spread_and_another_has() -> None:
    true, spoilt = random_world(L=L), random_world(L=L, imperfection=2.0)
    assert order_spread(_denoiser(true), _rows(true), seed=1)["spread"]["mean"] < 1e-5
    found = order_spread(_denoiser(spoilt), _rows(spoilt), seed=1)
    assert found["spread"]["mean"] > 0.3
    assert found["rows"] == 16


def test_the_marginal_of_a_part_is_its_cost_along_one_of_its_orders_with_the_rest_hidden() -> None:
    world = random_world(L=L, imperfection=2.0)
    denoise, scored = _denoiser(world), torch.tensor([[True, False, True, True]] * 16)
    nats = marginal_nats(denoise, _rows(world), scored, seed=5)
    for row in range(16):
        costs = []
        for order in permutations([0, 2, 3]):
            hidden, cost = torch.ones(1, L, dtype=torch.bool), 0.0
            for position in order:
                cost += float(world.cross_entropy(world.x[[row]], hidden)[0, position])
                hidden[0, position] = False
            costs.append(cost)
        assert min(abs(cost - float(nats[row])) for cost in costs) < 1e-5


def test_sets_to_score_are_of_what_can_be_hidden_and_of_every_size_from_two_on() -> None:
    rows = Rows(torch.zeros(2_000, 5, dtype=torch.int64), torch.full((2_000,), 4))
    sets = scored_sets(rows, seed=0)
    assert not (sets & rows.given).any()
    counts = torch.bincount(sets.sum(-1), minlength=6)
    assert counts[[0, 1, 5]].tolist() == [0, 0, 0]
    assert counts[2:5].min() > 550
    single = Rows(torch.zeros(3, 5, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    assert scored_sets(single, seed=0).sum(-1).tolist() == [1, 1, 1]


def test_scored_marginals_agree_with_rows_drawn_from_them_and_not_with_others() -> None:
    network = random_transformer(DATASET.tokenizer, kind="global", seed=4)
    hidden = torch.ones(1, 4, dtype=torch.bool)
    with torch.inference_mode():
        p = network(torch.zeros(1, 4, dtype=torch.int64), hidden, torch.tensor([4])).token_logits[0].double()
    sizes = DATASET.tokenizer.vocabulary_sizes
    draws = [torch.multinomial(p[i, :size].softmax(-1), 4_000, replacement=True) for i, size in enumerate(sizes)]
    alike = marginal_gaps(network, torch.stack(draws, 1), DATASET, seed=1)
    assert alike["total_variation"] == pytest.approx(alike["expected"], rel=0.5)
    draws[1] = torch.zeros_like(draws[1])
    other = marginal_gaps(network, torch.stack(draws, 1), DATASET, seed=1)
    assert other["largest"]["column"] == "b"
    assert other["total_variation"] > 3 * other["expected"]


def test_what_score_says_of_one_column_is_the_marginal_that_is_compared() -> None:
    network = random_transformer(DATASET.tokenizer, kind="global", seed=4)
    generated = generate_rows(network, 4, number=200, seed=3)
    worst = marginal_gaps(network, generated, DATASET, seed=1)["largest"]
    column = [DATASET.tokenizer.name(i) for i in range(4)].index(worst["column"])
    token_id = next(
        i
        for i in range(DATASET.tokenizer.vocabulary_sizes[column])
        if DATASET.tokenizer.token(column, i) == worst["value"]
    )
    tokens, hidden = [0] * 4, [True] * 4
    tokens[column], hidden[column] = token_id, False
    chain = Chain.start(tuple(tokens), tuple(hidden), seed=1, params=SamplingParams())
    (terms,) = score(lambda chains: score_step(network, chains), [chain], max_batch=1)
    assert -sum(term.nats for term in terms) == pytest.approx(torch.tensor(worst["scored"]).log().item(), abs=1e-5)


def test_the_card_has_both_metrics_in_words() -> None:
    network = random_transformer(DATASET.tokenizer, kind="global", seed=4)
    metrics = evaluate_model(network, DATASET, limit=30)
    again = order_spread(network, as_rows(DATASET.test, limit=30), seed=EVALUATION_SEED)
    assert metrics["consistency"] == again
    spread, gaps = consistency_lines(metrics)
    assert "over 8 random orders" in spread
    assert metrics["marginals"]["largest"]["column"] in gaps
