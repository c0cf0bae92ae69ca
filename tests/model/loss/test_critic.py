"""The critic against the exact oracle: what a law costs by a table, its gradient; and regression finds the table."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from tests.model.absorbing import all_costs, masks, random_rows, state_costs
from tests.model.enumerable import random_world
from unveil.model.loss.critic import Cost, Critic, Trials, critic_error, critic_loss, simulated_nelbo, undecided
from unveil.model.loss.prefixes import Turns
from unveil.model.oracle.exact import best_order, exact_nelbo, subset_masks
from unveil.model.order.plackett_luce import deterministic_order, gumbel_noise, log_prob
from unveil.training.step.decided_orders import order_log_w

L = 4
WORLD = random_world(L=L, seed=1, imperfection=4.0)


def look_up(costs: Tensor) -> Cost:
    bits = 1 << torch.arange(L)
    return lambda hidden, _: costs[(~hidden).long() @ bits]


LAWS = [[0.0] * L, [1.0, -0.4, 0.3, -0.9], [4.0, -4.0, 2.0, -2.0]]


def with_gradient(value: Tensor, law: Tensor) -> Tensor:
    return torch.cat([value.detach()[None], torch.autograd.grad(value, law)[0]])


def assert_unbiased(simulate: Callable[[torch.Generator], Tensor], truth: Tensor, *, law: Tensor, times: int) -> None:
    generator = torch.Generator().manual_seed(3)
    found = torch.stack([with_gradient(simulate(generator), law) for _ in range(times)])
    error = found.std(0) / times**0.5
    assert ((found.mean(0) - truth).abs() <= 4.5 * error + 1e-12).all()
    assert error.max() < 0.04 * truth.abs().max()  # or agreement would mean nothing


@pytest.mark.parametrize("log_w", LAWS)
@pytest.mark.parametrize("num_orders", [2, 64])
def test_simulated_orders_give_the_exact_nelbo_and_gradient_of_a_law(log_w: list[float], num_orders: int) -> None:
    """With two orders a baseline that holds an order's own draw would halve its score."""
    law = torch.tensor(log_w, dtype=torch.float64, requires_grad=True)
    costs = WORLD.mean_table()

    def simulate(generator: torch.Generator) -> Tensor:
        return simulated_nelbo(law, look_up(costs), gumbel_noise((num_orders, L), generator))

    truth = with_gradient(exact_nelbo(law, costs), law)
    assert_unbiased(simulate, truth, law=law, times=400 if num_orders == 64 else 5_000)


SHORT = 2  # the length of nine rows in ten
SHORT_COSTS = random_world(L=SHORT, seed=8, imperfection=4.0).mean_table()
LENGTHS = torch.tensor([L] + [SHORT] * 9)


def by_length(hidden: Tensor, absent: Tensor) -> Tensor:
    """What each position costs, which depends on whether the row is a short one."""
    long = look_up(WORLD.mean_table())(hidden, absent)
    short = torch.full_like(long, 100.0)  # past its end nobody may read it
    short[:, :SHORT] = SHORT_COSTS[(~hidden[:, :SHORT]).long() @ (1 << torch.arange(SHORT))]
    return torch.where(absent.any(-1, keepdim=True), short, long)


def exact_by_length(law: Tensor) -> Tensor:
    return 0.1 * exact_nelbo(law, WORLD.mean_table()) + 0.9 * exact_nelbo(law[:SHORT], SHORT_COSTS)


@pytest.mark.parametrize("log_w", LAWS)
def test_rows_of_two_lengths_cost_what_their_own_positions_cost(log_w: list[float]) -> None:
    law = torch.tensor(log_w, dtype=torch.float64, requires_grad=True)
    absent = torch.arange(L) >= LENGTHS[:, None]

    def simulate(generator: torch.Generator) -> Tensor:
        return simulated_nelbo(law, by_length, gumbel_noise((10, L), generator), absent=absent)

    assert_unbiased(simulate, with_gradient(exact_by_length(law), law), law=law, times=1_500)


def test_a_law_over_rows_of_two_lengths_ends_at_the_order_that_is_best_for_all_of_them() -> None:
    """Priced on whole rows alone, which are one in ten, it would decide the other way."""
    absent = torch.arange(L) >= LENGTHS[:, None]
    found = {}
    for name, mask in (("own masks", absent), ("whole rows alone", torch.zeros_like(absent))):
        law = torch.zeros(L, dtype=torch.float64, requires_grad=True)
        optimizer, generator = torch.optim.Adam([law], lr=0.1), torch.Generator().manual_seed(1)
        for _ in range(300):
            optimizer.zero_grad()
            simulated_nelbo(law, by_length, gumbel_noise((40, L), generator), absent=mask.repeat(4, 1)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found[name] = float(exact_by_length(6 * law.detach()))
    orders = [3.5 * order_log_w(order).double() for order in permutations(range(L))]
    best = min(float(exact_by_length(law)) for law in orders)
    assert found["own masks"] == pytest.approx(best, abs=0.01)
    assert found["whole rows alone"] > best + 0.02


def test_what_is_known_from_the_start_costs_nothing_and_is_never_chosen() -> None:
    law = torch.tensor([1.0, -0.4, 0.3, -0.9], dtype=torch.float64, requires_grad=True)
    costs, known = WORLD.mean_table(), torch.tensor([False, True, False, False])
    free = [0, 2, 3]
    rest = torch.zeros(2**3, 3, dtype=torch.float64)  # the same costs over what is left, position 1 always visible
    for subset in range(2**3):
        visible = 2 | sum(1 << free[i] for i in range(3) if subset >> i & 1)
        rest[subset] = costs[visible, free]
    exact = exact_nelbo(law[free], rest)

    def simulate(generator: torch.Generator) -> Tensor:
        return simulated_nelbo(law, look_up(costs), gumbel_noise((64, L), generator), known=known.expand(64, L))

    assert_unbiased(simulate, with_gradient(exact, law), law=law, times=400)


@pytest.mark.parametrize("log_w", LAWS)
@pytest.mark.parametrize("copies", [1, 16])
def test_where_ends_absorb_simulated_orders_give_the_mean_and_gradient_over_all_orders(
    log_w: list[float], copies: int
) -> None:
    """With one order a row nearly every baseline is of rows of another kind."""
    law = torch.tensor(log_w, dtype=torch.float64, requires_grad=True)
    rows = random_rows(4, L, seed=6)
    orders, costs = all_costs(state_costs(L), rows, L)
    truth = with_gradient((log_prob(law.expand(orders.shape), orders).exp() * costs).sum(), law)
    known, absent, ends, control = (part.repeat(copies, 1) for part in masks(rows, L))

    def simulate(generator: torch.Generator) -> Tensor:
        noise = gumbel_noise((len(known), L), generator)
        return simulated_nelbo(law, state_costs(L), noise, known=known, absent=absent, ends=ends, control=control)

    assert_unbiased(simulate, truth, law=law, times=3_000 if copies == 1 else 500)


def test_rows_without_ends_cost_the_same_whether_ends_absorb_or_not() -> None:
    law, noise = torch.tensor(LAWS[1], dtype=torch.float64), gumbel_noise((12, L), torch.Generator().manual_seed(0))
    known, absent, ends, control = masks(random_rows(12, L, seed=2, has_ends=False), L)
    plain = simulated_nelbo(law, state_costs(L), noise, known=known, absent=absent)
    found = simulated_nelbo(law, state_costs(L), noise, known=known, absent=absent, ends=ends, control=control)
    assert float(found) == float(plain)


def test_a_known_end_decides_nothing() -> None:
    known = torch.tensor([True, False, False, False]).expand(8, L)
    noise, control = gumbel_noise((8, L), torch.Generator().manual_seed(0)), torch.ones((8, L), dtype=torch.float64)
    ends = torch.tensor([[True, False, True, True], [False, False, True, True]])[:, None].expand(2, 8, L)
    found = [
        simulated_nelbo(torch.zeros(L), state_costs(L), noise, known=known, ends=each, control=control) for each in ends
    ]
    assert float(found[0]) == float(found[1])


def test_what_lies_behind_a_revealed_end_is_absent_revealed_or_not() -> None:
    ends = torch.tensor([False, False, True, True, True, False])
    hidden = torch.tensor([[True, True, False, True, False, False], [True, True, True, False, True, False]])
    absent = torch.tensor([[False] * 5 + [True]] * 2)
    left, gone = undecided(hidden, absent, ends)
    assert left.tolist() == [[True, True, False, False, False, False], [True, True, True, False, False, False]]
    assert gone.tolist() == [[False] * 3 + [True] * 3, [False] * 4 + [True] * 2]
    assert undecided(hidden, absent, None) == (hidden, absent)


def test_what_is_decided_teaches_nothing_and_is_seen_as_absent() -> None:
    """As a batch and as turns: the losses behind a revealed end do not matter, and the critic is asked as of a row that
    is past its end there."""
    torch.manual_seed(0)
    critic = Critic(L).requires_grad_(False)
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter)
    ends = torch.tensor([[False, True, True, True]])
    hidden, absent = torch.tensor([[True, False, True, False]]), torch.zeros((1, L), dtype=torch.bool)
    seen = critic(torch.tensor([[True, False, False, False]]), torch.tensor([[False, False, True, True]]))[0, 0]
    trials = Trials(gumbel_noise((2, L), torch.Generator().manual_seed(0)), *(2 * [absent.expand(2, L)]))
    positions = torch.tensor([[0, 2]])
    for behind in (0.0, 100.0):
        losses, control = torch.tensor([[1.5, 9.0, behind, 9.0]]), torch.tensor([[0.25, 9.0, 9.0, 9.0]])
        for turns in (None, Turns(positions, hidden[:, None].expand(1, 2, L))):
            found = critic_loss(
                critic,
                losses if turns is None else losses[:, [0, 2]],
                hidden=hidden,
                absent=absent,
                control=control,
                turns=turns,
                log_w=torch.zeros(L),
                trials=trials,
                ends=ends,
            )
            assert float(found.error) == pytest.approx(float((seen - 1.25).square()), rel=1e-5)


def test_a_step_prices_its_trials_with_their_ends_and_control() -> None:
    critic, rows = Critic(L), random_rows(6, L, seed=4)
    trials = Trials(gumbel_noise((6, L), torch.Generator().manual_seed(1)), *masks(rows, L))
    nothing = torch.zeros((1, L), dtype=torch.bool)
    found = critic_loss(
        critic,
        torch.zeros(1, L),
        hidden=~nothing,
        absent=nothing,
        control=torch.zeros(1, L),
        turns=None,
        log_w=torch.zeros(L),
        trials=trials.to(torch.device("cpu")),
    )
    noise, known, absent, ends, control = trials
    wanted = simulated_nelbo(torch.zeros(L), critic, noise, known=known, absent=absent, ends=ends, control=control)
    assert float(found.simulated) == float(wanted) < 0.0, "this critic expects the control, and ends save some of it"


def test_an_absent_position_is_not_a_visible_one() -> None:
    """A hidden pair alone, and a hidden pair whose neighbours are revealed, are two states with two costs."""
    torch.manual_seed(0)
    critic = Critic(L)
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    hidden = torch.tensor([[True, True, False, False]] * 2)
    absent = torch.tensor([[False] * L, [False, False, True, True]])
    wanted = torch.tensor([[0.1, 0.2, 0.0, 0.0], [2.0, 1.5, 0.0, 0.0]])
    for _ in range(300):
        optimizer.zero_grad()
        critic_error(critic(hidden, absent), wanted, hidden, control=torch.zeros_like(wanted)).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.allclose(critic(hidden, absent)[:, :2], wanted[:, :2], atol=0.05)


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
        error = critic_error(critic(hidden, torch.zeros_like(hidden)), rows[row, subset], hidden, control=control[row])
        optimizer.zero_grad()
        error.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    wanted = WORLD.mean_table() - (WORLD.p[:, None] * control).sum(0)
    seen = sorted({s**2 % (2**L - 1) for s in range(2**L - 1)})
    found = critic(~masks, torch.zeros_like(masks)).detach().double()
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
