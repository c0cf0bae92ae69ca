"""Which hidden position is revealed next: every order policy as a key a position, smallest first.

Learned and uniform orders are an exponential race (`model.order.schedule`): position i arrives after a time
`E_i ~ Exponential(rate w_i)`, and the arrivals in ascending order are Plackett-Luce(w). The race has no memory, so it
is run afresh at every step among the hidden positions, which lets `w` depend on what has been revealed.

What needs the vocabulary is computed where the logits are; all else is a few numbers a canvas, in NumPy on the host.
Widths are `padded_width`s, the same for all canvases of a length bucket, so that sums round alike in any company.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unveil.model.confidence import LANES
from unveil.model.decoding.canvas import Canvas, OrderPolicy
from unveil.model.decoding.noise import Floats, order_gumbel

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_BISECTIONS = 60
_LAST = np.finfo(np.float64).max
_HEURISTICS: tuple[OrderPolicy, ...] = ("confidence", "margin", "entropy")


def padded_width(length: int) -> int:
    """A power of two from 16, which all canvases of a length bucket share."""
    return max(LANES, 1 << (length - 1).bit_length())


def log_rates(canvases: Sequence[Canvas], order_logits: Floats) -> Floats:
    """Log-rates of the race, [B, W]: the learned ones at the canvas's order temperature, or all equal."""
    heat = [c.params.order_temperature or 1.0 if c.params.order == "learned" else math.inf for c in canvases]
    if all(t == 1.0 for t in heat):
        return order_logits
    column = np.array(heat)[:, None]
    rates: Floats = np.where(np.isinf(column), 0.0, order_logits / column)
    return rates


def race_keys(canvases: Sequence[Canvas], rates: Floats, steps: Sequence[int]) -> Floats:
    """Logarithm of each position's arrival time at the canvas's own `steps`: -(log w + Gumbel), [B, W]."""
    return -(rates + order_gumbel([c.seed for c in canvases], steps, rates.shape[1]))


def fixed_keys(order: OrderPolicy, canvases: Sequence[Canvas], order_logits: Floats, sure: Floats | None) -> Floats:
    """Keys of a policy that draws nothing, [B, W] or [W]; `sure` [B, W] is the policy's own measure if it has one."""
    W = order_logits.shape[1]
    if order == "learned":
        return -order_logits
    if order == "explicit":
        return np.array([_ranks(c.params.explicit_order or (), W) for c in canvases])
    if order in _HEURISTICS:
        assert sure is not None
        return sure if order == "entropy" else -sure
    positions = np.arange(W, dtype=np.float64)
    return positions if order == "left_to_right" else -positions


def _ranks(explicit_order: Sequence[int], width: int) -> list[float]:
    """When each position's turn comes; never, for those that are not listed."""
    ranks = [math.inf] * width
    for rank_, position in enumerate(explicit_order):
        ranks[position] = float(rank_)
    return ranks


def time_step(rates: Floats, hidden: Bools, steps_left: Ints) -> Floats:
    """Logarithm of the race time tau that ends this time step: [B, W], [B, W], [B] -> [B], infinite on the last step.

    A time step from t to s reveals the positions whose T_i falls into (s, t], which in the race is
    `E_i < tau = log(t/s)`. Only ratios of w matter, so the grid is free: tau is set such that the step is expected to
    reveal its equal share, `sum_i 1 - exp(-w_i tau) = hidden / steps_left`. Equal weights give the linear grid in t.

    The grid therefore adapts to what each canvas has left. The law of the order is the schedule's; which positions fall
    into one step together is not, as it would be on one grid fixed beforehand.
    """
    share = hidden.sum(-1) / steps_left
    centre = np.where(hidden, rates, -np.inf).max(-1)
    low = np.full_like(share, -40.0)  # of log tau, in units of the fastest position's rate
    high = centre - np.where(hidden, rates, np.inf).min(-1) + 10.0
    log_w = np.where(hidden, rates - centre[:, None], -np.inf)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        expected = -np.expm1(-np.exp(log_w + middle[:, None])).sum(-1)
        low, high = np.where(expected < share, middle, low), np.where(expected < share, high, middle)
    ends: Floats = np.where(steps_left <= 1, np.inf, (low + high) / 2 - centre)
    return ends


def rank(keys: Floats, hidden: Bools, *, is_whole: bool) -> Ints:
    """Positions by ascending key, hidden ones first, ties to the lowest: [B, W] -> [B, W], or only the first [B, 1].

    Raises ValueError where a hidden position's key is not a number.
    """
    finite = np.minimum(keys, _LAST)  # a position that is never listed still goes before those that are not hidden
    keys = np.where(hidden, finite, np.inf)
    if np.isnan(keys).any():
        raise ValueError("the denoiser's order logits are not finite")
    return keys.argsort(-1, kind="stable") if is_whole else keys.argmin(-1)[:, None]


def choice_logprobs(log_w: Floats, hidden: Bools, ranking: Ints, counts: Ints) -> Floats:
    """Plackett-Luce log-probability of each choice along the ranking: [B, W], [B, W], [B, N], [B] -> [B, N].

    A row that reveals one position is summed over its positions, one that reveals more along its own ranking: a row's
    rounding is its own affair.
    """
    log_w = np.where(hidden, log_w, -np.inf)
    found = np.take_along_axis(log_w, ranking, 1)
    many = np.flatnonzero(counts > 1)
    if len(many):
        remaining = np.logaddexp.accumulate(found[many, ::-1], 1)[:, ::-1]
    top = log_w.max(-1)
    found[:, 0] -= top + np.log(np.exp(log_w - top[:, None]).sum(-1))
    if len(many):
        with np.errstate(invalid="ignore"):  # behind the last hidden position there is nothing to choose
            found[many] = np.take_along_axis(log_w[many], ranking[many], 1) - remaining
    return found


def count_passing(sure: Floats, threshold: Floats, ranking: Ints, measure: OrderPolicy | None) -> Ints:
    """How many positions at the head of the ranking [B, N] are sure enough for each threshold [B]: [B]."""
    measured = np.take_along_axis(sure, ranking, 1)
    passing = measured <= threshold[:, None] if measure == "entropy" else measured >= threshold[:, None]
    counts: Ints = np.logical_and.accumulate(passing, 1).sum(-1)
    return counts


def planned_count(canvas: Canvas, num_hidden: int) -> int:
    """How many positions a canvas reveals in its next step, where that follows from the canvas alone."""
    params = canvas.params
    if params.tokens_per_step is not None:
        return min(params.tokens_per_step, num_hidden)
    if params.steps is not None:
        return math.ceil(num_hidden / max(params.steps - canvas.step, 1))
    return 1
