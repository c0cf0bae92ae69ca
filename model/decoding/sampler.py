"""One denoising step over a batch of canvases, on any denoiser.

A step takes canvases of different lengths, prompts, orders and parameters, runs one forward over all that look
different, and gives each canvas back with what it revealed. The order is decided first (`model.decoding.step_plan`), so
that token logits are computed only where they are needed: at the positions revealed in this step, and for orders that
ask how sure the model is, at the hidden ones. Noise is keyed by the canvas alone (`model.decoding.noise`), so a
canvas's future does not depend on its neighbours as long as the denoiser's rows do not.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from unveil.model.decoding import loop
from unveil.model.decoding.batch import AnyDenoiser, Batch, Sureness, begin, groups, release
from unveil.model.decoding.canvas import UNREAD, Canvas, Reveal, SamplingParams, absorbed_by
from unveil.model.decoding.draw import draw, draws, fetched
from unveil.model.decoding.loop import Decoded
from unveil.model.decoding.noise import reveal_noise
from unveil.model.decoding.order_keys import Ints
from unveil.model.decoding.search import Contradiction, Path, advance
from unveil.model.decoding.step_plan import Plan, plan_step


class StepResult(NamedTuple):
    """A canvas after a step, and what the step revealed of it, in the order of reveal."""

    canvas: Canvas
    reveals: tuple[Reveal, ...]


@torch.inference_mode()
def step(
    denoise: AnyDenoiser,
    canvases: Sequence[Canvas],
    *,
    device: torch.device | None = None,
    end_id: int | None = None,
    contradiction: Contradiction | None = None,
) -> list[StepResult]:
    """One denoising step of every canvas; none may be complete. `end_id` as `model.decoding.batch.begin` takes it.

    `contradiction` is what a canvas with a search is checked by (`model.decoding.search`). Raises ValueError if the
    denoiser's output does not fit the canvases or is not a number.
    """
    batch = begin(denoise, canvases, device=device, end_id=end_id)
    assert batch.hidden.any(1).all(), "a complete canvas takes no step"
    sure = Sureness(batch)
    plan = plan_step(batch, sure)
    reveals, others = _draw(batch, plan, sure)
    results = []
    for canvas, own, passed in zip(canvases, reveals, others, strict=True):
        if canvas.search is None:
            results.append(StepResult(apply(canvas, own), tuple(own)))
        else:
            assert contradiction is not None
            results.append(StepResult(*advance(canvas, tuple(zip(own, passed, strict=True)), contradiction)))
    batch.opened.advance([result.canvas for result in results], [[x.position for x in own] for own in reveals])
    return results


def _draw(batch: Batch, plan: Plan, sure: Sureness) -> tuple[list[list[Reveal]], list[list[Path]]]:
    """Draws the tokens of the planned positions. Of canvases with a search also says what each position could have had
    instead, in the order in which it would be drawn."""
    canvases = batch.canvases
    if plan.ranking.shape[1] == 1:
        of, positions, order_logprobs = list(range(len(canvases))), plan.ranking[:, 0], plan.order_logprobs[:, 0]
    else:
        rows, ranks = (np.arange(plan.ranking.shape[1]) < plan.counts[:, None]).nonzero()  # [R] each
        of, positions, order_logprobs = rows.tolist(), plan.ranking[rows, ranks], plan.order_logprobs[rows, ranks]
    places, steps = positions.tolist(), [plan.steps[row] for row in of]
    noise = reveal_noise([canvases[row].seed for row in of], places)
    ids, logprobs, left = _tokens(batch, sure, of, positions, noise.states)
    reveals: list[list[Reveal]] = [[] for _ in canvases]
    others: list[list[Path]] = [[] for _ in canvases]
    drawn = zip(of, places, ids, steps, logprobs, order_logprobs.tolist(), noise.values.tolist(), left, strict=True)
    for row, position, token_id, step_, logprob, order_logprob, value, passed in drawn:
        is_drawn = batch.params[row].is_order_drawn
        if not (math.isfinite(logprob) and (math.isfinite(order_logprob) or not is_drawn)):
            raise ValueError(f"the denoiser's logits at position {position} are not finite")
        own = order_logprob if is_drawn else None
        reveal = Reveal(position, token_id, step_, logprob, own, value)
        reveals[row].append(reveal)
        others[row].append(tuple(replace(reveal, token_id=other, logprob=p) for other, p in passed))
    if batch.end_id is None:
        return reveals, others
    return [_ended(batch, row, own, batch.end_id) for row, own in enumerate(reveals)], others


def _ended(batch: Batch, row: int, drawn: Sequence[Reveal], end_id: int) -> list[Reveal]:
    """One canvas's reveals of a step, in their order, with what an end among them decides. What was drawn in the same
    step did not know of it: behind it an end stands in its place, and an end before a token is drawn anew."""
    found: list[Reveal] = []
    open_, last, canvas = list(batch.canvases[row].hidden), int(batch.last_tokens[row]), batch.canvases[row]
    for reveal in drawn:
        if not open_[reveal.position]:
            continue
        if reveal.token_id == end_id and reveal.position < last:
            log_p = batch.log_p(np.array([row]), np.array([reveal.position]))
            log_p = log_p.masked_fill(torch.arange(log_p.shape[1], device=log_p.device) == end_id, -torch.inf)
            noise = reveal_noise([canvas.seed], [reveal.position])
            ids, logprobs = draw(log_p.log_softmax(-1), noise.states, [canvas.params])
            reveal = replace(reveal, token_id=int(ids), logprob=float(logprobs))
        found.append(reveal)
        open_[reveal.position] = False
        if reveal.token_id != end_id:
            last = max(last, reveal.position)
            continue
        for position in absorbed_by(reveal.position, open_):
            found.append(Reveal(position, end_id, reveal.step, 0.0, None, 0.5, is_absorbed=True))
            open_[position] = False
    return found


def _tokens(
    batch: Batch, sure: Sureness, of: Sequence[int], positions: Ints, states: Ints
) -> tuple[list[int], list[float], list[Sequence[tuple[int, float]]]]:
    """The id drawn at each position of the canvases `of`, its log-probability, and for a search what else there is."""
    ids, logprobs, rows = [0] * len(of), [0.0] * len(of), np.array(of)
    left: list[Sequence[tuple[int, float]]] = [()] * len(of)
    for measure, at in groups([sure.measures[row] for row in of]):
        log_p = (batch.log_p if measure is None else partial(sure.log_p, measure))(rows[at], positions[at])
        drawn, found = fetched(*draw(log_p, states[at], [batch.params[of[i]] for i in at]))
        for place, (i, token_id, logprob) in enumerate(zip(at, drawn, found, strict=True)):
            ids[i], logprobs[i] = token_id, logprob
            if batch.params[of[i]].backtrack is not None:
                left[i] = draws(log_p[place], int(states[i]), batch.params[of[i]])[1:]
    return ids, logprobs, left


def apply(canvas: Canvas, reveals: Sequence[Reveal]) -> Canvas:
    """The canvas with these reveals in it, of one step or of several in turn: ready for its next step. A search goes on
    by `model.decoding.search.advance`."""
    assert canvas.search is None
    tokens, hidden, ranks = list(canvas.tokens), list(canvas.hidden), list(canvas.ranks)
    rank, at = canvas.num_forwards, -1
    for reveal in reveals:
        position = reveal.position
        assert hidden[position]
        if reveal.step != at:
            rank, at = rank + 1, reveal.step
        tokens[position], hidden[position] = reveal.token_id, False
        ranks[position] = UNREAD if reveal.is_absorbed else rank
    own = canvas.seed, canvas.params, canvas.num_at_start
    return Canvas(tuple(tokens), tuple(hidden), *own, tuple(ranks), at + 1, rank)


@torch.inference_mode()
def order_probabilities(
    denoise: AnyDenoiser, canvas: Canvas, *, device: torch.device | None = None
) -> list[tuple[int, float]]:
    """The model's own probability of each hidden position to be revealed next, by position."""
    learned = replace(canvas, params=SamplingParams())
    positions = [position for position, is_hidden in enumerate(canvas.hidden) if is_hidden]
    try:
        order_logits = begin(denoise, [learned], device=device).order_logits[0, positions]
    finally:
        release(denoise, [learned])
    law = torch.from_numpy(order_logits).softmax(-1)
    return list(zip(positions, law.tolist(), strict=True))


def decode(
    denoise: AnyDenoiser,
    canvases: Iterable[Canvas],
    *,
    max_batch: int | None = None,
    device: torch.device | None = None,
    contradiction: Contradiction | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Decoded]:
    """Every canvas finished, in the order given, by `step` on this denoiser; see `model.decoding.loop.decode`."""
    own_step = partial(step, denoise, device=device, contradiction=contradiction)
    own_release = partial(release, denoise)
    return loop.decode(own_step, canvases, max_batch=max_batch, release=own_release, on_step=on_step)
