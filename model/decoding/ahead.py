"""Orders that are known before a forward says anything: those that follow from the canvas and its noise alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.noise import Floats, order_gumbel_ahead
from unveil.model.decoding.order_keys import Bools, Ints, choice_logprobs, fixed_keys, log_rates, rank


class Planned(NamedTuple):
    """What each canvas reveals in its next K steps, [B, K] each. Behind its last hidden position anything may stand.

    `logprobs`: of each choice, as `model.decoding.step_plan.Plan` has it; NaN where the order is not drawn.
    """

    positions: Ints
    logprobs: Floats


def is_known_ahead(canvas: Canvas) -> bool:
    """Whether a canvas reveals one position a step, in an order that asks for no token logits."""
    return canvas.params.is_single and canvas.params.measure is None


def plan_ahead(canvases: Sequence[Canvas], hidden: Bools, order_logits: Floats, num: int) -> Planned:
    """The next `num` steps among `hidden` [B, W], where order logits [W] are the same whatever is revealed.

    The same as `model.decoding.step_plan.plan_step` finds step by step. ValueError for logits that are not numbers.
    """
    B, W = hidden.shape
    logits = np.broadcast_to(order_logits, (B, W))
    planned = Planned(np.zeros((B, num), np.int64), np.full((B, num), np.nan))
    drawn = [row for row, canvas in enumerate(canvases) if canvas.params.is_order_drawn]
    for row, canvas in enumerate(canvases):
        if not canvas.params.is_order_drawn:
            keys = fixed_keys(canvas.params.order, [canvas], logits[row : row + 1], None)
            ranking = rank(keys.reshape(1, W), hidden[row : row + 1], is_whole=True)
            planned.positions[row, : min(num, W)] = ranking[0, :num]
    if drawn:
        race = _race([canvases[row] for row in drawn], hidden[drawn], logits[drawn], num)
        planned.positions[drawn], planned.logprobs[drawn] = race
    return planned


def _race(canvases: Sequence[Canvas], hidden: Bools, logits: Floats, num: int) -> Planned:
    """The same of orders that are drawn."""
    B, W = hidden.shape
    noise = order_gumbel_ahead([canvas.seed for canvas in canvases], [canvas.step for canvas in canvases], num, W)
    keys, left, rows = -(log_rates(canvases, logits)[:, None] + noise), hidden.copy(), np.arange(B)
    choices, remaining = np.zeros((B, num), np.int64), np.zeros((B, num, W), np.bool_)
    for k in range(num):
        remaining[:, k] = left
        choices[:, k] = rank(keys[:, k], left, is_whole=False)[:, 0]
        left[rows, choices[:, k]] = False
    is_learned = np.array([canvas.params.order == "learned" for canvas in canvases])
    log_w = np.where(is_learned[:, None], logits, 0.0)
    row, k = np.nonzero(remaining.any(2))
    found = np.full((B, num), np.nan)
    ones = np.ones(len(row), np.int64)
    found[row, k] = choice_logprobs(log_w[row], remaining[row, k], choices[row, k][:, None], ones)[:, 0]
    return Planned(choices, found)
