from itertools import permutations
from math import factorial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.pooled import chi_square_bound
from unveil.model.order.plackett_luce import (
    deterministic_order,
    fix_gauge,
    gumbel_noise,
    hidden_after,
    log_prob,
    next_log_probs,
    order_entropy,
    plackett_luce_order,
    prefix_log_prob,
)

weights = st.lists(st.floats(-8, 8), min_size=1, max_size=6).map(lambda w: torch.tensor(w, dtype=torch.float64))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_order(L: int) -> Tensor:
    return torch.tensor(list(permutations(range(L))))


def at(*values: int) -> Tensor:
    return torch.tensor(values)


@given(weights)
def test_the_probabilities_of_all_orders_sum_to_one(log_w: Tensor) -> None:
    assert log_prob(log_w, every_order(len(log_w))).logsumexp(0).abs() < 1e-9


@given(weights, st.floats(-50, 50))
def test_only_ratios_of_weights_matter(log_w: Tensor, shift: float) -> None:
    orders = every_order(len(log_w))
    assert torch.allclose(log_prob(log_w, orders), log_prob(log_w + shift, orders), atol=1e-9)
    assert torch.allclose(fix_gauge(log_w + shift), fix_gauge(log_w), atol=1e-9)
    assert fix_gauge(log_w + shift).mean().abs() < 1e-9


@given(weights, st.randoms())
def test_relabelling_positions_relabels_the_law(log_w: Tensor, random: object) -> None:
    label = list(range(len(log_w)))
    random.shuffle(label)  # type: ignore[attr-defined]
    orders = every_order(len(log_w))
    relabelled = torch.empty_like(log_w).index_copy(0, torch.tensor(label), log_w)
    assert torch.allclose(log_prob(log_w, orders), log_prob(relabelled, torch.tensor(label)[orders]), atol=1e-9)


@given(weights)
def test_the_deterministic_order_is_the_likeliest_one(log_w: Tensor) -> None:
    best = log_prob(log_w, deterministic_order(log_w))
    assert best >= log_prob(log_w, every_order(len(log_w))).max() - 1e-9


@given(weights, st.integers(0, 6), st.integers(0, 6))
def test_a_prefix_probability_is_the_product_of_its_pieces(log_w: Tensor, a: int, b: int) -> None:
    L = len(log_w)
    a, b = sorted((min(a, L), min(b, L)))
    sigma = deterministic_order(-log_w)
    whole = prefix_log_prob(log_w, sigma, at(0), at(L))
    pieces = [prefix_log_prob(log_w, sigma, at(start), at(stop)) for start, stop in ((0, a), (a, b), (b, L))]
    assert torch.allclose(whole, sum(pieces, torch.zeros(1, dtype=torch.float64)), atol=1e-9)
    assert torch.allclose(whole, log_prob(log_w, sigma)[None], atol=1e-9)


@given(weights, st.integers(0, 5))
def test_the_next_position_is_a_prefix_of_one(log_w: Tensor, num_visible: int) -> None:
    L = len(log_w)
    k = min(num_visible, L - 1)
    orders = every_order(L)
    hidden = hidden_after(orders, torch.full((len(orders),), k))
    chosen = next_log_probs(log_w, hidden).gather(-1, orders[:, k : k + 1])[:, 0]
    starts = torch.full((len(orders),), k)
    assert torch.allclose(chosen, prefix_log_prob(log_w, orders, starts, starts + 1), atol=1e-9)


@given(weights)
def test_an_ordered_prefix_has_the_probability_of_all_orders_that_start_with_it(log_w: Tensor) -> None:
    orders = every_order(len(log_w))
    k = len(log_w) // 2
    starts_alike = (orders[:, :k] == orders[0, :k]).all(-1)
    total = log_prob(log_w, orders[starts_alike]).logsumexp(0)
    assert torch.allclose(prefix_log_prob(log_w, orders[0], at(0), at(k)), total[None], atol=1e-9)


@given(weights, st.data())
def test_orders_are_permutations_with_the_known_positions_first_and_in_place_order(
    log_w: Tensor, data: st.DataObject
) -> None:
    L = len(log_w)
    known = torch.tensor(data.draw(st.lists(st.booleans(), min_size=L, max_size=L)))
    sigma = plackett_luce_order(log_w, gumbel_noise((L,), generator(data.draw(st.integers(0, 99)))), known)
    assert sorted(sigma.tolist()) == list(range(L))
    assert sigma[: int(known.sum())].tolist() == known.nonzero()[:, 0].tolist()
    hidden = hidden_after(sigma, known.sum())
    assert torch.equal(hidden, ~known)


def frequencies_chi_square(orders: Tensor, drawn: Tensor, log_w: Tensor) -> float:
    counts = (drawn[:, None] == orders).all(-1).sum(0)
    expected = len(drawn) * log_prob(log_w, orders).exp()
    return float(((counts - expected) ** 2 / expected).sum())


def test_drawn_orders_have_plackett_luce_frequencies() -> None:
    log_w = torch.tensor([0.8, -0.6, 0.1, -1.3])
    drawn = plackett_luce_order(log_w, gumbel_noise((100_000, 4), generator()))
    assert frequencies_chi_square(every_order(4), drawn, log_w) < chi_square_bound(23)
    assert frequencies_chi_square(every_order(4), drawn, -log_w) > 100 * chi_square_bound(23)


def test_restricted_to_the_rest_the_law_is_plackett_luce_with_the_same_weights() -> None:
    log_w = torch.tensor([0.8, 3.0, -0.6, 0.1])
    known = torch.tensor([False, True, False, False])
    drawn = plackett_luce_order(log_w, gumbel_noise((100_000, 4), generator()), known)
    rest = torch.tensor([0, 2, 3])
    places = torch.full((4,), -1).index_copy(0, rest, torch.arange(3))
    assert frequencies_chi_square(every_order(3), places[drawn[:, 1:]], log_w[rest]) < chi_square_bound(5)


def test_gumbel_noise_is_float64_finite_and_keeps_the_upper_tail_that_float32_loses() -> None:
    noise = gumbel_noise((2_000_000,), generator())
    assert noise.dtype == torch.float64
    assert noise.isfinite().all()
    # float32 uniforms are multiples of 2**-24: their noise stops at 16.6 and steps by 0.7 before that.
    top = noise.sort(descending=True).values[:8]
    assert len(set(top.tolist())) == 8
    tail = -torch.expm1(-torch.exp(-top[-1])) * len(noise)
    assert 1 < tail < 30
    assert abs(noise.mean() - 0.5772156649) < 4 * (torch.pi**2 / 6 / 2e6) ** 0.5


@pytest.mark.parametrize("cell", [0, 2**52 - 1])
def test_both_ends_of_the_noise_are_finite(cell: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", lambda *_args, **_options: torch.tensor([cell]))
    noise = gumbel_noise((1,), generator())
    assert noise.item() == pytest.approx(-3.6 if cell == 0 else 36.7, abs=0.05)


def test_ties_go_to_the_lowest_position() -> None:
    assert deterministic_order(torch.zeros(300)).tolist() == list(range(300))
    assert deterministic_order(torch.tensor([0.0, 1.0, 0.0, 1.0])).tolist() == [1, 3, 0, 2]


def test_weights_64_apart_make_one_order_certain() -> None:
    order = torch.randperm(100, generator=generator(1))
    log_w = torch.empty(100).index_copy(0, order, -64.0 * torch.arange(100))
    drawn = plackett_luce_order(log_w, gumbel_noise((500, 100), generator()))
    assert torch.equal(drawn, order.expand(500, 100))
    assert log_prob(log_w, order).item() == pytest.approx(0.0, abs=1e-12)


def test_a_row_with_nothing_hidden_has_no_next_position_and_no_nan() -> None:
    log_w = torch.tensor([1.0, 2.0], requires_grad=True)
    hidden = torch.tensor([[False, False], [True, False]])
    logs = next_log_probs(log_w.expand(2, 2), hidden)
    assert logs.tolist() == [[-torch.inf, -torch.inf], [0.0, -torch.inf]]
    (gradient,) = torch.autograd.grad(logs.exp().sum(), log_w)
    assert gradient.tolist() == [0.0, 0.0]


def test_gradients_of_log_probabilities_are_right() -> None:
    log_w = torch.randn(5, dtype=torch.float64, generator=generator()).requires_grad_()
    sigma = torch.stack([torch.randperm(5, generator=generator(seed)) for seed in range(4)])
    start, stop = at(0, 1, 2, 0), at(0, 3, 5, 5)
    assert torch.autograd.gradcheck(lambda w: prefix_log_prob(w, sigma, start, stop), log_w)
    hidden = hidden_after(sigma, at(0, 1, 3, 4))
    assert torch.autograd.gradcheck(lambda w: next_log_probs(w, hidden).exp(), log_w)


def test_order_entropy_is_one_for_uniform_and_zero_for_a_certain_order() -> None:
    assert order_entropy(torch.zeros(7)).item() == pytest.approx(1.0)
    assert order_entropy(64.0 * torch.arange(7)).item() == pytest.approx(0.0, abs=1e-12)


def test_order_entropy_with_noise_estimates_the_entropy_of_the_law() -> None:
    log_w = torch.tensor([1.0, 0.0, -1.0, 0.5], dtype=torch.float64)
    logs = log_prob(log_w, every_order(4))
    truth = -(logs.exp() * logs).sum() / torch.tensor(factorial(4), dtype=torch.float64).log()
    estimate = order_entropy(log_w, gumbel_noise((20_000, 4), generator()))
    assert estimate.item() == pytest.approx(truth.item(), abs=0.003)


@settings(max_examples=20)
@given(weights)
def test_order_entropy_falls_as_the_law_sharpens(log_w: Tensor) -> None:
    assert order_entropy(3 * log_w) <= order_entropy(log_w) + 1e-12
