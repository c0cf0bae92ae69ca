"""An order law learned for a denoiser that stays as it is."""

import torch
from torch import Tensor

from unveil.benchmarks.orders.problems.frozen_arms import BETAS, FORWARDS, CriticArm
from unveil.benchmarks.orders.problems.frozen_problem import Frozen
from unveil.model.order.plackett_luce import deterministic_order, fix_gauge
from unveil.model.search.pricing import TrialRows
from unveil.model.search.search import search_orders
from unveil.training.step.decided_orders import order_log_w

SEARCHES = (0.25, 0.5, 0.75)  # of the forwards
SCORED_ROWS = 256  # on which the law and what was found are compared, in as many forwards as the rows have positions


def learned_law(problem: Frozen, *, forwards: int, rate: float, seed: int) -> Tensor:
    """log w [L] float64 by search on the critic and by Adam, from uniform orders, after so many forwards of the
    denoiser."""
    torch.manual_seed(seed)  # the critic's first weights
    generator = torch.Generator().manual_seed(seed)
    estimator = CriticArm(problem, generator)
    log_w = torch.zeros(problem.length, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_w], lr=rate, betas=BETAS)
    spent, searches = 0, [share * forwards for share in SEARCHES]
    while spent + FORWARDS <= forwards:
        if searches and spent >= searches[0]:
            searches.pop(0)
            found, cost = _searched(problem, estimator, log_w.detach(), generator)
            spent += cost
            if found is not None:
                log_w.data.copy_(order_log_w(found))
                optimizer.state.clear()
        (log_w.grad,) = torch.autograd.grad(estimator(log_w).total, log_w)
        optimizer.step()
        spent += FORWARDS
    return fix_gauge(log_w.detach())


def _searched(
    problem: Frozen, estimator: CriticArm, log_w: Tensor, generator: torch.Generator
) -> tuple[list[int] | None, int]:
    """The cheapest on the same drawn rows of what the critic's search finds, None if that is the law as it is decided;
    and the forwards that it took."""
    L, own = problem.length, deterministic_order(log_w)
    nothing = torch.zeros(1, L, dtype=torch.bool)
    found = search_orders(estimator.critic, TrialRows(nothing, nothing), starts=own[None], generator=generator)
    rows = torch.randint(len(problem.ce), (SCORED_ROWS,), generator=generator)
    orders = [own.tolist(), *(one.order.tolist() for one in found if one.order.tolist() != own.tolist())]
    nats = [_cost(problem, order, rows) for order in orders]
    best = min(range(len(orders)), key=nats.__getitem__)
    return (orders[best] if best else None), len(orders) * SCORED_ROWS * L


def _cost(problem: Frozen, order: list[int], rows: Tensor) -> float:
    """Mean nats of rows along an order, in one forward a position."""
    hidden, total = torch.ones(len(rows), problem.length, dtype=torch.bool), 0.0
    for position in order:
        total += float(problem.losses(rows, hidden)[:, position].mean())
        hidden[:, position] = False
    return total
