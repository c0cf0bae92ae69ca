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
from unveil.model.decoding.attempts import condition
from unveil.model.decoding.attempts.search import Contradiction, Path, advance
from unveil.model.decoding.batch import AnyDenoiser, Batch, Sureness, begin, groups, release
from unveil.model.decoding.canvas import Canvas, Part, Reveal, SamplingParams, absorbed_by, absorbed_end, apply
from unveil.model.decoding.draw import draw, draws, fetched, likeliest, restricted
from unveil.model.decoding.loop import Decoded
from unveil.model.decoding.noise import reveal_noise
from unveil.model.decoding.order_keys import Ints
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

    `contradiction` is what a canvas with a search is checked by (`model.decoding.attempts.search`). Raises ValueError
    if the denoiser's output does not fit the canvases or is not a number.
    """
    batch = begin(denoise, canvases, device=device, end_id=end_id)
    assert batch.hidden.any(1).all(), "a complete canvas takes no step"
    sure = Sureness(batch)
    plan = plan_step(batch, sure)
    drawn = _draw(batch, plan, sure)
    results, stepped = list[StepResult](), list[Canvas]()
    for canvas, own, passed, log_mass in zip(canvases, *drawn, strict=True):
        if canvas.search is not None:
            assert contradiction is not None
            result = StepResult(*advance(canvas, tuple(zip(own, passed, strict=True)), contradiction))
            after = result.canvas
        else:
            after = apply(canvas, own)
            is_tried = canvas.trials is not None and not canvas.trials.is_over
            tried = condition.advance(canvas, after, own, log_mass) if is_tried else (after, tuple(own))
            result = StepResult(*tried)
            after = result.canvas if condition.stands_where(result.canvas, after) else after
        results.append(result)
        stepped.append(after)
    batch.opened.advance(stepped, [[x.position for x in own] for own in drawn.reveals])
    if given_up := [own for own, result in zip(stepped, results, strict=True) if own is not result.canvas]:
        release(denoise, given_up)
    return results


class _Drawn(NamedTuple):
    """Of each canvas: the reveals of a step; for a search, what each could have been instead, in the order in which it
    would be drawn; for a condition, the logarithm of the mass of what was allowed."""

    reveals: list[list[Reveal]]
    others: list[list[Path]]
    log_masses: list[float]


def _draw(batch: Batch, plan: Plan, sure: Sureness) -> _Drawn:
    """Draws the tokens of the planned positions."""
    canvases = batch.canvases
    if plan.ranking.shape[1] == 1:
        of, positions, order_logprobs = list(range(len(canvases))), plan.ranking[:, 0], plan.order_logprobs[:, 0]
    else:
        rows, ranks = (np.arange(plan.ranking.shape[1]) < plan.counts[:, None]).nonzero()  # [R] each
        of, positions, order_logprobs = rows.tolist(), plan.ranking[rows, ranks], plan.order_logprobs[rows, ranks]
    places = positions.tolist()
    parts = [condition.parts_of(canvases[row], i) for row, i in zip(of, places, strict=True)]
    noise = reveal_noise([condition.seed_of(canvases[row]) for row in of], places)
    tokens = _tokens(batch, sure, of, positions, noise.states, parts)
    drawn = _Drawn([[] for _ in canvases], [[] for _ in canvases], [0.0] * len(canvases))
    columns = zip(of, places, order_logprobs.tolist(), noise.values.tolist(), parts, tokens, strict=True)
    for row, position, order_logprob, uniform, allowed, (token_id, logprob, passed, log_mass, top) in columns:
        is_drawn = batch.params[row].is_order_drawn
        is_number = math.isfinite(logprob) or log_mass == -math.inf  # nothing is allowed: the attempt has no weight
        if not (is_number and (math.isfinite(order_logprob) or not is_drawn)):
            raise ValueError(f"the denoiser's logits at position {position} are not finite")
        own = order_logprob if is_drawn else None
        value = uniform if allowed is None else condition.uniform_within(allowed, token_id, uniform)
        reveal = Reveal(position, token_id, plan.steps[row], logprob, own, value, top=top)
        drawn.reveals[row].append(reveal)
        drawn.others[row].append(tuple(replace(reveal, token_id=other, logprob=p) for other, p in passed))
        drawn.log_masses[row] += log_mass
    if batch.end_id is None:
        return drawn
    return drawn._replace(reveals=[_ended(batch, row, own, batch.end_id) for row, own in enumerate(drawn.reveals)])


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
            log_p = log_p.log_softmax(-1)
            ids, logprobs = draw(log_p, noise.states, [canvas.params])
            (top,) = likeliest(log_p, [canvas.params.top_logprobs])
            reveal = replace(reveal, token_id=int(ids), logprob=float(logprobs), top=top)
        found.append(reveal)
        open_[reveal.position] = False
        if reveal.token_id != end_id:
            last = max(last, reveal.position)
            continue
        for position in absorbed_by(reveal.position, open_):
            found.append(absorbed_end(position, end_id, reveal.step, canvas.params))
            open_[position] = False
    return found


class _Token(NamedTuple):
    """The id drawn at a position, its log-probability; for a search, what else there is; for a condition, the logarithm
    of the mass of what is allowed; the likeliest ids, where they are asked for."""

    token_id: int
    logprob: float
    left: Sequence[tuple[int, float]]
    log_mass: float
    top: tuple[tuple[int, float], ...]


def _tokens(
    batch: Batch,
    sure: Sureness,
    of: Sequence[int],
    positions: Ints,
    states: Ints,
    parts: Sequence[Sequence[Part] | None],
) -> list[_Token]:
    """What is drawn at each position of the canvases `of`; `parts` are allowed there, None anything."""
    tokens: dict[int, _Token] = {}
    rows = np.array(of)
    for measure, at in groups([sure.measures[row] for row in of]):
        log_p = (batch.log_p if measure is None else partial(sure.log_p, measure))(rows[at], positions[at])
        params = [batch.params[of[i]] for i in at]
        allowed, log_masses = restricted(log_p, [parts[i] for i in at], params)
        ids, found = draw(allowed, states[at], params)
        found = found if allowed is log_p else log_p.gather(-1, ids[:, None]).squeeze(-1)
        tops = likeliest(log_p, [own.top_logprobs for own in params])
        drawn = zip(at, *fetched(ids, found), log_masses, tops, strict=True)
        for place, (i, token_id, logprob, log_mass, top) in enumerate(drawn):
            has_search = batch.params[of[i]].backtrack is not None
            left = draws(log_p[place], int(states[i]), batch.params[of[i]])[1:] if has_search else ()
            tokens[i] = _Token(token_id, logprob, left, log_mass, top)
    return [tokens[i] for i in range(len(of))]


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
