"""What is watched while an order is learned says what it claims to say."""

import math

import pytest
import torch

from tests.model.contextual import TableDenoiser
from tests.model.enumerable import random_world
from unveil.model.oracle.exact import best_order, exact_nelbo, subset_table
from unveil.training.data.rows import Rows
from unveil.training.run.monitoring import gradient_noise, law_metrics, own_regret


def test_uniform_orders_number_all_of_them_and_a_decided_order_one() -> None:
    uniform = law_metrics(torch.zeros(6))
    assert uniform["order_entropy"] == pytest.approx(1.0)
    assert uniform["effective_orders_log10"] == pytest.approx(math.log10(720))
    decided = law_metrics(64.0 * torch.arange(6).float())
    assert decided["effective_orders_log10"] == pytest.approx(0.0, abs=1e-9)
    assert decided["log_w_span"] == 320.0
    assert law_metrics(torch.zeros(3), policy_nats=math.log(2))["order_entropy"] == pytest.approx(
        math.log(2) / math.log(6)
    )


@pytest.mark.parametrize(("mean", "expected"), [(0.0, None), (2.0, 0.25), (1.0, 1.0)])
def test_gradient_noise_is_variance_over_squared_mean(mean: float, expected: float | None) -> None:
    weights = torch.nn.Parameter(torch.zeros(400))
    group = {"name": "order", "params": [weights], "lr": 1e-9}
    optimizer = torch.optim.AdamW([group], betas=(0.9, 0.98), weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    assert gradient_noise(optimizer, group="order") is None
    for _ in range(400):
        weights.grad = mean + torch.randn(400, generator=generator)
        optimizer.step()
    found = gradient_noise(optimizer, group="order")
    assert gradient_noise(optimizer, group="critic") is None
    if expected is None:
        assert found is None or found > 20
    else:
        assert found == pytest.approx(expected, rel=0.1)


def _denoiser(*, spread: float) -> TableDenoiser:
    """Bad enough that its orders differ by far more than 128 rows' noise."""
    world = random_world(L=4, seed=1, imperfection=4.0)
    return TableDenoiser(world, spread * torch.randn(3**4, 4, generator=torch.Generator().manual_seed(6)).double())


def _rows(denoiser: TableDenoiser, num_rows: int) -> Rows:
    x = denoiser.world.draw(num_rows, torch.Generator().manual_seed(2))
    return Rows(x, torch.full((num_rows,), x.shape[1]))


def test_own_regret_is_one_for_uniform_orders_and_none_where_orders_hardly_differ() -> None:
    denoiser = _denoiser(spread=0.0)
    rows = _rows(denoiser, 256)
    own = own_regret(denoiser, rows, log_w=torch.zeros(4), is_contextual=False)
    assert own == pytest.approx(1.0)
    assert own_regret(denoiser, rows, log_w=torch.zeros(4), is_contextual=True) == pytest.approx(1.0)
    table = subset_table(denoiser.world.cross_entropy, rows.x).mean(0)
    _, sigma = best_order(table)
    best = torch.zeros(4).index_copy_(0, sigma, -64.0 * torch.arange(4))
    found = own_regret(denoiser, rows, log_w=best, is_contextual=False)
    assert found is not None
    assert abs(found) < 0.3
    assert exact_nelbo(best, table) < exact_nelbo(torch.zeros(4), table)
    assert own_regret(denoiser, Rows(rows.x[:3], rows.lengths[:3]), log_w=best, is_contextual=False) is None


def test_own_regret_of_a_policy_is_that_of_its_table() -> None:
    denoiser = _denoiser(spread=2.0)
    rows = _rows(denoiser, 256)
    found = own_regret(denoiser, rows, log_w=torch.zeros(4), is_contextual=True)
    assert found is not None
    assert found != pytest.approx(1.0, abs=1e-3)
