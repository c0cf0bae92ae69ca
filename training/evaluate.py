"""How good a denoiser is under an order: NELBO, exact log-likelihood, prompts, imputation. Knows no file and no recipe.

Every figure is a mean over rows of one split with its standard error, in nats a row. Two models, or two orders, are
compared on the same rows with the same noise, so their difference is paired.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.denoiser import Denoiser, cross_entropy
from model.orders import deterministic_order, gumbel_noise, plackett_luce_order

BATCH_ROWS = 512
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Rows:
    """Clean canvases: ids [N, L] and lengths [N]; positions from a row's length on are padding."""

    x: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def padding(self) -> Tensor:
        return torch.arange(self.x.shape[1], device=self.x.device) >= self.lengths[:, None]

    def batches(self, *others: Tensor, size: int = BATCH_ROWS) -> Iterator[tuple["Rows", tuple[Tensor, ...]]]:
        for start in range(0, len(self), size):
            cut = slice(start, start + size)
            yield Rows(self.x[cut], self.lengths[cut]), tuple(other[cut] for other in others)


@dataclass(frozen=True)
class Estimate:
    """A mean over rows and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        values = values.double()
        error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(float("nan"))
        return cls(float(values.mean()), float(error))

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.standard_error:.4f}"


def as_rows(ids: NDArray[np.int64], lengths: NDArray[np.int64] | None = None, *, limit: int | None = None) -> Rows:
    """A split of a dataset as tensors; the first `limit` rows of it."""
    x = torch.from_numpy(np.ascontiguousarray(ids[:limit]))
    full = torch.full((len(x),), x.shape[1])
    return Rows(x, full if lengths is None else torch.from_numpy(np.ascontiguousarray(lengths[:limit])))


def known_sets(rows: Rows, *, seed: int) -> Tensor:
    """A random known set a row, |C| ~ U{0..n-1} and C uniform given its size: [N, L] bool, padding not in it."""
    generator = torch.Generator().manual_seed(seed)
    n = rows.lengths
    sizes = (torch.rand(len(rows), generator=generator, dtype=torch.float64) * n).long().clamp(max=n.max())
    scores = torch.rand(rows.x.shape, generator=generator).masked_fill(rows.padding, 2.0)
    return scores.argsort(-1).argsort(-1) < sizes[:, None]


@torch.inference_mode()
def nelbo(
    denoise: Denoiser,
    rows: Rows,
    log_w: Tensor,
    *,
    seed: int,
    known: Tensor | None = None,
    advance: Advance | None = None,
) -> Tensor:
    """An unbiased estimate of each row's NELBO under Plackett-Luce(log_w), in nats: [N] float64.

    One order is drawn a row, and the row is scored exactly along it, in L forwards. (Summing the next position out at
    every prefix would be unbiased too, and far noisier: what a position costs whatever is known would be counted a
    random number of times instead of once.) The order depends on `seed` alone through its noise, so two laws share
    their random numbers. With `known` [N, L] the bound is of the rest given what is known.
    """
    noise = gumbel_noise(rows.x.shape, torch.Generator().manual_seed(seed))
    known = torch.zeros_like(rows.padding) if known is None else known
    values = [
        _along_order(denoise, batch, plackett_luce_order(log_w, z, given), given.sum(-1), advance)
        for batch, (z, given) in rows.batches(noise, known | rows.padding)
    ]
    return torch.cat(values)


@torch.inference_mode()
def log_likelihood(denoise: Denoiser, rows: Rows, order: Sequence[int], *, advance: Advance | None = None) -> Tensor:
    """Each row's exact log-likelihood when positions are revealed in this very order: [N] float64, nats, L forwards."""
    log_w = torch.empty(len(order)).index_copy_(0, torch.tensor(order), -torch.arange(len(order)).float())
    values = [
        -_along_order(denoise, batch, deterministic_order(log_w.expand(batch.x.shape), batch.padding), given, advance)
        for batch, (given,) in rows.batches(rows.padding.sum(-1))
    ]
    return torch.cat(values)


@torch.inference_mode()
def imputation_accuracy(denoise: Denoiser, rows: Rows) -> Tensor:
    """Share of rows whose likeliest id is right when one position alone is hidden: [L] float64."""
    hits = torch.zeros(rows.x.shape[1], dtype=torch.float64)
    for batch, _ in rows.batches():
        for position in range(rows.x.shape[1]):
            hidden = torch.zeros_like(batch.padding)
            hidden[:, position] = True
            logits = denoise(batch.x, hidden, batch.lengths).token_logits[:, position]
            hits[position] += (logits.argmax(-1) == batch.x[:, position]).sum()
    return hits / len(rows)


def num_forwards(rows: Rows, *, chains: int) -> int:
    """Row-forwards that so many calls of `nelbo` or `log_likelihood` take, for a progress bar."""
    return chains * len(rows) * rows.x.shape[1]


def _along_order(denoise: Denoiser, batch: Rows, sigma: Tensor, num_given: Tensor, advance: Advance | None) -> Tensor:
    """`sum_k CE(sigma_k | sigma_<k)` from the `num_given` [B] first positions of sigma [B, L] on: [B] float64."""
    ranks = sigma.argsort(-1)  # [B, L]
    total = torch.zeros(len(batch), dtype=torch.float64)
    for k in range(batch.x.shape[1]):
        active = num_given + k < batch.x.shape[1]
        if bool(active.any()):
            part = Rows(batch.x[active], batch.lengths[active])
            visible = (num_given + k)[active, None]
            loss = _losses(denoise, part, ranks[active] >= visible)
            total[active] += loss.gather(1, sigma[active].gather(1, visible)).squeeze(-1).double()
        if advance is not None:
            advance(len(batch))
    return total


def _losses(denoise: Denoiser, rows: Rows, hidden: Tensor) -> Tensor:
    return cross_entropy(denoise(rows.x, hidden, rows.lengths).token_logits, rows.x)
