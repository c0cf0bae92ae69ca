"""Orders that are known before a forward says anything: those that follow from the canvas and its noise alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.noise import Floats, order_gumbel_ahead
from unveil.model.decoding.order_keys import Bools, Ints, choice_logprobs, fixed_keys, log_rates, rank


class Planned(NamedTuple):
    """What each canvas reveals in its next K steps, [B, K] each. Behind its last hidden position anything may stand.

    `logprobs`: of each choice, as `model.decoding.step_plan.Plan` has it; NaN where the order is not drawn. `counts`
    [B]: how many steps there are, K at most.
    """

    positions: Ints
    logprobs: Floats
    counts: Ints


def is_known_ahead(canvas: Canvas) -> bool:
    """Whether a canvas reveals one position a step, in an order that asks for no token logits, and what is drawn is
    revealed."""
    is_settled = canvas.trials is None or canvas.trials.is_over
    return is_settled and canvas.params.is_single and canvas.params.measure is None


def plan_ahead(
    canvases: Sequence[Canvas], hidden: Bools, order_logits: Floats, num: int, *, ends: Bools | None = None
) -> Planned:
    """The next `num` steps among `hidden` [B, W], where order logits [W] are the same whatever is revealed.

    `ends` [B, W]: where an end will be revealed, if that is known, which decides what lies behind it.

    The same as `model.decoding.step_plan.plan_step` finds step by step. ValueError for logits that are not numbers.
    """
    B, W = hidden.shape
    logits = np.broadcast_to(order_logits, (B, W))
    planned = Planned(np.zeros((B, num), np.int64), np.full((B, num), np.nan), np.zeros(B, np.int64))
    ends = np.zeros_like(hidden) if ends is None else ends
    drawn = [row for row, canvas in enumerate(canvases) if canvas.params.is_order_drawn]
    for row, canvas in enumerate(canvases):
        if not canvas.params.is_order_drawn:
            keys = fixed_keys(canvas.params.order, [canvas], logits[row : row + 1], None)
            ranking = rank(keys.reshape(1, W), hidden[row : row + 1], is_whole=True)[0, : int(hidden[row].sum())]
            positions = _without_decided(ranking.tolist(), ends[row])[:num]
            planned.positions[row, : len(positions)], planned.counts[row] = positions, len(positions)
    if drawn:
        race = _race([canvases[row] for row in drawn], hidden[drawn], logits[drawn], num, ends[drawn])
        for whole, part in zip(planned, race, strict=True):
            whole[drawn] = part
    return planned


def _without_decided(ranking: Sequence[int], ends: Bools) -> list[int]:
    """A ranking without what lies behind an end that comes earlier in it."""
    found, first_end = list[int](), len(ends)
    for position in ranking:
        if position < first_end:
            found.append(position)
            first_end = position if ends[position] else first_end
    return found


def _race(canvases: Sequence[Canvas], hidden: Bools, logits: Floats, num: int, ends: Bools) -> Planned:
    """The same of orders that are drawn."""
    B, W = hidden.shape
    noise = order_gumbel_ahead([canvas.seed for canvas in canvases], [canvas.step for canvas in canvases], num, W)
    keys, left, rows = -(log_rates(canvases, logits)[:, None] + noise), hidden.copy(), np.arange(B)
    choices, remaining = np.zeros((B, num), np.int64), np.zeros((B, num, W), np.bool_)
    for k in range(num):
        remaining[:, k] = left
        choices[:, k] = rank(keys[:, k], left, is_whole=False)[:, 0]
        left[rows, choices[:, k]] = False
        for row in np.flatnonzero(ends[rows, choices[:, k]]).tolist():
            left[row, choices[row, k] :] = False
    is_learned = np.array([canvas.params.order == "learned" for canvas in canvases])
    log_w = np.where(is_learned[:, None], logits, 0.0)
    at, steps = np.nonzero(remaining.any(2))
    found = np.full((B, num), np.nan)
    ones = np.ones(len(at), np.int64)
    found[at, steps] = choice_logprobs(log_w[at], remaining[at, steps], choices[at, steps][:, None], ones)[:, 0]
    return Planned(choices, found, remaining.any(2).sum(1))
