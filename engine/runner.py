"""Models in memory, warm and checked: what the worker steps with."""

from collections.abc import Iterator, Sequence

import torch

from unveil.engine.catalog import Source
from unveil.engine.messages import Loaded
from unveil.model.artifact.folder import Artifact, load_artifact
from unveil.model.artifact.manifest import Manifest, read_manifest
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.sampler import StepResult, order_probabilities, step
from unveil.model.decoding.scoring import ScoreResult, score_step
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.denoiser import Stages
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import CPU_ROWS, FixedShapes, checked_shapes, unchecked_shapes


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
) -> Iterator[tuple[Loaded, Runner] | None]:
    """Loads, checks and warms one model after the other, the smallest first. None in between: others may have the
    thread. To be run in the thread that will step them.

    Raises ArtifactError for a damaged artifact.
    """
    torch.set_num_threads(threads)
    place = torch.device(pick_device(device))
    sizes = {source: _size(read_manifest(source.folder)) for source in sources}
    for source in sorted(sources, key=lambda source: sizes[source]):
        artifact = load_artifact(source.folder)
        yield None
        stages, most = _prepared(artifact, max_batch, place)
        denoiser, is_deterministic = yield from checked_shapes(stages, artifact.manifest.architecture, most, place)
        version = artifact.manifest.weights_sha256
        loaded = Loaded(source.name, version, str(place), is_deterministic)
        yield loaded, Runner(denoiser, weights_version=version, device=place)


def load_unchecked(source: Source, *, max_batch: int, device: str = "auto", threads: int = 1) -> tuple[str, Runner]:
    """One model and its device, for a process that will ask it for little: it computes the same, and checks a shape
    when it is first needed. Raises ArtifactError for a damaged artifact."""
    torch.set_num_threads(threads)
    place = torch.device(pick_device(device))
    artifact = load_artifact(source.folder)
    stages, most = _prepared(artifact, max_batch, place)
    denoiser = unchecked_shapes(stages, artifact.manifest.architecture, most, place)
    return str(place), Runner(denoiser, weights_version=artifact.manifest.weights_sha256, device=place)


def _prepared(artifact: Artifact, max_batch: int, place: torch.device) -> tuple[Stages, int]:
    """The network as it is served, and how many canvases one forward takes at most."""
    stages = prepare(artifact.denoiser.to(place))
    is_one_by_one = artifact.denoiser.is_one_by_one and place.type == "cpu"
    return stages, min(CPU_ROWS, max_batch) if is_one_by_one else max_batch


def _size(manifest: Manifest) -> int:
    """What a warm-up's time grows with, roughly."""
    return manifest.num_parameters * manifest.length


def pick_device(device: str) -> str:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
