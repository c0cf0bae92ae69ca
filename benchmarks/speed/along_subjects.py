"""Models that go along their order as they are served, and the requests on which they are timed."""

import sys
from collections.abc import Sequence

from unveil.benchmarks.speed.bare import anew, with_denoiser
from unveil.benchmarks.speed.in_process import Subject, load_subject, mixed_canvases
from unveil.engine.catalog import Source
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.pace import Pace
from unveil.model.artifact.manifest import read_manifest
from unveil.model.decoding import loop
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.network.architecture import Architecture

WORKS = ("mixed", "whole")
_OF_PROMPTS = 1_000_000  # added to the seeds of the rows of which prompts are parts


class FixedPace(Pace):
    """So many positions in every step, whatever they are worth."""

    def __init__(self, window: int) -> None:
        super().__init__(most=sys.maxsize, clock=None)
        self._window = window

    def window(self, num_canvases: int) -> int:  # noqa: ARG002
        """See `Pace.window`."""
        return self._window


def goes_along(source: Source) -> bool:
    """Whether an artifact is served along its order."""
    architecture = read_manifest(source.folder).architecture
    return isinstance(architecture, Architecture) and architecture.query_layers > 0


def load_along(sources: Sequence[Source], *, max_batch: int) -> list[Subject]:
    """Those of them that go along their order."""
    return [load_subject(source, max_batch=max_batch) for source in sources if goes_along(source)]


def at_pace(subject: Subject, window: int | None) -> Subject:
    """The same with memory and a pace of its own: so many positions a step, None for as many as pay."""
    served = subject.runner.denoiser
    assert isinstance(served, AlongDenoiser)
    denoiser = anew(served, served.network)
    if window is not None:
        denoiser.pace = FixedPace(window)
    return with_denoiser(subject, denoiser)


def requests(subject: Subject, work: str, *, num: int, params: SamplingParams) -> list[Canvas]:
    """Canvases by the name of the work, the same every time. `whole`: rows of the model's length from nothing.
    `mixed`: lengths and numbers of holes as `mixed_canvases` has them, what is known from rows of the model's own."""
    if work == "whole":
        return [_empty(subject.length, seed=number, params=params) for number in range(num)]
    mixed = mixed_canvases(subject, num=num, rule="random")
    rows = [_empty(own.length, seed=_OF_PROMPTS + own.seed, params=SamplingParams()) for own in mixed]
    filled = loop.decode(subject.runner.step, rows, max_batch=subject.max_batch)
    return [
        Canvas.start(row.canvas.tokens, own.hidden, seed=own.seed, params=params)
        for row, own in zip(filled, mixed, strict=True)
    ]


def _empty(length: int, *, seed: int, params: SamplingParams) -> Canvas:
    return Canvas.start((0,) * length, (True,) * length, seed=seed, params=params)
