"""Learns to foresee what each reveal costs, on the order's own prefixes, for a denoiser that stays as it is. No file.

Rows are walked from their clues to the end as the sampler would, by the law of the order itself, but along their true
values. At every state of a walk the head (`model.order_heads.ForesightHead`) says what it expects each hidden position
to cost, and learns what it does cost: all hidden positions teach, not the chosen one alone. With m the expected nats
and y the true ones the loss is `m - y log m`, least where m is the mean of y; its gradient for `log m` is `m - y`.
"""

from collections.abc import Iterator, Mapping

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
        foreseen = list(
            walk(
                self._arm.denoiser,
                (batch.rows.x, ~batch.draws.known, batch.rows.lengths),
                stride=self._recipe.order.stride,
                generator=generator,
                is_uniform=batch.draws.uniform_rows,
            )
        )
        errors, nats, entropies = (torch.stack(parts).sum() for parts in zip(*foreseen, strict=True))
        num_hidden, rows = (~batch.draws.known).sum(), torch.tensor(len(batch.rows), dtype=torch.float64)
        loss = errors / num_hidden
        self._refuse_nonfinite(loss, "loss", step)
        self._fabric.backward(loss)
        norm = self._clip(step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._arm.follow(min(self._recipe.optimizer.ema_decay, (1 + step) / (10 + step)))
        figures = {"loss": loss.detach().double(), "gradient_norm": norm}
        return {**figures, "nelbo": nats, "num_nelbo": rows, "policy_entropy": entropies, "num_policy_entropy": rows}


def walk(
    network: Network,
    canvases: tuple[Tensor, Tensor, Tensor],
    *,
    stride: int,
    generator: torch.Generator,
    is_uniform: Tensor,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Walks true rows, hidden [B, L] at the start, `stride` positions a forward, until nothing is hidden.

    Gives of each state, summed over rows: the head's error (a mean over what is hidden, times what is revealed), the
    nats of what is revealed, and the entropy of the choice times their number. Rows that are `is_uniform` [B] take
    random orders.
    """
    x, hidden, lengths = canvases
    head = network.order_head
    assert isinstance(head, ForesightHead)
    hidden = hidden.clone()
    while bool(hidden.any()):
        active = hidden.any(-1).nonzero().squeeze(-1)
        clean, unseen = x[active], hidden[active]
        with torch.no_grad():
            states, logits = network.read(clean.masked_fill(unseen, 0), unseen, lengths[active])
            losses = cross_entropy(logits, clean)
        log_m = head.log_loss(states, logits)
        rates = head.log_weights(log_m.detach()).masked_fill(is_uniform[active, None], 0.0).double()
        noise = gumbel_noise(x.shape, generator).to(x.device)[active]
        ranks = (rates + noise).masked_fill(~unseen, -torch.inf).argsort(-1, descending=True).argsort(-1)
        taken = unseen & (ranks < stride)
        error = (log_m.exp() - losses * log_m).masked_fill(~unseen, 0.0).sum(-1) / unseen.sum(-1)
        log_pi = next_log_probs(rates, unseen).masked_fill(~unseen, 0.0)
        entropy = -(log_pi.exp() * log_pi).masked_fill(~unseen, 0.0).sum(-1)
        yield (
            (error * taken.sum(-1)).sum(),
            losses.masked_fill(~taken, 0.0).double().sum(),
            (entropy * taken.sum(-1)).sum(),
        )
        hidden[active] = unseen & ~taken
