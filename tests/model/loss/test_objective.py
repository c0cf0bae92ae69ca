"""The rules of the losses, row by row. That they estimate the right thing is `test_estimators.py`'s matter."""

import pytest
import torch
from torch import Tensor

from unveil.model.loss.objective import eq8, order_form, row_signal
from unveil.model.loss.prefixes import Prefixes, draw_prefixes
from unveil.model.order.schedule import Masks, PolynomialSchedule

L, B = 5, 12
LOG_W = torch.tensor([0.5, -1.0, 0.2, 0.0, 1.1], dtype=torch.float64)


def batch(*, uniform: list[int], prompted: list[int], seed: int = 0) -> tuple[Prefixes, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    known, uniform_rows = torch.zeros(B, L, dtype=torch.bool), torch.zeros(B, dtype=torch.bool)
    known[prompted, :2] = True
    uniform_rows[uniform] = True
    prefixes = draw_prefixes(LOG_W, known=known, uniform_rows=uniform_rows, generator=generator)
    return prefixes, torch.rand(B, L, generator=generator).requires_grad_()


def order_gradient(prefixes: Prefixes, ce: Tensor, **options: Tensor | bool) -> Tensor:
    log_w = LOG_W.clone().requires_grad_()
    loss = order_form(ce, prefixes, log_w=log_w, **options)  # type: ignore[arg-type]
    return torch.autograd.grad(loss.total, log_w)[0]


def test_a_row_weighs_its_hidden_cross_entropies_by_the_chance_to_be_next() -> None:
    prefixes, ce = batch(uniform=[0], prompted=[1])
    values = row_signal(ce, prefixes, log_w=LOG_W)
    for row, n, w in ((0, 5, torch.ones(L)), (1, 3, LOG_W.exp()), (2, 5, LOG_W.exp())):
        hidden = prefixes.hidden[row]
        expected = n * (w[hidden] * ce[row, hidden]).sum() / w[hidden].sum()
        assert values[row].item() == pytest.approx(expected.item())


def test_what_stands_at_visible_positions_does_not_matter() -> None:
    prefixes, ce = batch(uniform=[], prompted=[])
    spoilt = ce.detach().masked_fill(~prefixes.hidden, torch.inf)
    assert torch.equal(row_signal(spoilt, prefixes, log_w=LOG_W), row_signal(ce, prefixes, log_w=LOG_W))


def test_the_total_reads_as_the_mean_over_rows_in_nats() -> None:
    prefixes, ce = batch(uniform=[0, 1], prompted=[2, 3])
    loss = order_form(ce, prefixes, log_w=LOG_W.clone().requires_grad_())
    assert loss.total.item() == pytest.approx(row_signal(ce, prefixes, log_w=LOG_W).mean().item())
    assert torch.equal(loss.row_nelbos, row_signal(ce, prefixes, log_w=LOG_W).detach())


def test_every_row_trains_the_token_head_at_its_hidden_positions_only() -> None:
    prefixes, ce = batch(uniform=[0, 1], prompted=[1, 2, 3])
    (gradient,) = torch.autograd.grad(order_form(ce, prefixes, log_w=LOG_W).total, ce)
    assert torch.equal(gradient != 0, prefixes.hidden)


def test_uniform_rows_and_prompted_rows_leave_the_order_alone() -> None:
    everything = list(range(B))
    for uniform, prompted in ((everything, []), ([], everything)):
        assert order_gradient(*batch(uniform=uniform, prompted=prompted)).abs().max() == 0.0
    assert order_gradient(*batch(uniform=[], prompted=[])).norm() > 0.01


def test_prompted_rows_teach_the_order_if_the_recipe_says_so_but_uniform_ones_never_do() -> None:
    everything = list(range(B))
    prompted = batch(uniform=[], prompted=everything)
    assert order_gradient(*prompted, learn_order_from_prompted=True).norm() > 0.01
    both = batch(uniform=everything, prompted=everything)
    assert order_gradient(*both, learn_order_from_prompted=True).abs().max() == 0.0


def test_the_score_function_is_that_of_the_ordered_piece_between_the_prompt_and_what_is_hidden() -> None:
    """By hand, one row: 3 is known, then 4 and 0 were revealed in this order, 1 and 2 are hidden."""
    prefixes = Prefixes(
        sigma=torch.tensor([[3, 4, 0, 2, 1]]),
        num_known=torch.tensor([1]),
        num_revealed=torch.tensor([2]),
        hidden=torch.tensor([[False, True, True, False, False]]),
        follows_law=torch.tensor([True]),
        prompted=torch.tensor([True]),
        uniform=torch.tensor([False]),
    )
    ce = torch.tensor([[0.0, 0.7, 0.4, 0.0, 0.0]], dtype=torch.float64)
    baseline = torch.tensor([0.3], dtype=torch.float64)
    w = LOG_W.exp()
    q1, q2 = w[1] / (w[1] + w[2]), w[2] / (w[1] + w[2])
    value = 4 * (0.7 * q1 + 0.4 * q2)
    through_q = 4 * (0.7 - 0.4) * q1 * q2 * torch.tensor([0.0, 1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    first = w * torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]) / (w[0] + w[1] + w[2] + w[4])
    second = w * torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]) / (w[0] + w[1] + w[2])
    score = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64) - first - second
    gradient = order_gradient(prefixes, ce, baseline=baseline, learn_order_from_prompted=True)
    assert torch.allclose(gradient, through_q + score * (value - 0.3))


def test_an_order_gradient_has_no_component_along_the_gauge() -> None:
    assert abs(order_gradient(*batch(uniform=[0], prompted=[1])).sum().item()) < 1e-9


def test_a_baseline_that_is_not_there_yet_drops_the_score_term_alone() -> None:
    prefixes, ce = batch(uniform=[], prompted=[])
    nothing_yet = order_gradient(prefixes, ce, baseline=torch.full((B,), torch.nan))
    perfect = order_gradient(prefixes, ce, baseline=row_signal(ce, prefixes, log_w=LOG_W).detach())
    assert torch.allclose(nothing_yet, perfect)
    assert not torch.allclose(nothing_yet, order_gradient(prefixes, ce))


def test_each_reported_nelbo_comes_from_its_own_rows() -> None:
    prefixes, ce = batch(uniform=[0, 1, 2], prompted=[2, 3])
    loss = order_form(ce, prefixes, log_w=LOG_W)
    assert loss.parts["nelbo"].item() == pytest.approx(loss.row_nelbos[4:].mean().item())
    assert loss.parts["conditional_nelbo"].item() == pytest.approx(loss.row_nelbos[3].item())
    assert loss.parts["uniform_nelbo"].item() == pytest.approx(loss.row_nelbos[:2].mean().item())
    counts = [loss.parts[f"num_{name}"].item() for name in ("nelbo", "conditional_nelbo", "uniform_nelbo", "score")]
    assert counts == [8, 1, 2, 8]
    assert not any(part.requires_grad for part in loss.parts.values())


def test_a_part_without_rows_is_zero_with_count_zero() -> None:
    prefixes, ce = batch(uniform=list(range(B)), prompted=[])
    loss = order_form(ce, prefixes, log_w=LOG_W)
    assert (loss.parts["nelbo"].item(), loss.parts["num_nelbo"].item()) == (0.0, 0)
    assert all(part.isfinite() for part in loss.parts.values())


def test_a_fixed_order_asks_for_the_next_position_alone() -> None:
    log_w = torch.tensor([0.0, 256.0, 64.0, 192.0, 128.0])
    prefixes = draw_prefixes(
        log_w, known=torch.zeros(B, L, dtype=torch.bool), generator=torch.Generator().manual_seed(0)
    )
    ce = torch.rand(B, L, dtype=torch.float64)
    following = torch.tensor([1, 3, 4, 2, 0])[prefixes.num_revealed]
    assert torch.allclose(row_signal(ce, prefixes, log_w=log_w), L * ce[torch.arange(B), following])


def test_a_float32_network_gets_a_float64_loss_and_float32_gradients() -> None:
    prefixes, ce = batch(uniform=[], prompted=[])
    log_w = LOG_W.float().requires_grad_()
    loss = order_form(ce, prefixes, log_w=log_w)
    assert loss.total.dtype == torch.float64
    assert [g.dtype for g in torch.autograd.grad(loss.total, [ce, log_w])] == [torch.float32] * 2


def test_eq8_weighs_masked_positions_by_w_over_t() -> None:
    schedule = PolynomialSchedule(LOG_W)
    t = torch.tensor([0.25, 0.5], dtype=torch.float64)
    hidden = torch.tensor([[True, False, True, False, False], [False] * 5])
    ce = torch.rand(2, L, dtype=torch.float64)
    loss = eq8(ce, Masks(t=t, hidden=hidden, min_t=0.2), schedule=schedule)
    w = LOG_W.exp()
    assert loss.row_nelbos[0].item() == pytest.approx((0.8 * (w[0] * ce[0, 0] + w[2] * ce[0, 2]) / 0.25).item())
    assert loss.row_nelbos[1].item() == 0.0
    assert loss.total.item() == pytest.approx(loss.row_nelbos.mean().item())


def test_eq8_differentiates_weights_and_the_probability_of_the_mask() -> None:
    """By hand for one position: the value is w CE / t where masked, which happens with probability t**w."""
    log_w = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    w, t, ce = log_w.exp().item(), 0.4, 0.7
    for is_hidden in (True, False):
        masks = Masks(t=torch.tensor([t], dtype=torch.float64), hidden=torch.tensor([[is_hidden]]))
        loss = eq8(
            torch.tensor([[ce]]),
            masks,
            schedule=PolynomialSchedule(log_w),
            baseline=torch.tensor([0.1], dtype=torch.float64),
        )
        value = w * ce / t if is_hidden else 0.0
        log_t = torch.tensor(t).log().item()
        score = w * log_t if is_hidden else -(t**w) * w * log_t / (1 - t**w)
        (gradient,) = torch.autograd.grad(loss.total, log_w)
        assert gradient.item() == pytest.approx(value + score * (value - 0.1), rel=1e-5)
