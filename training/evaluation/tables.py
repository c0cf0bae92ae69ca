"""Rows that a table's model generates: likeness to real rows, privacy, and agreement with what is scored. No file."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unveil.model.along.serving import decode
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.denoiser import Denoiser
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.consistency import GENERATED_ROWS, marginal_gaps
from unveil.training.evaluation.fidelity import fidelity
from unveil.training.evaluation.privacy import compare

MAX_ROWS = 1000  # real ones, and as many generated ones beside them
_DECODED_AT_ONCE = 250

Advance = Callable[[int], None]
Metrics = dict[str, Any]


def num_generated(dataset: Dataset, *, limit: int | None) -> int:
    """How many rows are generated; none where the comparisons would have nothing to say."""
    compared = num_compared(dataset, limit=limit)
    return 0 if compared == 0 else max(compared, min(GENERATED_ROWS, limit or GENERATED_ROWS))


def num_compared(dataset: Dataset, *, limit: int | None) -> int:
    """How many of them are set beside as many test rows."""
    if dataset.tokenizer.domain != "table" or len(dataset.test) < 2:
        return 0
    return min(len(dataset.test), MAX_ROWS, limit or MAX_ROWS)


def generated_metrics(
    denoise: Denoiser, dataset: Dataset, *, limit: int | None, seed: int, advance: Advance | None = None
) -> Metrics:
    """All figures of the same rows, as JSON; nothing where there is no held-out row to compare with. Rows are drawn one
    like the other, so the first of them are as good as any."""
    number = num_generated(dataset, limit=limit)
    if number == 0:
        return {}
    every = generate_rows(denoise, dataset.train.shape[1], number=number, seed=seed, advance=advance)
    generated = every[: num_compared(dataset, limit=limit)]
    return {
        "marginals": marginal_gaps(denoise, every, dataset, seed=seed),
        "fidelity": {"seed": seed, **fidelity(generated, dataset, seed=seed)},
        "privacy": {"seed": seed, **compare(generated, dataset, seed=seed)},
    }


@torch.inference_mode()
def generate_rows(denoise: Denoiser, length: int, *, number: int, seed: int, advance: Advance | None = None) -> Tensor:
    """Rows [number, L] as `unveil generate` draws them, in the learned order."""
    canvases = (
        Canvas.start((0,) * length, (True,) * length, seed=derive_seed(seed, 0, i), params=SamplingParams())
        for i in range(number)
    )
    decoded = decode(denoise, canvases, end_id=None, max_batch=_DECODED_AT_ONCE, on_step=advance)
    return torch.tensor([canvas.tokens for canvas, _ in decoded])
