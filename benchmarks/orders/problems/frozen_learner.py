"""An order law learned for a denoiser that stays as it is."""

import torch
from torch import Tensor

from unveil.benchmarks.orders.problems.frozen_arms import BETAS, FORWARDS, critic_arm
from unveil.benchmarks.orders.problems.frozen_problem import Frozen
from unveil.model.order.plackett_luce import fix_gauge


def learned_law(problem: Frozen, *, forwards: int, rate: float, seed: int) -> Tensor:
    """log w [L] float64 by the critic and Adam, from uniform orders, after so many forwards of the denoiser."""
    torch.manual_seed(seed)  # the critic's first weights
    estimator = critic_arm(problem, torch.Generator().manual_seed(seed))
    log_w = torch.zeros(problem.length, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_w], lr=rate, betas=BETAS)
    for _ in range(forwards // FORWARDS):
        (log_w.grad,) = torch.autograd.grad(estimator(log_w).total, log_w)
        optimizer.step()
    return fix_gauge(log_w.detach())
