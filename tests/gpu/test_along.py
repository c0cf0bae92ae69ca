"""Along the order on a device: the answers of the definition on the CPU, and the same bytes in any company."""

from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch

from tests.gpu.places import DEVICES, LENGTH, MAX_ROWS, NETWORKS, PLACES, TOLERANCE, built, canvas, network, served
from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.shapes import _Attention
from unveil.model.decoding import loop
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams
from unveil.model.decoding.sampler import decode
from unveil.model.decoding.scoring import score_step
from unveil.model.decoding.scoring_chain import Chain, Term
from unveil.model.network.build import prepare

ORDERS: tuple[SamplingParams, ...] = (
    SamplingParams(),
    SamplingParams(order_temperature=0, temperature=0),
    SamplingParams(order="uniform", temperature=0.7, top_k=3),
    SamplingParams(order="left_to_right", top_p=0.6),
    SamplingParams(order="right_to_left", tokens_per_step=3),
    SamplingParams(order="confidence", temperature=1.5),
    SamplingParams(order="margin", tokens_per_step=2),
    SamplingParams(order="entropy", top_k=2, top_p=0.9),
    SamplingParams(threshold=0.4),
    SamplingParams(steps=5),
)
Reveals = tuple[Reveal, ...]


def canvases(name: str) -> list[Canvas]:
    return [canvas(name, number, params) for number, params in enumerate(ORDERS)]


def alone(denoiser: AlongDenoiser, starts: Sequence[Canvas]) -> list[Reveals]:
    return [next(iter(decode(denoiser, [start]))).reveals for start in starts]


def together(denoiser: AlongDenoiser, starts: Sequence[Canvas], *, most: int) -> list[Reveals]:
    """By the engine's step, which may reveal several positions of a known order."""
    found = loop.decode(lambda some: ahead.step(denoiser, some), starts, max_batch=most)
    return [own.reveals for own in found]


def by_definition(name: str, start: Canvas, reveals: Reveals) -> torch.Tensor:
    """The log-probability of each reveal on the CPU, by `Network.in_turn`."""
    steps = sorted({reveal.step for reveal in reveals})
    tokens, ranks = list(start.tokens), [0] * start.length
    for reveal in reveals:
        tokens[reveal.position], ranks[reveal.position] = reveal.token_id, steps.index(reveal.step) + 1
    logits = network(name).in_turn(torch.tensor([tokens]), torch.tensor([ranks]), torch.tensor([start.length]))[0]
    log_p = logits.double().log_softmax(-1)
    return torch.stack([log_p[reveal.position, reveal.token_id] for reveal in reveals])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_drawn_has_the_log_probabilities_of_the_definition(name: str, place: str) -> None:
    starts = canvases(name)
    for start, reveals in zip(starts, together(served(name, place).denoiser, starts, most=MAX_ROWS), strict=True):
        assert sorted(reveal.position for reveal in reveals) == [i for i in range(start.length) if start.hidden[i]]
        found = torch.tensor([reveal.logprob for reveal in reveals], dtype=torch.float64)
        torch.testing.assert_close(found, by_definition(name, start, reveals), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bytes_alone_in_any_batch_and_after_eviction(name: str, place: str) -> None:
    own = served(name, place, is_fused=place == "cuda")
    assert own.is_deterministic
    starts = canvases(name)
    expected = alone(own.denoiser, starts)
    assert together(own.denoiser, starts, most=MAX_ROWS) == expected
    assert together(own.denoiser, starts[::-1], most=3)[::-1] == expected
    assert _evicting(own.denoiser, starts) == expected
    if own.graphs is not None:
        assert len(own.graphs) > 0


def _evicting(denoiser: AlongDenoiser, starts: Sequence[Canvas]) -> list[Reveals]:
    """Memory is lost before every step."""

    def step(some: Sequence[Canvas]) -> Sequence[tuple[Canvas, Reveals]]:
        denoiser.rows.release_all()
        return ahead.step(denoiser, some)

    return [own.reveals for own in loop.decode(step, starts, max_batch=MAX_ROWS)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_score_has_the_costs_of_the_definition(name: str, place: str) -> None:
    denoiser, starts = served(name, place).denoiser, canvases(name)[:MAX_ROWS]
    drawn = [own.reveals for own in decode(denoiser, starts)]
    for start, reveals in zip(starts, drawn, strict=True):
        truth = list(start.tokens)
        for reveal in reveals:
            truth[reveal.position] = reveal.token_id
        given = tuple(not own for own in start.hidden)
        chain = Chain.start(tuple(truth), (False,) * LENGTH, seed=start.seed, params=start.params, given=given)
        terms: list[Term] = []
        while not chain.is_complete:
            ((chain, found),) = score_step(denoiser, [chain])
            terms += found
        one_by_one = tuple(
            Reveal(term.position, truth[term.position], k, 0.0, None, 0.0) for k, term in enumerate(terms)
        )
        costs = torch.tensor([term.nats for term in terms], dtype=torch.float64)
        torch.testing.assert_close(costs, -by_definition(name, start, one_by_one), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_canvases_have_the_logits_of_the_definition(name: str, device: str) -> None:
    whole = built(name, 0)
    draws = torch.Generator().manual_seed(1)
    sizes = whole.architecture.vocabulary_sizes
    every = sizes if len(sizes) > 1 else sizes * whole.architecture.length
    tokens = torch.stack([torch.randint(size, (5,), generator=draws) for size in every], 1)
    hidden = torch.rand(tokens.shape, generator=draws) < 0.5
    lengths = torch.full((5,), tokens.shape[1])
    expected = whole(tokens, hidden, lengths)
    stages = prepare(deepcopy(whole).to(device))
    begun = stages.begin(*(x.to(device) for x in (tokens, hidden, lengths)))
    rows, positions = hidden.nonzero(as_tuple=True)
    found = stages.finish(begun.states[rows.to(device), positions.to(device)], positions.to(device)).cpu()
    wanted = expected.token_logits[rows, positions]
    torch.testing.assert_close(found[:, : wanted.shape[1]], wanted, atol=TOLERANCE, rtol=0)
    order_logits = begun.order_logits.cpu()
    torch.testing.assert_close(order_logits[hidden], expected.order_logits[hidden], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_one_kernel_attends_as_the_products_do(name: str, device: str) -> None:
    along = Along(deepcopy(network(name)).to(device))
    attention = _Attention(along, {(3, 8)})
    for width in (along.width(0), along.size.num_columns):
        along.is_fused = True
        fused = attention.attended(3, 8, width)
        along.is_fused = False
        torch.testing.assert_close(attention.attended(3, 8, width), fused, atol=1e-5, rtol=0)
