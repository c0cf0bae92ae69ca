"""Samples of a model that meet a condition, exact in law: what some positions may hold, whatever the others hold.

The constrained positions come first, in the canvas's own order, each drawn from its law restricted to what is allowed.
A restricted draw costs its mass Z, the probability of drawing something allowed there. So what was drawn has, beside
the model's law under the condition, a weight that is the product of all Z, of mean P(condition) (sequential importance
sampling). The Z of the first forward is the same for every attempt, and no other is above one: an attempt is accepted
with the probability product / first, and what is accepted has the law under the condition exactly (rejection). With one
constrained position every attempt is accepted.

Rules between positions do not change the order. What a position may hold given those that are known is such a
restriction, too. An attempt is complete when all positions of all rules are known. One that breaks a rule, because
several positions came in one step, has no weight.

The noise of the order is that of the canvas in every attempt; that of tokens is the attempt's own. Once `attempts` were
all rejected, one of them is taken with the probability of its weight: then the law is approximate, and
`Trials.is_exact` says so. If none has any weight, `Trials.is_unmet` does, and the canvas stays as it was.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from unveil.model.decoding.canvas import HIDDEN, Canvas, Part, Reveal, Rule, Shown, Trials, apply
from unveil.model.decoding.noise import reveal_noise
from unveil.model.decoding.seeds import attempt_seed

_DECISIONS = (1 << 32) - 1, (1 << 32) - 2  # no positions: whether an attempt is accepted, and whether it is kept


class Tried(NamedTuple):
    """A canvas after a step of an attempt, and what of it is settled: nothing until an attempt is taken."""

    canvas: Canvas
    reveals: tuple[Reveal, ...]


def parts_of(canvas: Canvas, position: int) -> tuple[Part, ...] | None:
    """What an attempt may draw at a position; None if anything."""
    condition, trials = canvas.params.condition, canvas.trials
    if condition is None or trials is None or trials.is_over:
        return None
    parts = condition.parts.get(position)
    if not condition.rules:
        return parts
    known = _shown(trials.path)
    for rule in condition.rules:
        if position in rule.positions and (own := rule.allowed(position, known)) is not None:
            parts = own if parts is None else _common(parts, own)
    return parts


def seed_of(canvas: Canvas) -> int:
    """Whose noise a position is revealed with."""
    if canvas.trials is None or canvas.trials.is_over:
        return canvas.seed
    return attempt_seed(canvas.seed, canvas.trials.weights.num)


def _shown(path: Sequence[Reveal]) -> dict[int, Shown]:
    return {reveal.position: (reveal.token_id, reveal.uniform) for reveal in path}


def _common(parts: Sequence[Part], others: Sequence[Part]) -> tuple[Part, ...]:
    """What is in both."""
    pairs = [(a, b) for a in parts for b in others if a.token_id == b.token_id]
    found = [Part(a.token_id, max(a.low, b.low), min(a.high, b.high)) for a, b in pairs]
    return tuple(part for part in found if part.low < part.high)


def uniform_within(parts: Sequence[Part], token_id: int, uniform: float) -> float:
    """The uniform by which a token's value is drawn, moved into those of the parts that are of this token."""
    own = [part for part in parts if part.token_id == token_id]
    if not own:  # where nothing is allowed that can be
        return uniform
    left = uniform * sum(part.high - part.low for part in own)
    for part in own[:-1]:
        if left < part.high - part.low:
            return part.low + left
        left -= part.high - part.low
    return min(own[-1].low + left, own[-1].high)


def stands_where(canvas: Canvas, other: Canvas) -> bool:
    """Whether a denoiser that has followed one of them has followed the other."""
    return canvas.tokens == other.tokens and canvas.ranks == other.ranks


def open_positions(canvas: Canvas) -> list[int]:
    """The positions that come first and are hidden; none once an attempt has been taken."""
    if canvas.trials is None or canvas.trials.is_over:
        return []
    assert canvas.params.condition is not None
    return [position for position in canvas.params.condition.parts if canvas.hidden[position]]


def advance(before: Canvas, after: Canvas, reveals: Sequence[Reveal], log_mass: float) -> Tried:
    """What becomes of a canvas that an attempt has brought from `before` to `after`; `log_mass` is of its draws."""
    trials, condition = before.trials, before.params.condition
    assert trials is not None
    assert condition is not None
    is_first = before.num_forwards == 0
    if not _are_kept(condition.rules, trials.path, reveals):
        log_mass = -math.inf
    trials = replace(
        trials,
        path=(*trials.path, *reveals),
        log_weight=trials.log_weight + log_mass,
        log_first=log_mass if is_first else trials.log_first,
        num_forwards=trials.num_forwards + 1,
    )
    after = replace(after, trials=trials)
    is_open = open_positions(after) or any(after.hidden[i] for rule in condition.rules for i in rule.positions)
    return Tried(after, ()) if is_open and trials.log_weight > -math.inf else _decided(after, trials)


def _are_kept(rules: Sequence[Rule], path: Sequence[Reveal], reveals: Sequence[Reveal]) -> bool:
    """Whether all rules hold that a step has decided."""
    if not rules:
        return True
    known, new = _shown([*path, *reveals]), {reveal.position for reveal in reveals}
    decided = (rule for rule in rules if not new.isdisjoint(rule.positions) and known.keys() >= set(rule.positions))
    return all(rule.holds(known) for rule in decided)


def _decided(canvas: Canvas, trials: Trials) -> Tried:
    """An attempt is complete: it is taken, or the next one begins, or the last has been made."""
    condition = canvas.params.condition
    assert condition is not None
    seed = attempt_seed(canvas.seed, trials.weights.num)
    accepts, keeps = (math.log(own) for own in reveal_noise([seed, seed], list(_DECISIONS)).values.tolist())
    weights = trials.weights.and_one(trials.log_weight)
    is_possible = trials.log_weight > -math.inf
    is_kept = is_possible and keeps < trials.log_weight - weights.log_sum
    trials = replace(trials, weights=weights, kept=trials.path if is_kept else trials.kept)
    if is_possible and accepts < trials.log_weight - trials.log_first:
        return _taken(canvas, trials, trials.path, is_exact=True)
    if weights.num < condition.attempts:
        return Tried(replace(_begun_again(canvas), trials=replace(trials, path=(), log_weight=0.0)), ())
    if weights.log_sum == -math.inf:
        given_up = replace(trials, path=(), is_over=True, is_unmet=True)
        return Tried(replace(_begun_again(canvas), trials=given_up), ())
    return _taken(canvas, trials, trials.kept, is_exact=False)


def _taken(canvas: Canvas, trials: Trials, path: tuple[Reveal, ...], *, is_exact: bool) -> Tried:
    """The canvas with the reveals of one attempt in it, as if there had been no other."""
    taken = apply(_begun_again(canvas), path)
    wasted = trials.num_forwards - taken.num_forwards
    trials = replace(trials, path=(), kept=(), is_over=True, is_exact=is_exact, num_forwards=wasted)
    return Tried(replace(taken, trials=trials), path)


def _begun_again(canvas: Canvas) -> Canvas:
    """As before its first step."""
    is_given = [rank == 0 for rank in canvas.ranks]
    return replace(
        canvas,
        tokens=tuple(x if given else 0 for x, given in zip(canvas.tokens, is_given, strict=True)),
        hidden=tuple(not given for given in is_given),
        ranks=tuple(0 if given else HIDDEN for given in is_given),
        step=0,
        num_forwards=0,
    )
