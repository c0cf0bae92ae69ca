"""How good a denoiser is under an order: NELBO, exact log-likelihood, prompts, imputation.

Every figure is a mean over rows of one split with its standard error, in nats a row. Two models, or two orders, are
compared on the same rows with the same noise, so their difference is paired.

All of it is one walk (`training/evaluation/walks.py`): a row's hidden positions become known one by one, each at the
cost of its own true value given what is known by then, in an order that a law of keys chooses (smallest first, ties to
the lowest position). A law may look at what the model says of the row, which has seen revealed values only, so every
walk is a factorisation of the row: without noise its cost is minus the exact log-likelihood, with noise it is one
unbiased draw of the NELBO. A network that reads ranks walks an order that is known ahead in one forward of the row
(`training/evaluation/conditionals.py`).

Rows whose tokenizer has an end of sequences (`Rows.end_id`) are walked as they are generated: a revealed end decides
what lies behind it, which costs nothing and has no turn, and no end is offered before a known token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unveil.model.confidence import confidence_of
from unveil.model.decoding.canvas import MAX_SEED
from unveil.model.decoding.noise import order_uniforms
from unveil.model.denoiser import Denoiser, Prediction, cross_entropy
from unveil.model.order.plackett_luce import gumbel_noise
from unveil.model.order.uniforms import gumbel
from unveil.training.data.rows import BATCH_ROWS, Rows, as_rows, known_sets
from unveil.training.evaluation.conditionals import ask, ask_in_turn, reads_ranks
from unveil.training.evaluation.estimate import Estimate
from unveil.training.evaluation.walks import walk

__all__ = [
    "Estimate",
    "Rows",
    "Walk",
    "as_rows",
    "imputation_accuracy",
    "known_sets",
    "law_walk",
    "log_likelihood",
    "marginal_nats",
    "nelbo",
    "num_forwards",
    "policy_log_likelihood",
    "policy_nelbo",
    "policy_walk",
]
Advance = Callable[[int], None]
Policy = Literal["learned", "confidence", "margin", "entropy"]
Keys = Callable[[Prediction, Tensor], Tensor]  # what the model says and the step's noise [B, L] -> keys [B, L]
Noise = Callable[[int], Tensor]  # the step -> [B, L] float64
_WHOLE_ROWS = 16  # in one forward: more are slower, as what is computed of them no longer fits into caches


@dataclass(frozen=True)
class Walk:
    """Each row's cost in nats [N] float64, the positions in the order they were revealed [N, L], -1 past its end, and
    whether every true value was the likeliest one when its turn came [N]: then taking the likeliest values, in this
    order, gives the row. What an end decided had no turn."""

    nats: Tensor
    order: Tensor
    is_solved: Tensor

    @property
    def steps(self) -> Tensor:
        """The step in which each position had its turn, counted from 0, or -1 where it had none: [N, L]."""
        was_hidden = self.order >= 0
        rows, steps = was_hidden.nonzero(as_tuple=True)
        found = torch.full_like(self.order, -1)
        found[rows, self.order[was_hidden]] = steps
        return found


def nelbo(
    denoise: Denoiser,
    rows: Rows,
    log_w: Tensor,
    *,
    seed: int,
    known: Tensor | None = None,
    advance: Advance | None = None,
) -> Tensor:
    """An unbiased estimate of each row's NELBO under Plackett-Luce(log_w), in nats: [N] float64.

    One order is drawn a row, and the row is scored exactly along it, in L forwards or one. (Summing the next position
    out at every prefix would be unbiased too, and far noisier: what a position costs whatever is known would be counted
    a random number of times instead of once.) The order depends on `seed` alone through its noise, so two laws share
    their random numbers. With `known` [N, L] the bound is of the rest given what is known.
    """
    return law_walk(denoise, rows, log_w, seed=seed, known=known, advance=advance).nats


@torch.inference_mode()
def law_walk(
    denoise: Denoiser,
    rows: Rows,
    log_w: Tensor,
    *,
    seed: int,
    known: Tensor | None = None,
    advance: Advance | None = None,
) -> Walk:
    """Cost and order of each row along an order of its own, drawn from Plackett-Luce(log_w): see `nelbo`."""
    noise = gumbel_noise(rows.x.shape, torch.Generator().manual_seed(seed)).to(rows.x.device)
    return _known_ahead(denoise, rows, -(log_w.double() + noise), ~_given(rows, known), advance)


@torch.inference_mode()
def marginal_nats(
    denoise: Denoiser, rows: Rows, scored: Tensor, *, seed: int, advance: Advance | None = None
) -> Tensor:
    """`-log p(x_C)` of each row's positions `scored` [N, L] along a uniform order of C, drawn by `seed`: [N] nats.

    The rest stays hidden to the end: this is `/score`, the marginal of the decoder that reveals C first.
    """
    noise = gumbel_noise(rows.x.shape, torch.Generator().manual_seed(seed)).to(rows.x.device)
    return _known_ahead(denoise, rows, -noise, ~rows.given, advance, scored=scored).nats


@torch.inference_mode()
def log_likelihood(
    denoise: Denoiser,
    rows: Rows,
    order: Sequence[int],
    *,
    known: Tensor | None = None,
    advance: Advance | None = None,
) -> Tensor:
    """Each row's exact log-likelihood when positions are revealed in this very order: [N] float64, nats, in L forwards
    or one."""
    places = torch.empty(len(order), dtype=torch.float64, device=rows.x.device)
    places[list(order)] = torch.arange(len(order), dtype=torch.float64, device=rows.x.device)
    return -_known_ahead(denoise, rows, places.expand(rows.x.shape), ~_given(rows, known), advance).nats


def policy_nelbo(
    denoise: Denoiser, rows: Rows, *, seed: int, known: Tensor | None = None, advance: Advance | None = None
) -> Tensor:
    """As `nelbo`, under the model's own policy `order_logits`, which may depend on what is revealed: [N] float64.

    One rollout a row that follows the row's true values. The race is run afresh at every step: noise kept by position
    would favour, at the second step, positions that lost the first one narrowly, and so be biased.
    """
    return policy_walk(denoise, rows, "learned", seed=seed, known=known, advance=advance).nats


def policy_log_likelihood(
    denoise: Denoiser,
    rows: Rows,
    policy: Policy,
    *,
    known: Tensor | None = None,
    advance: Advance | None = None,
) -> Tensor:
    """Each row's exact log-likelihood along the order that a policy takes when it is deployed: [N] float64, nats.

    `learned` is the policy's likeliest next position at every step; the others are the sampler's heuristics.
    """
    return -policy_walk(denoise, rows, policy, known=known, advance=advance).nats


@torch.inference_mode()
def policy_walk(
    denoise: Denoiser,
    rows: Rows,
    policy: Policy,
    *,
    seed: int | None = None,
    known: Tensor | None = None,
    advance: Advance | None = None,
) -> Walk:
    """Cost and order of each row along a policy. A `seed` draws from the learned one, and goes with no other.

    A row's noise depends on the seed, its own number, the step and the position, as in the sampler's orders.
    """
    keys = _KEYS[policy]
    if seed is None:
        return _noiseless(denoise, rows, keys, known, advance)
    assert policy == "learned", f"{policy} draws nothing"
    own_seeds = torch.randint(MAX_SEED, (len(rows),), generator=torch.Generator().manual_seed(seed))
    walks = [
        _walk(denoise, batch, ~given, keys, _fresh_noise(seeds, batch.x.shape[1]), advance)
        for batch, (seeds, given) in rows.batches(own_seeds.to(rows.x.device), _given(rows, known))
    ]
    return _joined(walks)


@torch.inference_mode()
def imputation_accuracy(denoise: Denoiser, rows: Rows) -> Tensor:
    """Share of rows whose likeliest id is right when one position alone is hidden, and all others were known from the
    start: [L] float64."""
    hits = torch.zeros(rows.x.shape[1], dtype=torch.float64, device=rows.x.device)
    for batch, _ in rows.batches():
        for position in range(rows.x.shape[1]):
            hidden = torch.zeros_like(batch.padding)
            hidden[:, position] = True
            found = ask(denoise, batch.x, hidden, batch.lengths, None, end_id=rows.end_id)
            logits = found.token_logits[:, position]
            hits[position] += (logits.argmax(-1) == batch.x[:, position]).sum()
    return hits / len(rows)


def num_forwards(rows: Rows, *, chains: int) -> int:
    """Row-forwards that so many calls of `nelbo`, `log_likelihood` or `policy_walk` take, for a progress bar; a whole
    row in one forward is told as L."""
    return chains * len(rows) * rows.x.shape[1]


def _learned_keys(prediction: Prediction, z: Tensor) -> Tensor:
    return -(prediction.order_logits.double() + z)


_KEYS: dict[Policy, Keys] = {
    "learned": _learned_keys,
    "confidence": lambda prediction, z: z - confidence_of(prediction.token_logits).confidence,
    "margin": lambda prediction, z: z - confidence_of(prediction.token_logits).margin,
    "entropy": lambda prediction, z: z + confidence_of(prediction.token_logits).entropy,
}


def _given(rows: Rows, known: Tensor | None) -> Tensor:
    return rows.given if known is None else rows.given | known


def _constant(z: Tensor) -> Noise:
    return lambda _: z


def _fresh_noise(seeds: Tensor, L: int) -> Noise:
    """Gumbel noise of its own for each of these rows at each step."""
    positions = torch.arange(L, device=seeds.device)

    def noise(step: int) -> Tensor:
        steps = torch.full_like(seeds, step)
        return gumbel(order_uniforms(seeds[:, None], steps[:, None], positions))

    return noise


def _known_ahead(
    denoise: Denoiser,
    rows: Rows,
    keys: Tensor,
    hidden: Tensor,
    advance: Advance | None,
    *,
    scored: Tensor | None = None,
) -> Walk:
    """Reveals what is `hidden` [N, L], only what is `scored` of it if that is given, along fixed `keys` [N, L]."""
    is_whole = reads_ranks(denoise)
    wanted = hidden if scored is None else hidden & scored
    walks = []
    for batch, (k, unseen, own) in rows.batches(keys, hidden, wanted, size=_WHOLE_ROWS if is_whole else BATCH_ROWS):
        if is_whole:
            walks.append(_in_one_forward(denoise, batch, k, unseen, own))
            if advance is not None:
                advance(batch.x.numel())
        else:
            walks.append(_walk(denoise, batch, unseen, lambda _, z: z, _constant(k), advance, scored=own))
    return _joined(walks)


def _in_one_forward(denoise: Denoiser, batch: Rows, keys: Tensor, hidden: Tensor, wanted: Tensor) -> Walk:
    """What is `wanted` [B, L] of the hidden positions, by keys [B, L]; the others are hidden to the end."""
    L = batch.x.shape[1]
    if batch.end_id is not None:
        _, places = _turns(keys, wanted)
        wanted = wanted & ~_decided(places, wanted & (batch.x == batch.end_id))
    order, turns = _turns(keys, wanted)
    ranks = turns.masked_fill(~wanted, L + 1).masked_fill(~hidden, 0)  # nobody reads the last rank
    logits = ask_in_turn(denoise, batch.x, ranks, batch.lengths, end_id=batch.end_id).token_logits
    losses = cross_entropy(logits, batch.x).double().masked_fill(~wanted, 0.0)
    is_right = (logits.argmax(-1) == batch.x) | ~wanted
    is_past = torch.arange(L, device=order.device) >= wanted.sum(-1, keepdim=True)
    return Walk(losses.sum(-1), order.masked_fill(is_past, -1), is_right.all(-1))


def _turns(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The positions by their keys [B, L], all that is wanted first, and the turn of each, counted from 1: [B, L]."""
    order = keys.masked_fill(~wanted, torch.inf).argsort(dim=-1, stable=True)
    turns = torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order)
    return order, torch.zeros_like(order).scatter(-1, order, turns)


def _decided(turns: Tensor, ends: Tensor) -> Tensor:
    """The ends behind one whose turn comes earlier: turns [B, L] of all positions, `ends` [B, L] bool."""
    first = turns.masked_fill(~ends, turns.shape[1] + 1).cummin(-1).values  # up to each position, itself included
    return ends & (first < turns)


def _noiseless(denoise: Denoiser, rows: Rows, keys: Keys, known: Tensor | None, advance: Advance | None) -> Walk:
    walks = []
    for batch, (given,) in rows.batches(_given(rows, known)):
        zero = torch.zeros(given.shape, dtype=torch.float64, device=given.device)
        walks.append(_walk(denoise, batch, ~given, keys, _constant(zero), advance))
    return _joined(walks)


def _joined(walks: Sequence[Walk]) -> Walk:
    return Walk(*(torch.cat([getattr(walk, part) for walk in walks]) for part in ("nats", "order", "is_solved")))


def _walk(
    denoise: Denoiser,
    batch: Rows,
    hidden: Tensor,
    keys: Keys,
    noise: Noise,
    advance: Advance | None,
    *,
    scored: Tensor | None = None,
) -> Walk:
    """Reveals `hidden` [B, L], only what is `scored` of it if that is given, one position a step."""
    nats = torch.zeros(len(batch), dtype=torch.float64, device=hidden.device)
    order = torch.full_like(batch.x, -1)
    is_solved = torch.ones(len(batch), dtype=torch.bool, device=hidden.device)

    def see(rows: Tensor, unseen: Tensor, ranks: Tensor) -> Prediction:
        return ask(denoise, batch.x[rows], unseen, batch.lengths[rows], ranks, end_id=batch.end_id)

    def take(prediction: Prediction, free: Tensor, rows: Tensor, number: int) -> Tensor:
        ranked = keys(prediction, noise(number)[rows]).masked_fill(~free, torch.inf)
        first = ranked.argmin(-1, keepdim=True)  # [A, 1], the first of equals
        return torch.zeros_like(free).scatter(1, first, True)

    left = hidden.shape[1]  # steps, if the longest row had nothing known
    ends = None if batch.end_id is None else batch.x == batch.end_id
    for number, step in enumerate(walk(hidden.clone(), see=see, take=take, wanted=scored, ends=ends)):
        x, chosen = batch.x[step.rows], step.taken.long().argmax(-1, keepdim=True)  # [A, 1]
        nats[step.rows] += _loss_at(step.seen, x, chosen).double()
        is_solved[step.rows] &= _is_likeliest(step.seen, x, chosen)
        order[step.rows, number] = chosen.squeeze(-1)
        left -= 1
        if advance is not None:
            advance(len(batch))
    if advance is not None:
        advance(len(batch) * left)
    return Walk(nats, order, is_solved)


def _loss_at(prediction: Prediction, x: Tensor, chosen: Tensor) -> Tensor:
    """`CE` of one position a row: [B, L, V] logits, [B, L] ids, [B, 1] positions -> [B]."""
    logits = prediction.token_logits.take_along_dim(chosen[..., None], dim=1)  # [B, 1, V]
    return cross_entropy(logits, x.gather(1, chosen)).squeeze(-1)


def _is_likeliest(prediction: Prediction, x: Tensor, chosen: Tensor) -> Tensor:
    """Whether the true id is the likeliest of one position a row (the lowest of equals): as `_loss_at`."""
    logits = prediction.token_logits.take_along_dim(chosen[..., None], dim=1)
    return logits.argmax(-1).eq(x.gather(1, chosen)).squeeze(-1)
