"""Estimators of what an order law costs, as arms that may be tried on a frozen problem."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from unveil.benchmarks.orders.problems.frozen_problem import Frozen
from unveil.model.loss.baseline import RunningBaseline, leave_one_out
from unveil.model.loss.critic import Critic, critic_error, simulated_nelbo
from unveil.model.loss.objective import Loss, eq8, order_form
from unveil.model.loss.prefixes import Prefixes, draw_prefixes
from unveil.model.order.plackett_luce import fix_gauge, gumbel_noise
from unveil.model.order.schedule import PAPER_MIN_T, Masks, PolynomialSchedule

FORWARDS = 256  # a batch, whatever an arm makes of them
CRITIC_RATE, BETAS = 3e-3, (0.9, 0.98)
CHUNK = 10_000  # draws at a time, of a single draw's value

Estimator = Callable[[Tensor], Loss]
"""log w [L] -> the loss of a fresh batch of FORWARDS forwards; `total` carries the gradient for log w, and whatever an
arm learns besides (a baseline, a critic) it learns here."""
Maker = Callable[[Frozen, torch.Generator], Estimator]


def order_arm(
    problem: Frozen,
    generator: torch.Generator,
    *,
    forwards: int = FORWARDS,
    has_baseline: bool = False,
    has_control: bool = False,
    num_draws: int = 1,
) -> Estimator:
    """The order form: without a baseline, with the running one, or leave-one-out over K > 1 draws."""
    running = RunningBaseline(problem.length)

    def estimate(log_w: Tensor) -> Loss:
        law = fix_gauge(log_w)
        prefixes, ce, costs = _draw(problem, law, generator, forwards, num_draws=num_draws)
        control = costs if has_control else None
        baseline = running.read(prefixes) if has_baseline else None
        if num_draws > 1:
            baseline = leave_one_out(ce, prefixes, log_w=law, num_draws=num_draws, control=control)
        loss = order_form(ce, prefixes, log_w=law, baseline=baseline, control=control)
        running.update(*running.statistics(prefixes, loss.row_signals))
        return loss

    return estimate


def eq8_arm(
    problem: Frozen,
    generator: torch.Generator,
    *,
    forwards: int = FORWARDS,
    has_gauge: bool = True,
    min_t: float = 0.0,
    has_baseline: bool = False,
    has_control: bool = False,
) -> Estimator:
    """Eq. 8: in the finite gauge, or with w as it is and, in the paper, small t cut off."""
    running = RunningBaseline(problem.length)

    def estimate(log_w: Tensor) -> Loss:
        schedule = PolynomialSchedule(fix_gauge(log_w)).finite_gauge() if has_gauge else PolynomialSchedule(log_w)
        masks = schedule.draw_masks(forwards, generator=generator, min_t=min_t)
        rows = _rows(problem, forwards, generator)
        control = problem.control[rows] if has_control else torch.zeros(forwards, problem.length)
        excess = problem.losses(rows, masks.hidden) - control
        cells = _time_cells(masks)
        loss = eq8(excess, masks, schedule=schedule, baseline=running.read(cells) if has_baseline else None)
        running.update(*running.statistics(cells, loss.row_signals))
        paid = control.double().sum(-1)  # each control is paid once, whatever the order
        return replace(loss, total=loss.total + paid.mean(), row_nelbos=loss.row_nelbos + paid)

    return estimate


class CriticArm:
    """The critic learns from the losses of all hidden positions, the law from orders simulated on it."""

    def __init__(self, problem: Frozen, generator: torch.Generator) -> None:
        self._problem, self._generator, self.critic = problem, generator, Critic(problem.length)
        self._optimizer = torch.optim.AdamW(self.critic.parameters(), lr=CRITIC_RATE, betas=BETAS, weight_decay=0.0)

    def __call__(self, log_w: Tensor) -> Loss:
        law = fix_gauge(log_w)
        prefixes, ce, control = _draw(self._problem, law, self._generator, FORWARDS)
        self._optimizer.zero_grad()
        expected = self.critic(prefixes.hidden, torch.zeros_like(prefixes.hidden))
        error = critic_error(expected, ce, prefixes.hidden, control=control).mean()
        torch.autograd.backward(error)
        self._optimizer.step()
        noise = gumbel_noise((128, self._problem.length), self._generator)
        simulated = simulated_nelbo(law, self.critic, noise)
        loss = order_form(ce, prefixes, log_w=law.detach(), control=control)
        return replace(loss, total=loss.total.detach() + simulated - simulated.detach())


_PAPER = partial(eq8_arm, has_gauge=False, min_t=PAPER_MIN_T)
ARMS: dict[str, Maker] = {
    "eq. 8, the paper's": _PAPER,
    "eq. 8, the paper's, running": partial(_PAPER, has_baseline=True),
    "eq. 8, finite gauge": eq8_arm,
    "eq. 8, finite gauge, running": partial(eq8_arm, has_baseline=True),
    "eq. 8, finite gauge, running, control": partial(eq8_arm, has_baseline=True, has_control=True),
    "order form": order_arm,
    "order form, running": partial(order_arm, has_baseline=True),
    "order form, running, control": partial(order_arm, has_baseline=True, has_control=True),
    "order form, leave-one-out of 2": partial(order_arm, num_draws=2),
    "order form, leave-one-out of 2, control": partial(order_arm, num_draws=2, has_control=True),
    "order form, leave-one-out of 4": partial(order_arm, num_draws=4),
    "order form, leave-one-out of 4, control": partial(order_arm, num_draws=4, has_control=True),
    "critic": CriticArm,
}
SINGLE_DRAWS: dict[str, Maker] = {
    "eq. 8, w as it is, t from 0": partial(eq8_arm, has_gauge=False, forwards=CHUNK),
    "eq. 8, the paper's, t from 0.001": partial(_PAPER, forwards=CHUNK),
    "eq. 8, finite gauge": partial(eq8_arm, forwards=CHUNK),
    "order form": partial(order_arm, forwards=CHUNK),
}


def _rows(problem: Frozen, num_rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(len(problem.ce), (num_rows,), generator=generator)


def _draw(
    problem: Frozen, law: Tensor, generator: torch.Generator, forwards: int, *, num_draws: int = 1
) -> tuple[Prefixes, Tensor, Tensor]:
    """Prefixes under the law, and at them the losses and controls of fresh rows: `forwards` of each."""
    rows = _rows(problem, forwards // num_draws, generator)
    known = torch.zeros(len(rows), problem.length, dtype=torch.bool)
    prefixes = draw_prefixes(law, known=known, generator=generator, num_draws=num_draws)
    rows = rows.repeat(num_draws)
    return prefixes, problem.losses(rows, prefixes.hidden), problem.control[rows]


def _time_cells(masks: Masks) -> Prefixes:
    """What a running baseline needs to know: t, since the prefix length depends on the mask."""
    B, L = masks.hidden.shape
    known, law = torch.zeros(B, dtype=torch.int64), torch.ones(B, dtype=torch.bool)
    cell = (masks.t * L).long().clamp(max=L - 1)
    return Prefixes(torch.arange(L).expand(B, L), known, cell, masks.hidden, law, ~law, prompted=~law)
