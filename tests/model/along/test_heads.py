"""Contextual orders look at queries of all hidden positions, which read what was revealed by rank."""

import numpy as np
import pytest
import torch

from tests.model.along.networks import canvas, denoiser, network, now, sizes_of
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams, apply
from unveil.model.decoding.sampler import order_probabilities, step

CONTEXTUAL = ("contextual", "next cost")


def _canvases(name: str, seed: int) -> list[Canvas]:
    """Of several pasts, the same known positions in another order among them."""
    start = canvas(name, seed=seed, num_known=seed % 4)
    hidden = [i for i, is_hidden in enumerate(start.hidden) if is_hidden]
    orders: tuple[list[int], ...] = ([], hidden[:3], hidden[2::-1], hidden[4:6])
    sizes = sizes_of(network(name).architecture)
    return [
        apply(start, [Reveal(i, (i + seed) % sizes[i], k // 2, 0.0, None, 0.5) for k, i in enumerate(order)])
        for order in orders
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", CONTEXTUAL)
def test_order_logits_are_the_heads_of_states_by_rank(name: str, seed: int) -> None:
    canvases = _canvases(name, seed)
    opened = denoiser(name).open(canvases)
    _, expected = now(network(name), canvases)
    hidden = np.array([own.hidden for own in canvases])
    found = opened.order_logits[:, : hidden.shape[1]]
    assert np.allclose(found[hidden], expected.double().numpy()[hidden], rtol=1e-3, atol=1e-3)
    assert np.ptp(found[0][hidden[0]]) > 0.1, "the head says something"
    for row, own in enumerate(canvases):  # the tokens' logits come from the states that the order looked at
        positions = np.flatnonzero(hidden[row])
        logits = opened.logits(np.full(len(positions), row), positions)[:, : max(sizes_of(network(name).architecture))]
        token_logits, _ = now(network(name), [own])
        assert torch.allclose(logits, token_logits[0, torch.from_numpy(positions)], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CONTEXTUAL)
def test_the_order_of_the_past_decides_what_comes_next(name: str) -> None:
    _, one, other, _ = _canvases(name, 1)
    assert one.tokens == other.tokens
    order_logits = denoiser(name).open([one, other]).order_logits
    assert np.abs(order_logits[0] - order_logits[1]).max() > 1e-2


@pytest.mark.parametrize("name", CONTEXTUAL)
def test_states_of_a_past_without_its_order_are_not_what_the_head_reads(name: str) -> None:
    """A mutant: all that is visible, as if it had been known from the start, gives other log-weights."""
    canvases = _canvases(name, 2)
    model = network(name)
    tokens, hidden = (torch.tensor([getattr(own, field) for own in canvases]) for field in ("tokens", "hidden"))
    reading = model.read(tokens, hidden, torch.full((len(canvases),), tokens.shape[1]))
    _, expected = now(model, canvases)
    assert not torch.allclose(model.order_head(reading)[1:][hidden[1:]], expected[1:][hidden[1:]], atol=1e-2)


@pytest.mark.parametrize("name", CONTEXTUAL)
def test_a_law_asked_for_in_company_is_the_one_asked_for_alone_and_leaves_nothing(name: str) -> None:
    served, canvases = denoiser(name), _canvases(name, 3)
    alone = [order_probabilities(denoiser(name), own) for own in canvases]
    step(served, [canvas(name, seed=seed) for seed in range(4)])
    num_rows = len(served.rows)
    assert [order_probabilities(served, own) for own in canvases] == alone
    assert len(served.rows) == num_rows


@pytest.mark.parametrize("name", [*CONTEXTUAL, "relative bias"])
def test_canvases_that_do_not_ask_the_head_are_not_looked_at(name: str) -> None:
    """Slots are counted: one question a canvas, not one for each hidden position."""
    params = SamplingParams(order="left_to_right")
    canvases = [canvas(name, seed=seed, params=params) for seed in range(4)]
    served = denoiser(name)
    step(served, canvases)
    few = served.counts.num_positions
    served = denoiser(name)
    step(served, [canvas(name, seed=seed) for seed in range(4)])
    assert (served.counts.num_positions > 4 * few) == (name in CONTEXTUAL)
