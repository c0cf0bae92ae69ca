"""Learns to foresee what reveals cost, on the order's own prefixes, for a denoiser that stays as it is. No file.

Rows are walked from their clues to the end as the sampler would, by the law of the order itself, but along their true
values. At every state of a walk the head (`model.order_heads.ForesightHead`) says what it expects each hidden position
to cost, and learns what it does cost: all hidden positions teach, not the chosen one alone. With m the expected nats
and y the true ones the loss is `m - y log m`, least where m is the mean of y; its gradient for `log m` is `m - y`.

A `CostToGoHead` learns besides what the walk still paid after each choice, by least squares (fitted Q iteration with
lambda-returns, here "traces"): the nats of the choice, then a mixture of what the walk did pay later and of what the
head expects of the state it came to. Nats are counted in excess of each position's control, which takes the same from
every order of a row and so leaves the choice alone, but not the noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.denoiser import cross_entropy
from model.network import Network
from model.order_heads import CostToGoHead, ForesightHead
from model.orders import gumbel_noise, next_log_probs
from training.batches import draw_batch, step_generator
from training.stepper import Stepper, TrainingError

_WALK_STREAM = 2**42
TRACE = 0.8  # of what is paid after a choice, the share that is taken from the walk itself, at every state anew


class ForesightStepper(Stepper):
    """Takes steps of whole walks. `optimizer.batch_size` counts rows, each of which is walked to its end."""

    def take(self, step: int) -> Mapping[str, Tensor]:
        """See `Stepper.take`. Raises TrainingError."""
        if self._fabric.world_size > 1 or self._accumulate > 1:
            raise TrainingError("order.signal: walks run in one process, with optimizer.accumulate = 1")
        self._arm.train()
        self._set_rates(step)
        batch = draw_batch(self._rows, self._recipe, step=step, symmetries=self._symmetries)
        batch = batch.cut(slice(None), self._device)
        generator = step_generator(self._recipe.seed, _WALK_STREAM + step)
        network, stride = self._arm.denoiser, self._recipe.order.stride
        x, is_uniform = batch.rows.x, batch.draws.uniform_rows
        canvases = Canvases(x, ~batch.draws.known, batch.rows.lengths, self._arm.control(x))
        states = list(walk(network, canvases, stride=stride, generator=generator, is_uniform=is_uniform))
        nats, entropies = _sum([s.nats for s in states]), _sum([s.entropy for s in states])
        rows = torch.tensor(len(batch.rows), dtype=torch.float64, device=self._device)
        error = _sum([s.error for s in states])
        if isinstance(network.order_head, CostToGoHead):
            error = error + _sum(cost_errors(states, is_uniform=is_uniform))
        loss = error / canvases.hidden.sum()
        self._refuse_nonfinite(loss, "loss", step)
        self._fabric.backward(loss)
        norm = self._clip(step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._arm.follow(min(self._recipe.optimizer.ema_decay, (1 + step) / (10 + step)))
        figures = {"loss": loss.detach().double(), "gradient_norm": norm}
        return {**figures, "nelbo": nats, "num_nelbo": rows, "policy_entropy": entropies, "num_policy_entropy": rows}


class Canvases(NamedTuple):
    """True rows [B, L], what is hidden of them [B, L], their lengths [B] and each position's control [B, L] in nats."""

    x: Tensor
    hidden: Tensor
    lengths: Tensor
    control: Tensor

    def at(self, index: Tensor) -> "Canvases":
        return Canvases(*(part[index] for part in self))


class State(NamedTuple):
    """One state of all walks that still go on: which rows these are [A], and of each the head's error (its mean over
    what is hidden, for each position that is revealed), the nats of what is revealed, the entropy of the choice for
    each position that is, those nats in excess of the control, and what the head expected the rest of the walk to pay
    beyond the control: from the `chosen` positions on (their mean), and of the law's choice."""

    rows: Tensor
    error: Tensor
    nats: Tensor
    entropy: Tensor
    excess: Tensor
    chosen: Tensor
    expected: Tensor


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
        part = canvases._replace(hidden=hidden).at(active)
        taken, state = _look(network, part, noise, is_uniform[active], stride)
        yield state._replace(rows=active)
        hidden[active] = part.hidden & ~taken


def _look(network: Network, canvases: Canvases, noise: Tensor, is_uniform: Tensor, stride: int) -> tuple[Tensor, State]:
    """One forward of every row: which positions [A, L] are revealed next, and what there is to learn."""
    head = network.order_head
    assert isinstance(head, ForesightHead)
    x, hidden, lengths, control = canvases
    with torch.no_grad():
        states, logits = network.read(x.masked_fill(hidden, 0), hidden, lengths)
        losses = cross_entropy(logits, x)
    log_m, cost = head.foresee(states, logits, lengths)
    law = head.log_weights(cost.detach()).double()
    taken = hidden & (
        (law.masked_fill(is_uniform[:, None], 0.0) + noise).argsort(-1, descending=True).argsort(-1) < stride
    )
    log_pi = next_log_probs(law, hidden).masked_fill(~hidden, 0.0)
    pi, count = log_pi.exp() * hidden, taken.sum(-1)
    error = (foresight_error(log_m, losses) * hidden).sum(-1) / hidden.sum(-1)
    return taken, State(
        rows=torch.arange(len(x), device=x.device),
        error=error * count,
        nats=(losses * taken).double().sum(-1),
        entropy=-(pi * log_pi).sum(-1) * count,
        excess=((losses - control) * taken).double().sum(-1),
        chosen=(cost * taken).sum(-1) / count,
        expected=(pi * cost.detach()).sum(-1),
    )


def foresight_error(log_m: Tensor, nats: Tensor) -> Tensor:
    """`m - y log m`: least, in the mean over y, where m is the mean of y."""
    return log_m.exp() - nats * log_m


def cost_errors(states: Sequence[State], *, is_uniform: Tensor) -> list[Tensor]:
    """Of every state [A], the squared error of what was expected from the choice on, in squared nats.

    What a row that is `is_uniform` [B] paid later says nothing of the law: there the head's own expectation is taken.
    """
    paid = expected = torch.zeros(len(is_uniform), dtype=torch.float64, device=is_uniform.device)
    trace = (~is_uniform).double() * TRACE
    errors = []
    for state in reversed(states):
        share, later = trace[state.rows], paid[state.rows]
        target = state.excess + share * later + (1 - share) * expected[state.rows]
        errors.append((state.chosen - target).square())
        paid = paid.index_copy(0, state.rows, target)
        expected = expected.index_copy(0, state.rows, state.expected.double())
    return errors


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)).double().sum()
