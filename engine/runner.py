"""Models in memory, warm and checked: what the worker steps with."""

import logging
import sys
import time
from collections.abc import Generator, Iterator, Sequence

import torch

from unveil.engine.catalog import Source
from unveil.engine.messages import Loaded
from unveil.engine.scheduler import Kind
from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.graphs import CudaRecorder, Graphs
from unveil.model.along.shapes import shapes_of
from unveil.model.artifact.folder import Artifact, load_artifact
from unveil.model.artifact.manifest import Manifest, read_manifest
from unveil.model.decoding.attempts.search import Contradiction
from unveil.model.decoding.batch import release
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.sampler import StepResult, order_probabilities, step
from unveil.model.decoding.scoring import ScoreResult, score_step
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.denoiser import Counts
from unveil.model.errors import UnveilError
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import CPU_ROWS, FixedShapes, checked_shapes, unchecked_shapes
from unveil.model.network.late import LateQueries
from unveil.model.tokenizers.base import contradiction_of

_LOG = logging.getLogger(__name__)
CACHE_BYTES = 2**30
ROWS_A_CANVAS = 2  # of a batch: so many canvases keep what is computed of them while others are stepped
Served = FixedShapes | AlongDenoiser


class Runner:
    """One model, ready to step. Satisfies `engine.worker.Runner`."""

    def __init__(
        self,
        denoiser: Served,
        *,
        weights_version: str,
        device: torch.device,
        contradiction: Contradiction | None = None,
    ) -> None:
        self.denoiser = denoiser
        self._device = device
        self._contradiction = contradiction
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
        """As `engine.worker.Runner`; where ends decide what lies behind them, a step waits for those before it."""
        is_apart = isinstance(self.denoiser, FixedShapes) and self.denoiser.end_id is None
        return chain.order_ahead() if is_apart else None

    def release(self, canvases: Sequence[Canvas]) -> None:
        release(self.denoiser, canvases)

    def step(self, canvases: Sequence[Canvas]) -> list[StepResult]:
        if isinstance(self.denoiser, AlongDenoiser):
            return ahead.step(self.denoiser, canvases)
        return step(self.denoiser, canvases, device=self._device, contradiction=self._contradiction)

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
    has_graphs: bool = True,
) -> Iterator[tuple[Loaded, Runner] | None]:
    """Loads, checks and warms one model after the other, the smallest first. None in between: others may have the
    thread. To be run in the thread that will step them.

    `cache_bytes` is what the contents of canvases may take, of each model. `has_graphs`: on CUDA, networks along their
    order are recorded and replayed (`model.along.graphs`). Raises ArtifactError for a damaged artifact, UnveilError
    where `cache_bytes` is too little for one canvas.
    """
    torch.set_num_threads(threads)
    place = torch.device(pick_device(device))
    sizes = {source: _size(read_manifest(source.folder)) for source in sources}
    for source in sorted(sources, key=lambda source: sizes[source]):
        artifact = load_artifact(source.folder)
        yield None
        denoiser, is_deterministic = yield from _checked(artifact, max_batch, place, cache_bytes, source.name)
        if has_graphs and place.type == "cuda" and isinstance(denoiser, AlongDenoiser):
            denoiser.run = recorded(denoiser.network).run
        version = artifact.manifest.weights_sha256
        loaded = Loaded(source.name, version, str(place), is_deterministic)
        check = contradiction_of(artifact.tokenizer)
        yield loaded, Runner(denoiser, weights_version=version, device=place, contradiction=check)


def load_unchecked(source: Source, *, max_batch: int, device: str = "auto", threads: int = 1) -> tuple[str, Runner]:
    """One model and its device, for a process that will ask it for little: it computes the same, and checks a shape
    when it is first needed. Raises ArtifactError for a damaged artifact."""
    torch.set_num_threads(threads)
    place = torch.device(pick_device(device))
    artifact = load_artifact(source.folder)
    denoiser: Served | None = _along(artifact, max_batch, place, CACHE_BYTES, source.name)
    if denoiser is None:
        stages, architecture = prepare(artifact.denoiser.to(place)), artifact.manifest.architecture
        denoiser = unchecked_shapes(stages, architecture, _most(artifact, max_batch, place), place)
        denoiser.end_id = artifact.tokenizer.end_id
    version, check = artifact.manifest.weights_sha256, contradiction_of(artifact.tokenizer)
    return str(place), Runner(denoiser, weights_version=version, device=place, contradiction=check)


def _checked(
    artifact: Artifact, max_batch: int, place: torch.device, cache_bytes: int, name: str
) -> Generator[None, None, tuple[Served, bool]]:
    """The network as it is served, and whether its shapes agree."""
    along = _along(artifact, max_batch, place, cache_bytes, name)
    if along is not None:
        yield None
        return along, along.shapes.check()
    stages, architecture = prepare(artifact.denoiser.to(place)), artifact.manifest.architecture
    most = _most(artifact, max_batch, place)
    fixed, is_deterministic = yield from checked_shapes(stages, architecture, most, place)
    fixed.end_id = artifact.tokenizer.end_id
    return fixed, is_deterministic


def _along(
    artifact: Artifact, max_batch: int, place: torch.device, cache_bytes: int, name: str
) -> AlongDenoiser | None:
    """A network that goes along its order; None of another one."""
    network = artifact.denoiser.to(place)
    if not isinstance(network, LateQueries):
        return None
    network.requires_grad_(False)
    along = Along(network)
    room = cache_bytes // along.size.num_bytes
    if room < 2:  # one more for exchanges
        raise UnveilError(f"cache_bytes: must be at least {2 * along.size.num_bytes} for {name}, got {cache_bytes}")
    is_one_thread = place.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if is_one_thread else time.perf_counter  # others may share the CPU
    max_rows = max(min(room - 1 - max_batch // 4, ROWS_A_CANVAS * max_batch), 1)  # a quarter fills batches up
    end_id = artifact.tokenizer.end_id
    return AlongDenoiser(
        along, shapes_of(along, min(max_batch, max_rows)), max_rows=max_rows, end_id=end_id, clock=clock
    )


def _most(artifact: Artifact, max_batch: int, place: torch.device) -> int:
    """How many whole canvases one forward takes at most."""
    is_one_by_one = artifact.denoiser.is_one_by_one and place.type == "cpu"
    return min(CPU_ROWS, max_batch) if is_one_by_one else max_batch


def _size(manifest: Manifest) -> int:
    """What a warm-up's time grows with, roughly."""
    return manifest.num_parameters * manifest.length


def recorded(network: Along) -> Graphs:
    """A network's forwards as CUDA graphs; where that fails, a line in the log says so."""
    return Graphs(network, new_recorder=lambda: CudaRecorder(network.size.device), report=_LOG.warning)


def pick_device(device: str) -> str:
    """`auto` is the first CUDA device where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
