"""Rows that a table's model generates, and what real rows say of them: likeness and privacy. Knows no file."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.canvas import Canvas, SamplingParams
from model.denoiser import Denoiser
from model.sampler import decode
from model.seeds import derive_seed
from training.data.dataset import Dataset
from training.fidelity import fidelity
from training.privacy import compare

MAX_ROWS = 1000  # generated, and as many real ones beside them
_DECODED_AT_ONCE = 250

Advance = Callable[[int], None]
Figures = dict[str, Any]


def num_generated(dataset: Dataset, *, limit: int | None) -> int:
    """How many rows are generated for the comparison; none where it would have nothing to say."""
    if dataset.tokenizer.domain != "table" or len(dataset.test) < 2:
        return 0
    return min(len(dataset.test), MAX_ROWS, limit or MAX_ROWS)


def generated_figures(
    denoise: Denoiser, dataset: Dataset, *, limit: int | None, seed: int, advance: Advance | None = None
) -> Figures:
    """Both figures of the same rows, as JSON; nothing where there is no held-out row to compare with."""
    number = num_generated(dataset, limit=limit)
    if number == 0:
        return {}
    generated = generate_rows(denoise, dataset.train.shape[1], number=number, seed=seed, advance=advance)
    return {
        "fidelity": {"seed": seed, **fidelity(generated, dataset, seed=seed)},
        "privacy": {"seed": seed, **compare(generated, dataset, seed=seed)},
    }


@torch.inference_mode()
def generate_rows(denoise: Denoiser, length: int, *, number: int, seed: int, advance: Advance | None = None) -> Tensor:
    """Rows [number, L] as `unveil generate` draws them, in the learned order."""
    canvases = [
        Canvas.start((0,) * length, (True,) * length, seed=derive_seed(seed, 0, i), params=SamplingParams())
        for i in range(number)
    ]
    rows = torch.zeros(number, length, dtype=torch.int64)
    for start in range(0, number, _DECODED_AT_ONCE):
        for step in decode(denoise, canvases[start : start + _DECODED_AT_ONCE]):
            if advance is not None:
                advance(1)
            if step.canvas.is_complete:
                rows[start + step.sample] = torch.tensor(step.canvas.tokens)
    return rows
