"""Learns to foresee what each reveal costs, on the order's own prefixes, for a denoiser that stays as it is. No file.

Rows are walked from their clues to the end as the sampler would, by the law of the order itself, but along their true
values. At every state of a walk the head (`model.order_heads.ForesightHead`) says what it expects each hidden position
to cost, and learns what it does cost: all hidden positions teach, not the chosen one alone. With m the expected nats
and y the true ones the loss is `m - y log m`, least where m is the mean of y; its gradient for `log m` is `m - y`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from model.denoiser import cross_entropy
from model.network import Network
from model.order_heads import ForesightHead
from model.orders import gumbel_noise, next_log_probs
from training.batches import draw_batch, step_generator
from training.stepper import Stepper, TrainingError

_WALK_STREAM = 2**42


class ForesightStepper(Stepper):
    """Takes steps of whole walks. `optimizer.batch_size` counts rows, each of which is walked to its end."""

    def take(self, step: int) -> Mapping[str, Tensor]:
        """See `Stepper.take`. Raises TrainingError."""
        if self._fabric.world_size > 1 or self._accumulate > 1:
            raise TrainingError("order.signal: foresight runs in one process, with optimizer.accumulate = 1")
        self._arm.train()
        self._set_rates(step)
        batch = draw_batch(self._rows, self._recipe, step=step, symmetries=self._symmetries)
        batch = batch.cut(slice(None), self._device)
        generator = step_generator(self._recipe.seed, _WALK_STREAM + step)
        network, stride = self._arm.denoiser, self._recipe.order.stride
        canvases = Canvases(batch.rows.x, ~batch.draws.known, batch.rows.lengths)
        states = walk(network, canvases, stride=stride, generator=generator, is_uniform=batch.draws.uniform_rows)
        errors, nats, entropies = (torch.stack(parts).sum() for parts in zip(*states, strict=True))
        rows = torch.tensor(len(batch.rows), dtype=torch.float64, device=self._device)
        loss = errors / canvases.hidden.sum()
        self._refuse_nonfinite(loss, "loss", step)
        self._fabric.backward(loss)
        norm = self._clip(step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._arm.follow(min(self._recipe.optimizer.ema_decay, (1 + step) / (10 + step)))
        figures = {"loss": loss.detach().double(), "gradient_norm": norm}
        return {**figures, "nelbo": nats, "num_nelbo": rows, "policy_entropy": entropies, "num_policy_entropy": rows}


class Canvases(NamedTuple):
    """True rows [B, L], what is hidden of them [B, L] and their lengths [B]."""

    x: Tensor
    hidden: Tensor
    lengths: Tensor

    def at(self, index: Tensor) -> "Canvases":
        return Canvases(self.x[index], self.hidden[index], self.lengths[index])


class State(NamedTuple):
    """What one state of all walks adds up to: the head's error (its mean over what is hidden, for each position that is
    revealed), the nats of what is revealed, and the entropy of the choice for each position that is."""

    error: Tensor
    nats: Tensor
    entropy: Tensor


def walk(
    network: Network, canvases: Canvases, *, stride: int, generator: torch.Generator, is_uniform: Tensor
) -> Iterator[State]:
    """Walks true rows until nothing is hidden, `stride` positions a forward, by the law of the network's own order.

    Rows that are `is_uniform` [B] take random orders. With a stride of 1 the nats of all states, summed, are an
    unbiased estimate of the rows' NELBO under that law.
    """
    hidden = canvases.hidden.clone()
    while bool(hidden.any()):
        active = hidden.any(-1).nonzero().squeeze(-1)
        noise = gumbel_noise(hidden.shape, generator).to(hidden.device)[active]
        noise = noise.masked_fill(~hidden[active], -torch.inf)
        part = Canvases(canvases.x, hidden, canvases.lengths).at(active)
        taken, state = _look(network, part, noise, is_uniform[active], stride)
        yield state
        hidden[active] = part.hidden & ~taken


def _look(network: Network, canvases: Canvases, noise: Tensor, is_uniform: Tensor, stride: int) -> tuple[Tensor, State]:
    """One forward of every row: which positions [B, L] are revealed next, and what there is to learn."""
    head = network.order_head
    assert isinstance(head, ForesightHead)
    x, hidden, lengths = canvases
    with torch.no_grad():
        states, logits = network.read(x.masked_fill(hidden, 0), hidden, lengths)
        losses = cross_entropy(logits, x)
    log_m = head.log_loss(states, logits)
    rates = head.log_weights(log_m.detach()).masked_fill(is_uniform[:, None], 0.0).double()
    taken = hidden & ((rates + noise).argsort(-1, descending=True).argsort(-1) < stride)
    log_pi = next_log_probs(rates, hidden).masked_fill(~hidden, 0.0)
    error = (foresight_error(log_m, losses) * hidden).sum(-1) / hidden.sum(-1)
    entropy = -(log_pi.exp() * log_pi * hidden).sum(-1)
    count = taken.sum(-1)
    return taken, State((error * count).sum(), (losses * taken).double().sum(), (entropy * count).sum())


def foresight_error(log_m: Tensor, nats: Tensor) -> Tensor:
    """`m - y log m`: least, in the mean over y, where m is the mean of y."""
    return log_m.exp() - nats * log_m
