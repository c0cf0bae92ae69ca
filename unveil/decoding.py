"""Canvases of a table to finished ones, many at once and in their order. Knows no file, no prompt and no column.

The same noise and the same fixed shapes as the service has, so a seed gives what it gives over HTTP.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from model.artifact import load_artifact
from model.canvas import Canvas, Reveal
from model.denoiser import Barring
from model.fixed_shapes import fixed_shapes
from model.networks import prepare
from model.sampler import step
from service.engine_models import pick_device

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
        stages = prepare(artifact.denoiser.to(self._device))
        architecture = artifact.manifest.architecture
        if barred:
            stages = Barring(stages, barred)
        self._denoise, _ = fixed_shapes(stages, architecture, _MAX_BATCH, self._device)
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
