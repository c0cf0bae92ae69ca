"""Models in memory, warm and checked: what the worker steps with. Knows no request, no queue and no HTTP."""

from collections.abc import Iterator, Sequence

import torch

from model.artifact import load_artifact
from model.canvas import Canvas
from model.chain import Chain
from model.denoiser import Denoiser
from model.manifest import Architecture, ImportedArchitecture
from model.sampler import StepResult, order_probabilities, step
from model.scoring import ScoreResult, score_step
from service.catalog import Source
from service.engine_shapes import (
    FixedShapes,
    Inputs,
    agreeing_sizes,
    batch_sizes,
    length_buckets,
    random_inputs,
)
from service.engine_trace import Traced
from service.messages import Loaded

# On a CPU a forward over more positions gains nothing, and costs in warm-up: larger batches run in parts.
_CPU_POSITIONS, _CPU_ROWS, _RECORDED_POSITIONS = 2048, 4, 1024


class Runner:
    """One model, ready to step. Satisfies `service.engine_worker.Runner`."""

    def __init__(self, denoiser: FixedShapes, *, weights_version: str, device: torch.device) -> None:
        self.denoiser = denoiser
        self._device = device
        self.weights_version = weights_version

    @property
    def num_positions(self) -> int:
        return self.denoiser.num_positions

    def bucket(self, length: int) -> int:
        return self.denoiser.bucket(length)

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
        network = artifact.denoiser.to(place)
        denoiser, is_deterministic = fixed_shapes(network, artifact.manifest.architecture, max_batch, place)
        version = artifact.manifest.weights_sha256
        loaded = Loaded(source.name, version, str(place), is_deterministic)
        yield loaded, Runner(denoiser, weights_version=version, device=place)


def fixed_shapes(
    network: Denoiser, architecture: Architecture | ImportedArchitecture, max_batch: int, device: torch.device
) -> tuple[FixedShapes, bool]:
    """Runs every shape, which is the warm-up, and keeps those that agree; False where nothing does."""
    network = Traced(network)
    buckets = length_buckets(architecture.length, is_padded=architecture.is_padded)
    sizes: dict[int, tuple[int, ...]] = {}
    is_deterministic = True
    for shortest, bucket in zip((0, *buckets), buckets, strict=False):
        lowest = shortest + 1 if architecture.is_padded else bucket
        largest = max_batch if device.type != "cpu" else min(max_batch, max(_CPU_POSITIONS // bucket, _CPU_ROWS))
        inputs = random_inputs(
            largest, bucket, shortest=lowest, vocabulary_sizes=architecture.vocabulary_sizes, seed=bucket
        )
        inputs = type(inputs)(*(x.to(device) for x in inputs))
        if device.type == "cpu":
            _record(network, inputs, batch_sizes(largest))
        agreeing = agreeing_sizes(network, inputs, batch_sizes(largest))
        is_deterministic &= bool(agreeing)
        sizes[bucket] = agreeing or batch_sizes(largest)
    return FixedShapes(network, sizes=sizes), is_deterministic


def _record(network: Traced, inputs: Inputs, sizes: Sequence[int]) -> None:
    """Small sizes at this length, or those before the first that cannot be recorded. In large ones the arithmetic
    takes the time."""
    for size in sizes:
        if size * inputs.tokens.shape[1] > _RECORDED_POSITIONS or not network.record(
            *inputs.rows(torch.arange(size, device=inputs.tokens.device))
        ):
            return


def pick_device(device: str) -> str:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
