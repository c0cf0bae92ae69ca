"""Models in memory, warm and checked: what the worker steps with."""

import sys
from collections.abc import Iterator, Sequence

import torch

from unveil.engine.catalog import Source
from unveil.engine.messages import Loaded
from unveil.engine.scheduler import Kind
from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.shapes import agreeing_shapes
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.batch import release
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.sampler import StepResult, order_probabilities, step
from unveil.model.decoding.scoring import ScoreResult, score_step
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.denoiser import Counts
from unveil.model.errors import UnveilError
from unveil.model.network.base import Network
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import CPU_ROWS, FixedShapes, fixed_shapes
from unveil.model.network.transformer import Transformer

CACHE_BYTES = 2**30
ROWS_A_CANVAS = 2  # of a batch: so many canvases keep what is computed of them while others are stepped


class Runner:
    """One model, ready to step. Satisfies `engine.worker.Runner`."""

    def __init__(self, denoiser: FixedShapes | AlongDenoiser, *, weights_version: str, device: torch.device) -> None:
        self.denoiser = denoiser
        self._device = device
        self.weights_version = weights_version

    def counts(self) -> Counts:
        return self.denoiser.counts

    @property
    def most(self) -> int:
        """How many canvases may be given to a step."""
        return self.denoiser.most if isinstance(self.denoiser, AlongDenoiser) else sys.maxsize

    def bucket(self, length: int) -> int:
        return self.denoiser.bucket(length)

    def largest(self, bucket: int, kind: Kind) -> int:
        if kind == "rank":  # each is a forward of its own
            return 1
        if isinstance(self.denoiser, FixedShapes):
            return self.denoiser.sizes[bucket][-1]
        return self.denoiser.most_scored if kind == "score" else self.denoiser.most

    def links(self, chain: Chain) -> Sequence[int] | None:
        if not isinstance(self.denoiser, FixedShapes) or self.denoiser.end_id is not None:
            return None  # what an end decides takes no step
        return chain.order_ahead()

    def release(self, canvases: Sequence[Canvas]) -> None:
        release(self.denoiser, canvases)

    def step(self, canvases: Sequence[Canvas]) -> list[StepResult]:
        if isinstance(self.denoiser, AlongDenoiser):
            return ahead.step(self.denoiser, canvases)
        return step(self.denoiser, canvases, device=self._device)

    def rank(self, canvas: Canvas) -> list[tuple[int, float]]:
        return order_probabilities(self.denoiser, canvas, device=self._device)

    def score(self, chains: Sequence[Chain]) -> list[ScoreResult]:
        return score_step(self.denoiser, chains, device=self._device)


def load_models(
    sources: Sequence[Source],
    *,
    max_batch: int,
    device: str = "auto",
    threads: int = 1,
    cache_bytes: int = CACHE_BYTES,
) -> Iterator[tuple[Loaded, Runner]]:
    """Loads, checks and warms one model after the other. To be run in the thread that will step them.

    `cache_bytes` is what the contents of canvases may take, of each model. Raises ArtifactError for a damaged artifact,
    UnveilError where that is too little for one canvas.
    """
    torch.set_num_threads(threads)
    place = torch.device(pick_device(device))
    for source in sources:
        artifact = load_artifact(source.folder)
        network = artifact.denoiser.to(place)
        most = CPU_ROWS if artifact.denoiser.is_one_by_one and place.type == "cpu" else max_batch
        denoiser, is_deterministic = _served(network, min(most, max_batch), place, cache_bytes, source.name)
        denoiser.end_id = artifact.tokenizer.end_id
        version = artifact.manifest.weights_sha256
        loaded = Loaded(source.name, version, str(place), is_deterministic)
        yield loaded, Runner(denoiser, weights_version=version, device=place)


def _served(
    network: Network, max_batch: int, device: torch.device, cache_bytes: int, name: str
) -> tuple[FixedShapes | AlongDenoiser, bool]:
    if isinstance(network, Transformer) and network.architecture.attends == "earlier":
        network.requires_grad_(False)
        along = Along(network)
        max_rows = min(cache_bytes // along.size.num_bytes, ROWS_A_CANVAS * max_batch)
        if max_rows < 1:
            raise UnveilError(f"cache_bytes: {cache_bytes}, but one canvas of {name} takes {along.size.num_bytes}")
        shapes, is_deterministic = agreeing_shapes(along, min(max_batch, max_rows))
        return AlongDenoiser(along, shapes, max_rows=max_rows), is_deterministic
    return fixed_shapes(prepare(network), network.architecture, max_batch, device)


def pick_device(device: str) -> str:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
