"""A network, a runner and an engine that tests hold in their hands: no weights, and no step without leave."""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.model.artifacts import table_tokenizer
from unveil.engine.catalog import Catalog, ServedModel
from unveil.engine.messages import Event, Loaded
from unveil.engine.scheduler import Kind
from unveil.engine.thread import Engine
from unveil.model.artifact.manifest import TOKENIZER, WEIGHTS, Manifest
from unveil.model.decoding.attempts.search import Contradiction
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.sampler import StepResult, order_probabilities, step
from unveil.model.decoding.scoring import ScoreResult, score_step
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.denoiser import Counts, Denoiser, Prediction
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.tokenizers.base import Tokenizer, contradiction_of

VERSION = "f" * 64
WAIT_SECONDS = 1800.0  # only ever reached by a test that hangs, however busy the machine is


def mock_denoiser(vocabulary_sizes: Sequence[int]) -> Denoiser:
    """Logits that depend on what is known, minus infinity at absent ids; the order too."""
    sizes = torch.tensor(vocabulary_sizes)

    def denoise(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        L = tokens.shape[1]
        inside = torch.arange(L) < lengths[:, None]
        seen = ((tokens + 1) * (~hidden & inside)).sum(-1, keepdim=True).to(torch.float64)
        ids, positions = torch.arange(int(sizes.max())), torch.arange(L)
        logits = torch.sin(seen[..., None] + 3.0 * positions[:, None] + 7.0 * ids)
        absent = ids >= sizes.expand(max(L, len(sizes)))[:L, None]
        return Prediction(logits.masked_fill(absent, -torch.inf), torch.cos(seen + positions))

    return denoise


@dataclass
class MockRunner:
    """Runs the real sampler on a mock network. `on_step` may look, raise, block, or spoil what comes back."""

    vocabulary_sizes: Sequence[int]
    weights_version: str = VERSION
    num_positions: int = 0  # padded to nothing, so all are useful
    on_step: Callable[[Sequence[Canvas]], None] = lambda canvases: None
    spoil: Callable[[list[StepResult]], list[StepResult]] = lambda results: results
    contradiction: Contradiction | None = None
    spoil_scores: Callable[[list[ScoreResult]], list[ScoreResult]] = lambda results: results
    batches: list[list[Canvas]] = field(default_factory=list)
    scored: list[list[Chain]] = field(default_factory=list)
    released: list[Canvas] = field(default_factory=list)

    def counts(self) -> Counts:
        return Counts(self.num_positions, self.num_positions)

    def bucket(self, length: int) -> int:
        return length

    def largest(self, bucket: int, kind: Kind) -> int:
        return 1000

    def links(self, chain: Chain) -> Sequence[int] | None:
        return chain.order_ahead()

    def release(self, canvases: Sequence[Canvas]) -> None:
        self.released += canvases

    def step(self, canvases: Sequence[Canvas]) -> list[StepResult]:
        self.batches.append(list(canvases))
        self.on_step(canvases)
        self._count(canvases)
        return self.spoil(step(mock_denoiser(self.vocabulary_sizes), canvases, contradiction=self.contradiction))

    def rank(self, canvas: Canvas) -> list[tuple[int, float]]:
        self.on_step([canvas])
        self._count([canvas])
        return order_probabilities(mock_denoiser(self.vocabulary_sizes), canvas)

    def score(self, chains: Sequence[Chain]) -> list[ScoreResult]:
        self.scored.append(list(chains))
        self.on_step([chain.canvas for chain in chains])
        self._count([chain.canvas for chain in chains])
        return self.spoil_scores(score_step(mock_denoiser(self.vocabulary_sizes), chains))

    def _count(self, canvases: Sequence[Canvas]) -> None:
        """A row for those that look alike, as the sampler has it."""
        self.num_positions += sum(len(tokens) for tokens, _ in {(c.tokens, c.hidden) for c in canvases})


class Gate:
    """Lets steps through one by one. To be used as a runner's `on_step`."""

    def __init__(self) -> None:
        self._leave = threading.Semaphore(0)
        self._entered: queue.SimpleQueue[Sequence[Canvas]] = queue.SimpleQueue()
        self._is_open = False

    def __call__(self, canvases: Sequence[Canvas]) -> None:
        self._entered.put(canvases)
        if not self._is_open:
            assert self._leave.acquire(timeout=WAIT_SECONDS), "nobody let this step through"

    def wait(self) -> Sequence[Canvas]:
        """The canvases of the next step, once it has begun."""
        return self._entered.get(timeout=WAIT_SECONDS)

    def allow(self, steps: int = 1) -> None:
        for _ in range(steps):
            self._leave.release()

    def open(self) -> None:
        self._is_open = True
        self._leave.release()


class Recorder:
    """An engine's `emit` that keeps everything, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            self._queue.put(event)

    def until(self, found: Callable[[Event], bool]) -> Event:
        """Waits for the first event from here on that is looked for."""
        while True:
            event = self._queue.get(timeout=WAIT_SECONDS)
            self.events.append(event)
            if found(event):
                return event


def toy_model(name: str = "toy", tokenizer: Tokenizer | None = None) -> ServedModel:
    """A model without weights."""
    tokenizer = tokenizer or table_tokenizer()
    architecture = Architecture(length=tokenizer.length, vocabulary_sizes=tuple(tokenizer.vocabulary_sizes))
    manifest = Manifest(
        domain=tokenizer.domain,
        architecture=architecture,
        order=OrderSpec(kind="contextual"),
        default_length=tokenizer.default_length,
        num_parameters=0,
        files={WEIGHTS: VERSION, TOKENIZER: ""},
    )
    return ServedModel(name, manifest, tokenizer)


def toy_runner(model: ServedModel, on_step: Callable[[Sequence[Canvas]], None] = lambda canvases: None) -> MockRunner:
    sizes, contradiction = model.manifest.architecture.vocabulary_sizes, contradiction_of(model.tokenizer)
    return MockRunner(sizes, on_step=on_step, contradiction=contradiction)


def toy_engine(runners: dict[str, MockRunner], *, max_batch: int = 64, heartbeat_seconds: float = 1.0) -> Engine:
    def load() -> Iterable[tuple[Loaded, MockRunner]]:
        for name, runner in runners.items():
            yield Loaded(name, runner.weights_version, "cpu", True), runner

    return Engine(load, max_batch=max_batch, heartbeat_seconds=heartbeat_seconds)


def toy_catalog(*models: ServedModel) -> Catalog:
    return Catalog(models or [toy_model()])


def chain(*known: int, length: int = 5, seed: int = 0, params: SamplingParams | None = None) -> Chain:
    """Zeros at known positions are to be scored; all are known where none is named."""
    hidden = tuple(bool(known) and position not in known for position in range(length))
    return Chain.start((0,) * length, hidden, seed=seed, params=params or SamplingParams())


def canvas(length: int = 5, *, seed: int = 0, num_known: int = 0, params: SamplingParams | None = None) -> Canvas:
    """A canvas whose first positions are known."""
    hidden = tuple(position >= num_known for position in range(length))
    return Canvas.start((0,) * length, hidden, seed=seed, params=params or SamplingParams())
