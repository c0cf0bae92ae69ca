"""What a step reveals: which positions of each canvas, decided before any token is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unveil.model.decoding.batch import Batch, Sureness, groups
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.noise import Floats, gumbel_at
from unveil.model.decoding.order_keys import (
    Bools,
    Ints,
    choice_logprobs,
    count_passing,
    fixed_keys,
    log_rates,
    planned_count,
    race_keys,
    rank,
    time_step,
)

_STEPS_AT_ONCE = 64  # idle time steps of a canvas tried together, at first
_ROUNDING = 1e-9  # far beyond that of a sum: what is so close is decided by the time step itself
_LONG = 50.0  # log of a time by which everything has arrived


class Plan(NamedTuple):
    """What a step reveals: each canvas's `ranking` [B, N], the `counts` [B] taken from its head, and the `steps`."""

    ranking: Ints
    counts: Ints
    steps: list[int]
    order_logprobs: Floats  # [B, N] along the ranking; NaN where the order is deterministic


class Keys(NamedTuple):
    """Each position's key [B, W], smallest first, and how many positions the order itself reveals at which steps."""

    keys: Floats
    counts: Ints
    steps: list[int]


def plan_step(batch: Batch, sure: Sureness) -> Plan:
    """Ranks each canvas's hidden positions by its order and says how many of them its next step reveals."""
    keys, counts, steps = batch_keys(batch, sure)
    limits = {row: own.threshold for row, own in enumerate(batch.params) if own.threshold is not None}
    limited = list(limits)
    ranking = rank(keys, batch.hidden, is_whole=bool(limits or counts.max() > 1))
    for measure, at in groups([sure.measures[row] for row in limited]):
        assert measure is not None
        rows = [limited[i] for i in at]
        values = sure.values[measure][rows]
        passing = count_passing(values, np.array([limits[row] for row in rows]), ranking[rows], measure)
        counts[rows] = np.minimum(np.maximum(passing, 1), batch.hidden[rows].sum(1))
    return Plan(ranking, counts, steps, _order_logprobs(batch, ranking, counts))


def batch_keys(batch: Batch, sure: Sureness) -> Keys:
    """By each canvas's own order."""
    keys, steps = np.empty(batch.hidden.shape), [canvas.step for canvas in batch.canvases]
    counts = np.ones(len(steps), np.int64)
    for row, own in enumerate(batch.params):
        if not own.is_single:
            counts[row] = planned_count(batch.canvases[row], int(batch.hidden[row].sum()))
    for (order, is_drawn), rows in groups([(own.order, own.is_order_drawn) for own in batch.params]):
        canvases, logits = [batch.canvases[row] for row in rows], batch.order_logits[rows]
        if not is_drawn:
            measured = sure.values[order][rows] if order in sure.values else None
            keys[rows] = fixed_keys(order, canvases, logits, measured)
            continue
        race = _race(canvases, log_rates(canvases, logits), batch.hidden[rows])
        keys[rows], counts[rows] = race.keys, np.where(race.counts > 0, race.counts, counts[rows])
        for row, at in zip(rows, race.steps, strict=True):
            steps[row] = at
    return Keys(keys, counts, steps)


class _Race(NamedTuple):
    keys: Floats  # [B, W] log arrival times
    counts: Ints  # [B] arrivals within the time step; 0 for canvases without time steps
    steps: list[int]


def _race(canvases: Sequence[Canvas], rates: Floats, hidden: Bools) -> _Race:
    """Runs the race of every row. A time step in which nothing arrives changes nothing, so the row goes on to its next
    one within the same forward."""
    steps = [canvas.step for canvas in canvases]
    keys, counts = race_keys(canvases, rates, steps), np.zeros(len(canvases), np.int64)
    waiting = [row for row, canvas in enumerate(canvases) if canvas.params.steps is not None]
    if not np.isfinite(rates[waiting][hidden[waiting]]).all():  # what never arrives would be waited for without end
        raise ValueError("the denoiser's order logits are not finite")
    while waiting:
        at = [steps[row] for row in waiting]
        times, arrivals = _arrivals([canvases[row] for row in waiting], rates[waiting], hidden[waiting], at)
        keys[waiting], counts[waiting] = times, arrivals
        waiting = [row for row, num in zip(waiting, arrivals.tolist(), strict=True) if num == 0]
        for row in waiting:
            steps[row] = _next_busy(canvases[row], rates[row], hidden[row], steps[row] + 1)
    return _Race(keys, counts, steps)


def _arrivals(canvases: Sequence[Canvas], rates: Floats, hidden: Bools, steps: Sequence[int]) -> tuple[Floats, Ints]:
    """Log arrival times [R, W] at each row's time step, and how many fall into it [R]."""
    left = np.array([_steps_left(canvas, at) for canvas, at in zip(canvases, steps, strict=True)])
    times = race_keys(canvases, rates, steps)
    return times, (hidden & (times < time_step(rates, hidden, left)[:, None])).sum(-1)


def _next_busy(canvas: Canvas, rates: Floats, hidden: Bools, first: int) -> int:
    """The first time step from `first` on in which something may arrive: rates and hidden [W] -> its index.

    A step ends at tau, where the expected number of arrivals, which grows with tau, is its share (`time_step`). So
    nothing arrives if already at the earliest arrival more than the share is expected. The last step is always busy.
    """
    positions = np.flatnonzero(hidden)
    log_w, num, ahead = rates[positions], len(positions), _STEPS_AT_ONCE
    while True:
        tried = np.arange(first, first + ahead)
        share = num / np.array([_steps_left(canvas, at) for at in tried.tolist()])
        earliest = -(log_w + gumbel_at(canvas.seed, tried, positions)).max(-1)  # [K]
        expected = -np.expm1(-np.exp(np.minimum(log_w + earliest[:, None], _LONG))).sum(-1)
        busy = np.flatnonzero((expected <= share * (1 + _ROUNDING)) | (share >= num))
        if len(busy):
            return first + int(busy[0])
        first, ahead = first + ahead, 2 * ahead


def _steps_left(canvas: Canvas, at: int) -> int:
    return max((canvas.params.steps or 0) - at, 1)


def _order_logprobs(batch: Batch, ranking: Ints, counts: Ints) -> Floats:
    """Of each choice along the ranking, under the unmodified law; NaN where the order is not drawn."""
    found = np.full(ranking.shape, np.nan)
    rows = [row for row, own in enumerate(batch.params) if own.is_order_drawn]
    if rows:  # rates of an order that is not learned are equal, whatever the logits of the batch
        learned = np.array([batch.params[row].order == "learned" for row in rows])[:, None]
        log_w = np.where(learned, batch.order_logits[rows], 0.0)
        found[rows] = choice_logprobs(log_w, batch.hidden[rows], ranking[rows], counts[rows])
    return found
