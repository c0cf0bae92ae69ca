from itertools import permutations

import pytest
import torch
from torch import Tensor

from tests.model.pooled import chi_square_bound
from unveil.model.order.plackett_luce import log_prob
from unveil.model.order.schedule import PolynomialSchedule
from unveil.model.order.uniforms import open_uniforms

LOG_W = torch.tensor([1.2, 0.0, -0.7, -1.5], dtype=torch.float64)
SCHEDULE = PolynomialSchedule(LOG_W)
T = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


def chi_square_of_orders(sigma: Tensor, log_w: Tensor) -> float:
    """Of drawn orders [N, 4] against Plackett-Luce, over all 24 of them (23 degrees of freedom)."""
    base = torch.tensor([64, 16, 4, 1])
    every = torch.tensor(list(permutations(range(4))))
    counts = ((sigma * base).sum(-1)[:, None] == (every * base).sum(-1)).sum(0)
    expected = len(sigma) * log_prob(log_w, every).exp()
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_order_of_the_mask_times_is_plackett_luce_with_large_weights_first() -> None:
    times = SCHEDULE.mask_times(open_uniforms((200_000, 4), torch.Generator().manual_seed(0)))
    revealed = times.argsort(dim=-1, descending=True)  # generation runs from t = 1 down
    assert chi_square_of_orders(revealed, LOG_W) < chi_square_bound(23)
    assert chi_square_of_orders(revealed, -LOG_W) > 100 * chi_square_bound(23)


def test_everything_is_visible_at_zero_and_masked_at_one() -> None:
    alpha = SCHEDULE.alpha(torch.tensor([0.0, 1.0]))
    assert torch.equal(alpha, torch.tensor([[1.0] * 4, [0.0] * 4], dtype=torch.float64))


def test_the_derivative_is_that_of_alpha_and_the_loss_weight_follows_from_both() -> None:
    t = T.clone().requires_grad_()
    alpha = SCHEDULE.alpha(t)
    for i in range(4):
        (slope,) = torch.autograd.grad(alpha[:, i].sum(), t, retain_graph=True)
        assert torch.allclose(SCHEDULE.alpha_derivative(T)[:, i], slope)
    assert torch.allclose(SCHEDULE.loss_weight(T), -SCHEDULE.alpha_derivative(T) / (1 - alpha))


def test_the_unmask_probability_is_the_newly_visible_share_of_what_was_masked() -> None:
    t, s = T[1:], T[:-1]
    masked_t, masked_s = 1 - SCHEDULE.alpha(t), 1 - SCHEDULE.alpha(s)
    assert torch.allclose(SCHEDULE.unmask_probability(t, s), (masked_t - masked_s) / masked_t)
    assert torch.equal(SCHEDULE.unmask_probability(t, torch.zeros_like(t)), torch.ones(49, 4, dtype=torch.float64))


def test_hidden_positions_are_hidden_with_probability_one_minus_alpha() -> None:
    masks = SCHEDULE.draw_masks(100_000, generator=torch.Generator().manual_seed(1))
    excess = masks.hidden.double() - (1 - SCHEDULE.alpha(masks.t))
    for part in ((masks.t < 0.1), (masks.t > 0.5)):
        z = excess[part].mean(0) / (excess[part].std(0) / int(part.sum()) ** 0.5)
        assert z.abs().max() < 4


def test_times_are_stratified_over_the_batch_and_keep_above_min_t() -> None:
    masks = SCHEDULE.draw_masks(100, generator=torch.Generator().manual_seed(1), min_t=0.2)
    assert masks.min_t == 0.2
    assert torch.allclose(masks.t.sort().values.diff(), torch.full((99,), 0.008, dtype=torch.float64))
    assert masks.t.min() > 0.2


@pytest.mark.parametrize("shift", [-3.0, 0.0, 5.0])
def test_the_finite_gauge_keeps_the_order_law_and_brings_the_smallest_weight_to_1_2(shift: float) -> None:
    gauge = PolynomialSchedule(LOG_W + shift).finite_gauge()
    assert torch.allclose(gauge.w.min(), torch.tensor(1.2, dtype=torch.float64))
    assert torch.allclose(gauge.log_w.diff(), LOG_W.diff())


def test_the_finite_gauge_scales_by_a_constant_to_autograd() -> None:
    log_w = LOG_W.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(PolynomialSchedule(log_w).finite_gauge().log_w.sum(), log_w)
    assert torch.equal(gradient, torch.ones(4, dtype=torch.float64))
