"""Models in memory, warm and checked: what the worker steps with."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from model.artifact import load_artifact
from model.canvas import Canvas
from model.chain import Chain
from model.denoiser import Denoiser, Stages, in_stages
from model.manifest import Architecture, ImportedArchitecture
from model.networks import prepare
from model.sampler import StepResult, order_probabilities, step
from model.scoring import ScoreResult, score_step
from service.catalog import Source
from service.engine_shapes import (
    FixedShapes,
    Inputs,
    agreeing_sizes,
    batch_sizes,
    bits,
    length_buckets,
    random_inputs,
)
from service.engine_trace import Traced
from service.messages import Loaded

# On a CPU a forward over more positions gains nothing, and costs in warm-up: larger batches run in parts. Nor do
# several rows where a network computes them one by one: they are taken a few at a time, so that a step is short.
_CPU_POSITIONS, _CPU_ROWS, _RECORDED_POSITIONS = 2048, 4, 1024
_FINISHED_POSITIONS, _FINISHED_CELLS = 1024, 8_000_000


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
        most = _CPU_ROWS if artifact.denoiser.is_one_by_one and place.type == "cpu" else max_batch
        denoiser, is_deterministic = fixed_shapes(stages, artifact.manifest.architecture, min(most, max_batch), place)
        version = artifact.manifest.weights_sha256
        loaded = Loaded(source.name, version, str(place), is_deterministic)
        yield loaded, Runner(denoiser, weights_version=version, device=place)


def fixed_shapes(
    network: Denoiser | Stages,
    architecture: Architecture | ImportedArchitecture,
    max_batch: int,
    device: torch.device,
) -> tuple[FixedShapes, bool]:
    """Runs every shape, which is the warm-up, and keeps those that agree; False where nothing does."""
    stages = Traced(in_stages(network))
    buckets = length_buckets(architecture.length, is_padded=architecture.is_padded)
    sizes: dict[int, tuple[int, ...]] = {}
    is_deterministic = True
    for shortest, bucket in zip((0, *buckets), buckets, strict=False):
        lowest = shortest + 1 if architecture.is_padded else bucket
        largest = max_batch if device.type != "cpu" else min(max_batch, max(_CPU_POSITIONS // bucket, _CPU_ROWS))
        inputs = random_inputs(
            largest, bucket, shortest=lowest, vocabulary_sizes=architecture.vocabulary_sizes, seed=bucket
        )
        inputs = Inputs(*(x.to(device) for x in inputs))
        if device.type == "cpu":
            _record(batch_sizes(largest), bucket, partial(_record_begin, stages, inputs))
        agreeing = agreeing_sizes(partial(_begin_bits, stages, inputs), largest, batch_sizes(largest))
        is_deterministic &= bool(agreeing)
        sizes[bucket] = agreeing or batch_sizes(largest)
    finish_sizes, agree = _finish_sizes(stages, inputs, max_batch, max(architecture.vocabulary_sizes))
    return FixedShapes(stages, sizes=sizes, finish_sizes=finish_sizes), is_deterministic and agree


def _record_begin(stages: Traced, inputs: Inputs, index: Tensor) -> bool:
    return stages.record_begin(*inputs.rows(index))


def _begin_bits(stages: Traced, inputs: Inputs, index: Tensor) -> Tensor:
    return bits(stages.begin(*inputs.rows(index.to(inputs.tokens.device))))


@torch.inference_mode()
def _finish_sizes(stages: Traced, inputs: Inputs, max_batch: int, V: int) -> tuple[tuple[int, ...], bool]:
    """The numbers of positions whose tokens are computed at once, checked on states of the longest canvases."""
    (B, L), device = inputs.tokens.shape, inputs.tokens.device
    largest = max(min(max_batch * L, _FINISHED_POSITIONS, _FINISHED_CELLS // V), _CPU_ROWS)
    states = torch.cat(
        [stages.begin(*inputs.rows(index)).states for index in torch.arange(B, device=device).chunk(-(-B // 4))]
    )
    places = torch.randperm(max(largest, B * L), generator=torch.Generator().manual_seed(L))[:largest] % (B * L)
    positions = (places % L).to(device)
    found = states.flatten(0, 1)[places.to(device)]  # [largest, S]
    if device.type == "cpu":
        _record(batch_sizes(largest), 1, lambda index: stages.record_finish(found[index], positions[index]))
    agreeing = agreeing_sizes(
        lambda index: stages.finish(found[index], positions[index]), largest, batch_sizes(largest)
    )
    return agreeing or batch_sizes(largest), bool(agreeing)


def _record(sizes: Sequence[int], length: int, record: Callable[[Tensor], bool]) -> None:
    """Small sizes, or those before the first that cannot be recorded. In large ones the arithmetic takes the time."""
    for size in sizes:
        if size * length > _RECORDED_POSITIONS or not record(torch.arange(size)):
            return


def pick_device(device: str) -> str:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
