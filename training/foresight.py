"""Learns to foresee what reveals cost, on the order's own prefixes, for a denoiser that stays as it is. No file.

Rows are walked from their clues to the end as the sampler would, by the law of the order itself, but along their true
values. At every state of a walk the head (`model.order_heads.ForesightHead`) says what it expects each hidden position
to cost, and learns what it does cost: all hidden positions teach, not the chosen one alone. With m the expected nats
and y the true ones the loss is `m - y log m`, least where m is the mean of y; its gradient for `log m` is `m - y`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from model.denoiser import cross_entropy
from model.network import Network
from model.order_heads import ForesightHead
from model.orders import gumbel_noise, next_log_probs
from training.batches import Batch, draw_batch, step_generator
from training.stepper import Stepper, TrainingError
from training.walks import Step, walk

_WALK_STREAM = 2**42


class Canvases(NamedTuple):
    """True rows [B, L], what is hidden of them [B, L], their lengths [B]."""

    x: Tensor
    hidden: Tensor
    lengths: Tensor

    def at(self, index: Tensor) -> "Canvases":
        return Canvases(*(part[index] for part in self))


class ForesightStepper(Stepper):
    """Takes steps of whole walks. `optimizer.batch_size` counts rows, each of which is walked to its end."""

    def take(self, step: int) -> Mapping[str, Tensor]:
        """See `Stepper.take`. Raises TrainingError."""
        batch, generator = self._begin(step)
        canvases = Canvases(batch.rows.x, ~batch.draws.known, batch.rows.lengths)
        states = list(
            walk_to_the_end(
                self._arm.denoiser,
                canvases,
                stride=self._recipe.order.stride,
                generator=generator,
                is_uniform=batch.draws.uniform_rows,
            )
        )
        error, nats, entropy = (torch.cat(parts).double().sum() for parts in zip(*states, strict=True))
        loss = error / canvases.hidden.sum()
        norm = self._update(loss, step)
        sums = {"nelbo": nats, "policy_entropy": entropy}
        num_rows = torch.tensor(len(canvases.x), dtype=torch.float64, device=self._device)
        figures = {"loss": loss.detach().double(), "gradient_norm": norm}
        return {**figures, **sums, **{f"num_{name}": num_rows for name in sums}}

    def _begin(self, step: int) -> tuple[Batch, torch.Generator]:
        """The step's rows on the device, and the source of its draws. Raises TrainingError."""
        if self._fabric.world_size > 1 or self._accumulate > 1:
            raise TrainingError("order.signal: walks run in one process, with optimizer.accumulate = 1")
        self._arm.train()
        self._set_rates(step)
        batch = draw_batch(self._rows, self._recipe, step=step, symmetries=self._symmetries)
        return batch.cut(slice(None), self._device), step_generator(self._recipe.seed, _WALK_STREAM + step)

    def _update(self, loss: Tensor, step: int) -> Tensor:
        """One update of the head; gives the gradient's norm. Raises TrainingError."""
        self._refuse_nonfinite(loss, "loss", step)
        self._fabric.backward(loss)
        norm = self._clip(step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._arm.follow(min(self._recipe.optimizer.ema_decay, (1 + step) / (10 + step)))
        return norm


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


def view(network: Network, canvases: Canvases) -> View:
    """One forward of every row; only the head's part of it keeps gradients."""
    head = network.order_head
    assert isinstance(head, ForesightHead)
    x, hidden, lengths = canvases
    with torch.no_grad():
        reading = network.read(x.masked_fill(hidden, 0), hidden, lengths)
        assert reading.token_logits is not None
        losses = cross_entropy(reading.token_logits, x)
    log_m, cost = head.foresee(reading)
    return View(losses, log_m, cost, head.log_weights(cost.detach()).double())


def foremost(keys: Tensor, hidden: Tensor, count: int) -> Tensor:
    """Of what is hidden the `count` positions with the largest keys, or all if there are fewer: [A, L] bool."""
    ranks = keys.masked_fill(~hidden, -torch.inf).argsort(-1, descending=True).argsort(-1)
    return hidden & (ranks < count)


def walk_by_law(
    network: Network,
    canvases: Canvases,
    hidden: Tensor,
    *,
    stride: int,
    noise: Callable[[], Tensor] | None = None,
    is_uniform: Tensor | None = None,
    stop: Tensor | None = None,
) -> Iterator[Step[View]]:
    """Walks true rows by the law of the network's own order, `stride` positions a forward. Changes `hidden` [B, L].

    `noise` gives the Gumbel noise [B, L] of a step; without it the law's likeliest positions come next. Rows that are
    `is_uniform` [B] take random orders. `stop`: see `training.walks.walk`.
    """

    def see(rows: Tensor, unseen: Tensor) -> View:
        return view(network, Canvases(canvases.x[rows], unseen, canvases.lengths[rows]))

    def take(seen: View, free: Tensor, rows: Tensor, _: int) -> Tensor:
        law = seen.law if is_uniform is None else seen.law.masked_fill(is_uniform[rows, None], 0.0)
        return foremost(law if noise is None else law + noise()[rows], free, stride)

    return walk(hidden, see=see, take=take, stop=stop)


def walk_to_the_end(
    network: Network, canvases: Canvases, *, stride: int, generator: torch.Generator, is_uniform: Tensor
) -> Iterator[State]:
    """Walks true rows until nothing is hidden, and says what the head learns from, state by state.

    With a stride of 1 the nats of all states, summed, are an unbiased estimate of the rows' NELBO under the law.
    """
    hidden = canvases.hidden.clone()
    noise = gumbel_steps(hidden, generator)
    for step in walk_by_law(network, canvases, hidden, stride=stride, noise=noise, is_uniform=is_uniform):
        count = step.taken.sum(-1)
        yield State(
            error=mean_error(step.seen, step.hidden) * count,
            nats=(step.seen.losses * step.taken).double().sum(-1),
            entropy=choice_entropy(step.seen.law, step.hidden) * count,
        )


def gumbel_steps(like: Tensor, generator: torch.Generator) -> Callable[[], Tensor]:
    """Fresh Gumbel noise in the shape of a tensor [B, L], on its device, at every call."""
    return lambda: gumbel_noise(like.shape, generator).to(like.device)


def mean_error(seen: View, hidden: Tensor) -> Tensor:
    """The head's error about single positions, its mean over what is hidden: [A]."""
    return (foresight_error(seen.log_m, seen.losses) * hidden).sum(-1) / hidden.sum(-1).clamp(min=1)


def foresight_error(log_m: Tensor, nats: Tensor) -> Tensor:
    """`m - y log m`: least, in the mean over y, where m is the mean of y."""
    return log_m.exp() - nats * log_m


def choice_entropy(law: Tensor, hidden: Tensor) -> Tensor:
    """Of the next position by log-weights [A, L], in nats: [A]."""
    log_pi = next_log_probs(law, hidden).masked_fill(~hidden, 0.0)
    return -(log_pi.exp() * hidden * log_pi).sum(-1)
