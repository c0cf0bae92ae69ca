"""Canvases of a table to finished ones, many at once and in their order. Knows no file, no prompt and no column.

The same noise and the same fixed shapes as the service has, so a seed gives what it gives over HTTP. Canvases that look
alike (all of them at their first step, where no prompt is given) share one row of the forward.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from model.artifact import load_artifact
from model.canvas import Canvas, Reveal
from model.denoiser import Barring, Denoiser, Prediction
from model.sampler import step
from service.engine_models import fixed_shapes, pick_device

_MAX_BATCH = 64
_LARGEST_WINDOW = 1024
_CELLS_AT_ONCE = 2_000_000  # logits held in memory at a time


@dataclass(frozen=True)
class Finished:
    """A canvas at its end, and every reveal by position."""

    canvas: Canvas
    reveals: Mapping[int, Reveal]


class Decoder:
    """A table's network, ready to decode. Raises ArtifactError for a damaged artifact."""

    def __init__(self, folder: Path, *, barred: Mapping[int, int] | None = None) -> None:
        torch.set_num_threads(1)
        artifact = load_artifact(folder)
        self._device = torch.device(pick_device("auto"))
        network: Denoiser = artifact.denoiser.to(self._device)
        architecture = artifact.manifest.architecture
        if barred:
            network = Barring(network, barred)
        self._denoise = _Shared(fixed_shapes(network, architecture, _MAX_BATCH, self._device)[0])
        width = max(architecture.vocabulary_sizes) * architecture.length
        self._window = max(min(_CELLS_AT_ONCE // width, _LARGEST_WINDOW), 1)

    def decode(self, canvases: Iterable[Canvas]) -> Iterator[Finished]:
        """Each canvas finished, in the order given; only a window of them is in memory."""
        waiting = iter(canvases)
        while window := list(islice(waiting, self._window)):
            yield from self._finish(window)

    def _finish(self, window: Sequence[Canvas]) -> list[Finished]:
        current = list(window)
        reveals: list[dict[int, Reveal]] = [{} for _ in current]
        while pending := [i for i, canvas in enumerate(current) if not canvas.is_complete]:
            results = step(self._denoise, [current[i] for i in pending], device=self._device)
            for i, result in zip(pending, results, strict=True):
                current[i] = result.canvas
                reveals[i].update((reveal.position, reveal) for reveal in result.reveals)
        return [Finished(canvas, found) for canvas, found in zip(current, reveals, strict=True)]


class _Shared:
    """A denoiser that computes equal rows once. Its rows must not depend on their neighbours."""

    def __init__(self, denoise: Denoiser) -> None:
        self._denoise = denoise

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`; rows of a table are all of one length."""
        looks = tokens.masked_fill(hidden, -1)
        _, row_of = torch.unique(looks, dim=0, return_inverse=True)
        first = torch.empty(int(row_of.max()) + 1, dtype=torch.int64, device=tokens.device)
        first[row_of] = torch.arange(len(tokens), device=tokens.device)
        logits, order_logits = self._denoise(tokens[first], hidden[first], lengths[first])
        return Prediction(logits[row_of], order_logits[row_of])
