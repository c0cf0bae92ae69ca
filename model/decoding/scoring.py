"""One scoring step over a batch of chains, on any callable denoiser.

As the sampler's step, with the true value in place of a drawn token: one forward, each chain's next position by its
order, its cost in nats. A chain's future does not depend on its neighbours as long as the denoiser's rows do not.

The law of an order over the known positions C is the generating one restricted to C, for drawn orders
`pi(i | x_S) = w_i(x_S) / sum_{j in C - S} w_j(x_S)`. Of a global w that is the law of C's own order in the full one.
Orders never see a value before it is revealed, so with every law `E[sum_k CE(sigma_k | sigma_<k)]` bounds
`-log E[p_sigma(x_C)]` from above (arXiv 2511.19152, Prop. 3.1; arXiv 2503.05979 for laws that depend on x_S).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from unveil.model.decoding.ahead import plan_ahead
from unveil.model.decoding.batch import (
    AnyDenoiser,
    Batch,
    RowScorer,
    Sureness,
    bar_ends,
    begin,
    groups,
    log_probabilities,
    release,
)
from unveil.model.decoding.canvas import absorbed_by, last_token
from unveil.model.decoding.loop import Group, Release, run
from unveil.model.decoding.noise import Floats
from unveil.model.decoding.order_keys import Ints, rank
from unveil.model.decoding.scoring_chain import Chain, Term
from unveil.model.decoding.step_plan import batch_keys


class ScoreResult(NamedTuple):
    """A chain after a step, and what the step cost: a term, or those of the whole rest of its order."""

    chain: Chain
    terms: tuple[Term, ...]


Step = Callable[[Sequence[Chain]], list[ScoreResult]]
Links = Callable[[Chain], Sequence[int] | None]


@torch.inference_mode()
def score_step(
    denoise: AnyDenoiser, chains: Sequence[Chain], *, device: torch.device | None = None
) -> list[ScoreResult]:
    """Reveals and scores the next position of every chain, or all that is left of it where a denoiser that is
    autoregressive along its order needs one forward for that; none may be complete.

    Raises ValueError if the denoiser's output does not fit the canvases or gives a cost that is not a number.
    """
    assert chains
    assert not any(chain.is_complete for chain in chains)
    ahead: Floats | None = getattr(denoise, "order_ahead", None)
    whole = [i for i, chain in enumerate(chains) if ahead is not None and chain.canvas.params.measure is None]
    steps = [i for i in range(len(chains)) if i not in set(whole)]
    results: dict[int, ScoreResult] = {}
    if ahead is not None and whole:
        results.update(zip(whole, _score_rows(denoise, [chains[i] for i in whole], ahead), strict=True))
    if steps:
        results.update(zip(steps, _score_next(denoise, [chains[i] for i in steps], device), strict=True))
    return [results[i] for i in range(len(chains))]


def _score_next(denoise: AnyDenoiser, chains: Sequence[Chain], device: torch.device | None) -> list[ScoreResult]:
    """The next position of each, and what it decides."""
    batch = begin(denoise, [chain.canvas for chain in chains], device=device)
    sure = Sureness(batch)
    chosen = _choose(chains, batch, sure).tolist()
    costs = [0.0] * len(chains)
    for measure, at in groups(sure.measures):
        rows, positions = np.array(at), np.array([chosen[i] for i in at])
        log_p = batch.log_p(rows, positions) if measure is None else sure.log_p(measure, rows, positions)
        found = _costs(log_p, [chains[i].truth[chosen[i]] for i in at], positions.tolist())
        for i, cost in zip(at, found, strict=True):
            costs[i] = cost
    results = [
        _result(chain, [position], [cost], batch.end_id)
        for chain, position, cost in zip(chains, chosen, costs, strict=True)
    ]
    revealed = [[term.position for term in result.terms] for result in results]
    batch.opened.advance([result.chain.canvas for result in results], revealed)
    release(denoise, [result.chain.canvas for result in results if result.chain.is_complete])
    return results


def _score_rows(denoise: AnyDenoiser, chains: Sequence[Chain], order_logits: Floats) -> list[ScoreResult]:
    """All that is left of each, in one forward."""
    canvases = [chain.canvas for chain in chains]
    batch = begin(denoise, canvases)
    orders = orders_ahead(chains, order_logits, batch.end_id)
    logits = cast(RowScorer, batch.opened).in_turn(orders, [chain.truth for chain in chains])
    release(denoise, canvases)
    if batch.end_id is not None:
        barred = [_barred(chain, order, batch.end_id) for chain, order in zip(chains, orders, strict=True)]
        logits = bar_ends(logits, np.array([own for flags in barred for own in flags]), batch.end_id)
    places = [position for order in orders for position in order]
    true = [chain.truth[position] for chain, order in zip(chains, orders, strict=True) for position in order]
    costs = iter(_costs(log_probabilities(logits), true, places))
    return [
        _result(chain, order, [next(costs) for _ in order], batch.end_id)
        for chain, order in zip(chains, orders, strict=True)
    ]


def _result(chain: Chain, order: Sequence[int], costs: Sequence[float], end_id: int | None) -> ScoreResult:
    """The chain after these positions, with what ends among them decide."""
    pending, terms = list(chain.pending), list[Term]()
    for step, (position, cost) in enumerate(zip(order, costs, strict=True), chain.canvas.step):
        terms.append(Term(position, step, cost))
        pending[position] = False
        if chain.truth[position] == end_id:
            for absorbed in absorbed_by(position, pending):
                terms.append(Term(absorbed, step, 0.0, is_absorbed=True))
                pending[absorbed] = False
    return ScoreResult(chain.after(order, [term.position for term in terms if term.is_absorbed]), tuple(terms))


def _barred(chain: Chain, order: Sequence[int], end_id: int) -> list[bool]:
    """At each position of the order, whether a token behind it is known by then."""
    last, barred = last_token(chain.canvas, end_id), list[bool]()
    for position in order:
        barred.append(position < last)
        last = max(last, position) if chain.truth[position] != end_id else last
    return barred


def orders_ahead(chains: Sequence[Chain], order_logits: Floats, end_id: int | None = None) -> list[list[int]]:
    """The order in which each chain reveals what is pending, where order logits [W] are the same for every canvas;
    without what an end decides."""
    W = len(order_logits)
    pending = np.array([chain.pending + (False,) * (W - len(chain.pending)) for chain in chains])
    ends = np.array([[i == end_id for i in chain.truth] + [False] * (W - len(chain.truth)) for chain in chains])
    num = int(pending.sum(1).max())
    planned = plan_ahead([chain.canvas for chain in chains], pending, order_logits, num, ends=ends & pending)
    counts = planned.counts.tolist()
    return [order[:count] for order, count in zip(planned.positions.tolist(), counts, strict=True)]


def score(
    step: Step,
    chains: Sequence[Chain],
    *,
    max_batch: int,
    group: Group[Chain] | None = None,
    links: Links = Chain.order_ahead,
    release: Release[Chain] | None = None,
) -> list[list[Term]]:
    """Each chain to its end: its terms, in the order in which they were revealed. For use without a service.

    The steps of a chain of which `links` tells the order do not wait for one another: each is a chain of its own, so
    that they share batches. `group` and `release` are those of `model.decoding.loop.run`.
    """
    terms: list[list[Term]] = [[] for _ in chains]
    orders = {index: order for index, chain in enumerate(chains) if (order := links(chain)) is not None}
    linked = [(index, k) for index in orders for k in range(chains[index].num_pending)]
    walks = [index for index in range(len(chains)) if index not in orders]
    parts = (chains[index].link(orders[index], k) for index, k in linked)
    for stepped in run(step, parts, max_batch=max_batch, group=group, release=release):
        for place, _, found in stepped:
            terms[linked[place][0]] += found
    for stepped in run(step, (chains[i] for i in walks), max_batch=max_batch, group=group, release=release):
        for place, _, found in stepped:
            terms[walks[place]] += found
    return terms


def _choose(chains: Sequence[Chain], batch: Batch, sure: Sureness) -> Ints:
    """Each chain's next position: the pending one of the smallest key, ties to the lowest."""
    W = batch.hidden.shape[1]
    pending = np.array([chain.pending + (False,) * (W - len(chain.pending)) for chain in chains])
    return rank(batch_keys(batch, sure).keys, pending, is_whole=False)[:, 0]


def _costs(log_p: Tensor, true: Sequence[int], positions: Sequence[int]) -> list[float]:
    """`-log p` of the true id at each position, from log-probabilities [R, V']. ValueError for what is not finite."""
    ids = torch.tensor(true, device=log_p.device)
    nats: list[float] = (0.0 - log_p.gather(-1, ids[:, None]).squeeze(-1)).tolist()
    for position, cost in zip(positions, nats, strict=True):
        if not math.isfinite(cost):
            raise ValueError(f"the denoiser's logits at position {position} are not finite")
    return nats
