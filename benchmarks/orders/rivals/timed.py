"""Training for so many CPU seconds: the same optimiser, schedule and batches for every network.

Muon for the matrices of blocks, AdamW for the rest, or AdamW alone; a short warm-up, then a cosine over the seconds;
averaged weights at the end. Clean rows of one length, shown as orders: a share from left to right, the others uniform,
and a share of either behind a prompt.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unveil.model.loss.objective import turns_of
from unveil.training.data.rows import Rows, known_sets, known_spans
from unveil.training.step.muon import Muon

_WARMUP, _LAST_RATE = 0.03, 0.02
Losses = Callable[[nn.Module, Rows, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Training:
    """`uniform`, `prompted`: shares of the rows; `spans`: of the prompted ones that know stretches."""

    seconds: float
    batch_size: int
    uniform: float
    prompted: float
    spans: float = 0.9
    matrix_rate: float = 0.02
    learning_rate: float = 3e-3
    ema_decay: float = 0.99
    seed: int = 0


def train_for(net: nn.Module, rows: Rows, losses: Losses, training: Training) -> tuple[nn.Module, int]:
    """The averaged network after `seconds` of this process's CPU time, and the number of its steps.

    `losses(net, batch, turns [B, L], generator)`: nats a row [B], in the turns of `model.loss.objective.turns_of`.
    """
    generator = torch.Generator().manual_seed(training.seed)
    average, optimizers = copy.deepcopy(net).requires_grad_(False), _optimizers(net, training)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    num_steps, start, used = 0, time.process_time(), 0.0
    while used < training.seconds:
        batch = rows.at(torch.randint(len(rows), (training.batch_size,), generator=generator)).widened()
        _set_rates(optimizers, peaks, used / training.seconds)
        loss = losses(net, batch, drawn_turns(batch, training, generator), generator).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(training.ema_decay, (1 + num_steps) / (10 + num_steps))
        with torch.no_grad():
            for averaged, own in zip(average.parameters(), net.parameters(), strict=True):
                averaged.lerp_(own, 1 - decay)
        num_steps += 1
        used = time.process_time() - start
    return average.eval(), num_steps


def drawn_turns(batch: Rows, training: Training, generator: torch.Generator) -> Tensor:
    """Turns [B, L] of a batch along drawn orders, 0 where a prompt knows."""
    B, L = batch.x.shape
    chance = torch.rand((3, B, 1), generator=generator)
    keys = torch.where(chance[0] < training.uniform, torch.rand((B, L), generator=generator), torch.arange(L) / L)
    seed = int(torch.randint(2**62, (), generator=generator))
    known = torch.where(chance[2] < training.spans, known_spans(batch, seed=seed), known_sets(batch, seed=seed + 1))
    known = known & (chance[1] < training.prompted)
    return turns(keys, known, batch)


def turns(keys: Tensor, known: Tensor, batch: Rows) -> Tensor:
    """Of rows along `keys` [B, L], the smallest first, with `known` [B, L] from the start."""
    ranks = keys.masked_fill(known, -torch.inf).argsort(-1).argsort(-1) + 1 - known.sum(-1, keepdim=True)
    return turns_of(ranks.masked_fill(known, 0), batch.x, end_id=batch.end_id)


def _optimizers(net: nn.Module, training: Training) -> list[torch.optim.Optimizer]:
    named = [(name, own) for name, own in net.named_parameters() if own.requires_grad]
    is_block = [own.ndim == 2 and "blocks." in name and name.endswith("weight") for name, own in named]
    blocks = [own for (_, own), of_block in zip(named, is_block, strict=True) if of_block]
    others = [own for (_, own), of_block in zip(named, is_block, strict=True) if not of_block]
    adamw = {"lr": training.learning_rate, "betas": (0.9, 0.98), "weight_decay": 0.0}
    if not training.matrix_rate:
        return [torch.optim.AdamW([*blocks, *others], **adamw)]  # type: ignore[arg-type]
    return [Muon([{"params": blocks, "lr": training.matrix_rate}]), torch.optim.AdamW(others, **adamw)]  # type: ignore[arg-type]


def _set_rates(optimizers: list[torch.optim.Optimizer], peaks: list[list[float]], progress: float) -> None:
    share = min(1.0, progress / _WARMUP) * (_LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2)
    for optimizer, own in zip(optimizers, peaks, strict=True):
        for group, peak in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = share * peak
