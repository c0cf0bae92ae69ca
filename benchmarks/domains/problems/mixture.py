"""The exact likelihood of a mixture of orders: one drawn for each sample, the same few for all rows."""

from collections.abc import Iterable, Sequence
from math import log

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser, cross_entropy
from unveil.model.order.plackett_luce import gumbel_noise, plackett_luce_order
from unveil.training.data.rows import Rows
from unveil.training.evaluation.conditionals import reads_ranks
from unveil.training.evaluation.likelihood import log_likelihood


def drawn_orders(log_w: Tensor, num: int, *, seed: int) -> list[list[int]]:
    """`num` orders from Plackett-Luce(log_w), log-weights [L]. Laws share their random numbers at equal seeds."""
    noise = gumbel_noise((num, len(log_w)), torch.Generator().manual_seed(seed))
    orders: list[list[int]] = plackett_luce_order(log_w.expand(num, -1), noise).tolist()
    return orders


@torch.inference_mode()
def mixture_log_likelihood(denoise: Denoiser, rows: Rows, orders: Sequence[Sequence[int]]) -> Tensor:
    """`log (1/K) sum_k p(x | sigma_k)` of each row x for K orders, in nats: [N] float64.

    This is the exact log-likelihood of the model that draws one of these K orders and follows it. As an estimate of the
    mixture over all orders it is too low on average (Jensen, over the draw of the orders), as the NELBO is, but closer:
    the NELBO is its mean for K = 1 (Burda et al. 2015, arXiv 1509.00519). No row may be padded or show clues.
    """
    assert not rows.given.any(), "every position of every row is revealed"
    if reads_ranks(denoise):  # prefixes are not shared as sets, but a whole row is one forward
        along = [log_likelihood(denoise, rows, order) for order in orders]
        return torch.stack(along).logsumexp(0) - log(len(orders))
    return torch.cat([_mixture(denoise, batch, orders) for batch, _ in rows.batches()])


def _mixture(denoise: Denoiser, batch: Rows, orders: Sequence[Sequence[int]]) -> Tensor:
    """Orders share prefix sets, so each set costs one forward of the rows."""
    costs: dict[frozenset[int], Tensor] = {}

    def cost(prefix: frozenset[int]) -> Tensor:
        if prefix not in costs:
            costs[prefix] = _costs(denoise, batch, prefix)
        return costs[prefix]

    along = [
        torch.stack([cost(frozenset(order[:k]))[:, order[k]] for k in range(len(order))]).sum(0) for order in orders
    ]
    return (-torch.stack(along)).logsumexp(0) - log(len(orders))


def _costs(denoise: Denoiser, batch: Rows, prefix: Iterable[int]) -> Tensor:
    """`-log p(x_i | x_S)` at every position i outside of S: [B, L] float64."""
    hidden = torch.ones_like(batch.padding)
    hidden[:, list(prefix)] = False
    logits = denoise(batch.x.masked_fill(hidden, 0), hidden, batch.lengths).token_logits
    return cross_entropy(logits, batch.x).double()
