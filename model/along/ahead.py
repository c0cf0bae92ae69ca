"""Steps along an order known ahead, several positions at a time where that pays: the same bytes in fewer forwards.

A step asks the next positions of each canvas at once, as if what was drawn for them last time were already revealed.
Noise is keyed by position, so a token is a function of the logits: as long as drafts and draws agree, the next one is
what one position a step would have drawn. The agreeing beginning and the first correction are revealed, the rest are
the drafts of the next step: Jacobi iteration, arXiv 2305.10427, with coupled noise for any temperature.
"""

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from unveil.model.along.denoiser import AlongDenoiser, Ask, Question
from unveil.model.along.rows import Content, Held, Next
from unveil.model.decoding import sampler
from unveil.model.decoding.ahead import is_known_ahead, plan_ahead
from unveil.model.decoding.batch import bar_ends, log_probabilities
from unveil.model.decoding.canvas import Canvas, Reveal, absorbed_by, absorbed_end, apply, last_token
from unveil.model.decoding.draw import draw, fetched, likeliest
from unveil.model.decoding.noise import reveal_noise
from unveil.model.decoding.sampler import StepResult
from unveil.model.denoiser import Counts

_PLANNED = 16  # steps planned at a time
_Drawn = tuple[int, float, tuple[tuple[int, float], ...]]  # an id, its log-probability, the likeliest ids with theirs


def step(denoiser: AlongDenoiser, canvases: Sequence[Canvas]) -> list[StepResult]:
    """As `model.decoding.sampler.step`, byte for byte; a canvas whose order is known ahead may reveal several steps'
    positions."""
    ahead = [i for i, canvas in enumerate(canvases) if denoiser.order_ahead is not None and is_known_ahead(canvas)]
    if len(ahead) == len(canvases):
        return step_ahead(denoiser, canvases)
    others = sorted(set(range(len(canvases))) - set(ahead))
    results = dict(zip(others, sampler.step(denoiser, [canvases[i] for i in others]), strict=True))
    num_others = sum(not result.canvas.is_complete for result in results.values())
    if ahead:
        try:
            found = step_ahead(denoiser, [canvases[i] for i in ahead], first=num_others)
        except Exception:  # whoever repeats the step does so from before it
            denoiser.release(result.canvas for result in results.values())
            raise
        results.update(zip(ahead, found, strict=True))
    return [results[i] for i in range(len(canvases))]


@torch.inference_mode()
def step_ahead(denoiser: AlongDenoiser, canvases: Sequence[Canvas], *, first: int = 0) -> list[StepResult]:
    """As `model.decoding.sampler.step`, of canvases whose order is known ahead: one position each, or several.

    Rows from `first` on are theirs. Raises ValueError if what the network says of a revealed position is not a number.
    """
    assert denoiser.order_ahead is not None
    began = denoiser.pace.now()
    held = denoiser.hold(canvases, first=first)
    window = denoiser.pace.window(len(held))
    _plan(denoiser, held, window)
    order = sorted(range(len(held)), key=lambda i: held[i].row)
    asks = [_ask(held[i], window) for i in order]
    nexts = [next_ for ask in asks for next_ in islice(ask.held.plan, len(ask.questions))]
    params = [ask.held.canvas.params for ask in asks for _ in ask.questions]
    logits = denoiser.logits(denoiser.ask(asks), np.array([next_.position for next_ in nexts]))
    if denoiser.end_id is not None:
        barred = [flag for ask in asks for flag in _barred(ask, denoiser.end_id)]
        logits = bar_ends(logits, np.array(barred), denoiser.end_id)
    log_p = log_probabilities(logits)
    ids, logprobs = fetched(*draw(log_p, np.array([next_.state for next_ in nexts]), params))
    drawn = iter(zip(ids, logprobs, likeliest(log_p, [own.top_logprobs for own in params]), strict=True))
    accepted = [_accepted(ask, list(islice(drawn, len(ask.questions))), denoiser.end_id) for ask in asks]
    results = {i: _advance(denoiser, held[i], *own) for i, own in zip(order, accepted, strict=True)}
    num_steps = sum(len(reveals) for reveals, _ in accepted)
    denoiser.count(Counts(num_saved=num_steps - len(results)))
    denoiser.pace.record(len(held), window, seconds=denoiser.pace.now() - began, num_revealed=num_steps)
    return [results[i] for i in range(len(held))]


def _plan(denoiser: AlongDenoiser, held: Sequence[Held], window: int) -> None:
    """Sees to it that each canvas knows as many of its next positions, or all."""
    short = [own for own in held if len(own.plan) < min(window, own.num_open)]
    if not short:
        return
    assert denoiser.order_ahead is not None
    hidden = np.stack([own.hidden for own in short])
    planned = plan_ahead([own.canvas for own in short], hidden, denoiser.order_ahead, max(_PLANNED, window))
    num = planned.positions.shape[1]
    noise = reveal_noise([own.canvas.seed for own in short for _ in range(num)], planned.positions.flatten().tolist())
    columns = (*planned, noise.states.reshape(-1, num), noise.values.reshape(-1, num))
    for own, *fields in zip(short, *(x.tolist() for x in (columns[0], columns[1], *columns[3:])), strict=True):
        own.plan = [Next(*of) for of in islice(zip(*fields, strict=True), own.num_open)]


def _ask(own: Held, window: int) -> Ask:
    """The questions of the next positions, and the contents of their drafts."""
    first, contents = own.canvas.num_forwards + 1, list(own.pending)
    questions = [Question(next_.position, turn) for turn, next_ in enumerate(own.plan[:window], first)]
    for position, turn in questions[:-1]:
        if position not in own.drafts:
            break
        contents.append(Content(position, own.drafts[position], turn))
    return Ask(own, contents, questions)


def _accepted(ask: Ask, drawn: Sequence[_Drawn], end_id: int | None) -> tuple[list[Reveal], dict[int, int]]:
    """What is certain, up to the first draw that differs from its draft or had none; and the drafts for the rest."""
    own, reveals, canvas = ask.held, list[Reveal](), ask.held.canvas
    drafts = [content.token_id for content in ask.contents[len(own.pending) :]]
    is_drawn = canvas.params.is_order_drawn
    for k, (token_id, logprob, top) in enumerate(drawn):
        position, order_logprob, _, value = own.plan[k]
        if not (math.isfinite(logprob) and (math.isfinite(order_logprob) or not is_drawn)):
            raise ValueError(f"the denoiser's logits at position {position} are not finite")
        own_order = order_logprob if is_drawn else None
        reveals.append(Reveal(position, token_id, canvas.step + k, logprob, own_order, value, top=top))
        if k >= len(drafts) or drafts[k] != token_id or (token_id == end_id and absorbed_by(position, canvas.hidden)):
            break
    rest = zip(ask.questions[len(reveals) :], drawn[len(reveals) :], strict=True)
    return reveals, {question.position: token_id for question, (token_id, *_) in rest}


def _advance(denoiser: AlongDenoiser, own: Held, reveals: list[Reveal], drafts: dict[int, int]) -> StepResult:
    num, absorbed = len(reveals), _absorbed(own.canvas, reveals, denoiser.end_id)
    if own.last_token is not None:
        tokens = [reveal.position for reveal in reveals if reveal.token_id != denoiser.end_id]
        own.last_token = max([own.last_token, *tokens])
    reveals = [*reveals, *absorbed]
    after = apply(own.canvas, reveals)
    denoiser.settle(own)
    denoiser.rows.advance(own, after, [reveal.position for reveal in reveals], num_computed=num - 1)
    own.plan = [] if absorbed else own.plan[num:]
    own.drafts = drafts
    return StepResult(after, tuple(reveals))


def _absorbed(canvas: Canvas, reveals: Sequence[Reveal], end_id: int | None) -> list[Reveal]:
    """What the last of these reveals decides, if it is an end."""
    last = reveals[-1]
    if last.token_id != end_id:
        return []
    revealed = {reveal.position for reveal in reveals}
    positions = [position for position in absorbed_by(last.position, canvas.hidden) if position not in revealed]
    return [absorbed_end(position, last.token_id, last.step, canvas.params) for position in positions]


def _barred(ask: Ask, end_id: int) -> list[bool]:
    """At each question, whether a token behind it is known by its turn, drafts included."""
    own, barred = ask.held, list[bool]()
    if own.last_token is None:
        own.last_token = last_token(own.canvas, end_id)
    last, drafts = own.last_token, {content.position: content.token_id for content in ask.contents[len(own.pending) :]}
    for position, _ in ask.questions:
        barred.append(position < last)
        if drafts.get(position, end_id) != end_id:
            last = max(last, position)
    return barred
