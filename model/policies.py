"""Which hidden position is revealed next: every order policy as a key a position, smallest first. Knows no network.

Learned and uniform orders are an exponential race (`model.schedule`): position i arrives after a time
`E_i ~ Exponential(rate w_i)`, and the arrivals in ascending order are Plackett-Luce(w). The race has no memory, so it
is run afresh at every step among the hidden positions, which lets `w` depend on what has been revealed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.canvas import Canvas, OrderPolicy
from model.noise import gumbel, uniforms

_BISECTIONS = 60
_HEURISTICS: tuple[OrderPolicy, ...] = ("confidence", "margin", "entropy")


class Confidence(NamedTuple):
    """How sure the model is of each position, [B, L] float64 each, at temperature 1 over the whole vocabulary."""

    confidence: Tensor
    margin: Tensor
    entropy: Tensor


def confidence_of(token_logits: Tensor) -> Confidence:
    """Probability of the likeliest id, its lead over the second, and the entropy in nats: [B, L, V] -> [B, L] each."""
    log_p = token_logits.to(torch.float64).log_softmax(-1)
    p = log_p.exp()
    best = p.topk(min(2, p.shape[-1]), dim=-1).values
    margin = best[..., 0] - best[..., 1] if best.shape[-1] == 2 else best[..., 0]
    return Confidence(best[..., 0], margin, -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1))


def needs_confidence(canvases: Sequence[Canvas]) -> bool:
    """Whether any canvas asks for what only the token logits of every hidden position can tell."""
    return any(c.params.order in _HEURISTICS or c.params.threshold is not None for c in canvases)


def is_stochastic(canvas: Canvas) -> bool:
    """Whether the order is drawn, so that a reveal has an order log-probability."""
    return canvas.params.is_order_drawn


def log_rates(canvases: Sequence[Canvas], order_logits: Tensor) -> Tensor:
    """Log-rates of the race, [B, L] float64: the learned ones at the canvas's order temperature, or all equal."""
    learned = _column([c.params.order == "learned" for c in canvases], order_logits)
    temperature = _column([c.params.order_temperature or 1.0 for c in canvases], order_logits)
    return torch.where(learned.bool(), order_logits.to(torch.float64) / temperature, 0.0)


def race_keys(canvases: Sequence[Canvas], rates: Tensor, steps: Tensor) -> Tensor:
    """Logarithm of each position's arrival time at the canvas's own `steps` [B]: -(log w + Gumbel), [B, L] float64."""
    positions = torch.arange(rates.shape[1], device=rates.device)
    seeds = torch.tensor([c.seed for c in canvases], device=rates.device)
    noise, _ = uniforms(seeds[:, None], steps[:, None], positions, purpose="order")
    return -(rates + gumbel(noise))


def fixed_keys(canvases: Sequence[Canvas], order_logits: Tensor, sure: Confidence | None) -> Tensor:
    """Keys of the policies that draw nothing, [B, L] float64; rows of the others are left to right and not used."""
    B, L = order_logits.shape
    positions = torch.arange(L, dtype=torch.float64, device=order_logits.device)
    keys = positions.expand(B, L)
    for order in {c.params.order for c in canvases} - {"uniform", "left_to_right"}:
        own = _keys_of(order, canvases, order_logits, sure)
        rows = torch.tensor([c.params.order == order for c in canvases], device=order_logits.device)
        keys = torch.where(rows[:, None], own, keys)
    return keys


def _keys_of(order: OrderPolicy, canvases: Sequence[Canvas], order_logits: Tensor, sure: Confidence | None) -> Tensor:
    """[B, L] or [L] float64, right in the rows of this order."""
    L = order_logits.shape[1]
    if order == "learned":
        return -order_logits.to(torch.float64)
    if order == "right_to_left":
        return -torch.arange(L, dtype=torch.float64, device=order_logits.device)
    if order == "explicit":
        ranks = [_ranks(c.params.explicit_order or (), L) for c in canvases]
        return torch.tensor(ranks, dtype=torch.float64, device=order_logits.device)
    assert sure is not None
    return sure.entropy if order == "entropy" else -getattr(sure, order)


def _ranks(explicit_order: Sequence[int], length: int) -> list[float]:
    """When each position's turn comes; never, for those that are not listed."""
    ranks = [math.inf] * length
    for rank_, position in enumerate(explicit_order):
        ranks[position] = float(rank_)
    return ranks


def time_step(rates: Tensor, hidden: Tensor, steps_left: Tensor) -> Tensor:
    """Logarithm of the race time tau that ends this time step: [B, L], [B, L], [B] -> [B], infinite on the last step.

    A time step from t to s reveals the positions whose T_i falls into (s, t], which in the race is
    `E_i < tau = log(t/s)`. Only ratios of w matter, so the grid is free: tau is set such that the step is expected to
    reveal its equal share, `sum_i 1 - exp(-w_i tau) = hidden / steps_left`. Equal weights give the linear grid in t.
    """
    n = hidden.sum(-1)
    share = n / steps_left
    centre = rates.masked_fill(~hidden, -torch.inf).amax(-1, keepdim=True)
    low = torch.full_like(share, -40.0, dtype=torch.float64)  # of log tau, in units of the fastest position's rate
    high = (centre - rates.masked_fill(~hidden, torch.inf).amin(-1, keepdim=True)).squeeze(-1) + 10.0
    log_w = (rates - centre).masked_fill(~hidden, -torch.inf)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        expected = -torch.expm1(-(log_w + middle[:, None]).exp()).sum(-1)
        low, high = torch.where(expected < share, middle, low), torch.where(expected < share, high, middle)
    return torch.where(steps_left <= 1, torch.inf, (low + high) / 2 - centre.squeeze(-1))


def rank(keys: Tensor, hidden: Tensor) -> Tensor:
    """Positions by ascending key, hidden ones first, ties to the lowest position: [B, L] -> [B, L] int64."""
    return keys.masked_fill(~hidden, torch.inf).sort(dim=-1, stable=True).indices


def count_passing(canvases: Sequence[Canvas], sure: Confidence, ranking: Tensor) -> Tensor:
    """How many positions at the head of the ranking are sure enough for the canvas's threshold: [B].

    The measure is the order's own for margin and entropy, else the confidence.
    """
    passing = torch.zeros_like(ranking, dtype=torch.bool)
    for b, canvas in enumerate(canvases):
        threshold = canvas.params.threshold
        if threshold is None:
            continue
        if canvas.params.order == "entropy":
            passing[b] = sure.entropy[b] <= threshold
        else:
            passing[b] = (sure.margin if canvas.params.order == "margin" else sure.confidence)[b] >= threshold
    return passing.gather(1, ranking).long().cumprod(-1).sum(-1)


def planned_count(canvas: Canvas, num_hidden: int) -> int:
    """How many positions a canvas reveals in its next step, where that follows from the canvas alone."""
    params = canvas.params
    if params.tokens_per_step is not None:
        return min(params.tokens_per_step, num_hidden)
    if params.steps is not None:
        return math.ceil(num_hidden / max(params.steps - canvas.step, 1))
    return 1


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]
