"""Learns to foresee what reveals cost, on the order's own prefixes, for a denoiser that stays as it is. No file.

Rows are walked from their clues to the end as the sampler would, by the law of the order itself, but along their true
values. At every state of a walk the head (`model.network.order_heads.NextCostHead`) says what it expects each hidden
position to cost, and learns what it does cost: all hidden positions teach, not the chosen one alone. With m the
expected nats and y the true ones the loss is `m - y log m`, least where m is the mean of y; its gradient for `log m` is
`m - y`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.network.order_heads import SHARPNESS
from unveil.model.order.plackett_luce import gumbel_noise, next_log_probs
from unveil.training.evaluation.walks import Step, walk
from unveil.training.order_config import NextCostOrder
from unveil.training.step.batches import Batch, step_generator
from unveil.training.step.stepper import Part, Stepper
from unveil.training.step.training_model import NextCost

_WALK_STREAM = 2**42

Foresee = Callable[..., NextCost]
"""Clean tokens and what is hidden of them [A, L], lengths [A], and by name the `ranks` [A, L] of a network that reads
them -> what there is to see: a `TrainingModule`."""


class Canvases(NamedTuple):
    """True rows [B, L], what is hidden of them [B, L], their lengths [B]."""

    x: Tensor
    hidden: Tensor
    lengths: Tensor

    def at(self, index: Tensor) -> "Canvases":
        return Canvases(*(part[index] for part in self))


class Draws:
    """The chance in the walks of one step. Every process draws it for the global batch, and takes that of its own rows,
    so that it does not matter how many processes there are."""

    def __init__(self, generator: torch.Generator, hidden: Tensor, *, own: slice, device: torch.device) -> None:
        """`hidden` [N, L] bool is what the walks of the global batch start with, of which a part has the `own` rows."""
        self._generator, self._shape, self._own, self._device = generator, hidden.shape, own, device
        self._num_noises = 0
        self.num_hidden = hidden.sum(-1)  # [N]

    def uniforms(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """In [0, 1), [N, *shape] on the CPU: of all rows."""
        return torch.rand((len(self.num_hidden), *shape), generator=self._generator, dtype=dtype)

    def noise(self) -> Tensor:
        """Gumbel noise of one step for the own rows, [B, L] float64."""
        self._num_noises += 1
        return self.own(gumbel_noise(self._shape, self._generator))

    def own(self, values: Tensor) -> Tensor:
        """What `values` [N, ...] are for the own rows, on their device."""
        return values[self._own].to(self._device)

    def skip_to(self, num_noises: int) -> None:
        """Goes on to where a process has drawn so many noises, which the rows of another may have needed."""
        while self._num_noises < num_noises:
            self.noise()


class WalkStepper(Stepper):
    """Takes steps whose rows are walked, each by the law of the order itself."""

    def _begin(self, batch: Batch, own: slice, step: int) -> tuple[Canvases, Tensor, Draws]:
        """The own rows of a step, which of them take random orders [B], and the chance in their walks."""
        mine = batch.cut(own, self._device)
        generator = step_generator(self._recipe.seed, _WALK_STREAM + step)
        draws = Draws(generator, ~batch.draws.known, own=own, device=self._device)
        return Canvases(mine.rows.x, ~mine.draws.known, mine.rows.lengths), mine.draws.uniform_rows, draws


class NextCostStepper(WalkStepper):
    """Takes steps of whole walks. `optimizer.batch_size` counts rows, each of which is walked to its end."""

    def _part(self, batch: Batch, own: slice, step: int) -> Part:
        """See `Stepper._part`."""
        canvases, is_uniform, draws = self._begin(batch, own, step)
        order = self._recipe.order
        assert isinstance(order, NextCostOrder)
        states = list(walk_to_the_end(self._module, canvases, stride=order.stride, draws=draws, is_uniform=is_uniform))
        error, nats, entropy = (torch.cat(values).double().sum() for values in zip(*states, strict=True))
        num_rows = torch.tensor(len(canvases.x), dtype=torch.float64, device=self._device)
        sums = {"nelbo": nats, "policy_entropy": entropy, "num_nelbo": num_rows, "num_policy_entropy": num_rows}
        return Part(error * self._num_parts / int(draws.num_hidden.sum()), sums)


class State(NamedTuple):
    """One state of all walks that still go on, each [A]: the head's error (its mean over what is hidden, for each
    position that is revealed), the nats of what is revealed, the entropy of the choice for each position that is."""

    error: Tensor
    nats: Tensor
    entropy: Tensor


class View(NamedTuple):
    """What there is to see of canvases, [A, L] each: what every position costs, the logarithm of what the head expects
    it to cost, the whole cost that decides, and the law's log-weights by it, float64, without gradient."""

    losses: Tensor
    log_m: Tensor
    cost: Tensor
    law: Tensor

    def at(self, index: Tensor) -> "View":
        return View(*(part[index] for part in self))


def view(foresee: Foresee, canvases: Canvases, *, ranks: Tensor | None = None) -> View:
    """One forward of every row; `ranks` [B, L] for a network that reads them."""
    seen = foresee(*canvases) if ranks is None else foresee(*canvases, ranks=ranks)
    return View(*seen, law=(-SHARPNESS * seen.cost.detach()).double())


def top_positions(keys: Tensor, hidden: Tensor, count: int) -> Tensor:
    """Of what is hidden the `count` positions with the largest keys, or all if there are fewer: [A, L] bool."""
    ranks = keys.masked_fill(~hidden, -torch.inf).argsort(-1, descending=True).argsort(-1)
    return hidden & (ranks < count)


def walk_by_law(
    foresee: Foresee,
    canvases: Canvases,
    hidden: Tensor,
    *,
    stride: int,
    noise: Callable[[], Tensor] | None = None,
    is_uniform: Tensor | None = None,
    stop: Tensor | None = None,
) -> Iterator[Step[View]]:
    """Walks true rows by the law of the order itself, `stride` positions a forward. Changes `hidden` [B, L].

    `noise` gives the Gumbel noise [B, L] of a step; without it the law's likeliest positions come next. Rows that are
    `is_uniform` [B] take random orders. `stop`: see `training.evaluation.walks.walk`.
    """

    is_ranked = getattr(foresee, "reads_ranks", False)

    def see(rows: Tensor, unseen: Tensor, ranks: Tensor) -> View:
        part = Canvases(canvases.x[rows], unseen, canvases.lengths[rows])
        return view(foresee, part, ranks=ranks if is_ranked else None)

    def take(seen: View, free: Tensor, rows: Tensor, _: int) -> Tensor:
        law = seen.law if is_uniform is None else seen.law.masked_fill(is_uniform[rows, None], 0.0)
        return top_positions(law if noise is None else law + noise()[rows], free, stride)

    return walk(hidden, see=see, take=take, stop=stop)


def walk_to_the_end(
    foresee: Foresee, canvases: Canvases, *, stride: int, draws: Draws, is_uniform: Tensor
) -> Iterator[State]:
    """Walks true rows until nothing is hidden, and says what the head learns from, state by state.

    With a stride of 1 the nats of all states, summed, are an unbiased estimate of the rows' NELBO under the law.
    """
    steps = walk_by_law(
        foresee, canvases, canvases.hidden.clone(), stride=stride, noise=draws.noise, is_uniform=is_uniform
    )
    for step in steps:
        count = step.taken.sum(-1)
        yield State(
            error=mean_error(step.seen, step.hidden) * count,
            nats=(step.seen.losses * step.taken).double().sum(-1),
            entropy=choice_entropy(step.seen.law, step.hidden) * count,
        )


def mean_error(seen: View, hidden: Tensor) -> Tensor:
    """The head's error about single positions, its mean over what is hidden: [A]."""
    return (next_cost_error(seen.log_m, seen.losses) * hidden).sum(-1) / hidden.sum(-1).clamp(min=1)


def next_cost_error(log_m: Tensor, nats: Tensor) -> Tensor:
    """`m - y log m`: least, in the mean over y, where m is the mean of y."""
    return log_m.exp() - nats * log_m


def choice_entropy(law: Tensor, hidden: Tensor) -> Tensor:
    """Of the next position by log-weights [A, L], in nats: [A]."""
    log_pi = next_log_probs(law, hidden).masked_fill(~hidden, 0.0)
    return -(log_pi.exp() * hidden * log_pi).sum(-1)
