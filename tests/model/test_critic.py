"""The critic against the exact oracle: what a law costs by a table, its gradient; and regression finds the table."""

import pytest
import torch
from torch import Tensor

from model.critic import Cost, Critic, critic_error, simulated_nelbo
from model.exact import best_order, exact_nelbo, subset_masks
from model.orders import deterministic_order, gumbel_noise
from tests.model.enumerable import random_world

L = 4
WORLD = random_world(L=L, seed=1, imperfection=4.0)


def look_up(costs: Tensor) -> Cost:
    bits = 1 << torch.arange(L)
    return lambda hidden: costs[(~hidden).long() @ bits]


@pytest.mark.parametrize("log_w", [[0.0] * L, [1.0, -0.4, 0.3, -0.9], [4.0, -4.0, 2.0, -2.0]])
def test_simulated_orders_give_the_exact_nelbo_and_gradient_of_a_law(log_w: list[float]) -> None:
    law = torch.tensor(log_w, dtype=torch.float64, requires_grad=True)
    costs = WORLD.mean_table()
    exact = exact_nelbo(law, costs)
    truth = torch.cat([exact.detach()[None], torch.autograd.grad(exact, law)[0]])
    generator, found = torch.Generator().manual_seed(3), []
    for _ in range(400):
        value = simulated_nelbo(law, look_up(costs), gumbel_noise((64, L), generator))
        found.append(torch.cat([value.detach()[None], torch.autograd.grad(value, law)[0]]))
    batches = torch.stack(found)
    error = batches.std(0) / len(batches) ** 0.5
    assert ((batches.mean(0) - truth).abs() <= 4.5 * error + 1e-12).all()
    assert error.max() < 0.02 * truth.abs().max()  # or agreement would mean nothing


def test_the_regression_finds_the_mean_losses_from_prefixes_of_any_law() -> None:
    torch.manual_seed(0)
    critic = Critic(L)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    masks, rows = subset_masks(L), WORLD.tables()
    generator = torch.Generator().manual_seed(5)
    control = torch.rand((len(WORLD.x), L), generator=generator, dtype=torch.float64)
    for step in range(800):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 800)
        row = torch.multinomial(WORLD.p, 512, replacement=True, generator=generator)
        subset = torch.randint(2**L - 1, (512,), generator=generator) ** 2 % (2**L - 1)  # far from evenly
        hidden = ~masks[subset]
        error = critic_error(critic(hidden), rows[row, subset], hidden, control=control[row])
        optimizer.zero_grad()
        error.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    wanted = WORLD.mean_table() - (WORLD.p[:, None] * control).sum(0)
    seen = sorted({s**2 % (2**L - 1) for s in range(2**L - 1)})
    found = critic(~masks).detach().double()
    gaps = (found - wanted).masked_fill(masks, 0.0)[seen]
    assert gaps.abs().mean() < 0.1 * wanted[seen].std()


def test_moving_a_law_on_a_table_ends_at_its_best_order() -> None:
    """Without noise in the costs, the gradient alone finds Held-Karp's order."""
    costs = WORLD.mean_table()
    best, sigma = best_order(costs)
    law = torch.zeros(L, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([law], lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(400):
        optimizer.zero_grad()
        simulated_nelbo(law, look_up(costs), gumbel_noise((64, L), generator)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert deterministic_order(law.detach()).tolist() == sigma.tolist()
    assert float(exact_nelbo(law.detach(), costs)) == pytest.approx(float(best), rel=0.02)
