"""The figures of a trained model on one split: what `unveil evaluate` prints and the model card shows. Knows no file.

Controls always stand beside the learned order: the uniform and the reversed law on the same net, and the exact
log-likelihood under the likeliest learned order, its reverse and left to right.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from model.denoiser import Denoiser
from model.orders import deterministic_order
from model.transformer import Transformer
from training.data.dataset import Dataset
from training.evaluate import (
    Advance,
    Estimate,
    Rows,
    as_rows,
    imputation_accuracy,
    known_sets,
    log_likelihood,
    nelbo,
)

EVALUATION_SEED = 2_511
CHAINS = 7  # what `evaluate_model` runs besides imputation, for a progress bar


def evaluate_model(
    denoiser: Transformer,
    dataset: Dataset,
    *,
    split: str = "test",
    limit: int | None = None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """All figures of a split's first `limit` rows, as JSON: nats a row, each with its standard error."""
    rows = as_rows(getattr(dataset, split), dataset.lengths.get(split), limit=limit)
    log_w = denoiser.order_head.global_log_w().detach()
    zero = torch.zeros_like(log_w)
    likeliest = deterministic_order(log_w).tolist()
    known = known_sets(rows, seed=EVALUATION_SEED)

    def bound(weights: torch.Tensor) -> dict[str, float]:
        return asdict(Estimate.of(nelbo(denoiser, rows, weights, seed=EVALUATION_SEED, advance=advance)))

    def exact(order: list[int]) -> dict[str, float]:
        return asdict(Estimate.of(log_likelihood(denoiser, rows, order, advance=advance)))

    return {
        "split": split,
        "rows": len(rows),
        "seed": EVALUATION_SEED,
        "nelbo": {"learned": bound(log_w), "uniform": bound(zero), "reversed": bound(-log_w)},
        "log_likelihood": {
            "learned": exact(likeliest),
            "reversed": exact(likeliest[::-1]),
            "left_to_right": exact(sorted(likeliest)),
        },
        "conditional": conditional_loss(denoiser, rows, known, advance=advance),
        **(_imputation(denoiser, dataset, rows) if dataset.tokenizer.domain == "table" else {}),
    }


def conditional_loss(
    denoise: Denoiser, rows: Rows, known: torch.Tensor, *, advance: Advance | None = None
) -> dict[str, float]:
    """NELBO of the rest given a random known set, under uniform orders, in nats a hidden position."""
    zero = torch.zeros(rows.x.shape[1])
    values = nelbo(denoise, rows, zero, seed=EVALUATION_SEED, known=known, advance=advance)
    return asdict(Estimate.of(values / (rows.lengths - known.sum(-1))))


def _imputation(denoise: Denoiser, dataset: Dataset, rows: Rows) -> dict[str, Any]:
    accuracy = imputation_accuracy(denoise, rows).tolist()
    commonest = [int(np.bincount(column).argmax()) for column in dataset.train.T]
    by_mode = (rows.x == torch.tensor(commonest)).double().mean(0).tolist()
    columns = zip(dataset.names, accuracy, by_mode, strict=True)
    return {"imputation": {name: {"accuracy": a, "commonest_level": m} for name, a, m in columns}}


def num_row_forwards(dataset: Dataset, *, split: str, limit: int | None) -> int:
    """What `advance` will be told in all."""
    num_rows = len(getattr(dataset, split)[:limit])
    return CHAINS * num_rows * int(dataset.train.shape[1])
