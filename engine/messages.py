"""What crosses the engine's boundary: plain frozen values, picklable and JSON-able. Needs no torch.

A request's life: `Generate` goes in; `Started` comes back when its first step begins, `Revealed` in the step in which
positions became known, after `Unrevealed` where others were taken back, `SampleDone` for each finished canvas, and at
the end exactly one `Finished` or `Failed`, unless a `Cancel` came first. `Rank` (the probabilities of the next
position) is answered by one `Ranked` or `Failed`. `Score` is answered as `Generate` is, with `Scored` for what each
step found out.
Everything about a request names the weights it was computed with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unveil.model.decoding.attempts.search import unrevealed
from unveil.model.decoding.canvas import Canvas, Outcome, Reveal, Trials
from unveil.model.decoding.scoring_chain import Chain, Term


@dataclass(frozen=True, slots=True)
class Generate:
    """Decode every canvas to its end. `weights_version` is the one whose tokenizer made the canvases."""

    request_id: str
    model: str
    weights_version: str
    canvases: tuple[Canvas, ...]

    @property
    def num_places(self) -> int:
        return len(self.canvases)


@dataclass(frozen=True, slots=True)
class Rank:
    """The probability of each hidden position of one canvas to be revealed next."""

    request_id: str
    model: str
    weights_version: str
    canvas: Canvas

    @property
    def num_places(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class Score:
    """Score every chain to its end. A chain takes a place, as a canvas does: it costs as many forwards."""

    request_id: str
    model: str
    weights_version: str
    chains: tuple[Chain, ...]

    @property
    def num_places(self) -> int:
        return len(self.chains)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget the request before the next step. No more events of it follow."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the worker after the step it is in."""


Work = Generate | Rank | Score  # what is admitted, and answered
Command = Work | Cancel | Stop


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model is in memory and warm. `is_deterministic` is what its own warm-up measured, not a promise."""

    model: str
    weights_version: str
    device: str
    is_deterministic: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """Every model is loaded and warm."""


@dataclass(frozen=True, slots=True)
class Died:
    """The worker is gone: it answers none of the requests it held. `message` is for the log."""

    message: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The worker is alive and has nothing to do."""


@dataclass(frozen=True, slots=True)
class Started:
    request_id: str
    weights_version: str


@dataclass(frozen=True, slots=True)
class Revealed:
    """What one step revealed on canvas `index` of the request, in order of position."""

    request_id: str
    weights_version: str
    index: int
    reveals: tuple[Reveal, ...]


@dataclass(frozen=True, slots=True)
class Unrevealed:
    """What step `step` took back on canvas `index` of the request, the last revealed first."""

    request_id: str
    weights_version: str
    index: int
    step: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SampleDone:
    """Canvas `index` has nothing hidden any more, after `num_forwards` denoising steps. `outcome`: of its search;
    `trials`: of its condition."""

    request_id: str
    weights_version: str
    index: int
    num_forwards: int
    outcome: Outcome = "complete"
    trials: Trials | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    request_id: str
    weights_version: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """(position, probability) for each hidden position."""

    request_id: str
    weights_version: str
    probabilities: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """What one step found out about chain `index`. Where its order is known ahead, terms may come out of sequence."""

    request_id: str
    weights_version: str
    index: int
    term: Term


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not serve the request; the others are not touched. `message` is for the log, not for users.
    `is_unmet`: nothing failed, but no attempt at a sample met its condition."""

    request_id: str
    weights_version: str
    message: str
    is_unmet: bool = False


@dataclass(frozen=True, slots=True)
class StepStats:
    """One denoising step over a batch, to generate, to score or to rank, for the metrics. Also a sign of life.

    `num_positions` counts what the forward passes computed, padding included; `num_useful_positions` what of it was
    wanted, canvases that look alike once. `num_saved`: steps of canvases that needed no forward of their own.
    `num_revealed` counts what a search reveals again, `num_unrevealed` what it took back.
    """

    seconds: float
    num_canvases: int
    num_positions: int
    num_useful_positions: int
    num_revealed: int
    num_saved: int = 0
    num_unrevealed: int = 0


@dataclass(frozen=True, slots=True)
class BatchRetried:
    """A batch failed as a whole and was stepped one by one. `cause` is for the log.

    `max_batch` is the largest batch of this model and padded length from now on, where the cause was memory; else None.
    """

    model: str
    length: int
    num_canvases: int
    cause: str
    max_batch: int | None


RequestEvent = Started | Revealed | Unrevealed | SampleDone | Finished | Ranked | Scored | Failed
Event = RequestEvent | Loaded | Ready | Died | Heartbeat | StepStats | BatchRetried
Emit = Callable[[Sequence[Event]], None]


def step_events(
    ids: tuple[str, str], index: int, before: Canvas, after: Canvas, reveals: tuple[Reveal, ...]
) -> list[RequestEvent]:
    """What a step of canvas `index` came to."""
    events: list[RequestEvent] = []
    if taken := unrevealed(before, after):
        events.append(Unrevealed(*ids, index, before.step, taken))
    if reveals:  # none while a condition is tried
        events.append(Revealed(*ids, index, reveals))
    if after.is_complete:
        outcome: Outcome = "complete" if after.search is None else after.search.outcome
        wasted = 0 if after.trials is None else after.trials.num_forwards
        events.append(SampleDone(*ids, index, after.num_forwards + wasted, outcome, after.trials))
    return events


class EnginePort(Protocol):
    """What the HTTP side needs of an engine. `emit` may be called from any thread."""

    def start(self, emit: Emit) -> None: ...
    def send(self, command: Command) -> None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout_seconds: float) -> None: ...
