"""The search against a naive one on tables, its budget, its exclusions, and its indifference to the batch."""

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.contextual import TableDenoiser, blank, random_denoiser
from tests.model.decoding.test_sampler import NUM_SAMPLES, _check_frequencies, _finish
from unveil.model.decoding.attempts.search import Contradiction, unrevealed
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.loop import Decoded
from unveil.model.decoding.sampler import decode, step
from unveil.model.denoiser import Denoiser, Prediction

L, V = 5, 3
SOLUTION = (2, 0, 1, 1, 2)
FAR = 10_000  # forwards beyond what any search here takes


def _late(tokens: Sequence[int], hidden: Sequence[bool], *, shows_at: int = 3) -> str | None:
    """Wrong tokens show once so many are known."""
    known = [i for i in range(L) if not hidden[i]]
    wrong = [i for i in known if tokens[i] != SOLUTION[i]]
    return f"{wrong} are wrong" if wrong and len(known) >= shows_at else None


def _params(order: OrderPolicy = "left_to_right", *, backtrack: int = FAR, temperature: float = 0.0) -> SamplingParams:
    return SamplingParams(order=order, backtrack=backtrack, temperature=temperature)


def _decode(
    denoiser: Denoiser,
    canvases: Sequence[Canvas],
    contradiction: Contradiction = _late,
    *,
    max_batch: int | None = None,
) -> list[Decoded]:
    return list(decode(denoiser, canvases, contradiction=contradiction, max_batch=max_batch))


class Asked:
    """A denoiser that keeps what it was shown."""

    def __init__(self, denoiser: TableDenoiser) -> None:
        self.denoiser, self.seen = denoiser, list[tuple[tuple[int, ...], tuple[bool, ...]]]()

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        self.seen += zip(map(tuple, tokens.tolist()), map(tuple, hidden.tolist()), strict=True)
        return self.denoiser(tokens, hidden, lengths)


def _naive(denoiser: TableDenoiser) -> tuple[list[float], int]:
    """Best-first search from left to right by the tables themselves: the reveals' log-probabilities, and forwards."""
    waiting: list[tuple[float, tuple[int, ...], list[float]]] = []  # log-likelihood, tokens, log-probabilities
    path: tuple[tuple[int, ...], list[float]] = ((), [])
    forwards = 0
    while len(path[0]) < L:
        tokens, logprobs = path
        entry = sum((x + 1) * (V + 1) ** i for i, x in enumerate(tokens))
        priced = denoiser.world.logits[entry, len(tokens)].log_softmax(-1).tolist()
        forwards += 1
        options = [((*tokens, x), [*logprobs, p]) for x, p in enumerate(priced)]
        options.sort(key=lambda option: -option[1][-1])
        waiting += [(math.fsum(p), x, p) for x, p in options[1:]]
        path = options[0]
        while _late(path[0] + (0,) * L, [i >= len(path[0]) for i in range(L)]) is not None:
            waiting.sort(key=lambda own: own[0])
            _, x, p = waiting.pop()
            path = (x, p)
    return path[1], forwards


@pytest.mark.parametrize("seed", range(8))
def test_it_goes_where_a_naive_best_first_search_on_the_tables_goes(seed: int) -> None:
    denoiser = random_denoiser(L=L, V=V, seed=seed)
    ((canvas, reveals),) = _decode(denoiser, [blank(L, params=_params())])
    logprobs, forwards = _naive(denoiser)
    assert canvas.tokens == SOLUTION
    assert [reveal.logprob for reveal in reveals] == pytest.approx(logprobs)
    assert canvas.num_forwards == forwards
    assert [reveal.position for reveal in reveals] == list(range(L))


@pytest.mark.parametrize("order", ["learned", "uniform", "confidence", "margin", "left_to_right"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_finds_the_one_solution_in_any_order_and_looks_at_nothing_twice(
    order: OrderPolicy, temperature: float
) -> None:
    for seed in range(6):
        asked = Asked(random_denoiser(L=L, V=V, seed=seed))
        ((canvas, _),) = _decode(asked, [blank(L, seed=seed, params=_params(order, temperature=temperature))])
        assert canvas.tokens == SOLUTION
        assert canvas.search is not None
        assert canvas.search.outcome == "complete"
        assert len(asked.seen) == len(set(asked.seen)) == canvas.num_forwards
        assert all(_late(*look) is None for look in asked.seen)


def test_what_was_drawn_is_excluded_and_the_rest_renormalised() -> None:
    """Of the law of the first position without what shows at once, whatever was drawn there at first."""
    denoiser = random_denoiser(L=2, V=4, seed=3)

    def barred(tokens: Sequence[int], hidden: Sequence[bool]) -> str | None:
        return "barred" if not hidden[0] and tokens[0] in (0, 2) else None

    params = _params(temperature=1.0, backtrack=0)
    decoded = _decode(denoiser, [blank(2, seed=seed, params=params) for seed in range(NUM_SAMPLES)], barred)
    logits = denoiser.world.logits
    first = logits[0, 0].softmax(-1)[[1, 3]]
    first = first / first.sum()
    then = torch.stack([logits[a + 1, 1].softmax(-1) for a in (1, 3)])
    x = torch.tensor([(a, b) for a in (1, 3) for b in range(4)])
    _check_frequencies([canvas for canvas, _ in decoded], x, (first[:, None] * then).flatten())
    assert {canvas.num_forwards for canvas, _ in decoded} == {2}


def test_log_probabilities_are_of_the_unmodified_model_where_an_alternative_was_taken() -> None:
    denoiser = random_denoiser(L=L, V=V, seed=1)
    ((_, reveals),) = _decode(denoiser, [blank(L, seed=5, params=_params("uniform", temperature=0.5))])
    tokens, hidden = [0] * L, [True] * L
    for reveal in reveals:
        logits, _ = denoiser(torch.tensor([tokens]), torch.tensor([hidden]), torch.tensor([L]))
        law = logits[0, reveal.position].log_softmax(-1)
        assert reveal.logprob == pytest.approx(float(law[reveal.token_id]))
        tokens[reveal.position], hidden[reveal.position] = reveal.token_id, False
    assert tuple(tokens) == SOLUTION


def _fold(start: Canvas, denoiser: TableDenoiser) -> Canvas:
    """Steps to the end; what is known must follow from reveals less what was taken back."""
    canvas, known = start, {i: x for i, x in enumerate(start.tokens) if not start.hidden[i]}
    given = dict(known)
    while not canvas.is_complete:
        ((after, reveals),) = step(denoiser, [canvas], contradiction=_late)
        for position in unrevealed(canvas, after):
            assert position not in given
            del known[position]
        for reveal in reveals:
            assert reveal.position not in known
            assert reveal.step == canvas.step
            known[reveal.position] = reveal.token_id
        assert known == {i: x for i, x in enumerate(after.tokens) if not after.hidden[i]}
        assert after == pickle.loads(pickle.dumps(after))
        canvas = after
    return canvas


@pytest.mark.parametrize("fields", [{}, {"tokens_per_step": 2}, {"threshold": 0.6}])
def test_reveals_less_what_is_taken_back_are_the_canvas_and_what_was_known_stays(fields: dict[str, Any]) -> None:
    taken = 0
    for seed in range(12):
        params = replace(_params("uniform", temperature=1.0), **fields)
        start = Canvas.start((2, 0, 0, 0, 0), (False, *(True,) * (L - 1)), seed=seed, params=params)
        end = _fold(start, random_denoiser(L=L, V=V, seed=seed))
        assert end.search is not None
        assert end.tokens == SOLUTION
        assert sorted(reveal.position for reveal in end.search.path) == [1, 2, 3, 4]
        taken += end.search.num_unrevealed
    assert taken > 0


def test_a_canvas_decodes_alike_alone_and_in_any_batch() -> None:
    denoiser = random_denoiser(L=L, V=V, seed=4)
    orders: tuple[OrderPolicy, ...] = ("learned", "uniform", "margin")
    canvases = [
        blank(L, seed=seed, params=replace(_params(order, temperature=temperature), backtrack=backtrack))
        for seed, (order, temperature, backtrack) in enumerate(product(orders, (0.0, 1.0), (None, 0, 3, FAR)))
    ]
    together = _decode(denoiser, canvases)
    alone = [_decode(denoiser, [canvas])[0] for canvas in canvases]
    assert together == alone == _decode(denoiser, canvases, max_batch=5)
    assert len({own.canvas.num_forwards for own in together}) > 2


@pytest.mark.parametrize("order", ["learned", "uniform"])
def test_forwards_stay_within_the_budget_and_the_outcome_says_where_it_was_too_small(order: OrderPolicy) -> None:
    outcomes = set()
    for seed, budget in product(range(10), (0, 1, 2, 4, 8, FAR)):
        denoiser = random_denoiser(L=L, V=V, seed=seed)
        ((canvas, reveals),) = _decode(denoiser, [blank(L, seed=seed, params=_params(order, backtrack=budget))])
        assert canvas.search is not None
        assert canvas.num_forwards <= L + budget
        assert len(reveals) == L
        outcome = canvas.search.outcome
        assert (outcome == "complete") == (canvas.tokens == SOLUTION)
        assert outcome != "budget" or budget < FAR
        outcomes.add(outcome)
    assert outcomes == {"complete", "budget"}


def test_where_every_alternative_is_a_contradiction_the_path_is_finished_and_the_outcome_says_so() -> None:
    def never(tokens: Sequence[int], hidden: Sequence[bool]) -> str | None:
        return "wrong" if sum(hidden) == 1 else None

    ((canvas, reveals),) = _decode(random_denoiser(L=3), [blank(3, params=_params("uniform"))], never)
    assert canvas.search is not None
    assert canvas.search.outcome == "contradiction"
    assert canvas.search.passed == ()
    assert canvas.is_complete
    assert len(reveals) == 3


def test_without_a_contradiction_a_search_reveals_what_is_revealed_without_one() -> None:
    denoiser = random_denoiser(L=L, V=V, seed=6)
    orders: tuple[OrderPolicy, ...] = ("learned", "uniform", "entropy")
    strides: tuple[dict[str, Any], ...] = ({}, {"tokens_per_step": 2}, {"threshold": 0.5})
    for order, fields in product(orders, strides):
        params = replace(_params(order, temperature=1.0), backtrack=None, **fields)
        plain = blank(L, seed=9, params=params)
        searched = blank(L, seed=9, params=replace(params, backtrack=5))
        (before,), (after,) = (_decode(denoiser, [own], lambda tokens, hidden: None) for own in (plain, searched))
        assert after.reveals == before.reveals
        assert after.canvas.ranks == before.canvas.ranks
        assert after.canvas.num_forwards == before.canvas.num_forwards
        assert after.canvas.step == before.canvas.step


def test_top_k_leaves_nothing_else_to_try() -> None:
    denoiser = random_denoiser(L=L, V=V, seed=0)
    greedy = replace(_params(), top_k=1, temperature=1.0)
    ((canvas, _),) = _decode(denoiser, [blank(L, params=greedy)])
    (plain,), _ = _finish(denoiser, [blank(L, params=replace(greedy, backtrack=None))])
    assert canvas.search is not None
    assert (canvas.tokens, canvas.search.outcome) == (plain.tokens, "contradiction")
