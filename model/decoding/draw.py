"""Which id is drawn at a position: the largest of log-probability plus Gumbel noise.

The noise of an id does not depend on the logits, so rows with the same noise and similar logits mostly draw the same.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unveil.model.decoding.batch import groups
from unveil.model.decoding.canvas import Part, SamplingParams
from unveil.model.decoding.noise import Ints, token_gumbel
from unveil.model.denoiser import sent


def draw(log_p: Tensor, states: Ints, params: Sequence[SamplingParams]) -> tuple[Tensor, Tensor]:
    """Draws one id a row by the noise of its state [R]: [R, V'] -> ids [R], logprobs [R].

    Temperature, then top-k, then top-p (the smallest set of likeliest ids whose mass reaches p), then the largest of
    log-probability plus Gumbel noise, all in float64; ties go to the lowest id. An id of probability zero is never
    drawn where another is not. The log-probability is the unmodified model's. A row goes its own way whoever its
    neighbours are.
    """
    ways = tuple(groups([_way(own) for own in params]))
    if len(ways) == 1:
        ids = _scores(ways[0][0], log_p, states, params).argmax(-1)
    else:
        ids = torch.empty(len(log_p), dtype=torch.int64, device=log_p.device)
        for way, rows in ways:
            own = sent(np.array(rows), log_p.device)
            scores = _scores(way, log_p.index_select(0, own), states[rows], [params[row] for row in rows])
            ids.index_copy_(0, own, scores.argmax(-1))
    return ids, log_p.gather(-1, ids[:, None]).squeeze(-1)


def restricted(
    log_p: Tensor, parts: Sequence[Sequence[Part] | None], params: Sequence[SamplingParams]
) -> tuple[Tensor, list[float]]:
    """What `draw` is given so that each row draws from its tempered law restricted to its parts: [R, V'] -> [R, V'].
    And the logarithm of the mass that this law gives them, 0 for a row without parts and at temperature 0, where the
    likeliest of what is allowed is taken; minus infinity if nothing allowed can be."""
    limited = [row for row, own in enumerate(parts) if own is not None]
    if not limited:
        return log_p, [0.0] * len(parts)
    shares = np.zeros((len(limited), log_p.shape[1]))
    for place, row in enumerate(limited):
        for part in parts[row] or ():
            shares[place, part.token_id] += part.high - part.low
    rows, heat = sent(np.array(limited), log_p.device), [params[row].temperature for row in limited]
    with np.errstate(divide="ignore"):
        log_shares = sent(np.log(shares), log_p.device)
    t = sent(np.array(heat), log_p.device)[:, None]
    own, is_hot = log_p.index_select(0, rows), t > 0
    law = (own / torch.where(is_hot, t, 1.0)).log_softmax(-1) + log_shares
    likeliest = law.argmax(-1, keepdim=True)
    masses = (law.gather(-1, likeliest) - law.log_softmax(-1).gather(-1, likeliest)).squeeze(-1)
    masses = torch.where(law.isneginf().all(-1), -torch.inf, torch.where(is_hot[:, 0], masses, 0.0))
    log_masses = dict(zip(limited, masses.tolist(), strict=True))
    allowed = torch.where(log_shares.isneginf(), -torch.inf, own + torch.where(is_hot, t * log_shares, 0.0))
    return log_p.index_copy(0, rows, allowed), [log_masses.get(row, 0.0) for row in range(len(parts))]


def draws(log_p: Tensor, state: int, params: SamplingParams) -> list[tuple[int, float]]:
    """Every id that can be drawn, with its log-probability, one after the other without replacement: [V'] -> pairs.

    The first is what `draw` gives. Each next one is drawn from what is left, renormalised, since the largest scores of
    Gumbel noise are such draws in turn; at temperature 0 the likeliest of what is left.
    """
    scores = _scores(_way(params), log_p[None], np.array([state]), [params])[0]
    ranked, ids = scores.sort(descending=True, stable=True)
    possible = ids[ranked > -torch.inf]
    return list(zip(possible.tolist(), log_p[possible].tolist(), strict=True))


def likeliest(log_p: Tensor, counts: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
    """Of each row so many of its likeliest ids, with their log-probabilities: [R, V'] -> pairs. Ties go to the lowest
    id; what cannot be is left out."""
    asking = [row for row, count in enumerate(counts) if count]
    found = [tuple[tuple[int, float], ...]()] * len(counts)
    if asking:
        ranked, ids = log_p[asking].sort(dim=-1, descending=True, stable=True)
        most = max(counts)
        columns = zip(asking, ids[:, :most].tolist(), ranked[:, :most].tolist(), strict=True)
        for row, own_ids, own in columns:
            pairs = zip(own_ids[: counts[row]], own, strict=False)
            found[row] = tuple((token_id, logprob) for token_id, logprob in pairs if logprob > -math.inf)
    return found


def fetched(ids: Tensor, logprobs: Tensor) -> tuple[list[int], list[float]]:
    """What was drawn, on the host; from a device in one copy, in which float64 holds ids exactly."""
    if ids.device.type == "cpu":
        return ids.tolist(), logprobs.tolist()
    drawn, found = torch.stack([ids.double(), logprobs]).tolist()
    return [int(own) for own in drawn], found


Way = Literal["likeliest", "plain", "filtered"]


def _way(params: SamplingParams) -> Way:
    if params.temperature == 0:
        return "likeliest"
    return "plain" if params.top_k is None and params.top_p is None else "filtered"


def _scores(way: Way, log_p: Tensor, states: Ints, params: Sequence[SamplingParams]) -> Tensor:
    """The largest of a row is drawn: [R, V'] -> [R, V']."""
    if way == "likeliest":
        return log_p
    V = log_p.shape[-1]
    score = _tempered(log_p, [own.temperature for own in params])
    if way == "filtered":
        score = _filtered(score, [own.top_k or V for own in params], [own.top_p for own in params])
    return token_gumbel(states, V, log_p.device).add_(score)


def _tempered(log_p: Tensor, temperature: Sequence[float]) -> Tensor:
    """Log-probabilities [R, V'] at each row's temperature, up to a constant a row."""
    if temperature.count(1.0) == len(temperature):
        return log_p
    # Divided by a tensor even where all are the same: of a Python number some devices take the reciprocal, which rounds
    # differently, and a row would depend on its neighbours' temperatures.
    shared = temperature[:1] if temperature.count(temperature[0]) == len(temperature) else temperature
    return log_p / sent(np.array(shared, dtype=np.float64), log_p.device)[:, None]


def _filtered(score: Tensor, top_k: Sequence[int], top_p: Sequence[float | None]) -> Tensor:
    """Log-probabilities [R, V'] up to a constant a row, minus infinity at what top-k and then top-p leave out."""
    k = sent(np.array(top_k), score.device)
    p = sent(np.array([1.0 if p is None else p for p in top_p], dtype=np.float64), score.device)
    ranked, order = score.sort(dim=-1, descending=True, stable=True)
    ranked = ranked.masked_fill(torch.arange(ranked.shape[-1], device=k.device) >= k[:, None], -torch.inf)
    mass = ranked.softmax(-1)
    ranked = ranked.masked_fill(mass.cumsum(-1) - mass >= p[:, None], -torch.inf)
    return torch.empty_like(score).scatter_(-1, order, ranked)
