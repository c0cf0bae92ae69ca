"""Exact NELBOs, likelihoods, best and worst orders of short sequences, by dynamic programming over all subsets.

The oracle that estimators and orders are judged by, for L up to about 12. A subset of revealed positions is an index S
in [0, 2**L) whose bit i says that position i is revealed; a table [..., 2**L, L] has a row a subset. Token tables hold
`CE(i | S)`, order tables `log pi(i | S)`; what they say of positions already in S is never read. All results are
float64 and, where smooth, differentiable.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from unveil.model.order.plackett_luce import next_log_probs
from unveil.model.order.schedule import PolynomialSchedule

CrossEntropy = Callable[[Tensor, Tensor], Tensor]
_NEVER = -1e30  # stands in for log 0 inside sums: minus infinity would give NaN gradients


def subset_masks(L: int, *, device: torch.device | None = None) -> Tensor:
    """Which positions each subset reveals: [2**L, L] bool."""
    bits = torch.arange(L, device=device)
    return ((torch.arange(2**L, device=device)[:, None] >> bits) & 1).bool()


def subset_table(cross_entropy: CrossEntropy, x: Tensor, *, max_rows: int = 16384) -> Tensor:
    """`CE(i | S)` of every subset for clean ids x [B, L] -> [B, 2**L, L] float64, 0 at positions in S.

    `cross_entropy` maps clean ids and hidden sets, [N, L] each, to nats [N, L]; it must ignore ids where hidden. It
    is called with at most about `max_rows` rows at a time. Gradients are kept unless the caller turns them off.
    """
    B, L = x.shape
    pieces = []
    for revealed in torch.split(subset_masks(L, device=x.device), max(1, max_rows // B)):
        hidden = ~revealed.expand(B, *revealed.shape)  # [B, C, L]
        rows = x[:, None].expand(hidden.shape).reshape(-1, L)
        pieces.append(cross_entropy(rows, hidden.reshape(-1, L)).double().view(hidden.shape).masked_fill(~hidden, 0.0))
    return torch.cat(pieces, dim=1)


def order_table(log_w: Tensor) -> Tensor:
    """`log pi(i | S)` of a Plackett-Luce law: [..., L] -> [..., 2**L, L], minus infinity inside S."""
    hidden = ~subset_masks(log_w.shape[-1], device=log_w.device)
    return next_log_probs(log_w[..., None, :].expand(*log_w.shape[:-1], *hidden.shape), hidden)


def prefix_probabilities(log_w: Tensor) -> Tensor:
    """`P(S)`, the chance that S is what the first |S| reveals cover: [..., L] -> [..., 2**L].

    P({}) = 1, P(S) = sum_{l in S} P(S - l) w_l / w(not (S - l)).
    """
    return _log_path_sums(order_table(log_w)).exp()


def exact_nelbo(log_w: Tensor, ce: Tensor) -> Tensor:
    """`L(w) = sum_S P(S) sum_{l not in S} pi(l | S) CE(l | S)`: [L] and [..., 2**L, L] -> [...], in nats."""
    return table_nelbo(order_table(log_w), ce)


def table_nelbo(order_logprob: Tensor, ce: Tensor) -> Tensor:
    """The NELBO under any order law, context-dependent ones included: two tables [..., 2**L, L] -> [...], in nats."""
    weights = (_log_path_sums(order_logprob)[..., None] + order_logprob.double().clamp(min=_NEVER)).exp()
    return (weights * _hidden_part(ce)).sum((-2, -1))


def log_likelihood(token_logprob: Tensor, order_logprob: Tensor) -> Tensor:
    """`log p(x) = log F(all)` with the order summed out: two tables [..., 2**L, L] that broadcast -> [...].

    F({}) = 1, F(S + l) += F(S) pi(l | S) p(x_l | x_S), in log space. Never below minus the NELBO of the same law.
    """
    total = _log_path_sums(token_logprob.double() + order_logprob.double())[..., -1]
    return total.masked_fill(total <= _NEVER / 2, -torch.inf)


def order_nelbo(ce: Tensor, sigma: Tensor) -> Tensor:
    """`sum_k CE(sigma_k | sigma_<k)`, minus the exact log-likelihood under this one order, in nats.

    Tables [..., 2**L, L] and sigma [L] or [..., L] -> [...].
    """
    sigma = sigma.expand(*ce.shape[:-2], ce.shape[-1])
    bits = 1 << sigma
    prefixes = bits.cumsum(-1) - bits  # [..., L], the subset before each reveal
    return ce.double().flatten(-2).gather(-1, prefixes * ce.shape[-1] + sigma).sum(-1)


def best_order(ce: Tensor) -> tuple[Tensor, Tensor]:
    """`V*({})` and the order that attains it, by Held-Karp: [..., 2**L, L] -> [...] nats and sigma [..., L].

    V*(S) = min_{l not in S} CE(l | S) + V*(S + l). Ties go to the lowest position. For one order of many rows give the
    mean of their tables; a table a row would choose in hindsight.
    """
    ce = ce.double()
    L = ce.shape[-1]
    value = ce.new_zeros(ce.shape[:-1])  # [..., 2**L]
    choice = torch.zeros_like(value, dtype=torch.int64)
    for subsets, _, hidden in reversed(list(_layers(L, ce.device))):
        if hidden.shape[1] == 0:
            continue
        costs = ce[..., subsets[:, None], hidden] + value[..., subsets[:, None] | (1 << hidden)]  # [..., C, L - k]
        least, index = costs.min(-1)
        value = value.index_copy(-1, subsets, least)
        choice = choice.index_copy(-1, subsets, hidden.expand(costs.shape).gather(-1, index[..., None])[..., 0])
    return value[..., 0], _follow(choice, L)


def worst_order(ce: Tensor) -> tuple[Tensor, Tensor]:
    """As `best_order`, for the order of the largest NELBO."""
    value, sigma = best_order(-ce)
    return -value, sigma


def best_policy(ce: Tensor, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """The contextual optimum `V*({})` in nats, and the choice that attains it at every subset of every row.

    V*(x_S) = min_{l not in S} E_{x_l | x_S}[CE(l | x_S) + V*(x_{S + l})] under the true law: `x` [N, L] is all of its
    support, without repeats, `p` [N] its probabilities, `ce` [N, 2**L, L] their tables. Rows that agree on S share one
    choice, so no policy is clairvoyant. -> scalar and choices [N, 2**L] int64, -1 where nothing is hidden. Ties go to
    the lowest position.
    """
    N, L = x.shape
    ce, p = ce.double(), p.double() / p.sum()
    value = ce.new_zeros(N, 2**L)
    choice = torch.full((N, 2**L), -1, dtype=torch.int64, device=ce.device)
    for subsets, revealed, hidden in reversed(list(_layers(L, ce.device))):
        for S, inside, outside in zip(subsets.tolist(), revealed, hidden, strict=True):
            if len(outside) == 0:
                continue
            group = _same_context(x[:, inside])
            costs = ce[:, S, outside] + value[:, S | (1 << outside)]  # [N, L - k]
            sums = costs.new_zeros(N, len(outside)).index_add(0, group, p[:, None] * costs)
            mass = p.new_zeros(N).index_add(0, group, p).clamp(min=1e-300)
            least, index = (sums / mass[:, None]).min(-1)  # a value a group
            value[:, S], choice[:, S] = least[group], outside[index[group]]
    return value[0, 0], choice


def policy_cost(ce: Tensor, choice: Tensor) -> Tensor:
    """Each row's nats along the order that its choices [N, 2**L] lead to: tables [N, 2**L, L] -> [N]."""
    return order_nelbo(ce, _follow(choice, ce.shape[-1]))


def continuous_nelbo(log_w: Tensor, ce: Tensor, *, num_nodes: int = 256) -> Tensor:
    """Eq. 8, `int_0^1 E[sum_{i masked} (w_i / t) CE_i] dt`, by quadrature: [L], [..., 2**L, L] -> [...], in nats.

    The integrand is singular at t = 0 wherever some w_i < 1, so the trapezoidal rule is taken in y = log(-log t), where
    it is analytic and dies off at both ends: 256 nodes give 1e-10 while weights differ by factors up to exp(20).
    """
    w = PolynomialSchedule(log_w).w
    start, stop = math.log(1e-17 / float(w.detach().sum())), math.log(45.0 / float(w.detach().min()))
    y = torch.linspace(start, stop, num_nodes, dtype=torch.float64, device=w.device)
    r = y.exp()  # -log t, [N]
    log_masked = -r[:, None] * w  # [N, L]
    log_visible = torch.log(-torch.expm1(log_masked))
    revealed = subset_masks(len(w), device=w.device).double()
    subset_log_probs = log_visible @ revealed.T + log_masked @ (1 - revealed).T  # [N, 2**L]
    # dt / t = -dr = -r dy: the 1 / t of the loss weight is gone.
    density = (r[:, None] * subset_log_probs.exp()).sum(0) * (stop - start) / (num_nodes - 1)  # [2**L]
    return (density[:, None] * w * _hidden_part(ce)).sum((-2, -1))


def _hidden_part(ce: Tensor) -> Tensor:
    """The table with zeros at revealed positions, whatever stood there."""
    assert ce.shape[-2] == 2 ** ce.shape[-1]
    return ce.double().masked_fill(subset_masks(ce.shape[-1], device=ce.device), 0.0)


def _layers(L: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each size k: the subsets of that size [C], what they reveal [C, k] and what they hide [C, L - k]."""
    masks = subset_masks(L, device=device)
    sizes = masks.sum(-1)
    for k in range(L + 1):
        subsets = (sizes == k).nonzero()[:, 0]
        revealed = masks[subsets]
        C = len(subsets)
        yield subsets, revealed.nonzero()[:, 1].view(C, k), (~revealed).nonzero()[:, 1].view(C, L - k)


def _log_path_sums(step: Tensor) -> Tensor:
    """log of the sum over all ways to reveal S one by one of the product of steps: [..., 2**L, L] -> [..., 2**L]."""
    step = step.double().clamp(min=_NEVER)
    paths = step.new_zeros(step.shape[:-1])
    for subsets, revealed, _ in _layers(step.shape[-1], step.device):
        if revealed.shape[1] == 0:
            continue
        before = subsets[:, None] ^ (1 << revealed)  # [C, k]
        paths = paths.index_copy(-1, subsets, (paths[..., before] + step[..., before, revealed]).logsumexp(-1))
    return paths


def _same_context(visible: Tensor) -> Tensor:
    """The same number for rows [N, k] that are equal: [N]."""
    if visible.shape[1] == 0:
        return torch.zeros(len(visible), dtype=torch.int64, device=visible.device)
    numbers: Tensor = torch.unique(visible, dim=0, return_inverse=True)[1]
    return numbers


def _follow(choice: Tensor, L: int) -> Tensor:
    """The order that a table of choices [..., 2**L] leads to from the empty set: [..., L]."""
    subset = torch.zeros_like(choice[..., :1])
    sigma = []
    for _ in range(L):
        position = choice.gather(-1, subset)
        sigma.append(position)
        subset = subset | (1 << position)
    return torch.cat(sigma, dim=-1)
