"""Exact NELBOs, likelihoods and best orders of short sequences whose conditionals depend on the order of the past.

The oracle of networks that read ranks, where subsets (`model/oracle/exact.py`) do not do:
every ordered prefix is enumerated, 1,957 of six positions. A table [..., P, L] has a row a prefix: token tables hold
`CE(i | prefix)`, order tables `log pi(i | prefix)`; what they say of positions that a prefix does not hide is never
read. All results are float64 and, where smooth, differentiable.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.order.plackett_luce import next_log_probs

CrossEntropy = Callable[[Tensor, Tensor], Tensor]


class OrderedPrefixes(NamedTuple):
    """All ordered prefixes of n positions of L, P of them: the empty one first, complete orders last, each length in
    lexicographic order.

    `ranks` [P, L] are what a network is given: 0 what is known from the start, 1, 2, ... what the prefix reveals, and
    the number after those what is hidden. `children` [P, L] is the prefix with this position added, -1 where it is not
    hidden.
    """

    ranks: Tensor
    children: Tensor

    @property
    def hidden(self) -> Tensor:
        """[P, L] bool."""
        return self.children >= 0

    @property
    def complete(self) -> Tensor:
        """Which prefixes are whole orders, [P] bool."""
        return ~self.hidden.any(-1)

    @property
    def orders(self) -> Tensor:
        """The whole orders, as positions in the order of their reveal: [n!, n]."""
        ranks = self.ranks[self.complete]
        return ranks.argsort(-1)[:, int((ranks[0] == 0).sum()) :]


def ordered_prefixes(L: int, *, known: Sequence[int] = ()) -> OrderedPrefixes:
    """Of the positions of a row of length L that are not `known` from the start."""
    level = torch.ones(1, L, dtype=torch.int64)
    level[:, list(known)] = 0
    levels, children, first = [], [], 0
    for size in range(L - len(set(known)) + 1):
        hidden = level == size + 1
        row, position = hidden.nonzero(as_tuple=True)
        first += len(level)
        levels.append(level)
        children.append(torch.full_like(level, -1).masked_scatter(hidden, first + torch.arange(len(row))))
        level = torch.where(hidden, level + 1, level)[row]
        level[torch.arange(len(row)), position] = size + 1
    return OrderedPrefixes(torch.cat(levels), torch.cat(children))


def ordered_table(
    cross_entropy: CrossEntropy, x: Tensor, prefixes: OrderedPrefixes, *, max_rows: int = 16384
) -> Tensor:
    """`CE(i | prefix)` for clean ids x [B, L] -> [B, P, L] float64, 0 where nothing is hidden.

    `cross_entropy` maps clean ids and ranks, [N, L] each, to nats [N, L]; it must ignore ids where hidden, where ranks
    are highest. It is called with at most about `max_rows` rows at a time.
    """
    B, L = x.shape
    pieces = []
    at_once = max(1, max_rows // B)
    for ranks, hidden in zip(torch.split(prefixes.ranks, at_once), torch.split(prefixes.hidden, at_once), strict=True):
        shape = (B, *ranks.shape)  # [B, C, L]
        rows = x[:, None].expand(shape).reshape(-1, L)
        nats = cross_entropy(rows, ranks.expand(shape).reshape(-1, L))
        pieces.append(nats.double().view(shape).masked_fill(~hidden, 0.0))
    return torch.cat(pieces, dim=1)


def law_table(log_w: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """`log pi(i | prefix)` of a Plackett-Luce law: [..., L] -> [..., P, L], minus infinity where nothing is hidden."""
    hidden = prefixes.hidden
    return next_log_probs(log_w[..., None, :].expand(*log_w.shape[:-1], *hidden.shape), hidden)


def exact_nelbo(log_w: Tensor, ce: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """`sum_prefix P(prefix) sum_i pi(i | prefix) CE(i | prefix)`: [L] and [..., P, L] -> [...], in nats."""
    return table_nelbo(law_table(log_w, prefixes), ce, prefixes)


def table_nelbo(order_logprob: Tensor, ce: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """The same under any order law, context-dependent ones included: two tables [..., P, L] -> [...], in nats."""
    step = order_logprob.double()
    weights = (_path_sums(step, prefixes)[..., None] + step).exp()
    return (weights * ce.double()).masked_fill(~prefixes.hidden, 0.0).sum((-2, -1))


def log_likelihood(ce: Tensor, order_logprob: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """`log p(x)` with the order summed out: two tables [..., P, L] that broadcast -> [...]. Never below minus the NELBO
    of the same law."""
    return _path_sums(order_logprob.double() - ce.double(), prefixes)[..., prefixes.complete].logsumexp(-1)


def order_nelbo(ce: Tensor, sigma: Sequence[int], prefixes: OrderedPrefixes) -> Tensor:
    """`sum_k CE(sigma_k | sigma_1 ... sigma_k-1)`, minus the exact log-likelihood under this one order of the n
    positions: [..., P, L] -> [...], in nats."""
    assert len(set(sigma)) == len(sigma) == prefixes.orders.shape[1]
    total, prefix = ce.new_zeros(ce.shape[:-2], dtype=torch.float64), 0
    for position in sigma:
        total = total + ce[..., prefix, position]
        prefix = int(prefixes.children[prefix, position])
    return total


def best_order(ce: Tensor, prefixes: OrderedPrefixes) -> tuple[Tensor, Tensor]:
    """The least `order_nelbo` of all orders, and the order that attains it: [..., P, L] -> [...] nats, [..., n]. For
    one order of many rows give the mean of their tables."""
    least, index = _path_sums(ce.double(), prefixes)[..., prefixes.complete].min(-1)
    return least, prefixes.orders[index]


def _levels(prefixes: OrderedPrefixes) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each length but that of whole orders: prefixes, positions that each hides, and the prefixes that come of
    them, all [C]."""
    level = torch.zeros(1, dtype=torch.int64)
    while len(level):
        row, position = prefixes.hidden[level].nonzero(as_tuple=True)
        before, level = level[row], prefixes.children[level[row], position]
        yield before, position, level


def _path_sums(step: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """The sum of a table's steps [..., P, L] on the way from the empty prefix to each: [..., P]."""
    sums = step.new_zeros(step.shape[:-1])
    for before, position, after in _levels(prefixes):
        sums = sums.index_copy(-1, after, sums[..., before] + step[..., before, position])
    return sums
