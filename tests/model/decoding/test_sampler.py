"""The sampler against the exact likelihood, its parameters, its noise and its indifference to the batch."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.contextual import TableDenoiser, blank, random_denoiser
from unveil.model.decoding import step_plan
from unveil.model.decoding.canvas import Canvas, OrderPolicy, Reveal, SamplingParams
from unveil.model.decoding.sampler import decode, order_probabilities, step
from unveil.model.denoiser import Prediction
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.transformer import Transformer
from unveil.model.oracle.exact import log_likelihood, order_table

NUM_SAMPLES = 20_000


def _finish(denoiser: Any, canvases: list[Canvas]) -> tuple[list[Canvas], list[list[Reveal]]]:
    decoded = list(decode(denoiser, canvases))
    return [canvas for canvas, _ in decoded], [list(reveals) for _, reveals in decoded]


def _check_frequencies(canvases: list[Canvas], world_x: Tensor, expected: Tensor) -> None:
    """Chi-square of sample counts against probabilities: one pooled statistic, 6 standard deviations allowed."""
    counts = Counter(canvas.tokens for canvas in canvases)
    observed = torch.tensor([counts[tuple(x)] for x in world_x.tolist()], dtype=torch.float64)
    assert observed.sum() == len(canvases)
    cells = len(expected) - 1
    chi2 = ((observed - len(canvases) * expected) ** 2 / (len(canvases) * expected)).sum()
    assert abs(float(chi2) - cells) < 6 * (2 * cells) ** 0.5, f"chi2 {float(chi2):.1f} for {cells} cells"


def _likelihood(denoiser: TableDenoiser, order_logprob: Tensor) -> Tensor:
    return log_likelihood(-denoiser.world.tables(), order_logprob).exp()


def test_sample_frequencies_under_a_context_dependent_order_are_the_exact_likelihood() -> None:
    denoiser = random_denoiser()
    final, _ = _finish(denoiser, [blank(3, seed=seed) for seed in range(NUM_SAMPLES)])
    expected = _likelihood(denoiser, denoiser.order_table())
    assert float(expected.sum()) == pytest.approx(1.0)
    _check_frequencies(final, denoiser.world.x, expected)


def test_sample_frequencies_under_the_uniform_order_are_the_exact_likelihood() -> None:
    denoiser = random_denoiser(seed=3)
    canvases = [blank(3, seed=seed, params=SamplingParams(order="uniform")) for seed in range(NUM_SAMPLES)]
    _check_frequencies(
        _finish(denoiser, canvases)[0], denoiser.world.x, _likelihood(denoiser, order_table(torch.zeros(3)))
    )


def test_the_wrong_order_law_fails_the_frequency_check() -> None:
    denoiser = random_denoiser(spread=3.0)
    final, _ = _finish(denoiser, [blank(3, seed=seed) for seed in range(NUM_SAMPLES)])
    with pytest.raises(AssertionError, match="chi2"):
        _check_frequencies(final, denoiser.world.x, _likelihood(denoiser, order_table(torch.zeros(3))))


def test_a_known_position_conditions_the_sample_frequencies() -> None:
    denoiser = random_denoiser(seed=5)
    start = Canvas.start((0, 1, 0), (True, False, True), seed=0, params=SamplingParams(order="left_to_right"))
    canvases = [Canvas.start(start.tokens, start.hidden, seed=s, params=start.params) for s in range(NUM_SAMPLES)]
    logits = denoiser.world.logits
    first = logits[2 * 3, 0].softmax(-1)  # canvas (hidden, 1, hidden)
    then = torch.stack([logits[(a + 1) + 2 * 3, 2].softmax(-1) for a in range(2)])
    x = torch.tensor([(a, 1, b) for a in range(2) for b in range(2)])
    _check_frequencies(_finish(denoiser, canvases)[0], x, (first[:, None] * then).flatten())


@pytest.mark.parametrize("order", ["learned", "uniform"])
def test_order_log_probabilities_are_those_of_the_drawn_order(order: OrderPolicy) -> None:
    denoiser = random_denoiser(seed=7)
    canvas = blank(3, seed=11, params=SamplingParams(order=order))
    law = dict(order_probabilities(denoiser, canvas)) if order == "learned" else dict.fromkeys(range(3), 1 / 3)
    (result,) = step(denoiser, [canvas])
    (reveal,) = result.reveals
    assert reveal.order_logprob is not None
    assert torch.tensor(reveal.order_logprob).exp() == pytest.approx(law[reveal.position])


def test_log_probabilities_are_of_the_unmodified_model() -> None:
    denoiser = random_denoiser(seed=7)
    params = SamplingParams(order="left_to_right", temperature=0.3, top_k=1)
    (result,) = step(denoiser, [blank(3, params=params)])
    (reveal,) = result.reveals
    expected = denoiser.world.logits[0, 0].log_softmax(-1)
    assert reveal.token_id == int(expected.argmax())
    assert reveal.logprob == pytest.approx(float(expected.max()))
    assert reveal.order_logprob is None


def test_deterministic_policies_reveal_in_their_order() -> None:
    denoiser = random_denoiser(L=4, seed=2)
    expected = {"left_to_right": [0, 1, 2, 3], "right_to_left": [3, 2, 1, 0], "explicit": [2, 0, 3, 1]}
    for order, positions in expected.items():
        explicit = (2, 0, 3, 1) if order == "explicit" else None
        params = SamplingParams(order=order, explicit_order=explicit)  # type: ignore[arg-type]
        _, (reveals,) = _finish(denoiser, [blank(4, params=params)])
        assert [reveal.position for reveal in reveals] == positions
        assert [reveal.step for reveal in reveals] == [0, 1, 2, 3]


class Fixed:
    """A denoiser that says the same of every canvas."""

    def __init__(self, token_logits: list[list[float]], order_logits: list[float] | None = None) -> None:
        self.token_logits = torch.tensor(token_logits)
        self.order_logits = torch.tensor(order_logits or [0.0] * len(token_logits))

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        B, L = tokens.shape
        return Prediction(self.token_logits[:L].expand(B, -1, -1), self.order_logits[:L].expand(B, -1))


_P = [[0.6, 0.4, 0.0], [0.5, 0.25, 0.25], [0.34, 0.33, 0.33], [0.6, 0.4, 0.0]]
SURE = Fixed([[torch.tensor(p).log().item() for p in row] for row in _P])


@pytest.mark.parametrize(
    ("order", "positions"),
    [("confidence", [0, 3, 1, 2]), ("margin", [1, 0, 3, 2]), ("entropy", [0, 3, 1, 2])],
)
def test_confidence_policies_take_the_surest_position_first_and_the_lowest_on_a_tie(
    order: OrderPolicy, positions: list[int]
) -> None:
    _, (reveals,) = _finish(SURE, [blank(4, params=SamplingParams(order=order))])
    assert [reveal.position for reveal in reveals] == positions


def test_confidence_is_taken_before_temperature_and_top_k() -> None:
    params = SamplingParams(order="margin", temperature=5.0, top_k=1)
    _, (reveals,) = _finish(SURE, [blank(4, params=params)])
    assert [reveal.position for reveal in reveals] == [1, 0, 3, 2]


def test_order_temperature_zero_takes_the_likeliest_next_position_and_the_lowest_on_a_tie() -> None:
    denoiser = Fixed([[0.0, 0.0]] * 4, [1.0, 3.0, 3.0, 2.0])
    params = SamplingParams(order_temperature=0.0)
    _, (reveals,) = _finish(denoiser, [blank(4, seed=9, params=params)])
    assert [reveal.position for reveal in reveals] == [1, 2, 3, 0]
    assert all(reveal.order_logprob is None for reveal in reveals)


def test_a_lower_order_temperature_prefers_likely_positions() -> None:
    denoiser = Fixed([[0.0, 0.0]] * 2, [0.0, 1.0])

    def share_of_second(order_temperature: float) -> float:
        params = SamplingParams(order_temperature=order_temperature)
        results = step(denoiser, [blank(2, seed=seed, params=params) for seed in range(4000)])
        return sum(result.reveals[0].position for result in results) / 4000

    for order_temperature in (0.5, 1.0, 4.0):
        expected = float(torch.sigmoid(torch.tensor(1.0 / order_temperature)))
        assert share_of_second(order_temperature) == pytest.approx(expected, abs=0.04)


def test_large_weights_are_revealed_first() -> None:
    denoiser = Fixed([[0.0, 0.0]] * 3, [-2.0, 0.0, 4.0])
    results = step(denoiser, [blank(3, seed=seed) for seed in range(2000)])
    first = Counter(result.reveals[0].position for result in results)
    expected = torch.tensor([-2.0, 0.0, 4.0]).softmax(0)
    assert first[2] / 2000 == pytest.approx(float(expected[2]), abs=0.03)
    assert first[2] > first[1] > first[0]


def test_tokens_per_step_reveals_so_many_at_once_and_the_rest_at_the_end() -> None:
    _, (reveals,) = _finish(SURE, [blank(4, params=SamplingParams(tokens_per_step=3))])
    assert Counter(reveal.step for reveal in reveals) == {0: 3, 1: 1}


def test_a_joint_step_has_the_sequential_order_log_probability() -> None:
    denoiser = Fixed([[0.0, 0.0]] * 3, [0.3, -0.2, 0.9])
    (result,) = step(denoiser, [blank(3, seed=4, params=SamplingParams(tokens_per_step=3))])
    remaining = {0: 0.3, 1: -0.2, 2: 0.9}
    for reveal in result.reveals:
        expected = remaining[reveal.position] - torch.tensor(list(remaining.values())).logsumexp(0)
        assert reveal.order_logprob == pytest.approx(float(expected), abs=1e-6)
        del remaining[reveal.position]


@pytest.mark.parametrize("order", ["learned", "uniform", "left_to_right", "confidence"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 9])
def test_steps_is_never_exceeded_and_everything_is_revealed(order: OrderPolicy, num_steps: int) -> None:
    denoiser = Fixed([[0.5, 0.0]] * 8, [float(i) for i in range(8)])
    params = SamplingParams(order=order, steps=num_steps)
    final, reveals = _finish(denoiser, [blank(8, seed=seed, params=params) for seed in range(50)])
    for canvas, own in zip(final, reveals, strict=True):
        assert canvas.is_complete
        assert canvas.num_forwards == len({reveal.step for reveal in own}) <= num_steps
        assert max(reveal.step for reveal in own) < num_steps


def test_time_steps_reveal_the_positions_whose_time_falls_into_them() -> None:
    """Uniform weights on the linear grid: each position falls into each of the T steps with probability 1 / T."""
    denoiser = Fixed([[0.0, 0.0]] * 6)
    params = SamplingParams(order="uniform", steps=4)
    _, reveals = _finish(denoiser, [blank(6, seed=seed, params=params) for seed in range(3000)])
    counts = Counter((reveal.position, reveal.step) for own in reveals for reveal in own)
    for position in range(6):
        for index in range(4):
            assert counts[position, index] / 3000 == pytest.approx(0.25, abs=0.04)


def test_time_steps_share_the_positions_out_evenly_when_the_weights_are_far_apart() -> None:
    denoiser = Fixed([[0.0, 0.0]] * 8, [3.0 * i for i in range(8)])
    _, reveals = _finish(denoiser, [blank(8, seed=s, params=SamplingParams(steps=4)) for s in range(500)])
    counts = Counter(reveal.step for own in reveals for reveal in own)
    for index in range(4):
        assert counts[index] / 500 == pytest.approx(2.0, abs=0.4)


def test_idle_time_steps_are_passed_over_in_blocks_without_changing_a_reveal(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Fixed([[0.0, 0.3]] * 6, [0.5 * i for i in range(6)])
    canvases = [blank(6, seed=seed, params=SamplingParams(steps=300 + seed)) for seed in range(12)]
    final, reveals = _finish(denoiser, canvases)
    assert all(canvas.num_forwards <= 6 for canvas in final)  # an idle step costs no forward
    assert max(reveal.step for own in reveals for reveal in own) > 200
    monkeypatch.setattr(step_plan, "_STEPS_AT_ONCE", 1)
    assert _finish(denoiser, canvases) == (final, reveals)
    assert _finish(denoiser, canvases[5:6]) == (final[5:6], reveals[5:6])


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_idle_time_steps_are_passed_over_to_the_very_step_that_trying_each_would_find(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even and nearly decided orders, few hidden positions and many time steps, beside others."""
    denoiser = Fixed([[0.0, 0.3]] * 6, [spread * i for i in range(6)])
    orders: tuple[OrderPolicy, ...] = ("learned", "uniform")
    cases = [(steps, num, order) for steps in (1, 2, 7, 400) for num in (1, 2, 6) for order in orders]
    canvases = [
        Canvas.start(
            (0,) * 6, tuple(i < num for i in range(6)), seed=seed, params=SamplingParams(steps=steps, order=order)
        )
        for seed, (steps, num, order) in enumerate(cases)
    ]
    found = _finish(denoiser, canvases)
    monkeypatch.setattr(step_plan, "_next_busy", lambda _canvas, _rates, _hidden, first: first)
    assert _finish(denoiser, canvases) == found


@pytest.mark.parametrize("logit", [math.nan, -math.inf])
def test_time_steps_by_order_logits_that_are_not_finite_are_refused_and_not_waited_for(logit: float) -> None:
    denoiser = Fixed([[0.0, 0.3]] * 2, [logit, logit])
    with pytest.raises(ValueError, match="order logits are not finite"):
        step(denoiser, [blank(2, params=SamplingParams(steps=3))])


def test_threshold_reveals_the_head_of_the_order_that_is_sure_enough_and_at_least_one() -> None:
    cases: list[tuple[OrderPolicy, float, list[int]]] = [
        ("confidence", 0.55, [0, 3]),
        ("confidence", 0.99, [0]),
        ("margin", 0.15, [1, 0, 3]),
        ("entropy", 0.7, [0, 3]),
        ("left_to_right", 0.55, [0]),
        ("left_to_right", 0.45, [0, 1]),
    ]
    for order, threshold, expected in cases:
        (result,) = step(SURE, [blank(4, params=SamplingParams(order=order, threshold=threshold))])
        assert [reveal.position for reveal in result.reveals] == expected, (order, threshold)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_what_a_position_is_revealed_with_does_not_depend_on_the_order_or_the_step(temperature: float) -> None:
    """A denoiser that says the same of every canvas: only the noise could make a difference."""
    denoiser = Fixed([[0.3 * (i + j) % 1.0 for j in range(5)] for i in range(6)])
    strides: list[dict[str, Any]] = [{}, {"tokens_per_step": 3}, {"steps": 2}, {"steps": 50}]
    orders: tuple[OrderPolicy, ...] = ("uniform", "left_to_right", "right_to_left", "entropy")
    kinds = [SamplingParams(order=o, temperature=temperature, **stride) for o in orders for stride in strides]
    for seed in (0, 1, 2**40):
        _, reveals = _finish(denoiser, [blank(6, seed=seed, params=params) for params in kinds])
        found = [sorted((r.position, r.token_id, r.uniform) for r in own) for own in reveals]
        assert found == [found[0]] * len(kinds)
        assert len({tuple((r.position, r.step) for r in own) for own in reveals}) > len(orders)
    _, others = _finish(denoiser, [blank(6, seed=seed) for seed in range(20)])
    assert len({tuple(sorted((r.position, r.token_id) for r in own)) for own in others}) > 15


def _network(V: tuple[int, ...] = (11,), L: int = 21) -> Transformer:
    torch.manual_seed(0)
    architecture = Architecture(length=L, vocabulary_sizes=V, width=32, layers=2, heads=2, mlp_width=48)
    network = Transformer(architecture, OrderSpec(kind="contextual")).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


_POLICIES = ["learned", "uniform", "left_to_right", "right_to_left", "confidence", "margin", "entropy"]


@st.composite
def _canvas(draw: st.DrawFn) -> Canvas:
    L = draw(st.integers(1, 21))
    hidden = tuple(draw(st.lists(st.booleans(), min_size=L, max_size=L)))
    hidden = hidden if any(hidden) else (True, *hidden[1:])
    stride = draw(st.sampled_from([{}, {"tokens_per_step": 2}, {"steps": 3}, {"threshold": 0.4}]))
    params = SamplingParams(
        order=draw(st.sampled_from(_POLICIES)),  # type: ignore[arg-type]
        temperature=draw(st.sampled_from([0.0, 0.7, 1.0])),
        top_k=draw(st.sampled_from([None, 3])),
        top_p=draw(st.sampled_from([None, 0.8])),
        **stride,
    )
    tokens = tuple(draw(st.integers(0, 10)) for _ in range(L))
    return Canvas.start(tokens, hidden, seed=draw(st.integers(0, 2**63 - 1)), params=params)


class RowByRow:
    """Runs the network on each row alone at one shape, so that its own rounding cannot depend on the batch."""

    def __init__(self, network: Transformer) -> None:
        self.network = network

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        L = tokens.shape[1]
        pad = (0, self.network.architecture.length - L)
        wide = (torch.nn.functional.pad(tokens, pad), torch.nn.functional.pad(hidden, pad))
        parts = [self.network(wide[0][b : b + 1], wide[1][b : b + 1], lengths[b : b + 1]) for b in range(len(tokens))]
        logits, order_logits = (torch.cat(part) for part in zip(*parts, strict=True))
        return Prediction(logits[:, :L], order_logits[:, :L])


@settings(max_examples=25, deadline=None)
@given(st.lists(_canvas(), min_size=2, max_size=9))
def test_a_canvas_gives_the_same_bits_alone_and_in_any_batch(canvases: list[Canvas]) -> None:
    denoiser = RowByRow(_network())
    together, reveals = _finish(denoiser, canvases)
    for index, canvas in enumerate(canvases):
        (alone,), (own,) = _finish(denoiser, [canvas])
        assert alone == together[index]
        assert own == reveals[index]


@settings(max_examples=25, deadline=None)
@given(_canvas())
def test_known_positions_never_change_and_every_hidden_one_is_revealed_once(canvas: Canvas) -> None:
    (final,), (reveals,) = _finish(_network(), [canvas])
    assert sorted(reveal.position for reveal in reveals) == [i for i, h in enumerate(canvas.hidden) if h]
    assert all(final.tokens[i] == canvas.tokens[i] for i, h in enumerate(canvas.hidden) if not h)
    assert all(final.tokens[reveal.position] == reveal.token_id for reveal in reveals)


def test_a_denoiser_of_the_wrong_shape_or_without_numbers_is_refused() -> None:
    class Short:
        def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
            return Prediction(torch.zeros(1, 1, 3), torch.zeros(1, 1))

    with pytest.raises(ValueError, match=r"the denoiser answered \(1, 1, 3\)"):
        step(Short(), [blank(4)])
    with pytest.raises(ValueError, match="not finite"):
        step(Fixed([[float("nan"), 0.0]] * 4), [blank(4)])


def test_canvases_that_look_alike_share_a_row_of_the_forward() -> None:
    seen: list[int] = []
    network = random_denoiser()

    def denoise(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        seen.append(len(tokens))
        return network(tokens, hidden, lengths)

    params = [SamplingParams(order=order) for order in ("learned", "margin", "uniform")]
    canvases = [blank(3, seed=seed, params=own) for seed in range(4) for own in params]
    known = [Canvas.start((1, 0, 0), (False, True, True), seed=9, params=own) for own in params]
    together = step(denoise, [*canvases, *known, *canvases])
    assert seen == [2]
    assert together == [result for canvas in [*canvases, *known, *canvases] for result in step(network, [canvas])]
