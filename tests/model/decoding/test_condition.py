"""Conditions against enumeration: the law of the samples, the estimate of the probability, one attempt where one is
enough, what happens when attempts run out, and indifference to the batch."""

import pickle
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.model.contextual import TableDenoiser, blank, random_denoiser
from tests.model.decoding.test_sampler import _check_frequencies
from unveil.model.decoding.canvas import Canvas, Condition, OrderPolicy, Part, SamplingParams, Weights
from unveil.model.decoding.loop import Decoded
from unveil.model.decoding.sampler import decode, step

L, V, NUM_SAMPLES = 4, 3, 6_000
PARTS: Mapping[int, tuple[Part, ...]] = {2: (Part(1), Part(2, 0.25, 1.0)), 0: (Part(0), Part(1, 0.0, 0.5))}
X = torch.tensor(list(product(range(V), repeat=L)))
AMPLE = 100_000


def _params(
    order: OrderPolicy = "left_to_right",
    *,
    parts: Mapping[int, tuple[Part, ...]] | None = None,
    attempts: int = AMPLE,
    temperature: float = 1.0,
) -> SamplingParams:
    return SamplingParams(order=order, temperature=temperature, condition=Condition(parts or PARTS, attempts))


def _weights(parts: Mapping[int, tuple[Part, ...]]) -> Tensor:
    """What share of each row's values is meant: [V**L]."""
    shares = torch.ones(len(X), L, dtype=torch.float64)
    for position, own in parts.items():
        table = torch.zeros(V, dtype=torch.float64)
        for part in own:
            table[part.token_id] = part.high - part.low
        shares[:, position] = table[X[:, position]]
    return shares.prod(-1)


def _along(denoiser: TableDenoiser, order: Sequence[int], temperature: float = 1.0) -> Tensor:
    """The law of whole rows along an order: [V**L]."""
    found, known = torch.zeros(len(X), dtype=torch.float64), torch.zeros(len(X), L, dtype=torch.bool)
    for position in order:
        entry = (torch.where(known, X + 1, 0) * (V + 1) ** torch.arange(L)).sum(-1)
        logits = denoiser.world.logits[entry, position] / temperature
        found += logits.log_softmax(-1).gather(-1, X[:, position : position + 1])[:, 0]
        known[:, position] = True
    return found.exp()


def _under(law: Tensor, parts: Mapping[int, tuple[Part, ...]]) -> tuple[Tensor, float]:
    """The law under the condition, and the condition's probability."""
    joint = law * _weights(parts)
    return joint / joint.sum(), float(joint.sum())


def _decoded(denoiser: TableDenoiser, params: SamplingParams, num: int = NUM_SAMPLES) -> list[Decoded]:
    return list(decode(denoiser, [blank(L, seed=seed, params=params) for seed in range(num)]))


def _check(decoded: Sequence[Decoded], expected: Tensor) -> None:
    possible = expected > 0
    _check_frequencies([canvas for canvas, _ in decoded], X[possible], expected[possible])


@pytest.fixture(scope="module")
def denoiser() -> TableDenoiser:
    return random_denoiser(L=L, V=V, seed=4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_law_is_the_models_under_the_condition(denoiser: TableDenoiser, temperature: float) -> None:
    decoded = _decoded(denoiser, _params(temperature=temperature))
    expected, probability = _under(_along(denoiser, (0, 2, 1, 3), temperature), PARTS)
    _check(decoded, expected)
    trials = [canvas.trials for canvas, _ in decoded if canvas.trials is not None]
    assert all(own.is_exact and own.is_over for own in trials)
    weights = reduce(Weights.and_all, [own.weights for own in trials])
    assert weights.num > len(decoded), "some attempts are rejected"
    assert weights.mean == pytest.approx(probability, abs=5 * weights.standard_error)


def test_without_rejection_the_law_would_be_another(denoiser: TableDenoiser) -> None:
    decoded = _decoded(denoiser, _params(attempts=1))
    expected, _ = _under(_along(denoiser, (0, 2, 1, 3)), PARTS)
    with pytest.raises(AssertionError, match="chi2"):
        _check(decoded, expected)
    assert {canvas.trials.is_exact for canvas, _ in decoded if canvas.trials} == {True, False}


def test_of_many_attempts_that_were_rejected_one_is_taken_by_its_weight(denoiser: TableDenoiser) -> None:
    """Of 30 the bias is far below what so few samples show."""
    parts = {0: (Part(0), Part(1)), 3: (Part(2, 0.0, 0.05),), 2: (Part(1, 0.5, 1.0),)}
    decoded = _decoded(denoiser, _params(parts=parts, attempts=30), 3_000)
    _check(decoded, _under(_along(denoiser, (0, 2, 3, 1)), parts)[0])
    taken = [canvas.trials for canvas, _ in decoded if canvas.trials and not canvas.trials.is_exact]
    assert len(taken) > len(decoded) // 2
    assert {own.weights.num for own in taken} == {30}


def test_in_random_orders_constrained_positions_come_first(denoiser: TableDenoiser) -> None:
    decoded = _decoded(denoiser, _params("uniform"))
    orders = [(*first, *then) for first in ((0, 2), (2, 0)) for then in ((1, 3), (3, 1))]
    _check(decoded, torch.stack([_under(_along(denoiser, order), PARTS)[0] for order in orders]).mean(0))
    for _, reveals in decoded[:50]:
        assert {reveal.position for reveal in reveals[:2]} == {0, 2}
        assert [reveal.step for reveal in reveals] == [0, 1, 2, 3]


@pytest.mark.parametrize("order", ["learned", "confidence", "left_to_right", "uniform"])
def test_with_one_constrained_position_the_first_attempt_is_taken(denoiser: TableDenoiser, order: OrderPolicy) -> None:
    parts = {1: (Part(0, 0.1, 0.4), Part(2))}
    law = denoiser.world.logits[0, 1].softmax(-1)
    for canvas, reveals in _decoded(denoiser, _params(order, parts=parts), 200):
        assert canvas.trials is not None
        assert (canvas.trials.weights.num, canvas.trials.is_exact, canvas.trials.num_forwards) == (1, True, 0)
        assert canvas.trials.weights.mean == pytest.approx(float(0.3 * law[0] + law[2]))
        assert reveals[0].position == 1
        assert reveals[0].logprob == pytest.approx(float(law[reveals[0].token_id].log()))
        assert canvas.tokens[1] in (0, 2)
        if canvas.tokens[1] == 0:
            assert 0.1 < reveals[0].uniform < 0.4


def test_a_prompt_stays_and_several_positions_a_step_are_drawn_as_without_a_condition(
    denoiser: TableDenoiser,
) -> None:
    condition = Condition(PARTS, AMPLE)
    params = SamplingParams(order="left_to_right", tokens_per_step=2, condition=condition)
    start = [Canvas.start((0, 2, 0, 0), (True, False, True, True), seed=s, params=params) for s in range(NUM_SAMPLES)]
    decoded = list(decode(denoiser, start))
    known = torch.where(torch.tensor([0, 1, 0, 0]).bool(), 3, 0) @ (V + 1) ** torch.arange(L)
    first, second = (denoiser.world.logits[known, i].softmax(-1) for i in (0, 2))
    x = torch.tensor(list(product(range(V), repeat=2)))
    joint = first[x[:, 0]] * second[x[:, 1]] * _weights(PARTS)[(X[:, 1] == 0) & (X[:, 3] == 0)]
    counts = torch.tensor([sum((c.tokens[0], c.tokens[2]) == tuple(own) for c, _ in decoded) for own in x.tolist()])
    expected = joint / joint.sum() * len(decoded)
    assert all(canvas.tokens[1] == 2 and canvas.trials is not None for canvas, _ in decoded)
    assert ((counts - expected).abs() <= 5 * expected.sqrt()).all()
    assert {canvas.trials.weights.num for canvas, _ in decoded if canvas.trials} == {1}, "one forward, one mass"


def test_at_temperature_zero_the_likeliest_allowed_is_taken_at_once(denoiser: TableDenoiser) -> None:
    (found,) = _decoded(denoiser, _params(temperature=0.0), 1)
    logits, allowed = denoiser.world.logits, torch.tensor([0, 1])
    first = int(allowed[logits[0, 0, allowed].argmax()])
    assert found.canvas.tokens[0] == first
    assert found.canvas.trials is not None
    assert found.canvas.trials.weights.num == 1


def test_nothing_is_revealed_before_an_attempt_is_taken_and_ranks_are_those_of_one_attempt(
    denoiser: TableDenoiser,
) -> None:
    for seed in range(40):
        canvas, num_forwards = blank(L, seed=seed, params=_params()), 0
        while canvas.trials is not None and not canvas.trials.is_over:
            canvas, reveals = step(denoiser, [pickle.loads(pickle.dumps(canvas))])[0]
            num_forwards += 1
            assert [reveal.position for reveal in reveals] == (
                [0, 2] if canvas.trials and canvas.trials.is_over else []
            )
        assert canvas.trials is not None
        assert canvas.trials.num_forwards + canvas.num_forwards == num_forwards == 2 * canvas.trials.weights.num
        assert (canvas.ranks[0], canvas.ranks[2], canvas.step, canvas.num_forwards) == (1, 2, 2, 2)
        assert canvas.hidden == (False, True, False, True)


def test_a_sample_does_not_depend_on_the_batch_it_is_in(denoiser: TableDenoiser) -> None:
    orders: tuple[OrderPolicy, ...] = ("learned", "confidence", "uniform")
    canvases = [blank(L, seed=seed, params=_params(order)) for seed in range(12) for order in orders]
    canvases += [blank(L, seed=seed, params=SamplingParams(order="confidence")) for seed in range(4)]
    together = list(decode(denoiser, canvases))
    assert together == [found for canvas in canvases for found in decode(denoiser, [canvas])]


def test_what_the_model_gives_no_probability_stays_as_it_was_and_says_so() -> None:
    denoiser = random_denoiser(L=2, V=2, seed=1)
    denoiser.world.logits[..., 1, 1] = -torch.inf
    params = _params(parts={0: (Part(0),), 1: (Part(1),)}, attempts=5)
    (found,) = decode(denoiser, [blank(2, params=params)])
    assert found.canvas.is_unmet
    assert found.canvas.is_complete
    assert found.canvas.trials is not None
    assert found.canvas.trials.weights.num == 5
    assert (found.reveals, found.canvas.hidden) == ((), (True, True))


def test_weights_far_below_what_a_float_holds_are_told_apart() -> None:
    """As of a long sequence of unlikely tokens."""
    logs = [-900.0, -901.0, -905.0]
    weights = reduce(Weights.and_one, logs, Weights())
    shares = torch.tensor(logs, dtype=torch.float64).softmax(0)
    assert weights.num == 3
    assert weights.log_sum == pytest.approx(float(torch.tensor(logs, dtype=torch.float64).logsumexp(0)))
    assert weights.effective_number == pytest.approx(float(1 / shares.square().sum()))
    apart = reduce(Weights.and_one, [0.5, -1.0], Weights()).and_all(Weights().and_one(0.2))
    values = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64).exp()
    assert apart.mean == pytest.approx(float(values.mean()))
    assert apart.standard_error == pytest.approx(float(values.std(correction=0)) / 3**0.5)
    assert reduce(Weights.and_one, [-torch.inf, -3.0], Weights()).log_sum == -3.0
