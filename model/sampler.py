"""One denoising step over a batch of canvases, on any callable denoiser. Knows no network, no request and no clock.

A step takes canvases of different lengths, prompts, orders and parameters, runs one forward over all of them, and
gives each canvas back with what it revealed. Noise is keyed by the canvas alone (`model.noise`), so a canvas's future
does not depend on its neighbours as long as the denoiser's rows do not.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from model import policies
from model.canvas import Canvas, Reveal
from model.denoiser import Denoiser, Prediction
from model.noise import uniforms

LANES = 16  # rows padded to whole vector registers: a remainder takes another code path, which may round differently
_STEPS_AT_ONCE = 64  # idle time steps tried together


class StepResult(NamedTuple):
    """A canvas after a step, and what the step revealed of it, in the order of reveal."""

    canvas: Canvas
    reveals: tuple[Reveal, ...]


class Decoded(NamedTuple):
    """One step of one canvas among several: its number, the canvas now, and what was revealed."""

    sample: int
    canvas: Canvas
    reveals: tuple[Reveal, ...]


class _Plan(NamedTuple):
    """What a step reveals: each row's `ranking` [B, L], the `counts` [B] taken from its head, and the `steps` [B]."""

    ranking: Tensor
    counts: Tensor
    steps: Tensor
    order_logprob: Tensor  # [B, L], along the ranking; NaN where the order is deterministic


@torch.inference_mode()
def step(denoise: Denoiser, canvases: Sequence[Canvas], *, device: torch.device | None = None) -> list[StepResult]:
    """One denoising step of every canvas; none may be complete.

    Raises ValueError if the denoiser's output does not fit the canvases or is not a number.
    """
    assert canvases
    assert not any(canvas.is_complete for canvas in canvases)
    tokens, hidden, lengths = collate(canvases, device)
    prediction = checked(denoise(tokens, hidden, lengths), tokens)
    plan = _plan(canvases, prediction, hidden)
    reveals = _draw(canvases, prediction, plan)
    return [StepResult(apply(c, r), tuple(r)) for c, r in zip(canvases, reveals, strict=True)]


def _draw(canvases: Sequence[Canvas], prediction: Prediction, plan: _Plan) -> list[list[Reveal]]:
    """Draws the tokens of the planned positions, and takes everything off the device once."""
    device = plan.ranking.device
    taken = torch.arange(plan.ranking.shape[1], device=device) < plan.counts[:, None]  # [B, L] along the ranking
    rows, ranks = taken.nonzero(as_tuple=True)  # [R] each
    positions = plan.ranking[rows, ranks]
    seeds = torch.tensor([canvas.seed for canvas in canvases], device=device)[rows]
    token_noise, value_noise = uniforms(seeds, plan.steps[rows], positions, purpose="reveal")
    params = [canvases[row].params for row in rows.tolist()]
    ids, logprobs = draw_tokens(
        prediction.token_logits[rows, positions],
        token_noise,
        temperature=[p.temperature for p in params],
        top_k=[p.top_k for p in params],
        top_p=[p.top_p for p in params],
    )
    revealed = zip(
        rows.tolist(),
        positions.tolist(),
        ids.tolist(),
        plan.steps[rows].tolist(),
        logprobs.tolist(),
        plan.order_logprob[rows, ranks].tolist(),
        value_noise.tolist(),
        strict=True,
    )
    reveals: list[list[Reveal]] = [[] for _ in canvases]
    for row, position, token_id, at, logprob, order_logprob, uniform in revealed:
        if not math.isfinite(logprob):
            raise ValueError(f"the denoiser's logits at position {position} are not finite")
        drawn = None if math.isnan(order_logprob) else order_logprob
        reveals[row].append(Reveal(position, token_id, at, logprob, drawn, uniform))
    return reveals


def apply(canvas: Canvas, reveals: Sequence[Reveal]) -> Canvas:
    """The canvas with one step's reveals in it: ready for its next step."""
    tokens, hidden = list(canvas.tokens), list(canvas.hidden)
    for reveal in reveals:
        assert hidden[reveal.position]
        tokens[reveal.position], hidden[reveal.position] = reveal.token_id, False
    return Canvas(
        tokens=tuple(tokens),
        hidden=tuple(hidden),
        seed=canvas.seed,
        params=canvas.params,
        num_at_start=canvas.num_at_start,
        step=reveals[0].step + 1,
        num_forwards=canvas.num_forwards + 1,
    )


@torch.inference_mode()
def order_probabilities(
    denoise: Denoiser, canvas: Canvas, *, device: torch.device | None = None
) -> list[tuple[int, float]]:
    """The model's own probability of each hidden position to be revealed next, by position."""
    tokens, hidden, lengths = collate([canvas], device)
    prediction = checked(denoise(tokens, hidden, lengths), tokens)
    positions = hidden[0].nonzero().squeeze(-1)
    law = prediction.order_logits[0, positions].to(torch.float64).softmax(-1)
    return list(zip(positions.tolist(), law.tolist(), strict=True))


def collate(canvases: Sequence[Canvas], device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Canvases -> tokens [B, L], hidden [B, L], lengths [B], padded with visible zeros to the longest."""
    L = max(canvas.length for canvas in canvases)
    tokens = [[*canvas.tokens, *[0] * (L - canvas.length)] for canvas in canvases]
    hidden = [[*canvas.hidden, *[False] * (L - canvas.length)] for canvas in canvases]
    lengths = [canvas.length for canvas in canvases]
    return (
        torch.tensor(tokens, dtype=torch.int64, device=device),
        torch.tensor(hidden, dtype=torch.bool, device=device),
        torch.tensor(lengths, dtype=torch.int64, device=device),
    )


def draw_tokens(
    logits: Tensor,
    noise: Tensor,
    *,
    temperature: Sequence[float],
    top_k: Sequence[int | None],
    top_p: Sequence[float | None],
) -> tuple[Tensor, Tensor]:
    """Draws one id a row by inverting its distribution function at `noise`: [R, V], [R] -> ids [R], logprobs [R].

    Temperature, then top-k, then top-p (the smallest set of likeliest ids whose mass reaches p), all in float64; ties
    go to the lowest id. The log-probability is the unmodified model's.
    """
    V = logits.shape[-1]
    padded = torch.nn.functional.pad(logits.to(torch.float64), (0, -V % LANES), value=-torch.inf)  # [R, V']
    log_p = padded.log_softmax(-1)
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    ways = [_way(*given) for given in zip(temperature, top_k, top_p, strict=True)]
    for way in set(ways):  # a row goes its own way whoever its neighbours are
        rows = [row for row, own in enumerate(ways) if own == way]
        at: slice | Tensor = slice(None) if len(rows) == len(ways) else torch.tensor(rows, device=logits.device)
        if way == "likeliest":
            ids[at] = log_p[at].argmax(-1)
            continue
        tempered = _tempered(log_p[at], [temperature[row] for row in rows])
        mass = tempered.exp()
        if way == "filtered":
            mass = _filtered(tempered, [top_k[row] or V for row in rows], [top_p[row] for row in rows])
        cumulative = mass.cumsum(-1)
        ids[at] = (cumulative <= noise[at, None] * cumulative[:, -1:]).sum(-1)
    return ids, log_p.gather(-1, ids[:, None]).squeeze(-1)


def _way(temperature: float, top_k: int | None, top_p: float | None) -> Literal["likeliest", "plain", "filtered"]:
    if temperature == 0:
        return "likeliest"
    return "plain" if top_k is None and top_p is None else "filtered"


def _tempered(log_p: Tensor, temperature: Sequence[float]) -> Tensor:
    """Log-probabilities [R, V'] at each row's temperature."""
    if all(t == 1.0 for t in temperature):
        return log_p
    heat = torch.tensor(temperature, dtype=torch.float64, device=log_p.device)[:, None]
    return torch.where(heat == 1.0, log_p, (log_p / heat).log_softmax(-1))


def _filtered(log_p: Tensor, top_k: Sequence[int], top_p: Sequence[float | None]) -> Tensor:
    """Unnormalised probabilities [R, V'] after top-k and then top-p."""
    k = torch.tensor(top_k, device=log_p.device)
    p = torch.tensor([1.0 if p is None else p for p in top_p], dtype=torch.float64, device=log_p.device)
    order = log_p.sort(dim=-1, descending=True, stable=True).indices
    ranked = log_p.gather(-1, order)
    ranked = ranked.masked_fill(torch.arange(ranked.shape[-1], device=k.device) >= k[:, None], -torch.inf)
    mass = ranked.softmax(-1)
    mass = mass.masked_fill(mass.cumsum(-1) - mass >= p[:, None], 0.0)
    return torch.zeros_like(mass).scatter(-1, order, mass)


def _plan(canvases: Sequence[Canvas], prediction: Prediction, hidden: Tensor) -> _Plan:
    """Ranks each canvas's hidden positions by its order and says how many of them its next step reveals."""
    L = hidden.shape[1]
    order_logits = torch.nn.functional.pad(prediction.order_logits, (0, -L % LANES))  # [B, L']
    wide = torch.nn.functional.pad(hidden, (0, -L % LANES))
    sure = policies.confidence_of(prediction.token_logits) if policies.needs_confidence(canvases) else None
    if sure is not None:
        sure = policies.Confidence(*(torch.nn.functional.pad(x, (0, -L % LANES)) for x in sure))
    drawn = [policies.is_stochastic(c) for c in canvases]
    steps = torch.tensor([c.step for c in canvases], device=hidden.device)
    counts = torch.tensor([policies.planned_count(c, sum(c.hidden)) for c in canvases], device=hidden.device)
    still = None if all(drawn) else policies.fixed_keys(canvases, order_logits, sure)
    if any(drawn):
        where = torch.tensor(drawn, device=hidden.device)
        timed, steps = _race(canvases, policies.log_rates(canvases, order_logits), wide, steps, where)
        keys = timed.keys if still is None else torch.where(where[:, None], timed.keys, still)
        counts = torch.where(timed.counts > 0, timed.counts, counts)
        ranking = policies.rank(keys, wide)
        order_logprob = _order_logprobs(canvases, order_logits, wide, ranking, where)
    else:
        assert still is not None
        ranking = policies.rank(still, wide)
        order_logprob = torch.full(ranking.shape, torch.nan, dtype=torch.float64, device=hidden.device)
    if sure is not None:
        has_threshold = torch.tensor([c.params.threshold is not None for c in canvases], device=hidden.device)
        passing = policies.count_passing(canvases, sure, ranking).clamp(min=1)
        counts = torch.where(has_threshold, torch.minimum(passing, wide.sum(-1)), counts)
    return _Plan(ranking[:, :L], counts, steps, order_logprob[:, :L])


class _Race(NamedTuple):
    keys: Tensor  # [B, L] log arrival times
    counts: Tensor  # [B] arrivals within the time step; 0 for canvases without time steps


def _race(
    canvases: Sequence[Canvas], rates: Tensor, hidden: Tensor, steps: Tensor, drawn: Tensor
) -> tuple[_Race, Tensor]:
    """Runs the race of every row. A time step in which nothing arrives changes nothing, so the row goes on to its next
    one within the same forward; such steps are tried many at once."""
    total = torch.tensor([c.params.steps or 0 for c in canvases], device=rates.device)
    keys, counts, steps = policies.race_keys(canvases, rates, steps), torch.zeros_like(total), steps.clone()
    waiting = (drawn & (total > 0)).nonzero().squeeze(-1)  # [R]
    ahead = 1
    while len(waiting):
        tried = steps[waiting, None] + torch.arange(ahead, device=rates.device)  # [R, K]
        left = (total[waiting, None] - tried).clamp(min=1)
        times, arrivals = _arrivals(
            [canvases[i] for i in waiting.tolist()], rates[waiting], hidden[waiting], tried, left
        )
        has_any, first = (arrivals > 0).any(1), (arrivals > 0).int().argmax(1)
        rows = has_any.nonzero().squeeze(-1)
        keys[waiting[rows]], counts[waiting[rows]] = times[rows, first[rows]], arrivals[rows, first[rows]]
        steps[waiting] += torch.where(has_any, first, ahead)
        waiting, ahead = waiting[~has_any], _STEPS_AT_ONCE
    return _Race(keys, counts), steps


def _arrivals(
    canvases: Sequence[Canvas], rates: Tensor, hidden: Tensor, tried: Tensor, left: Tensor
) -> tuple[Tensor, Tensor]:
    """Log arrival times [R, K, L] at each of K time steps `tried` [R, K], and how many fall into each [R, K]."""
    R, K = tried.shape
    rates, hidden = rates.repeat_interleave(K, 0), hidden.repeat_interleave(K, 0)  # [R * K, L]
    times = policies.race_keys([c for c in canvases for _ in range(K)], rates, tried.flatten())
    end = policies.time_step(rates, hidden, left.flatten())
    return times.view(R, K, -1), (hidden & (times < end[:, None])).sum(-1).view(R, K)


def _order_logprobs(
    canvases: Sequence[Canvas], order_logits: Tensor, hidden: Tensor, ranking: Tensor, drawn: Tensor
) -> Tensor:
    """Plackett-Luce log-probability of each choice along the ranking, under the unmodified law; NaN if not drawn."""
    learned = torch.tensor([c.params.order == "learned" for c in canvases], device=order_logits.device)
    log_w = torch.where(learned[:, None], order_logits.to(torch.float64), 0.0)
    ranked = log_w.masked_fill(~hidden, -torch.inf).gather(1, ranking)
    remaining = ranked.flip(-1).logcumsumexp(-1).flip(-1)
    return torch.where(drawn[:, None], ranked - remaining, torch.nan)


def checked(prediction: Prediction, tokens: Tensor) -> Prediction:
    logits, order_logits = prediction
    if logits.shape[:2] != tokens.shape or order_logits.shape != tokens.shape:
        shapes = f"{tuple(logits.shape)} and {tuple(order_logits.shape)}"
        raise ValueError(f"the denoiser answered {shapes} for canvases {tuple(tokens.shape)}")
    return prediction


def decode(denoise: Denoiser, canvases: Sequence[Canvas], *, device: torch.device | None = None) -> Iterator[Decoded]:
    """Steps a whole batch to its end, giving out each step's reveals; for use without a service."""
    current = dict(enumerate(canvases))
    while pending := [index for index, canvas in current.items() if not canvas.is_complete]:
        results = step(denoise, [current[index] for index in pending], device=device)
        for index, result in zip(pending, results, strict=True):
            current[index] = result.canvas
            yield Decoded(index, result.canvas, result.reveals)
