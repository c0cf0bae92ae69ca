"""Scores against the exact oracle: one order exactly, drawn ones in the mean, hidden positions summed out by force."""

import math
from functools import partial
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.contextual import TableDenoiser, random_denoiser
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.sampler import decode
from unveil.model.decoding.scoring import score, score_step
from unveil.model.decoding.scoring_chain import Chain, Score, summarise
from unveil.model.decoding.seeds import derive_seed
from unveil.model.denoiser import Prediction
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.transformer import Transformer
from unveil.model.oracle.exact import exact_nelbo, order_nelbo, subset_masks, subset_table, table_nelbo
from unveil.model.order.plackett_luce import log_prob

L, V = 4, 3
X = (2, 0, 1, 2)
KNOWN: list[tuple[int, ...]] = [(0, 1, 2, 3), (0, 2, 3), (3, 1), (2,)]


@pytest.fixture(scope="module")
def denoiser() -> TableDenoiser:
    return random_denoiser(L=L, V=V, seed=3)


def _chain(known: tuple[int, ...], *, seed: int = 0, x: tuple[int, ...] = X, **params: Any) -> Chain:
    hidden = tuple(i not in known for i in range(len(x)))
    return Chain.start(x, hidden, seed=seed, params=SamplingParams(**params))


def _score(denoise: Any, known: tuple[int, ...], *, num_orders: int = 1, seed: int = 0, **params: Any) -> Score:
    chains = [_chain(known, seed=derive_seed(seed, 0, k), **params) for k in range(num_orders)]
    terms = score(partial(score_step, denoise), chains, max_batch=4096)
    return summarise(terms, is_drawn=chains[0].canvas.params.is_order_drawn)


def _tables(denoise: TableDenoiser, known: tuple[int, ...], *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(CE, log pi) over subsets of the known positions alone, the hidden ones masked throughout: [2**n, n] each."""
    n = len(known)
    places = list(known)
    tokens, hidden = torch.zeros(2**n, L, dtype=torch.int64), torch.ones(2**n, L, dtype=torch.bool)
    masks = subset_masks(n)
    truth = torch.tensor(X)[places]
    hidden[:, places] = ~masks
    tokens[:, places] = torch.where(masks, truth, 0)
    logits, order_logits = denoise(tokens, hidden, torch.full((2**n,), L))
    ce = -logits.log_softmax(-1)[:, places].gather(-1, truth.expand(2**n, n)[..., None]).squeeze(-1)
    law = (order_logits[:, places] / temperature).masked_fill(masks, -torch.inf).log_softmax(-1)
    return ce, law.nan_to_num(-torch.inf)


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_every_explicit_order_costs_what_the_oracle_says(denoiser: TableDenoiser, known: tuple[int, ...]) -> None:
    ce, _ = _tables(denoiser, known)
    for places in permutations(range(len(known))):
        order = tuple(known[i] for i in places)
        found = _score(denoiser, known, order="explicit", explicit_order=order)
        expected = float(order_nelbo(ce, torch.tensor(places)))
        assert found.log_likelihood == pytest.approx(-expected, abs=1e-9)
        assert found.log_likelihood == -found.nelbo.mean
        assert found.nelbo.standard_error == 0.0
        assert [p.position for p in sorted(found.positions, key=lambda p: p.mean_step)] == list(order)


def test_with_nothing_hidden_it_is_the_oracles_order_nelbo_of_the_whole_row(denoiser: TableDenoiser) -> None:
    table = subset_table(denoiser.world.cross_entropy, torch.tensor([X]))[0]
    for order in permutations(range(L)):
        found = _score(denoiser, KNOWN[0], order="explicit", explicit_order=order)
        assert found.nelbo.mean == pytest.approx(float(order_nelbo(table, torch.tensor(order))), abs=1e-5)


@pytest.mark.parametrize("known", KNOWN[1:], ids=str)
def test_hidden_positions_are_integrated_out_as_a_sum_over_everything_they_could_be(
    denoiser: TableDenoiser, known: tuple[int, ...]
) -> None:
    """p(x_C) = sum over x_H of p(x_C, x_H) along any order that reveals C first: an imperfect denoiser included."""
    hidden = [i for i in range(L) if i not in known]
    for order in permutations(known):
        rows = torch.tensor([X]).repeat(V ** len(hidden), 1)
        rows[:, hidden] = torch.tensor(list(product(range(V), repeat=len(hidden))))
        tables = subset_table(denoiser.world.cross_entropy, rows)
        total = (-order_nelbo(tables, torch.tensor([*order, *hidden]))).logsumexp(0)
        found = _score(denoiser, known, order="explicit", explicit_order=order)
        assert found.log_likelihood == pytest.approx(float(total), abs=1e-9)


def test_a_perfect_denoiser_gives_the_true_marginal_in_every_order() -> None:
    perfect = random_denoiser(L=L, V=V, seed=3)
    world = type(perfect.world)(perfect.world.x, perfect.world.p, _perfect_logits(perfect.world.x, perfect.world.p))
    perfect = TableDenoiser(world, perfect.order_logits)
    for known in KNOWN:
        agrees = (world.x[:, list(known)] == torch.tensor(X)[list(known)]).all(-1)
        truth = float(world.p[agrees].sum().log())
        for order in ("left_to_right", "right_to_left", "confidence", "margin", "entropy"):
            assert _score(perfect, known, order=order).log_likelihood == pytest.approx(truth, abs=1e-6)
        for order in ("learned", "uniform"):
            found = _score(perfect, known, order=order, num_orders=5)
            assert found.nelbo.mean == pytest.approx(-truth, abs=1e-6)
            assert found.nelbo.standard_error == pytest.approx(0, abs=1e-6)


def _perfect_logits(x: Tensor, p: Tensor) -> Tensor:
    canvases = torch.tensor(list(product(range(V + 1), repeat=L))).flip(-1)
    agrees = ((canvases[:, None] == 0) | (canvases[:, None] == x + 1)).all(-1).double()
    joint = torch.einsum("cs,s,siv->civ", agrees, p, torch.nn.functional.one_hot(x, V).double())
    return (joint + 1e-300).log()


@pytest.mark.parametrize("known", KNOWN[:3], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_the_learned_law_has_the_oracles_nelbo_within_its_standard_error(
    denoiser: TableDenoiser, known: tuple[int, ...], temperature: float
) -> None:
    ce, law = _tables(denoiser, known, temperature=temperature)
    found = _score(denoiser, known, num_orders=1500, order="learned", order_temperature=temperature)
    assert found.nelbo.standard_error is not None
    assert found.nelbo.standard_error < 0.08
    assert abs(found.nelbo.mean - float(table_nelbo(law, ce))) < 4 * found.nelbo.standard_error + 1e-9


@pytest.mark.parametrize("known", KNOWN[:3], ids=str)
def test_uniform_orders_have_the_oracles_uniform_nelbo(denoiser: TableDenoiser, known: tuple[int, ...]) -> None:
    ce, _ = _tables(denoiser, known)
    found = _score(denoiser, known, num_orders=1500, order="uniform")
    assert found.nelbo.standard_error is not None
    assert abs(found.nelbo.mean - float(exact_nelbo(torch.zeros(len(known)), ce))) < 4 * found.nelbo.standard_error


def test_all_orders_weighted_by_their_probability_give_the_nelbo_exactly(denoiser: TableDenoiser) -> None:
    log_w = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)
    for known in KNOWN:
        places = list(known)
        total = math.fsum(
            math.exp(float(log_prob(log_w[places], torch.tensor(order))))
            * _score(denoiser, known, order="explicit", explicit_order=tuple(known[i] for i in order)).nelbo.mean
            for order in permutations(range(len(known)))
        )
        ce, _ = _tables(denoiser, known)
        assert total == pytest.approx(float(exact_nelbo(log_w[places], ce)), abs=1e-9)


def test_the_restricted_global_law_is_the_law_of_the_known_positions_own_order(denoiser: TableDenoiser) -> None:
    """Drawn orders of three of four positions occur as often as Plackett-Luce over the three says."""
    log_w = torch.tensor([0.3, 9.0, 0.8, 0.1], dtype=torch.float64)
    plain = TableDenoiser(denoiser.world, log_w.expand(denoiser.order_logits.shape))
    chains = [_chain((0, 2, 3), seed=seed) for seed in range(2500)]
    found = score(partial(score_step, plain), chains, max_batch=2500)
    for order in permutations(range(3)):
        p = math.exp(float(log_prob(log_w[[0, 2, 3]], torch.tensor(order))))
        seen = sum([t.position for t in terms] == [(0, 2, 3)[i] for i in order] for terms in found) / len(chains)
        assert abs(seen - p) < 5 * math.sqrt(p * (1 - p) / len(chains))


@pytest.mark.parametrize("order", ["learned", "confidence", "margin", "entropy"])
def test_a_deterministic_policy_ranks_the_known_positions_alone(denoiser: TableDenoiser, order: str) -> None:
    """Followed by hand, step by step, with hidden positions that would come first everywhere."""
    known = (0, 2, 3)
    eager = TableDenoiser(denoiser.world, denoiser.order_logits + torch.tensor([0.0, 50.0, 0.0, 0.0]))
    found = _score(eager, known, order=order, order_temperature=0.0 if order == "learned" else 1.0)
    visible: list[int] = []
    for _ in known:
        hidden = torch.tensor([[i not in visible for i in range(L)]])
        logits, order_logits = eager(torch.tensor([X]).masked_fill(hidden, 0), hidden, torch.tensor([L]))
        p = logits[0].softmax(-1)
        top = p.topk(2, -1).values
        worth = {
            "learned": order_logits[0],
            "confidence": top[:, 0],
            "margin": top[:, 0] - top[:, 1],
            "entropy": (p * p.log()).sum(-1),
        }[order]
        visible.append(max((i for i in known if i not in visible), key=lambda i: float(worth[i])))
    assert [p.position for p in sorted(found.positions, key=lambda p: p.mean_step)] == visible
    assert found.log_likelihood is not None


def test_ties_go_to_the_lowest_position() -> None:
    def flat(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        return Prediction(torch.zeros(*tokens.shape, V), torch.zeros(tokens.shape))

    for order in ("confidence", "margin", "entropy"):
        found = _score(flat, (1, 3), order=order)
        assert [(p.position, p.mean_step) for p in found.positions] == [(1, 0.0), (3, 1.0)]
        assert found.nelbo.mean == pytest.approx(2 * math.log(V))


@pytest.mark.parametrize(
    "params", [{}, {"order": "uniform"}, {"order": "entropy"}, {"order": "right_to_left"}], ids=str
)
def test_a_finished_sample_scored_with_its_own_seed_goes_the_way_it_was_made(params: dict[str, Any]) -> None:
    """Position by position, and to the last bit: the sampler and the score are one law."""
    network = _network()
    made = SamplingParams(**params)
    for seed in range(5):
        ((canvas, reveals),) = decode(network, [Canvas.start((0,) * 6, (True,) * 6, seed=seed, params=made)])
        chain = Chain.start(canvas.tokens, (False,) * 6, seed=seed, params=made)
        (terms,) = score(partial(score_step, network), [chain], max_batch=1)
        assert [(t.position, t.step, t.nats) for t in terms] == [(r.position, r.step, -r.logprob) for r in reveals]


def _network() -> Transformer:
    torch.manual_seed(0)
    architecture = Architecture(length=6, vocabulary_sizes=(5,), width=16, layers=1, heads=2, mlp_width=32)
    network = Transformer(architecture, OrderSpec(kind="contextual")).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def test_a_chains_score_does_not_depend_on_the_batch_it_is_in(denoiser: TableDenoiser) -> None:
    mixed: list[dict[str, Any]] = [
        {},
        {"order": "uniform"},
        {"order": "left_to_right"},
        {"order": "margin"},
        {"order_temperature": 0.0},
        {"order": "entropy"},
        {"order": "explicit", "explicit_order": (3, 0, 2)},
    ]
    chains = [_chain((0, 2, 3), seed=seed, **params) for seed in range(9) for params in mixed]
    step = partial(score_step, denoiser)
    together = score(step, chains, max_batch=64)
    assert together == [score(step, [chain], max_batch=1)[0] for chain in chains]
    assert together == score(step, chains, max_batch=5)


def test_the_denoiser_never_sees_a_value_that_is_not_revealed_yet(denoiser: TableDenoiser) -> None:
    def spy(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        assert (tokens[hidden] == 0).all()
        assert hidden[:, 1].all(), "position 1 is never known"
        return denoiser(tokens, hidden, lengths)

    assert _score(spy, (0, 2, 3), num_orders=20).nelbo.mean == _score(denoiser, (0, 2, 3), num_orders=20).nelbo.mean


def test_logits_that_are_no_number_are_refused_and_so_is_an_answer_of_another_shape() -> None:
    def broken(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        return Prediction(torch.full((*tokens.shape, V), torch.nan), torch.zeros(tokens.shape))

    def short(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        return Prediction(torch.zeros(1, 2, V), torch.zeros(1, 2))

    with pytest.raises(ValueError, match="not finite"):
        _score(broken, (0,))
    with pytest.raises(ValueError, match="answered"):
        _score(short, (0,))
