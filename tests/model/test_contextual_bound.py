"""The bound of a context-dependent order against the oracle: value and gradients for posterior, policy and denoiser.

`log_q_w` gives each sequence its own Plackett-Luce posterior, `policy` each partial canvas its own next position: both
are free tables here, so their exact gradients come from autograd through the enumeration.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.baseline import RunningBaseline, leave_one_out
from model.exact import exact_nelbo, log_likelihood, order_table, subset_masks, table_nelbo
from model.objective import Loss, order_form
from model.prefixes import draw_prefixes
from tests.model.contextual import TableDenoiser, random_denoiser
from tests.model.pooled import chi_square_bound, hotelling, relative_error

L, V, B = 3, 2, 8192
DRAWN = random_denoiser(L=L, V=V, seed=3, spread=1.0)
LOGITS, POLICY = (x.clone().requires_grad_() for x in (DRAWN.world.logits, DRAWN.order_logits))
WORLD = type(DRAWN.world)(x=DRAWN.world.x, p=DRAWN.world.p, logits=LOGITS)
DENOISER = TableDenoiser(WORLD, POLICY)
LOG_Q_W = torch.randn(V**L, L, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
PARAMETERS = [LOG_Q_W, POLICY, LOGITS]


def exact_bounds() -> Tensor:
    """`sum_S P_q(S) sum_l q(l|S) (CE + log q - log pi)` of every sequence: [V**L]."""
    log_q, log_pi = order_table(LOG_Q_W), DENOISER.order_table()
    inside = subset_masks(L)
    choice = log_q.masked_fill(inside, 0.0) - log_pi.masked_fill(inside, 0.0)
    return table_nelbo(log_q, WORLD.tables() + choice)


def differentiate(value: Tensor) -> Tensor:
    """The value and all its gradients as one vector."""
    gradients = torch.autograd.grad(value, PARAMETERS, allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, PARAMETERS, strict=True)]
    return torch.cat([value.detach()[None], *(part.flatten() for part in parts)])


def split(moments: Tensor) -> dict[str, Tensor]:
    """The value and the gradients [..., d] by name."""
    sizes = [1, *(p.numel() for p in PARAMETERS)]
    return dict(zip(("value", "posterior", "policy", "denoiser"), torch.split(moments, sizes, dim=-1), strict=True))


def step(generator: torch.Generator, running: RunningBaseline | None, *, uniform_rows: Tensor | None = None) -> Loss:
    index = torch.multinomial(WORLD.p, B, replacement=True, generator=generator)
    num_draws = 1 if running is not None else 2
    prefixes = draw_prefixes(
        LOG_Q_W[index],
        known=torch.zeros(B, L, dtype=torch.bool),
        generator=generator,
        num_draws=num_draws,
        uniform_rows=uniform_rows,
    )
    index = index.repeat(num_draws)
    x, log_w = WORLD.x[index], LOG_Q_W[index]
    policy = DENOISER(torch.where(prefixes.hidden, 0, x), prefixes.hidden, torch.full((len(x),), L)).order_logits
    ce = WORLD.cross_entropy(x, prefixes.hidden)
    if running is None:
        baseline = leave_one_out(ce, prefixes, log_w=log_w, num_draws=2, policy=policy)
        return order_form(ce, prefixes, log_w=log_w, policy=policy, baseline=baseline)
    loss = order_form(ce, prefixes, log_w=log_w, policy=policy, baseline=running.read(prefixes))
    running.update(*running.statistics(prefixes, loss.row_signals))
    return loss


def assert_unbiased(estimates: Tensor, truth: Tensor) -> None:
    directions = torch.randn(len(truth), 12, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    chosen = torch.cat([torch.eye(1, len(truth), dtype=torch.float64).T, directions * (truth != 0)[:, None]], dim=1)
    statistic, rank = hotelling(estimates @ chosen, truth @ chosen)
    assert statistic < chi_square_bound(rank), f"T2 = {statistic:.1f} in {rank} dimensions"
    for name, part in split(truth).items():
        assert relative_error(split(estimates)[name], part) < 0.01, name


def run(make: Callable[[torch.Generator], Loss], num_batches: int) -> Tensor:
    generator = torch.Generator().manual_seed(13)
    make(generator)  # a baseline that has seen nothing gives no score, so the first batch does not count
    return torch.stack([differentiate(make(generator).total) for _ in range(num_batches)])


@pytest.mark.parametrize("is_running", [True, False], ids=["running baseline", "leave-one-out"])
def test_the_estimator_has_the_oracles_value_and_gradients(is_running: bool) -> None:
    truth = differentiate((WORLD.p * exact_bounds()).sum())
    running = RunningBaseline(L) if is_running else None
    assert_unbiased(run(lambda generator: step(generator, running), 150), truth)


def test_uniform_rows_train_the_denoiser_alone() -> None:
    uniform_rows = torch.arange(B) % 4 == 0
    uniform = exact_nelbo(torch.zeros(L, dtype=torch.float64), WORLD.tables())
    truth = differentiate((WORLD.p * (0.75 * exact_bounds() + 0.25 * uniform)).sum())
    running = RunningBaseline(L)
    assert_unbiased(run(lambda generator: step(generator, running, uniform_rows=uniform_rows), 200), truth)


def test_the_bound_lies_above_the_exact_likelihood_of_the_policy_whatever_the_posterior() -> None:
    exact = -log_likelihood(-WORLD.tables(), DENOISER.order_table())
    assert (exact_bounds() > exact + 1e-3).all()


def test_a_posterior_that_is_the_policy_gives_the_nelbo_of_the_policy() -> None:
    """For a law that needs no context both are Plackett-Luce with the same weights."""
    log_w = torch.tensor([0.7, -0.2, -0.5], dtype=torch.float64)
    index = torch.arange(V**L).repeat_interleave(B // V**L)
    prefixes = draw_prefixes(
        log_w, known=torch.zeros(B, L, dtype=torch.bool), generator=torch.Generator().manual_seed(1)
    )
    ce = WORLD.cross_entropy(WORLD.x[index], prefixes.hidden)
    own = log_w.expand(B, L)
    with_policy = order_form(ce, prefixes, log_w=own, policy=own)
    without = order_form(ce, prefixes, log_w=own)
    torch.testing.assert_close(with_policy.row_nelbos, without.row_nelbos)
    assert float(with_policy.parts["choice_divergence"]) == pytest.approx(0.0, abs=1e-12)
    assert float(with_policy.parts["policy_entropy"]) == pytest.approx(float(with_policy.parts["posterior_entropy"]))


def test_the_statistic_sees_a_policy_gradient_that_is_wrong_by_five_percent() -> None:
    truth = differentiate((WORLD.p * exact_bounds()).sum())
    running = RunningBaseline(L)
    estimates = run(lambda generator: step(generator, running), 150)
    start = 1 + LOG_Q_W.numel()
    wrong = truth.clone()
    wrong[start : start + POLICY.numel()] *= 1.05
    with pytest.raises(AssertionError, match="T2"):
        assert_unbiased(estimates, wrong)
