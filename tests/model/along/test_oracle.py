"""The sampler's frequencies against exact probabilities, summed over all orders of an enumerable network."""

from collections import Counter
from functools import lru_cache
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.along.networks import make
from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.shapes import shapes_of
from unveil.model.decoding import loop
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.sampler import decode
from unveil.model.network.late import LateQueries
from unveil.model.order.plackett_luce import log_prob

L, V, NUM, PROMPT = 4, 3, 6000, 2
ROWS = torch.tensor(list(product(range(V), repeat=L)))


@lru_cache
def _network(kind: str) -> LateQueries:
    return make(sizes=(V,), length=L, relative_bias=True, kind=kind, seed=2)


@lru_cache
def _denoiser(kind: str) -> tuple[Along, Any]:
    along = Along(_network(kind))
    return along, shapes_of(along, 64)


def _sequence_log_p(tokens: Tensor, order: tuple[int, ...], *, temperature: float = 1.0) -> Tensor:
    """log p of rows [N, L] along an order of some positions; the others are known from the start. [N]."""
    ranks = torch.zeros(L, dtype=torch.int64)
    ranks[list(order)] = torch.arange(1, len(order) + 1)
    logits = _network("global").in_turn(tokens, ranks.expand(tokens.shape), torch.full((len(tokens),), L))
    log_p = (logits.double() / temperature).log_softmax(-1)
    return log_p.gather(-1, tokens[..., None])[:, list(order), 0].sum(-1)


def _law(order: tuple[int, ...], log_w: Tensor) -> float:
    """The probability that the positions of this order are revealed in it."""
    places = list(order)
    return float(log_prob(log_w[places], torch.arange(len(places))).exp())


def _exact(params: SamplingParams, *, known: int | None = None) -> Tensor:
    """p of every row [V ** L]; with position `known` given as `PROMPT`, zero of those that hold another there."""
    log_w = _network("global").order_head.global_log_w().double() * (params.order == "learned")
    total = torch.zeros(len(ROWS), dtype=torch.float64)
    for order in permutations(i for i in range(L) if i != known):
        weight = _law(order, log_w / (params.order_temperature or 1.0))
        if params.order == "left_to_right":
            weight = float(order == tuple(sorted(order)))
        total += weight * _sequence_log_p(ROWS, order, temperature=params.temperature).exp()
    return total if known is None else total * (ROWS[:, known] == PROMPT)


def _statistic(found: Tensor, expected: Tensor) -> tuple[float, int]:
    """Chi-square of counts against expected ones, cells of fewer than five together, and degrees of freedom."""
    small = expected < 5
    cells = [(found[~small], expected[~small])]
    if float(expected[small].sum()) > 0:
        cells.append((found[small].sum()[None], expected[small].sum()[None]))
    a, b = (torch.cat(part) for part in zip(*cells, strict=True))
    return float(((a - b) ** 2 / b).sum()), len(a) - 1


def _counts(params: SamplingParams, *, known: int | None = None, window: int | None = None) -> Tensor:
    hidden = tuple(i != known for i in range(L))
    starts = [Canvas.start((PROMPT,) * L, hidden, seed=seed, params=params) for seed in range(NUM)]
    along, shapes = _denoiser("global")
    served = AlongDenoiser(along, shapes, max_rows=64)
    if window is None:
        decoded = decode(served, starts, max_batch=64)
    else:
        decoded = loop.decode(lambda canvases: ahead.step(served, canvases), starts, max_batch=64)
    found = Counter(made.canvas.tokens for made in decoded)
    return torch.tensor([found[tuple(row)] for row in ROWS.tolist()], dtype=torch.float64)


WAYS: dict[str, dict[str, Any]] = {
    "learned": {},
    "learned, cool": {"order_temperature": 0.5, "temperature": 0.7},
    "uniform": {"order": "uniform"},
    "left to right": {"order": "left_to_right"},
}


def _limit(degrees: int) -> float:
    """Far in the tail: mean plus five standard deviations."""
    return float(degrees + 5 * (2 * degrees) ** 0.5)


@pytest.mark.parametrize("way", WAYS)
def test_frequencies_are_the_exact_probabilities(way: str) -> None:
    params = SamplingParams(**WAYS[way])
    exact = _exact(params)
    assert float(exact.sum()) == pytest.approx(1.0)
    statistic, degrees = _statistic(_counts(params), NUM * exact)
    assert degrees > 20
    assert statistic < _limit(degrees)


def test_frequencies_behind_a_prompt_and_several_positions_ahead_are_exact_too() -> None:
    params = SamplingParams()
    exact = _exact(params, known=1)
    assert float(exact.sum()) == pytest.approx(1.0)
    statistic, degrees = _statistic(_counts(params, known=1, window=4), NUM * exact)
    assert degrees > 10
    assert statistic < _limit(degrees)


def test_probabilities_that_do_not_regard_the_order_of_the_past_are_told_apart() -> None:
    """A mutant: contents that read each other both ways, as if all of the past were known from the start."""
    lengths, log_p = torch.full((len(ROWS),), L), torch.zeros(len(ROWS), dtype=torch.float64)
    for position in range(L):
        ranks = (torch.arange(L) >= position).long()
        logits = _network("global").in_turn(ROWS, ranks.expand(ROWS.shape), lengths).double().log_softmax(-1)
        log_p += logits[:, position].gather(-1, ROWS[:, position, None])[:, 0]
    assert float(log_p.exp().sum()) == pytest.approx(1.0)
    statistic, degrees = _statistic(_counts(SamplingParams(order="left_to_right")), NUM * log_p.exp())
    assert statistic > 2 * _limit(degrees)


def test_another_law_of_orders_is_told_apart() -> None:
    statistic, degrees = _statistic(_counts(SamplingParams()), NUM * _exact(SamplingParams(order="uniform")))
    assert statistic > 2 * _limit(degrees)
