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
from typing import NamedTuple

import numpy as np
import torch

from unveil.model.decoding.batch import Batch, Sureness, begin
from unveil.model.decoding.loop import Group, run
from unveil.model.decoding.order_keys import Ints, rank
from unveil.model.decoding.scoring_chain import Chain, Term
from unveil.model.decoding.step_plan import batch_keys
from unveil.model.denoiser import Denoiser, Stages


class ScoreResult(NamedTuple):
    """A chain after a step, and what the step cost."""

    chain: Chain
    term: Term


Step = Callable[[Sequence[Chain]], list[ScoreResult]]


@torch.inference_mode()
def score_step(
    denoise: Denoiser | Stages, chains: Sequence[Chain], *, device: torch.device | None = None
) -> list[ScoreResult]:
    """Reveals and scores the next position of every chain; none may be complete.

    Raises ValueError if the denoiser's output does not fit the canvases or gives a cost that is not a number.
    """
    assert chains
    assert not any(chain.is_complete for chain in chains)
    batch = begin(denoise, [chain.canvas for chain in chains], device=device)
    chosen = _choose(chains, batch)
    results = []
    for chain, position, cost in zip(chains, chosen.tolist(), _costs(chains, batch, chosen), strict=True):
        if not math.isfinite(cost):
            raise ValueError(f"the denoiser's logits at position {position} are not finite")
        results.append(ScoreResult(chain.after([position]), Term(position, chain.canvas.step, cost)))
    return results


def score(
    step: Step, chains: Sequence[Chain], *, max_batch: int, group: Group[Chain] | None = None
) -> list[list[Term]]:
    """Each chain to its end: its terms, in the order in which they were revealed. For use without a service.

    The steps of a chain whose order is known ahead do not wait for one another: each is a chain of its own, so that
    they share batches. `group` is that of `model.decoding.loop.run`.
    """
    terms: list[list[Term]] = [[] for _ in chains]
    orders = {index: order for index, chain in enumerate(chains) if (order := chain.order_ahead()) is not None}
    links = [(index, k) for index in orders for k in range(chains[index].num_pending)]
    walks = [index for index in range(len(chains)) if index not in orders]
    linked = (chains[index].link(orders[index], k) for index, k in links)
    for stepped in run(step, linked, max_batch=max_batch, group=group):
        for place, _, term in stepped:
            terms[links[place][0]].append(term)
    for stepped in run(step, (chains[index] for index in walks), max_batch=max_batch, group=group):
        for place, _, term in stepped:
            terms[walks[place]].append(term)
    return terms


def _choose(chains: Sequence[Chain], batch: Batch) -> Ints:
    """Each chain's next position: the pending one of the smallest key, ties to the lowest."""
    W = batch.hidden.shape[1]
    pending = np.array([chain.pending + (False,) * (W - len(chain.pending)) for chain in chains])
    return rank(batch_keys(batch, Sureness(batch)).keys, pending, is_whole=False)[:, 0]


def _costs(chains: Sequence[Chain], batch: Batch, chosen: Ints) -> list[float]:
    """`-log p` of the true id at each chain's chosen position, computed as the sampler computes a reveal's."""
    log_p = batch.log_p(np.arange(len(chains)), chosen)  # [B, V']
    true = torch.tensor([chain.truth[i] for chain, i in zip(chains, chosen.tolist(), strict=True)], device=log_p.device)
    nats: list[float] = (0.0 - log_p.gather(-1, true[:, None]).squeeze(-1)).tolist()
    return nats
