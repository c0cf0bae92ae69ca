"""Learns what a choice will have cost by the end, by trying choices: for a denoiser that stays as it is. No file.

Each row is walked to a random state by the law of the order itself. There a few next positions are tried, and each
branch is walked to its end along the order's own argmax, on the row's true values. All branches of a state pay for the
same rest of the same row, so what they pay differs by the choice and what follows from it, and hardly by what the row
happens to be. The head (`model.network.order_heads.CostToGoHead`) learns these differences by least squares, the mean
of a state's branches taken off on both sides; and, as what counts is which of them is the least, also by what its own
choice among the branches is expected to pay, whose gradient does not care for costs that no choice hangs on. The least
of its costs is then a better order than the one that was walked (policy iteration with rollouts; Bertsekas, Tsitsiklis
and Wu 1997), and the next walks follow that one.

At first a reveal is charged what the head expected of it at its state, for its true cost is mostly chance (nothing nine
times in ten, two nats the tenth). But the expectation is a fit, and its errors are as large as what good choices differ
by; so the share of the true cost grows from none in the first step to all in the last.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.network.order_heads import SHARPNESS
from unveil.training.order_config import CostToGoOrder
from unveil.training.step.batches import Batch
from unveil.training.step.rollouts import (
    Canvases,
    Draws,
    Foresee,
    View,
    WalkStepper,
    choice_entropy,
    mean_error,
    top_positions,
    view,
    walk_by_law,
)
from unveil.training.step.stepper import Part


class CostToGoStepper(WalkStepper):
    """Takes steps of branched walks. `optimizer.batch_size` counts rows, each of which branches once."""

    def _part(self, batch: Batch, own: slice, step: int) -> Part:
        """See `Stepper._part`."""
        order, foresee = self._recipe.order, self._module
        assert isinstance(order, CostToGoOrder)
        canvases, is_uniform, draws = self._begin(batch, own, step)
        start = walk_to_random_states(foresee, canvases, stride=order.stride, draws=draws, is_uniform=is_uniform)
        branched = branch(foresee, start.canvases, num=order.branches, stride=order.stride, draws=draws)
        truth = step / self._recipe.optimizer.num_steps
        follows_law = ~is_uniform
        sums = {
            "nelbo": (start.paid + branched.paid[:, 0]) * follows_law,
            "policy_entropy": choice_entropy(branched.seen.law, branched.hidden) * start.num_choices * follows_law,
        }
        return Part(
            branch_error(branched, truth=truth).mean(),
            {
                **{name: values.sum() for name, values in sums.items()},
                **{f"num_{name}": follows_law.sum().double() for name in sums},
            },
        )


class StartStates(NamedTuple):
    """Rows at a random state of their walks, what the walks paid so far in nats [B] float64, and how many states with
    a choice a whole walk of the row has [B]."""

    canvases: Canvases
    paid: Tensor
    num_choices: Tensor


@torch.no_grad()
def walk_to_random_states(
    foresee: Foresee, canvases: Canvases, *, stride: int, draws: Draws, is_uniform: Tensor
) -> StartStates:
    """Walks each row by the law, or along a random order where it `is_uniform` [B], to a state drawn evenly from those
    of its walk that leave a choice: the last forward has none."""
    hidden = canvases.hidden.clone()
    num_choices = (-(-draws.num_hidden // stride) - 1).clamp(min=0)
    stop = (draws.uniforms(dtype=torch.float64) * num_choices).long()  # of the global batch
    paid = torch.zeros(len(hidden), dtype=torch.float64, device=hidden.device)
    steps = walk_by_law(
        foresee, canvases, hidden, stride=stride, noise=draws.noise, is_uniform=is_uniform, stop=draws.own(stop)
    )
    for step in steps:
        paid[step.rows] += (step.seen.losses * step.taken).double().sum(-1)
    draws.skip_to(int(stop.max()))
    return StartStates(canvases._replace(hidden=hidden), paid, draws.own(num_choices))


class Branched(NamedTuple):
    """What was tried of each row: what the head saw, with its gradients, and what was hidden [B, L]; the choices [B, K]
    of which the law's own is the first, which of them there are, and what each has paid to the end and what the head
    expected of every reveal at its time, nats float64."""

    seen: View
    hidden: Tensor
    chosen: Tensor
    is_there: Tensor
    paid: Tensor
    foreseen: Tensor


def branch(foresee: Foresee, canvases: Canvases, *, num: int, stride: int, draws: Draws) -> Branched:
    """Tries the argmax choice of every row and up to `num` - 1 others, drawn at random, each to the end of its walk."""
    hidden = canvases.hidden
    seen = view(foresee, canvases)
    first = seen.cost.detach().masked_fill(~hidden, torch.inf).argmin(-1, keepdim=True)
    keys = draws.own(draws.uniforms(hidden.shape[1])).masked_fill(~hidden, -1.0)
    chosen = keys.scatter(1, first, 2.0).argsort(-1, descending=True)[:, :num]  # [B, K]
    is_there = hidden.gather(1, chosen)
    rows, places = is_there.nonzero(as_tuple=True)
    part, tried = canvases.at(rows), chosen[rows, places]
    taken = top_positions(seen.law[rows].scatter(1, tried[:, None], torch.inf), part.hidden, stride)
    ends = rollout_costs(foresee, part._replace(hidden=part.hidden & ~taken), stride=stride)
    bills = torch.zeros(2, *chosen.shape, dtype=torch.float64, device=hidden.device)
    bills[:, rows, places] = ends + _step_costs(seen.at(rows), taken)
    paid, foreseen = bills
    return Branched(seen, hidden, chosen, is_there, paid, foreseen)


def branch_error(branched: Branched, *, truth: float) -> Tensor:
    """The head's error about each row [B]: about single positions; about the differences of its branches, their sample
    variance in squared nats; and what its law among the branches is expected to pay beyond their mean, in nats. By a
    share `truth` of what the branches paid, and for the rest of what was foreseen."""
    seen, is_there = branched.seen, branched.is_there
    costs = _centred(branched.foreseen.lerp(branched.paid, truth), is_there)
    expected = seen.cost.double().gather(1, branched.chosen)
    apart = _centred(expected, is_there) - costs
    differences = apart.square().sum(-1) / (is_there.sum(-1) - 1).clamp(min=1)
    law = (-SHARPNESS * expected).masked_fill(~is_there, -torch.inf).softmax(-1)
    return mean_error(seen, branched.hidden) + differences + (law * costs).sum(-1)


@torch.no_grad()
def rollout_costs(foresee: Foresee, canvases: Canvases, *, stride: int) -> Tensor:
    """What true rows pay to the end along the argmax order, `stride` positions a forward, and what the head expected
    of each reveal at its time: nats [2, B] float64."""
    hidden = canvases.hidden.clone()
    costs = torch.zeros(2, len(hidden), dtype=torch.float64, device=hidden.device)
    for step in walk_by_law(foresee, canvases, hidden, stride=stride):
        costs[:, step.rows] += _step_costs(step.seen, step.taken)
    return costs


@torch.no_grad()
def _step_costs(seen: View, taken: Tensor) -> Tensor:
    """What the positions `taken` [A, L] cost, and what the head expected them to: nats [2, A] float64."""
    return (torch.stack([seen.losses, seen.log_m.exp()]) * taken).double().sum(-1)


def forwards_a_row(length: int, *, branches: int) -> float:
    """Of a row of `length` hidden positions: the mean number of forwards that a step takes with it, at stride 1."""
    num_choices = max(length - 1, 1)
    per_stop = [k + 1 + min(branches, length - k) * (length - k - 1) for k in range(num_choices)]
    return sum(per_stop) / num_choices


def _centred(values: Tensor, is_there: Tensor) -> Tensor:
    """Less their mean over the places that are there, 0 elsewhere: [B, K]."""
    values = values.masked_fill(~is_there, 0.0)
    mean = values.sum(-1, keepdim=True) / is_there.sum(-1, keepdim=True).clamp(min=1)
    return (values - mean).masked_fill(~is_there, 0.0)
