"""Whole rows scored in one forward cost, to the last bit, what their generation said of them; no row stays."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.model.along.networks import END, HIGH, canvas, denoiser, network
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams, apply
from unveil.model.decoding.sampler import decode
from unveil.model.decoding.scoring import orders_ahead, score, score_step
from unveil.model.decoding.scoring_chain import Chain, Term

AHEAD: dict[str, dict[str, Any]] = {
    "drawn": {},
    "drawn, hot": {"order_temperature": 3.0},
    "greedy": {"order_temperature": 0},
    "uniform": {"order": "uniform"},
    "left to right": {"order": "left_to_right"},
    "right to left": {"order": "right_to_left"},
}
LOOKING: dict[str, dict[str, Any]] = {
    "confidence": {"order": "confidence"},
    "margin": {"order": "margin"},
    "entropy": {"order": "entropy"},
}
GLOBAL = ("relative bias", "pair bias", "no bias", "wide", "two layers", "ends", "long")


def _made(name: str, params: SamplingParams, *, num: int = 4, num_known: int = 3) -> list[tuple[Canvas, Canvas, Any]]:
    """Starts, ends and reveals of samples."""
    starts = [canvas(name, seed=seed, num_known=num_known, params=params) for seed in range(num)]
    return [(start, *made) for start, made in zip(starts, decode(denoiser(name), starts), strict=True)]


def _chain(start: Canvas, end: Canvas) -> Chain:
    given = tuple(not is_hidden for is_hidden in start.hidden)
    return Chain.start(end.tokens, (False,) * end.length, seed=start.seed, params=start.params, given=given)


def _terms(served: AlongDenoiser, chains: Sequence[Chain], *, max_batch: int = 8) -> list[list[Term]]:
    def whole(chain: Chain) -> None:  # as an engine scores by these networks: no chain is taken apart
        del chain

    return score(partial(score_step, served), chains, max_batch=max_batch, links=whole)


def _paid(reveals: Sequence[Reveal]) -> list[tuple[int, int, float]]:
    return [(reveal.position, reveal.step, 0.0 - reveal.logprob) for reveal in reveals]


@pytest.mark.parametrize("how", [*AHEAD, *LOOKING])
@pytest.mark.parametrize("name", [*GLOBAL, "contextual", "next cost"])
def test_a_sample_costs_what_its_generation_said_bit_for_bit(name: str, how: str) -> None:
    made = _made(name, SamplingParams(**{**AHEAD, **LOOKING}[how]))
    served = denoiser(name)
    chains = [_chain(start, end) for start, end, _ in made]
    for max_batch in (8, 3, 1):
        for terms, (*_, reveals) in zip(_terms(served, chains, max_batch=max_batch), made, strict=True):
            assert [(term.position, term.step, term.nats) for term in terms] == _paid(reveals)
        assert len(served.rows) == 0


@pytest.mark.parametrize("how", AHEAD)
@pytest.mark.parametrize("name", GLOBAL)
def test_one_step_scores_all_that_is_left_and_its_order_is_that_of_generation(name: str, how: str) -> None:
    made = _made(name, SamplingParams(**AHEAD[how]))
    served = denoiser(name)
    chains = [_chain(start, end) for start, end, _ in made]
    assert served.order_ahead is not None
    orders = orders_ahead(chains, served.order_ahead, served.end_id)
    assert orders == [[reveal.position for reveal in own if not reveal.is_absorbed] for *_, own in made]
    results = score_step(served, chains)
    assert all(result.chain.is_complete for result in results)
    assert [len(result.terms) for result in results] == [chain.num_pending for chain in chains]
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", ["relative bias", "pair bias", "ends"])
def test_explicit_orders_cost_what_the_definition_says(name: str) -> None:
    """In one forward with `Network.in_turn`; what is hidden has a rank above all that is known."""
    template = canvas(name, seed=3, num_known=8)
    known = [i for i, is_hidden in enumerate(template.hidden) if not is_hidden]
    given, order = known[:3], tuple(reversed(known[3:]))
    flags = tuple(i in given for i in range(template.length))
    params = SamplingParams(order="explicit", explicit_order=order)
    chain = Chain.start(template.tokens, template.hidden, seed=0, params=params, given=flags)
    (terms,) = _terms(denoiser(name), [chain])
    ranks = torch.full((1, template.length), HIGH)
    ranks[0, given], ranks[0, list(order)] = 0, torch.arange(1, len(order) + 1)
    model = network(name)
    logits = model.in_turn(torch.tensor([template.tokens]), ranks, torch.tensor([template.length]))[0]
    last = max(given)
    for term, position in zip(terms, order, strict=True):
        own = logits[position].clone()
        if name == "ends" and position < last:
            own[END] = -torch.inf
        assert term.position == position
        assert term.nats == pytest.approx(-float(own.log_softmax(-1)[template.tokens[position]]), abs=1e-4)
        last = max(last, position)


@pytest.mark.parametrize("how", [*AHEAD, *LOOKING])
def test_hidden_and_given_positions_are_never_scored_and_what_they_hold_does_not_matter(how: str) -> None:
    template = canvas("relative bias", seed=5, num_known=9)
    known = [i for i, is_hidden in enumerate(template.hidden) if not is_hidden]
    flags = tuple(i in known[:4] for i in range(template.length))
    params = SamplingParams(**{**AHEAD, **LOOKING}[how])
    found = []
    for filler in (0, 3):
        tokens = tuple(filler if h else x for x, h in zip(template.tokens, template.hidden, strict=True))
        chain = Chain.start(tokens, template.hidden, seed=7, params=params, given=flags)
        served = denoiser("relative bias")
        (terms,) = _terms(served, [chain])
        assert sorted(term.position for term in terms) == known[4:]
        assert len(served.rows) == 0
        found.append(terms)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", GLOBAL)
def test_scores_in_company_of_generation_and_of_other_scores_are_as_alone(name: str) -> None:
    made = [
        own for how in (*AHEAD, *LOOKING) for own in _made(name, SamplingParams(**{**AHEAD, **LOOKING}[how]), num=2)
    ]
    chains = [_chain(start, end) for start, end, _ in made]
    alone = [_terms(denoiser(name), [chain])[0] for chain in chains]
    served = denoiser(name)
    walking = decode(served, [replace(start) for start, *_ in made], max_batch=3)
    assert next(walking)
    assert _terms(served, chains) == alone
    assert [decoded.reveals for decoded in walking] == [reveals for *_, reveals in made[1:]]
    assert len(served.rows) == 0


@pytest.mark.parametrize("how", ["drawn", "margin"])
def test_a_score_that_fails_leaves_no_row(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served = denoiser("relative bias")
    made = _made("relative bias", SamplingParams(**{**AHEAD, **LOOKING}[how]))
    chains = [_chain(start, end) for start, end, _ in made]
    rows = []

    def broken(states: torch.Tensor, positions: Any) -> torch.Tensor:
        rows.append(len(served.rows))
        return torch.full((len(states), 7), torch.nan)

    monkeypatch.setattr(served, "logits", broken)
    with pytest.raises(ValueError, match=r"not finite|not a number"):
        score(
            partial(score_step, served),
            chains,
            max_batch=8,
            links=lambda chain: None,
            release=lambda given: served.release([chain.canvas for chain in given]),
        )
    assert rows == [4]
    assert len(served.rows) == 0


def test_the_order_of_a_row_decides_what_it_costs() -> None:
    """Else these tests could not tell ranks from sets: the last position's cost depends on the order before it."""
    (start, end, _), *_ = _made("relative bias", SamplingParams(), num_known=0)
    last = 7
    others = [i for i in range(end.length) if i != last]
    costs = []
    for order in (others, others[::-1]):
        params = SamplingParams(order="explicit", explicit_order=(*order, last))
        ((*_, term),) = _terms(denoiser("relative bias"), [_chain(replace(start, params=params), end)])
        assert term.position == last
        costs.append(term.nats)
    assert abs(costs[0] - costs[1]) > 1e-2
    assert np.isfinite(costs).all()
    reveals = [Reveal(i, end.tokens[i], k, 0.0, None, 0.5) for k, i in enumerate([*others, last])]
    assert apply(start, reveals).ranks[last] == end.length
