"""Networks decoded outside the engine as the engine serves them: those of late queries along their order, the others
canvas by canvas."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import cast

from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.shapes import shapes_of
from unveil.model.decoding import loop, sampler
from unveil.model.decoding.attempts.search import Contradiction
from unveil.model.decoding.batch import AnyDenoiser
from unveil.model.decoding.canvas import Canvas
from unveil.model.denoiser import Barring, Denoiser, device_of
from unveil.model.network.late import LateQueries

MAX_ROWS = 64  # along an order, at a time


def along(network: LateQueries, *, end_id: int | None, max_rows: int = MAX_ROWS) -> AlongDenoiser:
    """A network of late queries as it is served. Its weights must not change any more."""
    form = Along(network)
    return AlongDenoiser(form, shapes_of(form, max_rows), max_rows=max_rows, end_id=end_id)


def decode(
    denoise: AnyDenoiser,
    canvases: Iterable[Canvas],
    *,
    end_id: int | None,
    max_batch: int | None = None,
    contradiction: Contradiction | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[loop.Decoded]:
    """Every canvas finished, in the order given, by the engine's step; see `model.decoding.loop.decode`.

    `end_id` is the tokenizer's. Along an order no more than MAX_ROWS canvases are in memory, whatever `max_batch` is.
    """
    inner = denoise.denoise if isinstance(denoise, Barring) else denoise
    if isinstance(inner, LateQueries):
        inner = along(inner, end_id=end_id)
        denoise = Barring(inner, denoise.barred) if isinstance(denoise, Barring) else inner
    if not isinstance(inner, AlongDenoiser):
        device = device_of(cast(Denoiser, inner))
        step = partial(sampler.step, denoise, device=device, end_id=end_id, contradiction=contradiction)
        return loop.decode(step, canvases, max_batch=max_batch, on_step=on_step)
    assert inner.end_id == end_id
    window = min(max_batch or inner.most, inner.most)
    step_along = partial(sampler.step, denoise) if isinstance(denoise, Barring) else partial(ahead.step, inner)
    return loop.decode(step_along, canvases, max_batch=window, on_step=on_step)
