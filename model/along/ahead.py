"""Steps along an order known ahead, several positions at a time where that pays: the same bytes in fewer forwards.

A step asks the next positions of each canvas at once, as if what was drawn for them last time were already revealed.
Noise is keyed by position, so a token is a function of the logits: as long as drafts and draws agree, the next one is
what one position a step would have drawn. The agreeing beginning and the first correction are revealed, the rest are
the drafts of the next step: Jacobi iteration, arXiv 2305.10427, with coupled noise for any temperature.
"""

import math
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from unveil.model.along.denoiser import AlongDenoiser, Ask, Question
from unveil.model.along.rows import Content, Held
from unveil.model.decoding import sampler
from unveil.model.decoding.ahead import is_known_ahead, plan_ahead
from unveil.model.decoding.batch import log_probabilities
from unveil.model.decoding.canvas import Canvas, Reveal
from unveil.model.decoding.draw import draw
from unveil.model.decoding.noise import reveal_noise
from unveil.model.decoding.sampler import StepResult, apply

_PLANNED = 16  # steps planned at a time


def step(denoiser: AlongDenoiser, canvases: Sequence[Canvas]) -> list[StepResult]:
    """As `model.decoding.sampler.step`, byte for byte; a canvas whose order is known ahead may reveal several steps'
    positions."""
    ahead = [i for i, canvas in enumerate(canvases) if denoiser.order_ahead is not None and is_known_ahead(canvas)]
    if len(ahead) == len(canvases):
        return step_ahead(denoiser, canvases)
    others = sorted(set(range(len(canvases))) - set(ahead))
    results = dict(zip(others, sampler.step(denoiser, [canvases[i] for i in others]), strict=True))
    if ahead:
        results.update(zip(ahead, step_ahead(denoiser, [canvases[i] for i in ahead]), strict=True))
    return [results[i] for i in range(len(canvases))]


@torch.inference_mode()
def step_ahead(denoiser: AlongDenoiser, canvases: Sequence[Canvas]) -> list[StepResult]:
    """As `model.decoding.sampler.step`, of canvases whose order is known ahead: one position each, or several.

    Raises ValueError if what the network says of a revealed position is not a number.
    """
    assert denoiser.order_ahead is not None
    began = _now(denoiser)
    held = denoiser.hold(canvases)
    window = denoiser.pace.window(len(held))
    _plan(denoiser, held, window)
    asks = [_ask(denoiser, own, window) for own in held]
    positions = [position for ask in asks for position, _ in ask.questions]
    asked = [ask.held.canvas for ask in asks for _ in ask.questions]
    log_p = log_probabilities(denoiser.logits(denoiser.ask(asks), np.array(positions)))
    noise = reveal_noise([canvas.seed for canvas in asked], positions)
    ids, logprobs = (x.tolist() for x in draw(log_p, noise.states, [canvas.params for canvas in asked]))
    drawn = iter(zip(ids, logprobs, noise.values.tolist(), strict=True))
    accepted = [_accepted(ask, list(islice(drawn, len(ask.questions)))) for ask in asks]
    results = [_advance(denoiser, ask.held, *own) for ask, own in zip(asks, accepted, strict=True)]
    num_revealed = sum(len(result.reveals) for result in results)
    denoiser.num_saved += num_revealed - len(results)
    denoiser.pace.record(len(held), window, seconds=_now(denoiser) - began, num_revealed=num_revealed)
    return results


def _plan(denoiser: AlongDenoiser, held: Sequence[Held], window: int) -> None:
    """Sees to it that each canvas knows as many of its next positions, or all."""
    short = [own for own in held if len(own.plan) < min(window, own.num_hidden)]
    if not short:
        return
    assert denoiser.order_ahead is not None
    hidden = np.stack([own.hidden for own in short])
    planned = plan_ahead([own.canvas for own in short], hidden, denoiser.order_ahead, max(_PLANNED, window))
    for own, positions, logprobs in zip(short, planned.positions.tolist(), planned.logprobs.tolist(), strict=True):
        own.plan = list(zip(positions, logprobs, strict=True))[: own.num_hidden]


def _ask(denoiser: AlongDenoiser, own: Held, window: int) -> Ask:
    """The questions of the next positions, as far as their columns differ, and the contents of their drafts."""
    first = own.canvas.num_forwards + 1
    questions, contents, columns = list[Question](), list(own.pending), set[int]()
    for turn, (position, _) in enumerate(own.plan[:window], first):
        column = denoiser.network.own_column(position)
        if column in columns:
            break
        columns.add(column)
        questions.append(Question(position, turn))
    for position, turn in questions[:-1]:
        if position not in own.drafts:
            break
        contents.append(Content(position, own.drafts[position], turn))
    return Ask(own, contents, questions)


def _accepted(ask: Ask, drawn: Sequence[tuple[int, float, float]]) -> tuple[list[Reveal], dict[int, int]]:
    """What is certain, up to the first draw that differs from its draft or had none; and the drafts for the rest."""
    own, reveals, canvas = ask.held, list[Reveal](), ask.held.canvas
    drafts = [content.token_id for content in ask.contents[len(own.pending) :]]
    is_drawn = canvas.params.is_order_drawn
    for k, (token_id, logprob, value) in enumerate(drawn):
        position, order_logprob = own.plan[k]
        if not (math.isfinite(logprob) and (math.isfinite(order_logprob) or not is_drawn)):
            raise ValueError(f"the denoiser's logits at position {position} are not finite")
        reveals.append(Reveal(position, token_id, canvas.step + k, logprob, order_logprob if is_drawn else None, value))
        if k >= len(drafts) or drafts[k] != token_id:
            break
    num = len(reveals)
    rest = zip(ask.questions[num:], drawn[num:], strict=True)
    return reveals, {question.position: token_id for question, (token_id, _, _) in rest}


def _advance(denoiser: AlongDenoiser, own: Held, reveals: list[Reveal], drafts: dict[int, int]) -> StepResult:
    after = apply(own.canvas, reveals)
    denoiser.settle(own)
    denoiser.rows.advance(own, after, [reveal.position for reveal in reveals], num_computed=len(reveals) - 1)
    del own.plan[: len(reveals)]
    own.drafts = drafts
    return StepResult(after, tuple(reveals))


def _now(denoiser: AlongDenoiser) -> float:
    """Seconds: of this thread on a CPU, which others may share."""
    return time.thread_time() if denoiser.network.size.device.type == "cpu" else time.perf_counter()
