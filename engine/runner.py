"""Models in memory, warm and checked: what the worker steps with."""

from collections.abc import Iterator, Sequence

import torch

from unveil.engine.catalog import Source
from unveil.engine.messages import Loaded
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.sampler import StepResult, order_probabilities, step
from unveil.model.decoding.scoring import ScoreResult, score_step
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import CPU_ROWS, FixedShapes, fixed_shapes


class Runner:
    """One model, ready to step. Satisfies `engine.worker.Runner`."""

    def __init__(self, denoiser: FixedShapes, *, weights_version: str, device: torch.device) -> None:
        self.denoiser = denoiser
        self._device = device
        self.weights_version = weights_version

    @property
    def num_positions(self) -> int:
        return self.denoiser.num_positions

    def bucket(self, length: int) -> int:
        return self.denoiser.bucket(length)

    def largest(self, bucket: int) -> int:
        return self.denoiser.sizes[bucket][-1]

    def step(self, canvases: Sequence[Canvas]) -> list[StepResult]:
        return step(self.denoiser, canvases, device=self._device)

    def rank(self, canvas: Canvas) -> list[tuple[int, float]]:
        return order_probabilities(self.denoiser, canvas, device=self._device)

    def score(self, chains: Sequence[Chain]) -> list[ScoreResult]:
        return score_step(self.denoiser, chains, device=self._device)


def load_models(
    sources: Sequence[Source], *, max_batch: int, device: str = "auto", threads: int = 1
) -> Iterator[tuple[Loaded, Runner]]:
    """Loads, checks and warms one model after the other. To be run in the thread that will step them.

    Raises ArtifactError for a damaged artifact.
    """
    torch.set_num_threads(threads)
    place = torch.device(pick_device(device))
    for source in sources:
        artifact = load_artifact(source.folder)
        stages = prepare(artifact.denoiser.to(place))
        most = CPU_ROWS if artifact.denoiser.is_one_by_one and place.type == "cpu" else max_batch
        denoiser, is_deterministic = fixed_shapes(stages, artifact.manifest.architecture, min(most, max_batch), place)
        version = artifact.manifest.weights_sha256
        loaded = Loaded(source.name, version, str(place), is_deterministic)
        yield loaded, Runner(denoiser, weights_version=version, device=place)


def pick_device(device: str) -> str:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
